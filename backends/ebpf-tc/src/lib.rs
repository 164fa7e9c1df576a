//! The eBPF chassis: local delivery and the packet pipeline at tc.
