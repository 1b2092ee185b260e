//! Proves the contract of the reference back end, over HTTP on loopback: what other tests and the
//! measurements are held against must itself be right.

#[path = "../examples/backend/server/mod.rs"]
mod backend;
#[path = "support/child.rs"]
mod child;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use backend::greeter_v1::{HelloRequest, greeter_client::GreeterClient};
use backend::{Backend, Config, ReissueMode, Round, User};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};

type Body = Full<bytes::Bytes>;

const LOGIN: &str = "/member/login";
const LOGOUT: &str = "/member/logout";
const ME: &str = "/member/me";
const MEMBER: &str = "/member/token/refresh";
const COOKIE: &str = "/v1/api/auth/reissue";
const OAUTH: &str = "/oauth/token";

/// A client without any cleverness.
#[derive(Clone)]
struct Http {
    base: String,
    client: Client<HttpConnector, Body>,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: bytes::Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    fn text(&self, member: &str) -> String {
        self.json()[member].as_str().expect("a string").to_owned()
    }

    /// The status, and the code if there is one.
    fn verdict(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        if let Some(message) = body.get("message") {
            assert!(message.is_string());
        }
        let code = body["code"].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), code)
    }

    fn cookie(&self) -> Option<&str> {
        let value = self.headers.get(header::SET_COOKIE)?;
        Some(value.to_str().expect("readable"))
    }
}

impl Http {
    fn new(base: String) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { base, client }
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let uri = format!("{}{path}", self.base);
        Request::builder().method(method).uri(uri)
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.client.request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }

    async fn post(&self, path: &str, bearer: &str, body: Value) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        let body = Body::from(body.to_string());
        self.send(request.body(body).expect("a request")).await
    }

    async fn get_as(&self, path: &str, authorization: &str) -> Answer {
        let request = self
            .request(Method::GET, path)
            .header(header::AUTHORIZATION, authorization);
        self.send(request.body(Body::default()).expect("a request"))
            .await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.get_as(path, &format!("Bearer {token}")).await
    }

    async fn log_in(&self, user: &User) -> Login {
        let body = json!({ "email": user.email, "password": user.password });
        let answer = self.post(LOGIN, "", body).await;
        assert_eq!(answer.status, StatusCode::OK);
        Login {
            access: answer.text("accessToken"),
            refresh: answer.text("refreshToken"),
            answer,
        }
    }

    async fn member(&self, refresh: &str, user: &User) -> Answer {
        let body = json!({ "id": user.id, "email": user.email });
        self.post(MEMBER, refresh, body).await
    }

    async fn cookie(&self, refresh: &str) -> Answer {
        let request = self
            .request(Method::POST, COOKIE)
            .header(header::COOKIE, format!("a=b; refreshToken={refresh}; c=d"))
            .header(header::AUTHORIZATION, "nonsense");
        self.send(request.body(Body::from("nonsense")).expect("a request"))
            .await
    }
}

/// A token request: its parameters as a form, and what the client says of itself.
impl Http {
    async fn oauth(&self, parameters: &[(&str, &str)]) -> Answer {
        self.oauth_as(&[], parameters).await
    }

    async fn oauth_as(&self, headers: &[(&str, &str)], parameters: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/x-www-form-urlencoded"));
        self.oauth_raw(&headers, body).await
    }

    async fn oauth_raw(&self, headers: &[(&str, &str)], body: String) -> Answer {
        let request = headers
            .iter()
            .fold(self.request(Method::POST, OAUTH), |request, header| {
                request.header(header.0, header.1)
            });
        self.send(request.body(Body::from(body)).expect("a request"))
            .await
    }
}

/// Basic credentials, as RFC 6749 section 2.3.1 has them once they are written as in a form.
fn basic(credentials: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(credentials))
}

/// What OAuth errors have in common, and the one it is.
fn oauth_error(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    let members: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(members, ["error", "error_description"]);
    assert!(!answer.text("error_description").is_empty());
    (answer.status.as_u16(), answer.text("error"))
}

fn oauth_refused(status: u16, error: &str) -> (u16, String) {
    (status, error.to_owned())
}

struct Login {
    access: String,
    refresh: String,
    answer: Answer,
}

async fn start(config: Config) -> (Backend, Http, User) {
    let backend = Backend::start(config).await.expect("a back end");
    let http = Http::new(backend.base());
    let user = backend.user().clone();
    (backend, http, user)
}

fn long_lived() -> Config {
    Config {
        access_ttl: Duration::from_secs(3600),
        ..Config::default()
    }
}

fn rotating() -> Config {
    Config {
        rotate: true,
        ..long_lived()
    }
}

fn refused(code: &str) -> (u16, String) {
    (401, code.to_owned())
}

fn accepted() -> (u16, String) {
    (200, String::new())
}

