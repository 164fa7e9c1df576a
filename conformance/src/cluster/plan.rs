//! Which cases are judged on which combinations.

use kinesin_agent_api::types::BackendInfo;

use super::{
    case::{Case, cases},
    catalogue::{Selection, select},
    combination::Combination,
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

/// The columns of a run over these backends. The default combination has every case; the others of a daily selection
/// have those that are about what packets meet.
///
/// A combination that is named in full, or by a part that only combinations outside the selection have, is found as
/// well.
#[must_use]
pub fn columns(backends: &[BackendInfo], filter: &Filter) -> Vec<Column> {
    let wanted = |combinations: Vec<Combination>| {
        let named = |combination: &Combination| contains_one(&filter.combinations, &combination.to_string());
        combinations.into_iter().filter(named).collect::<Vec<_>>()
    };
    let mut chosen = wanted(select(backends, filter.selection));
    if chosen.is_empty() {
        chosen = wanted(select(backends, Selection::Full));
    }
    let in_full = filter.selection == Selection::Full;
    let column = |combination: Combination| {
        let cases = cases()
            .iter()
            .filter(|case| (in_full || combination.is_default() || case.everywhere) && filter.wants_case(case.name));
        Column { cases: cases.collect(), combination }
    };
    chosen.into_iter().map(column).filter(|column| !column.cases.is_empty()).collect()
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

    #[test]
    fn default_is_judged_in_full_and_the_others_by_what_packets_meet() {
        let everywhere = cases().iter().filter(|case| case.everywhere).count();
        let planned = planned(&Filter::default());
        assert_eq!(planned[0], ("host_scope-ebpf-tcx-dual".to_owned(), cases().len()));
        assert!(planned.len() == 6 && planned[1..].iter().all(|(_, cases)| *cases == everywhere), "{planned:?}");
        let full = Filter { selection: Selection::Full, ..Filter::default() };
        assert!(columns(&backends(), &full).iter().all(|column| column.cases.len() == cases().len()));
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
