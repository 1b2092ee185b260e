//! How reissues and their answers are written, on each of the issuer's paths.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cookie::Cookie;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body_util::Full;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::book::Issued;

pub(super) type Answer = Response<Full<Bytes>>;

/// The cookie that holds the refresh token.
const COOKIE: &str = "refreshToken";

/// How an issuer is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Json,
    Cookie,
    OAuth,
}

/// What a reissue is made from.
#[derive(Clone)]
pub(super) enum Presented {
    RefreshToken(String),
    Client(String),
}

/// Why a reissue brings no tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// The refresh token is no good.
    Refused,
    /// There is no refresh token.
    Malformed,
    /// Of OAuth: not the client that the issuer knows.
    Client,
    /// Of OAuth.
    GrantType,
}

/// The name and the secret of a client.
pub(super) type Credentials = (String, String);

impl Style {
    /// Of a reissue; any other request is for the API.
    pub(super) fn of(head: &Parts) -> Option<Self> {
        match head.uri.path() {
            _ if head.method != Method::POST => None,
            "/reissue/json" => Some(Self::Json),
            "/reissue/cookie" => Some(Self::Cookie),
            "/oauth/token" => Some(Self::OAuth),
            _ => None,
        }
    }

    pub(super) fn read(
        self,
        head: &Parts,
        body: &[u8],
        client: Option<&Credentials>,
    ) -> Result<Presented, Denial> {
        let token = match self {
            Self::Json => bearer(head).or_else(|| member(body, COOKIE)),
            Self::Cookie => cookie(head),
            Self::OAuth => return grant(head, body, client),
        };
        let token = token.filter(|token| !token.is_empty());
        token.map(Presented::RefreshToken).ok_or(Denial::Malformed)
    }

    pub(super) fn answer(self, issued: &Issued) -> Answer {
        let text = self.document(issued).to_string();
        self.with_tokens(text, issued)
    }

    /// The first half of it; the headers are whole.
    pub(super) fn answer_cut_off(self, issued: &Issued) -> Answer {
        let mut text = self.document(issued).to_string();
        text.truncate(text.len() / 2);
        self.with_tokens(text, issued)
    }

    fn document(self, issued: &Issued) -> Value {
        let (access, refresh, lifetime) = match self {
            Self::Json => ("accessToken", Some("refreshToken"), "expiresIn"),
            Self::Cookie => ("accessToken", None, "expiresIn"),
            Self::OAuth => ("access_token", Some("refresh_token"), "expires_in"),
        };
        let mut members = Map::new();
        members.insert(access.to_owned(), json!(issued.access));
        if let Some(of) = issued.lifetime {
            members.insert(lifetime.to_owned(), seconds(of));
        }
        if let (Some(name), Some(token)) = (refresh, &issued.refresh) {
            members.insert(name.to_owned(), json!(token));
        }
        if self == Self::OAuth {
            members.insert("token_type".to_owned(), json!("Bearer"));
        }
        Value::Object(members)
    }

    fn with_tokens(self, text: String, issued: &Issued) -> Answer {
        let mut answer = document(StatusCode::OK, text);
        let headers = answer.headers_mut();
        // RFC 6749 section 5.1.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let (Self::Cookie, Some(token)) = (self, &issued.refresh) {
            let set = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax");
            insert(&mut answer, header::SET_COOKIE, &set);
        }
        answer
    }

    pub(super) fn deny(self, denial: Denial) -> Answer {
        let status = match denial {
            Denial::Refused if self != Self::OAuth => StatusCode::UNAUTHORIZED,
            Denial::Client => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        };
        let (name, code) = match (self, denial) {
            (Self::OAuth, Denial::Refused) => ("error", "invalid_grant"),
            (Self::OAuth, Denial::Malformed) => ("error", "invalid_request"),
            (_, Denial::Client) => ("error", "invalid_client"),
            (_, Denial::GrantType) => ("error", "unsupported_grant_type"),
            (_, Denial::Refused) => ("code", "refused"),
            (_, Denial::Malformed) => ("code", "malformed"),
        };
        let mut answer = document(status, json!({ name: code }).to_string());
        if denial == Denial::Client {
            insert(
                &mut answer,
                header::WWW_AUTHENTICATE,
                "Basic realm=\"issuer\"",
            );
        }
        answer
    }
}

/// The token in `Authorization: Bearer`.
pub(super) fn bearer(head: &Parts) -> Option<String> {
    authorization(head, "Bearer").map(str::to_owned)
}

/// An answer of the API to a token that is no good.
pub(super) fn rejection(code: &str, challenge: &str) -> Answer {
    let mut answer = document(
        StatusCode::UNAUTHORIZED,
        json!({ "code": code }).to_string(),
    );
    insert(&mut answer, header::WWW_AUTHENTICATE, challenge);
    answer
}

/// The value must be one that can stand in a header; another is left out.
pub(super) fn insert(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// Gives the answer another body.
pub(super) fn replace(answer: &mut Answer, json: Bytes) {
    *answer.body_mut() = Full::new(json);
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
}

fn document(status: StatusCode, text: String) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = status;
    replace(&mut answer, Bytes::from(text));
    answer
}

/// Without a point where it is whole, as most issuers write it.
fn seconds(lifetime: Duration) -> Value {
    match lifetime.subsec_nanos() {
        0 => json!(lifetime.as_secs()),
        _ => json!(lifetime.as_secs_f64()),
    }
}

fn authorization<'a>(head: &'a Parts, scheme: &str) -> Option<&'a str> {
    let value = head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (its, rest) = value.split_once(' ')?;
    its.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn member(body: &[u8], name: &str) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    value.get(name)?.as_str().map(str::to_owned)
}

fn cookie(head: &Parts) -> Option<String> {
    let lines = head.headers.get_all(header::COOKIE).into_iter();
    let mut cookies = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(Cookie::split_parse)
        .filter_map(Result::ok);
    let ours = cookies.find(|cookie| cookie.name() == COOKIE)?;
    Some(ours.value().to_owned())
}

/// RFC 6749 sections 6 and 4.4.
fn grant(head: &Parts, body: &[u8], known: Option<&Credentials>) -> Result<Presented, Denial> {
    let params: Vec<_> = form_urlencoded::parse(body).collect();
    let param = |wanted: &str| {
        let found = params.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.to_string())
    };
    let in_body = || {
        Some((
            param("client_id")?,
            param("client_secret").unwrap_or_default(),
        ))
    };
    let client = basic(head).or_else(in_body);
    if known.is_some() && client.as_ref() != known {
        return Err(Denial::Client);
    }
    match param("grant_type").as_deref() {
        Some("refresh_token") => param("refresh_token")
            .map(Presented::RefreshToken)
            .ok_or(Denial::Malformed),
        Some("client_credentials") => client
            .map(|(id, _)| Presented::Client(id))
            .ok_or(Denial::Client),
        Some(_) => Err(Denial::GrantType),
        None => Err(Denial::Malformed),
    }
}

/// RFC 6749 section 2.3.1: both are form-encoded.
fn basic(head: &Parts) -> Option<Credentials> {
    let pair = STANDARD.decode(authorization(head, "Basic")?).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let (id, secret) = pair.split_once(':')?;
    let decoded = |text: &str| {
        let mut pairs = form_urlencoded::parse(text.as_bytes());
        pairs.next().map(|(text, _)| text.into_owned())
    };
    Some((decoded(id)?, decoded(secret).unwrap_or_default()))
}
