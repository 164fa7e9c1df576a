//! Which pool a Pod's addresses come from: what its annotations and those of its namespace say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use kinesin_cluster::{ClusterNamespace, LocalPod, PodIPPool, Table};
use kinesin_core::values::Family;

/// Annotation for both families.
const POOL: &str = "ipam.cilium.io/ip-pool";
/// Longest name of an object, in bytes.
const MAX_POOL: usize = 253;
/// How much of a name that cannot be is shown.
const SHOWN: usize = 63;
/// How long ADD waits for a Pod that its kubelet knows and this agent does not: both learn of it by a watch.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_millis(25);

/// A pool per family; the mode's default where none is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PoolChoice {
    pub(crate) ipv4: Option<String>,
    pub(crate) ipv6: Option<String>,
}

impl PoolChoice {
    pub(crate) fn of(&self, family: Family) -> Option<&str> {
        match family {
            Family::V4 => self.ipv4.as_deref(),
            Family::V6 => self.ipv6.as_deref(),
        }
    }
}

/// What is known of a Pod and of its namespace; absent for what is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) pod: Option<KnownPod>,
    pub(crate) namespace: Option<BTreeMap<String, String>>,
}

/// What is known of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KnownPod {
    pub(crate) uid: String,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Where Pods and namespaces are looked up.
pub(crate) trait PodFacts: fmt::Debug + Send + Sync {
    /// What is known of a Pod now.
    fn look_up(&self, namespace: &str, name: &str) -> Known;

    /// Whether a Pod is there and may still need addresses; absent while nobody knows.
    fn is_wanted(&self, _namespace: &str, _name: &str) -> Option<bool> {
        None
    }
}

/// The tables of this node's Pods, and of all namespaces and pools.
#[derive(Debug)]
pub(crate) struct PodTables {
    pub(crate) pods: Table<LocalPod>,
    pub(crate) namespaces: Table<ClusterNamespace>,
    pub(crate) pools: Table<PodIPPool>,
}

impl PodTables {
    /// The pools that there are, as far as that is known.
    pub(crate) fn existing_pools(&self) -> Option<BTreeSet<String>> {
        let pools = self.pools.snapshot();
        let there = pools.items.iter().filter(|(_, pool)| !pool.terminating);
        pools.synced.then(|| there.map(|(name, _)| name.clone()).collect())
    }
}

impl PodFacts for PodTables {
    fn look_up(&self, namespace: &str, name: &str) -> Known {
        let pods = self.pods.snapshot();
        let pod = pods.items.get(&format!("{namespace}/{name}"));
        let namespaces = self.namespaces.snapshot();
        Known {
            pod: pod.map(|pod| KnownPod { uid: pod.uid.clone(), annotations: pod.annotations.clone() }),
            namespace: namespaces.items.get(namespace).map(|found| found.annotations.clone()),
        }
    }

    fn is_wanted(&self, namespace: &str, name: &str) -> Option<bool> {
        let (pods, key) = (self.pods.snapshot(), format!("{namespace}/{name}"));
        let is_there = || pods.items.get(&key).map_or(pods.rejected.contains_key(&key), LocalPod::needs_addresses);
        pods.synced.then(is_there)
    }
}

/// A Pod whose pool is not known. Asked again a moment later, the answer may be another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownPod {
    /// Too little is known of the Pod yet.
    #[error(
        "pod {namespace}/{name} is not known to this node's agent yet ({missing}), so its address pool is not known; it is \
         tried again"
    )]
    Pod { namespace: String, name: String, missing: &'static str },
    /// Its pool cannot exist.
    #[error(
        "pod {namespace}/{name} or its namespace names {pool:?} as address pool (annotation ipam.cilium.io/ip-pool), and no \
         CiliumPodIPPool can be called so: write lower-case letters, digits, - and ., at most {MAX_POOL} of them"
    )]
    Pool { namespace: String, name: String, pool: String },
}

