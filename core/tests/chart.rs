//! The files of the chart that are made from the table of keys, as they are checked in.

use std::{fs, path::Path};

use kinesin_core::config::schema;

#[test]
fn checked_in_chart_files_are_what_the_table_of_keys_says() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/kinesin");
    for (name, written) in [
        ("values.yaml", schema::values_yaml()),
        ("values.schema.json", schema::values_schema()),
        ("files/keys.json", schema::key_table()),
    ] {
        let path = chart.join(name);
        if std::env::var_os("KINESIN_BLESS").is_some_and(|value| value == "1") {
            fs::write(&path, &written).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let checked_in = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            checked_in == written,
            "{} is out of date; KINESIN_BLESS=1 cargo test -p kinesin-core --test chart writes it",
            path.display()
        );
    }
}
