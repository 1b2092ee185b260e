//! What tower-http adds: compression, headers that are sensitive, headers that are passed on.

use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::ACCEPT_ENCODING;
use http::header::AUTHORIZATION;
use http_body_util::Full;
use tower::Layer;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower_http::auth::AddAuthorizationLayer;
use tower_http::decompression::DecompressionLayer;
use tower_http::propagate_header::PropagateHeaderLayer;
use tower_http::sensitive_headers::SetSensitiveHeadersLayer;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::Or;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;

use crate::HTTP1;
use crate::WIRES;
use crate::layer;
use crate::raw::Act;
use crate::raw::Raw;
use crate::raw::Then;
use crate::raw::answer;
use crate::site::REJECTION;
use crate::site::Site;
use crate::support::Client;
use crate::within;

const EXPIRED: &str = r#"{"code":"T-002","message":"expired"}"#;
const WELCOME: &str = r#"{"hello":"you"}"#;

fn zipped(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut zip = GzEncoder::new(Vec::new(), Compression::default());
    zip.write_all(text.as_bytes()).unwrap();
    let answer = Response::builder().status(status);
    let answer = answer.header("content-encoding", "gzip");
    let answer = answer.header("content-type", "application/json");
    answer.body(zip.finish().unwrap().into()).unwrap()
}

/// Answers whoever accepts gzip with gzip, and an expired token with this status and a code.
async fn zipping(status: StatusCode) -> Site {
    Site::answering(move |seen, good| {
        let accepts = seen.headers.get(ACCEPT_ENCODING)?;
        let accepts = accepts.to_str().unwrap().contains("gzip");
        assert!(accepts, "the client says what it can read");
        Some(match good {
            true => zipped(StatusCode::OK, WELCOME),
            false => zipped(status, EXPIRED),
        })
    })
    .await
}

fn by_codes(
    site: &Site,
    session: &Session,
) -> TokenRefreshLayer<Session, Or<ErrorCodes, DefaultClassifier>> {
    let codes = ErrorCodes::json("/code").expired("T-002");
    layer(site, session).classify(codes.or(DefaultClassifier))
}

// shows B19, B26: a code is read where the body is plain by then.
#[tokio::test]
async fn a_code_in_a_zipped_body_is_seen_when_decompression_stands_below() {
    for wire in WIRES {
        for status in [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED] {
            let site = zipping(status).await;
            let session = site.session().await;
            let client = ServiceBuilder::new()
                .layer(by_codes(&site, &session))
                .layer(DecompressionLayer::new());
            let client = Client::new(client.service(wire.http()));
            let answer = within(client.send(site.get("/"))).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{wire:?}");
            assert_eq!(answer.body, WELCOME, "{wire:?}");
            let counts = site.counts();
            assert_eq!((counts.requests, counts.reissues), (2, 1), "{wire:?}");
        }
    }
}

#[tokio::test]
async fn when_decompression_stands_above_no_code_is_seen_and_the_status_decides() {
    for wire in WIRES {
        let bad_request = (StatusCode::BAD_REQUEST, EXPIRED, (1, 0));
        let unauthorized = (StatusCode::OK, WELCOME, (2, 1));
        let rows = [
            (StatusCode::BAD_REQUEST, bad_request),
            (StatusCode::UNAUTHORIZED, unauthorized),
        ];
        for (status, expected) in rows {
            let site = zipping(status).await;
            let session = site.session().await;
            let client = ServiceBuilder::new()
                .layer(DecompressionLayer::new())
                .layer(by_codes(&site, &session));
            let client = Client::new(client.service(wire.http()));
            let answer = within(client.send(site.get("/"))).await.unwrap();
            let counts = site.counts();
            let counts = (counts.requests, counts.reissues);
            assert_eq!((answer.status, &*answer.body, counts), expected, "{wire:?}");
        }
    }
}

// shows P10: the server's own answer, whole and readable, and why it is that.
#[tokio::test]
async fn a_rejection_that_is_returned_keeps_its_reason_and_its_body_on_the_way_up() {
    for wire in WIRES {
        let site = zipping(StatusCode::UNAUTHORIZED).await;
        site.refuse();
        let session = site.session().await;
        let name = HeaderName::from_static("x-request-id");
        let below = ServiceBuilder::new()
            .layer(by_codes(&site, &session))
            .layer(DecompressionLayer::new());
        let below = Client::new(below.service(wire.http()));
        let answer = within(below.send(site.get("/"))).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wire:?}");
        assert_eq!(answer.body, EXPIRED, "{wire:?}");
        assert!(answer.why.unwrap().is_session_ended(), "{wire:?}");

        let site = zipping(StatusCode::UNAUTHORIZED).await;
        site.refuse();
        let session = site.session().await;
        let above = ServiceBuilder::new()
            .layer(SetSensitiveHeadersLayer::new([AUTHORIZATION]))
            .layer(PropagateHeaderLayer::new(name))
            .layer(DecompressionLayer::new())
            .layer(by_codes(&site, &session));
        let above = Client::new(above.service(wire.http()));
        let answer = within(above.send(site.get("/"))).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wire:?}");
        assert_eq!(answer.body, EXPIRED, "{wire:?}");
        assert!(answer.why.unwrap().is_session_ended(), "{wire:?}");
    }
}

