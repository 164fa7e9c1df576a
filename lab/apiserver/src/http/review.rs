//! Reviews: questions about oneself and one's rights. RBAC is stored but not enforced, so every
//! answer is yes.

use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::discovery::REVIEWS;
use super::request::{Call, parse_body, read_body};
use super::response::{Body, json_response};
use crate::error::ApiError;

/// Answers a review; `None` when the request is none.
pub(super) async fn serve(
    request: &mut Request<Incoming>,
    call: &Call,
    group: &str,
    rest: &[String],
) -> Result<Option<Response<Body>>, ApiError> {
    let Some(plural) = rest.last() else { return Ok(None) };
    let Some((_, _, kind)) = REVIEWS.iter().find(|(g, p, _)| *g == group && p == plural) else { return Ok(None) };
    if request.method() != Method::POST {
        return Err(ApiError::method_not_allowed(request.method().as_str(), plural));
    }
    let mut review = parse_body(&call.content_type, &read_body(request).await?)?;
    if !review.is_object() {
        review = Value::Object(serde_json::Map::new());
    }
    review["kind"] = (*kind).into();
    review["apiVersion"] = format!("{group}/v1").into();
    review["status"] = match *kind {
        "SelfSubjectReview" => {
            json!({"userInfo": {"username": "lab-admin", "groups": ["system:masters", "system:authenticated"]}})
        }
        "SelfSubjectRulesReview" => json!({"incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}),
        _ => json!({"allowed": true, "reason": "this server stores RBAC rules and does not enforce them"}),
    };
    Ok(Some(json_response(201, &review)))
}
