//! The two macros behind every declaration here: they check the layout and remember it for the C header.

/// Declares a `repr(C)` record of a stated size without implicit padding.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident [$size:literal] {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == $size, "the record's size is not the stated one");
        const _: () = assert!(0 $(+ size_of::<$type>())* == $size, "the record has implicit padding");

        impl $name {
            /// All bits zero.
            pub const ZERO: Self = {
                // SAFETY: the record consists of integers and of records of integers, for which zero is a value.
                unsafe { core::mem::MaybeUninit::zeroed().assume_init() }
            };
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ZERO
            }
        }

        // SAFETY: the record is `repr(C)`, consists of integers and has no padding (asserted above).
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}

        #[cfg(feature = "user")]
        impl $crate::record::Record for $name {
            const NAME: &'static str = stringify!($name);
            fn fields() -> Vec<$crate::record::Field> {
                vec![$($crate::record::Field {
                    name: stringify!($field),
                    kind: stringify!($type),
                    offset: core::mem::offset_of!($name, $field),
                },)*]
            }
        }
    };
}

/// Declares numbers and keeps their list for the C header.
macro_rules! numbers {
    ($($(#[$meta:meta])* pub const $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$meta])* pub const $name: $type = $value;)*

        #[cfg(feature = "user")]
        #[expect(clippy::unnecessary_cast, reason = "numbers of several widths share one list")]
        pub(crate) const NUMBERS: &[(&str, u64)] = &[$((stringify!($name), $name as u64),)*];
    };
}

pub(crate) use {numbers, record};

/// A record whose layout can be written down, as the C header does.
#[cfg(feature = "user")]
pub trait Record {
    /// The record's name in Rust.
    const NAME: &'static str;

    /// Its fields in the order of memory.
    fn fields() -> Vec<Field>;
}

/// One field of a record.
#[cfg(feature = "user")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its Rust type as written, such as `[u32; 4]`.
    pub kind: &'static str,
    /// Bytes from the record's start.
    pub offset: usize,
}
