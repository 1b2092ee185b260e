//! What an issuer's answer means, apart from how it was got.
//!
//! The error code decides first, then the status. What cannot be read is never taken for a refusal
//! (P6), and after a success that cannot be read the refresh token may be spent: that is *unknown*.
//! No message quotes a body (P12): a code is named only where the user had named it before.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::StatusCode;
use http::header;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Value;

use super::ReissueError;
use crate::error::BoxError;
use crate::error::ConfigError;
use crate::json;
use crate::json::Pointer;
use crate::json::moment;
use crate::json::seconds;
use crate::token::AccessToken;
use crate::token::RefreshToken;
use crate::token::TokenSet;

/// The issuer's contract: where its answers say what.
pub(super) struct Contract {
    pub(super) access_token: Pointer,
    pub(super) lifetime: Pointer,
    pub(super) expiry: Pointer,
    pub(super) code: Pointer,
    pub(super) refused_codes: Vec<String>,
    pub(super) refused_statuses: Vec<StatusCode>,
}

impl Default for Contract {
    fn default() -> Self {
        Self {
            access_token: Pointer::new("/accessToken"),
            lifetime: Pointer::new("/expiresIn"),
            expiry: Pointer::new("/accessTokenExpiresAt"),
            code: Pointer::new("/code"),
            refused_codes: Vec::new(),
            refused_statuses: Vec::new(),
        }
    }
}

impl Contract {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let pointers = [&self.access_token, &self.lifetime, &self.expiry, &self.code];
        pointers.into_iter().try_for_each(Pointer::check)?;
        // P6: these never end a session, whatever the user thinks of the issuer.
        let impossible = |status: &&StatusCode| {
            !status.is_client_error() || matches!(status.as_u16(), 408 | 429)
        };
        match self.refused_statuses.iter().find(impossible) {
            Some(status) => Err(ConfigError::new(format!(
                "the status {status} cannot mean that the refresh token was refused"
            ))),
            None => Ok(()),
        }
    }

    /// Whether the body of an answer has to be read.
    pub(super) fn wants_body(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        if status.is_success() {
            return true;
        }
        let may_hold_code = json::MediaType::of(headers) != json::MediaType::Other;
        may_hold_code && json::is_plain(headers) && !self.refused_codes.is_empty()
    }

    /// What an answer means that is no success; `body` where it was wanted and could be read.
    pub(super) fn failure(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> ReissueError {
        if let Some(code) = body.and_then(|body| self.refused_code(body)) {
            return ReissueError::refused(format!("it answered {status} with the code {code:?}"));
        }
        let answered = format!("it answered {status}");
        match status.as_u16() {
            _ if self.refused_statuses.contains(&status) => ReissueError::refused(answered),
            429 | 503 => later(ReissueError::transient(answered), headers),
            408 => ReissueError::unknown(answered),
            300..400 => ReissueError::misconfigured(format!(
                "{answered}: redirects are not followed, so give the address it moved to"
            )),
            400..500 => ReissueError::misconfigured(format!(
                "{answered}, without a code that was named as a refusal; if it refused the refresh \
                 token, name its code with refused(…) or this status with refused_status(…)"
            )),
            _ => ReissueError::unknown(answered),
        }
    }

    fn refused_code(&self, body: &[u8]) -> Option<&str> {
        let document = Document::parse(body).ok().filter(Document::is_unique)?;
        let code = json::code(self.code.get(&document.value)?)?;
        let mut refused = self.refused_codes.iter();
        refused.find(|known| **known == code).map(String::as_str)
    }

    /// What a success means, given the new refresh token it brought in whatever way: if there are
    /// no tokens to be had, that one must not be lost all the same.
    pub(super) fn success(
        &self,
        document: Result<Document, BoxError>,
        rotated: Result<Option<RefreshToken>, BoxError>,
    ) -> Result<TokenSet, ReissueError> {
        match (document.and_then(|document| self.tokens(document)), rotated) {
            (Ok(tokens), Ok(None)) => Ok(tokens),
            (Ok(tokens), Ok(Some(rotated))) => tokens
                .with_refresh_token(rotated)
                .map_err(ReissueError::unknown),
            (Err(defect), Ok(Some(rotated))) => {
                Err(ReissueError::unknown(defect).with_refresh_token(rotated))
            }
            (Err(defect), _) | (_, Err(defect)) => Err(ReissueError::unknown(defect)),
        }
    }

    fn tokens(&self, mut document: Document) -> Result<TokenSet, BoxError> {
        let access_token = self.access_token(&mut document);
        if !document.is_unique() {
            return Err(
                "its answer gives a member twice, so that it has no certain meaning".into(),
            );
        }
        let mut tokens = TokenSet::new(access_token?)?;
        if let Some(lifetime) = expiry(&document, &self.lifetime, seconds) {
            tokens = tokens.with_expires_in(lifetime);
        }
        if let Some(expiry) = expiry(&document, &self.expiry, moment) {
            tokens = tokens.with_expires_at(expiry);
        }
        Ok(tokens)
    }

    fn access_token(&self, document: &mut Document) -> Result<AccessToken, BoxError> {
        match document.take(&self.access_token) {
            Some(Value::String(text)) => Ok(AccessToken::new(text)?),
            Some(_) => Err(no_text("access token", &self.access_token)),
            None => {
                let at = self.access_token.text();
                Err(format!("its answer has no access token at {at:?}").into())
            }
        }
    }
}

