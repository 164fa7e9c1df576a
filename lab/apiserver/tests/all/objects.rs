//! Objects by way of a `kube` client: writes, patches, lists, watches, deletion.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Error, ResourceExt};
use serde_json::json;

use crate::common::{cluster, cluster_in, deployment, until};

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": value}})).expect("a config map")
}

fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> (u16, String) {
    match answer {
        Err(Error::Api(status)) => (status.code, status.reason),
        other => panic!("not refused by the server: {other:?}"),
    }
}

#[tokio::test]
async fn a_write_with_an_old_resource_version_is_a_conflict() -> Result<()> {
    let cluster = cluster().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let first = maps.create(&PostParams::default(), &config_map("a", "1")).await?;
    assert_eq!(code(maps.create(&PostParams::default(), &config_map("a", "1")).await), (409, "AlreadyExists".into()));
    let mut second = first.clone();
    second.data = Some([("k".to_owned(), "2".to_owned())].into());
    maps.replace("a", &PostParams::default(), &second).await?;
    assert_eq!(code(maps.replace("a", &PostParams::default(), &second).await), (409, "Conflict".into()));
    assert_eq!(code(maps.get("b").await), (404, "NotFound".into()));
    let missing: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "nowhere");
    assert_eq!(code(missing.create(&PostParams::default(), &config_map("a", "1")).await), (404, "NotFound".into()));
    Ok(())
}

#[tokio::test]
async fn a_dry_run_changes_nothing() -> Result<()> {
    let cluster = cluster().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    assert_eq!(maps.create(&dry, &config_map("a", "1")).await?.name_any(), "a");
    assert!(maps.get_opt("a").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn all_four_patch_languages_change_an_object() -> Result<()> {
    let cluster = cluster().await?;
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client.clone());
    deployments.create(&PostParams::default(), &deployment("d", 1, "one")).await?;
    let params = PatchParams::apply("tester");
    let json_patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 2}]);
    let patched = deployments
        .patch("d", &PatchParams::default(), &Patch::Json::<()>(serde_json::from_value(json_patch)?))
        .await?;
    assert_eq!(patched.spec.replicas, Some(2));
    let merge = json!({"metadata": {"labels": {"x": "y"}}});
    assert_eq!(deployments.patch("d", &PatchParams::default(), &Patch::Merge(&merge)).await?.labels()["x"], "y");
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}, {"name": "e", "image": "e"}]}}}});
    let patched = deployments.patch("d", &PatchParams::default(), &Patch::Strategic(&strategic)).await?;
    let containers = patched.spec.template.spec.context("template")?.containers;
    assert_eq!(containers.iter().map(|c| c.image.clone().unwrap_or_default()).collect::<Vec<_>>(), ["two", "e"]);
    let apply = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 5}});
    assert_eq!(code(deployments.patch("d", &params, &Patch::Apply(&apply)).await), (409, "Conflict".into()));
    let forced = deployments.patch("d", &params.clone().force(), &Patch::Apply(&apply)).await?;
    assert_eq!(forced.spec.replicas, Some(5));
    assert!(forced.metadata.managed_fields.context("managed")?.iter().any(|m| m.manager.as_deref() == Some("tester")));
    Ok(())
}

#[tokio::test]
async fn server_side_apply_makes_an_object_and_takes_back_what_is_no_longer_applied() -> Result<()> {
    let cluster = cluster().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let params = PatchParams::apply("me");
    let config = |data: serde_json::Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": data});
    let made = maps.patch("s", &params, &Patch::Apply(config(json!({"a": "1", "b": "1"})))).await?;
    let again = maps.patch("s", &params, &Patch::Apply(config(json!({"a": "1", "b": "1"})))).await?;
    assert_eq!(made.resource_version(), again.resource_version(), "the same again is no change");
    let less = maps.patch("s", &params, &Patch::Apply(config(json!({"a": "2"})))).await?;
    assert_eq!(less.data.context("data")?.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "2".to_owned())]);
    Ok(())
}

