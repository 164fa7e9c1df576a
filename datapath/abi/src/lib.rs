//! Keys, values and records that the kernel programs and user space share.
