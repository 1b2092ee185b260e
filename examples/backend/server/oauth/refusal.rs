//! Errors as RFC 6749 section 5.2 has them. Nothing the client sent is repeated in them.

use axum::{
    Json,
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, PRAGMA, WWW_AUTHENTICATE},
    },
    response::{AppendHeaders, IntoResponse, Response},
};
use serde_json::json;

use super::super::refusal::Refusal as Cause;

/// On every answer (section 5.1).
pub const NO_STORE: AppendHeaders<[(HeaderName, &str); 2]> =
    AppendHeaders([(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")]);

const CHALLENGE: &str = r#"Basic realm="backend""#;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Credentials in the body that are wrong, or none where they are needed.
    BadCredentials,
    /// The same in the `Authorization` header, which may not be readable either.
    BadHeader,
    DeadRefreshToken,
    Missing(&'static str),
    NoForm,
    Repeated,
    TwoClients,
    TwoWaysToAuthenticate,
    TooLarge,
    UnsupportedGrantType,
    Broken,
}

impl Refusal {
    /// A challenge answers those who have tried the header.
    pub fn unauthenticated(headers: &HeaderMap) -> Self {
        match headers.contains_key(AUTHORIZATION) {
            true => Self::BadHeader,
            false => Self::BadCredentials,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadCredentials | Self::BadHeader => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn error(&self) -> &'static str {
        match self {
            Self::BadCredentials | Self::BadHeader => "invalid_client",
            Self::DeadRefreshToken => "invalid_grant",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::Broken => "server_error",
            _ => "invalid_request",
        }
    }

    fn description(&self) -> String {
        match self {
            Self::BadCredentials => "the client has not authenticated, or not rightly",
            Self::BadHeader => "the client's Basic credentials are not right",
            Self::DeadRefreshToken => "the refresh token is not valid, has expired, or was used",
            Self::Missing(name) => return format!("the parameter {name} is missing"),
            Self::NoForm => "the body is no application/x-www-form-urlencoded",
            Self::Repeated => "a parameter is given more than once",
            Self::TwoClients => "header and body name two clients",
            Self::TwoWaysToAuthenticate => "the client authenticates in two ways",
            Self::TooLarge => "the body is too large",
            Self::UnsupportedGrantType => "the grants are refresh_token and client_credentials",
            Self::Broken => "the server has failed",
        }
        .to_owned()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let challenge = (self == Self::BadHeader).then_some([(WWW_AUTHENTICATE, CHALLENGE)]);
        let body = json!({ "error": self.error(), "error_description": self.description() });
        (self.status(), NO_STORE, challenge, Json(body)).into_response()
    }
}

/// What a reissue says, in the words of OAuth.
impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::DeadRefreshToken | Cause::InvalidToken => Self::DeadRefreshToken,
            Cause::TooLarge => Self::TooLarge,
            _ => Self::Broken,
        }
    }
}
