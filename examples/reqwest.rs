//! A reqwest client that stays logged in.
//!
//! `cargo run --example reqwest`
//!
//! It starts the reference back end on loopback, logs in, has the server expire the token, and asks
//! for an item all the same.

#[path = "backend/server/mod.rs"]
mod backend;

use anyhow::Context;
use backend::{Backend, Config, User};
use http::Request;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt};
use tower_token_refresh::{
    BoxError, DefaultClassifier, ErrorCodes, JsonReissue, ReplayBody, Session, TokenRefreshLayer,
    TokenSet,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let backend = Backend::start(Config::default()).await?;
    let base = backend.base();
    // Redirects would be followed below the layer, out of its sight, and retries could present a
    // refresh token twice. And no proxy leads to loopback.
    let reqwest = reqwest::Client::builder()
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .build()?;

    // As a tower service: for requests with any body, and for the issuer.
    let http = ServiceBuilder::new()
        .filter(|request: Request<ReplayBody<reqwest::Body>>| {
            reqwest::Request::try_from(request.map(reqwest::Body::wrap))
        })
        .map_response(http::Response::<reqwest::Body>::from)
        .service(reqwest.clone());

    let issuer = JsonReissue::post(format!("{base}/member/token/refresh"), http.clone());
    let session = Session::builder(issuer.refused("T-003")).build()?;
    let codes = ErrorCodes::json("/code").expired("T-002").ended("T-003");
    let layer =
        TokenRefreshLayer::new(&*base, session.clone())?.classify(codes.or(DefaultClassifier));
    let client = ServiceBuilder::new().layer(layer).service(http);

    session
        .login(log_in(&reqwest, &base, backend.user()).await?)
        .await?;
    backend.expire_access_tokens();

    // Built by reqwest and read by reqwest; in between it may have been sent twice.
    let request = reqwest.get(format!("{base}/items/7")).build()?;
    let response = client.oneshot(request.try_into()?).await?;
    let response = reqwest::Response::from(response.map(reqwest::Body::wrap));

    let (status, text) = (response.status(), response.text().await?);
    let reissues = session.stats().reissues;
    println!("{status}, after {reissues} reissue: {text}");
    Ok(())
}

async fn log_in(reqwest: &reqwest::Client, base: &str, user: &User) -> anyhow::Result<TokenSet> {
    let credentials = json!({ "email": user.email, "password": user.password });
    let request = reqwest
        .post(format!("{base}/member/login"))
        .header("content-type", "application/json")
        .body(credentials.to_string());
    let answer: Value = serde_json::from_slice(&request.send().await?.bytes().await?)?;
    let text = |name: &str| answer[name].as_str().context("no such member");
    Ok(TokenSet::new(text("accessToken")?)?
        .with_refresh_token(text("refreshToken")?)?
        .with_identity("id", text("id")?)
        .with_identity("email", text("email")?))
}
