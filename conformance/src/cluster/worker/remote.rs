//! A worker as a process of its own in a pod, and how it is spoken with: a line of JSON each way, over exec.

use std::{fmt, io, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, AttachedProcess},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    runtime::Handle,
    sync::Mutex,
    time::timeout,
};

use super::{Answer, Hands, Request, local::Worker, socket::Room};

/// How long an answer may take; the last of many questions waits for those before it.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is kept of what the worker says on stderr.
const TOLD_BYTES: u64 = 2_000;

/// Does what comes in lines until there are no more: the whole of `kinesin __conformance work`.
///
/// # Errors
/// When a line is no request, or an answer cannot be written.
pub async fn serve(input: impl AsyncBufRead + Unpin, mut output: impl AsyncWrite + Unpin) -> io::Result<()> {
    let worker = Worker::new(Room(None));
    let mut lines = input.lines();
    while let Some(line) = lines.next_line().await? {
        let request: Request = serde_json::from_str(&line)?;
        let mut answer = serde_json::to_vec(&worker.answer(request).await)?;
        answer.push(b'\n');
        output.write_all(&answer).await?;
        output.flush().await?;
    }
    Ok(())
}

struct Line {
    process: AttachedProcess,
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    stdout: tokio::io::Lines<Box<dyn AsyncBufRead + Send + Unpin>>,
}

/// A worker in a pod.
pub struct RemoteHands {
    line: Mutex<Line>,
    pod: String,
    runtime: Handle,
}

impl RemoteHands {
    /// Starts one in a running pod.
    ///
    /// # Errors
    /// When exec is refused.
    pub fn start(pods: &Api<Pod>, pod: &str, command: &[&str], runtime: Handle) -> Result<Self, String> {
        let started = runtime.block_on(async {
            let params = AttachParams::default().stdin(true).stdout(true).stderr(true);
            let mut process =
                pods.exec(pod, command.iter().copied(), &params).await.map_err(|error| error.to_string())?;
            let (Some(stdin), Some(stdout)) = (process.stdin(), process.stdout()) else {
                return Err("the streams are not there".to_owned());
            };
            let stdout: Box<dyn AsyncBufRead + Send + Unpin> = Box::new(BufReader::new(stdout));
            Ok(Line { process, stdin: Box::new(stdin), stdout: stdout.lines() })
        });
        let line = started.map_err(|reason| format!("cannot run {command:?} in pod {pod}: {reason}"))?;
        Ok(Self { line: Mutex::new(line), pod: pod.to_owned(), runtime })
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, String> {
        let mut line = self.line.lock().await;
        let mut text = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        text.push(b'\n');
        let sent = async {
            line.stdin.write_all(&text).await?;
            line.stdin.flush().await
        };
        sent.await.map_err(|error| format!("it cannot be told anything: {error}"))?;
        let heard = timeout(PATIENCE, line.stdout.next_line()).await;
        match heard.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))? {
            Ok(Some(answer)) => serde_json::from_str::<Result<Answer, String>>(&answer)
                .map_err(|error| format!("it said {answer:?}: {error}"))?,
            Ok(None) => {
                let mut told = String::new();
                if let Some(stderr) = line.process.stderr() {
                    // Only to tell why it ended; it may have said nothing.
                    let _ = timeout(Duration::from_secs(1), stderr.take(TOLD_BYTES).read_to_string(&mut told)).await;
                }
                Err(format!("it ended: {}", told.trim_end()))
            }
            Err(error) => Err(format!("it cannot be heard: {error}")),
        }
    }
}

impl Hands for RemoteHands {
    fn ask(&self, request: Request) -> Result<Answer, String> {
        let asked = self.runtime.block_on(self.exchange(&request));
        asked.map_err(|reason| format!("the worker in pod {}: {reason}", self.pod))
    }
}

impl fmt::Debug for RemoteHands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the worker in pod {}", self.pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_line_is_answered_by_one_line() {
        let (near, far) = tokio::io::duplex(4096);
        let (from, to) = tokio::io::split(far);
        let serving = tokio::spawn(serve(BufReader::new(from), to));
        let (from, mut to) = tokio::io::split(near);
        let mut lines = BufReader::new(from).lines();
        for (request, answer) in [
            (Request::Start(vec![]), Ok(Answer::Started)),
            (Request::Start(vec![]), Err(())),
            (Request::Stop, Ok(Answer::Stopped(vec![]))),
        ] {
            let text = serde_json::to_string(&request).expect("JSON");
            to.write_all(format!("{text}\n").as_bytes()).await.expect("written");
            let line = lines.next_line().await.expect("read").expect("a line");
            let got: Result<Answer, String> = serde_json::from_str(&line).expect("an answer");
            assert_eq!(got.map_err(|_| ()), answer, "{text}");
        }
        to.write_all(b"nonsense\n").await.expect("written");
        serving.await.expect("joined").expect_err("refused");
    }
}