// shows B110: both sends carry it, and the answer does, whichever stands above.
#[tokio::test]
async fn a_header_that_is_propagated_is_on_both_sends_and_on_the_answer() {
    let name = HeaderName::from_static("x-request-id");
    for wire in WIRES {
        let site = Site::start().await;
        let session = site.session().await;
        let below = ServiceBuilder::new()
            .layer(layer(&site, &session))
            .layer(PropagateHeaderLayer::new(name.clone()))
            .service(wire.http());
        let above = ServiceBuilder::new()
            .layer(PropagateHeaderLayer::new(name.clone()))
            .layer(layer(&site, &session))
            .service(wire.http());
        let request = |id| {
            let mut request = site.get("/");
            let id = HeaderValue::from_static(id);
            request.headers_mut().insert(&name, id);
            request
        };
        let answer = within(below.oneshot(request("below"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{wire:?}");
        assert_eq!(answer.headers()[&name], "below", "{wire:?}");
        site.expire();
        let answer = within(above.oneshot(request("above"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{wire:?}");
        assert_eq!(answer.headers()[&name], "above", "{wire:?}");
        let seen = site.seen();
        let ids: Vec<_> = seen.iter().map(|seen| &seen.headers[&name]).collect();
        assert_eq!(ids, ["below", "below", "above", "above"], "{wire:?}");
    }
}

// shows P12: the layer's own token is marked by the layer; the caller's own header is not its business.
#[tokio::test]
async fn the_token_is_sensitive_by_itself_and_a_header_of_the_callers_own_is_not() {
    let site = Site::start().await;
    let session = site.session().await;
    for (marks, expected) in [(false, [true, true, false]), (true, [true, true, true])] {
        site.expire();
        let sensitive = Arc::new(Mutex::new(Vec::new()));
        let probe = sensitive.clone();
        let names = marks.then_some(AUTHORIZATION);
        let client = ServiceBuilder::new()
            .layer(SetSensitiveHeadersLayer::new(names))
            .layer(layer(&site, &session))
            .map_request(move |request: Request<_>| {
                let header: &HeaderValue = &request.headers()[AUTHORIZATION];
                probe.lock().unwrap().push(header.is_sensitive());
                request
            });
        let client = Client::new(client.service(HTTP1.http()));
        let answer = within(client.send(site.get("/"))).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let mut own = site.get("/");
        let value = HeaderValue::from_static("Basic bWU6bXlzZWxm");
        own.headers_mut().insert(AUTHORIZATION, value);
        let answer = within(client.send(own)).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.body, REJECTION);
        assert_eq!(*sensitive.lock().unwrap(), expected);
    }
}

// shows B11: above, it is a header of the caller's own; below, the session's token does not arrive.
#[tokio::test]
async fn a_layer_that_sets_the_same_header_goes_nowhere_in_the_stack() {
    let site = Site::start().await;
    let session = site.session().await;
    let above = ServiceBuilder::new()
        .layer(AddAuthorizationLayer::bearer("fixed"))
        .layer(layer(&site, &session));
    let above = Client::new(above.service(HTTP1.http()));
    let answer = within(above.send(site.get("/"))).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.why.is_none());
    let counts = site.counts();
    assert_eq!((counts.requests, counts.reissues), (1, 0));
    let below = ServiceBuilder::new()
        .layer(layer(&site, &session))
        .layer(AddAuthorizationLayer::bearer("fixed"));
    let below = Client::new(below.service(HTTP1.http()));
    let answer = within(below.send(site.get("/"))).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.why.unwrap().is_not_replayed(), "sent twice, in vain");
    let counts = site.counts();
    assert_eq!((counts.requests, counts.reissues), (3, 1));
    assert!(site.seen().iter().all(|seen| seen.token == "fixed"));
}

// The server never says `100 Continue`, and reads each body whole before it answers.
#[tokio::test]
async fn hyper_does_not_wait_to_be_told_to_continue() {
    let acts = ["401 Unauthorized", "200 OK"]
        .map(|status| Act::say(answer(status, "text/plain", "words"), Then::Keep));
    let raw = Raw::scripted(acts).await;
    let base = format!("http://{}", raw.address);
    let issuer = Site::start().await;
    let layer = TokenRefreshLayer::new(&*base, issuer.session().await).unwrap();
    let client = Client::new(layer.layer(HTTP1.http()));
    let request = Request::post(&base).header("expect", "100-continue");
    let request = request.body(Full::from("the body")).unwrap();
    let answer = within(client.send(request)).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let requests = raw.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert!(request.contains("expect: 100-continue"), "{request}");
        assert!(request.ends_with("\r\n\r\nthe body"), "{request}");
    }
}
