//! One run of the plugin: from parameters to the answer.

use std::{
    any::Any,
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
};

use kinesin_agent_api::{Client, DEFAULT_SOCKET, SOCKET_ENV};
use serde_json::{Value, json};

use crate::{
    CniError, commands,
    config::{self, Config},
    log::Log,
    request::{Attachment, AttachmentId, Command, Environment, PodArgs},
    versions::{SpecVersion, supported},
};

/// What goes to stdout, and the exit code that goes with it.
#[derive(Debug)]
pub enum Answer {
    /// Success with a result.
    Result(Value),
    /// Success without one: every command but ADD and VERSION.
    Nothing,
    /// Failure.
    Error {
        /// Version of the spec in which to answer.
        version: SpecVersion,
        /// What happened.
        error: Box<CniError>,
    },
}

impl Answer {
    /// The text for stdout; none on success without a result.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        match self {
            Self::Result(value) => Some(value.to_string()),
            Self::Nothing => None,
            Self::Error { version, error } => {
                let mut answer =
                    json!({"cniVersion": version.as_str(), "code": error.code(), "msg": error.to_string()});
                let details = error.details();
                if !details.is_empty() {
                    answer["details"] = details.into();
                }
                Some(answer.to_string())
            }
        }
    }

    /// Whether the exit code is 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        !matches!(self, Self::Error { .. })
    }
}

/// A command with the parameters it needs.
enum Request {
    Add(Attachment, PodArgs),
    Del(AttachmentId),
    Check(Attachment),
    Status,
    Gc,
}

/// Runs the command that the environment names.
///
/// Never panics: a bug becomes an error answer, because a runtime reads stdout whatever happens.
pub fn run(env: Environment<'_>, stdin: impl Read) -> Answer {
    let caught = catch_unwind(AssertUnwindSafe(|| run_command(env, stdin)));
    caught.unwrap_or_else(|panic| failure(SpecVersion::NEWEST, CniError::Internal { reason: panic_text(&*panic) }))
}

fn run_command(env: Environment<'_>, stdin: impl Read) -> Answer {
    let command = match Command::from_env(env) {
        Ok(Command::Version) => return version(stdin),
        other => other,
    };
    // The environment's error comes first, but is answered in the configuration's version.
    let request = command.and_then(|command| Ok((command, read_request(command, env)?)));
    let input = config::read_stdin(stdin);
    let version = input.as_ref().ok().and_then(|bytes| config::peek_version(bytes)).unwrap_or(SpecVersion::NEWEST);
    let checked = request.and_then(|(command, request)| {
        let config = Config::parse(&input?)?;
        config.version.require(command)?;
        Ok((command, request, config))
    });
    match checked {
        Ok((command, request, config)) => execute(command, request, config, env),
        Err(error) => failure(version, error),
    }
}

fn read_request(command: Command, env: Environment<'_>) -> Result<Request, CniError> {
    Ok(match command {
        Command::Add => Request::Add(Attachment::from_env(env)?, PodArgs::from_env(env)?),
        Command::Del => Request::Del(AttachmentId::from_env(env)?),
        Command::Check => Request::Check(Attachment::from_env(env)?),
        Command::Status => Request::Status,
        Command::Gc => Request::Gc,
        Command::Version => return Err(CniError::Internal { reason: "VERSION takes no parameters".to_owned() }),
    })
}

fn execute(command: Command, request: Request, config: Config, env: Environment<'_>) -> Answer {
    let log = Log::open(&config, command);
    let version = config.version;
    let client = Client::new(env(SOCKET_ENV).filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_SOCKET.into()));
    // One thread: every request waits for the one before it.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(version, CniError::Internal { reason: format!("cannot start: {error}") }),
    };
    let context = commands::Context { config: &config, client: &client, log: &log };
    let outcome = runtime.block_on(async {
        match &request {
            Request::Add(attachment, pod) => commands::add(&context, attachment, pod).await.map(Answer::Result),
            Request::Del(id) => commands::del(&context, id).await.map(|()| Answer::Nothing),
            Request::Check(attachment) => commands::check(&context, attachment).await.map(|()| Answer::Nothing),
            Request::Status => commands::status(&context).await.map(|()| Answer::Nothing),
            Request::Gc => commands::gc(&context).await.map(|()| Answer::Nothing),
        }
    });
    match outcome {
        Ok(answer) => {
            log.debug("done");
            answer
        }
        Err(error) => {
            log.error(&format!("{error}; {}", error.details()));
            failure(version, error)
        }
    }
}

/// Answers VERSION, which needs no valid input: in the version of the question if it names one that is known.
fn version(stdin: impl Read) -> Answer {
    let asked = config::read_stdin(stdin).ok().and_then(|bytes| config::peek_version(&bytes));
    let version = asked.unwrap_or(SpecVersion::NEWEST);
    Answer::Result(json!({"cniVersion": version.as_str(), "supportedVersions": supported()}))
}

fn failure(version: SpecVersion, error: CniError) -> Answer {
    Answer::Error { version, error: Box::new(error) }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}
