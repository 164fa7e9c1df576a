//! Bad requests get a `Status` with the right code and a message that helps.

use anyhow::Result;
use serde_json::json;

use crate::common::cluster;

#[tokio::test]
async fn bad_requests_are_answered_with_a_status_that_names_the_fault() -> Result<()> {
    let cluster = cluster().await?;
    let maps = "/api/v1/namespaces/default/configmaps";
    let json_type = "application/json";
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (description, method, path, content_type, body, code, word) in [
        ("no such path", "GET", "/nothing", "", String::new(), 404, "/nothing"),
        ("no such resource", "GET", "/api/v1/gizmos", "", String::new(), 404, "could not find"),
        ("no such group", "GET", "/apis/none.io/v1/x", "", String::new(), 404, "could not find"),
        ("no JSON", "POST", maps, json_type, "{nonsense".to_owned(), 400, "not valid JSON"),
        ("no object", "POST", maps, json_type, "[1]".to_owned(), 400, "not array"),
        ("empty", "POST", maps, json_type, String::new(), 400, "not null"),
        ("too deep", "POST", maps, json_type, deep, 400, "recursion"),
        ("another kind", "POST", maps, json_type, json!({"kind": "Pod"}).to_string(), 400, "Pod"),
        ("no name", "POST", maps, json_type, json!({}).to_string(), 422, "metadata.name"),
        ("a bad name", "POST", maps, json_type, json!({"metadata": {"name": "Up"}}).to_string(), 422, "RFC 1123"),
        (
            "another namespace",
            "POST",
            maps,
            json_type,
            json!({"metadata": {"name": "a", "namespace": "b"}}).to_string(),
            400,
            "namespace",
        ),
        ("metadata of a wrong type", "POST", maps, json_type, json!({"metadata": 1}).to_string(), 400, "metadata"),
        (
            "wrong types",
            "POST",
            maps,
            json_type,
            json!({"metadata": {"name": "a"}, "data": {"k": 1}}).to_string(),
            422,
            "data.k",
        ),
        ("an unknown media type", "POST", maps, "text/html", "x".to_owned(), 415, "text/html"),
        ("broken protobuf", "POST", maps, "application/vnd.kubernetes.protobuf", "x".to_owned(), 400, "protobuf"),
        ("an unknown patch", "PATCH", "/api/v1/namespaces/default", json_type, "{}".to_owned(), 415, "merge-patch"),
        ("a huge body", "POST", maps, json_type, " ".repeat(4 << 20), 413, "limit is 3145728"),
        ("a bad selector", "GET", "/api/v1/pods?labelSelector=a+in+b", "", String::new(), 400, "a in b"),
        ("a bad field", "GET", "/api/v1/pods?fieldSelector=spec.x=1", "", String::new(), 400, "spec.x"),
        ("a bad revision", "GET", "/api/v1/pods?resourceVersion=x", "", String::new(), 400, "resourceVersion"),
        ("a bad token", "GET", "/api/v1/pods?limit=1&continue=!!", "", String::new(), 400, "continue"),
        ("a bad limit", "GET", "/api/v1/pods?limit=many", "", String::new(), 400, "limit"),
        ("a wrong verb", "PUT", "/api/v1/pods", "", String::new(), 405, "PUT"),
        ("a collection of all", "POST", "/api/v1/configmaps", json_type, "{}".to_owned(), 405, "all namespaces"),
        ("a path that is no text", "GET", "/api/v1/namespaces/%ff", "", String::new(), 400, "UTF-8"),
        (
            "a subresource that is none",
            "GET",
            "/api/v1/namespaces/default/configmaps/a/status",
            "",
            String::new(),
            404,
            "status",
        ),
    ] {
        let (got, status) = cluster.raw(method, path, content_type, body).await?;
        assert_eq!(got, code, "{description}: {status}");
        assert_eq!(status["kind"], "Status", "{description}");
        assert_eq!(status["code"], code, "{description}");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.contains(word), "{description}: {message}");
    }
    let (code, _) = cluster.raw("GET", "/healthz", "", "").await?;
    assert_eq!(code, 200);
    Ok(())
}

#[tokio::test]
async fn unknown_fields_are_refused_dropped_with_a_warning_or_dropped() -> Result<()> {
    let cluster = cluster().await?;
    let body = |name: &str| json!({"metadata": {"name": name}, "dta": {"k": "v"}}).to_string();
    let path = |how: &str| format!("/api/v1/namespaces/default/configmaps?fieldValidation={how}");
    let (code, status) = cluster.raw("POST", &path("Strict"), "application/json", body("a")).await?;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().is_some_and(|m| m.contains("unknown field \"dta\"")), "{status}");
    for how in ["Warn", "Ignore"] {
        let (code, stored) = cluster.raw("POST", &path(how), "application/json", body(&how.to_lowercase())).await?;
        assert_eq!((code, stored.get("dta")), (201, None));
    }
    Ok(())
}

#[tokio::test]
async fn objects_that_break_rules_are_refused_with_every_field() -> Result<()> {
    let cluster = cluster().await?;
    let apps = "/apis/apps/v1/namespaces/default/deployments";
    for (description, path, body, field) in [
        (
            "no containers",
            "/api/v1/namespaces/default/pods",
            json!({"metadata": {"name": "a"}, "spec": {}}),
            "spec.containers",
        ),
        (
            "no image",
            "/api/v1/namespaces/default/pods",
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}}),
            "spec.containers[0].image",
        ),
        (
            "labels that do not match",
            apps,
            json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
            "spec.template.metadata.labels",
        ),
        (
            "a port out of range",
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 70000}]}}),
            "spec.ports[0].port",
        ),
        (
            "a label that is none",
            "/api/v1/namespaces",
            json!({"metadata": {"name": "a", "labels": {"-": "b"}}}),
            "metadata.labels",
        ),
        (
            "an owner without a uid",
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": {"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}}),
            "metadata.ownerReferences[0].uid",
        ),
    ] {
        let (code, status) = cluster.raw("POST", path, "application/json", body.to_string()).await?;
        assert_eq!(code, 422, "{description}: {status}");
        let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
        assert!(causes.iter().any(|c| c["field"] == field), "{description}: {status}");
    }
    Ok(())
}
