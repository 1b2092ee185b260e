//! Issuers with a contract of their own in JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::header;
use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::Value;
use zeroize::Zeroizing;

use super::Reissue;
use super::ReissueError;
use super::ReissueRequest;
use super::answer;
use super::answer::Contract;
use super::exchange::Exchange;
use super::exchange::TokenInBody;
use super::exchange::secret_value;
use super::settings::client_settings;
use super::settings::json_settings;
use crate::error::ConfigError;
use crate::json::Pointer;
use crate::token::TokenSet;

/// Posts the refresh token to an address and reads new tokens out of a JSON answer.
///
/// The refresh token goes as `Authorization: Bearer …`, or in the body
/// ([`refresh_token_in_body`](Self::refresh_token_in_body)). The body is what is known of the user
/// ([`TokenSet::with_identity`](crate::TokenSet::with_identity)), such as
/// `{"id": "7", "email": "user@example.com"}`, or `{}`. An answer of
/// `{"accessToken": "…", "refreshToken": "…", "expiresIn": 900}` is understood as it stands, with
/// all but the access token optional; other contracts are described by pointers:
///
/// ```
/// # fn main() -> Result<(), tower_token_refresh::ConfigError> {
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use tower::service_fn;
/// use tower_token_refresh::{JsonReissue, Reissue};
///
/// # let http = service_fn(async |_: http::Request<Full<Bytes>>| {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::new())))
/// # });
/// let reissue = JsonReissue::post("https://api.example.com/member/token/refresh", http)
///     .access_token_at("/data/token")
///     .refresh_token_at("/data/refresh")
///     .code_at("/error/code")
///     .refused("T-003"); // the one thing that ends the session
/// reissue.check()?;
/// # Ok(())
/// # }
/// ```
///
/// # What an answer means
///
/// | answer | means |
/// |---|---|
/// | an error of whatever status, a 503 too, or a success without tokens, with a code that was named with [`refused`](Self::refused); an error with a status that was named with [`refused_status`](Self::refused_status) | [refused](ReissueError::refused) |
/// | 429, 503; [no answer](#when-there-is-no-answer), and the issuer never had the request | [transient](ReissueError::transient), with `Retry-After` |
/// | a redirect (none is followed), any other 4xx but 408 | [misconfigured](ReissueError::misconfigured) |
/// | any other 5xx, 408; any other case without an answer; a success that cannot be read: no JSON, cut off, over 1 MiB, compressed, with a member given twice, without an access token | [unknown](ReissueError::unknown), with the new refresh token if there is one |
///
/// So nothing ends a session before a code or a status has been named. Where the table is wrong for
/// an issuer, [`on_error`](Self::on_error) goes before it.
///
/// # When there is no answer
///
/// The client's error decides whether the issuer can have seen the refresh token. It has not where
///
/// - the connection was refused, or no local port was free for it;
/// - tower's `LoadShed` did not let the request through, or the client did not become ready for it;
/// - with the feature `hyper`, for the clients of hyper, hyper-util and reqwest: looking up the name,
///   connecting or the TLS handshake failed; the request had not been begun when its connection
///   closed; the issuer refused the stream (`REFUSED_STREAM`, RFC 9113 section 8.7); it sent a GOAWAY
///   that leaves out the stream (section 6.8), and the refresh token was in the body.
///
/// That is transient. It is unknown after everything else: a deadline, a reset, a connection that was
/// closed after the request was written, any other GOAWAY. So whoever uses one of these clients wants the
/// feature `hyper`: without it, most of the list is unknown too, and the next try has to wait until it
/// is certain that the first one is over.
///
/// The client should not send a request again by itself, unless it is certain that it was not
/// processed. The client of hyper-util does no more than that.
pub struct JsonReissue {
    exchange: Exchange,
    /// The name of the member; without one it goes in a header.
    in_body: Option<String>,
    refresh_token: Pointer,
}

client_settings!(JsonReissue, Contract::home_made() => {
    in_body: None,
    refresh_token: Pointer::new("/refreshToken")
});

json_settings!(JsonReissue);

impl JsonReissue {
    /// Sends the refresh token as this member of the body, and no `Authorization` header.
    #[must_use]
    pub fn refresh_token_in_body(mut self, name: impl Into<String>) -> Self {
        self.in_body = Some(name.into());
        self
    }

    /// Where an answer has the new refresh token: `"/refreshToken"` unless set. Where it is absent,
    /// null or empty, the old one is kept.
    #[must_use]
    pub fn refresh_token_at(mut self, pointer: impl Into<String>) -> Self {
        self.refresh_token = Pointer::new(pointer);
        self
    }

    fn request(&self, request: &ReissueRequest) -> Result<Request<Bytes>, ReissueError> {
        let token = request.refresh_token_to_send()?;
        let identity = request.identity();
        let in_body = self.in_body.as_deref();
        let body = body(identity, in_body.map(|name| (name, token)));
        let mut http = self
            .exchange
            .request(body.map_err(ReissueError::misconfigured)?)?;
        let json = HeaderValue::from_static("application/json");
        http.headers_mut().insert(header::CONTENT_TYPE, json);
        if in_body.is_some() {
            http.extensions_mut().insert(TokenInBody);
        } else {
            let bearer = secret_value("Bearer ", token)?;
            http.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        Ok(http)
    }
}

impl Reissue for JsonReissue {
    async fn reissue(&self, request: ReissueRequest) -> Result<TokenSet, ReissueError> {
        self.check().map_err(ReissueError::misconfigured)?;
        let mut answer = self.exchange.send(self.request(&request)?).await?;
        let rotated = answer::refresh_token(&mut answer.document, &self.refresh_token);
        self.exchange.contract.success(answer, rotated)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.refresh_token.check()?;
        let own = self.in_body.is_none().then_some(&header::AUTHORIZATION);
        self.exchange.check(own)
    }
}

/// The identity, and the token if it goes here, as one JSON object.
fn body<'a>(
    identity: impl Iterator<Item = (&'a str, &'a Value)>,
    token: Option<(&str, &str)>,
) -> serde_json::Result<Bytes> {
    let its_name = token.map(|(name, _)| name);
    let identity: BTreeMap<_, _> = identity
        .filter(|(name, _)| Some(*name) != its_name)
        .collect();
    let known = serde_json::to_vec(&identity)?;
    let Some((name, token)) = token else {
        return Ok(Bytes::from(known));
    };
    // Room for everything from the start, were every character escaped: a buffer that grows leaves
    // a copy of the token behind.
    let room = known.len() + 6 * (name.len() + token.len()) + 8;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    let mut writer = serde_json::Serializer::new(&mut *text);
    let mut map = writer.serialize_map(None)?;
    for (name, value) in identity {
        map.serialize_entry(name, value)?;
    }
    map.serialize_entry(name, token)?;
    map.end()?;
    Ok(Bytes::from_owner(text))
}
