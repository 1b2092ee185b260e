//! Tower's `Timeout`, above and below. The clock runs until everybody waits for the test, and is then
//! put forward.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use tower::ServiceBuilder;
use tower::timeout::error::Elapsed;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;

use crate::WIRES;
use crate::layer;
use crate::site::Site;
use crate::support;
use crate::within;

/// Longer than anything takes here.
const LIMIT: Duration = Duration::from_secs(10);
const MORE: Duration = Duration::from_secs(12);

type Http = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// Nobody but the `Timeout` goes by the clock that is put forward.
fn patient(layer: TokenRefreshLayer) -> TokenRefreshLayer {
    layer.response_limit(64 * 1024, 100 * LIMIT)
}

async fn session(site: &Site) -> Session {
    let builder = site.builder().reissue_timeout(100 * LIMIT);
    site.session_of(builder.wait_timeout(200 * LIMIT)).await
}

fn above(layer: TokenRefreshLayer, http: Http) -> support::Client {
    let stack = ServiceBuilder::new().timeout(LIMIT).layer(patient(layer));
    support::Client::new(stack.service(http))
}

fn below(layer: TokenRefreshLayer, http: Http) -> support::Client {
    let stack = ServiceBuilder::new().layer(patient(layer)).timeout(LIMIT);
    support::Client::new(stack.service(http))
}

/// As [`within`], while time flies: it jumps to the next deadline whenever nobody can go on.
async fn in_no_time<F: Future>(future: F) -> F::Output {
    tokio::time::pause();
    let output = within(future).await;
    tokio::time::resume();
    output
}

fn is_elapsed(sent: Result<support::Answer, tower::BoxError>) -> bool {
    sent.is_err_and(|error| error.is::<Elapsed>())
}

// shows B94, B95, B99, P3: the wait counts. Who gave up is not sent again, and the refresh goes on.
#[tokio::test]
async fn a_timeout_above_spans_the_wait_and_the_refresh_goes_on_without_it() {
    for wire in WIRES {
        let site = Site::start().await;
        let session = session(&site).await;
        let client = above(layer(&site, &session), wire.http());
        site.hold_reissues();
        let waits = tokio::spawn(client.send(site.get("/gave-up")));
        within(site.until(|counts| counts.reissues == 1)).await;
        let sent: Request<Full<Bytes>> = site.get("/gave-up-too");
        let held = tokio::spawn(client.send(sent));
        assert!(is_elapsed(in_no_time(waits).await.unwrap()), "{wire:?}");
        assert!(is_elapsed(in_no_time(held).await.unwrap()), "{wire:?}");
        assert_eq!(session.stats().waiters, 0, "{wire:?}");
        site.release_reissues();
        let next = within(client.send(site.get("/next"))).await.unwrap();
        assert_eq!(next.status, StatusCode::OK, "{wire:?}");
        let paths: Vec<_> = site.seen().into_iter().map(|seen| seen.path).collect();
        assert_eq!(paths, ["/gave-up", "/next"], "{wire:?}");
        assert_eq!(site.counts().reissues, 1, "{wire:?}");
    }
}

// shows B99: the second send counts as well.
#[tokio::test]
async fn a_timeout_above_spans_the_second_send() {
    for wire in WIRES {
        let site = Site::start().await;
        let client = above(layer(&site, &session(&site).await), wire.http());
        site.hold_answers();
        let waits = tokio::spawn(client.send(site.get("/")));
        within(site.until(|counts| counts.requests == 1)).await;
        site.release_answers(1);
        within(site.until(|counts| counts.requests == 2)).await;
        assert!(is_elapsed(in_no_time(waits).await.unwrap()), "{wire:?}");
    }
}

// shows B25, P10: no answer says nothing about the token.
#[tokio::test]
async fn a_first_send_that_times_out_below_is_an_error_and_no_rejection() {
    for wire in WIRES {
        let site = Site::start().await;
        let client = below(layer(&site, &session(&site).await), wire.http());
        within(client.send(site.get("/first"))).await.unwrap();
        site.hold_answers();
        let waits = tokio::spawn(client.send(site.get("/gave-up")));
        within(site.until(|counts| counts.requests == 3)).await;
        assert!(is_elapsed(in_no_time(waits).await.unwrap()), "{wire:?}");
        site.release_answers(2);
        within(client.send(site.get("/next"))).await.unwrap();
        let seen = site.seen();
        let seen: Vec<_> = seen.iter().map(|it| (&*it.path, it.serial())).collect();
        let expected = [("/first", 0), ("/first", 1), ("/gave-up", 1), ("/next", 1)];
        assert_eq!(seen, expected, "{wire:?}");
        assert_eq!(site.counts().reissues, 1, "{wire:?}: for the first");
    }
}

// shows B99, B118: below, neither the wait nor the first send is a part of the second.
#[tokio::test]
async fn a_timeout_below_begins_anew_with_the_second_send() {
    for wire in WIRES {
        let site = Site::start().await;
        let client = below(layer(&site, &session(&site).await), wire.http());
        site.hold_reissues();
        let waits = tokio::spawn(client.send(site.get("/")));
        within(site.until(|counts| counts.reissues == 1)).await;
        tokio::time::pause();
        tokio::time::advance(MORE).await;
        tokio::time::resume();
        site.release_reissues();
        let answer = within(waits).await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{wire:?}");
        assert_eq!(site.counts().requests, 2, "{wire:?}");
    }
}

// shows P10: when the second send fails, its error is what the caller gets. The token is there.
#[tokio::test]
async fn a_second_send_that_times_out_below_is_the_error_that_the_caller_gets() {
    for wire in WIRES {
        let site = Site::start().await;
        let client = below(layer(&site, &session(&site).await), wire.http());
        site.hold_answers();
        let waits = tokio::spawn(client.send(site.get("/")));
        within(site.until(|counts| counts.requests == 1)).await;
        site.release_answers(1);
        within(site.until(|counts| counts.requests == 2)).await;
        assert!(is_elapsed(in_no_time(waits).await.unwrap()), "{wire:?}");
        site.release_answers(10);
        let next = within(client.send(site.get("/next"))).await.unwrap();
        assert_eq!(next.status, StatusCode::OK, "{wire:?}");
        let (counts, seen) = (site.counts(), site.seen());
        assert_eq!((counts.requests, counts.reissues), (3, 1), "{wire:?}");
        assert_eq!(seen[1].token, seen[2].token, "{wire:?}");
    }
}
