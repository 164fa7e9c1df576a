//! The binary as people run it. One program, since each test program links the whole of what it tests.

mod binary;
mod cluster;
mod ipam;
