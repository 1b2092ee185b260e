//! Shows, over real connections, which answers of a server make the layer refresh and send again, and
//! which it hands on: what the *server* counted decides.

#[path = "support/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::header::WWW_AUTHENTICATE;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use server::Server;
use server::token;
use tower::Layer;
use tower::ServiceExt;
use tower_token_refresh::Classify;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::Verdict;
use tower_token_refresh::classify_fn;
use tower_token_refresh::reissue_fn;

/// How the server answers a request with the old token.
#[derive(Debug, Clone, Default)]
struct Rejection {
    status: StatusCode,
    headers: HeaderMap,
    body: &'static str,
}

impl Rejection {
    fn new(status: StatusCode) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    fn header(mut self, name: impl Into<HeaderName>, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        self.headers.append(name.into(), value);
        self
    }

    fn challenge(self, value: &str) -> Self {
        self.header(WWW_AUTHENTICATE, value)
    }

    fn json(self, body: &'static str) -> Self {
        Self { body, ..self }.header(CONTENT_TYPE, "application/json")
    }

    /// A gRPC call that ends before its first message.
    fn grpc(status: &str) -> Self {
        Self::new(StatusCode::OK)
            .header(CONTENT_TYPE, "application/grpc")
            .header(HeaderName::from_static("grpc-status"), status)
    }
}

fn unauthorized() -> Rejection {
    Rejection::new(StatusCode::UNAUTHORIZED)
}

fn forbidden() -> Rejection {
    Rejection::new(StatusCode::FORBIDDEN)
}

/// A request as the server read it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    token: String,
    body: Bytes,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// Takes the new token, and answers every other as it was told.
async fn answer(
    request: Request<Incoming>,
    log: Log,
    rejection: Rejection,
) -> Response<Full<Bytes>> {
    let token = token(&request);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let is_good = token == "new";
    log.lock().unwrap().push(Seen { token, body });
    if is_good {
        return Response::new("welcome".into());
    }
    let mut response = Response::new(rejection.body.into());
    *response.status_mut() = rejection.status;
    *response.headers_mut() = rejection.headers;
    response
}

/// What became of one POST.
struct Outcome {
    status: StatusCode,
    body: Bytes,
    why: Option<RefreshError>,
    reissues: u64,
    seen: Vec<Seen>,
}

impl Outcome {
    /// Refreshed, sent again whole, and accepted.
    fn is_made_good(&self) -> bool {
        let sent = |token: &str| Seen {
            token: token.to_owned(),
            body: Bytes::from_static(b"the order"),
        };
        self.status == StatusCode::OK
            && self.body == "welcome"
            && self.why.is_none()
            && self.reissues == 1
            && self.seen == [sent("old"), sent("new")]
    }

    /// Sent once, and nobody was asked for a token.
    fn is_handed_on(&self, rejection: &Rejection) -> bool {
        self.status == rejection.status
            && self.body == rejection.body
            && self.why.is_none()
            && self.reissues == 0
            && self.seen.len() == 1
    }
}

async fn outcome<C>(rejection: &Rejection, classifier: C, http2: bool) -> Outcome
where
    C: Classify + Clone + Send + Sync + 'static,
{
    let log = Log::default();
    let (seen, rejection) = (log.clone(), rejection.clone());
    let server =
        Server::start(move |request| answer(request, log.clone(), rejection.clone())).await;
    let reissue = reissue_fn(async |_| TokenSet::new("new").map_err(ReissueError::unknown));
    let session = Session::builder(reissue).build().unwrap();
    let tokens = TokenSet::new("old").unwrap().with_refresh_token("refresh");
    session.login(tokens.unwrap()).await.unwrap();
    let http = Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http::<ReplayBody<Full<Bytes>>>();
    let layer = TokenRefreshLayer::new(&*server.base, session.clone()).unwrap();
    let service = layer.classify(classifier).layer(http);
    let request = Request::post(format!("{}/orders", server.base))
        .body(Full::from("the order"))
        .unwrap();
    let (head, body) = service.oneshot(request).await.unwrap().into_parts();
    Outcome {
        status: head.status,
        body: body.collect().await.unwrap().to_bytes(),
        why: head.extensions.get().cloned(),
        reissues: session.stats().reissues,
        seen: seen.lock().unwrap().clone(),
    }
}

