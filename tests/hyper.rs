//! Shows the whole over real connections: a hyper client, the reference back end, and servers that
//! answer badly.

#[path = "../examples/backend/server/mod.rs"]
mod backend;
#[path = "support/raw.rs"]
mod raw;

use std::time::Duration;

use anyhow::Result;
use backend::Backend;
use backend::Config;
use backend::ReissueMode;
use backend::User;
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use raw::Raw;
use raw::answer;
use serde_json::Value;
use serde_json::json;
use tower::Layer;
use tower::Service;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower_token_refresh::BoxError;
use tower_token_refresh::CookieReissue;
use tower_token_refresh::EndReason;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ResponseBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefresh;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;

type Http = Client<HttpConnector, ReplayBody<Full<Bytes>>>;
type Layered = TokenRefresh<Http, Session, ErrorCodes>;
type Answer = Response<ResponseBody<hyper::body::Incoming>>;

fn http(http2: bool) -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

fn layered(base: &str, session: &Session, http: Http) -> Layered {
    let codes = ErrorCodes::json("/code").expired("T-002").ended("T-003");
    let layer = TokenRefreshLayer::new(base, session.clone()).unwrap();
    ServiceBuilder::new()
        .layer(layer.classify(codes))
        .service(http)
}

async fn log_in(http: &Http, base: &str, user: &User) -> Result<TokenSet> {
    let body = json!({ "email": user.email, "password": user.password }).to_string();
    let request = Request::post(format!("{base}/member/login"))
        .header("content-type", "application/json")
        .body(Bytes::from(body).into())?;
    let body = http
        .request(request)
        .await?
        .into_body()
        .collect()
        .await?
        .to_bytes();
    let answer: Value = serde_json::from_slice(&body)?;
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    Ok(TokenSet::new(text("accessToken"))?
        .with_refresh_token(text("refreshToken"))?
        .with_identity("id", text("id"))
        .with_identity("email", text("email")))
}

async fn get(client: &Layered, url: String) -> Result<Answer, BoxError> {
    let request = Request::get(url).body(Full::default())?;
    client.clone().ready().await?.call(request).await
}

async fn body(answer: Answer) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

fn why(answer: &Answer) -> &RefreshError {
    answer.extensions().get().expect("a reason")
}

// shows B31, B55, P1, over HTTP/1 and HTTP/2, with each style of reissue, rotating.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_expired_requests_costs_one_reissue() -> Result<()> {
    for http2 in [false, true] {
        for cookie in [false, true] {
            let backend = Backend::start(Config {
                rotate: true,
                ..Config::default()
            })
            .await?;
            backend.set_access_ttl(Duration::from_secs(60));
            let (base, http) = (backend.base(), http(http2));
            let builder = match cookie {
                true => {
                    let url = format!("{base}/v1/api/auth/reissue");
                    Session::builder(CookieReissue::post(url, http.clone()).refused("T-003"))
                }
                false => {
                    let url = format!("{base}/member/token/refresh");
                    Session::builder(JsonReissue::post(url, http.clone()).refused("T-003"))
                }
            };
            let session = builder.build()?;
            session
                .login(log_in(&http, &base, backend.user()).await?)
                .await?;
            let client = layered(&base, &session, http);
            for round in 1..=3 {
                backend.expire_access_tokens();
                let urls = (0..50).map(|n| format!("{base}/items/{n}"));
                for answer in join_all(urls.map(|url| get(&client, url))).await {
                    assert_eq!(answer.unwrap().status(), StatusCode::OK);
                }
                let stats = backend.stats();
                assert_eq!(
                    (stats.reissues, stats.reuse_detected),
                    (round, 0),
                    "http2 {http2}, cookie {cookie}"
                );
            }
        }
    }
    Ok(())
}

