//! The five traits of a Kinesin node, the values they speak of, the registry and the configuration.
