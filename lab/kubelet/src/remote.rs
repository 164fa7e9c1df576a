//! Commands in running containers: exec and attach over the remote command protocol, and commands of probes and hooks.
//!
//! Source: `k8s.io/apimachinery/pkg/util/remotecommand`, `pkg/kubelet/cri/streaming/remotecommand` (channels 0 to 4,
//! the status on channel 3, and in version 5 the closing of a stream by channel 255).

mod protocol;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

use crate::kubelet::Node;
use crate::launch::{ExecSpec, Process, RunState};
use crate::logs::Follow;
use crate::record::PodRecord;
use crate::{files, sys};

pub(crate) use protocol::{Request, SUBPROTOCOLS};

/// How much output of a probe is kept. Source: `maxReadLength` in `pkg/probe/exec`.
const PROBE_OUTPUT_BYTES: u64 = 10 * 1024;
/// How long output is waited for after the process has ended: others may hold the pipes.
const DRAIN: Duration = Duration::from_millis(500);

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A running container.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    program: PathBuf,
    dir: PathBuf,
    pid: i32,
    process: Process,
    cgroup: Option<PathBuf>,
    stdin: Option<PathBuf>,
    log: PathBuf,
}

impl Target {
    /// Finds a container's process; `None` when it does not run.
    pub(crate) fn find(node: &Node, record: &PodRecord, container: &str) -> Option<Self> {
        let pods_dir = &node.config.pods_dir;
        let spec = record.spec(pods_dir, container)?;
        let state =
            record.state(pods_dir, container).filter(|state| state.exit.is_none() && state.process.is_alive())?;
        Some(Self {
            program: node.program.clone(),
            dir: record.run_dir(pods_dir, container),
            pid: state.process.pid,
            process: spec.process,
            cgroup: spec.cgroup,
            stdin: spec.stdin,
            log: spec.log,
        })
    }

    fn start(&self, command: Vec<String>, is_tty: bool, stdio: [Stdio; 3]) -> Result<Started, String> {
        let id = uuid::Uuid::new_v4();
        let failure = self.dir.join(format!("exec-{id}.failure"));
        let mut process = Process { command, tty: is_tty, ..self.process.clone() };
        if is_tty && !process.env.iter().any(|(name, _)| name == "TERM") {
            process.env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        let spec = ExecSpec { process, pid: self.pid, cgroup: self.cgroup.clone(), failure: failure.clone() };
        let path = self.dir.join(format!("exec-{id}.json"));
        files::write_json(&path, &spec).map_err(|error| error.to_string())?;
        let [stdin, stdout, stderr] = stdio;
        let child = Command::new(&self.program)
            .args(["lab-launch", "exec"])
            .arg(&path)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            // The process ends with its launcher.
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("start {}: {error}", self.program.display()))?;
        Ok(Started { child, failure })
    }
}

struct Started {
    child: Child,
    failure: PathBuf,
}

impl Started {
    async fn wait(&mut self) -> Result<i32, String> {
        let status = self.child.wait().await.map_err(|error| error.to_string())?;
        let failure = std::fs::read_to_string(&self.failure).unwrap_or_default();
        if failure.is_empty() { Ok(status.code().unwrap_or(137)) } else { Err(start_failure(&failure)) }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_file(&self.failure);
    }
}

fn start_failure(why: &str) -> String {
    let id = crate::sandbox::new_id();
    format!(
        "failed to exec in container: failed to start exec {id:?}: OCI runtime exec failed: exec failed: unable to start container process: {why}: unknown"
    )
}

/// Runs a command to its end; its code and the beginning of its output.
pub(crate) async fn run_to_end(target: &Target, command: Vec<String>) -> Result<(i32, String), String> {
    let mut started = target.start(command, false, [Stdio::null(), Stdio::piped(), Stdio::piped()])?;
    let (out, err) = (started.child.stdout.take(), started.child.stderr.take());
    let collect = async {
        let mut text = Vec::new();
        if let (Some(out), Some(err)) = (out, err) {
            let mut both = out.take(PROBE_OUTPUT_BYTES).chain(err.take(PROBE_OUTPUT_BYTES));
            // What was read before an error is still worth showing.
            let _ = both.read_to_end(&mut text).await;
        }
        text
    };
    let (text, code) = tokio::join!(collect, started.wait());
    Ok((code?, String::from_utf8_lossy(&text).into_owned()))
}