// shows P6, P7 with the real codes.
#[tokio::test]
async fn a_refusal_by_the_issuer_ends_the_session_and_the_servers_own_answer_is_returned()
-> Result<()> {
    let backend = Backend::start(Config {
        reissue_mode: ReissueMode::Fail,
        ..Config::default()
    })
    .await?;
    let (base, http) = (backend.base(), http(false));
    let url = format!("{base}/member/token/refresh");
    let session =
        Session::builder(JsonReissue::post(url, http.clone()).refused("T-003")).build()?;
    session
        .login(log_in(&http, &base, backend.user()).await?)
        .await?;
    let client = layered(&base, &session, http);
    backend.expire_access_tokens();
    let answer = get(&client, format!("{base}/member/me")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(why(&answer).end_reason(), Some(EndReason::Refused));
    assert!(String::from_utf8_lossy(&body(answer).await).contains("T-002"));
    let bare = get(&client, format!("{base}/member/me")).await.unwrap();
    assert!(why(&bare).is_session_ended());
    assert!(
        String::from_utf8_lossy(&body(bare).await).contains("T-004"),
        "passed on"
    );
    assert_eq!(backend.stats().reissues, 1);
    Ok(())
}

/// A session whose issuer answers with these bytes, and what became of its refresh.
async fn refreshed_by(answer: Vec<u8>, open: bool) -> (Result<(), RefreshError>, Session, Raw) {
    let raw = Raw::start(answer, open).await;
    let reissue = JsonReissue::post(format!("http://{}/reissue", raw.address), http(false));
    let session = Session::builder(reissue.refused("T-003"))
        .reissue_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let tokens = TokenSet::new("old-access")
        .unwrap()
        .with_refresh_token("old-refresh")
        .unwrap();
    session.login(tokens).await.unwrap();
    let outcome = session.refresh().await;
    (outcome, session, raw)
}

// shows the bad input of an issuer, S7, S8: each has its kind, and nothing is lost.
#[tokio::test]
async fn a_bad_answer_of_the_issuer_is_a_clear_failure_and_loses_nothing() {
    let json = "application/json";
    let nested = format!(
        r#"{{"accessToken":{}1{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let large = format!(r#"{{"accessToken":"{}"}}"#, "x".repeat(2 << 20));
    let mut truncated = answer("200 OK", json, r#"{"accessToken":"new-access"}"#);
    truncated.truncate(truncated.len() - 5);
    let cases = [
        (
            "HTML",
            answer("200 OK", "text/html", "<html>log in</html>"),
            false,
        ),
        ("empty", answer("200 OK", json, ""), false),
        ("truncated", truncated.clone(), false),
        ("half an answer, and then nothing", truncated, true),
        ("2 MiB", answer("200 OK", json, &large), false),
        (
            "no access token",
            answer("200 OK", json, r#"{"token":"x"}"#),
            false,
        ),
        (
            "a member twice",
            answer("200 OK", json, r#"{"accessToken":"a","accessToken":"b"}"#),
            false,
        ),
        ("nested", answer("200 OK", json, &nested), false),
        (
            "a line break",
            answer("200 OK", json, r#"{"accessToken":"a\r\nb"}"#),
            false,
        ),
        ("nothing at all", Vec::new(), false),
        ("no HTTP", b"hello\r\n\r\n".to_vec(), false),
        ("500", answer("500 Oops", json, "{}"), false),
    ];
    for (name, bytes, open) in cases {
        let (outcome, session, raw) = refreshed_by(bytes, open).await;
        let error = outcome.unwrap_err();
        assert!(error.is_outcome_unknown(), "{name}: {error:?}");
        assert!(session.status().is_logged_in(), "{name}");
        assert_eq!(
            session.token().await.unwrap().expose(),
            "old-access",
            "{name}"
        );
        assert_eq!(raw.requests().len(), 1, "{name}");
        let told = format!("{error} {error:?}");
        assert!(
            !told.contains("old-") && !told.contains("new-access"),
            "{name}: {told}"
        );
    }
}

// shows B87, S10: neither a redirect nor a wrong address ends a session.
#[tokio::test]
async fn a_redirect_or_a_wrong_address_is_a_mistake_in_the_configuration() {
    let redirect = b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n";
    for bytes in [
        redirect.to_vec(),
        answer("404 Not Found", "text/html", "no"),
    ] {
        let (outcome, session, _raw) = refreshed_by(bytes, false).await;
        assert!(outcome.unwrap_err().is_misconfigured());
        assert!(session.status().is_logged_in());
    }
}

#[tokio::test]
async fn the_same_access_token_from_the_issuer_is_a_failure_with_a_name() {
    let body = r#"{"accessToken":"old-access"}"#;
    let (outcome, ..) = refreshed_by(answer("200 OK", "application/json", body), false).await;
    assert!(outcome.unwrap_err().is_same_token());
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_was_not_asked() {
    let (_, session, raw) = refreshed_by(answer("503 Busy", "text/plain", "later"), false).await;
    assert_eq!(session.stats().failures.transient, 1);
    drop(raw);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let reissue = JsonReissue::post(format!("http://{closed}/"), http(false));
    let session = Session::builder(reissue).build().unwrap();
    session
        .login(TokenSet::new("a").unwrap().with_refresh_token("r").unwrap())
        .await
        .unwrap();
    let error = session.refresh().await.unwrap_err();
    assert!(
        error.is_transient() && !error.is_outcome_unknown(),
        "{error:?}"
    );
}

/// A 401 of these bytes, and what the caller gets of it.
async fn rejected_by(bytes: Vec<u8>, open: bool) -> (Answer, Session, Raw) {
    let raw = Raw::start(bytes, open).await;
    let base = format!("http://{}", raw.address);
    let fresh = tower_token_refresh::reissue_fn(|_| async {
        TokenSet::new("new-access").map_err(tower_token_refresh::ReissueError::unknown)
    });
    let session = Session::builder(fresh).build().unwrap();
    session
        .login(
            TokenSet::new("old")
                .unwrap()
                .with_refresh_token("r")
                .unwrap(),
        )
        .await
        .unwrap();
    let codes = ErrorCodes::json("/code").expired("T-002").in_success();
    let layer = TokenRefreshLayer::new(&*base, session.clone()).unwrap();
    let or_401 = tower_token_refresh::Classify::or(codes, tower_token_refresh::DefaultClassifier);
    let service = layer.classify(or_401).layer(http(false));
    let request = Request::get(&base).body(Full::<Bytes>::default()).unwrap();
    let answer = service.oneshot(request).await.unwrap();
    (answer, session, raw)
}

// shows P10 and the bad input of an API: a rejection that is cut off, dripped, or huge.
#[tokio::test]
async fn a_rejection_that_cannot_be_read_is_handed_on_as_it_came() {
    let mut cut = answer("401 Unauthorized", "text/plain", "the whole truth");
    cut.truncate(cut.len() - 6);
    for open in [false, true] {
        let (answer, session, raw) = rejected_by(cut.clone(), open).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert!(why(&answer).is_not_replayed());
        let mut body = answer.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "the whole", "open {open}");
        assert_eq!(raw.requests().len(), 1);
        drop(raw);
        assert_eq!(
            session.stats().reissues,
            1,
            "for the next request's benefit"
        );
    }
    let huge = "x".repeat(200 * 1024);
    let (answer, ..) =
        rejected_by(raw::answer("401 Unauthorized", "text/plain", &huge), false).await;
    assert!(why(&answer).is_not_replayed());
    assert_eq!(body(answer).await.len(), huge.len(), "whole");
}

// shows B26, B30, S7: a success that is looked at is given back whole, whatever its size.
#[tokio::test]
async fn a_success_that_is_looked_at_is_given_back_whole() {
    for size in [0, 10, 64 * 1024, 300 * 1024] {
        let text = format!(r#"{{"data":"{}"}}"#, "x".repeat(size));
        let (answer, session, _raw) =
            rejected_by(raw::answer("200 OK", "application/json", &text), false).await;
        assert_eq!(body(answer).await, text);
        assert_eq!(session.stats().reissues, 0);
    }
}

// shows B112, S13: a body that the server has read is sent again whole.
#[tokio::test]
async fn a_body_is_echoed_whole_after_the_refresh() -> Result<()> {
    let backend = Backend::start(Config::default()).await?;
    backend.set_access_ttl(Duration::from_secs(60));
    let (base, http) = (backend.base(), http(false));
    let url = format!("{base}/member/token/refresh");
    let session = Session::builder(JsonReissue::post(url, http.clone())).build()?;
    session
        .login(log_in(&http, &base, backend.user()).await?)
        .await?;
    let mut client = layered(&base, &session, http);
    backend.expire_access_tokens();
    let sent = Bytes::from("0123456789".repeat(20_000));
    let request = Request::post(format!("{base}/echo")).body(Full::new(sent.clone()))?;
    let answer = client.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(body(answer).await, sent);
    assert_eq!(session.stats().replays, 1);
    Ok(())
}
