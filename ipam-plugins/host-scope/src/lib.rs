//! Addresses from the pod CIDRs that Kubernetes gave to the node.
