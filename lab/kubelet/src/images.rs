//! The images this node knows: what runs for each name. To add one, add a line to [`TABLE`].

use sha2::{Digest as _, Sha256};

/// Where the program with the workloads is inside every container.
pub(crate) const PROGRAM: &str = "/.lab/program";

/// What an image brings: the command it starts, and whether Kinesin's binaries are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Image {
    /// Repository without registry, tag and digest; `library/` left out.
    name: &'static str,
    /// As in a Dockerfile.
    pub(crate) entrypoint: &'static [&'static str],
    /// As in a Dockerfile.
    pub(crate) cmd: &'static [&'static str],
    /// Whether the binaries of `bin_dir` are in its PATH, with `cilium` and the like as further names.
    pub(crate) has_kinesin: bool,
}

const fn image(name: &'static str, entrypoint: &'static [&'static str], cmd: &'static [&'static str]) -> Image {
    Image { name, entrypoint, cmd, has_kinesin: false }
}

const SHELL: &[&str] = &["/bin/sh"];

/// Every image has the machine's tools as its file system; what differs is what it starts.
const TABLE: &[Image] = &[
    image("nginx", &[PROGRAM, "lab-workload", "nginx"], &[]),
    image("traefik/whoami", &[PROGRAM, "lab-workload", "whoami"], &[]),
    image("kinesin/echo", &[PROGRAM, "lab-workload", "echo"], &[]),
    image("pause", &[PROGRAM, "lab-workload", "pause"], &[]),
    image("nicolaka/netshoot", &[], &["/bin/bash"]),
    image("busybox", &[], SHELL),
    image("alpine", &[], SHELL),
    image("debian", &[], &["/bin/bash"]),
    image("ubuntu", &[], &["/bin/bash"]),
    image("curlimages/curl", &[], &["curl"]),
    Image { name: "kinesin/kinesin", entrypoint: &[], cmd: &["kinesin-agent"], has_kinesin: true },
    Image { name: "kinesin/kinesin-agent", entrypoint: &[], cmd: &["kinesin-agent"], has_kinesin: true },
    Image { name: "kinesin/kinesin-operator", entrypoint: &[], cmd: &["kinesin-operator"], has_kinesin: true },
];

/// Further names of Kinesin's binaries: those that users of Cilium know.
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("cilium", "kinesin"),
    ("cilium-dbg", "kinesin"),
    ("cilium-agent", "kinesin-agent"),
    ("cilium-operator", "kinesin-operator"),
    ("cilium-operator-generic", "kinesin-operator"),
    ("cilium-cni", "kinesin-cni"),
];

/// An image reference taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    registry: String,
    repository: String,
    /// With its `:` or `@`.
    version: String,
}

fn parse_reference(text: &str) -> Option<Reference> {
    let (rest, version) = match text.split_once('@') {
        Some((rest, digest)) => (rest, format!("@{digest}")),
        None => match text.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((rest, tag)) => (rest, format!(":{tag}")),
            None => (text, ":latest".to_owned()),
        },
    };
    // A digest may follow a tag, which then says nothing.
    let rest = rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(rest, |(rest, _)| rest);
    let is_registry = |first: &str| first.contains('.') || first.contains(':') || first == "localhost";
    let (registry, repository) = match rest.split_once('/') {
        Some((first, path)) if is_registry(first) => (first.to_owned(), path.to_owned()),
        Some(_) => ("docker.io".to_owned(), rest.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{rest}")),
    };
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    let is_version =
        version.len() > 1 && version[1..].bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b));
    (repository.split('/').all(is_name) && is_version).then_some(Reference { registry, repository, version })
}

/// Finds what a name stands for; the error is containerd's answer for what cannot be pulled.
pub(crate) fn find(text: &str) -> Result<&'static Image, String> {
    let Some(reference) = parse_reference(text) else {
        return Err(format!("failed to parse image name {text:?}: invalid reference format"));
    };
    let path = reference.repository.trim_start_matches("library/");
    let known = TABLE.iter().find(|image| {
        // A mirror may keep images below a path of its own, such as `public.ecr.aws/docker/library/nginx`.
        path == image.name || path.strip_suffix(image.name).is_some_and(|before| before.ends_with("library/"))
    });
    known.ok_or_else(|| {
        let full = format!("{}/{}{}", reference.registry, reference.repository, reference.version);
        format!("rpc error: code = NotFound desc = failed to pull and unpack image {full:?}: failed to resolve reference {full:?}: {full}: not found")
    })
}

/// The image's name and id as a container status shows them.
pub(crate) fn identify(text: &str) -> (String, String) {
    let Some(reference) = parse_reference(text) else { return (text.to_owned(), String::new()) };
    let full = format!("{}/{}", reference.registry, reference.repository);
    let digest = hex::encode(Sha256::digest(&full));
    (format!("{full}{}", reference.version), format!("{full}@sha256:{digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whatever_registry_and_tag_they_have() {
        for (text, want) in [
            ("nginx", "nginx"),
            ("nginx:1.27-alpine", "nginx"),
            ("docker.io/library/nginx@sha256:0123abc", "nginx"),
            ("public.ecr.aws/docker/library/nginx:1", "nginx"),
            ("localhost:5000/nginx", "nginx"),
            ("traefik/whoami", "traefik/whoami"),
            ("registry.k8s.io/pause:3.9", "pause"),
            ("quay.io/kinesin/kinesin-agent:v0.1.0@sha256:12", "kinesin/kinesin-agent"),
            ("kinesin/kinesin:0.1.0", "kinesin/kinesin"),
        ] {
            assert_eq!(find(text).map(|i| i.name), Ok(want), "{text}");
        }
    }

    #[test]
    fn an_unknown_image_is_not_found_in_the_words_of_containerd() {
        for text in ["nginx/nginx", "example.com/x/y:1", "whoami", "ngin"] {
            assert!(find(text).unwrap_err().ends_with(": not found"), "{text}");
        }
        for text in ["", "UPPER", "a//b", "x:", "x y"] {
            assert!(find(text).unwrap_err().contains("invalid reference format"), "{text}");
        }
        assert!(find("foo").unwrap_err().contains("\"docker.io/library/foo:latest\""));
    }

    #[test]
    fn a_status_shows_the_full_name() {
        let (name, id) = identify("nginx:1");
        assert_eq!(name, "docker.io/library/nginx:1");
        assert!(id.starts_with("docker.io/library/nginx@sha256:"));
    }
}
