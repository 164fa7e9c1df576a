//! The command line of Kinesin.
