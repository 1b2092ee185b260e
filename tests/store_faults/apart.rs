//! One process reaches the server, and the other one does not.

use http::StatusCode;
use tower_token_refresh::SessionStatus;

use crate::faults::Case;
use crate::faults::Fault;
use crate::faults::each;
use crate::kind::Server;
use crate::proxy::Fate;
use crate::proxy::Way;
use crate::scene::Scene;
use crate::scene::access;
use crate::scene::get;
use crate::scene::in_time;
use crate::scene::is_served;
use crate::scene::is_told_why;
use crate::scene::ok;
use crate::way::Side;
use crate::way::Step;

// shows DESIGN section 7: the one that reissues is taken for dead, and its answer counts when it is back.
#[tokio::test]
async fn the_one_that_reissues_is_cut_off_and_back_before_its_refresh_token_is_presented_again() {
    each(async |server: Server| {
        for fault in [Fault::CutOff, Fault::Unheard, Fault::Unanswered] {
            let _case = Case::new(&server, fault);
            let scene = Scene::new(&server, 2).await;
            let [first, second] = scene.two();
            scene.world.expire();
            scene.world.hold_reissues();
            let request = first.send();
            in_time(scene.world.until(|counts| counts.reissues == 1)).await;
            fault.begin(&scene).await;
            let why = get(second).await.why.unwrap();
            assert!(why.is_outcome_unknown(), "{why:?}");
            in_time(second.until(SessionStatus::is_in_doubt)).await;
            let record = scene.record().await;
            assert!(record.tokens().unwrap().in_doubt().is_some());
            // It has its answer, and nobody else can know of it.
            scene.world.release_reissues();
            let answer = in_time(request).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.why);
            let newest = in_time(first.session.token()).await.unwrap();
            fault.end(&scene).await;
            scene
                .until(|record| access(record) == Some(newest.expose()))
                .await;
            scene.goes_on().await;
            assert!(!second.session.status().is_in_doubt());
            scene.has_reissued(1);
            scene.one_more_round().await;
            scene.has_reissued(2);
        }
    })
    .await;
}

// shows P1, B7: who can't reach the store reissues nothing, and adopts when it is back.
#[tokio::test]
async fn the_other_one_reissues_for_the_one_that_is_cut_off() {
    each(async |server: Server| {
        for fault in [Fault::CutOff, Fault::Unheard, Fault::Unanswered] {
            let _case = Case::new(&server, fault);
            let scene = Scene::new(&server, 2).await;
            let [first, second] = scene.two();
            fault.begin(&scene).await;
            is_served(first).await;
            scene.world.expire();
            is_told_why(&get(first).await);
            scene.has_reissued(0);
            // What the first one has asked for, and got no answer to, may be a claim: that runs out.
            ok(second).await;
            is_told_why(&get(first).await);
            fault.end(&scene).await;
            scene.goes_on().await;
            scene.has_reissued(1);
        }
    })
    .await;
}

// The limit of what can be done (DESIGN section 7): it stays away for longer than claim and quarantine.
#[tokio::test]
async fn one_that_stays_away_with_the_newest_pair_has_its_refresh_token_presented_again() {
    each(async |server: Server| {
        let scene = Scene::new(&server, 2).await;
        let [first, second] = scene.two();
        scene.world.expire();
        scene.world.hold_reissues();
        let request = first.send();
        in_time(scene.world.until(|counts| counts.reissues == 1)).await;
        Fault::CutOff.begin(&scene).await;
        scene.world.release_reissues();
        assert_eq!(in_time(request).await.unwrap().status, StatusCode::OK);
        in_time(async {
            while second.session.status().is_logged_in() {
                second.get().await;
            }
        })
        .await;
        assert_eq!(scene.world.counts().reuses, 1);
        Fault::CutOff.end(&scene).await;
    })
    .await;
}

// shows B137: a claim whose bytes are late is given back before they arrive.
#[tokio::test]
async fn a_claim_that_arrives_after_it_was_given_up_is_none() {
    each(async |server: Server| {
        let scene = Scene::new(&server, 2).await;
        let ([first, second], proxy) = (scene.two(), &scene.proxies[0]);
        first.store.stop_at(Step::Claim, Side::Before);
        let refresh = first.refresh();
        in_time(first.store.until_stopped()).await;
        let before = scene.record().await.version();
        proxy.set(Way {
            requests: Fate::Held,
            ..Way::ANSWERS_LOST
        });
        first.store.go_on();
        let why = in_time(refresh).await.unwrap().unwrap_err();
        assert!(why.is_store(), "{why:?}");
        // It has told the store that it is given up.
        scene.until(|record| record.version() > before).await;
        let arrives = proxy.until_answered();
        proxy.set(Way::ANSWERS_LOST);
        in_time(arrives).await;
        proxy.cut();
        in_time(second.session.refresh()).await.unwrap();
        scene.goes_on().await;
        scene.has_reissued(1);
    })
    .await;
}
