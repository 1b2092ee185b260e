//! Shows the grants of OAuth over real connections: a hyper client, and a token endpoint that is as
//! strict as RFC 6749 lets it be.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::routing::post;
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http::StatusCode;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tower::Layer;
use tower::ServiceExt;
use tower_token_refresh::BoxError;
use tower_token_refresh::ClientCredentials;
use tower_token_refresh::EndReason;
use tower_token_refresh::RefreshError;
use tower_token_refresh::RefreshGrant;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;

type Http = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// "client" and "s e:cret", encoded as RFC 6749 section 2.3.1 wants it.
const BASIC: &str = "Basic Y2xpZW50OnMrZSUzQWNyZXQ=";

#[derive(Default)]
struct Facts {
    serial: u64,
    good: HashSet<String>,
    /// The one refresh token that is good; it is used up by a reissue.
    refresh_token: String,
    rotates: bool,
    /// What a proof must end with, if one is wanted.
    nonce: Option<&'static str>,
    grants: Vec<String>,
    /// The next answers of the token endpoint, if they are not what they should be.
    scripts: Vec<(u16, Value)>,
}

/// A token endpoint and an API in one server.
#[derive(Clone)]
struct Issuer {
    base: String,
    facts: Arc<Mutex<Facts>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            base: format!("http://{}", listener.local_addr().unwrap()),
            facts: Arc::default(),
        };
        let router = Router::new()
            .route("/token", post(token))
            .route("/items", get(items))
            .with_state(issuer.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        issuer
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    fn expire(&self) {
        self.facts().good.clear();
    }

    fn script(&self, status: u16, code: &str) {
        let body = json!({"error": code});
        self.facts().scripts.push((status, body));
    }

    fn asked(&self) -> usize {
        self.facts().grants.len()
    }

    fn credentials(&self, secret: &str) -> ClientCredentials {
        ClientCredentials::post(format!("{}/token", self.base), http()).basic("client", secret)
    }

    fn refresh(&self) -> RefreshGrant {
        RefreshGrant::post(format!("{}/token", self.base), http()).basic("client", "s e:cret")
    }
}

async fn token(State(issuer): State<Issuer>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let mut facts = issuer.facts();
    let form: BTreeMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
    facts.grants.push(form["grant_type"].clone());
    let answer = |status: u16, body| {
        let status = StatusCode::from_u16(status).unwrap();
        (status, [("dpop-nonce", "n1")], Json(body))
    };
    if let Some((status, body)) = facts.scripts.pop() {
        return answer(status, body);
    }
    if headers["content-type"] != "application/x-www-form-urlencoded" {
        return answer(400, json!({"error": "invalid_request"}));
    }
    if headers["authorization"] != BASIC {
        return answer(401, json!({"error": "invalid_client"}));
    }
    if let Some(nonce) = facts.nonce
        && headers["dpop"] != format!("proof-{nonce}")
    {
        return answer(400, json!({"error": "use_dpop_nonce"}));
    }
    facts.serial += 1;
    let mut tokens = json!({"access_token": format!("a{}", facts.serial), "token_type": "Bearer"});
    if form["grant_type"] == "refresh_token" {
        if form["refresh_token"] != facts.refresh_token {
            return answer(403, json!({"error": "invalid_grant"}));
        }
        if facts.rotates {
            facts.refresh_token = format!("r{}", facts.serial);
            tokens["refresh_token"] = json!(facts.refresh_token);
        }
    }
    let token = format!("Bearer a{}", facts.serial);
    facts.good.insert(token);
    answer(200, tokens)
}

async fn items(State(issuer): State<Issuer>, headers: HeaderMap) -> StatusCode {
    let token = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    match token.is_some_and(|token| issuer.facts().good.contains(token)) {
        true => StatusCode::OK,
        false => StatusCode::UNAUTHORIZED,
    }
}

fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// The status, and why it was not made good.
async fn ask(
    issuer: &Issuer,
    session: &Session,
) -> Result<(StatusCode, Option<RefreshError>), BoxError> {
    let layer = TokenRefreshLayer::new(issuer.base.as_str(), session.clone())?;
    let request = Request::get(format!("{}/items", issuer.base)).body(Full::default())?;
    let answer = layer.layer(http()).oneshot(request).await?;
    Ok((answer.status(), answer.extensions().get().cloned()))
}

async fn assert_all_fine(issuer: &Issuer, session: &Session) {
    for answer in join_all((0..30).map(|_| ask(issuer, session))).await {
        let (status, why) = answer.unwrap();
        assert_eq!((status, why.is_none()), (StatusCode::OK, true));
    }
}

async fn log_in(issuer: &Issuer, session: &Session) {
    issuer.facts().refresh_token = "r0".to_owned();
    let tokens = TokenSet::new("stale").unwrap();
    let tokens = tokens.with_refresh_token("r0").unwrap();
    session.login(tokens).await.unwrap();
}

