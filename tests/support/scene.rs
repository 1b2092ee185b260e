//! One request with an expired token, from a real client with the layer to a real API, while an
//! issuer answers as the test wants.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::Layer;
use tower_token_refresh::EndReason;
use tower_token_refresh::RefreshError;
use tower_token_refresh::Reissue;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;

use super::issuer::Act;
use super::issuer::Issuer;
use super::support;
use super::support::Answer;
use super::support::Store;

pub type Http = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// The server's own words.
pub const REJECTION: &str = "the token has expired";

/// An answer that is of use.
pub const GOOD: &str = r#"{"accessToken":"new-access","refreshToken":"new-refresh"}"#;

pub fn http(http2: bool) -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

pub fn tokens(name: &str) -> TokenSet {
    TokenSet::new(format!("{name}-access"))
        .unwrap()
        .with_refresh_token(format!("{name}-refresh"))
        .unwrap()
}

/// An API that takes every token but the one of `tokens("old")`, over HTTP/1 and HTTP/2.
pub struct Api {
    pub base: String,
    task: JoinHandle<()>,
}

impl Api {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let stream = TokioIo::new(stream);
                    // The client may leave in the middle: that is its right.
                    drop(server.serve_connection(stream, service_fn(api)).await);
                });
            }
        });
        Self { base, task }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn api(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let expired = match request.headers().get("authorization") {
        Some(value) => value == "Bearer old-access",
        None => true,
    };
    let mut response = Response::new(Full::from(if expired { REJECTION } else { "welcome" }));
    if expired {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Ok(response)
}

/// Everything there is to see of it.
pub struct Scene {
    pub issuer: Issuer,
    pub session: Session,
    pub store: Store,
    /// What the caller got.
    pub answer: Answer,
    api: Api,
    http: Http,
}

impl Scene {
    /// Logs in with `tokens("old")`, and sends one request.
    pub async fn play<R: Reissue>(
        http2: bool,
        acts: impl IntoIterator<Item = Act>,
        reissue: impl FnOnce(String, Http) -> R,
    ) -> Self {
        Self::play_within(Duration::from_secs(20), http2, acts, reissue).await
    }

    /// The same, with a deadline for the issuer.
    pub async fn play_within<R: Reissue>(
        reissue_timeout: Duration,
        http2: bool,
        acts: impl IntoIterator<Item = Act>,
        reissue: impl FnOnce(String, Http) -> R,
    ) -> Self {
        let (issuer, api) = (Issuer::scripted(http2, acts).await, Api::start().await);
        let (store, http) = (Store::new(None), http(http2));
        let session = Session::builder(reissue(issuer.uri(), http.clone()))
            .store(store.clone())
            .reissue_timeout(reissue_timeout)
            .build()
            .unwrap();
        session.login(tokens("old")).await.unwrap();
        let answer = send(&session, &api, &http).await;
        Self {
            issuer,
            session,
            store,
            answer,
            api,
            http,
        }
    }

    /// Another request.
    pub async fn send(&self) -> Answer {
        send(&self.session, &self.api, &self.http).await
    }

    pub fn why(&self) -> &RefreshError {
        self.answer.why.as_ref().expect("a reason")
    }

    pub fn asked(&self) -> usize {
        self.issuer.requests().len()
    }

    /// What the store holds: access token and refresh token.
    pub fn stored(&self) -> Option<(String, String)> {
        let tokens = self.store.tokens()?;
        let refresh = tokens.refresh_token()?.expose().to_owned();
        Some((tokens.access_token().expose().to_owned(), refresh))
    }

    /// The caller has the server's own answer, the session goes on as it was, and the issuer was asked
    /// once. Nothing tells a token.
    #[track_caller]
    pub fn is_kept(&self, row: &str) {
        self.is_kept_with("old-refresh", row);
    }

    #[track_caller]
    pub fn is_kept_with(&self, refresh: &str, row: &str) {
        assert_eq!(self.asked(), 1, "{row}");
        self.is_kept_after_all(refresh, row);
    }

    /// However often the issuer was asked.
    #[track_caller]
    pub fn is_kept_after_all(&self, refresh: &str, row: &str) {
        self.is_rejected(row);
        assert!(self.session.status().is_logged_in(), "{row}");
        let stored = self.stored().unwrap();
        assert_eq!(stored, ("old-access".into(), refresh.into()), "{row}");
        assert_eq!(self.session.stats().ends, 0, "{row}");
    }

    /// The caller has the server's own answer, and the session is over: for good, for everybody, and in
    /// the store. The issuer is not asked again.
    #[track_caller]
    pub fn is_over(&self, row: &str) {
        assert_eq!(self.asked(), 1, "{row}");
        self.is_rejected(row);
        assert_eq!(self.why().end_reason(), Some(EndReason::Refused), "{row}");
        let status = self.session.status();
        assert!(
            matches!(status, SessionStatus::Ended { .. }),
            "{row}: {status:?}"
        );
        assert_eq!(self.stored(), None, "{row}");
        assert_eq!(self.session.stats().ends, 1, "{row}");
    }

    /// It was replayed with the new token.
    #[track_caller]
    pub fn is_replayed(&self, row: &str) {
        assert_eq!(
            self.answer.status,
            StatusCode::OK,
            "{row}: {:?}",
            self.answer
        );
        assert_eq!(self.answer.body, "welcome", "{row}");
        assert!(self.session.status().is_logged_in(), "{row}");
    }

    #[track_caller]
    fn is_rejected(&self, row: &str) {
        assert_eq!(self.answer.status, StatusCode::UNAUTHORIZED, "{row}");
        assert_eq!(self.answer.body, REJECTION, "{row}");
        assert_eq!(self.session.stats().replays, 0, "{row}");
        let told = chain(self.why());
        for secret in ["old-", "new-", "CANARY"] {
            assert!(!told.contains(secret), "{row}: {told}");
        }
    }
}

pub async fn send(session: &Session, api: &Api, http: &Http) -> Answer {
    let layer = TokenRefreshLayer::new(&*api.base, session.clone()).unwrap();
    let client = support::Client::new(layer.layer(http.clone()));
    let request = Request::get(format!("{}/items", api.base));
    client
        .send(request.body(Full::default()).unwrap())
        .await
        .unwrap()
}

/// The error and its causes, in both renderings.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(|error| format!("{error} {error:?}\n")).collect()
}
