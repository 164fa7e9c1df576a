//! The HTTP side: from a request to the operation and back.

mod discovery;
mod openapi;
mod protobuf;
mod proxy;
mod request;
mod resource;
mod response;
mod review;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::watch::Receiver;

use crate::error::ApiError;
use crate::ops::Api;
use request::Call;
use response::{Body, json_response, text_response};

pub(crate) use proxy::Refusals;
pub(crate) use response::metadata_only;

/// The Kubernetes version whose API this server follows.
const VERSION: (&str, &str, &str) = ("1", "32", "v1.32.0+kinesin");

/// What every request can reach.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) api: Arc<Api>,
    /// Why kubelets refused an exec, for clients that try another protocol after it.
    pub(crate) refusals: Arc<Refusals>,
    /// True from the moment the server shuts down; watches end then.
    pub(crate) stopping: Receiver<bool>,
}

/// Returns when the server shuts down, or has gone.
pub(crate) async fn stopped(stopping: &mut Receiver<bool>) {
    // The guard that the wait gives back must not be held over an await; here it is dropped at once.
    let _ = stopping.wait_for(|is_stopping| *is_stopping).await.map(|_| ());
}

/// Answers one request; refusals become `Status` objects.
pub(crate) async fn handle(server: Server, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = route(&server, request).await;
    Ok(answer.unwrap_or_else(|error| {
        tracing::debug!(%method, path, code = error.code, message = error.message, "refused");
        response::error_response(&error)
    }))
}

async fn route(server: &Server, mut request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let call = Call::parse(&request)?;
    let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match segments.as_slice() {
        [] | ["version" | "healthz" | "readyz" | "livez" | "openapi", ..] | ["api" | "apis"] if !is_read => {
            Err(ApiError::method_not_allowed(request.method().as_str(), request.uri().path()))
        }
        [] => Ok(json_response(
            200,
            &json!({"paths": [
            "/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz", "/openapi/v2", "/openapi/v3", "/version"]}),
        )),
        ["healthz" | "readyz" | "livez", ..] => Ok(text_response(200, "ok")),
        ["version"] => {
            let (major, minor, full) = VERSION;
            Ok(json_response(
                200,
                &json!({"major": major, "minor": minor, "gitVersion": full, "gitCommit": "",
                "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none",
                "compiler": "rustc", "platform": "linux/amd64"}),
            ))
        }
        ["openapi", rest @ ..] => openapi::serve(server, &call, rest),
        ["api"] => discovery::core_versions(server, &call),
        ["apis"] => discovery::groups(server, &call),
        ["api", version] => discovery::resources(server, "", version),
        ["apis", group] => discovery::group(server, group),
        ["apis", group, version] => discovery::resources(server, group, version),
        ["api", version, rest @ ..] => {
            let (version, rest) = ((*version).to_owned(), owned(rest));
            resource::serve(server, &mut request, call, "", &version, &rest).await
        }
        ["apis", group, version, rest @ ..] => {
            let (group, version, rest) = ((*group).to_owned(), (*version).to_owned(), owned(rest));
            resource::serve(server, &mut request, call, &group, &version, &rest).await
        }
        _ => Err(ApiError::no_such_path(request.uri().path())),
    }
}

fn owned(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|s| (*s).to_owned()).collect()
}
