//! One call of one plugin: environment and stdin in, stdout or an error out.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// How long one call may take; kubelet gives the whole sandbox two minutes.
const LIMIT: Duration = Duration::from_secs(110);

/// Calls a plugin; the error is what libcni would say.
pub(super) async fn call(program: &Path, environment: &[(&str, String)], stdin: &[u8]) -> Result<Vec<u8>, String> {
    let mut command = Command::new(program);
    command
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("fork/exec {}: {error}", program.display()))?;
    let mut input = child.stdin.take();
    let feed = async {
        if let Some(mut input) = input.take() {
            // A plugin that does not read its configuration answers all the same.
            let _ = input.write_all(stdin).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = tokio::time::timeout(LIMIT, both)
        .await
        .map_err(|_| format!("the plugin did not answer within {} s: context deadline exceeded", LIMIT.as_secs()))?
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(explain(&output.stdout, &output.stderr, &output.status.to_string()))
}

/// What a failed plugin says for itself. Source: `pluginErr` in `pkg/invoke/raw_exec.go`.
fn explain(stdout: &[u8], stderr: &[u8], status: &str) -> String {
    let error: Option<Value> = serde_json::from_slice(stdout).ok();
    if let Some(message) = error.as_ref().and_then(|e| e["msg"].as_str()).filter(|m| !m.is_empty()) {
        return match error.as_ref().and_then(|e| e["details"].as_str()).filter(|d| !d.is_empty()) {
            Some(details) => format!("{message}; {details}"),
            None => message.to_owned(),
        };
    }
    match (stdout.is_empty(), stderr.is_empty()) {
        (true, true) => format!("netplugin failed with no error message: {status}"),
        (true, false) => format!("netplugin failed: {:?}", String::from_utf8_lossy(stderr)),
        _ => format!("netplugin failed but error parsing its diagnostic message {:?}", String::from_utf8_lossy(stdout)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_plugin_is_quoted() {
        for (stdout, stderr, want) in [
            (r#"{"code":11,"msg":"busy","details":"later"}"#, "", "busy; later"),
            (r#"{"code":7,"msg":"no"}"#, "noise", "no"),
            ("", "", "netplugin failed with no error message: exit status: 1"),
            ("", "boom", "netplugin failed: \"boom\""),
            ("garbage", "", "netplugin failed but error parsing its diagnostic message \"garbage\""),
        ] {
            assert_eq!(explain(stdout.as_bytes(), stderr.as_bytes(), "exit status: 1"), want);
        }
    }
}
