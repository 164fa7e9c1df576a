//! The programs one by one, as they are tried under other kernels.

#[test]
fn every_program_loads_by_itself() {
    let trials = kinesin_ebpf_tc::trial().expect("the programs are in this build");
    let names: Vec<_> = trials.iter().map(|trial| trial.program).collect();
    assert_eq!(
        names,
        [
            "from_container",
            "to_container",
            "from_netdev",
            "from_l3_netdev",
            "from_host",
            "from_overlay",
            "cont_next",
            "cont_deliver",
            "cont_drop"
        ]
    );
    for trial in trials {
        let verified = trial.outcome.unwrap_or_else(|error| panic!("{}: {error}", trial.program));
        // An empty program has two; the verifier goes through an instruction more than once, or skips what is dead.
        assert!(verified.translated > 2, "{}: {verified:?}", trial.program);
        assert!(verified.instructions.is_none_or(|count| count > 2), "{}: {verified:?}", trial.program);
    }
}
