//! The binary `kinesin-operator`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    kinesin_operator::run(clap::Parser::parse()).await
}
