//! Who sends a token request (RFC 6749 section 2.3.1).

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{
    super::secrets::fingerprint,
    form::{self, Form},
    refusal::Refusal,
};

/// Somebody who can ask for tokens in its own name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Client {
    pub id: String,
    pub secret: String,
}

impl Client {
    /// The only one there is.
    pub fn demo() -> Self {
        Self {
            id: "demo".to_owned(),
            secret: "demo-secret".to_owned(),
        }
    }

    /// The secrets are compared by their hashes, so that the time it takes tells nothing.
    fn is(&self, other: &Self) -> bool {
        self.id == other.id && fingerprint(&self.secret) == fingerprint(&other.secret)
    }
}

/// Who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client, with its secret.
    Client,
    /// Nobody said.
    Unknown,
}

/// Checks the credentials, if there are any: in the header, or in the body.
pub fn authenticate(
    headers: &HeaderMap,
    form: &Form<'_>,
    known: &Client,
) -> Result<Sender, Refusal> {
    let in_header = headers.contains_key(AUTHORIZATION);
    let (id, secret) = (form.get("client_id"), form.get("client_secret"));
    let given = match (id, secret) {
        (_, Some(_)) if in_header => return Err(Refusal::TwoWaysToAuthenticate),
        (Some(id), Some(secret)) => Client {
            id: id.to_owned(),
            secret: secret.to_owned(),
        },
        (None, Some(_)) => return Err(Refusal::Missing("client_id")),
        (id, None) if in_header => {
            let given = basic(headers).ok_or(Refusal::BadHeader)?;
            if id.is_some_and(|id| id != given.id) {
                return Err(Refusal::TwoClients);
            }
            given
        }
        (None, None) => return Ok(Sender::Unknown),
        // It has a secret, so its name alone is not enough.
        (Some(_), None) => return Err(Refusal::BadCredentials),
    };
    match known.is(&given) {
        true => Ok(Sender::Client),
        false => Err(Refusal::unauthenticated(headers)),
    }
}

/// The credentials in the only `Authorization` header. Both parts are written as in a form before
/// they are encoded in Base64.
fn basic(headers: &HeaderMap) -> Option<Client> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Client {
        id: form::decode(id),
        secret: form::decode(secret),
    })
}
