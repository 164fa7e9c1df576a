//! Which cases are judged on which combinations.

use kinesin_agent_api::types::BackendInfo;

use super::{
    case::{Case, Spread, cases},
    catalogue::{Selection, select},
    combination::Combination,
    own::OwnLab,
};

/// What is wanted of all that there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Combinations and, outside of [`Selection::Full`], how many of their cases.
    pub selection: Selection,
    /// Only combinations whose name contains one of these; all if empty.
    pub combinations: Vec<String>,
    /// Only cases whose name contains one of these; all if empty.
    pub cases: Vec<String>,
}

/// One combination, and what is judged on it.
#[derive(Debug, Clone)]
pub struct Column {
    /// The combination.
    pub combination: Combination,
    /// The lab that it is the combination of, if it was made for its cases.
    pub own: Option<&'static OwnLab>,
    /// The cases, those first that can share a cluster.
    pub cases: Vec<&'static Case>,
}

impl Filter {
    /// Whether a case is wanted by its name.
    #[must_use]
    pub fn wants_case(&self, name: &str) -> bool {
        contains_one(&self.cases, name)
    }
}

fn contains_one(wanted: &[String], name: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()))
}

/// The columns of a run over these backends: each combination of the selection with the cases that are spread to it, then
/// the labs that cases have for themselves.
///
/// A combination that is named in full, or by a part that only combinations outside the selection have, is found as
/// well.
#[must_use]
pub fn columns(backends: &[BackendInfo], filter: &Filter) -> Vec<Column> {
    let named = |combination: &Combination| contains_one(&filter.combinations, &combination.to_string());
    let own: Vec<Column> = own_labs(backends).into_iter().filter(|column| named(&column.combination)).collect();
    let mut selected = select(backends, filter.selection);
    if own.is_empty() && !selected.iter().any(named) {
        selected = select(backends, Selection::Full);
    }
    let in_full = filter.selection == Selection::Full;
    // Those that are not named count as well: which is the first of a choice does not depend on what is asked for.
    let is_first = |combination: &Combination, axis: &str| {
        let same = |other: &&Combination| other.on(axis) == combination.on(axis);
        selected.iter().find(same) == Some(combination)
    };
    let is_judged = |case: &Case, combination: &Combination| match case.spread {
        Spread::Own(_) => false,
        Spread::Everywhere => true,
        Spread::Default => in_full || combination.is_default(),
        Spread::Each(axis) => in_full || is_first(combination, axis),
        Spread::With(axis, choice) => combination.on(axis) == Some(choice) && (in_full || is_first(combination, axis)),
    };
    let column = |combination: &Combination| Column {
        combination: combination.clone(),
        own: None,
        cases: cases().iter().filter(|case| is_judged(case, combination)).collect(),
    };
    let mut columns: Vec<Column> = selected.iter().filter(|combination| named(combination)).map(column).collect();
    columns.extend(own);
    for column in &mut columns {
        column.cases.retain(|case| filter.wants_case(case.name));
    }
    columns.retain(|column| !column.cases.is_empty());
    columns
}