/// Serves an exec over its WebSocket.
pub(crate) async fn exec(socket: WebSocket, target: Target, request: Request) {
    let is_v5 = protocol::is_v5(&socket);
    let (mut sink, stream) = socket.split();
    let outcome = exec_in(&mut sink, stream, is_v5, &target, request).await;
    finish(&mut sink, &protocol::status(outcome)).await;
}

async fn exec_in(
    sink: &mut SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    is_v5: bool,
    target: &Target,
    request: Request,
) -> Result<i32, String> {
    greet(sink, &request).await;
    let (mut started, mut io) =
        if request.tty { with_terminal(target, &request)? } else { with_pipes(target, &request)? };
    let (left, mut has_left) = tokio::sync::oneshot::channel::<()>();
    let (stdin, terminal) = (io.stdin.take(), io.terminal.take());
    // Input has a task of its own: a process that does not read must not keep its output from flowing.
    let _input = AbortOnDropHandle::new(tokio::spawn(async move {
        carry_input(stream, stdin, terminal, is_v5).await;
        let _ = left.send(());
    }));
    let (mut out, mut err) = (vec![0; 32 * 1024], vec![0; 32 * 1024]);
    let mut code = None;
    while code.is_none() || io.stdout.is_some() || io.stderr.is_some() {
        tokio::select! {
            biased;
            _ = &mut has_left => return Ok(0),
            count = read(&mut io.stdout, &mut out) => send(sink, protocol::STDOUT, &out[..count], &mut io.stdout).await?,
            count = read(&mut io.stderr, &mut err) => send(sink, protocol::STDERR, &err[..count], &mut io.stderr).await?,
            ended = started.wait(), if code.is_none() => code = Some(ended?),
            () = tokio::time::sleep(DRAIN), if code.is_some() => break,
        }
    }
    Ok(code.unwrap_or_default())
}

/// Reads from a stream that is there; a missing one never answers.
async fn read(from: &mut Option<Reader>, buffer: &mut [u8]) -> usize {
    match from {
        // A terminal says EIO at its end.
        Some(reader) => reader.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

async fn send(
    sink: &mut SplitSink<WebSocket, Message>,
    channel: u8,
    bytes: &[u8],
    from: &mut Option<Reader>,
) -> Result<(), String> {
    if bytes.is_empty() {
        *from = None;
        return Ok(());
    }
    sink.send(protocol::frame(channel, bytes)).await.map_err(|error| error.to_string())
}

/// An empty message says that the connection stands, as `createWebSocketStreams` does.
async fn greet(sink: &mut SplitSink<WebSocket, Message>, request: &Request) {
    let channel = match (request.stdout, request.stderr) {
        (true, _) => protocol::STDOUT,
        (_, true) => protocol::STDERR,
        _ => protocol::ERROR,
    };
    // A client that has left is noticed by the next read.
    let _ = sink.send(protocol::frame(channel, &[])).await;
}

async fn finish(sink: &mut SplitSink<WebSocket, Message>, status: &serde_json::Value) {
    // Nobody is left to be told of an error here.
    let _ = sink.send(protocol::frame(protocol::ERROR, status.to_string().as_bytes())).await;
    let close = axum::extract::ws::CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason: "".into() };
    let _ = sink.send(Message::Close(Some(close))).await;
}

struct Io {
    stdin: Option<Writer>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    terminal: Option<std::fs::File>,
}

fn with_pipes(target: &Target, request: &Request) -> Result<(Started, Io), String> {
    let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
    let stdio = [pipe(request.stdin), pipe(request.stdout), pipe(request.stderr)];
    let mut started = target.start(request.command.clone(), false, stdio)?;
    let io = Io {
        stdin: started.child.stdin.take().map(|s| Box::new(s) as Writer),
        stdout: started.child.stdout.take().map(|s| Box::new(s) as Reader),
        stderr: started.child.stderr.take().map(|s| Box::new(s) as Reader),
        terminal: None,
    };
    Ok((started, io))
}

fn with_terminal(target: &Target, request: &Request) -> Result<(Started, Io), String> {
    let said = |error: std::io::Error| format!("make a terminal: {error}");
    let pair = nix::pty::openpty(None, None).map_err(|error| said(error.into()))?;
    let copy = |fd: &std::os::fd::OwnedFd| fd.try_clone().map_err(said);
    fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| said(error.into()))?;
    let stdio = [copy(&pair.slave)?.into(), copy(&pair.slave)?.into(), pair.slave.into()];
    let started = target.start(request.command.clone(), true, stdio)?;
    let reader = pipe::Receiver::from_owned_fd_unchecked(copy(&pair.master)?).map_err(said)?;
    let writer = pipe::Sender::from_owned_fd_unchecked(copy(&pair.master)?).map_err(said)?;
    let io = Io {
        stdin: request.stdin.then(|| Box::new(writer) as Writer),
        stdout: Some(Box::new(reader)),
        stderr: None,
        terminal: Some(pair.master.into()),
    };
    Ok((started, io))
}

