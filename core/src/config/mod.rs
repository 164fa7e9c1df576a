//! The configuration: one typed tree from defaults, a file or directory, the environment and flags.

mod section;

pub use section::Section;
