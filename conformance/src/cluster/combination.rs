//! Combinations of choices, and which of them to run.
//!
//! An axis is one thing that a user chooses: a backend of a role, an option, the address families. Nothing here knows
//! what the choices mean; a new backend is one more choice on its axis.

use std::{collections::BTreeSet, fmt};

use serde_json::{Value, json};

/// One choice on an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Its name within the axis, which becomes part of names of tests.
    pub name: String,
    /// The chart's values that make it.
    pub values: Value,
}

/// One thing that is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What is chosen.
    pub name: String,
    /// The choices, the default first.
    pub choices: Vec<Choice>,
}

impl Axis {
    /// An axis of choices with their values.
    pub fn new<N: Into<String>>(name: impl Into<String>, choices: impl IntoIterator<Item = (N, Value)>) -> Self {
        let choices = choices.into_iter().map(|(name, values)| Choice { name: name.into(), values }).collect();
        Self { name: name.into(), choices }
    }
}

/// One choice on every axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Combination {
    choices: Vec<(String, Choice)>,
    is_default: bool,
}

impl Combination {
    /// Its choices by axis.
    pub fn choices(&self) -> impl Iterator<Item = (&str, &Choice)> {
        self.choices.iter().map(|(axis, choice)| (axis.as_str(), choice))
    }

    /// The name of the choice on an axis.
    #[must_use]
    pub fn on(&self, axis: &str) -> Option<&str> {
        self.choices().find(|(name, _)| *name == axis).map(|(_, choice)| choice.name.as_str())
    }

    /// Whether every choice is the default one.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// The same with another choice on one axis, which may be new.
    #[must_use]
    pub fn with(mut self, axis: &str, choice: Choice) -> Self {
        self.is_default = false;
        match self.choices.iter_mut().find(|(name, _)| name == axis) {
            Some((_, there)) => *there = choice,
            None => self.choices.push((axis.to_owned(), choice)),
        }
        self
    }

    /// The chart's values of all choices.
    #[must_use]
    pub fn values(&self) -> Value {
        let mut values = json!({});
        for (_, choice) in self.choices() {
            lay_over(&mut values, &choice.values);
        }
        values
    }
}

/// The names of the choices, joined: `host_scope-native-ebpf-tcx-dual`.
impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (_, choice)) in self.choices().enumerate() {
            if index > 0 {
                f.write_str("-")?;
            }
            f.write_str(&choice.name)?;
        }
        Ok(())
    }
}

/// Mappings are merged, anything else is replaced, as Helm does with several values files.
pub(crate) fn lay_over(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => base.clone_from(over),
    }
}

/// Every combination that `allowed` lets pass, the default first.
#[must_use]
pub fn every(axes: &[Axis], allowed: impl Fn(&Combination) -> bool) -> Vec<Combination> {
    let mut rows: Vec<Vec<usize>> = vec![Vec::new()];
    for axis in axes {
        let extend = |row: Vec<usize>| (0..axis.choices.len()).map(move |choice| [row.clone(), vec![choice]].concat());
        rows = rows.into_iter().flat_map(extend).collect();
    }
    let combination = |row: Vec<usize>| Combination {
        is_default: row.iter().all(|choice| *choice == 0),
        choices: axes.iter().zip(row).map(|(axis, at)| (axis.name.clone(), axis.choices[at].clone())).collect(),
    };
    rows.into_iter().map(combination).filter(allowed).collect()
}

/// A small selection of `all` in which every pair of choices on two axes meets every choice on the axis `with`, as far
/// as they meet in `all`; the first of `all` is always in it.
///
/// Greedy: each row is the one with most that is still missing, the earlier of two equals. That is within a few rows of
/// the smallest for the sizes met here, and always the same.
#[must_use]
pub fn covering(all: &[Combination], with: &str) -> Vec<Combination> {
    let mut missing: BTreeSet<Vec<(&str, &str)>> =
        all.iter().flat_map(|combination| meetings(combination, with)).collect();
    let mut chosen = Vec::new();
    let mut next = all.first();
    while let Some(combination) = next {
        for meeting in meetings(combination, with) {
            missing.remove(&meeting);
        }
        chosen.push(combination.clone());
        let gain = |combination: &&Combination| {
            meetings(combination, with).iter().filter(|meeting| missing.contains(*meeting)).count()
        };
        // `max_by_key` takes the last of equals.
        next = all.iter().rev().max_by_key(gain).filter(|best| gain(best) > 0);
    }
    chosen
}