/// Carries what the client sends until it leaves.
async fn carry_input(
    mut stream: SplitStream<WebSocket>,
    mut stdin: Option<Writer>,
    terminal: Option<std::fs::File>,
    is_v5: bool,
) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        match bytes.split_first() {
            Some((&protocol::STDIN, data)) => {
                if let Some(to) = &mut stdin
                    && (to.write_all(data).await.is_err() || to.flush().await.is_err())
                {
                    stdin = None;
                }
            }
            Some((&protocol::RESIZE, data)) => {
                if let (Some(terminal), Some((columns, rows))) = (&terminal, protocol::parse_size(data)) {
                    // A terminal that has gone has no size.
                    let _ = sys::set_window_size(std::os::fd::AsFd::as_fd(terminal), columns, rows);
                }
            }
            Some((&protocol::CLOSE, [protocol::STDIN, ..])) if is_v5 => stdin = None,
            _ => {}
        }
    }
}

/// Serves an attach over its WebSocket: output from now on, input through the container's FIFO.
pub(crate) async fn attach(socket: WebSocket, target: Target, request: Request) {
    let is_v5 = protocol::is_v5(&socket);
    let (mut sink, stream) = socket.split();
    greet(&mut sink, &request).await;
    let stdin = target.stdin.as_deref().filter(|_| request.stdin).and_then(open_fifo);
    let (left, mut has_left) = tokio::sync::oneshot::channel::<()>();
    let _input = AbortOnDropHandle::new(tokio::spawn(async move {
        carry_input(stream, stdin, None, is_v5).await;
        let _ = left.send(());
    }));
    let mut follow = Follow::new(&target.log, true);
    loop {
        let has_ended = has_ended(&target.dir);
        while let Some(output) = follow.next() {
            let (channel, is_wanted) =
                if output.is_stderr { (protocol::STDERR, request.stderr) } else { (protocol::STDOUT, request.stdout) };
            if is_wanted && sink.send(protocol::frame(channel, &output.content)).await.is_err() {
                return;
            }
        }
        if has_ended {
            return finish(&mut sink, &protocol::status(Ok(0))).await;
        }
        tokio::select! {
            _ = &mut has_left => return,
            () = tokio::time::sleep(Duration::from_millis(30)) => {}
        }
    }
}

fn open_fifo(path: &Path) -> Option<Writer> {
    pipe::OpenOptions::new().open_sender(path).ok().map(|sender| Box::new(sender) as Writer)
}

fn has_ended(dir: &Path) -> bool {
    files::read_json::<RunState>(&dir.join("state.json")).ok().flatten().is_none_or(|state| state.exit.is_some())
}
