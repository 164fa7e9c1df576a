//! A worker in this process, whose sockets are in another network namespace.

use std::sync::Arc;

use futures::{StreamExt, stream};
use kinesin_netlink::NetNs;
use tokio::{runtime::Handle, sync::Mutex, task::JoinSet};

use super::{Answer, Hands, Request, ask::ask, echo, flows::Flows, socket::Room};

/// Questions of one place that are on their way at once.
const AT_ONCE: usize = 16;

/// What a worker holds: its namespace, and what goes on in it.
#[derive(Debug)]
pub(super) struct Worker {
    room: Arc<Room>,
    echoes: Mutex<JoinSet<()>>,
    flows: Mutex<Option<Flows>>,
}

impl Worker {
    pub(super) fn new(room: Room) -> Self {
        Self { room: Arc::new(room), echoes: Mutex::default(), flows: Mutex::default() }
    }

    pub(super) async fn answer(&self, request: Request) -> Result<Answer, String> {
        match request {
            Request::Listen { ips, key } => {
                let mut echoes = self.echoes.lock().await;
                let listen = |ip| {
                    let ends = echo::listen(&self.room, ip, key, &mut echoes);
                    ends.map_err(|error| format!("cannot listen at {ip}: {error}"))
                };
                ips.into_iter().map(listen).collect::<Result<_, _>>().map(Answer::Listening)
            }
            Request::Ask(questions) => {
                let told = stream::iter(questions)
                    .map(|question| async move { ask(&self.room, &question).await.map_err(|error| error.to_string()) })
                    .buffered(AT_ONCE);
                Ok(Answer::Asked(told.collect().await))
            }
            Request::Start(specs) => {
                let mut flows = self.flows.lock().await;
                if flows.is_some() {
                    return Err("flows are running already".to_owned());
                }
                *flows = Some(Flows::start(&self.room, &specs).await?);
                Ok(Answer::Started)
            }
            Request::Stop => match self.flows.lock().await.take() {
                Some(flows) => flows.stop(&self.room).await.map(Answer::Stopped),
                None => Err("no flows are running".to_owned()),
            },
        }
    }
}

/// A worker of this process, used from outside its runtime.
#[derive(Debug)]
pub struct LocalHands {
    worker: Worker,
    runtime: Handle,
}

impl LocalHands {
    /// One whose sockets are in `netns`.
    #[must_use]
    pub fn new(netns: NetNs, runtime: Handle) -> Self {
        Self { worker: Worker::new(Room(Some(netns))), runtime }
    }
}

impl Hands for LocalHands {
    fn ask(&self, request: Request) -> Result<Answer, String> {
        self.runtime.block_on(self.worker.answer(request))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Ask, Told},
        *,
    };

    #[tokio::test]
    async fn every_size_comes_back_under_the_right_key() {
        let worker = Worker::new(Room(None));
        let ips = vec!["127.0.0.1".parse().expect("an address"), "::1".parse().expect("an address")];
        let listening = worker.answer(Request::Listen { ips, key: 7 }).await.expect("listening");
        let Answer::Listening(ends) = listening else { panic!("{listening:?}") };
        for end in ends {
            let mut questions: Vec<Ask> = [0, 1, 9_000, 65_507]
                .map(|length| Ask::Udp { to: end.udp, key: 7, seed: length as u64, length })
                .to_vec();
            questions.push(Ask::Tcp { to: end.tcp, key: 7, seed: 1, length: 300_000 });
            let asked = worker.answer(Request::Ask(questions)).await;
            assert_eq!(asked, Ok(Answer::Asked(vec![Ok(Told::Answered); 5])));
            let wrong = Request::Ask(vec![Ask::Udp { to: end.udp, key: 8, seed: 1, length: 9 }]);
            assert_eq!(worker.answer(wrong).await, Ok(Answer::Asked(vec![Err("somebody else answered".to_owned())])));
        }
    }

    #[tokio::test]
    async fn flows_are_stopped_once() {
        let worker = Worker::new(Room(None));
        assert!(worker.answer(Request::Stop).await.is_err());
        assert_eq!(worker.answer(Request::Start(vec![])).await, Ok(Answer::Started));
        assert!(worker.answer(Request::Start(vec![])).await.is_err());
        assert_eq!(worker.answer(Request::Stop).await, Ok(Answer::Stopped(vec![])));
    }
}
