//! Shows what tower-http's `Trace` sees above and below the layer, and that no token is in anything that
//! is traced then. One test alone: whether a span is heard is remembered for the whole process.

#[path = "support/paper.rs"]
mod paper;
#[path = "support/server.rs"]
mod server;
#[path = "support/site.rs"]
mod site;
mod support;

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use paper::Paper;
use site::MARK;
use site::Site;
use tokio::time::timeout;
use tower::Layer;
use tower::ServiceBuilder;
use tower_http::classify::ServerErrorsAsFailures;
use tower_http::classify::SharedClassifier;
use tower_http::sensitive_headers::SetSensitiveHeadersLayer;
use tower_http::trace::DefaultMakeSpan;
use tower_http::trace::DefaultOnBodyChunk;
use tower_http::trace::DefaultOnRequest;
use tower_http::trace::DefaultOnResponse;
use tower_http::trace::TraceLayer;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::TokenRefreshLayer;
use tracing::Level;

type Http = Client<HttpConnector, ReplayBody<Full<Bytes>>>;
type Trace = TraceLayer<
    SharedClassifier<ServerErrorsAsFailures>,
    DefaultMakeSpan,
    DefaultOnRequest,
    DefaultOnResponse,
    DefaultOnBodyChunk,
>;

/// Says as much as it can.
fn trace() -> Trace {
    let span = DefaultMakeSpan::new().level(Level::TRACE);
    let response = DefaultOnResponse::new().level(Level::TRACE);
    TraceLayer::new_for_http()
        .make_span_with(span.include_headers(true))
        .on_request(DefaultOnRequest::new().level(Level::TRACE))
        .on_response(response.include_headers(true))
}

fn http(http2: bool) -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

/// What is traced while one request with an expired token goes through this stack, and one with a
/// header of the caller's own.
async fn traced(
    stack: impl FnOnce(TokenRefreshLayer, Http) -> support::Client,
    http2: bool,
) -> String {
    let paper = Paper::default();
    let writer = paper.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let scene = async {
        let site = Site::start().await;
        let session = site.session().await;
        let layer = TokenRefreshLayer::new(&*site.base, session).unwrap();
        let client = stack(layer, http(http2));
        let answer = client.send(site.post("/rejected", "body")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let counts = site.counts();
        assert_eq!((counts.requests, counts.reissues), (2, 1));
        let mut own = site.get("/own");
        let value = HeaderValue::from_str(&format!("Basic {MARK}-own")).unwrap();
        own.headers_mut().insert(AUTHORIZATION, value);
        let answer = client.send(own).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    };
    let _guard = tracing::subscriber::set_default(subscriber);
    let patience = Duration::from_secs(60);
    timeout(patience, scene).await.expect("it hangs");
    paper.text()
}

/// How many requests to this path were begun, as `Trace` tells it.
fn begun(text: &str, path: &str) -> usize {
    let lines = text.lines().filter(|line| {
        line.contains(path) && line.contains("tower_http") && line.contains("started processing")
    });
    lines.count()
}

// shows B118, P12, S5
#[tokio::test]
async fn trace_sees_one_call_above_and_each_send_below_and_never_a_token() {
    for http2 in [false, true] {
        let above = |layer: TokenRefreshLayer, http| {
            let stack = ServiceBuilder::new()
                .layer(SetSensitiveHeadersLayer::new([AUTHORIZATION]))
                .layer(trace())
                .layer(layer);
            support::Client::new(stack.service(http))
        };
        let below = |layer: TokenRefreshLayer, http| {
            let stack = ServiceBuilder::new()
                .layer(SetSensitiveHeadersLayer::new([AUTHORIZATION]))
                .layer(layer)
                .layer(trace());
            support::Client::new(stack.service(http))
        };
        let unmarked = |layer: TokenRefreshLayer, http| {
            let service = trace().layer(http);
            support::Client::new(layer.layer(service))
        };
        let (above, below) = (traced(above, http2).await, traced(below, http2).await);
        assert_eq!((begun(&above, "/rejected"), begun(&above, "/own")), (1, 1));
        assert_eq!((begun(&below, "/rejected"), begun(&below, "/own")), (2, 1));
        for text in [above, below] {
            assert!(text.contains("token_refresh"), "the refresh is traced too");
            let told = text.lines().find(|line| line.contains(MARK));
            assert_eq!(told, None, "HTTP/2 {http2}");
        }
        // The layer answers for its own token alone.
        let unmarked = traced(unmarked, http2).await;
        let told: Vec<_> = unmarked
            .lines()
            .filter(|line| line.contains(MARK) && line.contains("tower_http"))
            .collect();
        assert!(!told.is_empty());
        assert!(told.iter().all(|line| line.contains("/own")), "{told:?}");
    }
}
