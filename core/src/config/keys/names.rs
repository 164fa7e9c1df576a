//! Names of keys in the environment, and the nearest name to one that does not exist.

use super::{Key, all};

/// ConfigMap keys of a backend's own options start with this: `backend.<name>.<key>`.
pub(in crate::config) const SECTION_PREFIX: &str = "backend.";

/// Path in the values file under which backends have their own options.
const SECTION_HELM: &str = "backendConfig";

/// Environment variable of a key: its path in the values file in upper case, `__` between the parts.
///
/// A key without a path has its ConfigMap name instead.
#[must_use]
pub fn env_name(key: &Key) -> String {
    let path = if key.helm.is_empty() { key.key } else { key.helm };
    let parts: Vec<_> = path.split('.').map(screaming).collect();
    format!("{}{}", crate::config::layers::ENV_PREFIX, parts.join("__"))
}

/// `autoDirectNodeRoutes` to `AUTO_DIRECT_NODE_ROUTES`, `ipv4NativeRoutingCIDR` to `IPV4_NATIVE_ROUTING_CIDR`.
fn screaming(part: &str) -> String {
    let letters: Vec<char> = part.chars().collect();
    let mut found = String::with_capacity(part.len() + 4);
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| letters[before]);
        let after = letters.get(index + 1);
        let starts_word = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || (before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase))
            })
            // "IPv4" is one word.
            && !part[..index].ends_with("IPv");
        if starts_word && !found.ends_with('_') {
            found.push('_');
        }
        found.push(if *letter == '-' { '_' } else { letter.to_ascii_uppercase() });
    }
    found.replace("_I_PV", "_IPV").replace("I_PV", "IPV")
}

/// The same for two spellings of one name: `LOW_WATERMARK`, `lowWatermark`, `low-watermark`.
pub(in crate::config) fn squeeze(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '_' | '-')).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// ConfigMap key of a variable, its prefix taken off; `None` if there is no such key.
///
/// Both the path in the values file and the ConfigMap name are understood.
pub(in crate::config) fn key_of_env(variable: &str) -> Option<String> {
    let parts: Vec<&str> = variable.split("__").collect();
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    if let [section, name, rest @ ..] = parts.as_slice()
        && squeeze(section) == squeeze(SECTION_HELM)
        && !rest.is_empty()
    {
        let rest: Vec<_> = rest.iter().map(|part| camel(part)).collect();
        return Some(format!("{SECTION_PREFIX}{}.{}", name.to_ascii_lowercase(), rest.join(".")));
    }
    let wanted: Vec<_> = parts.iter().map(|part| squeeze(part)).collect();
    let same = |path: &str| path.split('.').map(squeeze).eq(wanted.iter().cloned());
    all()
        .find(|key| !key.helm.is_empty() && same(key.helm))
        .or_else(|| all().find(|key| same(key.key)))
        .map(|key| key.key.to_owned())
}

/// `LOW_WATERMARK` to `lowWatermark`.
fn camel(part: &str) -> String {
    let mut words = part.split('_').filter(|word| !word.is_empty()).map(str::to_ascii_lowercase);
    let mut found = words.next().unwrap_or_default();
    for word in words {
        let mut letters = word.chars();
        found.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        found.extend(letters);
    }
    found
}

/// `did you mean ...`, or where the list of ConfigMap keys is.
pub(in crate::config) fn nearest(key: &str) -> String {
    let flat = |path: &str| squeeze(&path.replace('.', ""));
    // A values path that strayed into the ConfigMap is named by its own key.
    if let Some(found) = all().find(|found| !found.helm.is_empty() && flat(found.helm) == flat(key)) {
        return format!("did you mean {:?}?", found.key);
    }
    did_you_mean(key, all().map(|found| found.key.to_owned()))
        .unwrap_or_else(|| "remove it; `kinesin config view` lists the keys".to_owned())
}

/// The same for paths in the values file.
pub(in crate::config) fn nearest_helm(path: &str) -> String {
    if let Some(found) = super::find(path).filter(|found| !found.helm.is_empty()) {
        return format!("did you mean {:?}?", found.helm);
    }
    did_you_mean(path, all().filter(|found| !found.helm.is_empty()).map(|found| found.helm.to_owned()))
        .unwrap_or_else(|| "remove it; a key of the ConfigMap goes under extraConfig".to_owned())
}

/// The same for environment variables, their prefix taken off.
pub(in crate::config) fn nearest_env(variable: &str) -> String {
    let wanted = format!("{}{variable}", crate::config::layers::ENV_PREFIX);
    did_you_mean(&wanted, all().map(env_name)).unwrap_or_else(|| "unset it".to_owned())
}

/// The most similar candidate, if one is similar at all.
pub(in crate::config) fn did_you_mean(wanted: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    const SIMILAR: f64 = 0.75;
    let lower = wanted.to_ascii_lowercase();
    candidates
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| format!("did you mean {candidate:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_follow_from_the_values_path() {
        let cases = [
            ("routing-mode", "KINESIN__ROUTING_MODE"),
            ("ipv4-native-routing-cidr", "KINESIN__IPV4_NATIVE_ROUTING_CIDR"),
            ("enable-tcx", "KINESIN__BPF__ENABLE_TCX"),
            ("ipam", "KINESIN__IPAM__MODE"),
            ("backends.load-balancer", "KINESIN__BACKENDS__LOAD_BALANCER"),
            ("mtu", "KINESIN__MTU"),
            ("cluster-pool-ipv4-cidr", "KINESIN__IPAM__OPERATOR__CLUSTER_POOL_IPV4_POD_CIDR_LIST"),
            ("state-dir", "KINESIN__STATE_DIR"),
        ];
        for (key, variable) in cases {
            let found = crate::config::keys::find(key).expect(key);
            assert_eq!(env_name(found), variable);
        }
    }

    #[test]
    fn every_variable_is_found_again() {
        for key in all() {
            let name = env_name(key);
            let path = name.strip_prefix("KINESIN__").expect("the prefix");
            assert_eq!(key_of_env(path).as_deref(), Some(key.key), "{name}");
        }
    }

    #[test]
    fn sections_are_reached_from_the_environment() {
        assert_eq!(key_of_env("BACKEND_CONFIG__EBPF__LOW_WATERMARK").as_deref(), Some("backend.ebpf.lowWatermark"));
        assert_eq!(key_of_env("BACKEND_CONFIG__CLUSTER_POOL__A__B_C").as_deref(), Some("backend.cluster_pool.a.bC"));
        assert_eq!(key_of_env("BACKEND_CONFIG__EBPF"), None);
        assert_eq!(key_of_env("BACKEND_CONFIG____X"), None);
    }

    #[test]
    fn misspelt_names_are_answered_with_the_nearest() {
        assert_eq!(nearest("routing-mod"), "did you mean \"routing-mode\"?");
        assert_eq!(nearest("routingMode"), "did you mean \"routing-mode\"?");
        assert_eq!(nearest_helm("routingMod"), "did you mean \"routingMode\"?");
        assert_eq!(nearest_helm("routing-mode"), "did you mean \"routingMode\"?");
        assert_eq!(nearest_env("ROUTING_MOD"), "did you mean \"KINESIN__ROUTING_MODE\"?");
        assert_eq!(nearest("zzz"), "remove it; `kinesin config view` lists the keys");
    }
}
