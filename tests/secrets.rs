//! Proves P12: no token, or part of one, in anything that this crate prints, tells or fails with.

#[path = "support/paper.rs"]
mod paper;
mod support;

use std::io;
use std::panic;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use paper::Paper;
use support::Client;
use support::Store;
use support::get;
use tower::Layer;
use tower::ServiceExt;
use tower::service_fn;
use tower_token_refresh::ClientCredentials;
use tower_token_refresh::CookieReissue;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::LostReply;
use tower_token_refresh::RefreshError;
use tower_token_refresh::RefreshGrant;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

/// The mark that each token of these tests bears.
const MARK: &str = "c4n4ry";

fn tokens(n: usize) -> TokenSet {
    TokenSet::new(format!("{MARK}-access-{n}"))
        .unwrap()
        .with_refresh_token(format!("{MARK}-refresh-{n}"))
        .unwrap()
        .with_expires_in(Duration::from_secs(60))
        .with_identity("id", "7")
}

/// Answers each request with this status and body, whatever is asked.
fn answering(
    status: u16,
    body: &'static str,
) -> impl Clone + Send + Sync + 'static + Fn() -> Response<Full<Bytes>> {
    move || {
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .header("set-cookie", format!("refreshToken={MARK}-rotated"))
            .header("dpop-nonce", format!("{MARK}-nonce"))
            .header("www-authenticate", format!("Bearer error=\"{MARK}\""))
            .body(Full::from(body))
            .unwrap()
    }
}

