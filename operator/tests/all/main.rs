//! Operators against an API server in this process. One program, since each test program links the whole of what it tests.

mod common;
mod forecast;
mod ipam;
mod operator;
