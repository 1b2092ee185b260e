//! What stands before the routes: the judgement of access tokens, the count of reissues, and the delays.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, Limited};
use tokio::time::{sleep, timeout};

use super::{app::App, refusal::Refusal, routes::BODY_LIMIT, tokens::Caller};

const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Lets requests with a live access token through. It judges on arrival and counts at once, even
/// where the answer is kept back.
pub async fn protect(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    admit(&app, request, next, Refusal::into_response).await
}

/// The same for calls, which are told by their gRPC status. They are counted by the status of HTTP all
/// the same: 401 for those that are refused here, and 200 for those that come through, however they end.
pub async fn protect_calls(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    admit(&app, request, next, Refusal::into_grpc).await
}

async fn admit(
    app: &App,
    mut request: Request,
    next: Next,
    refuse: fn(Refusal) -> Response,
) -> Response {
    let turn = app.pace.arrive();
    let undecided = app.counters.request();
    match judge(app, request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let response = next.run(request).await;
            undecided.decided(response.status().as_u16());
            turn.accepted().await;
            response
        }
        Err(refusal) => {
            undecided.decided(refusal.status().as_u16());
            drain(request.into_body()).await;
            turn.rejected().await;
            refuse(refusal)
        }
    }
}

fn judge(app: &App, headers: &HeaderMap) -> Result<Caller, Refusal> {
    app.judge(bearer(headers)?)
}

/// The only token in the only `Authorization` header.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::NoToken)?;
    if values.next().is_some() {
        return Err(Refusal::InvalidToken);
    }
    let value = value.to_str().map_err(|_| Refusal::InvalidToken)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim_start()),
        _ => Err(Refusal::InvalidToken),
    }
}

/// Reads what the client still sends, within limits: it might not see an answer that comes earlier.
async fn drain(body: Body) {
    let mut rest = Limited::new(body, BODY_LIMIT);
    let read = async { while let Some(Ok(_)) = rest.frame().await {} };
    let _ = timeout(DRAIN_TIME, read).await;
}

/// Counts a reissue, and keeps its answer back for as long as the configuration says.
pub async fn reissue(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let _in_flight = app.counters.reissue();
    let response = next.run(request).await;
    if !response.status().is_success() {
        app.counters.reissue_failed();
    }
    let delay = app.config().reissue_delay;
    if !delay.is_zero() {
        sleep(delay).await;
    }
    response
}