fn issuers() -> Vec<SessionBuilder> {
    let bodies = [
        (
            200,
            r#"{"accessToken":"c4n4ry-new","refreshToken":"c4n4ry-next"}"#,
        ),
        (
            200,
            r#"{"accessToken":"c4n4ry bad","refreshToken":"c4n4ry-next"}"#,
        ),
        (
            200,
            r#"{"accessToken":"c4n4ry-1","accessToken":"c4n4ry-2"}"#,
        ),
        (200, "<html>c4n4ry</html>"),
        (200, r#"{"accessToken":"c4n4ry-access-1"}"#),
        (401, r#"{"code":"T-003","message":"c4n4ry"}"#),
        (400, r#"{"code":"c4n4ry","message":"c4n4ry"}"#),
        (
            200,
            r#"{"access_token":"c4n4ry-new","refresh_token":"c4n4ry-next"}"#,
        ),
        (
            200,
            r#"{"access_token":"c4n4ry-new","token_type":"c4n4ry"}"#,
        ),
        (
            400,
            r#"{"error":"invalid_grant","error_description":"c4n4ry"}"#,
        ),
        (
            400,
            r#"{"error":"use_dpop_nonce","error_description":"c4n4ry"}"#,
        ),
        (401, r#"{"error":"c4n4ry"}"#),
        (302, "c4n4ry"),
        (500, "c4n4ry"),
        (503, "c4n4ry"),
        (
            200,
            r#"{"access_token":"c4n4ry-new","refresh_token":"c4n4ry-next","token_type":"c4n4ry"}"#,
        ),
        (
            200,
            r#"{"access_token":"c4n4ry-access-1","expires_in":"c4n4ry"}"#,
        ),
        (200, r#"{"error":"c4n4ry","error_description":"c4n4ry"}"#),
        (
            400,
            r#"{"error":"invalid_grant","error_description":"c4n4ry"}"#,
        ),
        (
            400,
            r#"{"error":"use_dpop_nonce","error_description":"c4n4ry"}"#,
        ),
        (401, r#"{"error":"invalid_client","error_uri":"c4n4ry"}"#),
    ];
    let mut builders = Vec::new();
    for (status, body) in bodies {
        let answer = answering(status, body);
        let client = service_fn(move |_: Request<Full<Bytes>>| {
            std::future::ready(Ok::<_, io::Error>(answer()))
        });
        let url = "https://issuer.test/reissue?c4n4ry=1";
        builders.push(Session::builder(
            JsonReissue::post(url, client.clone()).refused("T-003"),
        ));
        builders.push(Session::builder(
            CookieReissue::post(url, client.clone()).refused("T-003"),
        ));
        builders.push(Session::builder(
            RefreshGrant::post(url, client.clone())
                .basic("app", format!("{MARK}-secret"))
                .param("assertion", MARK)
                .dpop(|_| Ok(format!("{MARK}-proof")))
                .on_error(|answer| {
                    tracing::info!(?answer);
                    None
                }),
        ));
        builders.push(Session::builder(
            ClientCredentials::post(url, client.clone())
                .client_in_body("app", format!("{MARK}-secret"))
                .dpop(|request| {
                    tracing::info!(?request);
                    Err("no key".into())
                }),
        ));
        let grant = RefreshGrant::post(url, client.clone()).client_in_body("id", "c4n4ry-secret");
        builders.push(Session::builder(grant).lost_reply(LostReply::OKTA));
        let broken = RefreshGrant::post(url, client).dpop(|_| Ok("c4n4ry\nproof".to_owned()));
        builders.push(Session::builder(broken));
    }
    builders.push(Session::builder(reissue_fn(|request| async move {
        let _request = request;
        panic!("a bug in the reissuer")
    })));
    builders.push(Session::builder(reissue_fn(|_| async {
        Err(ReissueError::unknown("no")
            .with_refresh_token(tokens(9).refresh_token().unwrap().clone()))
    })));
    builders
}

async fn live(paper: &Paper, builder: SessionBuilder, break_store: bool) {
    let store = Store::new(None);
    paper.debug(&builder);
    let session = builder
        .store(store.clone())
        .refresh_ahead(Duration::from_secs(5))
        .build()
        .unwrap();
    session.login(tokens(1)).await.unwrap();
    paper.debug(&session);
    let api = service_fn(|request: Request<_>| {
        drop(request);
        std::future::ready(Ok::<_, io::Error>(answering(401, r#"{"code":"T-002"}"#)()))
    });
    let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap();
    let layer = layer.classify(ErrorCodes::json("/code").expired("T-002").ended("T-009"));
    paper.debug(&layer);
    let service = layer.layer(api);
    paper.write(format!("{:?}", session.stats()));
    store.fail_writes(break_store);
    let response = service.clone().oneshot(get("/items?c=1")).await.unwrap();
    paper.debug(&(response.body(), response.extensions()));
    if let Some(why) = response.extensions().get::<RefreshError>() {
        paper.error(why);
    }
    drop(Client::new(service).get().await);
    for result in [
        session.refresh().await,
        session.adopt(tokens(3)).await,
        session.logout().await,
    ] {
        if let Err(error) = result {
            paper.error(&error);
        }
    }
    paper.debug(&(session.status(), session.stats()));
}

// shows B130, S5, S6, P12
#[test]
fn a_marked_token_is_found_in_no_output_no_error_and_no_debug() {
    let paper = Paper::default();
    let on_panic = paper.clone();
    panic::set_hook(Box::new(move |info| on_panic.write(info.to_string())));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(paper.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    for break_store in [false, true] {
        for builder in issuers() {
            runtime.block_on(live(&paper, builder, break_store));
        }
    }
    let set = tokens(1);
    paper.debug(&set);
    paper.debug(&(set.access_token(), set.refresh_token()));
    paper.error(&TokenSet::new(format!("{MARK}\n")).unwrap_err());
    drop(panic::take_hook());

    let text = paper.text();
    assert!(
        text.contains("token_refresh") && text.contains("a bug in the reissuer"),
        "it is heard"
    );
    let reversed: String = MARK.chars().rev().collect();
    for mark in [MARK, "YzRuNHJ5", &reversed] {
        let line = text.lines().find(|line| line.contains(mark));
        assert_eq!(line, None);
    }
}

// shows S2, P12: whoever prints the headers of a request prints no token.
#[test]
fn header_values_are_sensitive_and_redacted() {
    let seen = Arc::new(Mutex::new(None));
    let api = {
        let seen = seen.clone();
        service_fn(move |request: Request<_>| {
            let request: Request<tower_token_refresh::ReplayBody<Full<Bytes>>> = request;
            *seen.lock().unwrap() = request.headers().get("authorization").cloned();
            std::future::ready(Ok::<_, io::Error>(Response::new(Full::<Bytes>::default())))
        })
    };
    let session = Session::builder(reissue_fn(|_| async { Err(ReissueError::refused("no")) }));
    let session = session.build().unwrap();
    futures::executor::block_on(async {
        session.login(tokens(1)).await.unwrap();
        let layer = TokenRefreshLayer::new(support::ORIGIN, session).unwrap();
        layer.layer(api).oneshot(get("/")).await.unwrap();
    });
    let value = seen.lock().unwrap().take().unwrap();
    assert!(value.is_sensitive());
    assert!(!format!("{value:?}").contains(MARK));
}