/// The refresh token in a success, if there is a new one. Like the cookie's, an empty one is none.
pub(super) fn refresh_token(
    document: &mut Result<Document, BoxError>,
    pointer: &Pointer,
) -> Result<Option<RefreshToken>, BoxError> {
    let Ok(document) = document else {
        return Ok(None);
    };
    match document.take(pointer) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(RefreshToken::new(text)?)),
        Some(_) => Err(no_text("refresh token", pointer)),
    }
}

fn no_text(what: &str, pointer: &Pointer) -> BoxError {
    format!(
        "the {what} at {:?} of its answer is no text",
        pointer.text()
    )
    .into()
}

/// An expiry is a convenience: without one the server decides.
fn expiry<T>(document: &Document, pointer: &Pointer, read: fn(&Value) -> Option<T>) -> Option<T> {
    let value = pointer.get(&document.value)?;
    let expiry = read(value);
    if expiry.is_none() {
        let at = pointer.text();
        tracing::warn!(
            at,
            "the expiry in the issuer's answer cannot be read and is ignored"
        );
    }
    expiry
}

/// Adds `Retry-After` (RFC 9110 section 10.2.3), unless it is nonsense or past.
fn later(error: ReissueError, headers: &HeaderMap) -> ReissueError {
    match retry_after(headers, SystemTime::now()) {
        Some(delay) => error.with_retry_after(delay),
        None => error,
    }
}

fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let at = httpdate::parse_http_date(text).ok()?;
    at.duration_since(now).ok()
}

/// A JSON document, and the names that some object in it has twice.
pub(super) struct Document {
    value: Value,
    repeated: BTreeSet<String>,
}

impl Document {
    pub(super) fn parse(text: &[u8]) -> Result<Self, BoxError> {
        if text.trim_ascii().is_empty() {
            return Err("its answer is empty".into());
        }
        // Neither error of the parser goes further: they are about the body.
        let broken = |error: serde_json::Error| {
            if error.is_eof() {
                "the JSON of its answer breaks off"
            } else {
                "its answer is no JSON, or nests too deep"
            }
        };
        let value = serde_json::from_slice(text).map_err(broken)?;
        let mut repeated = BTreeSet::new();
        let names = Repeated(&mut repeated);
        let mut reader = serde_json::Deserializer::from_slice(text);
        names.deserialize(&mut reader).map_err(broken)?;
        Ok(Self { value, repeated })
    }

    fn is_unique(&self) -> bool {
        self.repeated.is_empty()
    }

    /// A value whose name occurs twice is none: nobody can say which was meant.
    fn take(&mut self, pointer: &Pointer) -> Option<Value> {
        let certain = !pointer.names().any(|name| self.repeated.contains(&name));
        certain.then(|| pointer.take(&mut self.value)).flatten()
    }
}

/// Collects the names that an object has twice, at every depth. Parsers disagree on what such a
/// document says, `serde_json` takes the last; so two programs could read two tokens in it.
struct Repeated<'a>(&'a mut BTreeSet<String>);

impl<'de> DeserializeSeed<'de> for Repeated<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Repeated<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(Repeated(&mut *self.0))?;
            if let Some(name) = names.replace(name) {
                self.0.insert(name);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Repeated(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn repeated(text: &str) -> Vec<String> {
        let document = Document::parse(text.as_bytes());
        document.unwrap().repeated.into_iter().collect()
    }

    // shows S8
    #[test]
    fn a_repeated_member_is_found_at_every_depth() {
        assert_eq!(
            repeated(r#"{"a":1,"b":[1,-1,1.5,"a",true,null],"c":{"a":1}}"#),
            [""; 0]
        );
        assert_eq!(repeated(r#"{"a":1,"a":1}"#), ["a"]);
        assert_eq!(
            repeated(r#"{"a":1,"\u0061":1}"#),
            ["a"],
            "however it is written"
        );
        assert_eq!(repeated(r#"[{"x":[{"b":{},"b":{}}]}]"#), ["b"]);
        assert_eq!(repeated(r#"{"a":{"b":1,"b":1},"a":{}}"#), ["a", "b"]);
    }

    // shows S8
    #[test]
    fn deep_nesting_is_refused() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(Document::parse(deep(100).as_bytes()).is_ok());
        assert!(Document::parse(deep(10_000).as_bytes()).is_err());
        assert!(Document::parse("{\"a\":".repeat(10_000).as_bytes()).is_err());
    }

    // shows B60
    #[test]
    fn retry_after_is_seconds_or_a_date_to_come() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text| {
            let value = HeaderValue::from_bytes(text).unwrap();
            retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, value)]), now)
        };
        assert_eq!(read(b"120"), Some(Duration::from_secs(120)));
        assert_eq!(read(b"0"), Some(Duration::ZERO));
        let date = b"Sun, 06 Nov 1994 08:50:07 GMT";
        assert_eq!(read(date), Some(Duration::from_secs(30)));
        let past = b"Sun, 06 Nov 1994 08:48:37 GMT";
        let nonsense: [&[u8]; 7] = [past, b"", b"-1", b"1.5", b"soon", b"\xff", &[b'9'; 40]];
        for text in nonsense {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    // shows P6
    #[test]
    fn a_status_that_says_nothing_of_the_token_cannot_be_named_a_refusal() {
        for number in 100..600 {
            let contract = Contract {
                refused_statuses: vec![StatusCode::from_u16(number).unwrap()],
                ..Contract::default()
            };
            let possible = (400..500).contains(&number) && ![408, 429].contains(&number);
            assert_eq!(contract.check().is_ok(), possible, "{number}");
        }
    }
}
