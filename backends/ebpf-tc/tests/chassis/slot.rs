//! A slot program in C, compiled against the emitted header, loaded by libbpf, and replaced under traffic.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use kinesin_abi::DropReason;
use kinesin_core::values::Family;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, ObjectBuilder};

use crate::{
    node::{Node, Ways},
    outage::Stream,
    pod::{exchanges_tcp, hears_nothing, pings},
};

/// Compiles the slot program against the header as the declarations give it now.
fn compile(directory: &Path) -> PathBuf {
    fs::write(directory.join("kinesin_abi.h"), kinesin_abi::header::c_header()).expect("header");
    let object = directory.join("guard.o");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slot/guard.c");
    let mut clang = Command::new(env::var_os("CLANG").unwrap_or_else(|| "clang".into()));
    clang.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-c", "-I"]).arg(directory);
    // Debian keeps the machine's part of the kernel's headers apart, where clang does not look for this target.
    clang.arg(format!("-I/usr/include/{}-linux-gnu", env::consts::ARCH)).arg(&source).arg("-o").arg(&object);
    let output = clang.output().expect("clang is needed to compile slot programs in C: `./x build` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    object
}

/// Loads the program with libbpf on the node, denies UDP to `port`, and pins it and its counter.
fn load(node: &Node, object: PathBuf, port: u16, name: &str) -> (PathBuf, PathBuf) {
    let directory = node.bpffs();
    let (program_pin, counter_pin) = (directory.join(name), directory.join(format!("{name}_seen")));
    let pins = (program_pin.clone(), counter_pin.clone());
    let state = node.pins().join("maps/KIN_STATE");
    node.run(move |_| {
        let mut open = ObjectBuilder::default().open_file(&object).expect("libbpf opens it");
        for mut map in open.maps_mut() {
            if map.name() == "KIN_STATE" {
                map.reuse_pinned_map(&state).expect("the chassis has pinned the state");
            } else if map.name().to_string_lossy().ends_with(".rodata") {
                map.set_initial_value(&port.to_be_bytes()).expect("the port is the only constant");
            }
        }
        let mut loaded = open.load().expect("the kernel takes it");
        let mut program = loaded.progs_mut().find(|program| program.name() == "guard").expect("guard");
        program.pin(&pins.0).expect("pin");
        let mut counter = loaded.maps_mut().find(|map| map.name() == "SEEN").expect("SEEN");
        counter.pin(&pins.1).expect("pin");
    });
    (program_pin, counter_pin)
}

fn seen(node: &Node, pin: &Path) -> u64 {
    let pin = pin.to_owned();
    node.run(move |_| {
        let map = MapHandle::from_pinned_path(&pin).expect("pin");
        let value = map.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).expect("lookup").expect("one entry");
        u64::from_ne_bytes(value.try_into().expect("8 bytes"))
    })
}

fn sees_traffic(node: &Node, pin: &Path) {
    let (before, end) = (seen(node, pin), Instant::now() + Duration::from_secs(60));
    while seen(node, pin) == before {
        assert!(Instant::now() < end, "{pin:?} sees nothing of the traffic");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn slot_in_c_is_filled_and_replaced_with_its_generation_without_loss() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        let (a, b) = (node.pod(10), node.pod(11));
        let directory = tempfile::tempdir().expect("directory");
        let object = compile(directory.path());

        let (program, first) = load(&node, object.clone(), 5001, "guard_1");
        // The agent reads its options when it starts.
        let slot = node.bpffs().join("current");
        let (from, to) = (program.clone(), slot.clone());
        node.run(move |_| repin(&from, &to));
        node.slots.insert("egress_policy".to_owned(), slot.clone());
        let streams = Family::ALL.map(|family| Stream::start(&a, &b, family));
        node.restart();
        assert!(node.apply().expect("apply").failed.is_empty());
        assert_eq!(node.apply().expect("apply").changes, 0);
        sees_traffic(&node, &first);
        denied_is(&node, &a, &b, 5001, 5002);

        for round in 2..6 {
            let name = format!("guard_{round}");
            let (program, counter) = load(&node, object.clone(), 5000 + round, &name);
            let to = slot.clone();
            node.run(move |_| repin(&program, &to));
            assert!(node.apply().expect("apply").changes > 0, "a new program is a new generation");
            sees_traffic(&node, &counter);
            denied_is(&node, &a, &b, 5000 + round, 5000 + round - 1);
            // Nobody needs the first one any more: its pin was all that held it.
            let old = seen(&node, &first);
            thread::sleep(Duration::from_millis(20));
            assert_eq!(seen(&node, &first), old, "the old program sees nothing more");
        }
        for stream in streams {
            let (sent, arrived) = stream.end();
            eprintln!("{ways:?}: {arrived} of {sent} arrived");
            assert_eq!(arrived, sent, "{ways:?}");
        }
        for family in Family::ALL {
            assert!(pings(&a.netns, b.ip(family)) && exchanges_tcp(&a.netns, &b.netns, b.ip(family)));
        }
        assert_eq!(node.counted(DropReason::MissedTailCall as u8), 0);

        node.slots.clear();
        node.restart();
        node.apply().expect("apply without slots");
        assert!(pings(&a.netns, b.ip(Family::V4)));
    }
}