// shows B17, B21, B22, B23, B112
#[tokio::test]
async fn a_token_that_is_called_invalid_is_replaced_and_the_request_sent_again() {
    let invalid = r#"Bearer realm="x", error="invalid_token", error_description="만료""#;
    let rejections = [
        unauthorized(),
        unauthorized().challenge(invalid),
        unauthorized().challenge(r#"Bearer realm="x""#),
        unauthorized().challenge(r#"Basic realm="x""#),
        unauthorized().challenge(r#"Bearer error="unheard_of""#),
        unauthorized().challenge("Negotiate dG9rZW4="),
        forbidden().challenge(invalid),
        Rejection::new(StatusCode::BAD_REQUEST).challenge(invalid),
        forbidden().challenge(&format!(r#"Basic realm="x", {invalid}"#)),
        forbidden()
            .challenge(r#"Basic realm="x""#)
            .challenge(r#"Bearer error="insufficient_scope""#)
            .challenge(r#"dpop error="invalid\_token""#),
    ];
    for rejection in rejections {
        for http2 in [false, true] {
            let outcome = outcome(&rejection, DefaultClassifier, http2).await;
            assert!(outcome.is_made_good(), "{rejection:?}");
        }
    }
}

// shows B17, B21, B23
#[tokio::test]
async fn what_a_new_token_would_not_change_is_handed_on() {
    let scope = r#"Bearer error="insufficient_scope", scope="orders:write""#;
    let rejections = [
        forbidden(),
        forbidden().challenge(scope),
        unauthorized().challenge(scope),
        unauthorized().challenge(&format!(r#"Basic realm="x", {scope}, Newauth a=b"#)),
        unauthorized().challenge("Bearer").challenge(scope),
        unauthorized().challenge(r#"Bearer error="invalid_request""#),
        unauthorized().challenge(r#"Bearer error="insufficient_user_authentication""#),
        unauthorized().challenge(r#"DPoP error="use_dpop_nonce""#),
        forbidden().challenge(r#"Digest error="invalid_token""#),
        Rejection::new(StatusCode::OK).challenge(r#"Bearer error="invalid_token""#),
        Rejection::new(StatusCode::BAD_GATEWAY).challenge(r#"Bearer error="invalid_token""#),
    ];
    for rejection in rejections {
        for http2 in [false, true] {
            let outcome = outcome(&rejection, DefaultClassifier, http2).await;
            assert!(outcome.is_handed_on(&rejection), "{rejection:?}");
        }
    }
}

// shows B28: the head alone says it, and that the call was not processed.
#[tokio::test]
async fn a_grpc_call_that_is_unauthenticated_before_its_first_message_is_sent_again() {
    let unauthenticated = Rejection::grpc("16");
    let outcome_of = outcome(&unauthenticated, DefaultClassifier, true).await;
    assert!(outcome_of.is_made_good());
    let denied = Rejection::grpc("7");
    let outcome_of = outcome(&denied, DefaultClassifier, true).await;
    assert!(outcome_of.is_handed_on(&denied), "PERMISSION_DENIED");
    // Whatever its classifier reads, a status before any message says that it was not processed.
    let any_status = classify_fn(|_, headers| match headers.contains_key("grpc-status") {
        true => Verdict::Refresh,
        false => Verdict::Abstain,
    });
    assert!(outcome(&denied, any_status, true).await.is_made_good());
    let done = outcome(&Rejection::grpc("0"), any_status, true).await;
    assert!(
        done.why.unwrap().is_not_replayed(),
        "a success was processed"
    );
    assert_eq!(done.seen.len(), 1);
    // A status in the head, and messages after it: then there was something to process.
    let with_messages = Rejection {
        body: "a message",
        ..Rejection::grpc("16")
    };
    let done = outcome(&with_messages, DefaultClassifier, true).await;
    assert!(done.why.unwrap().is_not_replayed());
    assert_eq!((done.seen.len(), &*done.body), (1, &b"a message"[..]));
    // A header of that name means nothing outside of gRPC.
    let mut other = unauthenticated;
    other.headers.remove(CONTENT_TYPE);
    assert!(
        outcome(&other, DefaultClassifier, true)
            .await
            .is_handed_on(&other)
    );
    let done = outcome(&other, any_status, true).await;
    assert!(done.why.unwrap().is_not_replayed());
    assert_eq!(done.seen.len(), 1);
}

// shows B19, B21, B30
#[tokio::test]
async fn error_codes_decide_where_they_know_the_code_and_the_default_where_not() {
    let codes = || ErrorCodes::json("/code").expired("T-002").pass("T-005");
    let (known, fine, unknown) = (
        r#"{"code":"T-002"}"#,
        r#"{"code":"T-005"}"#,
        r#"{"code":"T-009"}"#,
    );
    let invalid = r#"Bearer error="invalid_token""#;
    let scope = r#"Bearer error="insufficient_scope""#;
    let made_good = [
        forbidden().challenge(scope).json(known),
        forbidden().challenge(invalid).json(unknown),
        unauthorized().json(unknown),
        unauthorized(),
        Rejection::grpc("16"),
    ];
    let handed_on = [
        unauthorized().challenge(invalid).json(fine),
        unauthorized().challenge(scope).json(unknown),
        forbidden().json(unknown),
    ];
    for http2 in [false, true] {
        for rejection in &made_good {
            let outcome = outcome(rejection, codes().or(DefaultClassifier), http2).await;
            assert!(outcome.is_made_good(), "{rejection:?}");
        }
        for rejection in &handed_on {
            let outcome = outcome(rejection, codes().or(DefaultClassifier), http2).await;
            assert!(outcome.is_handed_on(rejection), "{rejection:?}");
        }
    }
}
