//! The token endpoint of OAuth 2.0 (RFC 6749): what clients of standard issuers talk to.
//!
//! It takes the refresh tokens of `/member/login`. They belong to no client, so a refresh without
//! any client authentication is in order; one that is wrong is not.

mod client;
mod form;
mod refusal;

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::{Number, Value, json};

use super::{
    app::{App, Grant, Reissue},
    routes,
};
pub use client::Client;
use client::Sender;
use form::Form;
use refusal::{NO_STORE, Refusal};

/// `POST /oauth/token`
pub async fn token(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    match grant(&app, &headers, body).await {
        Ok(grant) => (NO_STORE, Json(answer(&grant))).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn grant(app: &Arc<App>, headers: &HeaderMap, body: Body) -> Result<Grant, Refusal> {
    let body = routes::whole(body).await?;
    let form = Form::parse(headers, &body)?;
    let sender = client::authenticate(headers, &form, &Client::demo())?;
    match form.required("grant_type")? {
        // RFC 6749 section 6
        "refresh_token" => {
            let refresh_token = form.required("refresh_token")?.to_owned();
            Ok(app.reissue(refresh_token, Reissue::OAuth).await?)
        }
        // Section 4.4
        "client_credentials" => match sender {
            Sender::Client => Ok(app.client_credentials().await?),
            Sender::Unknown => Err(Refusal::unauthenticated(headers)),
        },
        _ => Err(Refusal::UnsupportedGrantType),
    }
}

/// Section 5.1.
fn answer(grant: &Grant) -> Value {
    let mut answer = json!({
        "access_token": grant.access.token,
        "token_type": "Bearer",
        "expires_in": seconds(grant.access.lifetime),
    });
    if let Some(refresh) = &grant.refresh {
        answer["refresh_token"] = json!(refresh);
    }
    answer
}

/// Whole seconds are written as the RFC has them. Others are more precise than that: a lifetime of
/// 250 ms would be none if it were rounded.
fn seconds(lifetime: Duration) -> Number {
    let decimal = || Number::from_f64(lifetime.as_secs_f64());
    match lifetime.subsec_nanos() {
        0 => lifetime.as_secs().into(),
        _ => decimal().unwrap_or_else(|| 0.into()),
    }
}
