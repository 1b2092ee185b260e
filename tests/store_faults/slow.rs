//! An issuer that takes its time.

use std::time::Duration;

use futures::future::select_all;
use http::StatusCode;

use crate::faults::each;
use crate::kind::Server;
use crate::scene::Scene;
use crate::scene::in_time;

/// A claim lasts for three of these, and is renewed after each.
const STORE_TIMEOUT: Duration = Duration::from_millis(250);

// shows B135
#[tokio::test]
async fn a_claim_outlives_an_issuer_that_is_ten_times_slower() {
    each(async |server: Server| {
        let mut scene = Scene::empty(&server, 0).await;
        scene.tune = |builder| {
            let builder = builder.store_timeout(STORE_TIMEOUT);
            let minute = Duration::from_secs(60);
            builder.reissue_timeout(minute).wait_timeout(minute)
        };
        for _ in 0..3 {
            scene.start().await;
        }
        scene.log_in().await;
        scene.world.expire();
        scene.world.hold_reissues();
        let requests: Vec<_> = scene.processes.iter().map(|it| it.send()).collect();
        in_time(scene.world.until(|counts| counts.reissues == 1)).await;
        let renewed = scene.processes.iter();
        let renewed = renewed.map(|it| Box::pin(it.store.until_renewed(30)));
        in_time(select_all(renewed)).await;
        assert!(scene.record().await.tokens().unwrap().in_doubt().is_none());
        scene.world.release_reissues();
        for answer in requests {
            assert_eq!(in_time(answer).await.unwrap().status, StatusCode::OK);
        }
        scene.goes_on().await;
        scene.has_reissued(1);
    })
    .await;
}
