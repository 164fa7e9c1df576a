//! A gate before an API server that lets through what roles allow, and remembers which rules it needed.
//!
//! Source: Kubernetes, "Using RBAC Authorization" and "Authorization: determine the request verb".

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// With its subresource after a slash.
    pub(crate) resource: String,
    pub(crate) name: Option<String>,
    namespace: Option<String>,
}

/// `(group, resource, verb)`, as a rule grants them.
pub(crate) type Grant = (String, String, String);

/// Rules of one account: of the cluster, and of its namespace.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) cluster: Vec<PolicyRule>,
    pub(crate) namespaced: BTreeMap<String, Vec<PolicyRule>>,
}

impl Rules {
    /// Everything that is granted.
    pub(crate) fn grants(&self) -> BTreeSet<Grant> {
        let rules = self.cluster.iter().chain(self.namespaced.values().flatten());
        let mut all = BTreeSet::new();
        for rule in rules {
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    all.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
                }
            }
        }
        all
    }

    fn allow(&self, asked: &Asked) -> bool {
        let own = asked.namespace.as_ref().and_then(|namespace| self.namespaced.get(namespace));
        self.cluster.iter().chain(own.into_iter().flatten()).any(|rule| {
            let has = |list: &Option<Vec<String>>, wanted: &str| list.iter().flatten().any(|found| found == wanted);
            let named = rule
                .resource_names
                .as_ref()
                .is_none_or(|names| names.is_empty() || asked.name.as_ref().is_some_and(|name| names.contains(name)));
            rule.verbs.contains(&asked.verb)
                && has(&rule.api_groups, &asked.group)
                && has(&rule.resources, &asked.resource)
                && named
        })
    }
}

/// The gate.
#[derive(Clone)]
pub(crate) struct Gate {
    rules: Arc<Rules>,
    behind: Client,
    seen: Arc<Mutex<Seen>>,
}

/// What came by.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) allowed: BTreeSet<Asked>,
    pub(crate) refused: BTreeSet<Asked>,
}

impl Seen {
    pub(crate) fn used(&self) -> BTreeSet<Grant> {
        self.allowed.iter().map(|asked| (asked.group.clone(), asked.resource.clone(), asked.verb.clone())).collect()
    }
}

impl Gate {
    /// Opens a gate before the server that `behind` asks; the answer is where it is.
    pub(crate) async fn open(rules: Rules, behind: Client) -> anyhow::Result<(Self, String)> {
        let gate = Self { rules: Arc::new(rules), behind, seen: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new().fallback(pass).with_state(gate.clone());
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok((gate, url))
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    async fn allows(&self, asked: &Asked, uri: &Uri) -> bool {
        let mut all = vec![asked.clone()];
        // An apply that makes the object needs the right to make it.
        if asked.verb == "patch" {
            let look = http::Request::get(uri.path()).body(Vec::new()).expect("a request");
            let found = self.behind.send(look.map(Into::into)).await.is_ok_and(|answer| answer.status().is_success());
            if !found {
                all.push(Asked { verb: "create".to_owned(), ..asked.clone() });
            }
        }
        let mut seen = self.seen.lock().expect("nobody panics with it");
        let mut allowed = true;
        for asked in all {
            if self.rules.allow(&asked) {
                seen.allowed.insert(asked);
            } else {
                seen.refused.insert(asked);
                allowed = false;
            }
        }
        allowed
    }
}

async fn pass(State(gate): State<Gate>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // Everybody may discover, and ask for the version (system:discovery).
    if let Some(asked) = asked(&parts.method, &parts.uri)
        && !gate.allows(&asked, &parts.uri).await
    {
        let status = serde_json::json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 403,
            "reason": "Forbidden", "message": format!("no role allows {asked:?}")});
        return (StatusCode::FORBIDDEN, axum::Json(status)).into_response();
    }
    let Ok(body) = axum::body::to_bytes(body, 1 << 22).await else { return StatusCode::BAD_REQUEST.into_response() };
    let mut onwards = http::Request::builder().method(parts.method).uri(parts.uri);
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != http::header::HOST) {
        onwards = onwards.header(name, value);
    }
    let onwards = onwards.body(body.to_vec().into()).expect("a request");
    match gate.behind.send(onwards).await {
        Ok(answer) => answer.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// What a request asks for; nothing if it is about no resource.
pub(crate) fn asked(method: &Method, uri: &Uri) -> Option<Asked> {
    let parts: Vec<_> = uri.path().trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] if !rest.is_empty() => ("", rest),
        ["apis", group, _, rest @ ..] if !rest.is_empty() => (*group, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let (resource, name, sub) = match rest {
        [resource] => (*resource, None, None),
        [resource, name] => (*resource, Some((*name).to_owned()), None),
        [resource, name, sub, ..] => (*resource, Some((*name).to_owned()), Some(*sub)),
        [] => return None,
    };
    let watches =
        uri.query().unwrap_or_default().split('&').any(|part| matches!(part, "watch=true" | "watch=1" | "watch"));
    let verb = match (method.as_str(), &name) {
        ("GET" | "HEAD", _) if watches => "watch",
        ("GET" | "HEAD", Some(_)) => "get",
        ("GET" | "HEAD", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => "unknown",
    };
    let resource = sub.map_or_else(|| resource.to_owned(), |sub| format!("{resource}/{sub}"));
    Some(Asked { verb: verb.to_owned(), group: group.to_owned(), resource, name, namespace })
}

#[test]
fn requests_are_understood_as_kubernetes_does() {
    let cases = [
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dw1", "list  nodes"),
        ("GET", "/api/v1/nodes?watch=true", "watch  nodes"),
        ("GET", "/api/v1/namespaces/default/pods/a", "get  pods"),
        ("GET", "/api/v1/namespaces/default", "get  namespaces"),
        ("PATCH", "/apis/cilium.io/v2/ciliumnodes/w1", "patch cilium.io ciliumnodes"),
        ("PUT", "/apis/apps/v1/namespaces/a/deployments/b/scale", "update apps deployments/scale"),
        ("DELETE", "/apis/cilium.io/v2/namespaces/a/ciliumendpoints", "deletecollection cilium.io ciliumendpoints"),
    ];
    for (method, uri, expected) in cases {
        let found = asked(&method.parse().expect("a method"), &uri.parse().expect("a URI")).expect("a resource");
        assert_eq!(format!("{} {} {}", found.verb, found.group, found.resource), expected, "{uri}");
    }
    for uri in ["/version", "/api", "/api/v1", "/apis/apps/v1", "/healthz"] {
        assert_eq!(asked(&Method::GET, &uri.parse().expect("a URI")), None, "{uri}");
    }
}