#[test]
fn slot_program_that_is_gone_is_reported_and_stops_no_endpoint() {
    let mut node = Node::alone(Ways::Default);
    let a = node.pod(10);
    let directory = tempfile::tempdir().expect("directory");
    let (program, _) = load(&node, compile(directory.path()), 5001, "guard");
    node.slots.insert("egress_policy".to_owned(), program.clone());
    node.restart();
    node.apply().expect("apply");
    let gone = program.clone();
    node.run(move |_| fs::remove_file(gone).expect("remove"));
    let error = node.apply().expect_err("the program is gone").to_string();
    assert!(error.contains(&program.display().to_string()) && error.contains("egress_policy"), "{error}");
    // What runs goes on running, and takes new pods, which the slot judges too.
    let b = node.pod(11);
    denied_is(&node, &a, &b, 5001, 5002);
}

/// Puts a program under a path, whatever was there.
fn repin(from: &Path, to: &Path) {
    let mut program = aya::programs::SchedClassifier::from_pin(from).expect("pinned");
    let _ = fs::remove_file(to);
    program.pin(to).expect("pin");
}

/// One port is denied under the reason that the slot names, the other is not.
fn denied_is(node: &Node, a: &crate::pod::Pod, b: &crate::pod::Pod, denied: u16, open: u16) {
    for family in Family::ALL {
        let (closed, listening) = (b.udp(family, denied), b.udp(family, open));
        let socket = a.udp(family, 0);
        let before = node.counted(DropReason::PolicyDenied as u8);
        socket.send_to(b"no", closed.local_addr().expect("address")).expect("send");
        socket.send_to(b"yes", listening.local_addr().expect("address")).expect("send");
        let arrived = listening.recv_from(&mut [0; 8]);
        assert!(
            arrived.is_ok(),
            "{family}: {arrived:?} {:?}",
            (0..=255).map(|r| (r, node.counted(r))).filter(|c| c.1 > 0).collect::<Vec<_>>()
        );
        assert!(hears_nothing(&closed));
        assert_eq!(node.counted(DropReason::PolicyDenied as u8), before + 1);
    }
}

#[test]
fn whole_object_opens_and_loads_with_libbpf() {
    let mut open = ObjectBuilder::default()
        .name("kinesin_tc")
        .expect("a name")
        .open_memory(kinesin_ebpf_tc::OBJECT)
        .expect("libbpf opens the object");
    let mut names = Vec::new();
    for mut program in open.progs_mut() {
        // The section has another name than libbpf's own for this type.
        program.set_prog_type(libbpf_rs::ProgramType::SchedCls);
        names.push(program.name().to_string_lossy().into_owned());
    }
    assert!(names.contains(&"from_container".to_owned()) && names.len() >= 7, "{names:?}");
    let loaded = open.load().expect("the kernel takes all programs from libbpf");
    assert_eq!(loaded.progs().count(), names.len());
}
