//! The API server as its clients see it. One program, since each test program links the whole of what it tests.

mod bad_input;
mod common;
mod objects;
