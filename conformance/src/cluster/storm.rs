//! Pods that come and go without a rest while parts of the cluster are being ended.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Error,
    api::{DeleteParams, PostParams},
};
use tokio::runtime::Handle;

use super::{random::Sequence, verdict::Stop};

/// How long the API may be away or may refuse.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(40);
/// A pod lives for less than this; its ADD takes a fraction of it, so some are deleted before it, in it, and after it.
const LIFE: Duration = Duration::from_millis(700);

/// What makes pods, until it is told to end.
#[derive(Debug)]
pub(super) struct Storm<'a> {
    pub(super) pods: Api<Pod>,
    pub(super) runtime: &'a Handle,
    /// How many were made.
    pub(super) made: &'a AtomicUsize,
    /// Ends it.
    pub(super) is_over: &'a AtomicBool,
}

impl Storm<'_> {
    /// Makes and deletes pods, two at a time, each from `pod` by its name, which begins with `prefix`. In the end all of
    /// them are deleted, though not yet gone.
    pub(super) fn rage(&self, prefix: &str, seed: u64, pod: impl Fn(&str) -> Result<Pod, Stop>) -> Result<(), Stop> {
        let mut random = Sequence::new(seed);
        let mut going: Option<String> = None;
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("{prefix}-{number}");
            self.create(&pod(&name)?)?;
            self.made.fetch_add(1, Ordering::Relaxed);
            // So the one before ends while this one starts.
            thread::sleep(LIFE.mul_f64((random.next() % 1000) as f64 / 1000.0));
            self.delete(&name)?;
            if let Some(before) = going.replace(name) {
                self.wait_until_gone(&before)?;
            }
        }
        Ok(())
    }

    fn create(&self, pod: &Pod) -> Result<(), Stop> {
        let create = || self.runtime.block_on(self.pods.create(&PostParams::default(), pod)).map(drop);
        // It may have been made by an attempt whose answer was lost.
        allow(409, patiently(create))
    }

    fn delete(&self, name: &str) -> Result<(), Stop> {
        let now = DeleteParams::default().grace_period(0);
        allow(404, patiently(|| self.runtime.block_on(self.pods.delete(name, &now)).map(drop)))
    }

    fn wait_until_gone(&self, name: &str) -> Result<(), Stop> {
        let until = Instant::now() + PATIENCE;
        let get = || self.runtime.block_on(self.pods.get_opt(name));
        while patiently(get).map_err(|refused| Stop::target(&refused))?.is_some() {
            if Instant::now() > until {
                return Err(Stop::broken(format!("{name} is still there {} s after its end", PATIENCE.as_secs())));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// Asks again while the API server is away; what it refuses by itself is an answer.
///
/// # Errors
/// The refusal, or why the server could not be asked for so long.
pub(super) fn patiently<T>(mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(Error::Api(refused)) if refused.code < 429 => return Err(Error::Api(refused)),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => thread::sleep(LOOK),
            Ok(answer) => return Ok(answer),
        }
    }
}

/// A refusal of this code is as good as success.
fn allow(code: u16, done: Result<(), Error>) -> Result<(), Stop> {
    match done {
        Err(Error::Api(refused)) if refused.code == code => Ok(()),
        done => done.map_err(|error| Stop::target(&error)),
    }
}
