//! `new-backend`: a crate with a small backend that passes its contract, for whoever writes one to start from.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};

use crate::args::{NewBackendArgs, Role};

/// Longest name; it becomes part of names of files, crates and configuration keys.
const MAX_NAME: usize = 32;
/// Names that cargo or rustc keep for themselves, or that the crate's own dependencies have.
const TAKEN: [&str; 14] = [
    "agent",
    "alloc",
    "async_trait",
    "backend",
    "contracts",
    "core",
    "default",
    "deps",
    "ipnet",
    "proc_macro",
    "serde",
    "std",
    "test",
    "tests",
];
/// Words of the language (Rust reference, "Keywords"); no crate can be called so.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Where the dependencies on Kinesin lead.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kinesin {
    /// A working tree on this machine.
    Tree(PathBuf),
    /// A repository that cargo can fetch.
    Git(String),
}

/// Writes the crate; the answer says what to do next.
pub(crate) fn new_backend(args: &NewBackendArgs) -> anyhow::Result<String> {
    let name = registry_name(&args.name)?;
    let kinesin = Kinesin::find(args.kinesin.as_deref())?;
    let crate_name = name.replace('_', "-");
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(&crate_name));
    let is_free = match fs::read_dir(&dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("cannot look into {}", dir.display())),
    };
    ensure!(is_free, "{} has files in it already; name another directory by --dir", dir.display());
    for (path, text) in files(&name, args.role, &kinesin) {
        write(&dir.join(path), &text)?;
    }
    if let Kinesin::Tree(tree) = &kinesin {
        // The same versions as Kinesin's, which are known to go together.
        let lock = tree.join("Cargo.lock");
        if lock.is_file() {
            fs::copy(&lock, dir.join("Cargo.lock")).with_context(|| format!("cannot copy {}", lock.display()))?;
        }
    }
    let root = if args.role == Role::Routing { " (as root: it makes network namespaces)" } else { "" };
    Ok(format!(
        "{} is a backend called {name} that passes every behaviour of its role. Next:\n  cd {0}\n  cargo test{root}\nThen \
         change src/backend.rs; README.md says where everything is.\n",
        dir.display()
    ))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The name as users write it in `backends:`.
fn registry_name(text: &str) -> anyhow::Result<String> {
    let name = text.replace('-', "_");
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('_')
        && !name.contains("__");
    ensure!(
        is_plain && name.len() <= MAX_NAME,
        "{text:?} cannot be a backend's name; write at most {MAX_NAME} lower-case letters, digits and single - or _, a letter \
         first, such as sticky"
    );
    let is_taken = KEYWORDS.contains(&name.as_str()) || TAKEN.contains(&name.as_str()) || name.starts_with("kinesin");
    ensure!(!is_taken, "{text:?} is a name that Rust, cargo or Kinesin have given away; choose another one");
    Ok(name)
}

impl Kinesin {
    fn find(asked: Option<&str>) -> anyhow::Result<Self> {
        match asked {
            Some(url) if url.contains("://") || url.starts_with("git@") => Ok(Self::Git(url.to_owned())),
            Some(path) => {
                let tree = fs::canonicalize(path).with_context(|| format!("cannot find {path}"))?;
                ensure!(is_tree(&tree), "{path} is no working tree of Kinesin: it has no core/Cargo.toml");
                Ok(Self::Tree(tree))
            }
            None => {
                let here = env::current_dir().context("cannot find the current directory")?;
                if let Some(tree) = here.ancestors().find(|dir| is_tree(dir)) {
                    return Ok(Self::Tree(tree.to_owned()));
                }
                if env!("CARGO_PKG_REPOSITORY").is_empty() {
                    bail!("say where Kinesin's sources are: --kinesin with a path or the URL of a git repository");
                }
                Ok(Self::Git(env!("CARGO_PKG_REPOSITORY").to_owned()))
            }
        }
    }

    /// A dependency on a crate of Kinesin's, by its directory.
    fn dependency(&self, dir: &str, more: &str) -> String {
        match self {
            // Both forms escape what they must alike.
            Self::Tree(tree) => format!("{{ path = {:?}{more} }}", tree.join(dir).display().to_string()),
            Self::Git(url) => format!("{{ git = {url:?}{more} }}"),
        }
    }
}

fn is_tree(dir: &Path) -> bool {
    fs::read_to_string(dir.join("core/Cargo.toml")).is_ok_and(|text| text.contains("name = \"kinesin-core\""))
}

