//! The shapes in which a client is passed around: in a box, shared, cloned for each request, or kept.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower::util::BoxCloneService;
use tower::util::BoxCloneSyncService;
use tower_token_refresh::BoxError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ResponseBody;

use crate::CROWD;
use crate::Sent;
use crate::WIRES;
use crate::layer;
use crate::site::Site;
use crate::succeeds;
use crate::support::Client;
use crate::within;

type Below = Request<ReplayBody<Full<Bytes>>>;
type Above = Request<Full<Bytes>>;
type Answer = Response<ResponseBody<Incoming>>;

// shows B31, P1
#[tokio::test]
async fn boxed_inside_and_outside_it_is_the_same_client() {
    for wire in WIRES {
        let site = Site::start().await;
        let layer = layer(&site, &site.session().await);
        let inside = BoxCloneSyncService::<Below, _, _>::new(wire.http());
        let boxed = BoxCloneSyncService::<Above, Answer, BoxError>::new(layer.layer(inside));
        succeeds(&site, &Client::new(boxed), Sent::Together, "sync").await;
        // What is not `Sync` is cloned by whoever owns it.
        let inside = BoxCloneService::<Below, _, _>::new(wire.http());
        let boxed = BoxCloneService::<Above, Answer, BoxError>::new(layer.layer(inside));
        site.expire();
        let sent = (0..CROWD).map(|_| tokio::spawn(boxed.clone().oneshot(site.get("/"))));
        for sent in join_all(sent).await {
            assert_eq!(sent.unwrap().unwrap().status(), StatusCode::OK, "{wire:?}");
        }
        assert_eq!(site.counts().reissues, 2, "{wire:?}");
    }
}

// shows B39, P1: clones of one client, clients of one layer and layers of one session share the refresh.
#[tokio::test]
async fn a_client_shared_by_reference_is_cloned_for_each_request() {
    for wire in WIRES {
        let site = Site::start().await;
        let session = site.session().await;
        let clients = [0, 1].map(|_| Arc::new(layer(&site, &session).layer(wire.http())));
        site.hold_answers();
        let crowd = (0..CROWD).map(|n| {
            let client = clients[n % 2].clone();
            let request = site.post("/echo", n.to_string());
            tokio::spawn(async move {
                let client = client.as_ref().clone();
                let answer = client.oneshot(request).await?;
                let body = answer.into_body().collect().await?.to_bytes();
                Ok::<_, BoxError>(body)
            })
        });
        let crowd: Vec<_> = crowd.collect();
        within(site.until(|counts| counts.requests == CROWD)).await;
        site.release_answers(1 << 20);
        for (n, sent) in crowd.into_iter().enumerate() {
            let body = within(sent).await.unwrap().unwrap();
            assert_eq!(body, n.to_string(), "{wire:?}");
        }
        let counts = site.counts();
        assert_eq!(
            (counts.requests, counts.reissues),
            (2 * CROWD, 1),
            "{wire:?}"
        );
    }
}

// shows B31, P1: a service that is kept and asked for readiness before each call, as tower says.
#[tokio::test]
async fn one_service_that_is_kept_takes_one_request_after_another_and_many_at_once() {
    for wire in WIRES {
        let site = Site::start().await;
        let mut client = layer(&site, &site.session().await).layer(wire.http());
        for n in 0..3 {
            site.expire();
            let ready = ServiceExt::<Above>::ready(&mut client).await.unwrap();
            let answer = within(ready.call(site.get("/"))).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{wire:?}");
            assert_eq!(site.counts().requests, 2 * (n + 1), "{wire:?}");
        }
        let before = site.counts();
        site.expire();
        site.hold_answers();
        let mut sent = Vec::new();
        for _ in 0..CROWD {
            let ready = ServiceExt::<Above>::ready(&mut client).await.unwrap();
            sent.push(tokio::spawn(ready.call(site.get("/"))));
        }
        within(site.until(|counts| counts.requests == before.requests + CROWD)).await;
        site.release_answers(1 << 20);
        for sent in sent {
            let answer = within(sent).await.unwrap().unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{wire:?}");
        }
        let after = site.counts();
        assert_eq!(after.requests, before.requests + 2 * CROWD, "{wire:?}");
        assert_eq!(after.reissues, before.reissues + 1, "{wire:?}");
    }
}

// shows B116, P14: the first send's connection is free by the time of the second.
#[tokio::test]
async fn a_request_that_is_sent_again_needs_no_second_connection() {
    for wire in WIRES.into_iter().filter(|wire| wire.pooled) {
        // More than fits into a read, so that somebody has to read it.
        let site = Site::answering(|_, good| {
            let rejection = Response::builder().status(StatusCode::UNAUTHORIZED);
            let body = Full::from("x".repeat(60_000));
            (!good).then(|| rejection.body(body).unwrap())
        })
        .await;
        let service = layer(&site, &site.session().await).layer(wire.http());
        let answer = within(service.oneshot(site.post("/", "body"))).await;
        assert_eq!(answer.unwrap().status(), StatusCode::OK, "{wire:?}");
        let counts = site.counts();
        assert_eq!((counts.requests, counts.reissues), (2, 1), "{wire:?}");
        assert_eq!(site.connections(), 2, "{wire:?}: one is the issuer's");
    }
}
