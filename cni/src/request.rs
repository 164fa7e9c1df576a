//! The parameters that a runtime passes in the environment.
//!
//! Source: CNI spec 1.1.0 section "Parameters"; `CNI_PATH` is not needed here and so not asked for.

use std::{ffi::OsString, fmt, path::PathBuf};

use crate::CniError;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Longest name of a device (`IFNAMSIZ` less its end, Linux `include/uapi/linux/if.h`).
const MAX_IFNAME_BYTES: usize = 15;
/// Longest container id; runtimes use 64 digits.
const MAX_CONTAINER_ID_BYTES: usize = 255;

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach a pod.
    Add,
    /// Detach a pod.
    Del,
    /// See whether a pod is still attached as it should be.
    Check,
    /// See whether ADD would be served.
    Status,
    /// Detach whatever the runtime no longer knows.
    Gc,
    /// List the versions of the spec.
    Version,
}

impl Command {
    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Status, Self::Gc, Self::Version];

    /// The command as it stands in `CNI_COMMAND`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    /// Reads `CNI_COMMAND`.
    ///
    /// # Errors
    /// `Environment` when it is missing or unknown.
    pub fn from_env(env: Environment<'_>) -> Result<Self, CniError> {
        let text = required(env, &["CNI_COMMAND"])?.remove(0);
        Self::ALL.into_iter().find(|command| command.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            wrong("CNI_COMMAND", format!("unknown command {text:?}; known are {known}"))
        })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One interface of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentId {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// An attachment and the namespace it lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub id: AttachmentId,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
}

/// The Pod behind a container, from `CNI_ARGS`; empty outside Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`.
    pub uid: String,
}

impl AttachmentId {
    /// Reads what DEL needs.
    ///
    /// # Errors
    /// `Environment` with the names of all missing variables, or of the wrong one.
    pub fn from_env(env: Environment<'_>) -> Result<Self, CniError> {
        let mut values = required(env, &["CNI_CONTAINERID", "CNI_IFNAME"])?;
        let ifname = values.remove(1);
        let container_id = values.remove(0);
        check_container_id(&container_id)?;
        check_ifname(&ifname)?;
        Ok(Self { container_id, ifname })
    }
}

impl Attachment {
    /// Reads what ADD and CHECK need.
    ///
    /// # Errors
    /// `Environment` with the names of all missing variables, or of the wrong one.
    pub fn from_env(env: Environment<'_>) -> Result<Self, CniError> {
        let mut values = required(env, &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"])?;
        let netns = PathBuf::from(values.remove(2));
        Ok(Self { id: AttachmentId::from_env(env)?, netns })
    }
}

impl PodArgs {
    /// Reads `CNI_ARGS`: pairs such as `K8S_POD_NAME=web-0` with semicolons between them, in any order.
    ///
    /// # Errors
    /// `Environment` when a pair has no `=`, or a key is unknown and `IgnoreUnknown` is not set.
    pub fn from_env(env: Environment<'_>) -> Result<Self, CniError> {
        let Some(text) = text(env, "CNI_ARGS")? else { return Ok(Self::default()) };
        let mut pod = Self::default();
        let (mut unknown, mut ignore) = (Vec::new(), false);
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| wrong("CNI_ARGS", format!("{pair:?} is no KEY=VALUE")))?;
            match key {
                "K8S_POD_NAMESPACE" => pod.namespace = value.to_owned(),
                "K8S_POD_NAME" => pod.name = value.to_owned(),
                "K8S_POD_UID" => pod.uid = value.to_owned(),
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                // The spellings that Go's strconv.ParseBool takes, which libcni uses.
                "IgnoreUnknown" => ignore = matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
                other => unknown.push(other),
            }
        }
        if !unknown.is_empty() && !ignore {
            let keys = unknown.join(", ");
            return Err(wrong("CNI_ARGS", format!("unknown key {keys}; IgnoreUnknown=1 would let it pass")));
        }
        Ok(pod)
    }
}

/// Says whether `id` may name a container.
///
/// # Errors
/// `Environment` naming `CNI_CONTAINERID`.
pub fn check_container_id(id: &str) -> Result<(), CniError> {
    let fits = id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if !fits {
        let rule = "must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'";
        return Err(wrong("CNI_CONTAINERID", format!("{:?} {rule}", shorten(id))));
    }
    if id.len() > MAX_CONTAINER_ID_BYTES {
        return Err(wrong("CNI_CONTAINERID", format!("it is longer than {MAX_CONTAINER_ID_BYTES} bytes")));
    }
    Ok(())
}

