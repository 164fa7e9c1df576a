#![doc = include_str!("../README.md")]

mod range;

mod bitmap;

mod block;

mod allocator;

mod waiting;

mod growing;

mod asking;

mod check;

pub use allocator::{Allocator, Mode};
pub use asking::{Asking, Rules};
pub use check::check_number;
pub use growing::{Growing, Keep, Usage};
pub use range::{MAX_IPV4_HOST_BITS, MAX_IPV6_ADDRESSES, Range};
