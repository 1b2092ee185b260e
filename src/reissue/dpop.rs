//! Proofs of possession (DPoP, RFC 9449) in the conversation with the issuer.

use std::fmt;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::uri::PathAndQuery;

use super::ReissueError;
use super::exchange::secret_value;
use crate::error::BoxError;

/// RFC 9449 section 4.1.
pub(super) static PROOF: HeaderName = HeaderName::from_static("dpop");

/// RFC 9449 section 8.1.
static NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// What a DPoP proof is to be made for: see [`RefreshGrant::dpop`](crate::RefreshGrant::dpop).
pub struct DpopRequest<'a> {
    method: &'a Method,
    uri: &'a Uri,
    nonce: Option<&'a str>,
}

impl<'a> DpopRequest<'a> {
    /// The request's method, for the claim `htm`.
    #[must_use]
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The request's URI without its query, for the claim `htu` (RFC 9449 section 4.2).
    #[must_use]
    pub fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// What the issuer wants to see in the claim `nonce`, if it has said so.
    #[must_use]
    pub fn nonce(&self) -> Option<&'a str> {
        self.nonce
    }
}

impl fmt::Debug for DpopRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopRequest")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

pub(super) type Sign = Box<dyn Fn(DpopRequest<'_>) -> Result<String, BoxError> + Send + Sync>;

/// The user's signer, and the newest nonce.
pub(super) struct Signer {
    sign: Sign,
    nonce: Mutex<Option<String>>,
}

impl Signer {
    pub(super) fn new(sign: Sign) -> Self {
        Self {
            sign,
            nonce: Mutex::new(None),
        }
    }

    pub(super) fn proof(&self, method: &Method, uri: &Uri) -> Result<HeaderValue, ReissueError> {
        // Not under the lock: the signer is somebody else's code.
        let nonce = self.nonce().clone();
        let request = DpopRequest {
            method,
            uri: &without_query(uri)?,
            nonce: nonce.as_deref(),
        };
        let proof = (self.sign)(request).map_err(ReissueError::transient)?;
        secret_value("", &proof)
    }

    /// Remembers the nonce of an answer; whether there was one.
    pub(super) fn learn(&self, headers: &HeaderMap) -> bool {
        let nonce = nonce(headers);
        let found = nonce.is_some();
        if found {
            *self.nonce() = nonce;
        }
        found
    }

    fn nonce(&self) -> MutexGuard<'_, Option<String>> {
        self.nonce.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn without_query(uri: &Uri) -> Result<Uri, ReissueError> {
    let mut parts = uri.clone().into_parts();
    let path = PathAndQuery::try_from(uri.path()).map_err(ReissueError::misconfigured)?;
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(ReissueError::misconfigured)
}

/// RFC 9449 section 8.1: NQCHAR, and only one is certain.
fn nonce(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all(&NONCE).into_iter();
    let (Some(nonce), None) = (given.next(), given.next()) else {
        return None;
    };
    let nonce = nonce.to_str().ok()?;
    let is_nqchar = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (!nonce.is_empty() && nonce.bytes().all(is_nqchar)).then(|| nonce.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_one_header_of_visible_characters() {
        let read = |values: &[&'static str]| {
            let line = |value: &&'static str| (NONCE.clone(), HeaderValue::from_static(value));
            nonce(&HeaderMap::from_iter(values.iter().map(line)))
        };
        assert_eq!(read(&["eyJ7S_zG.-1"]).as_deref(), Some("eyJ7S_zG.-1"));
        for values in [
            &[][..],
            &[""],
            &["a b"],
            &["a\"b"],
            &["a\\b"],
            &["a", "b"],
            &["a", "a"],
        ] {
            assert_eq!(read(values), None, "{values:?}");
        }
    }

    #[test]
    fn the_query_is_no_part_of_what_is_signed() {
        for (uri, signed) in [
            (
                "https://a.example/t/token?key=1",
                "https://a.example/t/token",
            ),
            ("https://a.example:8443", "https://a.example:8443/"),
        ] {
            let uri = without_query(&Uri::from_static(uri)).unwrap();
            assert_eq!(uri, signed);
        }
    }
}
