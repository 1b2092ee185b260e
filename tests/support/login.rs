//! A login at the reference back end.

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use crate::backend::Backend;

/// Logs in as the demonstration user: what the back end answers.
pub async fn log_in(backend: &Backend) -> Bytes {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let user = backend.user();
    let credentials = json!({ "email": user.email, "password": user.password });
    let request = Request::post(format!("{}/member/login", backend.base()));
    let request = request.body(Full::from(credentials.to_string()));
    let answer = client.request(request.expect("a request")).await;
    let body = answer.expect("an answer").into_body().collect().await;
    body.expect("a body").to_bytes()
}
