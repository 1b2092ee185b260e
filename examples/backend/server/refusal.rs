//! Every way to say no, in one shape: `{"code","message"}`. Nothing the client sent is repeated in it.

use std::sync::Arc;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tonic::Status;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    InvalidToken,
    /// With the code that the configuration gives it.
    ExpiredToken(Arc<str>),
    DeadRefreshToken,
    NoToken,
    OtherUser,
    LoginFailed,
    BadRequest,
    TooLarge,
    NoSuchRoute,
    WrongMethod,
    Broken,
    /// For so many seconds.
    Busy(u16),
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoSuchRoute => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::InvalidToken => "T-001",
            Self::ExpiredToken(code) => code,
            Self::DeadRefreshToken => "T-003",
            Self::NoToken => "T-004",
            Self::OtherUser => "T-005",
            Self::LoginFailed => "L-001",
            Self::BadRequest => "B-001",
            Self::TooLarge => "B-002",
            Self::NoSuchRoute => "B-003",
            Self::WrongMethod => "B-004",
            Self::Broken => "S-001",
            Self::Busy(_) => "S-002",
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::InvalidToken => "this is not a valid token",
            Self::ExpiredToken(_) => "the access token has expired",
            Self::DeadRefreshToken => "the refresh token has expired, or was used or revoked",
            Self::NoToken => "there is no token",
            Self::OtherUser => "the token belongs to another user",
            Self::LoginFailed => "e-mail address or password is wrong",
            Self::BadRequest => "the request is not in the form expected",
            Self::TooLarge => "the body is too large",
            Self::NoSuchRoute => "there is nothing here",
            Self::WrongMethod => "not with this method",
            Self::Broken => "the server has failed",
            Self::Busy(_) => "the server is busy",
        }
    }

    /// The answer of a call that ends before its first message: the status among the headers. It is
    /// `UNAUTHENTICATED` for all that the guard of calls refuses, and its message begins with the code.
    pub fn into_grpc(self) -> Response {
        let message = format!("{}: {}", self.code(), self.message());
        Status::unauthenticated(message).into_http()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "code": self.code(), "message": self.message() });
        let mut response = (self.status(), Json(body)).into_response();
        if let Self::Busy(seconds) = self {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The cause stays inside: it is of no use to the client.
impl From<anyhow::Error> for Refusal {
    fn from(_: anyhow::Error) -> Self {
        Self::Broken
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(_: rusqlite::Error) -> Self {
        Self::Broken
    }
}
