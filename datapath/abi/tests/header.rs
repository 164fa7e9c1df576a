//! The C header for slot programs, as it is checked in.

use std::{fs, path::Path};

#[test]
fn checked_in_header_is_what_the_declarations_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/kinesin_abi.h");
    let written = kinesin_abi::header::c_header();
    if std::env::var_os("KINESIN_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &written).expect("the header is writable");
    }
    let checked_in = fs::read_to_string(&path).expect("the header is checked in");
    assert!(
        checked_in == written,
        "{} is out of date; KINESIN_BLESS=1 cargo test -p kinesin-abi --test header writes it",
        path.display()
    );
}
