//! What is once per cluster: resource definitions and the collection of what nodes left behind.
