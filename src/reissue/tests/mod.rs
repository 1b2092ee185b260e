//! The reissuers against a scripted issuer: what they send, and what they make of each answer.

mod clients;
mod home_made;
mod oauth;
mod properties;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderName;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body::Body;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use serde_json::json;
use tower::service_fn;
use tower_service::Service;

use super::*;
use crate::attach::WithoutToken;
use crate::error::BoxError;
use crate::json::Pointer;

const ADDRESS: &str = "https://issuer.example/reissue?key=CANARY";

/// Chunks, and how they end.
#[derive(Clone, Default)]
struct Script {
    chunks: Vec<Bytes>,
    breaks_off: bool,
    endless: bool,
    read: Arc<Mutex<usize>>,
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let chunk = match self.chunks.first() {
            Some(chunk) if self.endless => chunk.clone(),
            Some(_) => self.chunks.remove(0),
            None if self.breaks_off => return Poll::Ready(Some(Err("connection reset".into()))),
            None => return Poll::Ready(None),
        };
        *self.read.lock().unwrap() += chunk.len();
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

#[derive(Clone)]
struct Reply {
    status: u16,
    headers: Vec<(HeaderName, &'static str)>,
    body: Script,
}

fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    let body = Script {
        chunks: vec![body.into()],
        ..Script::default()
    };
    let json = (header::CONTENT_TYPE, "application/json");
    Reply {
        status,
        headers: vec![json],
        body,
    }
}

impl Reply {
    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name, value));
        self
    }

    fn and(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn breaking_off(mut self) -> Self {
        self.body.breaks_off = true;
        self
    }

    fn endless(mut self) -> Self {
        self.body.endless = true;
        self
    }

    fn response(self) -> Response<Script> {
        let mut response = Response::new(self.body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        for (name, value) in self.headers {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    }
}

type Sent = Arc<Mutex<Vec<Request<Full<Bytes>>>>>;

/// A client whose issuer always answers the same, and what was sent through it.
fn issuer(
    reply: Reply,
) -> (
    impl Service<Request<Full<Bytes>>, Response = Response<Script>, Error = Infallible, Future: Send>
    + Clone,
    Sent,
) {
    scripted([reply])
}

/// A client whose issuer answers with these in turn, and then with the last one again.
fn scripted(
    replies: impl IntoIterator<Item = Reply>,
) -> (
    impl Service<Request<Full<Bytes>>, Response = Response<Script>, Error = Infallible, Future: Send>
    + Clone,
    Sent,
) {
    let sent = Sent::default();
    let log = Arc::clone(&sent);
    let replies: Arc<[Reply]> = replies.into_iter().collect();
    let client = service_fn(move |request| {
        let mut log = log.lock().unwrap();
        let reply = replies.get(log.len()).or_else(|| replies.last()).unwrap();
        log.push(request);
        std::future::ready(Ok(reply.clone().response()))
    });
    (client, sent)
}

fn request() -> ReissueRequest {
    let tokens = TokenSet::new("CANARY-access")
        .and_then(|tokens| tokens.with_refresh_token("CANARY-refresh"))
        .unwrap();
    let tokens = tokens.with_identity("id", "7");
    ReissueRequest::new(Some(tokens.with_identity("email", "user@example.com")))
}

/// Reissues, and sees to it that a failure shows nothing of what it must not (P12).
async fn reissued(reissuer: impl Reissue) -> Result<TokenSet, ReissueError> {
    let outcome = Reissue::reissue(&reissuer, request()).await;
    if let Err(error) = &outcome {
        let shown = format!("{error:?} {error:#?} {}", chain(error));
        assert!(!shown.contains("CANARY"), "{shown}");
    }
    outcome
}

fn chain(error: &dyn Error) -> String {
    let source = error.source().map(chain).unwrap_or_default();
    format!("{error}: {source}")
}

fn json_reissue(reply: Reply) -> JsonReissue {
    let reissuer = JsonReissue::post(ADDRESS, issuer(reply).0).refused("T-003");
    reissuer.refused("40103")
}

fn cookie_reissue(reply: Reply) -> CookieReissue {
    let reissuer = CookieReissue::post(ADDRESS, issuer(reply).0).refused("T-003");
    reissuer.refused("40103")
}

/// The failure that both reissuers make of an answer.
async fn failure(reply: Reply) -> ReissueError {
    let error = reissued(json_reissue(reply.clone())).await.unwrap_err();
    let other = reissued(cookie_reissue(reply)).await.unwrap_err();
    assert_eq!(error.kind, other.kind);
    assert_eq!(error.retry_after.is_some(), other.retry_after.is_some());
    error
}

fn json_text(value: Value) -> String {
    value.to_string()
}

fn good() -> String {
    json_text(json!({"accessToken": "CANARY-a2", "refreshToken": "CANARY-r2", "expiresIn": 900}))
}

async fn body_of(sent: &Sent) -> Bytes {
    let request = sent.lock().unwrap().remove(0);
    request.into_body().collect().await.unwrap().to_bytes()
}
