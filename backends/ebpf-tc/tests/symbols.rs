//! The object file, looked at from outside.

use std::process::Command;

/// A path that panics is one that the verifier refuses, on some kernel if not on this one.
#[test]
fn kernel_programs_have_no_path_that_panics() {
    let directory = tempfile::tempdir().expect("directory");
    let object = directory.path().join("kinesin-tc.o");
    std::fs::write(&object, kinesin_ebpf_tc::OBJECT).expect("object");
    match Command::new("llvm-nm").arg("-C").arg(&object).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let symbols = String::from_utf8_lossy(&output.stdout);
            assert!(symbols.contains("from_container"), "{symbols}");
            let panicking: Vec<_> = symbols.lines().filter(|line| line.contains("panicking")).collect();
            assert!(panicking.is_empty(), "{panicking:?}");
        }
        // Without the tool the names are looked for in the string table, which has them mangled.
        Err(_) => assert!(!contains(kinesin_ebpf_tc::OBJECT, b"panicking")),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
