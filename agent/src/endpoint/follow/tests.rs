use std::{future::pending, sync::Arc};

use tokio::time::Instant;

use super::*;
use crate::endpoint::{
    lifecycle::{
        Created,
        tests::{Node, request, start},
    },
    turns::PATIENCE,
};

/// The namespaces of some pods never answer.
struct Hanging(&'static [&'static str]);

#[async_trait]
impl Changer for Hanging {
    async fn change(&self, record: &mut Record, to: Settings) -> Result<(), EngineError> {
        if self.0.contains(&record.request.k8s_pod_name.as_str()) {
            pending::<()>().await;
        }
        to.write_to(&mut record.networking);
        Ok(())
    }
}

/// What pods are to have, and what a pass with those that hang left of it.
async fn pass(engine: &Engine, changer: &Hanging) -> bool {
    let mut state = engine.state().await;
    let want = Settings { device_mtu: 1400, route_mtu: 1350, no_udp_segmentation: true };
    let mut following = Following::default();
    for steps in [Step::NARROWER, Step::WIDER] {
        engine.step_pods(&mut state, changer, want, steps, &mut following).await;
    }
    engine.note_following(&mut state, following)
}

#[tokio::test(start_paused = true)]
async fn pods_that_hang_hold_an_add_no_longer_than_one_of_them_and_keep_no_other_pod() {
    let directory = tempfile::tempdir().expect("directory");
    let Node { engine, .. } = start(directory.path()).await;
    let engine = Arc::new(engine);
    for id in 1..=5 {
        engine.create(request(id)).await.expect("added");
    }
    let hanging = Hanging(&["web-1", "web-2", "web-4"]);
    let begun = Instant::now();
    let add = async {
        let (_, how) = engine.create(request(6)).await.expect("added");
        (how, begun.elapsed())
    };
    let (comes_again, (how, waited)) = tokio::join!(pass(&engine, &hanging), add);
    assert!(how == Created::New && waited <= PATIENCE, "the ADD took {waited:?}");
    assert!(!comes_again, "nobody was left out");

    let state = engine.state().await;
    let mtu = |pod: &str| {
        let found = state.endpoints.values().find(|running| running.record.request.k8s_pod_name == pod);
        found.expect("there").record.networking.route_mtu
    };
    assert_eq!(["web-1", "web-2", "web-3", "web-4", "web-5"].map(mtu), [1450, 1450, 1350, 1450, 1350]);
    let told = told(&state).expect("told");
    for part in ["3 running pod(s)", "default/web-1", "default/web-2", "default/web-4", "did not answer"] {
        assert!(told.contains(part), "{told}");
    }
    drop(state);

    // The next pass tries them again, and is over at once when they answer.
    let begun = Instant::now();
    pass(&engine, &Hanging(&[])).await;
    assert!(begun.elapsed().is_zero());
    assert_eq!(super::told(&*engine.state().await), None);
}
