//! What an issuer's answer means, apart from how it was got.
//!
//! The error code decides first, then the status. What cannot be read is never taken for a refusal
//! (P6), and after a success that cannot be read the refresh token may be spent: that is *unknown*.
//! No message quotes a body (P12): a code is named only where the user or a standard had named it
//! before.

use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::StatusCode;
use http::header;
use serde_json::Value;

use super::ReissueError;
use super::ReissueErrorKind;
use super::document::Document;
use super::error_answer::ErrorAnswer;
use super::error_answer::Hook;
use super::exchange::Answer;
use crate::error::BoxError;
use crate::error::ConfigError;
use crate::json;
use crate::json::Pointer;
use crate::json::moment;
use crate::json::seconds;
use crate::say::say;
use crate::token::AccessToken;
use crate::token::RefreshToken;
use crate::token::TokenSet;

/// What the error codes of OAuth mean, on whatever status that lets them ([`may_refuse`]): RFC 6749 section 5.2; RFC 8707 section 2
/// (`invalid_target`); RFC 9449 sections 5 and 8 (DPoP); RFC 8628 section 3.5 (`slow_down`). The two
/// of servers in trouble are of the other endpoint (RFC 6749 section 4.1.2.1), and are met here too.
pub(super) const OAUTH_CODES: [(&str, ReissueErrorKind); 12] = [
    ("invalid_grant", ReissueErrorKind::Refused),
    ("invalid_client", ReissueErrorKind::Misconfigured),
    ("unauthorized_client", ReissueErrorKind::Misconfigured),
    ("unsupported_grant_type", ReissueErrorKind::Misconfigured),
    ("invalid_scope", ReissueErrorKind::Misconfigured),
    ("invalid_target", ReissueErrorKind::Misconfigured),
    ("invalid_request", ReissueErrorKind::Misconfigured),
    ("invalid_dpop_proof", ReissueErrorKind::Misconfigured),
    // Where it is met here, there is no nonce or no signer to use it.
    ("use_dpop_nonce", ReissueErrorKind::Misconfigured),
    ("temporarily_unavailable", ReissueErrorKind::Transient),
    ("slow_down", ReissueErrorKind::Transient),
    ("server_error", ReissueErrorKind::Unknown),
];

/// The issuer's contract: where its answers say what.
pub(super) struct Contract {
    pub(super) access_token: Pointer,
    pub(super) lifetime: Pointer,
    pub(super) expiry: Option<Pointer>,
    pub(super) code: Pointer,
    pub(super) refused_codes: Vec<String>,
    pub(super) refused_statuses: Vec<StatusCode>,
    /// What the codes mean that a standard has fixed.
    pub(super) codes: &'static [(&'static str, ReissueErrorKind)],
    /// The types of token that can be used, where answers name one. Upper or lower case.
    pub(super) token_types: Option<Vec<String>>,
    /// Is asked first.
    pub(super) on_error: Option<Hook>,
}

impl Contract {
    /// A contract that is the user's to describe.
    pub(super) fn home_made() -> Self {
        Self {
            access_token: Pointer::new("/accessToken"),
            lifetime: Pointer::new("/expiresIn"),
            expiry: Some(Pointer::new("/accessTokenExpiresAt")),
            code: Pointer::new("/code"),
            refused_codes: Vec::new(),
            refused_statuses: Vec::new(),
            codes: &[],
            token_types: None,
            on_error: None,
        }
    }