/// Says whether `name` may name a device.
///
/// A percent sign is refused too: the kernel takes such a name for a pattern and chooses another.
///
/// # Errors
/// `Environment` naming `CNI_IFNAME`.
pub fn check_ifname(name: &str) -> Result<(), CniError> {
    let reason = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_IFNAME_BYTES {
        format!("is longer than {MAX_IFNAME_BYTES} bytes")
    } else if matches!(name, "." | "..") {
        "is a directory's name".to_owned()
    } else if name.chars().any(|char| char.is_whitespace() || char.is_control() || matches!(char, '/' | ':' | '%')) {
        "holds '/', ':', '%', white space or a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(wrong("CNI_IFNAME", format!("{:?} {reason}", shorten(name))))
}

/// The values of all named variables, or one error that names each missing one. Empty counts as missing.
fn required(env: Environment<'_>, names: &[&str]) -> Result<Vec<String>, CniError> {
    let mut values = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match text(env, name)? {
            Some(value) => values.push(value),
            None => missing.push(*name),
        }
    }
    if missing.is_empty() { Ok(values) } else { Err(wrong(&missing.join(", "), "required and missing".to_owned())) }
}

fn text(env: Environment<'_>, name: &str) -> Result<Option<String>, CniError> {
    match env(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
        Some(Err(_)) => Err(wrong(name, "it is not valid UTF-8".to_owned())),
    }
}

fn wrong(variables: &str, reason: String) -> CniError {
    CniError::Environment { variables: variables.to_owned(), reason }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeMap, os::unix::ffi::OsStringExt};

    fn lookup(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        let map: BTreeMap<String, OsString> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), OsString::from(value))).collect();
        move |name| map.get(name).cloned()
    }

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let error = Attachment::from_env(&lookup(&[("CNI_NETNS", "")])).expect_err("all missing");
        assert_eq!(error.code(), 4);
        for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"] {
            assert!(error.to_string().contains(name), "{name} not in {error}");
        }
        let error = Command::from_env(&lookup(&[])).expect_err("missing");
        assert!(error.to_string().contains("CNI_COMMAND"), "{error}");
        let error = Command::from_env(&lookup(&[("CNI_COMMAND", "add")])).expect_err("wrong case");
        assert!(error.to_string().contains("ADD, DEL, CHECK, STATUS, GC, VERSION"), "{error}");
    }

    #[test]
    fn names_follow_the_charset_of_the_spec() {
        for good in ["a", "0", "4f5e", "a_b.c-d", &"a".repeat(255)] {
            assert!(check_container_id(good).is_ok(), "{good}");
        }
        for bad in ["", "_a", "-a", ".a", "a b", "a/b", "a:b", "ä", &"a".repeat(256)] {
            assert_eq!(check_container_id(bad).map_err(|error| error.code()), Err(4), "{bad}");
        }
        for good in ["eth0", "a", "a-b_c.d", "fifteen-bytes--", "ä"] {
            assert!(check_ifname(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "sixteen-bytes---", "a/b", "a:b", "a b", "a\tb", "eth%d", "a\u{7f}"] {
            assert_eq!(check_ifname(bad).map_err(|error| error.code()), Err(4), "{bad}");
        }
    }

    #[test]
    fn args_are_read_in_any_order() {
        let text =
            "K8S_POD_INFRA_CONTAINER_ID=4f5e;K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;X=y";
        let want = PodArgs { namespace: "ns".into(), name: "web".into(), uid: "u".into() };
        let mut pairs: Vec<_> = text.split(';').collect();
        for _ in 0..pairs.len() {
            pairs.rotate_left(1);
            assert_eq!(PodArgs::from_env(&lookup(&[("CNI_ARGS", &pairs.join(";"))])).expect("valid"), want);
        }
        assert_eq!(PodArgs::from_env(&lookup(&[])).expect("absent"), PodArgs::default());
        for (args, named) in [("X=y", "X"), ("X=y;IgnoreUnknown=0", "X"), ("K8S_POD_NAME", "K8S_POD_NAME")] {
            let error = PodArgs::from_env(&lookup(&[("CNI_ARGS", args)])).expect_err(args);
            assert!(error.code() == 4 && error.to_string().contains(named), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_environment_makes_the_parsers_panic(bytes in prop::collection::vec(1_u8.., 0..300)) {
            let value = OsString::from_vec(bytes);
            let env = |_: &str| Some(value.clone());
            let _ = Command::from_env(&env);
            if let Ok(attachment) = Attachment::from_env(&env) {
                prop_assert!(attachment.id.ifname.len() <= 15 && !attachment.id.ifname.contains(['/', ':', ' ']));
            }
            let _ = PodArgs::from_env(&env);
        }
    }
}
