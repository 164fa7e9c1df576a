//! The C header for slot programs, written from the Rust declarations.

use std::fmt::Write as _;

use crate::{
    Continuation, DeviceValue, DropEvent, DropReason, EndpointKey, EndpointValue, Entry, IpcacheKey, IpcacheValue,
    LAYOUT, Metric, PacketState, STATE_VERSION, Stage, map,
};

/// A record that stands in the header.
pub trait Declared {
    /// Its name in C, without `struct`.
    const NAME: &'static str;
    /// Its size in bytes.
    const SIZE: usize;
    /// Its fields in order.
    const FIELDS: &'static [Field];
}

/// A field of a record.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type as Rust writes it.
    pub ty: &'static str,
    /// Its offset in bytes.
    pub offset: usize,
}

/// The whole header.
#[must_use]
pub fn c_header() -> String {
    let mut out = String::from(
        "/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */\n\
         /* Written from the Rust declarations by kinesin-abi; do not edit. A test compares the two. */\n\
         #ifndef KINESIN_ABI_H\n#define KINESIN_ABI_H\n\n#include <linux/types.h>\n\n",
    );
    define(&mut out, "KINESIN_LAYOUT", LAYOUT);
    define(&mut out, "KINESIN_STATE_VERSION", u32::from(STATE_VERSION));
    out.push_str("\n/* Stages: indices of the slot array. */\n");
    for stage in Stage::ALL {
        define(&mut out, &format!("KINESIN_STAGE_{}", stage.name().to_uppercase()), stage as u32);
    }
    out.push_str("\n/* Continuations: a slot program ends by tail-calling one of these. */\n");
    for (name, number) in
        [("NEXT", Continuation::Next), ("DELIVER", Continuation::Deliver), ("DROP", Continuation::Drop)]
    {
        define(&mut out, &format!("KINESIN_CONT_{name}"), number as u32);
    }
    out.push_str("\n/* Entries: where the packet met the pipeline. */\n");
    for (name, number) in [
        ("FROM_CONTAINER", Entry::FromContainer),
        ("TO_CONTAINER", Entry::ToContainer),
        ("FROM_NETDEV", Entry::FromNetdev),
        ("FROM_HOST", Entry::FromHost),
        ("FROM_OVERLAY", Entry::FromOverlay),
    ] {
        define(&mut out, &format!("KINESIN_ENTRY_{name}"), number as u32);
    }
    out.push_str("\n/* Drop reasons. */\n");
    for reason in DropReason::ALL {
        let name = format!("{reason:?}");
        let mut upper = String::new();
        for (position, letter) in name.char_indices() {
            if position > 0 && letter.is_ascii_uppercase() {
                upper.push('_');
            }
            upper.push(letter.to_ascii_uppercase());
        }
        define(&mut out, &format!("KINESIN_DROP_{upper}"), *reason as u32);
    }
    let _ = write!(
        out,
        "\n/*\n \
         * Maps of a slot program: {state}, a per-CPU array with one struct kinesin_packet_state, shared with the\n \
         * pipeline by its pin <bpffs>/kinesin/v{LAYOUT}/maps/{state}; and {cont}, a program array of {count} entries of\n \
         * the program's own, which the chassis fills. Both names are what the chassis looks for.\n \
         */\n",
        state = map::STATE,
        cont = map::CONT,
        count = Continuation::Drop as u32 + 1,
    );
    define(&mut out, "KINESIN_CONTINUATIONS", Continuation::Drop as u32 + 1);
    declare::<PacketState>(&mut out);
    declare::<EndpointKey>(&mut out);
    declare::<EndpointValue>(&mut out);
    declare::<DeviceValue>(&mut out);
    declare::<IpcacheKey>(&mut out);
    declare::<IpcacheValue>(&mut out);
    declare::<Metric>(&mut out);
    declare::<DropEvent>(&mut out);
    out.push_str("\n#endif /* KINESIN_ABI_H */\n");
    out
}

fn define(out: &mut String, name: &str, value: u32) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "#define {name} {value}");
}

fn declare<T: Declared>(out: &mut String) {
    let _ = writeln!(out, "\nstruct {} {{", T::NAME);
    for field in T::FIELDS {
        let (ty, count) = c_type(field.ty);
        let _ = writeln!(out, "\t{ty} {}{count};", field.name);
    }
    out.push_str("};\n");
    let _ = writeln!(out, "_Static_assert(sizeof(struct {}) == {}, \"size\");", T::NAME, T::SIZE);
    for field in T::FIELDS {
        let _ = writeln!(
            out,
            "_Static_assert(__builtin_offsetof(struct {}, {}) == {}, \"{}\");",
            T::NAME,
            field.name,
            field.offset,
            field.name
        );
    }
}

/// `[u32; 4]` to `__u32` and `[4]`.
fn c_type(rust: &str) -> (String, String) {
    let scalar = |name: &str| format!("__{name}");
    match rust.trim_start_matches('[').trim_end_matches(']').split_once(';') {
        Some((element, count)) => (scalar(element.trim()), format!("[{}]", count.trim())),
        None => (scalar(rust), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_translated() {
        assert_eq!(c_type("u32"), ("__u32".to_owned(), String::new()));
        assert_eq!(c_type("[u32; 4]"), ("__u32".to_owned(), "[4]".to_owned()));
    }
}
