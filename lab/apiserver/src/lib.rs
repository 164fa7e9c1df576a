//! A small Kubernetes API server and the controllers of a lab cluster.