    /// RFC 6749 sections 5.1 and 5.2, with the token types of RFC 6750 and RFC 9449.
    pub(super) fn oauth() -> Self {
        Self {
            access_token: Pointer::new("/access_token"),
            lifetime: Pointer::new("/expires_in"),
            expiry: None,
            code: Pointer::new("/error"),
            codes: &OAUTH_CODES,
            token_types: Some(vec!["Bearer".to_owned(), "DPoP".to_owned()]),
            ..Self::home_made()
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let pointers = [&self.access_token, &self.lifetime, &self.code];
        let pointers = pointers.into_iter().chain(&self.expiry);
        pointers.into_iter().try_for_each(Pointer::check)?;
        // P6: these never end a session, whatever the user thinks of the issuer.
        let mut statuses = self.refused_statuses.iter();
        match statuses.find(|status| !may_refuse(**status)) {
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
        let is_asked =
            !self.refused_codes.is_empty() || !self.codes.is_empty() || self.on_error.is_some();
        may_hold_code && json::is_plain(headers) && is_asked
    }

    /// An answer without tokens, as codes and the user's hook judge it.
    pub(super) fn error_answer<'a>(&self, answer: &'a Answer) -> ErrorAnswer<'a> {
        let document = answer.document.as_ref().ok();
        ErrorAnswer::new(answer.status, &answer.headers, document, &self.code)
    }

    /// What an answer means that is no success.
    pub(super) fn failure(&self, answer: &Answer) -> ReissueError {
        let known = self.by_code(&self.error_answer(answer));
        known.unwrap_or_else(|| self.by_status(answer.status, &answer.headers))
    }

    /// What the user's hook says, and then the code.
    fn by_code(&self, answer: &ErrorAnswer<'_>) -> Option<ReissueError> {
        let told = self.on_error.as_ref().and_then(|hook| hook(answer));
        let error = told.or_else(|| self.by_known_code(answer))?;
        Some(match error.retry_after {
            None if error.is_transient() => later(error, answer.headers()),
            _ => error,
        })
    }

    fn by_known_code(&self, answer: &ErrorAnswer<'_>) -> Option<ReissueError> {
        let code = answer.code()?;
        let mut refused = self.refused_codes.iter();
        let refused = refused.find(|known| **known == code);
        let refused = refused.map(|known| (known.as_str(), ReissueErrorKind::Refused));
        let fixed = self.codes.iter().find(|(known, _)| *known == code);
        let (code, kind) =
            refused.or_else(|| fixed.filter(|fixed| counts(fixed, answer)).copied())?;
        let message = format!("it answered {} with the code {code:?}", answer.status());
        Some(ReissueError::new(kind, message))
    }

    fn by_status(&self, status: StatusCode, headers: &HeaderMap) -> ReissueError {
        let answered = format!("it answered {status}");
        match status.as_u16() {
            _ if self.refused_statuses.contains(&status) => ReissueError::refused(answered),
            429 | 503 => later(ReissueError::transient(answered), headers),
            408 => ReissueError::unknown(answered),
            300..400 => ReissueError::misconfigured(format!(
                "{answered}: redirects are not followed, so give the address it moved to"
            )),
            400..500 if self.codes.is_empty() => ReissueError::misconfigured(format!(
                "{answered}, without a code that was named as a refusal; if it refused the refresh \
                 token, name its code with refused(…) or this status with refused_status(…)"
            )),
            400..500 => ReissueError::misconfigured(format!(
                "{answered}, without an error code of OAuth; what it means can be told with \
                 on_error(…)"
            )),
            _ => ReissueError::unknown(answered),
        }
    }

    /// What a success means, given the new refresh token it brought in whatever way: if there are
    /// no tokens to be had, that one must not be lost all the same.
    pub(super) fn success(
        &self,
        answer: Answer,
        rotated: Result<Option<RefreshToken>, BoxError>,
    ) -> Result<TokenSet, ReissueError> {
        if matches!(rotated, Ok(None))
            && let Some(error) = self.disguised(&answer)
        {
            return Err(error);
        }
        let document = answer.document.map_err(ReissueError::unknown);
        match (document.and_then(|document| self.tokens(document)), rotated) {
            (Ok(tokens), Ok(None)) => Ok(tokens),
            (Ok(tokens), Ok(Some(rotated))) => tokens
                .with_refresh_token(rotated)
                .map_err(ReissueError::unknown),
            (Err(error), Ok(Some(rotated))) => Err(error.with_refresh_token(rotated)),
            (_, Err(defect)) => Err(ReissueError::unknown(defect)),
            (Err(error), Ok(None)) => Err(error),
        }
    }

