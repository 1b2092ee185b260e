//! The routes and the shape of their answers.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, State, rejection::PathRejection},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, COOKIE, SET_COOKIE},
    },
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::{get, post},
};
use cookie::Cookie;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{
    app::{App, Grant, Reissue, Sender},
    guard, oauth,
    refusal::Refusal,
    stats::Stats,
    tokens::Caller,
};

pub const BODY_LIMIT: usize = 2 * 1024 * 1024;
const REFRESH_COOKIE: &str = "refreshToken";

type Result<T> = std::result::Result<T, Refusal>;

pub fn router(app: &Arc<App>) -> Router {
    let protected = Router::new()
        .route("/member/logout", post(logout))
        .route("/member/me", get(me))
        .route("/items/{n}", get(item))
        .route("/echo", post(echo))
        .route_layer(from_fn_with_state(app.clone(), guard::protect));
    let reissues = Router::new()
        .route("/member/token/refresh", post(member_refresh))
        .route("/v1/api/auth/reissue", post(cookie_reissue))
        .route("/oauth/token", post(oauth::token))
        .route_layer(from_fn_with_state(app.clone(), guard::reissue));
    Router::new()
        .route("/member/login", post(login))
        .route("/stats", get(stats))
        .merge(protected)
        .merge(reissues)
        .fallback(async || Refusal::NoSuchRoute)
        .method_not_allowed_fallback(async || Refusal::WrongMethod)
        .with_state(app.clone())
}

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: String,
}

async fn login(State(app): State<Arc<App>>, body: Body) -> Result<impl IntoResponse> {
    let Credentials { email, password } = json_body(body).await?;
    let grant = app.login(email, password).await?;
    let mut answer = answer(&grant);
    answer.insert("id".to_owned(), json!(grant.user.id));
    answer.insert("email".to_owned(), json!(grant.user.email));
    Ok((new_cookie(&grant), Json(answer)))
}

#[derive(Deserialize)]
struct Member {
    id: String,
    email: String,
}

async fn member_refresh(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse> {
    let token = guard::bearer(&headers)?.to_owned();
    let Member { id, email } = json_body(body).await?;
    let sender = Sender { id, email };
    let grant = app.reissue(token, Reissue::Member(sender)).await?;
    Ok(Json(answer(&grant)))
}

async fn cookie_reissue(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse> {
    let token = cookie_token(&headers).ok_or(Refusal::NoToken)?;
    let grant = app.reissue(token, Reissue::Cookie).await?;
    let cookie = new_cookie(&grant);
    // The cookie is where this client keeps it: out of reach of scripts.
    let mut answer = answer(&grant);
    answer.remove("refreshToken");
    Ok((cookie, Json(answer)))
}

async fn logout(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Result<impl IntoResponse> {
    app.logout(caller.family).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn me(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({ "id": caller.user.id, "email": caller.user.email }))
}

async fn item(
    Extension(caller): Extension<Caller>,
    n: std::result::Result<Path<u64>, PathRejection>,
) -> Result<Json<Value>> {
    let Path(n) = n.map_err(|_| Refusal::BadRequest)?;
    Ok(Json(json!({ "item": n, "owner": caller.user.id })))
}

async fn echo(headers: HeaderMap, body: Body) -> Result<impl IntoResponse> {
    let unknown = HeaderValue::from_static("application/octet-stream");
    let content_type = headers.get(CONTENT_TYPE).cloned().unwrap_or(unknown);
    Ok(([(CONTENT_TYPE, content_type)], whole(body).await?))
}

async fn stats(State(app): State<Arc<App>>) -> Json<Stats> {
    Json(app.counters.snapshot())
}

/// The body, if it is not too large.
pub async fn whole(body: Body) -> Result<Bytes> {
    // The other error is a client that has left, which sees no answer.
    let read = to_bytes(body, BODY_LIMIT).await;
    read.map_err(|_| Refusal::TooLarge)
}

async fn json_body<T: DeserializeOwned>(body: Body) -> Result<T> {
    // What the parser says may quote the body, and so a password: it is not passed on.
    serde_json::from_slice(&whole(body).await?).map_err(|_| Refusal::BadRequest)
}

fn cookie_token(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(Cookie::split_parse)
        .flatten()
        .find(|cookie| cookie.name() == REFRESH_COOKIE)
        .map(|cookie| cookie.value().to_owned())
}

fn answer(grant: &Grant) -> Map<String, Value> {
    let mut answer = Map::new();
    answer.insert("accessToken".to_owned(), json!(grant.access.token));
    let expiry = json!(grant.access.expiry_text());
    answer.insert("accessTokenExpiresAt".to_owned(), expiry);
    if let Some(refresh) = &grant.refresh {
        answer.insert("refreshToken".to_owned(), json!(refresh));
    }
    answer
}

/// Only when there is a new refresh token to put in it.
fn new_cookie(grant: &Grant) -> Option<[(HeaderName, String); 1]> {
    let token = grant.refresh.as_ref()?;
    let cookie = format!("{REFRESH_COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax");
    Some([(SET_COOKIE, cookie)])
}