/// Asks again and again until it is so; a test must not hang when it never is.
async fn eventually(so: impl AsyncFn() -> bool) {
    let asking = async {
        while !so().await {
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(10);
    let settled = tokio::time::timeout(limit, asking).await;
    settled.expect("it comes about");
}

fn expiry(answer: &Answer) -> jiff::Timestamp {
    let text = answer.text("accessTokenExpiresAt");
    text.parse().expect("RFC 3339")
}

#[tokio::test]
async fn a_login_answers_with_the_identity_both_tokens_and_the_cookie() {
    let (backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    let members: Vec<_> = login
        .answer
        .json()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let expected = [
        "accessToken",
        "accessTokenExpiresAt",
        "email",
        "id",
        "refreshToken",
    ];
    assert_eq!(
        BTreeSet::from_iter(members),
        BTreeSet::from(expected.map(String::from))
    );
    assert_eq!(login.answer.text("id"), user.id);
    let cookie = format!(
        "refreshToken={}; Path=/; HttpOnly; SameSite=Lax",
        login.refresh
    );
    assert_eq!(login.answer.cookie(), Some(cookie.as_str()));
    let left = expiry(&login.answer).duration_since(jiff::Timestamp::now());
    assert!((3590..=3600).contains(&left.as_secs()));
    assert_eq!(backend.stats().logins, 1);
}

#[tokio::test]
async fn a_login_does_not_tell_whether_the_email_exists() {
    let (backend, http, user) = start(long_lived()).await;
    let wrong_password = json!({ "email": user.email, "password": "wrong" });
    let wrong_email = json!({ "email": "nobody@example.com", "password": user.password });
    let first = http.post(LOGIN, "", wrong_password).await;
    let second = http.post(LOGIN, "", wrong_email).await;
    assert_eq!(first.verdict(), refused("L-001"));
    assert_eq!(first.body, second.body);
    assert_eq!((second.status.as_u16(), second.cookie()), (401, None));
    assert_eq!(backend.stats().logins, 0);
}

#[tokio::test]
async fn a_body_that_is_not_the_json_expected_is_a_bad_request_and_not_quoted() {
    let (_backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    for (path, body) in [
        (LOGIN, json!({ "email": user.email, "password": 12345 })),
        (LOGIN, json!("12345")),
        (MEMBER, json!({ "id": 12345, "email": user.email })),
    ] {
        let answer = http.post(path, &login.refresh, body).await;
        assert_eq!(answer.verdict(), (400, "B-001".to_owned()));
        assert!(!String::from_utf8_lossy(&answer.body).contains("12345"));
    }
}

#[tokio::test]
async fn every_protected_route_answers_a_live_token() {
    let (_backend, http, user) = start(long_lived()).await;
    let token = http.log_in(&user).await.access;
    let me = http.get(ME, &token).await;
    assert_eq!(me.json(), json!({ "id": user.id, "email": user.email }));
    let item = http.get("/items/42", &token).await;
    assert_eq!(item.json(), json!({ "item": 42, "owner": user.id }));
    let echo = http.post("/echo", &token, json!("hello")).await;
    assert_eq!(echo.body, "\"hello\"");
    let logout = http.post(LOGOUT, &token, Value::Null).await;
    assert_eq!(logout.verdict(), (204, String::new()));
}

#[tokio::test]
async fn echo_returns_two_mebibytes_with_their_content_type_and_refuses_more() {
    let (_backend, http, user) = start(long_lived()).await;
    let token = http.log_in(&user).await.access;
    let body: Vec<u8> = (0..2 * 1024 * 1024).map(|n| (n % 251) as u8).collect();
    let answer = echo(&http, &token, body.clone()).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "image/x-test");
    assert!(answer.body == body, "the bytes have changed");
    let too_large = echo(&http, &token, [body, vec![0]].concat()).await;
    assert_eq!(too_large.verdict(), (413, "B-002".to_owned()));
}

async fn echo(http: &Http, token: &str, body: Vec<u8>) -> Answer {
    let request = http
        .request(Method::POST, "/echo")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "image/x-test");
    http.send(request.body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn a_rejected_upload_still_sees_its_rejection() {
    let (_backend, http, _) = start(long_lived()).await;
    let answer = echo(&http, "bad", vec![0; 2 * 1024 * 1024]).await;
    assert_eq!(answer.verdict(), refused("T-001"));
}

#[tokio::test]
async fn whatever_is_not_a_valid_token_is_t_001() {
    let (_backend, http, user) = start(long_lived()).await;
    let (other, other_http, other_user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    let foreign = other_http.log_in(&other_user).await.access;
    let unsigned = format!("{}.", login.access.rsplit_once('.').unwrap().0);
    for authorization in [
        format!("Basic {}", login.access),
        format!("Bearer {}x", login.access),
        format!("Bearer {foreign}"),
        format!("Bearer {unsigned}"),
        format!("Bearer {}", login.refresh),
        "Bearer ".to_owned(),
        login.access.clone(),
    ] {
        let answer = http.get_as(ME, &authorization).await;
        assert_eq!(answer.verdict(), refused("T-001"));
    }
    drop(other);
}

#[tokio::test]
async fn two_authorization_headers_are_t_001() {
    let (_backend, http, user) = start(long_lived()).await;
    let value = format!("Bearer {}", http.log_in(&user).await.access);
    let request = http
        .request(Method::GET, ME)
        .header(header::AUTHORIZATION, &value)
        .header(header::AUTHORIZATION, &value);
    let answer = http.send(request.body(Body::default()).unwrap()).await;
    assert_eq!(answer.verdict(), refused("T-001"));
}

#[tokio::test]
async fn the_schemes_case_does_not_matter() {
    let (_backend, http, user) = start(long_lived()).await;
    let token = http.log_in(&user).await.access;
    let answer = http.get_as(ME, &format!("bEARER {token}")).await;
    assert_eq!(answer.verdict(), accepted());
}

#[tokio::test]
async fn a_request_without_a_token_is_t_004() {
    let (_backend, http, _) = start(long_lived()).await;
    for (method, path) in [
        (Method::GET, ME),
        (Method::GET, "/items/1"),
        (Method::POST, "/echo"),
        (Method::POST, LOGOUT),
        (Method::POST, MEMBER),
        (Method::POST, COOKIE),
    ] {
        let request = http.request(method, path).body(Body::default()).unwrap();
        assert_eq!(
            http.send(request).await.verdict(),
            refused("T-004"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_access_token_without_a_lifetime_has_expired_when_it_is_issued() {
    let config = Config {
        access_ttl: Duration::ZERO,
        ..Config::default()
    };
    let (_backend, http, user) = start(config).await;
    let token = http.log_in(&user).await.access;
    assert_eq!(http.get(ME, &token).await.verdict(), refused("T-002"));
}

#[tokio::test]
async fn expiry_is_kept_to_the_millisecond() {
    let config = Config {
        access_ttl: Duration::from_millis(150),
        ..Config::default()
    };
    let (_backend, http, user) = start(config).await;
    let login = http.log_in(&user).await;
    let expires_at = expiry(&login.answer);
    loop {
        let before = jiff::Timestamp::now();
        let live = http.get(ME, &login.access).await.verdict() == accepted();
        let after = jiff::Timestamp::now();
        assert!(live || after >= expires_at, "too early");
        assert!(!live || before < expires_at, "too late");
        if !live {
            break;
        }
    }
}

#[tokio::test]
async fn the_expired_code_is_the_one_configured() {
    let config = Config {
        expired_code: "AUTH_EXPIRED".to_owned(),
        ..long_lived()
    };
    let (backend, http, user) = start(config).await;
    let token = http.log_in(&user).await.access;
    backend.expire_access_tokens();
    assert_eq!(
        http.get(ME, &token).await.verdict(),
        refused("AUTH_EXPIRED")
    );
}

#[tokio::test]
async fn expiring_the_access_tokens_spares_those_issued_afterwards() {
    let (backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    backend.expire_access_tokens();
    assert_eq!(
        http.get(ME, &login.access).await.verdict(),
        refused("T-002")
    );
    let fresh = http.member(&login.refresh, &user).await.text("accessToken");
    assert_eq!(http.get(ME, &fresh).await.verdict(), accepted());
    assert_eq!(
        http.get(ME, &login.access).await.verdict(),
        refused("T-002")
    );
}

#[tokio::test]
async fn without_rotation_a_refresh_token_works_again_and_again() {
    let (backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    for _ in 0..3 {
        let answer = http.member(&login.refresh, &user).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.json().get("refreshToken").is_none());
        let answer = http.cookie(&login.refresh).await;
        assert_eq!((answer.status, answer.cookie()), (StatusCode::OK, None));
    }
    assert_eq!(backend.stats().reissues, 6);
    assert_eq!(backend.stats().reissue_failures, 0);
}

#[tokio::test]
async fn a_member_refresh_leaves_the_earlier_access_token_alive() {
    let (_backend, http, user) = start(rotating()).await;
    let login = http.log_in(&user).await;
    let fresh = http.member(&login.refresh, &user).await.text("accessToken");
    assert_ne!(fresh, login.access);
    assert_eq!(http.get(ME, &login.access).await.verdict(), accepted());
    assert_eq!(http.get(ME, &fresh).await.verdict(), accepted());
}

#[tokio::test]
async fn a_cookie_reissue_kills_the_logins_earlier_access_tokens_and_no_others() {
    let (_backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    let elsewhere = http.log_in(&user).await;
    let fresh = http.cookie(&login.refresh).await.text("accessToken");
    assert_eq!(
        http.get(ME, &login.access).await.verdict(),
        refused("T-002")
    );
    assert_eq!(http.get(ME, &fresh).await.verdict(), accepted());
    assert_eq!(http.get(ME, &elsewhere.access).await.verdict(), accepted());
}

#[tokio::test]
async fn a_cookie_reissue_that_rotates_answers_with_a_new_cookie_and_keeps_it_out_of_the_body() {
    let (_backend, http, user) = start(rotating()).await;
    let login = http.log_in(&user).await;
    let answer = http.cookie(&login.refresh).await;
    assert!(answer.json().get("refreshToken").is_none());
    let cookie = answer.cookie().expect("a cookie");
    let (token, attributes) = cookie
        .strip_prefix("refreshToken=")
        .and_then(|rest| rest.split_once(';'))
        .expect("a refresh token");
    assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax");
    assert_ne!(token, login.refresh);
    assert_eq!(http.cookie(token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_used_refresh_token_ends_its_family_and_no_other() {
    let (backend, http, user) = start(rotating()).await;
    let login = http.log_in(&user).await;
    let elsewhere = http.log_in(&user).await;
    let next = http.member(&login.refresh, &user).await;
    let reused = http.member(&login.refresh, &user).await;
    assert_eq!(reused.verdict(), refused("T-003"));
    assert_eq!(backend.stats().reuse_detected, 1);
    let newest = http.member(&next.text("refreshToken"), &user).await;
    assert_eq!(newest.verdict(), refused("T-003"));
    let access = http.get(ME, &next.text("accessToken")).await;
    assert_eq!(access.verdict(), refused("T-002"));
    assert_eq!(backend.stats().reuse_detected, 1);
    assert_eq!(http.get(ME, &elsewhere.access).await.verdict(), accepted());
    assert_eq!(http.cookie(&elsewhere.refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn of_parallel_uses_of_one_rotating_refresh_token_one_succeeds_and_nothing_survives() {
    let (backend, http, user) = start(rotating()).await;
    let login = http.log_in(&user).await;
    let mut uses = JoinSet::new();
    for _ in 0..8 {
        let (http, refresh) = (http.clone(), login.refresh.clone());
        uses.spawn(async move { http.cookie(&refresh).await });
    }
    let answers = uses.join_all().await;
    let granted: Vec<_> = answers.iter().filter(|a| a.status.is_success()).collect();
    assert_eq!(granted.len(), 1);
    let access = http.get(ME, &granted[0].text("accessToken")).await;
    assert_eq!(access.verdict(), refused("T-002"));
    let stats = backend.stats();
    assert_eq!(
        (stats.reissues, stats.reissue_failures, stats.reuse_detected),
        (8, 7, 1)
    );
}

#[tokio::test]
async fn a_refresh_token_past_its_lifetime_is_t_003() {
    let config = Config {
        refresh_ttl: Duration::ZERO,
        ..rotating()
    };
    let (backend, http, user) = start(config).await;
    let login = http.log_in(&user).await;
    assert_eq!(
        http.member(&login.refresh, &user).await.verdict(),
        refused("T-003")
    );
    assert_eq!(
        http.cookie(&login.refresh).await.verdict(),
        refused("T-003")
    );
    assert_eq!(backend.stats().reuse_detected, 0);
}

#[tokio::test]
async fn a_refresh_token_that_was_never_issued_is_t_001() {
    let (_backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    assert_eq!(
        http.member(&login.access, &user).await.verdict(),
        refused("T-001")
    );
    assert_eq!(http.cookie(&login.access).await.verdict(), refused("T-001"));
}

#[tokio::test]
async fn somebody_elses_refresh_token_is_t_005_and_not_used_up() {
    let (backend, http, user) = start(rotating()).await;
    let other = backend.add_user("other@example.com", "x").await.unwrap();
    assert_ne!(other.id, user.id);
    let login = http.log_in(&user).await;
    for sender in [
        other.clone(),
        User {
            id: other.id.clone(),
            ..user.clone()
        },
        User {
            email: other.email.clone(),
            ..user.clone()
        },
    ] {
        let answer = http.member(&login.refresh, &sender).await;
        assert_eq!(answer.verdict(), refused("T-005"));
    }
    assert_eq!(
        http.member(&login.refresh, &user).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn users_get_their_own_answers() {
    let (backend, http, user) = start(long_lived()).await;
    let other = backend.add_user("other@example.com", "x").await.unwrap();
    for user in [user, other] {
        let token = http.log_in(&user).await.access;
        assert_eq!(http.get("/items/7", &token).await.text("owner"), user.id);
    }
}

#[tokio::test]
async fn a_logout_ends_that_login_and_no_other() {
    let (_backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    let elsewhere = http.log_in(&user).await;
    http.post(LOGOUT, &login.access, Value::Null).await;
    assert_eq!(
        http.get(ME, &login.access).await.verdict(),
        refused("T-002")
    );
    assert_eq!(
        http.cookie(&login.refresh).await.verdict(),
        refused("T-003")
    );
    assert_eq!(http.get(ME, &elsewhere.access).await.verdict(), accepted());
}

#[tokio::test]
async fn the_refresh_grant_takes_the_refresh_token_of_a_login() {
    let (backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    let grant = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &login.refresh),
    ];
    for _ in 0..2 {
        let answer = http.oauth(&grant).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[header::PRAGMA], "no-cache");
        let access_token = answer.text("access_token");
        let expected = json!({
            "access_token": access_token, "token_type": "Bearer", "expires_in": 3600,
        });
        assert_eq!(answer.json(), expected);
        assert_eq!(http.get(ME, &access_token).await.text("id"), user.id);
    }
    // Like the members' reissue, and unlike the cookie's.
    assert_eq!(http.get(ME, &login.access).await.verdict(), accepted());
    let stats = backend.stats();
    assert_eq!((stats.reissues, stats.reissue_failures), (2, 0));
}

#[tokio::test]
async fn a_refresh_grant_rotates_and_ends_the_family_of_a_used_token() {
    let (backend, http, user) = start(rotating()).await;
    let login = http.log_in(&user).await;
    let refresh = async |token: &str| {
        let grant = [("grant_type", "refresh_token"), ("refresh_token", token)];
        http.oauth(&grant).await
    };
    let next = refresh(&login.refresh).await;
    let newest = refresh(&next.text("refresh_token")).await;
    assert_eq!(newest.status, StatusCode::OK);
    for token in [&login.refresh, &newest.text("refresh_token")] {
        let answer = refresh(token).await;
        assert_eq!(oauth_error(&answer), oauth_refused(400, "invalid_grant"));
    }
    let access = http.get(ME, &newest.text("access_token")).await;
    assert_eq!(access.verdict(), refused("T-002"));
    let stats = backend.stats();
    assert_eq!(
        (stats.reissues, stats.reissue_failures, stats.reuse_detected),
        (4, 2, 1)
    );
}

#[tokio::test]
async fn a_refresh_token_that_is_no_good_is_an_invalid_grant() {
    let config = Config {
        refresh_ttl: Duration::ZERO,
        ..rotating()
    };
    let (_backend, http, user) = start(config).await;
    let login = http.log_in(&user).await;
    for token in [login.refresh, login.access] {
        let grant = [("grant_type", "refresh_token"), ("refresh_token", &token)];
        let answer = http.oauth(&grant).await;
        assert_eq!(oauth_error(&answer), oauth_refused(400, "invalid_grant"));
        assert!(!String::from_utf8_lossy(&answer.body).contains(&token));
    }
}

#[tokio::test]
async fn client_credentials_are_for_the_demonstration_user_and_bring_no_refresh_token() {
    let (backend, http, user) = start(rotating()).await;
    let answer = http
        .oauth_as(
            &[("authorization", &basic("demo:demo-secret"))],
            &[("grant_type", "client_credentials"), ("scope", "all")],
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.json().get("refresh_token").is_none());
    let token = answer.text("access_token");
    assert_eq!(http.get("/items/7", &token).await.text("owner"), user.id);
    assert_eq!(backend.stats().reissues, 1);
    assert_eq!(http.post(LOGOUT, &token, json!({})).await.status, 204);
    assert_eq!(http.get(ME, &token).await.verdict(), refused("T-002"));
}

#[tokio::test]
async fn a_client_authenticates_by_basic_or_in_the_body() {
    let (backend, http, user) = start(long_lived()).await;
    let refresh = http.log_in(&user).await.refresh;
    let backend::Client { id, secret } = backend.client();
    let in_body = [("client_id", &*id), ("client_secret", &*secret)];
    // Written as in a form, which any character may be.
    let spelt = [
        "demo:demo-secret",
        "%64emo:demo%2Dsecret",
        "demo:%64%65mo-secret",
    ];
    for grant in [
        vec![("grant_type", "client_credentials")],
        vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", &*refresh),
        ],
    ] {
        let answer = http.oauth(&[&grant[..], &in_body].concat()).await;
        assert_eq!(answer.status, StatusCode::OK);
        for credentials in spelt {
            let header = [("authorization", &*basic(credentials))];
            let answer = http.oauth_as(&header, &grant).await;
            assert_eq!(answer.status, StatusCode::OK, "{credentials}");
            // It may name itself besides.
            let named = [&grant[..], &[("client_id", "demo")]].concat();
            assert_eq!(http.oauth_as(&header, &named).await.status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn wrong_credentials_are_an_invalid_client_with_either_grant() {
    let (_backend, http, user) = start(rotating()).await;
    let refresh = http.log_in(&user).await.refresh;
    let grants: [&[(&str, &str)]; 2] = [
        &[("grant_type", "client_credentials")],
        &[("grant_type", "refresh_token"), ("refresh_token", &refresh)],
    ];
    let headers = [
        basic("demo:wrong"),
        basic("other:demo-secret"),
        basic("demo:"),
        basic("demo"),
        "Basic %%%".to_owned(),
        "Bearer demo-secret".to_owned(),
    ];
    let bodies: [&[(&str, &str)]; 3] = [
        &[("client_id", "demo"), ("client_secret", "wrong")],
        &[("client_id", "other"), ("client_secret", "demo-secret")],
        // It has a secret, and has to prove that it knows it.
        &[("client_id", "demo")],
    ];
    for grant in grants {
        for header in &headers {
            let answer = http.oauth_as(&[("authorization", header)], grant).await;
            let verdict = oauth_error(&answer);
            assert_eq!(verdict, oauth_refused(401, "invalid_client"), "{header}");
            let challenge = answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
            assert!(challenge.starts_with("Basic "), "{challenge}");
        }
        for body in bodies {
            let answer = http.oauth(&[grant, body].concat()).await;
            let verdict = oauth_error(&answer);
            assert_eq!(verdict, oauth_refused(401, "invalid_client"), "{body:?}");
            assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
        }
    }
    // A client that is not let in has used nothing up.
    assert_eq!(http.oauth(grants[1]).await.status, StatusCode::OK);
    let nobody = http.oauth(grants[0]).await;
    assert_eq!(oauth_error(&nobody), oauth_refused(401, "invalid_client"));
}

#[tokio::test]
async fn a_token_request_that_is_not_in_order_is_an_invalid_request() {
    let (backend, http, user) = start(rotating()).await;
    let refresh = http.log_in(&user).await.refresh;
    let by_basic = [("authorization", basic("demo:demo-secret"))];
    let by_basic = by_basic.each_ref().map(|(name, value)| (*name, &**value));
    let grant = [("grant_type", "refresh_token"), ("refresh_token", &refresh)];
    let credentials = ("grant_type", "client_credentials");
    let requests: [(&[_], Vec<_>); 8] = [
        (&[], vec![]),
        (&[], vec![grant[0]]),
        (&[], vec![grant[0], ("refresh_token", "")]),
        (&[], vec![grant[0], grant[1], grant[1]]),
        (&[], vec![grant[0], grant[1], ("a", "1"), ("a", "2")]),
        (
            &[],
            vec![grant[0], grant[1], ("client_secret", "demo-secret")],
        ),
        (
            &by_basic,
            vec![
                credentials,
                ("client_id", "demo"),
                ("client_secret", "demo-secret"),
            ],
        ),
        (&by_basic, vec![credentials, ("client_id", "other")]),
    ];
    for (headers, parameters) in &requests {
        let answer = http.oauth_as(headers, parameters).await;
        let verdict = oauth_error(&answer);
        assert_eq!(verdict, oauth_refused(400, "invalid_request"));
    }
    let body = format!("grant_type=refresh_token&refresh_token={refresh}");
    for content_type in ["application/json", "text/plain", ""] {
        let header = [("content-type", content_type)];
        let answer = http.oauth_raw(&header, body.clone()).await;
        let verdict = oauth_error(&answer);
        assert_eq!(verdict, oauth_refused(400, "invalid_request"));
    }
    let large = http.oauth(&[("a", &"a".repeat(2 * 1024 * 1024))]).await;
    assert_eq!(oauth_error(&large), oauth_refused(413, "invalid_request"));
    let password = http.oauth(&[("grant_type", "password")]).await;
    let unsupported = oauth_refused(400, "unsupported_grant_type");
    assert_eq!(oauth_error(&password), unsupported);
    // Nothing was used up; what is unknown or empty does not matter, nor does a charset.
    let header = [(
        "content-type",
        "Application/X-WWW-Form-Urlencoded; charset=utf-8",
    )];
    let answer = http.oauth_raw(&header, body + "&a=&a=&b=1").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(backend.stats().reissue_failures, 13);
}

#[tokio::test]
async fn a_lifetime_that_is_not_whole_seconds_is_a_decimal() {
    let (backend, http, _) = start(long_lived()).await;
    let header = [("authorization", &*basic("demo:demo-secret"))];
    for (ttl, text) in [
        (Duration::from_millis(250), "0.25"),
        (Duration::from_secs(2), "2"),
        (Duration::ZERO, "0"),
    ] {
        backend.set_access_ttl(ttl);
        let answer = http
            .oauth_as(&header, &[("grant_type", "client_credentials")])
            .await;
        assert_eq!(answer.json()["expires_in"].to_string(), text);
    }
}

#[tokio::test]
async fn the_reissue_mode_decides_how_token_requests_end() {
    let (backend, http, user) = start(rotating()).await;
    let refresh = http.log_in(&user).await.refresh;
    let header = [("authorization", &*basic("demo:demo-secret"))];
    let refreshing = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &*refresh),
    ];
    let grants: [&[(&str, &str)]; 2] = [&[("grant_type", "client_credentials")], &refreshing];
    for (mode, status, error) in [
        (ReissueMode::Fail, 400, "invalid_grant"),
        (ReissueMode::Error, 500, "server_error"),
    ] {
        backend.set_reissue_mode(mode);
        for grant in grants {
            let answer = http.oauth_as(&header, grant).await;
            assert_eq!(oauth_error(&answer), oauth_refused(status, error));
        }
    }
    backend.set_reissue_mode(ReissueMode::Dead);
    for grant in grants {
        let answer = http.oauth_as(&header, grant).await;
        assert_eq!(answer.json()["expires_in"], 0);
        let access = http.get(ME, &answer.text("access_token")).await;
        assert_eq!(access.verdict(), refused("T-002"));
    }
    let stats = backend.stats();
    assert_eq!((stats.reissues, stats.reissue_failures), (6, 4));
}

#[tokio::test]
async fn a_delayed_token_request_is_in_flight_until_its_answer() {
    let (backend, http, _) = start(long_lived()).await;
    backend.set_reissue_delay(Duration::from_secs(3600));
    let slow = http.clone();
    let delayed = tokio::spawn(async move { slow.oauth(&[]).await });
    eventually(async || backend.stats().reissue_failures == 1).await;
    assert!(!delayed.is_finished());
    backend.set_reissue_delay(Duration::ZERO);
    http.oauth(&[]).await;
    assert_eq!(backend.stats().max_reissues_in_flight, 2);
    delayed.abort();
}

#[tokio::test]
async fn the_reissue_mode_decides_how_reissues_end() {
    let (backend, http, user) = start(rotating()).await;
    let login = http.log_in(&user).await;
    backend.set_reissue_mode(ReissueMode::Fail);
    assert_eq!(
        http.member(&login.refresh, &user).await.verdict(),
        refused("T-003")
    );
    backend.set_reissue_mode(ReissueMode::Error);
    let broken = http.cookie(&login.refresh).await;
    assert_eq!(broken.verdict(), (500, "S-001".to_owned()));
    backend.set_reissue_mode(ReissueMode::Dead);
    let dead = http.member(&login.refresh, &user).await;
    assert!(expiry(&dead) < jiff::Timestamp::now());
    let access = http.get(ME, &dead.text("accessToken")).await;
    assert_eq!(access.verdict(), refused("T-002"));
    backend.set_reissue_mode(ReissueMode::Ok);
    let live = http.cookie(&dead.text("refreshToken")).await;
    assert_eq!(
        http.get(ME, &live.text("accessToken")).await.verdict(),
        accepted()
    );
    assert_eq!(backend.stats().reissue_failures, 2);
}

#[tokio::test]
async fn the_access_lifetime_can_be_changed_for_the_tokens_to_come() {
    let (backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    backend.set_access_ttl(Duration::ZERO);
    let fresh = http.member(&login.refresh, &user).await.text("accessToken");
    assert_eq!(http.get(ME, &fresh).await.verdict(), refused("T-002"));
    assert_eq!(http.get(ME, &login.access).await.verdict(), accepted());
}

#[tokio::test]
async fn a_delayed_reissue_has_done_its_work_on_arrival_and_is_in_flight_until_its_answer() {
    let (backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    backend.set_reissue_delay(Duration::from_secs(3600));
    let (slow, refresh) = (http.clone(), login.refresh.clone());
    let delayed = tokio::spawn(async move { slow.cookie(&refresh).await });
    // Superseded, though the reissue has not been answered.
    eventually(async || http.get(ME, &login.access).await.verdict() != accepted()).await;
    assert!(!delayed.is_finished());
    backend.set_reissue_delay(Duration::ZERO);
    http.cookie(&login.refresh).await;
    assert_eq!(backend.stats().max_reissues_in_flight, 2);
    delayed.abort();
}

#[tokio::test]
async fn stats_count_protected_routes_only_and_over_http_they_are_the_same() {
    let (backend, http, user) = start(long_lived()).await;
    let login = http.log_in(&user).await;
    http.get(ME, &login.access).await;
    http.get("/items/x", &login.access).await;
    http.get(ME, "bad").await;
    http.get("/nowhere", "bad").await;
    http.cookie("bad").await;
    let expected = json!({
        "logins": 1, "reissues": 1, "reissue_failures": 1, "reuse_detected": 0,
        "max_reissues_in_flight": 1, "requests": { "200": 1, "400": 1, "401": 1 },
    });
    assert_eq!(http.get("/stats", "bad").await.json(), expected);
    assert_eq!(serde_json::to_value(backend.stats()).unwrap(), expected);
    backend.reset_stats();
    assert_eq!(backend.stats(), backend::Stats::default());
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_same_shape() {
    let (_backend, http, _) = start(long_lived()).await;
    let nowhere = http.get("/nowhere", "bad").await;
    assert_eq!(nowhere.verdict(), (404, "B-003".to_owned()));
    let wrong_method = http.get(LOGIN, "bad").await;
    assert_eq!(wrong_method.verdict(), (405, "B-004".to_owned()));
}

#[tokio::test]
async fn a_round_holds_its_rejections_until_all_its_requests_have_arrived() {
    let (backend, http, _) = start(long_lived()).await;
    backend.set_round(Some(holding(3)));
    let mut held = JoinSet::new();
    for _ in 0..2 {
        let http = http.clone();
        held.spawn(async move { http.get(ME, "bad").await.verdict() });
    }
    eventually(async || http.get("/stats", "").await.json()["requests"]["401"] == 2).await;
    // More exchanges than an answer takes.
    for _ in 0..20 {
        http.get("/stats", "").await;
    }
    assert!(held.try_join_next().is_none(), "answered too early");
    assert_eq!(http.get(ME, "bad").await.verdict(), refused("T-001"));
    assert_eq!(held.join_all().await, vec![refused("T-001"); 2]);
    assert_eq!(http.get(ME, "bad").await.verdict(), refused("T-001"));
}

fn holding(requests: usize) -> Round {
    Round {
        requests,
        hold_rejections: true,
        spread: Duration::ZERO,
    }
}

#[tokio::test]
async fn a_round_judges_on_arrival_and_does_not_hold_acceptances() {
    let (backend, http, user) = start(long_lived()).await;
    let token = http.log_in(&user).await.access;
    backend.set_round(Some(holding(1000)));
    assert_eq!(http.get(ME, &token).await.verdict(), accepted());
}

#[tokio::test]
async fn the_next_round_lets_go_what_the_one_before_held() {
    let (backend, http, _) = start(long_lived()).await;
    for _ in 0..2 {
        backend.set_round(Some(holding(1000)));
        backend.reset_stats();
        let (client, before) = (http.clone(), tokio::time::Instant::now());
        let held = tokio::spawn(async move { client.get(ME, "bad").await.verdict() });
        eventually(async || !backend.stats().requests.is_empty()).await;
        backend.set_round(None);
        assert_eq!(held.await.unwrap(), refused("T-001"));
        assert!(before.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_rejection_is_held_for_five_seconds_at_most() {
    let (backend, http, _) = start(long_lived()).await;
    backend.set_round(Some(holding(1000)));
    http.get("/stats", "").await;
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    http.get(ME, "bad").await;
    assert_eq!(before.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn a_round_spreads_its_answers_and_leaves_later_ones_alone() {
    let (backend, http, user) = start(long_lived()).await;
    let token = http.log_in(&user).await.access;
    backend.set_round(Some(Round {
        requests: 4,
        hold_rejections: false,
        spread: Duration::from_secs(200),
    }));
    http.get("/stats", "").await;
    tokio::time::pause();
    let mut seconds = Vec::new();
    for token in [token.as_str(), "bad", &token, "bad", &token, "bad"] {
        let before = tokio::time::Instant::now();
        http.get(ME, token).await;
        seconds.push(before.elapsed().as_secs());
    }
    assert_eq!(seconds, [0, 50, 100, 150, 0, 0]);
}

#[tokio::test]
async fn a_held_request_whose_client_leaves_was_counted_on_arrival() {
    let (backend, http, _) = start(long_lived()).await;
    backend.set_round(Some(holding(2)));
    let client = http.clone();
    let held = tokio::spawn(async move { client.get(ME, "bad").await.verdict() });
    eventually(async || !backend.stats().requests.is_empty()).await;
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    http.get(ME, "bad").await;
    assert_eq!(backend.stats().requests, BTreeMap::from([(401, 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_requests_two_hundred_at_a_time_each_gets_its_own_answer() {
    let (backend, http, user) = start(long_lived()).await;
    let token = http.log_in(&user).await.access;
    // All at once would meet the usual limit of open descriptors.
    for first in (0..1000).step_by(200) {
        let mut requests = JoinSet::new();
        for n in first..first + 200 {
            let (http, token) = (http.clone(), token.clone());
            requests.spawn(async move {
                let answer = http.get(&format!("/items/{n}"), &token).await;
                assert_eq!(answer.json()["item"], n);
            });
        }
        requests.join_all().await;
    }
    assert_eq!(backend.stats().requests, BTreeMap::from([(200, 1000)]));
}

#[tokio::test]
async fn http_2_is_spoken_too() {
    let (backend, _, user) = start(long_lived()).await;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let http = Http {
        base: backend.base(),
        client,
    };
    let token = http.log_in(&user).await.access;
    assert_eq!(http.get(ME, &token).await.verdict(), accepted());
}

#[tokio::test]
async fn a_back_end_that_was_shut_down_or_dropped_takes_no_connections() {
    let (backend, http, user) = start(long_lived()).await;
    http.log_in(&user).await;
    let addr = backend.addr();
    backend.shutdown().await;
    assert!(TcpStream::connect(addr).await.is_err());
    let (backend, ..) = start(long_lived()).await;
    let addr = backend.addr();
    drop(backend);
    eventually(async || TcpStream::connect(addr).await.is_err()).await;
}

/// A path for this test only, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_database_file_keeps_logins_over_a_restart_and_no_token_in_the_clear() {
    let scratch = Scratch::new("backend-restart");
    let config = Config {
        db: Some(scratch.0.join("backend.db")),
        ..rotating()
    };
    let (backend, http, user) = start(config.clone()).await;
    let login = http.log_in(&user).await;
    backend.shutdown().await;
    for file in std::fs::read_dir(&scratch.0).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&login.refresh) && !text.contains(&user.password));
    }
    let (_backend, http, same) = start(config).await;
    assert_eq!(same.id, user.id);
    let fresh = http.member(&login.refresh, &user).await.text("accessToken");
    assert_eq!(http.get(ME, &fresh).await.verdict(), accepted());
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_an_error_at_the_start() {
    let config = Config {
        db: Some("/nonexistent/backend.db".into()),
        ..Config::default()
    };
    assert!(Backend::start(config).await.is_err());
}

/// The program, through cargo: one that lies about from an earlier build would prove nothing.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--quiet", "--example", "backend"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.arg("--").args(arguments).stderr(Stdio::null());
    command
}

/// The program, and what it says when it listens.
fn announced(arguments: &[&str]) -> (Child, Value) {
    let mut running = program(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let line = child::first_line(&mut running);
    (running, serde_json::from_str(&line).expect("JSON"))
}

#[tokio::test]
async fn the_program_announces_itself_and_serves_until_its_input_closes() {
    let arguments = ["--access-ttl", "0ms", "--expired-code", "GONE", "--rotate"];
    let (mut running, line) = announced(&arguments);
    let http = Http::new(line["base"].as_str().unwrap().to_owned());
    let credentials = line["user"].clone();
    assert!(credentials["id"].is_string());
    let client = json!({ "id": "demo", "secret": "demo-secret" });
    assert_eq!(line["client"], client);
    assert_eq!(line.get("grpc"), None);
    let login = http.post(LOGIN, "", credentials).await;
    let answer = http.get(ME, &login.text("accessToken")).await;
    assert_eq!(answer.verdict(), refused("GONE"));
    drop(running.stdin.take());
    assert!(child::wait(&mut running).success());
}

#[tokio::test]
async fn the_program_says_where_it_serves_grpc() {
    let (mut running, line) = announced(&["--grpc-port", "0"]);
    assert_ne!(line["grpc"], line["base"]);
    let address = line["grpc"].as_str().expect("a URL").to_owned();
    let mut greeter = GreeterClient::connect(address).await.expect("it listens");
    let refused = greeter.say_hello(HelloRequest::default()).await;
    let status = refused.expect_err("there was no token");
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    drop(running.stdin.take());
    assert!(child::wait(&mut running).success());
}

#[test]
fn the_program_ends_with_2_for_wrong_usage() {
    for arguments in [
        ["--access-ttl", "soon"],
        ["--reissue-mode", "odd"],
        ["--grpc-port", "65536"],
    ] {
        let ended = program(&arguments).status();
        assert_eq!(ended.expect("it starts").code(), Some(2));
    }
}
