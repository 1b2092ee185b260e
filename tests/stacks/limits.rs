//! Buffers, limits, and what sheds the load that is over them.

use std::time::Duration;

use http::StatusCode;
use tokio_test::assert_pending;
use tokio_test::task;
use tower::BoxError;
use tower::Layer;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower::load_shed::error::Overloaded;
use tower_token_refresh::WithoutToken;

use crate::CROWD;
use crate::HTTP1;
use crate::Sent;
use crate::WIRES;
use crate::layer;
use crate::site::Site;
use crate::succeeds;
use crate::support::Client;
use crate::within;

const HOUR: Duration = Duration::from_secs(3600);

fn is_shed(error: &BoxError) -> bool {
    error.is::<Overloaded>()
}

// shows B31, B118, P1, P14: a place in the buffer is not held while the request waits.
#[tokio::test]
async fn a_buffer_of_one_place_may_stand_above_and_below() {
    for wire in WIRES {
        let site = Site::start().await;
        let layer = layer(&site, &site.session().await);
        let below = ServiceBuilder::new().layer(layer.clone()).buffer(1);
        let below = Client::new(below.service(wire.http()));
        let above = ServiceBuilder::new().buffer(1).layer(layer);
        let above = Client::new(above.service(wire.http()));
        for (client, stack) in [(below, "below"), (above, "above")] {
            let stack = format!("{stack}, {wire:?}");
            succeeds(&site, &client, Sent::Together, &stack).await;
        }
    }
}

// shows B44, P14: each replay needs the only place that there is.
#[tokio::test]
async fn a_concurrency_limit_of_one_may_stand_above_and_below() {
    for wire in WIRES {
        let site = Site::start().await;
        let layer = layer(&site, &site.session().await);
        let below = ServiceBuilder::new()
            .layer(layer.clone())
            .concurrency_limit(1);
        let below = Client::new(below.service(wire.http()));
        let buffered = ServiceBuilder::new()
            .layer(layer.clone())
            .buffer(1)
            .concurrency_limit(1);
        let buffered = Client::new(buffered.service(wire.http()));
        let above = ServiceBuilder::new().concurrency_limit(1).layer(layer);
        let above = Client::new(above.service(wire.http()));
        let stacks = [
            (below, Sent::OneByOne, "below"),
            (buffered, Sent::Some, "below, with a buffer"),
            (above, Sent::OneByOne, "above"),
        ];
        for (client, sent, stack) in stacks {
            let stack = format!("{stack}, {wire:?}");
            succeeds(&site, &client, sent, &stack).await;
        }
    }
}

// shows B44, P14
#[tokio::test]
async fn while_a_request_waits_its_place_below_is_free_and_its_place_above_is_not() {
    for wire in WIRES {
        let site = Site::start().await;
        let layer = layer(&site, &site.session().await);
        let below = ServiceBuilder::new()
            .layer(layer.clone())
            .concurrency_limit(1)
            .service(wire.http());
        let above = ServiceBuilder::new()
            .concurrency_limit(1)
            .layer(layer)
            .service(wire.http());
        site.hold_reissues();
        let waiting = Client::new(below.clone());
        let waiting = tokio::spawn(waiting.send(site.post("/below", "the body")));
        within(site.until(|counts| counts.reissues == 1)).await;
        let mut free = site.get("/public");
        free.extensions_mut().insert(WithoutToken);
        let answer = within(Client::new(below).send(free)).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{wire:?}");
        assert!(!waiting.is_finished(), "{wire:?}");
        // This one waits for the same refresh, and has not been sent.
        let held = tokio::spawn(Client::new(above.clone()).send(site.get("/above")));
        crate::support::settle_down().await;
        let mut next = task::spawn(above.ready_oneshot());
        assert_pending!(next.poll(), "{wire:?}");
        site.release_reissues();
        for sent in [waiting, held] {
            let answer = within(sent).await.unwrap().unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{wire:?}");
        }
        assert!(within(next).await.is_ok());
        let mut paths: Vec<_> = site.seen().into_iter().map(|seen| seen.path).collect();
        paths[2..].sort();
        assert_eq!(paths, ["/below", "/public", "/above", "/below"], "{wire:?}");
    }
}