/// Every file with its text.
fn files(name: &str, role: Role, kinesin: &Kinesin) -> Vec<(&'static str, String)> {
    let (crate_name, serde) = (name.replace('_', "-"), "serde = { version = \"1\", features = [\"derive\"] }\n");
    let netlink = format!("kinesin-netlink = {}\n", kinesin.dependency("datapath/netlink", ""));
    let (descriptor, behaviour, summary, dependencies, backend) = match role {
        Role::Ipam => (
            "IpamBackend",
            "IPAM-3",
            "the node's pod CIDRs, the next free address each time",
            serde.to_owned(),
            include_str!("../templates/new-backend/ipam/backend.rs.in"),
        ),
        Role::Routing => (
            "RoutingBackend",
            "ROUTING-4",
            "a route to the pod CIDRs of each node on the same segment",
            netlink + serde,
            include_str!("../templates/new-backend/routing/backend.rs.in"),
        ),
    };
    let (does, leaves, privileges, other) = match role {
        Role::Ipam => (
            "It leases from the node's pod CIDRs, one address of each family for a pod, going round so that an address\nrests \
             before it is leased again.",
            "Nothing: what was leased, the agent keeps and gives back after a restart.",
            "no privileges",
            // The default, so that the agent runs without a word about routing.
            ("encap-vxlan", "kinesin_encap_vxlan"),
        ),
        Role::Routing => (
            "For each pod CIDR of another node it sets a route via that node's address over the first uplink. So it needs\n\
             nodes that are neighbours on one segment; what is not is told to be out of reach.",
            "Routes with protocol number 199 in the main table; `retire` removes them, and\n\
             `ip route flush protocol 199` and `ip -6 route flush protocol 199` do.",
            "as root: the contract makes network namespaces",
            ("host-scope", "kinesin_host_scope"),
        ),
    };
    let other_dir = if role == Role::Ipam { "backends/encap-vxlan" } else { "ipam-plugins/host-scope" };
    let ident = name.to_owned();
    let mut uses = ["kinesin_ebpf_tc", other.1, &ident].map(|found| format!("use {found} as _;"));
    uses.sort();
    let values = [
        ("{kinesin:conformance:bare}", kinesin.dependency("conformance", ", default-features = false")),
        ("{kinesin:backends/ebpf-tc}", kinesin.dependency("backends/ebpf-tc", "")),
        ("{kinesin:core}", kinesin.dependency("core", "")),
        ("{kinesin:agent}", kinesin.dependency("agent", "")),
        ("{other:dependency}", format!("kinesin-{} = {}", other.0, kinesin.dependency(other_dir, ""))),
        ("{crate:ident}", ident),
        ("{crate}", crate_name),
        ("{name}", name.to_owned()),
        ("{role}", role.name().to_owned()),
        ("{summary}", summary.to_owned()),
        ("{descriptor}", descriptor.to_owned()),
        ("{behaviour}", behaviour.to_owned()),
        ("{dependencies}", dependencies),
        ("{uses}", uses.join("\n")),
        ("{does}", does.to_owned()),
        ("{leaves}", leaves.to_owned()),
        ("{privileges}", privileges.to_owned()),
    ];
    let templates = [
        ("Cargo.toml", include_str!("../templates/new-backend/Cargo.toml.in")),
        (".gitignore", include_str!("../templates/new-backend/gitignore.in")),
        ("README.md", include_str!("../templates/new-backend/README.md.in")),
        ("src/lib.rs", include_str!("../templates/new-backend/lib.rs.in")),
        ("src/backend.rs", backend),
        ("tests/contracts.rs", include_str!("../templates/new-backend/contracts.rs.in")),
        ("agent/Cargo.toml", include_str!("../templates/new-backend/agent.toml.in")),
        ("agent/src/main.rs", include_str!("../templates/new-backend/agent.rs.in")),
    ];
    let filled = |text: &str| values.iter().fold(text.to_owned(), |text, (mark, value)| text.replace(mark, value));
    templates.into_iter().map(|(path, text)| (path, filled(text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(name: &str, dir: &Path) -> NewBackendArgs {
        let kinesin = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/..").to_owned());
        NewBackendArgs { name: name.to_owned(), role: Role::Ipam, dir: Some(dir.to_owned()), kinesin }
    }

    #[test]
    fn names_are_those_that_crates_and_keys_can_have() {
        for (text, name) in [("sticky", "sticky"), ("my-pool", "my_pool"), ("a1", "a1")] {
            assert_eq!(registry_name(text).expect(text), name);
        }
        let long = "a".repeat(MAX_NAME + 1);
        for text in ["", "Sticky", "1st", "a b", "a/b", "a..b", "-a", "a-", "a--b", "ipnet", "fn", "kinesin-x", &long] {
            let told = registry_name(text).expect_err(text).to_string();
            assert!(told.contains(text) && told.contains("write") || told.contains("choose"), "{told}");
        }
    }

    #[test]
    fn every_mark_of_a_template_is_filled_in() {
        for role in [Role::Ipam, Role::Routing] {
            for (path, text) in files("my_pool", role, &Kinesin::Git("https://example.org/k".to_owned())) {
                for mark in
                    ["{crate", "{name}", "{role}", "{kinesin", "{other", "{d", "{summary}", "{uses}", "{leaves}"]
                {
                    assert!(!text.contains(mark) || path == "src/backend.rs", "{mark} in {path}: {text}");
                }
            }
        }
    }

    #[test]
    fn crate_is_written_where_nothing_is_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = dir.path().join("my-pool");
        new_backend(&args("my-pool", &own)).expect("written");
        let manifest = fs::read_to_string(own.join("Cargo.toml")).expect("a manifest");
        assert!(manifest.contains("name = \"my-pool\"") && manifest.contains("core\" }"), "{manifest}");
        assert!(own.join("Cargo.lock").exists());
        let told = new_backend(&args("my-pool", &own)).expect_err("there is one").to_string();
        assert!(told.contains("--dir"), "{told}");
        let elsewhere =
            NewBackendArgs { kinesin: Some("/proc".to_owned()), ..args("other", &dir.path().join("other")) };
        let told = new_backend(&elsewhere).expect_err("no tree").to_string();
        assert!(told.contains("core/Cargo.toml") && !dir.path().join("other").exists(), "{told}");
    }
}
