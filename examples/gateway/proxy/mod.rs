//! A reverse proxy that keeps the users' tokens to itself: a browser has a cookie, and the gateway has a
//! session for it.
//!
//! `POST /login` and `POST /logout` are its own. Everything else goes to the back end with the token of
//! the session that the cookie stands for.

// Each program that includes this module uses a part of it.
#![allow(dead_code)]

mod headers;
mod refusal;
mod sessions;
mod upstream;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::SET_COOKIE},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::json;
use tower_token_refresh::{BoxError, RefreshError, Session};

use refusal::Refusal;
pub use sessions::Sessions;
use upstream::Upstream;

/// E-mail address and password; nobody's are longer.
const LOGIN_LIMIT: usize = 4 * 1024;

struct Gateway {
    sessions: Sessions,
    upstream: Upstream,
}

/// The gateway before the back end at `base`, with the sessions of its users.
pub fn router(base: &str, sessions: Sessions) -> Result<Router, BoxError> {
    let upstream = Upstream::new(base)?;
    let gateway = Arc::new(Gateway { sessions, upstream });
    Ok(Router::new()
        .route("/login", post(login))
        .route("/logout", post(logout))
        .fallback(forward)
        .with_state(gateway))
}

async fn login(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let credentials = to_bytes(body, LOGIN_LIMIT).await;
    let credentials = credentials.map_err(|_| Refusal::BadRequest)?;
    let login = gateway.upstream.log_in(credentials).await?;
    let session = gateway.upstream.session()?;
    session.login(login.tokens).await?;
    // Whoever was logged in with this browser is not any more, and what still waits for their new
    // token is not sent with the one of somebody else: it is another session.
    if let Some(before) = gateway.sessions.remove(&headers) {
        let _ = before.logout().await;
    }
    let cookie = gateway.sessions.insert(session);
    let who = json!({ "id": login.id, "email": login.email });
    Ok(([(SET_COOKIE, cookie)], Json(who)).into_response())
}

async fn logout(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    if let Some(session) = gateway.sessions.remove(&headers) {
        // If the back end can't be told, its tokens expire by themselves: here they are forgotten.
        let _ = gateway.upstream.log_out(&session).await;
        let _ = session.logout().await;
    }
    let cookie = sessions::no_cookie();
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}

async fn forward(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Refusal> {
    let session = gateway.sessions.find(request.headers());
    let session = session.ok_or(Refusal::NotLoggedIn)?;
    let mut request = gateway.upstream.address(request)?;
    // From here on the layer knows whose request it is.
    request.extensions_mut().insert::<Session>(session);
    let mut response = gateway.upstream.send(request).await?;
    if let Some(why) = response.extensions().get::<RefreshError>() {
        // A 401 would tell the browser that the login is over, which it is in one case only.
        return Err(why.clone().into());
    }
    headers::keep_end_to_end(response.headers_mut());
    Ok(response)
}
