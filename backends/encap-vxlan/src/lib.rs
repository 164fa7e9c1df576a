#![doc = include_str!("../README.md")]

use std::sync::Arc;

use kinesin_core::{
    registry::{BuildContext, BuildError},
    routing::Routing,
    values::Carrier,
};
use kinesin_encap::{Encap, Format};

/// RFC 7348 section 5.
const FORMAT: Format = Format { name: "vxlan", carrier: Carrier::Vxlan, header_bytes: 8 };

/// Builds the backend from its section.
fn build(context: &BuildContext) -> Result<Arc<dyn Routing>, BuildError> {
    Encap::build(context, FORMAT)
}

kinesin_core::inventory::submit! {
    kinesin_encap::registration(
        &FORMAT,
        "VXLAN tunnels between nodes, for networks that do not know pods",
        include_str!("../default.toml"),
        build,
    )
}

#[cfg(test)]
mod tests {
    use kinesin_encap::Config;

    #[test]
    fn default_file_equals_the_default() {
        let written: Config = toml::from_str(include_str!("../default.toml")).expect("valid");
        assert_eq!(written, Config::default());
    }
}