/// The pools of a Pod, waiting a moment for what is not known yet.
pub(crate) async fn choose(
    facts: &dyn PodFacts,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<PoolChoice, UnknownPod> {
    let deadline = tokio::time::Instant::now() + KNOWN_WITHIN;
    loop {
        let of_pod = || (namespace.to_owned(), name.to_owned());
        let missing = match chosen(&facts.look_up(namespace, name), uid) {
            Ok(choice) => {
                let named = [&choice.ipv4, &choice.ipv6].into_iter().flatten();
                let Some(pool) = named.into_iter().find(|pool| !is_name(pool)) else { return Ok(choice) };
                let (namespace, name) = of_pod();
                return Err(UnknownPod::Pool { namespace, name, pool: pool.chars().take(SHOWN).collect() });
            }
            Err(missing) => missing,
        };
        if tokio::time::Instant::now() >= deadline {
            let (namespace, name) = of_pod();
            return Err(UnknownPod::Pod { namespace, name, missing });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether an object can be called so: a subdomain of RFC 1123. What cannot exist is asked of nobody, so that what a Pod
/// names costs this node's CiliumNode no more room than names have.
fn is_name(pool: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    pool.len() <= MAX_POOL
        && pool.chars().all(|c| ends(c) || c == '-' || c == '.')
        && pool.split('.').all(|part| part.starts_with(ends) && part.ends_with(ends))
}

/// The Pod's word before its namespace's; at one level the word for one family before that for both (reference 5.4).
fn chosen(known: &Known, uid: &str) -> Result<PoolChoice, &'static str> {
    let pod = known.pod.as_ref().ok_or("no such pod")?;
    // A static Pod has another uid for its kubelet than for the API: the hash of its manifest.
    let is_mirror = pod.annotations.contains_key("kubernetes.io/config.mirror");
    if !uid.is_empty() && !pod.uid.is_empty() && pod.uid != uid && !is_mirror {
        return Err("only an earlier pod of this name");
    }
    let namespace = known.namespace.as_ref().ok_or("no such namespace")?;
    let of = |family: &str| {
        let levels = [&pod.annotations, namespace].into_iter();
        levels.flat_map(|level| [level.get(family), level.get(POOL)]).flatten().find(|pool| !pool.is_empty()).cloned()
    };
    Ok(PoolChoice { ipv4: of("ipam.cilium.io/ipv4-pool"), ipv6: of("ipam.cilium.io/ipv6-pool") })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (format!("ipam.cilium.io/{key}"), (*value).to_owned())).collect()
    }

    fn known(pod: &[(&str, &str)], namespace: &[(&str, &str)]) -> Known {
        let pod = KnownPod { uid: "u1".to_owned(), annotations: annotations(pod) };
        Known { pod: Some(pod), namespace: Some(annotations(namespace)) }
    }

    #[test]
    fn the_pod_is_asked_before_its_namespace_and_the_family_before_both() {
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        type Case<'a> = (Pairs<'a>, Pairs<'a>, (Option<&'a str>, Option<&'a str>));
        let cases: [Case<'_>; 7] = [
            (&[], &[], (None, None)),
            (&[("ip-pool", "a")], &[("ip-pool", "n"), ("ipv4-pool", "n4")], (Some("a"), Some("a"))),
            (&[("ip-pool", "a"), ("ipv4-pool", "a4")], &[], (Some("a4"), Some("a"))),
            (&[], &[("ip-pool", "n"), ("ipv6-pool", "n6")], (Some("n"), Some("n6"))),
            (&[("ipv6-pool", "a6")], &[("ip-pool", "n")], (Some("n"), Some("a6"))),
            (&[("ipv4-pool", "a4")], &[], (Some("a4"), None)),
            (&[("ip-pool", "")], &[("ip-pool", "n")], (Some("n"), Some("n"))),
        ];
        for (pod, namespace, (ipv4, ipv6)) in cases {
            let found = chosen(&known(pod, namespace), "u1").expect("known");
            assert_eq!((found.ipv4.as_deref(), found.ipv6.as_deref()), (ipv4, ipv6), "{pod:?} {namespace:?}");
        }
    }

    #[test]
    fn an_earlier_pod_of_the_name_does_not_answer_for_this_one_but_a_mirror_does() {
        let mut facts = known(&[("ip-pool", "a")], &[]);
        assert_eq!(chosen(&facts, "u2"), Err("only an earlier pod of this name"));
        assert!(chosen(&facts, "").is_ok(), "a runtime that tells no uid");
        if let Some(pod) = &mut facts.pod {
            pod.annotations.insert("kubernetes.io/config.mirror".to_owned(), "u2".to_owned());
        }
        assert!(chosen(&facts, "u2").is_ok());
    }

    #[tokio::test]
    async fn a_pool_that_cannot_exist_is_refused_at_once() {
        #[derive(Debug)]
        struct Named(String);
        impl PodFacts for Named {
            fn look_up(&self, _: &str, _: &str) -> Known {
                known(&[("ip-pool", &self.0)], &[])
            }
        }
        for pool in ["vac", "a", "no-engine", "a.b-2", &"a".repeat(253)] {
            assert!(choose(&Named(pool.to_owned()), "ns", "web", "u1").await.is_ok(), "{pool}");
        }
        for pool in ["Vac", "../x", "a,b", "-a", "a-", "a..b", "ä", " ", &"a".repeat(200_000)] {
            let error = choose(&Named(pool.to_owned()), "ns", "web", "u1").await.expect_err("no name").to_string();
            assert!(error.starts_with("pod ns/web or its namespace names ") && error.len() < 400, "{error}");
        }
    }

    /// Knows the pod from the third look on.
    #[derive(Debug, Default)]
    struct Late(AtomicU32);

    impl PodFacts for Late {
        fn look_up(&self, _: &str, name: &str) -> Known {
            if name == "late" && self.0.fetch_add(1, Ordering::SeqCst) > 1 {
                known(&[("ip-pool", "a")], &[])
            } else {
                Known::default()
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_not_known_yet_is_waited_for_and_then_named() {
        let found = choose(&Late::default(), "ns", "late", "u1").await.expect("known in time");
        assert_eq!(found.ipv4.as_deref(), Some("a"));
        let error = choose(&Late::default(), "ns", "never", "u1").await.expect_err("unknown");
        assert!(error.to_string().starts_with("pod ns/never is not known to this node's agent yet"), "{error}");
    }
}
