//! The node agent: desired state from the API to the backends.