// shows B118: below, each send counts; above, each call. `RateLimit` cannot be cloned, so it has a
// `Buffer` above it; what sheds load there turns the end of the quota into an answer.
#[tokio::test]
async fn a_rate_limit_counts_sends_below_and_calls_above() {
    for wire in WIRES {
        let (sends, calls) = (2 * CROWD as u64, CROWD as u64);
        let site = Site::start().await;
        let layer = layer(&site, &site.session().await);
        let below = ServiceBuilder::new()
            .layer(layer.clone())
            .buffer(CROWD)
            .load_shed()
            .rate_limit(sends, HOUR);
        let below = Client::new(below.service(wire.http()));
        let above = ServiceBuilder::new()
            .buffer(CROWD)
            .load_shed()
            .rate_limit(calls, HOUR)
            .layer(layer);
        let above = Client::new(above.service(wire.http()));
        for (client, stack) in [(below, "below"), (above, "above")] {
            let stack = format!("{stack}, {wire:?}");
            succeeds(&site, &client, Sent::Together, &stack).await;
            let error = within(client.send(site.get("/one-more"))).await;
            assert!(is_shed(&error.unwrap_err()), "{stack}");
        }
        assert!(site.seen().iter().all(|seen| seen.path != "/one-more"));
    }
}

// shows B25, P10: no answer says nothing about the token.
#[tokio::test]
async fn a_first_send_that_is_shed_below_is_an_error_and_no_rejection() {
    let site = Site::start().await;
    let session = site.session().await;
    let client = ServiceBuilder::new()
        .layer(layer(&site, &session))
        .load_shed()
        .concurrency_limit(1);
    let client = Client::new(client.service(HTTP1.http()));
    within(client.send(site.get("/first"))).await.unwrap();
    site.hold_answers();
    let second = tokio::spawn(client.send(site.get("/second")));
    within(site.until(|counts| counts.requests == 3)).await;
    let error = within(client.send(site.get("/shed"))).await.unwrap_err();
    assert!(is_shed(&error), "{error:?}");
    site.release_answers(2);
    within(second).await.unwrap().unwrap();
    within(client.send(site.get("/next"))).await.unwrap();
    let seen = site.seen();
    let seen: Vec<_> = seen.iter().map(|it| (&*it.path, it.serial())).collect();
    let expected = [("/first", 0), ("/first", 1), ("/second", 1), ("/next", 1)];
    assert_eq!(seen, expected);
    assert_eq!(site.counts().reissues, 1, "for the first");
}

// shows P10: when the second send fails, its error is what the caller gets. The token is there.
#[tokio::test]
async fn a_replay_that_is_shed_below_is_an_error_and_the_next_request_has_the_new_token() {
    let site = Site::start().await;
    let session = site.session().await;
    let client = ServiceBuilder::new()
        .layer(layer(&site, &session))
        .load_shed()
        .concurrency_limit(1);
    let client = Client::new(client.service(HTTP1.http()));
    site.hold_reissues();
    let rejected = tokio::spawn(client.send(site.get("/rejected")));
    within(site.until(|counts| counts.reissues == 1)).await;
    site.hold_answers();
    let mut other = site.get("/public");
    other.extensions_mut().insert(WithoutToken);
    let other = tokio::spawn(client.send(other));
    within(site.until(|counts| counts.requests == 2)).await;
    site.release_reissues();
    let error = within(rejected).await.unwrap().unwrap_err();
    assert!(is_shed(&error), "{error:?}");
    site.release_answers(2);
    within(other).await.unwrap().unwrap();
    let next = within(client.send(site.get("/next"))).await.unwrap();
    assert_eq!(next.status, StatusCode::OK);
    let paths: Vec<_> = site.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/rejected", "/public", "/next"]);
    assert_eq!(site.counts().reissues, 1);
}

// shows B118: what is shed above is not there for the layer.
#[tokio::test]
async fn what_is_shed_above_never_reaches_the_layer() {
    let site = Site::start().await;
    let session = site.session().await;
    let service = layer(&site, &session).layer(HTTP1.http());
    let client = ServiceBuilder::new().load_shed().concurrency_limit(1);
    let client = Client::new(client.service(service));
    site.hold_reissues();
    let waiting = tokio::spawn(client.send(site.get("/waiting")));
    within(site.until(|counts| counts.reissues == 1)).await;
    let error = within(client.send(site.get("/shed"))).await.unwrap_err();
    assert!(is_shed(&error), "{error:?}");
    assert_eq!(session.stats().waiters, 1);
    site.release_reissues();
    let answer = within(waiting).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(site.counts().requests, 2, "one, twice");
}
