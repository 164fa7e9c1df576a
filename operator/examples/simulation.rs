//! A cluster of simulated nodes: how long an operator takes to serve all of them, and how much it writes.
//!
//! The API server is the lab's, in this process; the operator is the real one over HTTP. Nodes are CiliumNodes whose
//! agents ask for pools. Prints what was measured:
//!
//! ```text
//! cargo run --release -p kinesin-operator --example simulation -- 5000 50
//! ```

#![expect(clippy::print_stdout, reason = "an example that prints what it measured")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::{StreamExt, stream};
use ipnet::IpNet;
use kinesin_apiserver::{ApiServer, Config};
use kinesin_cluster::{CiliumNode, CiliumPodIPPool, Table, install_crds, watch_all};
use kinesin_operator::{IpamSettings, Operator, Settings, Timing, Writes};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Requests of the simulated agents at the same time.
const AT_ONCE: usize = 32;
const QUIET: Duration = Duration::from_secs(10);
const REQUESTS: usize = 50;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let nodes = numbers.next().transpose().context("the first argument is the number of nodes")?.unwrap_or(5000);
    let pools = numbers.next().transpose().context("the second argument is the number of pools")?.unwrap_or(50);
    ensure!((1..=20_000).contains(&nodes) && (1..=200).contains(&pools), "at most 20000 nodes and 200 pools");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = ApiServer::start(Config { listeners: vec![listener], ..Config::default() }).await?;
    let url = format!("http://{}", server.local_addrs()[0]);
    let client = kinesin_cluster::connect(None, Some(&url)).await?;
    install_crds(&client).await?;
    fill(&client, nodes, pools).await?;
    let table = watch_all::<CiliumNode, _, _>(client.clone(), blocks_of);
    table.clone().synced().await;

    let (begun, cpu) = (Instant::now(), cpu_seconds()?);
    let operator = operator(&url).await?;
    wait_until(&table, |blocks| blocks.len() >= 2, nodes).await?;
    println!("nodes {nodes}, pools {pools}");
    println!(
        "cold start of the operator to all nodes served: {:.2} s ({:.2} s of CPU, API server and watches included)",
        begun.elapsed().as_secs_f64(),
        cpu_seconds()? - cpu
    );
    let cold = operator.writes();
    print_writes("writes of the cold start", cold, nodes);
    distinct(&table)?;

    tokio::time::sleep(QUIET).await;
    let quiet = operator.writes();
    println!("requests in {} s without a change: {}", QUIET.as_secs(), total(quiet) - total(cold));

    let mut took = Vec::new();
    for number in 0..REQUESTS.min(nodes) {
        let name = node_name(number);
        let before = table.snapshot().items.get(&name).map_or(0, BTreeMap::len);
        let asked = Instant::now();
        request(&client, &name, &[("pool-0", 14), (&pool_name(number, pools), 30)]).await?;
        let grown = |blocks: &BTreeMap<IpNet, String>| blocks.len() > before;
        wait_for(&table, &name, grown).await?;
        took.push(asked.elapsed());
    }
    took.sort();
    println!(
        "one node's request for a further block, from its write to the block on its CiliumNode: median {:.1} ms, \
         worst of {} {:.1} ms",
        millis(took[took.len() / 2]),
        took.len(),
        millis(took[took.len() - 1])
    );
    let before = operator.writes();
    let begun = Instant::now();
    stream::iter(0..nodes)
        .map(|number| {
            let client = client.clone();
            async move { request(&client, &node_name(number), &[("pool-0", 29), (&pool_name(number, pools), 44)]).await }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<anyhow::Result<()>>()?;
    let asked = begun.elapsed();
    wait_until(&table, |blocks| blocks.len() >= 7, nodes).await?;
    println!(
        "all nodes ask for more at once (asking took {:.2} s): served after {:.2} s",
        asked.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    print_writes("writes for that", difference(operator.writes(), before), nodes);
    distinct(&table)?;

    operator.shutdown().await;
    let begun = Instant::now();
    let operator = self::operator(&url).await?;
    while !operator.leads() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(QUIET).await;
    println!("restart with everything served: {} writes", total_writes(operator.writes()));
    println!("that was watched for {:.0} s", begun.elapsed().as_secs_f64());
    operator.shutdown().await;
    server.shutdown().await;
    Ok(())
}

fn node_name(number: usize) -> String {
    format!("node-{number:05}")
}

fn pool_name(node: usize, pools: usize) -> String {
    format!("pool-{}", 1 + node % pools.saturating_sub(1).max(1))
}

/// Pools of 4096 blocks, and nodes that ask for one block of the first pool and one of another.
async fn fill(client: &Client, nodes: usize, pools: usize) -> anyhow::Result<()> {
    let api: Api<CiliumPodIPPool> = Api::all(client.clone());
    for number in 0..pools.max(2) {
        // The first pool is everybody's: four blocks for each of at most 20,000 nodes.
        let cidr = if number == 0 { "10.0.0.0/11".to_owned() } else { format!("10.{}.0.0/16", 32 + number) };
        let pool = json!({
            "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumPodIPPool",
            "metadata": {"name": format!("pool-{number}")},
            "spec": {"ipv4": {"cidrs": [cidr], "maskSize": 28}},
        });
        api.create(&PostParams::default(), &serde_json::from_value(pool)?).await?;
    }
    let begun = Instant::now();
    stream::iter(0..nodes)
        .map(|number| {
            let api: Api<CiliumNode> = Api::all(client.clone());
            async move {
                let node = json!({
                    "apiVersion": "cilium.io/v2", "kind": "CiliumNode",
                    "metadata": {
                        "name": node_name(number), "annotations": {"ipam.kinesin.io/mode": "multi-pool"},
                    },
                    "spec": {"ipam": {"pools": {"requested": [
                        {"pool": "pool-0", "needed": {"ipv4-addrs": 10}},
                        {"pool": pool_name(number, pools), "needed": {"ipv4-addrs": 10}},
                    ]}}},
                });
                api.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<anyhow::Result<()>>()?;
    eprintln!("made {nodes} CiliumNodes in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

async fn operator(url: &str) -> anyhow::Result<Operator> {
    let client = kinesin_cluster::connect(None, Some(url)).await?;
    let settings = Settings {
        namespace: "kube-system".to_owned(),
        identity: "simulation".to_owned(),
        timing: Timing {
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        },
        // CiliumNodes here have no Nodes.
        nodes_interval: None,
        endpoints_interval: None,
        grace: Duration::from_secs(60),
        ipam: IpamSettings::default(),
        config_dir: None,
        install_crds: true,
        health_address: "127.0.0.1:0".to_owned(),
        metrics_address: None,
    };
    Operator::start(client, settings).await
}

/// What an agent writes when it needs more.
async fn request(client: &Client, name: &str, needs: &[(&str, u32)]) -> anyhow::Result<()> {
    let api: Api<CiliumNode> = Api::all(client.clone());
    let list: Vec<Value> =
        needs.iter().map(|(pool, needed)| json!({"pool": pool, "needed": {"ipv4-addrs": needed}})).collect();
    let patch = Patch::Merge(json!({"spec": {"ipam": {"pools": {"requested": list}}}}));
    api.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Blocks of a CiliumNode with their pools.
fn blocks_of(object: &DynamicObject) -> Result<BTreeMap<IpNet, String>, String> {
    let allocated = object.data["spec"]["ipam"]["pools"]["allocated"].as_array().into_iter().flatten();
    let mut blocks = BTreeMap::new();
    for entry in allocated {
        let pool = entry["pool"].as_str().unwrap_or_default();
        for text in entry["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            blocks.insert(text.parse().map_err(|_| format!("{text:?} is no CIDR"))?, pool.to_owned());
        }
    }
    Ok(blocks)
}

type Blocks = BTreeMap<IpNet, String>;

async fn wait_until(table: &Table<Blocks>, enough: impl Fn(&Blocks) -> bool, nodes: usize) -> anyhow::Result<()> {
    let mut table = table.clone();
    let wait = async {
        while table.snapshot().items.values().filter(|blocks| enough(blocks)).count() < nodes {
            table.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), wait).await.context("not all nodes were served within 300 s")
}

async fn wait_for(table: &Table<Blocks>, name: &str, enough: impl Fn(&Blocks) -> bool) -> anyhow::Result<()> {
    let mut table = table.clone();
    let wait = async {
        while !table.snapshot().items.get(name).is_some_and(&enough) {
            table.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.context("the node was not served within 60 s")
}

/// Blocks of one size are distinct if none is listed twice.
fn distinct(table: &Table<Blocks>) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for (name, blocks) in table.snapshot().items.iter() {
        for block in blocks.keys() {
            ensure!(seen.insert(*block), "{block} of {name} has another node too");
        }
    }
    println!("blocks given: {}, each to one node", seen.len());
    Ok(())
}

/// CPU time of this process so far: fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn total_writes(writes: Writes) -> u64 {
    writes.claims + writes.nodes + writes.reports + writes.fences
}

fn total(writes: Writes) -> u64 {
    total_writes(writes) + writes.reads
}

fn difference(after: Writes, before: Writes) -> Writes {
    Writes {
        claims: after.claims - before.claims,
        nodes: after.nodes - before.nodes,
        reports: after.reports - before.reports,
        fences: after.fences - before.fences,
        reads: after.reads - before.reads,
        conflicts: after.conflicts - before.conflicts,
        failures: after.failures - before.failures,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn print_writes(what: &str, writes: Writes, nodes: usize) {
    println!(
        "{what}: {} of claims, {} of CiliumNodes, {} of their status, {} fences ({:.2} writes a node); {} reads, {} \
         conflicts, {} failures",
        writes.claims,
        writes.nodes,
        writes.reports,
        writes.fences,
        total_writes(writes) as f64 / nodes as f64,
        writes.reads,
        writes.conflicts,
        writes.failures
    );
}
