//! What the gateway itself answers when it has nothing of the back end's to pass on.

use axum::{
    Json,
    body::Bytes,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde_json::json;
use tower_token_refresh::{BoxError, ConfigError, RefreshError};

pub enum Refusal {
    /// No cookie, or one that stands for nobody.
    NotLoggedIn,
    /// The back end will have no more of this login.
    Over,
    /// There is no new token at the moment, and there may be one soon.
    Later,
    BadRequest,
    NotFound,
    /// The back end did not answer.
    NoAnswer,
    /// The back end lets nobody in, and says so in JSON.
    Login(StatusCode, Bytes),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::NotLoggedIn => (StatusCode::UNAUTHORIZED, "G-001", "not logged in"),
            Self::Over => (
                StatusCode::UNAUTHORIZED,
                "G-002",
                "the session has ended, log in again",
            ),
            Self::Later => (
                StatusCode::SERVICE_UNAVAILABLE,
                "G-003",
                "not done, for want of a fresh token, try again",
            ),
            Self::BadRequest => (StatusCode::BAD_REQUEST, "G-004", "not understood"),
            Self::NotFound => (StatusCode::NOT_FOUND, "G-005", "no such resource"),
            Self::NoAnswer => (
                StatusCode::BAD_GATEWAY,
                "G-006",
                "the back end does not answer",
            ),
            Self::Login(status, body) => {
                let json = [(CONTENT_TYPE, "application/json")];
                return (status, json, body).into_response();
            }
        };
        let answer = (status, Json(json!({ "code": code, "message": message })));
        // No cookie is taken back here: it may be another by now, if somebody has logged in meanwhile.
        match status {
            StatusCode::SERVICE_UNAVAILABLE => ([(RETRY_AFTER, "1")], answer).into_response(),
            _ => answer.into_response(),
        }
    }
}

impl From<RefreshError> for Refusal {
    fn from(error: RefreshError) -> Self {
        match error.is_session_ended() {
            true => Self::Over,
            false => Self::Later,
        }
    }
}

impl From<BoxError> for Refusal {
    fn from(error: BoxError) -> Self {
        match error.downcast::<RefreshError>() {
            Ok(error) => (*error).into(),
            Err(_) => Self::NoAnswer,
        }
    }
}

impl From<ConfigError> for Refusal {
    fn from(_: ConfigError) -> Self {
        Self::NoAnswer
    }
}
