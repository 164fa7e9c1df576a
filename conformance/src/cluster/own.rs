//! Labs with settings that a case is about.

use kinesin_lab::Families;
use serde_json::{Value, json};

use super::{
    catalogue::FAMILIES,
    combination::{Choice, Combination},
};

/// Name of the axis of such settings.
const SETTINGS: &str = "settings";

/// A lab that is made for a case; what is not said here is as in the default combination.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnLab {
    /// What its settings are called in the combination's name.
    pub name: &'static str,
    /// The IPAM mode that they lead to, by the backend's registry name.
    pub ipam: &'static str,
    /// Number of nodes.
    pub nodes: usize,
    /// Segments that the nodes are dealt to in turn, with a router between them.
    pub segments: usize,
    /// Families of nodes and pods.
    pub families: Families,
    /// The chart's values, as a user writes them.
    pub values: &'static str,
}

impl OwnLab {
    /// The combination of such a lab.
    ///
    /// # Errors
    /// When the values are no YAML.
    pub(super) fn combination(&self, default: &Combination) -> Result<Combination, String> {
        let values: Value =
            serde_yaml_ng::from_str(self.values).map_err(|error| format!("the values of {}: {error}", self.name))?;
        // The values choose the mode; the axis only tells it.
        let choice = |name: &str, values: Value| Choice { name: name.to_owned(), values };
        let combination = default
            .clone()
            .with("ipam", choice(self.ipam, json!({})))
            .with(FAMILIES, choice(&self.families.to_string(), json!({})))
            .with(SETTINGS, choice(self.name, values));
        Ok(combination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Spread, cases, combination::Axis};

    #[test]
    fn values_of_every_own_lab_are_yaml_and_do_not_name_the_backend() {
        let default = crate::cluster::combination::every(&[Axis::new("ipam", [("x", json!({}))])], |_| true).remove(0);
        for case in cases() {
            let Spread::Own(own) = case.spread else { continue };
            let combination = own.combination(&default).expect(own.name);
            assert!(combination.values()["ipam"]["mode"].is_string(), "{}", own.name);
            assert_eq!(combination.on("ipam"), Some(own.ipam));
        }
    }
}
