#![doc = include_str!("../README.md")]

mod range;

mod bitmap;

mod block;

mod allocator;

mod waiting;

mod growing;

pub use allocator::{Allocator, Mode};
pub use growing::{Growing, Keep, Usage};
pub use range::{MAX_IPV4_HOST_BITS, MAX_IPV6_ADDRESSES, Range};
