//! Loads, pins, attaches and replaces BPF programs and reads their maps.
