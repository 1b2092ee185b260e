//! How a token becomes a header.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use http::header::InvalidHeaderValue;
use zeroize::Zeroizing;

use crate::error::ConfigError;
use crate::token::AccessToken;

/// A request extension: this request is sent as it is, without a token, and a rejection of it is
/// nobody's business but the caller's.
///
/// ```
/// use tower_token_refresh::WithoutToken;
///
/// let request = http::Request::builder()
///     .uri("https://api.example.com/public")
///     .extension(WithoutToken)
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to add")]
pub struct WithoutToken;

/// The header that carries the token: `Authorization: Bearer …` (RFC 6750 section 2.1) unless set.
#[derive(Debug, Clone)]
pub(crate) struct Attach {
    name: HeaderName,
    /// With its space, where there is one.
    prefix: String,
}

impl Default for Attach {
    fn default() -> Self {
        Self {
            name: header::AUTHORIZATION,
            prefix: "Bearer ".to_owned(),
        }
    }
}

impl Attach {
    /// A scheme is put before the token with a space between; an empty one is left out.
    pub(crate) fn new(name: &str, scheme: &str) -> Result<Self, ConfigError> {
        let name = HeaderName::try_from(name)
            .map_err(|_| ConfigError::new(format!("{name:?} is no name of a header")))?;
        // RFC 9110 section 11.1: a scheme is a token, as a header's name is.
        if !scheme.is_empty() && HeaderName::try_from(scheme).is_err() {
            let message = format!("{scheme:?} is no authentication scheme");
            return Err(ConfigError::new(message));
        }
        let prefix = match scheme {
            "" => String::new(),
            // B10: sent as it is registered, however it was typed.
            scheme if scheme.eq_ignore_ascii_case("bearer") => "Bearer ".to_owned(),
            scheme => format!("{scheme} "),
        };
        Ok(Self { name, prefix })
    }

    /// The header's value. `None` cannot be: a token was checked when it was made.
    pub(crate) fn render(&self, token: &AccessToken) -> Option<HeaderValue> {
        secret_value(&self.prefix, token.expose()).ok()
    }

    /// The caller's own header wins.
    pub(crate) fn is_present(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(&self.name)
    }

    pub(crate) fn put(&self, headers: &mut HeaderMap, value: HeaderValue) {
        headers.insert(self.name.clone(), value);
    }
}

/// A header's value around a secret: marked as sensitive, and in one buffer that all clones share and
/// that is wiped when the last of them is dropped.
pub(crate) fn secret_value(before: &str, secret: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    // The whole capacity at once: growing would leave a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(before.len() + secret.len()));
    text.extend_from_slice(before.as_bytes());
    text.extend_from_slice(secret.as_bytes());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(name: &str, scheme: &str) -> HeaderValue {
        let token = AccessToken::new("abc").unwrap();
        Attach::new(name, scheme).unwrap().render(&token).unwrap()
    }

    // shows B10
    #[test]
    fn name_and_scheme_can_be_set() {
        assert_eq!(rendered("authorization", "beareR"), "Bearer abc");
        assert_eq!(rendered("authorization", "Token"), "Token abc");
        assert_eq!(rendered("x-api-key", ""), "abc");
        assert!(Attach::new("x api key", "").is_err());
        assert!(Attach::new("x-api-key", "To ken").is_err());
    }

    // shows P12
    #[test]
    fn a_rendered_value_is_marked_sensitive() {
        let value = rendered("x-api-key", "");
        assert!(value.is_sensitive());
        assert!(!format!("{value:?}").contains("abc"));
    }

    #[test]
    fn clones_share_one_buffer() {
        let value = rendered("authorization", "Bearer");
        assert_eq!(value.as_bytes().as_ptr(), value.clone().as_bytes().as_ptr());
    }
}
