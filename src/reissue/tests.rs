//! Both reissuers against a scripted issuer: what they send, and what they make of each answer.

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
    let sent = Sent::default();
    let log = Arc::clone(&sent);
    let client = service_fn(move |request| {
        log.lock().unwrap().push(request);
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

// ===== what is sent =====

#[tokio::test]
async fn the_refresh_token_goes_as_a_bearer_beside_the_identity() {
    let (client, sent) = issuer(reply(200, good()));
    let reissuer = JsonReissue::post(ADDRESS, client).header("X-Api-Key", "secret");
    reissued(reissuer).await.unwrap();
    {
        let sent = sent.lock().unwrap();
        let [request] = sent.as_slice() else {
            panic!("sent {} requests", sent.len());
        };
        assert_eq!(request.method(), http::Method::POST);
        assert_eq!(request.uri(), ADDRESS);
        let headers = request.headers();
        assert_eq!(headers[header::AUTHORIZATION], "Bearer CANARY-refresh");
        assert!(headers[header::AUTHORIZATION].is_sensitive());
        assert!(headers["x-api-key"].is_sensitive());
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(headers[header::ACCEPT], "application/json");
        assert_eq!(headers[header::ACCEPT_ENCODING], "identity");
        assert!(!headers.contains_key(header::COOKIE));
        // shows P15
        assert!(request.extensions().get::<WithoutToken>().is_some());
    }
    let body: Value = serde_json::from_slice(&body_of(&sent).await).unwrap();
    assert_eq!(body, json!({"id": "7", "email": "user@example.com"}));
}

#[tokio::test]
async fn the_refresh_token_can_go_in_the_body_instead() {
    let (client, sent) = issuer(reply(200, good()));
    let reissuer = JsonReissue::post(ADDRESS, client).refresh_token_in_body("id");
    reissued(reissuer).await.unwrap();
    let has_authorization = |request: &Request<_>| request.headers().contains_key("authorization");
    assert!(!sent.lock().unwrap().iter().any(has_authorization));
    let length = sent.lock().unwrap()[0].headers()[header::CONTENT_LENGTH].clone();
    let body = body_of(&sent).await;
    assert_eq!(length, body.len().to_string());
    let text = r#"{"email":"user@example.com","id":"CANARY-refresh"}"#;
    assert_eq!(
        body, text,
        "and takes the place of an identity of that name"
    );
}

#[tokio::test]
async fn without_an_identity_the_body_is_an_empty_object() {
    let (client, sent) = issuer(reply(200, good()));
    let reissuer = JsonReissue::post(ADDRESS, client);
    let tokens = TokenSet::new("a").unwrap().with_refresh_token("r").unwrap();
    let request = ReissueRequest::new(Some(tokens));
    Reissue::reissue(&reissuer, request).await.unwrap();
    assert_eq!(body_of(&sent).await, "{}");
}

#[tokio::test]
async fn a_cookie_reissue_sends_a_cookie_and_nothing_else() {
    let (client, sent) = issuer(reply(200, good()));
    reissued(CookieReissue::post(ADDRESS, client).cookie("rt"))
        .await
        .unwrap();
    {
        let sent = sent.lock().unwrap();
        let headers = sent[0].headers();
        assert_eq!(headers[header::COOKIE], "rt=CANARY-refresh");
        assert!(headers[header::COOKIE].is_sensitive());
        assert_eq!(headers[header::CONTENT_LENGTH], "0");
        assert!(!headers.contains_key(header::AUTHORIZATION));
        assert!(!headers.contains_key(header::CONTENT_TYPE));
        assert!(sent[0].extensions().get::<WithoutToken>().is_some());
    }
    assert_eq!(body_of(&sent).await, "");
}

#[tokio::test]
async fn a_refresh_token_that_cannot_stand_in_a_cookie_is_not_sent() {
    let (client, sent) = issuer(reply(200, good()));
    let tokens = TokenSet::new("a")
        .unwrap()
        .with_refresh_token("CANARY;x")
        .unwrap();
    let reissuer = CookieReissue::post(ADDRESS, client);
    let request = ReissueRequest::new(Some(tokens));
    let error = Reissue::reissue(&reissuer, request).await.unwrap_err();
    assert!(error.is_misconfigured());
    assert!(!format!("{error:?}").contains("CANARY"));
    assert!(sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_refresh_token_nothing_is_sent() {
    let (client, sent) = issuer(reply(200, good()));
    let json = JsonReissue::post(ADDRESS, client.clone());
    let cookie = CookieReissue::post(ADDRESS, client);
    let request = ReissueRequest::new(None);
    let outcome = Reissue::reissue(&json, request.clone()).await;
    assert!(outcome.unwrap_err().is_misconfigured());
    let outcome = Reissue::reissue(&cookie, request).await;
    assert!(outcome.unwrap_err().is_misconfigured());
    assert!(sent.lock().unwrap().is_empty());
}

// ===== successes =====

#[tokio::test]
async fn the_tokens_of_a_json_answer_are_read() {
    let tokens = reissued(json_reissue(reply(200, good()))).await.unwrap();
    assert_eq!(tokens.access_token().expose(), "CANARY-a2");
    assert_eq!(tokens.refresh_token().unwrap().expose(), "CANARY-r2");
    let left = tokens
        .expires_at()
        .unwrap()
        .duration_since(SystemTime::now());
    assert!(left.unwrap() > Duration::from_secs(890));
}

#[tokio::test]
async fn an_absent_null_or_empty_refresh_token_keeps_the_old_one() {
    for refresh_token in [
        json!({}),
        json!({"refreshToken": null}),
        json!({"refreshToken": ""}),
    ] {
        let mut answer = refresh_token;
        answer["accessToken"] = json!("a2");
        let tokens = reissued(json_reissue(reply(200, json_text(answer))))
            .await
            .unwrap();
        assert!(tokens.refresh_token().is_none());
    }
}

#[tokio::test]
async fn an_answer_of_another_shape_is_described_by_pointers() {
    let answer = json!({"data": [{"token": "a2", "more": {"rt": "r2"}}], "at": 4_000_000_000_u64});
    let reissuer = json_reissue(reply(201, json_text(answer)))
        .access_token_at("/data/0/token")
        .refresh_token_at("/data/0/more/rt")
        .expiry_at("/at");
    let tokens = reissued(reissuer).await.unwrap();
    assert_eq!(tokens.access_token().expose(), "a2");
    assert_eq!(tokens.refresh_token().unwrap().expose(), "r2");
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    assert_eq!(tokens.expires_at(), Some(at));
}

#[tokio::test]
async fn an_expiry_that_cannot_be_read_is_ignored() {
    for expiry in [json!("soon"), json!(true), json!([]), json!(-1)] {
        let answer =
            json!({"accessToken": "a2", "expiresIn": expiry, "accessTokenExpiresAt": expiry});
        let tokens = reissued(json_reissue(reply(200, json_text(answer))))
            .await
            .unwrap();
        assert_eq!(tokens.expires_at(), None);
    }
}

#[tokio::test]
async fn a_cookie_rotates_the_refresh_token_and_the_body_does_not() {
    let answer = reply(200, good()).with(header::SET_COOKIE, "refreshToken=CANARY-r3; Path=/");
    let tokens = reissued(cookie_reissue(answer)).await.unwrap();
    assert_eq!(tokens.access_token().expose(), "CANARY-a2");
    assert_eq!(tokens.refresh_token().unwrap().expose(), "CANARY-r3");
    let tokens = reissued(cookie_reissue(reply(200, good()))).await.unwrap();
    assert!(tokens.refresh_token().is_none());
}

#[tokio::test]
async fn the_media_type_of_a_success_does_not_matter() {
    let answer = reply(200, good()).with(header::CONTENT_TYPE, "text/plain");
    assert!(reissued(json_reissue(answer)).await.is_ok());
}

// ===== successes that cannot be read =====

/// A JSON answer that is padded to a number of bytes.
fn padded(length: usize) -> String {
    let mut text = good();
    text.push_str(&" ".repeat(length - text.len()));
    text
}

#[tokio::test]
async fn a_success_that_cannot_be_read_is_of_unknown_outcome() {
    let deep = format!(r#"{{"accessToken":"CANARY","x":{}"#, "[".repeat(10_000));
    let html = "<html>CANARY</html>";
    let defective = [
        reply(200, html).with(header::CONTENT_TYPE, "text/html"),
        reply(200, ""),
        reply(204, ""),
        reply(200, " \n"),
        reply(200, r#"{"accessToken":"CANARY"#),
        reply(200, r#"{"accessToken":"CANARY"} CANARY"#),
        reply(200, "{\"accessToken\":\"CAN\nARY\"}"),
        reply(200, b"{\"accessToken\":\"CANARY\xff\"}".as_slice()),
        reply(200, deep),
        reply(200, good()).breaking_off(),
        reply(200, "").breaking_off(),
        reply(200, padded(2 << 20)),
        reply(200, good()).with(header::CONTENT_LENGTH, "1048577"),
        reply(200, good()).with(header::CONTENT_ENCODING, "gzip"),
        reply(200, "[]"),
        reply(200, r#""CANARY""#),
        reply(200, r#"{"refreshToken":null}"#),
        reply(200, r#"{"accessToken":null}"#),
        reply(200, r#"{"accessToken":7}"#),
        reply(200, r#"{"accessToken":""}"#),
        reply(200, r#"{"accessToken":"CANARY\r\nx: y"}"#),
        reply(200, r#"{"accessToken":"CANARY\u0000"}"#),
        reply(200, r#"{"accessToken":"CANARY","accessToken":"CANARY"}"#),
        reply(
            200,
            r#"{"accessToken":"CANARY","x":[{"CANARY":1,"CANARY":1}]}"#,
        ),
    ];
    for reply in defective {
        let shown = format!("{:?} {:.60?}", reply.headers, reply.body.chunks);
        let error = failure(reply).await;
        assert!(error.is_unknown(), "{shown}: {error:?}");
        assert!(error.rotated.is_none(), "{shown}");
    }
}

#[tokio::test]
async fn an_answer_of_just_the_limit_is_read() {
    assert!(
        reissued(json_reissue(reply(200, padded(1 << 20))))
            .await
            .is_ok()
    );
    assert!(
        failure(reply(200, padded((1 << 20) + 1)))
            .await
            .is_unknown()
    );
}

// shows S7
#[tokio::test]
async fn an_endless_answer_is_read_to_the_limit_only() {
    let endless = reply(200, vec![b' '; 4096]).endless();
    let read = Arc::clone(&endless.body.read);
    assert!(
        reissued(json_reissue(endless))
            .await
            .unwrap_err()
            .is_unknown()
    );
    let read = *read.lock().unwrap();
    assert!(read <= (1 << 20) + 4096, "{read}");
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_not_read_at_all() {
    let large = reply(200, good()).with(header::CONTENT_LENGTH, "1048577");
    let read = Arc::clone(&large.body.read);
    assert!(
        reissued(json_reissue(large))
            .await
            .unwrap_err()
            .is_unknown()
    );
    assert_eq!(*read.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_new_refresh_token_in_a_defective_success_is_kept() {
    let answers = [
        r#"{"refreshToken":"CANARY-r2"}"#,
        r#"{"refreshToken":"CANARY-r2","accessToken":7}"#,
        r#"{"refreshToken":"CANARY-r2","accessToken":"a b"}"#,
        r#"{"refreshToken":"CANARY-r2","accessToken":"a","accessToken":"b"}"#,
        r#"{"refreshToken":"CANARY-r2","accessToken":"a","x":{"y":1,"y":2}}"#,
    ];
    for answer in answers {
        let error = reissued(json_reissue(reply(200, answer)))
            .await
            .unwrap_err();
        assert!(error.is_unknown(), "{answer}");
        let rotated = error.rotated.as_ref().map(RefreshToken::expose);
        assert_eq!(rotated, Some("CANARY-r2"), "{answer}");
    }
}

#[tokio::test]
async fn a_new_refresh_token_in_a_cookie_survives_every_body() {
    let html = "<html>CANARY</html>";
    for body in [
        reply(200, html),
        reply(200, ""),
        reply(200, good()).breaking_off(),
    ] {
        let body = body.with(header::SET_COOKIE, "refreshToken=CANARY-r2");
        let error = reissued(cookie_reissue(body)).await.unwrap_err();
        assert!(error.is_unknown());
        assert_eq!(error.rotated.unwrap().expose(), "CANARY-r2");
    }
}

#[tokio::test]
async fn a_new_refresh_token_that_is_none_makes_the_outcome_unknown() {
    let answers = [
        r#"{"accessToken":"a2","refreshToken":"CANARY x"}"#,
        r#"{"accessToken":"a2","refreshToken":["CANARY"]}"#,
        r#"{"accessToken":"a2","refreshToken":"CANARY","refreshToken":"CANARY-r2"}"#,
    ];
    for answer in answers {
        let error = reissued(json_reissue(reply(200, answer)))
            .await
            .unwrap_err();
        assert!(error.is_unknown(), "{answer}");
        assert!(error.rotated.is_none(), "{answer}");
    }
    let cookie = reply(200, good()).with(header::SET_COOKIE, "refreshToken=CANARY x");
    assert!(
        reissued(cookie_reissue(cookie))
            .await
            .unwrap_err()
            .is_unknown()
    );
}

// ===== failures =====

// shows B55, B56, P6
#[tokio::test]
async fn a_refusal_is_known_by_its_code_whatever_the_status() {
    for status in [400, 401, 403, 404, 408, 429, 500, 503, 302] {
        for code in [json!("T-003"), json!(40103)] {
            let body = json_text(json!({"code": code, "message": "CANARY"}));
            let error = failure(reply(status, body.clone())).await;
            assert!(error.is_refused(), "{status} {body}: {error:?}");
        }
    }
    let error = failure(reply(401, r#"{"code":"T-003"}"#)).await;
    assert!(
        format!("{error:?}").contains("T-003"),
        "the user's own word is named"
    );
}

#[tokio::test]
async fn without_a_named_code_the_status_decides_and_nothing_is_refused() {
    use ReissueErrorKind::*;
    let kind = |status| match status {
        408 => Unknown,
        429 | 503 => Transient,
        300..500 => Misconfigured,
        _ => Unknown,
    };
    let bodies = [
        r#"{"code":"CANARY"}"#,
        "<html>T-003</html>",
        "",
        r#"{"code":null}"#,
    ];
    for status in (300..600).chain([101]) {
        for body in bodies {
            let error = failure(reply(status, body)).await;
            assert_eq!(error.kind, kind(status), "{status} {body}");
        }
    }
}

#[tokio::test]
async fn a_code_is_not_read_out_of_what_is_not_certain() {
    let refusal = || reply(401, r#"{"code":"T-003"}"#);
    let uncertain = [
        refusal().with(header::CONTENT_TYPE, "text/html"),
        refusal().with(header::CONTENT_ENCODING, "gzip"),
        refusal().with(header::CONTENT_LENGTH, "1048577"),
        refusal().breaking_off(),
        reply(401, r#"{"code":"CANARY","code":"T-003"}"#),
        reply(401, r#"{"x":{"y":1,"y":1},"code":"T-003"}"#),
        reply(
            401,
            format!("{{\"code\":\"T-003\"}}{}", " ".repeat(1 << 20)),
        ),
    ];
    for reply in uncertain {
        let shown = format!("{:?} {:.60?}", reply.headers, reply.body.chunks);
        assert!(failure(reply).await.is_misconfigured(), "{shown}");
    }
}

#[tokio::test]
async fn an_error_without_a_media_type_may_hold_a_code() {
    let mut refusal = reply(401, r#"{"code":"T-003"}"#);
    refusal.headers.clear();
    assert!(failure(refusal).await.is_refused());
}

#[tokio::test]
async fn a_status_can_be_named_a_refusal() {
    let reissuer = json_reissue(reply(401, "")).refused_status(StatusCode::UNAUTHORIZED);
    assert!(reissued(reissuer).await.unwrap_err().is_refused());
    let reissuer = cookie_reissue(reply(403, "")).refused_status(StatusCode::UNAUTHORIZED);
    assert!(reissued(reissuer).await.unwrap_err().is_misconfigured());
}

#[tokio::test]
async fn the_place_of_the_code_can_be_set() {
    let refusal = reply(400, r#"{"error":{"code":"T-003"},"code":"x"}"#);
    let reissuer = json_reissue(refusal).code_at("/error/code");
    assert!(reissued(reissuer).await.unwrap_err().is_refused());
}

#[tokio::test]
async fn a_client_error_without_a_known_code_says_what_to_name() {
    let error = failure(reply(401, "CANARY")).await;
    let message = chain(&error);
    assert!(
        message.contains("401") && message.contains("refused(…)"),
        "{message}"
    );
}

#[tokio::test]
async fn bodies_of_failures_are_read_only_where_a_code_was_named() {
    let endless = reply(500, vec![b'x'; 4096]).endless();
    let read = Arc::clone(&endless.body.read);
    let reissuer = JsonReissue::post(ADDRESS, issuer(endless).0);
    assert!(reissued(reissuer).await.unwrap_err().is_unknown());
    assert_eq!(*read.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_busy_issuer_says_when_to_come_back() {
    for status in [429, 503] {
        let busy = |text| failure(reply(status, "").with(header::RETRY_AFTER, text));
        assert_eq!(busy("7").await.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(busy("soon").await.retry_after, None);
        assert_eq!(
            busy("Sun, 06 Nov 1994 08:49:37 GMT").await.retry_after,
            None
        );
        let date = busy("Fri, 01 Jan 2100 00:00:00 GMT").await.retry_after;
        assert!(date.unwrap() > Duration::from_secs(86_400));
    }
    let down = failure(reply(500, "").with(header::RETRY_AFTER, "7")).await;
    assert_eq!(down.retry_after, None);
}

// shows S10
#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = "https://evil.example/CANARY";
        let (client, sent) = issuer(reply(status, "").with(header::LOCATION, elsewhere));
        let error = reissued(JsonReissue::post(ADDRESS, client))
            .await
            .unwrap_err();
        assert!(error.is_misconfigured(), "{status}");
        assert!(chain(&error).contains("redirects are not followed"));
        assert_eq!(sent.lock().unwrap().len(), 1, "{status}");
    }
}

// ===== no answer =====

fn failing(kind: io::ErrorKind) -> JsonReissue {
    let client = service_fn(move |_: Request<Full<Bytes>>| {
        std::future::ready(Err::<Response<Full<Bytes>>, _>(io::Error::from(kind)))
    });
    JsonReissue::post(ADDRESS, client)
}

#[tokio::test]
async fn only_a_refused_connection_is_certain_not_to_have_been_sent() {
    let error = reissued(failing(io::ErrorKind::ConnectionRefused))
        .await
        .unwrap_err();
    assert!(error.is_transient());
    for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
        assert!(
            reissued(failing(kind)).await.unwrap_err().is_unknown(),
            "{kind}"
        );
    }
}

/// Never becomes ready.
#[derive(Clone)]
struct Closed;

impl Service<Request<Full<Bytes>>> for Closed {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = std::future::Pending<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("closed".into()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        panic!("called without being ready");
    }
}

#[tokio::test]
async fn a_client_that_does_not_become_ready_has_sent_nothing() {
    let error = reissued(JsonReissue::post(ADDRESS, Closed))
        .await
        .unwrap_err();
    assert!(error.is_transient());
}

// ===== configuration =====

// shows B141
#[test]
fn what_cannot_work_is_told_when_the_session_is_built() {
    let json = || json_reissue(reply(200, ""));
    let cookie = || cookie_reissue(reply(200, ""));
    let at = |uri: &str| JsonReissue::post(uri, issuer(reply(200, "")).0);
    let wrong: Vec<Box<dyn Fn() -> Result<(), ConfigError>>> = vec![
        Box::new(|| at("not a uri CANARY").check()),
        Box::new(|| at("http://issuer.example/CANARY").check()),
        Box::new(|| json().access_token_at("accessToken").check()),
        Box::new(|| json().refresh_token_at("refreshToken").check()),
        Box::new(|| json().lifetime_at("x").check()),
        Box::new(|| json().expiry_at("x").check()),
        Box::new(|| cookie().code_at("code").check()),
        Box::new(|| json().refused_status(StatusCode::OK).check()),
        Box::new(|| {
            cookie()
                .refused_status(StatusCode::SERVICE_UNAVAILABLE)
                .check()
        }),
        Box::new(|| json().header("x y", "CANARY").header("a", "b").check()),
        Box::new(|| json().header("x", "CANARY\n").check()),
        Box::new(|| json().header("Authorization", "Basic CANARY").check()),
        Box::new(|| json().header("Content-Type", "text/plain").check()),
        Box::new(|| cookie().header("cookie", "a=CANARY").check()),
        Box::new(|| cookie().cookie("a b").check()),
    ];
    for (row, check) in wrong.iter().enumerate() {
        let error = check().expect_err(&format!("row {row}"));
        assert!(
            !format!("{error} {error:?}").contains("CANARY"),
            "row {row}: {error}"
        );
    }
    assert_eq!(json().check(), Ok(()));
    assert_eq!(cookie().check(), Ok(()));
    assert_eq!(
        at("http://issuer.example/").allow_plain_http().check(),
        Ok(())
    );
    let basic = json().refresh_token_in_body("refreshToken");
    assert_eq!(basic.header("authorization", "Basic x").check(), Ok(()));
    let cookie = cookie().header("authorization", "Basic x");
    assert_eq!(cookie.header("accept", "text/json").check(), Ok(()));
}

#[tokio::test]
async fn a_wrong_configuration_sends_nothing() {
    let (client, sent) = issuer(reply(200, good()));
    let reissuer = JsonReissue::post("http://issuer.example/", client.clone());
    assert!(reissued(reissuer).await.unwrap_err().is_misconfigured());
    let reissuer = CookieReissue::post(ADDRESS, client).code_at("code");
    assert!(reissued(reissuer).await.unwrap_err().is_misconfigured());
    assert!(sent.lock().unwrap().is_empty());
}

#[test]
fn debug_shows_nothing_of_the_address_or_the_headers() {
    let reissuer = json_reissue(reply(200, "")).header("x-key", "CANARY");
    assert_eq!(format!("{reissuer:?}"), "JsonReissue { .. }");
    let reissuer = cookie_reissue(reply(200, "")).header("x-key", "CANARY");
    assert_eq!(format!("{reissuer:?}"), "CookieReissue { .. }");
}

// ===== real clients =====

/// Any body that wraps another, as the layer's own does.
struct Wrapped(Full<Bytes>);

impl From<Bytes> for Wrapped {
    fn from(bytes: Bytes) -> Self {
        Self(bytes.into())
    }
}

impl Body for Wrapped {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }
}

fn hyper<B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static>()
-> Client<HttpConnector, B> {
    Client::builder(TokioExecutor::new()).build_http()
}

#[test]
fn the_bodies_of_a_real_client_are_inferred() {
    let plain: Client<HttpConnector, Full<Bytes>> = hyper();
    let wrapped: Client<HttpConnector, Wrapped> = hyper();
    assert!(JsonReissue::post(ADDRESS, plain.clone()).check().is_ok());
    assert!(
        JsonReissue::post(String::from(ADDRESS), wrapped.clone())
            .check()
            .is_ok()
    );
    assert!(CookieReissue::post(ADDRESS, plain).check().is_ok());
    assert!(CookieReissue::post(ADDRESS, wrapped).check().is_ok());
}

#[test]
fn a_client_that_is_not_sync_will_do() {
    let not_sync = std::cell::Cell::new(0);
    let client = service_fn(move |_: Request<Full<Bytes>>| {
        not_sync.set(not_sync.get() + 1);
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    });
    fn is_reissue(reissuer: impl Reissue) -> bool {
        Reissue::check(&reissuer).is_ok()
    }
    assert!(is_reissue(JsonReissue::post(ADDRESS, client)));
}

/// Answers one connection with these bytes, whatever it is asked, and closes it.
async fn server(answer: &'static str) -> String {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn a_real_client_reissues() {
    let uri = server("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"accessToken\":\"a2\"}").await;
    let tokens = reissued(JsonReissue::post(uri, hyper::<Wrapped>()))
        .await
        .unwrap();
    assert_eq!(tokens.access_token().expose(), "a2");
}

#[tokio::test]
async fn an_answer_cut_off_on_the_wire_is_of_unknown_outcome() {
    let uri = server("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"accessToken\":\"a2\"}").await;
    let outcome = reissued(CookieReissue::post(uri, hyper::<Full<Bytes>>())).await;
    assert!(outcome.unwrap_err().is_unknown());
    let closed = server("").await;
    let outcome = reissued(CookieReissue::post(closed, hyper::<Full<Bytes>>())).await;
    assert!(outcome.unwrap_err().is_unknown());
}

#[tokio::test]
async fn a_connection_refused_to_a_real_client_is_transient() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let outcome = reissued(JsonReissue::post(uri, hyper::<Full<Bytes>>())).await;
    assert!(outcome.unwrap_err().is_transient());
}