/// The labs that cases have for themselves, as far as these backends can make them.
fn own_labs(backends: &[BackendInfo]) -> Vec<Column> {
    let Some(default) = select(backends, Selection::Default).into_iter().next() else { return Vec::new() };
    let has = |own: &OwnLab| backends.iter().any(|backend| backend.r#trait == "ipam" && backend.name == own.ipam);
    let mut columns: Vec<Column> = Vec::new();
    for case in cases() {
        let Spread::Own(own) = case.spread else { continue };
        if let Some(column) = columns.iter_mut().find(|column| column.own == Some(own)) {
            column.cases.push(case);
        } else if let (true, Ok(combination)) = (has(own), own.combination(&default)) {
            columns.push(Column { combination, own: Some(own), cases: vec![case] });
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends() -> Vec<BackendInfo> {
        let backend = |role: &str, name: &str, provides: &[&str]| BackendInfo {
            r#trait: role.to_owned(),
            name: name.to_owned(),
            summary: String::new(),
            provides: provides.iter().map(|what| (*what).to_owned()).collect(),
            requires: Vec::new(),
            selected: true,
        };
        vec![
            backend("ipam", "host_scope", &["ipv4", "ipv6"]),
            backend("chassis", "ebpf", &["chassis:ebpf", "ipv4", "ipv6"]),
        ]
    }

    fn planned(filter: &Filter) -> Vec<(String, usize)> {
        columns(&backends(), filter).iter().map(|column| (column.combination.to_string(), column.cases.len())).collect()
    }

    fn count(which: impl Fn(Spread) -> bool) -> usize {
        cases().iter().filter(|case| which(case.spread)).count()
    }

    #[test]
    fn cases_are_spread_as_they_say() {
        let everywhere = count(|spread| matches!(spread, Spread::Everywhere));
        let elsewhere = count(|spread| match spread {
            Spread::With("ipam", mode) => mode != "host_scope",
            Spread::Own(_) => true,
            _ => false,
        });
        // Of one mode, and without the labs that cases have for themselves.
        let shared = |filter: &Filter| {
            let columns = columns(&backends(), filter).into_iter().filter(|column| column.own.is_none());
            columns.map(|column| (column.combination.to_string(), column.cases.len())).collect::<Vec<_>>()
        };
        let daily = shared(&Filter::default());
        assert_eq!(daily[0], ("host_scope-ebpf-tcx-dual".to_owned(), cases().len() - elsewhere));
        assert!(daily.len() == 6 && daily[1..].iter().all(|(_, cases)| *cases == everywhere), "{daily:?}");
        let full = shared(&Filter { selection: Selection::Full, ..Filter::default() });
        assert!(full.iter().all(|(_, number)| *number == cases().len() - elsewhere), "{full:?}");
    }

    #[test]
    fn each_choice_has_a_first_and_labs_of_cases_come_last() {
        let mut more = backends();
        for name in ["cluster_pool", "multi_pool"] {
            more.push(BackendInfo { name: name.to_owned(), selected: false, ..more[0].clone() });
        }
        let columns = columns(&more, &Filter::default());
        let judged = |mode: &str, case: &str| {
            let of_mode = columns.iter().filter(|column| column.combination.on("ipam") == Some(mode));
            of_mode.filter(|column| column.cases.iter().any(|found| found.name == case)).count()
        };
        for mode in ["host_scope", "cluster_pool", "multi_pool"] {
            assert_eq!(judged(mode, "address_is_used_again"), 1, "{mode}");
        }
        let own: Vec<&Column> = columns.iter().filter(|column| column.own.is_some()).collect();
        let of_own: usize = own.iter().map(|column| column.cases.len()).sum();
        assert_eq!(of_own, count(|spread| matches!(spread, Spread::Own(_))));
        assert!(columns.iter().position(|column| column.own.is_some()) == Some(columns.len() - own.len()));
        let names: std::collections::BTreeSet<String> =
            own.iter().map(|column| column.combination.to_string()).collect();
        assert_eq!(names.len(), own.len(), "{names:?}");
    }

    #[test]
    fn names_and_their_parts_choose() {
        let filter = |combinations: &[&str], cases: &[&str]| Filter {
            selection: Selection::Default,
            combinations: combinations.iter().map(|part| (*part).to_owned()).collect(),
            cases: cases.iter().map(|part| (*part).to_owned()).collect(),
        };
        assert_eq!(planned(&filter(&[], &["killed"])), [("host_scope-ebpf-tcx-dual".to_owned(), 1)]);
        assert_eq!(
            planned(&filter(&["clsact-ipv6"], &["sizes", "every_size"])),
            [("host_scope-ebpf-clsact-ipv6".to_owned(), 1)]
        );
        assert_eq!(planned(&filter(&["nothing"], &[])), []);
        assert_eq!(planned(&filter(&["clsact-ipv6"], &["killed"])), []);
    }
}
