//! Machines whose clocks are an hour fast and an hour slow.

use std::time::Duration;

use http::StatusCode;

use crate::faults::each;
use crate::kind::Server;
use crate::scene::Scene;
use crate::scene::in_time;
use crate::scene::is_served;
use crate::scene::ok;
use crate::support::Script;

/// Processes on a machine with the right time, on one that is fast and on one that is slow.
async fn skewed(server: &Server) -> Scene {
    let mut scene = Scene::empty(server, 0).await;
    scene.tune = |builder| builder.refresh_ahead(Duration::from_secs(30));
    for fast in [0, 3600, -3600] {
        scene.start().await.store.set_fast(fast);
    }
    scene.log_in().await;
    scene
}

// shows B108 between machines
#[tokio::test]
async fn no_machine_takes_a_fresh_token_for_an_expired_one() {
    each(async |server: Server| {
        let scene = skewed(&server).await;
        for (round, process) in scene.processes.iter().enumerate() {
            scene
                .world
                .script(Script::ExpiresIn(Duration::from_secs(600)));
            scene.world.expire();
            ok(process).await;
            scene.goes_on().await;
            for process in &scene.processes {
                is_served(process).await;
            }
            scene.has_reissued(round + 1);
        }
    })
    .await;
}

// shows B135 between machines
#[tokio::test]
async fn no_machine_takes_another_for_dead_that_waits_for_the_issuer() {
    each(async |server: Server| {
        let scene = skewed(&server).await;
        for (round, process) in scene.processes.iter().enumerate() {
            scene.world.expire();
            scene.world.hold_reissues();
            let first = process.send();
            in_time(scene.world.until(|counts| counts.reissues == round + 1)).await;
            let others: Vec<_> = scene.processes.iter().map(|it| it.send()).collect();
            // Longer than a claim lasts that nobody renews.
            in_time(process.store.until_renewed(3 * (round + 1))).await;
            assert!(scene.record().await.tokens().unwrap().in_doubt().is_none());
            scene.world.release_reissues();
            for answer in others.into_iter().chain([first]) {
                assert_eq!(in_time(answer).await.unwrap().status, StatusCode::OK);
            }
            scene.has_reissued(round + 1);
        }
    })
    .await;
}
