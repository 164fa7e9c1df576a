//! The real binary in network namespaces of each test's own, against a small agent on a unix socket. Needs root.

mod attach;
mod detach;
mod fake_agent;
mod node;
mod protocol;
mod rollback;
