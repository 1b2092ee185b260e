//! What the benches share: a client's requests, an in-memory API, and ways to say what was measured.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

pub mod clients;
pub mod crowd;
pub mod hand_made;
pub mod rounds;

use std::convert::Infallible;
use std::future::Ready;
use std::future::ready;
use std::hint::black_box;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use futures::executor::block_on;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http_body_util::Full;
use tower::Service;
use tower_token_refresh::BoxError;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

pub const ORIGIN: &str = "https://api.test";

/// As long as a small JSON Web Token.
pub const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6Ikpv\
                         aG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";

/// Are we only to show that everything still runs? As criterion decides it.
pub fn is_test() -> bool {
    let is_given = |flag: &str| std::env::args().any(|arg| arg == flag);
    !is_given("--bench") || is_given("--test")
}

/// A request with eight headers, made anew as a client makes it: a clone of another one would share
/// that one's buffers, and be cheaper to clone in turn.
pub fn request<B>(body: B) -> Request<B> {
    let made = Request::post("https://api.test/orders/17?expand=lines")
        .header("accept", HeaderValue::from_static("application/json"))
        .header("accept-encoding", HeaderValue::from_static("gzip, br"))
        .header("cache-control", HeaderValue::from_static("no-cache"))
        .header("content-type", HeaderValue::from_static("application/json"))
        .header("user-agent", HeaderValue::from_static("bench/1.0"))
        .header("idempotency-key", "0b9c8f0e-5d0f-4c0e-9b52-0d8f6e1d2c3a")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .header("x-request-id", "9f3c1d2e7b")
        .body(body);
    made.unwrap_or_else(|error| panic!("{error}"))
}

/// The same, with a small body.
pub fn small_request() -> Request<Full<Bytes>> {
    request(Full::from(
        &br#"{"sku":"A-17","quantity":3,"note":"leave at the door"}"#[..],
    ))
}

/// What most answers have.
const ANSWERED: [(HeaderName, &str); 6] = [
    (header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
    (header::CONTENT_TYPE, "application/json"),
    (header::CONTENT_LENGTH, "11"),
    (header::CACHE_CONTROL, "no-store"),
    (header::VARY, "accept-encoding"),
    (header::SERVER, "bench"),
];

/// A service that is always ready, and has answered when it is called.
#[derive(Debug, Clone, Copy)]
pub struct Api;

impl<B> Service<Request<B>> for Api {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        drop(black_box(request));
        let mut answer = Response::new(Full::from(&br#"{"ok":true}"#[..]));
        for (name, value) in ANSWERED {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        ready(Ok(answer))
    }
}

/// A session with a token that is good.
pub fn session() -> Result<Session, BoxError> {
    let reissue = reissue_fn(|_| async { Err(ReissueError::refused("not asked for")) });
    let session = Session::builder(reissue).build()?;
    block_on(session.login(TokenSet::new(TOKEN)?.with_refresh_token("refresh")?))?;
    Ok(session)
}

/// The layer of this crate, with that session.
pub fn layer() -> Result<TokenRefreshLayer, BoxError> {
    Ok(TokenRefreshLayer::new(ORIGIN, session()?)?)
}
