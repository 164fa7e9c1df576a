//! The remote command protocol: frames, channels, the final status.

use axum::extract::ws::{Message, WebSocket};
use serde_json::{Value, json};

/// What is spoken, best first.
pub(crate) const SUBPROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
pub(super) const CLOSE: u8 = 255;

/// What a client wants to run and see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) command: Vec<String>,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

impl Request {
    /// Reads the parameters, both as the API server has them and as a kubelet does.
    pub(crate) fn parse(query: &str) -> Self {
        let mut request = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let holds = matches!(&*value, "true" | "1");
            match &*key {
                "command" => request.command.push(value.into_owned()),
                "stdin" | "input" => request.stdin |= holds,
                "stdout" | "output" => request.stdout |= holds,
                "stderr" | "error" => request.stderr |= holds,
                "tty" => request.tty |= holds,
                _ => {}
            }
        }
        // A terminal has one output.
        request.stderr &= !request.tty;
        request
    }
}

pub(super) fn is_v5(socket: &WebSocket) -> bool {
    socket.protocol().is_some_and(|p| p.as_bytes() == SUBPROTOCOLS[0].as_bytes())
}

pub(super) fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    Message::Binary(frame.into())
}

/// Columns and rows of a resize.
pub(super) fn parse_size(data: &[u8]) -> Option<(u16, u16)> {
    let size: Value = serde_json::from_slice(data).ok()?;
    let number = |key: &str| size[key].as_u64().and_then(|n| u16::try_from(n).ok());
    Some((number("Width")?, number("Height")?))
}

/// The status at the end: a code of the process, or why there is none.
pub(super) fn status(outcome: Result<i32, String>) -> Value {
    match outcome {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(why) => {
            let message = format!("error executing command in container: {why}");
            json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {message}"), "details": {"causes": [{"message": message}]},
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_from_its_parameters() {
        let request =
            Request::parse("command=sh&command=-c&command=echo+%24A&stdin=true&stdout=true&stderr=true&tty=true");
        assert_eq!(request.command, ["sh", "-c", "echo $A"]);
        assert_eq!((request.stdin, request.stdout, request.stderr, request.tty), (true, true, false, true));
    }

    #[test]
    fn codes_and_sizes_are_told_as_clients_read_them() {
        assert_eq!(status(Ok(7))["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        assert_eq!(status(Ok(0))["status"], "Success");
        assert_eq!(status(Err("x".into()))["reason"], "InternalError");
        assert_eq!(parse_size(br#"{"Width":80,"Height":24}"#), Some((80, 24)));
        assert_eq!(parse_size(br#"{"Width":-1,"Height":99999}"#), None);
        assert_eq!(parse_size(b"{"), None);
    }
}
