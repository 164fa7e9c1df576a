//! The packet path as pure logic, for the kernel, for tests and for simulation.
