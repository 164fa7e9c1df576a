//! What is printed, and to whom.

use std::{
    io,
    process::{Command, Output},
};

#[test]
fn a_reader_that_has_heard_enough_is_no_error() {
    for argument in ["--list", "--help", "--version"] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinesin-bench"));
        let Output { status, stderr, .. } = command.arg(argument).stdout(writer).output().expect("run");
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.success() && said.is_empty(), "{argument}: {status}, {said}");
    }
}
