//! `ipam plan` and `ipam migrate`: from one IPAM mode to another on a running cluster.
//!
//! Only the Kubernetes API is asked and told, so it works wherever a kubeconfig leads. What is there decides what is left
//! to do, so a migration that was broken off is continued by asking for it again.

mod agents;
mod change;
mod facts;
mod migrate;
mod operator;
mod plan;
mod render;

use std::process::ExitCode;

use kinesin_ipam_blocks::Mode;

use crate::{
    args::{Global, IpamArgs, IpamCommand, MigrateArgs},
    cluster::connect,
    output::{Format, print, render as format_as},
};
use facts::Facts;
use plan::Plan;

/// Runs `ipam ...`; exit code 1 where the change is impossible.
pub(crate) async fn answer(global: &Global, command: IpamCommand) -> anyhow::Result<ExitCode> {
    let client = connect(global.kubeconfig.as_deref()).await?;
    match command {
        IpamCommand::Plan(args) => {
            let plan = plan_of(&Facts::read(client, &global.namespace).await?, &args);
            print(&format_as(global.output, &plan, render::plan)?)?;
            Ok(verdict(plan.possible))
        }
        IpamCommand::Migrate(args) => migrate(global, &client, &args).await,
    }
}

fn plan_of(facts: &Facts, args: &IpamArgs) -> Plan {
    plan::plan(facts, args.to, &args.settings, args.allow_shortage)
}

async fn migrate(global: &Global, client: &kube::Client, args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    let facts = Facts::read(client.clone(), &global.namespace).await?;
    let plan = plan_of(&facts, &args.ipam);
    let for_people = global.output == Format::Summary;
    if !plan.possible || for_people {
        print(&format_as(global.output, &plan, render::plan)?)?;
    }
    if !plan.possible {
        return Ok(ExitCode::FAILURE);
    }
    let report = migrate::migrate(client, global, args, facts, plan).await?;
    print(&format_as(global.output, &report, render::report)?)?;
    Ok(ExitCode::SUCCESS)
}

fn verdict(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Registry name of a mode's backend.
fn backend_of(mode: Mode) -> &'static str {
    match mode {
        Mode::Kubernetes => "host_scope",
        Mode::ClusterPool => "cluster_pool",
        Mode::MultiPool => "multi_pool",
    }
}
