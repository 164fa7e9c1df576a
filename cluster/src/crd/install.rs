//! Installing the definitions, and upgrading those of an older version.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use tokio::time::Instant;

use super::{SCHEMA_VERSION, SCHEMA_VERSION_LABEL, crds};
use crate::{OPERATOR_MANAGER, error::ClusterError, request::within};

/// How long the API server may take to serve a definition.
const ESTABLISHED_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at it.
const ESTABLISHED_PAUSE: Duration = Duration::from_millis(100);

/// What happened to one definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// It was not there.
    Created,
    /// It was there and is another now.
    Upgraded,
    /// It was there as it should be.
    Unchanged,
    /// A newer one is there and stays.
    NewerKept,
}

/// Installs all definitions and waits until the API server serves them; answers what happened to each, by name.
///
/// A definition with a newer [`SCHEMA_VERSION_LABEL`] is left alone. Versions that a definition serves and that are
/// unknown here stay, so that no stored object becomes unreadable. Repeating this is harmless.
///
/// # Errors
/// `Request` or `TimedOut` at the first definition that cannot be written, `NotEstablished` if one is not served.
pub async fn install_crds(client: &Client) -> Result<Vec<(String, Installed)>, ClusterError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut done = Vec::new();
    for crd in crds() {
        let name = crd.name_any();
        done.push((name.clone(), install(&api, &name, crd).await?));
    }
    for (name, _) in &done {
        established(&api, name).await?;
    }
    Ok(done)
}

async fn install(
    api: &Api<CustomResourceDefinition>,
    name: &str,
    ours: CustomResourceDefinition,
) -> Result<Installed, ClusterError> {
    let existing = within(&format!("get definition {name}"), api.get_opt(name)).await?;
    let Some(wanted) = plan(existing.as_ref(), ours) else {
        let found = existing.as_ref().and_then(|found| found.labels().get(SCHEMA_VERSION_LABEL));
        tracing::info!(name, found, ours = SCHEMA_VERSION, "a newer definition is kept");
        return Ok(Installed::NewerKept);
    };
    // Fields that another manager set are taken over: two definitions of one kind cannot both hold.
    let params = PatchParams::apply(OPERATOR_MANAGER).force();
    let applied = within(&format!("apply definition {name}"), api.patch(name, &params, &Patch::Apply(&wanted))).await?;
    Ok(match existing {
        None => Installed::Created,
        Some(existing) if existing.resource_version() == applied.resource_version() => Installed::Unchanged,
        Some(_) => Installed::Upgraded,
    })
}

/// The definition to apply; nothing if a newer one is there.
fn plan(
    existing: Option<&CustomResourceDefinition>,
    mut ours: CustomResourceDefinition,
) -> Option<CustomResourceDefinition> {
    let Some(existing) = existing else { return Some(ours) };
    let found = existing.labels().get(SCHEMA_VERSION_LABEL).and_then(|text| parse_version(text));
    if found > parse_version(SCHEMA_VERSION) {
        return None;
    }
    let known = |name: &str| ours.spec.versions.iter().any(|version| version.name == name);
    let unknown: Vec<_> = existing
        .spec
        .versions
        .iter()
        .filter(|version| !known(&version.name))
        .cloned()
        .map(|version| CustomResourceDefinitionVersion { storage: false, ..version })
        .collect();
    ours.spec.versions.extend(unknown);
    Some(ours)
}

/// `1.31.10`; anything else is no version and older than all.
fn parse_version(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split('.').map(str::parse);
    let version = [parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?];
    parts.next().is_none().then_some(version)
}

async fn established(api: &Api<CustomResourceDefinition>, name: &str) -> Result<(), ClusterError> {
    let deadline = Instant::now() + ESTABLISHED_LIMIT;
    loop {
        let crd = within(&format!("get definition {name}"), api.get(name)).await?;
        let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let failed = conditions.iter().find(|condition| condition.status == "False");
            let reason = failed.and_then(|condition| condition.message.clone());
            return Err(ClusterError::NotEstablished {
                name: name.to_owned(),
                reason: reason.unwrap_or_else(|| "the API server says nothing".to_owned()),
                limit: ESTABLISHED_LIMIT,
            });
        }
        tokio::time::sleep(ESTABLISHED_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(version: &str) -> CustomResourceDefinition {
        let mut crd = crds().remove(1);
        crd.labels_mut().insert(SCHEMA_VERSION_LABEL.to_owned(), version.to_owned());
        crd
    }

    #[test]
    fn newer_definition_is_kept_and_numbers_are_compared_as_numbers() {
        let ours = || crds().remove(1);
        assert!(plan(None, ours()).is_some());
        for older in ["1.31.9", "1.4.0", "0.99.99", "1.31.11", "", "x", "1.31", "1.31.10.1", "-1.0.0"] {
            assert!(plan(Some(&labelled(older)), ours()).is_some(), "{older}");
        }
        for newer in ["1.31.12", "1.100.0", "2.0.0"] {
            assert!(plan(Some(&labelled(newer)), ours()).is_none(), "{newer}");
        }
    }

    #[test]
    fn versions_that_are_unknown_here_stay_without_storage() {
        let mut existing = labelled("1.0.0");
        let mut alpha = existing.spec.versions[0].clone();
        alpha.name = "v2alpha1".to_owned();
        existing.spec.versions.push(alpha);
        let planned = plan(Some(&existing), crds().remove(1)).expect("a plan");
        let versions: Vec<_> = planned.spec.versions.iter().map(|v| (v.name.as_str(), v.storage)).collect();
        assert_eq!(versions, [("v2", true), ("v2alpha1", false)]);
    }
}