    /// An error in the clothes of a success: some issuers answer everything with 200.
    fn disguised(&self, answer: &Answer) -> Option<ReissueError> {
        let document = answer.document.as_ref().ok()?;
        if self.access_token.get(&document.value).is_some() {
            return None;
        }
        let answer = self.error_answer(answer);
        answer.code().is_some().then(|| self.by_code(&answer))?
    }

    fn tokens(&self, mut document: Document) -> Result<TokenSet, ReissueError> {
        let access_token = self.access_token(&mut document);
        if !document.is_unique() {
            return Err(ReissueError::unknown(
                "its answer gives a member twice, so that it has no certain meaning",
            ));
        }
        let tokens = access_token.and_then(|token| Ok(TokenSet::new(token)?));
        let mut tokens = tokens.map_err(ReissueError::unknown)?;
        self.check_type(&document)?;
        if let Some(lifetime) = expiry(&document, Some(&self.lifetime), seconds) {
            tokens = tokens.with_expires_in(lifetime);
        }
        if let Some(expiry) = expiry(&document, self.expiry.as_ref(), moment) {
            tokens = tokens.with_expires_at(expiry);
        }
        Ok(tokens)
    }

    /// RFC 6749 section 7.1: a token of a type that is not understood is not used. As with the
    /// refresh token, an empty type is none.
    fn check_type(&self, document: &Document) -> Result<(), ReissueError> {
        let Some(types) = &self.token_types else {
            return Ok(());
        };
        let understood = match document.value.get("token_type") {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => {
                let is_it = |known: &String| known.eq_ignore_ascii_case(text);
                text.is_empty() || types.iter().any(is_it)
            }
            Some(_) => false,
        };
        if understood {
            return Ok(());
        }
        Err(ReissueError::misconfigured(
            "the type of its access token is not understood; if the session sends such a token as \
             it should be, name the type with token_type(…)",
        ))
    }

    fn access_token(&self, document: &mut Document) -> Result<AccessToken, BoxError> {
        let at = &self.access_token;
        let defect = match document.take(at) {
            Some(Value::String(text)) => return Ok(AccessToken::new(text)?),
            Some(_) => no_text("access token", at),
            None => format!("its answer has no access token at {:?}", at.text()),
        };
        // The place is the user's to name, unless a standard has fixed it. Until it is right, each
        // answer costs a refresh token.
        let advice = match self.codes.is_empty() {
            true => "; if it is elsewhere, name the place with access_token_at(…)",
            false => "",
        };
        Err(format!("{defect}{advice}").into())
    }
}

/// P6: an issuer in trouble, or one that asks for patience, refuses no refresh token, whatever it
/// writes. A success is one by its status only, where it brings no tokens.
fn counts((_, kind): &(&str, ReissueErrorKind), answer: &ErrorAnswer<'_>) -> bool {
    let status = answer.status();
    *kind != ReissueErrorKind::Refused || status.is_success() || may_refuse(status)
}

/// Whether an error of this status can be about the refresh token at all.
fn may_refuse(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 408 | 429)
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
        Some(_) => Err(no_text("refresh token", pointer).into()),
    }
}

fn no_text(what: &str, pointer: &Pointer) -> String {
    let at = pointer.text();
    format!("the {what} at {at:?} of its answer is no text")
}

/// An expiry is a convenience: without one the server decides.
fn expiry<T>(
    document: &Document,
    pointer: Option<&Pointer>,
    read: fn(&Value) -> Option<T>,
) -> Option<T> {
    let pointer = pointer?;
    let value = pointer.get(&document.value)?;
    let expiry = read(value);
    if expiry.is_none() {
        let at = pointer.text();
        say(|| {
            tracing::warn!(
                at,
                "the expiry in the issuer's answer cannot be read and is ignored"
            )
        });
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

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
                ..Contract::home_made()
            };
            let possible = (400..500).contains(&number) && ![408, 429].contains(&number);
            assert_eq!(contract.check().is_ok(), possible, "{number}");
        }
    }
}