#[tokio::test]
async fn pages_of_a_list_show_one_revision() -> Result<()> {
    let cluster = cluster().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    for n in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("m{n}"), "1")).await?;
    }
    let first = maps.list(&ListParams::default().limit(2)).await?;
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    maps.delete("m4", &DeleteParams::default()).await?;
    let mut names: Vec<String> = first.items.iter().map(ResourceExt::name_any).collect();
    let mut token = first.metadata.continue_;
    while let Some(next) = token.filter(|t| !t.is_empty()) {
        let page = maps.list(&ListParams::default().limit(2).continue_token(&next)).await?;
        names.extend(page.items.iter().map(ResourceExt::name_any));
        token = page.metadata.continue_;
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(maps.list(&ListParams::default().fields("metadata.name=m1")).await?.items.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_watch_with_a_selector_sees_objects_come_and_go() -> Result<()> {
    let cluster = cluster().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let from = maps.list(&ListParams::default()).await?.metadata.resource_version.context("version")?;
    maps.create(&PostParams::default(), &config_map("plain", "1")).await?;
    maps.create(&PostParams::default(), &config_map("chosen", "1")).await?;
    for label in [json!("yes"), json!("yes2"), json!(null)] {
        let patch = json!({"metadata": {"labels": {"pick": label}}});
        maps.patch("chosen", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    let stream = maps.watch(&WatchParams::default().labels("pick").timeout(1), &from).await?;
    let events: Vec<_> = stream.try_collect::<Vec<_>>().await?;
    let shown: Vec<String> = events
        .iter()
        .filter_map(|e| match e {
            WatchEvent::Added(o) => Some(format!("added {}", o.name_any())),
            WatchEvent::Modified(o) => Some(format!("modified {}", o.name_any())),
            WatchEvent::Deleted(o) => Some(format!("deleted {}", o.name_any())),
            WatchEvent::Bookmark(_) => None,
            WatchEvent::Error(error) => Some(format!("{error:?}")),
        })
        .collect();
    assert_eq!(shown, ["added chosen", "modified chosen", "deleted chosen"]);
    assert!(matches!(events.last(), Some(WatchEvent::Bookmark(_))), "a watch that ends says how far it came");
    Ok(())
}

#[tokio::test]
async fn a_watcher_lists_then_watches_by_either_strategy() -> Result<()> {
    let cluster = cluster().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    maps.create(&PostParams::default(), &config_map("there", "1")).await?;
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut stream = Box::pin(watcher(maps.clone(), config));
        let mut seen = BTreeSet::new();
        loop {
            match stream.try_next().await?.context("the stream ended")? {
                Event::InitApply(map) | Event::Apply(map) if map.name_any() == "later" => break,
                Event::InitApply(map) => drop(seen.insert(map.name_any())),
                Event::InitDone => drop(maps.create(&PostParams::default(), &config_map("later", "1")).await?),
                _ => {}
            }
        }
        assert!(seen.contains("there"));
        maps.delete("later", &DeleteParams::default()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_from_before_the_window_gets_410() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let first = cluster_in(Some(dir.path().to_owned())).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(first.client.clone());
    maps.create(&PostParams::default(), &config_map("kept", "1")).await?;
    let old = maps.list(&ListParams::default()).await?.metadata.resource_version.context("version")?;
    maps.create(&PostParams::default(), &config_map("kept2", "1")).await?;
    first.server.shutdown().await;

    let second = cluster_in(Some(dir.path().to_owned())).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(second.client.clone());
    assert_eq!(maps.list(&ListParams::default()).await?.items.len(), 2, "a restarted server has its state");
    let events: Vec<_> = maps.watch(&WatchParams::default().timeout(1), &old).await?.try_collect::<Vec<_>>().await?;
    assert!(matches!(events.as_slice(), [WatchEvent::Error(status)] if status.code == 410), "{events:?}");
    let (code, status) = second
        .raw("GET", &format!("/api/v1/configmaps?resourceVersion={old}&resourceVersionMatch=Exact"), "", "")
        .await?;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    let (code, _) = second.raw("GET", "/api/v1/configmaps?resourceVersion=999999", "", "").await?;
    assert_eq!(code, 504, "a revision of the future is too large");
    Ok(())
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_taken_away() -> Result<()> {
    let cluster = cluster().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let mut map = config_map("held", "1");
    map.metadata.finalizers = Some(vec!["lab.kinesin.io/hold".to_owned()]);
    maps.create(&PostParams::default(), &map).await?;
    assert!(maps.delete("held", &DeleteParams::default()).await?.is_left(), "it is marked, not gone");
    assert!(maps.get("held").await?.metadata.deletion_timestamp.is_some());
    let more = json!({"metadata": {"finalizers": ["lab.kinesin.io/hold", "lab.kinesin.io/more"]}});
    assert_eq!(code(maps.patch("held", &PatchParams::default(), &Patch::Merge(&more)).await).0, 422);
    let none = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(&none)).await?;
    assert!(maps.get_opt("held").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_deleted_namespace_takes_its_content_along() -> Result<()> {
    let cluster = cluster().await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "doomed"}}))?;
    let made = namespaces.create(&PostParams::default(), &namespace).await?;
    assert_eq!(made.labels()["kubernetes.io/metadata.name"], "doomed");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "doomed");
    let mut held = config_map("held", "1");
    held.metadata.finalizers = Some(vec!["lab.kinesin.io/hold".to_owned()]);
    maps.create(&PostParams::default(), &config_map("free", "1")).await?;
    maps.create(&PostParams::default(), &held).await?;
    namespaces.delete("doomed", &DeleteParams::default()).await?;
    until("the free one to go", || async { Ok(maps.get_opt("free").await?.is_none().then_some(())) }).await?;
    let phase = namespaces.get("doomed").await?.status.and_then(|s| s.phase);
    assert_eq!(phase.as_deref(), Some("Terminating"));
    assert_eq!(code(maps.create(&PostParams::default(), &config_map("late", "1")).await), (403, "Forbidden".into()));
    maps.patch("held", &PatchParams::default(), &Patch::Merge(&json!({"metadata": {"finalizers": null}}))).await?;
    until("the namespace to go", || async { Ok(namespaces.get_opt("doomed").await?.is_none().then_some(())) }).await
}

#[tokio::test]
async fn services_get_addresses_of_their_own() -> Result<()> {
    let cluster = cluster().await?;
    let services: Api<Service> = Api::default_namespaced(cluster.client.clone());
    let mut addresses = BTreeSet::new();
    for (name, spec) in [
        ("a", json!({"ports": [{"port": 80}]})),
        ("b", json!({"ports": [{"port": 80}], "ipFamilyPolicy": "RequireDualStack"})),
        ("c", json!({"ports": [{"port": 80}], "type": "NodePort"})),
    ] {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
        let spec = services.create(&PostParams::default(), &service).await?.spec.context("spec")?;
        addresses.extend(spec.cluster_ips.context("addresses")?);
        let has_node_port = spec.ports.context("ports")?[0].node_port.is_some();
        assert_eq!(has_node_port, name == "c");
    }
    assert_eq!(addresses.len(), 4, "{addresses:?}");
    assert!(addresses.iter().any(|a| a.starts_with("fd00:10:96::")), "{addresses:?}");
    let taken: Service = serde_json::from_value(
        json!({"metadata": {"name": "d"}, "spec": {"ports": [{"port": 80}], "clusterIP": addresses.first()}}),
    )?;
    assert_eq!(code(services.create(&PostParams::default(), &taken).await), (422, "Invalid".into()));
    Ok(())
}