/// Which choices meet: two other axes and `with`. With fewer axes, what there is.
fn meetings<'a>(combination: &'a Combination, with: &str) -> Vec<Vec<(&'a str, &'a str)>> {
    let named: Vec<(&str, &str)> = combination.choices().map(|(axis, choice)| (axis, choice.name.as_str())).collect();
    let (fixed, others): (Vec<_>, Vec<_>) = named.into_iter().partition(|(axis, _)| *axis == with);
    if others.len() < 2 {
        return vec![[fixed, others].concat()];
    }
    let pairs = (0..others.len()).flat_map(|i| (i + 1..others.len()).map(move |j| (i, j)));
    pairs.map(|(i, j)| [vec![others[i], others[j]], fixed.clone()].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(name: &str, choices: &[&str]) -> Axis {
        Axis::new(name, choices.iter().map(|choice| (*choice, json!({name: choice}))))
    }

    fn large() -> Vec<Axis> {
        vec![
            axis("ipam", &["a", "b", "c"]),
            axis("routing", &["native", "vxlan", "geneve"]),
            axis("lb", &["tc", "xdp", "nft"]),
            axis("policy", &["ebpf", "nft"]),
            axis("masquerade", &["ebpf", "nft", "off"]),
            axis("families", &["dual", "ipv4", "ipv6"]),
        ]
    }

    fn met(rows: &[Combination]) -> BTreeSet<Vec<(&str, &str)>> {
        rows.iter().flat_map(|row| meetings(row, "families")).collect()
    }

    #[test]
    fn every_pair_meets_every_family_in_few_rows() {
        let all = every(&large(), |_| true);
        assert_eq!(all.len(), 3 * 3 * 3 * 2 * 3 * 3);
        let chosen = covering(&all, "families");
        assert_eq!(met(&chosen), met(&all));
        // Nine pairs of two axes of three times three families is the least.
        assert!((27..=45).contains(&chosen.len()), "{}", chosen.len());
        assert!(chosen[0].is_default());
        assert_eq!(chosen, covering(&all, "families"), "always the same");
    }

    #[test]
    fn what_is_not_allowed_is_neither_chosen_nor_missed() {
        let allowed = |c: &Combination| !(c.on("routing") == Some("geneve") && c.on("lb") == Some("xdp"));
        let all = every(&large(), allowed);
        let chosen = covering(&all, "families");
        assert!(chosen.iter().all(allowed));
        assert_eq!(met(&chosen), met(&all));
    }

    #[test]
    fn small_catalogues_are_covered_too() {
        for axes in [
            vec![],
            vec![axis("families", &["dual", "ipv4"])],
            vec![axis("x", &["1", "2"]), axis("families", &["dual"])],
        ] {
            let all = every(&axes, |_| true);
            assert_eq!(covering(&all, "families"), all);
        }
        assert_eq!(covering(&[], "families"), []);
    }

    #[test]
    fn combination_is_named_and_valued_by_its_choices() {
        let axes = [
            Axis::new("routing", [("native", json!({"backends": {"routing": "native"}}))]),
            Axis::new("ipam", [("host_scope", json!({"backends": {"ipam": "host_scope"}}))]),
        ];
        let all = every(&axes, |_| true);
        assert_eq!(all[0].to_string(), "native-host_scope");
        assert_eq!(all[0].values(), json!({"backends": {"routing": "native", "ipam": "host_scope"}}));
        assert_eq!((all[0].on("ipam"), all[0].on("lb")), (Some("host_scope"), None));
        let other = |name: &str| Choice { name: name.to_owned(), values: json!({"ipam": {"mode": name}}) };
        let changed = all[0].clone().with("ipam", other("multi-pool")).with("settings", other("small"));
        assert_eq!((changed.to_string().as_str(), changed.is_default()), ("native-multi-pool-small", false));
        assert_eq!(changed.values(), json!({"backends": {"routing": "native"}, "ipam": {"mode": "small"}}));
    }
}
