//! The macro that declares a record for Rust, for the C header and for the size check at once.

/// Declares a `#[repr(C)]` record of `size` bytes.
macro_rules! record {
    (
        $(#[$meta:meta])*
        $name:ident, $c_name:literal, size $size:literal {
            $( $(#[$field_meta:meta])* $field:ident : $ty:tt ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $ty, )+
        }

        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        // The fields fill the record: there is no padding that could stay uninitialised.
        const _: () = assert!(0 $( + core::mem::size_of::<$ty>() )+ == $size);

        #[cfg(feature = "user")]
        impl $crate::header::Declared for $name {
            const NAME: &'static str = $c_name;
            const SIZE: usize = $size;
            const FIELDS: &'static [$crate::header::Field] = &[
                $( $crate::header::Field {
                    name: stringify!($field),
                    ty: stringify!($ty),
                    offset: core::mem::offset_of!($name, $field),
                }, )+
            ];
        }
    };
}

pub(crate) use record;
