//! The C header of slot programs, written from the declarations themselves.
//!
//! `backends/ebpf-tc/include/kinesin_abi.h` is this text; a test compares them. Static assertions in it make a C
//! compiler check every size and offset.

use std::fmt::Write as _;

use crate::{
    address, carrier, config, conntrack, endpoint, event, identity, ipcache, layout, mark, metrics, policy, reason,
    record::Record, stage, state,
};

/// The header's text.
#[must_use]
pub fn c_header() -> String {
    let mut text = String::from(
        "/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */\n\
         /* Kinesin's records for slot programs. Generated from datapath/abi; do not edit.\n \
         * Regenerate: KINESIN_WRITE_HEADER=1 cargo test -p kinesin-abi --features user header */\n\
         #ifndef KINESIN_ABI_H\n#define KINESIN_ABI_H\n\n#include <linux/types.h>\n\n",
    );
    for (name, value) in [
        ("SLOTS", layout::MAP_SLOTS),
        ("CONT", layout::MAP_CONT),
        ("STATE", layout::MAP_STATE),
        ("ENDPOINTS", layout::MAP_ENDPOINTS),
        ("IPCACHE", layout::MAP_IPCACHE),
    ] {
        text += &format!("#define KIN_MAP_{name} \"{value}\"\n");
    }
    text += &format!("#define KIN_LAYOUT_VERSION {}\n\n", layout::LAYOUT_VERSION);
    for list in [
        address::NUMBERS,
        identity::NUMBERS,
        carrier::NUMBERS,
        stage::NUMBERS,
        state::NUMBERS,
        endpoint::NUMBERS,
        ipcache::NUMBERS,
        policy::NUMBERS,
        conntrack::NUMBERS,
        metrics::NUMBERS,
        event::NUMBERS,
        mark::NUMBERS,
        config::NUMBERS,
        layout::NUMBERS,
        reason::NUMBERS,
    ] {
        for (name, value) in list {
            text += &format!("#define KIN_{name} {value}\n");
        }
        text.push('\n');
    }
    write_record::<state::Tuple>(&mut text);
    write_record::<state::PacketState>(&mut text);
    write_record::<endpoint::EndpointKey>(&mut text);
    write_record::<endpoint::EndpointValue>(&mut text);
    write_record::<ipcache::IpcacheKey>(&mut text);
    write_record::<ipcache::IpcacheValue>(&mut text);
    write_record::<policy::PolicyKey>(&mut text);
    write_record::<policy::PolicyValue>(&mut text);
    write_record::<conntrack::ConntrackValue>(&mut text);
    write_record::<metrics::MetricsValue>(&mut text);
    write_record::<layout::Bucket>(&mut text);
    write_record::<event::Event>(&mut text);
    write_record::<config::DatapathConfig>(&mut text);
    text += "#endif\n";
    text
}

fn write_record<R: Record>(text: &mut String) {
    let name = snake(R::NAME);
    let _ = writeln!(text, "struct kin_{name} {{");
    for field in R::fields() {
        let (kind, count) = c_type(field.kind);
        let _ = writeln!(text, "\t{kind} {}{count};", field.name);
    }
    let _ = writeln!(text, "}};");
    let _ = writeln!(text, "_Static_assert(sizeof(struct kin_{name}) == {}, \"{name}\");", size_of::<R>());
    for field in R::fields() {
        let _ = writeln!(
            text,
            "_Static_assert(__builtin_offsetof(struct kin_{name}, {0}) == {1}, \"{name}.{0}\");",
            field.name, field.offset
        );
    }
    text.push('\n');
}

/// C's type and array suffix for a Rust type as it is written in the declarations.
fn c_type(kind: &str) -> (String, String) {
    let kind: String = kind.chars().filter(|c| !c.is_whitespace()).collect();
    if let Some((element, count)) =
        kind.strip_prefix('[').and_then(|k| k.strip_suffix(']')).and_then(|k| k.split_once(';'))
    {
        return (c_type(element).0, format!("[{count}]"));
    }
    match kind.as_str() {
        "Words" => ("__u32".into(), "[4]".into()),
        "u8" | "u16" | "u32" | "u64" => (format!("__{kind}"), String::new()),
        record => (format!("struct kin_{}", snake(record)), String::new()),
    }
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../backends/ebpf-tc/include/kinesin_abi.h");

    #[test]
    fn header_in_the_tree_is_the_generated_one() {
        if std::env::var_os("KINESIN_WRITE_HEADER").is_some() {
            fs::create_dir_all(Path::new(PATH).parent().unwrap()).unwrap();
            fs::write(PATH, c_header()).unwrap();
        }
        assert_eq!(fs::read_to_string(PATH).unwrap_or_default(), c_header(), "regenerate as the header's comment says");
    }

    #[test]
    fn a_c_compiler_agrees_with_every_size_and_offset() {
        let Some(compiler) =
            ["clang", "cc", "gcc"].into_iter().find(|c| Command::new(c).arg("--version").output().is_ok())
        else {
            return;
        };
        let dir = std::env::temp_dir().join(format!("kinesin-abi-header-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let source = dir.join("check.c");
        fs::write(&source, c_header()).unwrap();
        let output =
            Command::new(compiler).args(["-std=gnu11", "-fsyntax-only", "-Wall", "-Werror"]).arg(&source).output();
        fs::remove_dir_all(&dir).unwrap();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
