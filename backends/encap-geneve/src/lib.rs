#![doc = include_str!("../README.md")]

use std::sync::Arc;

use kinesin_core::{
    registry::{BuildContext, BuildError},
    routing::Routing,
    values::Carrier,
};
use kinesin_encap::{Encap, Format};

/// RFC 8926 section 3.4: without options.
const FORMAT: Format = Format { name: "geneve", carrier: Carrier::Geneve, header_bytes: 8 };

/// Builds the backend from its section.
fn build(context: &BuildContext) -> Result<Arc<dyn Routing>, BuildError> {
    Encap::build(context, FORMAT)
}

kinesin_core::inventory::submit! {
    kinesin_encap::registration(
        &FORMAT,
        "Geneve tunnels between nodes, for networks that do not know pods",
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
