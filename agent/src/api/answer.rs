//! Answers as JSON, and errors with the status that Cilium's API would give them.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use kinesin_agent_api::types::{ErrorBody, ErrorKind};
use kinesin_core::{causes::with_causes, chassis::ChassisError, ipam::IpamError};
use serde::{Serialize, de::DeserializeOwned};

use crate::engine::EngineError;

/// A refusal: status and body.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    body: ErrorBody,
}

impl Refused {
    fn new(status: StatusCode, kind: ErrorKind, message: String) -> Self {
        Self { status, body: ErrorBody { kind, message } }
    }

    pub(super) fn invalid(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::Invalid, message)
    }

    pub(super) fn not_found(message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, message)
    }

    pub(super) fn internal(message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Internal, message)
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        let (status, kind) = match &error {
            EngineError::Starting(_)
            | EngineError::UnknownPod(_)
            | EngineError::Ipam(IpamError::NotReady { .. })
            | EngineError::Chassis(ChassisError::NotReady) => (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable),
            EngineError::Request(_) => (StatusCode::BAD_REQUEST, ErrorKind::Invalid),
            EngineError::NoEndpoint(_) => (StatusCode::NOT_FOUND, ErrorKind::NotFound),
            EngineError::DeviceTaken { .. } => (StatusCode::CONFLICT, ErrorKind::Conflict),
            // Cilium answers 502 when an address cannot be allocated.
            EngineError::NoAddress { .. } | EngineError::Ipam(IpamError::Exhausted { .. }) | EngineError::NoNumber => {
                (StatusCode::BAD_GATEWAY, ErrorKind::Exhausted)
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Internal),
        };
        // Causes that the message does not tell are what helps most.
        Self::new(status, kind, with_causes(&error))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// 200 with a value.
pub(super) fn ok(value: &impl Serialize) -> Result<Response, Refused> {
    answer(StatusCode::OK, value)
}

/// 201 with a value.
pub(super) fn created(value: &impl Serialize) -> Result<Response, Refused> {
    answer(StatusCode::CREATED, value)
}

fn answer(status: StatusCode, value: &impl Serialize) -> Result<Response, Refused> {
    let value = serde_json::to_value(value).map_err(|error| Refused::internal(error.to_string()))?;
    Ok((status, Json(value)).into_response())
}

/// Reads a body, whatever type the client says it has.
pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refused::invalid(format!("the body is not what is expected: {error}")))
}

#[cfg(test)]
mod tests {
    use kinesin_core::values::Family;

    use super::*;

    #[test]
    fn exhaustion_is_told_apart_and_keeps_its_words() {
        let refusal = IpamError::Exhausted { pool: "default".to_owned(), family: Family::V4, leased: 6, capacity: 6 };
        let message = "range is full: pool \"default\" of node \"w1\" has no free address; delete pods".to_owned();
        let refused = Refused::from(EngineError::NoAddress { message, refusal });
        assert_eq!((refused.status, refused.body.kind), (StatusCode::BAD_GATEWAY, ErrorKind::Exhausted));
        assert!(refused.body.message.starts_with("range is full: "), "{}", refused.body.message);
        assert!(refused.body.message.ends_with("; delete pods"), "told once: {}", refused.body.message);
    }

    #[test]
    fn a_starting_agent_is_asked_again() {
        let refused = Refused::from(EngineError::Starting("the datapath is being set up".to_owned()));
        assert_eq!((refused.status, refused.body.kind), (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable));
    }

    #[test]
    fn wrong_bodies_name_what_is_wrong() {
        let refused = body::<kinesin_agent_api::types::EndpointGcRequest>(b"{\"valid-attachments\": 5}");
        let refused = refused.map(drop).expect_err("wrong type");
        assert!(refused.body.message.contains("invalid type: integer `5`"), "{}", refused.body.message);
    }
}