// shows B4, B5, B31, P1: there is no login, and no refresh token.
#[tokio::test]
async fn client_credentials_fetch_the_first_token_and_each_one_after_it_once() {
    let issuer = Issuer::start().await;
    let session = Session::builder(issuer.credentials("s e:cret"))
        .build()
        .unwrap();
    assert_all_fine(&issuer, &session).await;
    assert_eq!(issuer.asked(), 1);
    for reissues in 2..=3 {
        issuer.expire();
        assert_all_fine(&issuer, &session).await;
        assert_eq!(issuer.asked(), reissues);
    }
    let grants = issuer.facts().grants.clone();
    assert!(grants.iter().all(|grant| grant == "client_credentials"));
}

// shows P6: wrong credentials end nothing, and are not tried over and over (P5).
#[tokio::test]
async fn wrong_client_credentials_are_a_matter_of_configuration() {
    let issuer = Issuer::start().await;
    let session = Session::builder(issuer.credentials("wrong"))
        .build()
        .unwrap();
    for answer in join_all((0..30).map(|_| ask(&issuer, &session))).await {
        let error = answer.unwrap_err();
        let error = error.downcast_ref::<RefreshError>().unwrap();
        assert!(error.is_misconfigured(), "nothing was sent: {error}");
        let source = std::error::Error::source(error).unwrap();
        let why = source.source().unwrap().to_string();
        assert!(
            why.contains("401") && why.contains("invalid_client"),
            "{why}"
        );
    }
    assert_eq!(issuer.asked(), 1);
    assert_eq!(session.stats().ends, 0);
    assert_eq!(session.status().end_reason(), None);
}

// shows P6: with a token in use, too, and for a code that would end another session.
#[tokio::test]
async fn client_credentials_that_turn_wrong_end_nothing() {
    for code in ["invalid_client", "invalid_grant"] {
        let issuer = Issuer::start().await;
        let session = Session::builder(issuer.credentials("s e:cret"))
            .build()
            .unwrap();
        assert_all_fine(&issuer, &session).await;
        issuer.expire();
        issuer.script(400, code);
        let (status, why) = ask(&issuer, &session).await.unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(why.unwrap().is_misconfigured(), "{code}");
        assert_eq!(session.stats().ends, 0);
        assert!(session.status().is_logged_in());
    }
}

// shows B31, B37, B122, B123
#[tokio::test]
async fn a_refresh_grant_keeps_a_session_alive_with_and_without_rotation() {
    for rotates in [false, true] {
        let issuer = Issuer::start().await;
        issuer.facts().rotates = rotates;
        let session = Session::builder(issuer.refresh()).build().unwrap();
        log_in(&issuer, &session).await;
        for reissues in 1..=3 {
            assert_all_fine(&issuer, &session).await;
            assert_eq!(issuer.asked(), reissues, "rotates: {rotates}");
            issuer.expire();
        }
    }
}

// shows B56, P6: some issuers say it with a 403.
#[tokio::test]
async fn a_refresh_token_that_is_refused_ends_the_session() {
    let issuer = Issuer::start().await;
    let session = Session::builder(issuer.refresh()).build().unwrap();
    log_in(&issuer, &session).await;
    issuer.facts().refresh_token = "another".to_owned();
    for answer in join_all((0..30).map(|_| ask(&issuer, &session))).await {
        let (status, why) = answer.unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(why.unwrap().end_reason(), Some(EndReason::Refused));
    }
    assert_eq!((issuer.asked(), session.stats().ends), (1, 1));
}

// shows B55: the client's own fault, or a busy issuer, is no end.
#[tokio::test]
async fn other_codes_keep_the_session() {
    for (code, transient) in [("invalid_scope", false), ("slow_down", true)] {
        let issuer = Issuer::start().await;
        let session = Session::builder(issuer.refresh()).build().unwrap();
        log_in(&issuer, &session).await;
        issuer.script(400, code);
        let (status, why) = ask(&issuer, &session).await.unwrap();
        let why = why.unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(why.is_transient(), transient, "{code}");
        assert_eq!(why.is_misconfigured(), !transient, "{code}");
        assert!(session.status().is_logged_in());
    }
}

#[tokio::test]
async fn a_nonce_costs_one_more_request_and_no_second_reissue() {
    let issuer = Issuer::start().await;
    issuer.facts().nonce = Some("n1");
    let sign = |request: tower_token_refresh::DpopRequest<'_>| {
        Ok(format!("proof-{}", request.nonce().unwrap_or_default()))
    };
    let session = Session::builder(issuer.refresh().dpop(sign))
        .build()
        .unwrap();
    log_in(&issuer, &session).await;
    for asked in 2..=4 {
        assert_all_fine(&issuer, &session).await;
        assert_eq!(issuer.asked(), asked, "the nonce is kept");
        assert_eq!(session.stats().reissues, asked as u64 - 1);
        issuer.expire();
    }
}
