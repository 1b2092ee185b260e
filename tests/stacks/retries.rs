//! Tower's `Retry`, above and below.

use std::future::Ready;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body::Body;
use http_body_util::Full;
use tower::ServiceBuilder;
use tower::retry::Policy;
use tower_token_refresh::ReplayBody;

use crate::WIRES;
use crate::layer;
use crate::site::REJECTION;
use crate::site::Site;
use crate::support::Client;
use crate::within;

/// Sends once more, as often as this, what was answered with 503.
#[derive(Clone)]
struct Unavailable(usize);

impl Unavailable {
    fn again<R, E>(&mut self, result: &Result<Response<R>, E>) -> Option<Ready<()>> {
        let status = result.as_ref().ok()?.status();
        self.0 = self.0.checked_sub(1)?;
        (status == StatusCode::SERVICE_UNAVAILABLE).then(|| ready(()))
    }
}

impl<R, E> Policy<Request<Full<Bytes>>, Response<R>, E> for Unavailable {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Ready<()>> {
        self.again(result)
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

/// Below the layer: a body that is under way is in two places already.
impl<R, E, B: Body> Policy<Request<ReplayBody<B>>, Response<R>, E> for Unavailable {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<ReplayBody<B>>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Ready<()>> {
        self.again(result)
    }

    fn clone_request(
        &mut self,
        request: &Request<ReplayBody<B>>,
    ) -> Option<Request<ReplayBody<B>>> {
        let has_body = request.body().size_hint().exact() != Some(0);
        (!has_body).then(|| request.clone_empty())
    }
}

trait CloneEmpty {
    fn clone_empty(&self) -> Self;
}

impl<B> CloneEmpty for Request<ReplayBody<B>> {
    fn clone_empty(&self) -> Self {
        let mut copy = Self::default();
        *copy.method_mut() = self.method().clone();
        *copy.uri_mut() = self.uri().clone();
        *copy.headers_mut() = self.headers().clone();
        copy
    }
}

/// Answers good tokens with 503 this often.
async fn busy(times: usize) -> Site {
    let left = Arc::new(AtomicUsize::new(times));
    Site::answering(move |_, good| {
        let take = |left: usize| left.checked_sub(1);
        let busy = good
            && left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok();
        let answer = Response::builder().status(503);
        busy.then(|| answer.body(Full::default()).unwrap())
    })
    .await
}

fn serials(site: &Site) -> Vec<u64> {
    site.seen().iter().map(|seen| seen.serial()).collect()
}

// shows B111, B117: what the policy clones passes the layer each time, and is replayed whole.
#[tokio::test]
async fn a_retry_above_gets_the_current_token_each_time_and_its_bodies_are_whole() {
    for wire in WIRES {
        let site = busy(2).await;
        let session = site.session().await;
        let client = ServiceBuilder::new()
            .retry(Unavailable(3))
            .layer(layer(&site, &session));
        let client = Client::new(client.service(wire.http()));
        let body = "0123456789".repeat(20_000);
        let sent = client.send(site.post("/echo", body.clone()));
        let answer = within(sent).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{wire:?}");
        assert!(answer.body == body, "{wire:?}");
        assert_eq!(serials(&site), [0, 1, 1, 1], "{wire:?}");
        assert!(site.seen().iter().all(|seen| seen.body == body), "{wire:?}");
        assert_eq!(site.counts().reissues, 1, "{wire:?}");
    }
}

// shows P7, P10: the end is told, and nobody asks again.
#[tokio::test]
async fn a_rejection_that_is_returned_is_not_retried_by_a_policy_that_leaves_it_alone() {
    for wire in WIRES {
        let site = busy(0).await;
        site.refuse();
        let session = site.session().await;
        let client = ServiceBuilder::new()
            .retry(Unavailable(3))
            .layer(layer(&site, &session));
        let client = Client::new(client.service(wire.http()));
        let answer = within(client.send(site.post("/echo", "body"))).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wire:?}");
        assert_eq!(answer.body, REJECTION, "{wire:?}");
        assert!(answer.why.unwrap().is_session_ended(), "{wire:?}");
        let counts = site.counts();
        assert_eq!((counts.requests, counts.reissues), (1, 1), "{wire:?}");
    }
}

// A request with a body cannot be cloned below the layer: a policy there can do no more than rebuild
// those without. They carry what the layer has put on, for each of its own two sends.
#[tokio::test]
async fn a_retry_below_is_for_requests_without_a_body() {
    for wire in WIRES {
        let site = busy(2).await;
        let session = site.session().await;
        let client = ServiceBuilder::new()
            .layer(layer(&site, &session))
            .retry(Unavailable(1));
        let client = Client::new(client.service(wire.http()));
        let get = within(client.send(site.get("/"))).await.unwrap();
        assert_eq!(get.status, StatusCode::SERVICE_UNAVAILABLE, "{wire:?}");
        assert_eq!(serials(&site), [0, 1, 1], "{wire:?}");
        let post = within(client.send(site.post("/", "body"))).await.unwrap();
        assert_eq!(post.status, StatusCode::OK, "{wire:?}");
        assert_eq!(serials(&site), [0, 1, 1, 1], "{wire:?}");
    }
}

/// Compiles as long as `ReplayBody` is not `Clone`: two impls would apply then.
trait NotClone<Which> {
    fn holds() {}
}

impl<T: ?Sized> NotClone<()> for T {}

impl<T: Clone> NotClone<u8> for T {}

const _: fn() = <ReplayBody<Full<Bytes>> as NotClone<_>>::holds;
