//! Serves the kinds of CustomResourceDefinitions, reports on them, and clears up after them.

use std::time::Duration;

use serde_json::{Value, json};

use super::Controller;
use crate::crds::{CLEANUP, kinds_of, kinds_of_one};
use crate::object;
use crate::ops::{Api, DeleteOptions, Write};

const RESOURCE: &str = "customresourcedefinitions.apiextensions.k8s.io";

#[derive(Debug)]
pub(super) struct Crds;

impl Controller for Crds {
    const WATCHES: &'static [&'static str] = &[RESOURCE];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        let crds = api.all(RESOURCE);
        let (kinds, clashes) = kinds_of(&crds);
        api.set_kinds(kinds);
        let mut is_waiting = false;
        for crd in &crds {
            let clash = clashes.iter().find(|(uid, _)| uid == object::uid(crd)).map(|(_, why)| why.as_str());
            if object::is_deleting(crd) {
                is_waiting |= !clear(api, crd, clash.is_none());
            } else {
                report(api, crd, clash);
            }
        }
        is_waiting.then_some(Duration::from_millis(100))
    }
}

/// Deletes the instances of a definition that goes; true when none is left.
fn clear(api: &Api, crd: &Value, is_served: bool) -> bool {
    let mut left = 0;
    if is_served && let Some(kind) = kinds_of_one(crd).into_iter().next() {
        let instances = api.all(&kind.storage);
        for instance in &instances {
            if !object::is_deleting(instance) {
                let (namespace, name) = (object::namespace(instance), object::name(instance));
                if let Err(error) = api.delete(&kind, namespace, name, &DeleteOptions::default()) {
                    tracing::debug!(message = error.message, "an instance of a deleted definition stays for now");
                }
            }
        }
        left = api.all(&kind.storage).len();
    }
    let kind = api.builtin("apiextensions.k8s.io", "customresourcedefinitions");
    if left == 0 && object::finalizers(crd).any(|f| f == CLEANUP) {
        // A failure means that another writer was first; the next pass sees what is left to do.
        return api.drop_finalizer(&kind, crd, CLEANUP).is_ok();
    }
    left == 0
}

fn report(api: &Api, crd: &Value, clash: Option<&str>) {
    let kind = api.builtin("apiextensions.k8s.io", "customresourcedefinitions");
    let stored: Vec<Value> = object::list(crd, &["spec", "versions"])
        .iter()
        .filter(|v| object::flag(v, &["storage"]))
        .map(|v| v["name"].clone())
        .collect();
    let outcome = api.change(&kind, "", object::name(crd), &mut Write::status_by("kinesin-apiserver"), |next| {
        let mut names = next["spec"]["names"].clone();
        if let Value::Object(fields) = &mut names {
            fields.retain(|_, v| !v.is_null());
        }
        match clash {
            None => {
                object::set(next, &["status", "acceptedNames"], names);
                object::set_condition(next, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
                object::set_condition(
                    next,
                    "Established",
                    "True",
                    "InitialNamesAccepted",
                    "the initial names have been accepted",
                );
            }
            Some(why) => {
                object::set_condition(next, "NamesAccepted", "False", "NamesConflict", why);
                object::set_condition(next, "Established", "False", "NotAccepted", "not all names are accepted");
            }
        }
        let mut versions = object::list(next, &["status", "storedVersions"]).to_vec();
        versions.extend(stored.iter().filter(|v| !versions.contains(v)).cloned().collect::<Vec<_>>());
        object::set(next, &["status", "storedVersions"], json!(versions));
    });
    if let Err(error) = outcome {
        tracing::debug!(message = error.message, "the status of a definition was not written");
    }
}
