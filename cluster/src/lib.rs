//! The Kubernetes side: resource types, watchers and writers.
