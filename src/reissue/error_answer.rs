//! What the user is shown of an answer that brought no tokens, to say what it means.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::StatusCode;
use serde_json::Value;

use super::ReissueError;
use super::document::Document;
use crate::json;
use crate::json::Pointer;

/// An answer of the issuer that brought no tokens: what `on_error` of a ready-made reissuer is asked
/// about, such as [`RefreshGrant::on_error`](crate::RefreshGrant::on_error).
///
/// Whatever is read out of it may be put into an error, and is shown to those who look at it then.
/// `Debug` shows the status alone.
pub struct ErrorAnswer<'a> {
    status: StatusCode,
    headers: &'a HeaderMap,
    document: Option<&'a Value>,
    code: Option<Cow<'a, str>>,
}

/// What the user says of it, if anything.
pub(super) type Hook = Box<dyn Fn(&ErrorAnswer<'_>) -> Option<ReissueError> + Send + Sync>;

impl<'a> ErrorAnswer<'a> {
    /// A document that gives a member twice has no certain meaning, and counts as none.
    pub(super) fn new(
        status: StatusCode,
        headers: &'a HeaderMap,
        document: Option<&'a Document>,
        code: &Pointer,
    ) -> Self {
        let document = document.filter(|document| document.is_unique());
        let document = document.map(|document| &document.value);
        Self {
            status,
            headers,
            document,
            code: document.and_then(|document| json::code(code.get(document)?)),
        }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// Its error code: the member `error` (RFC 6749 section 5.2), or what
    /// [`code_at`](crate::JsonReissue::code_at) has named. A number is given as text.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// A member of its body, by a JSON pointer (RFC 6901); the empty one is all of it. `None` where
    /// it is absent or null, and where the body could not be read: it is no JSON by its
    /// `Content-Type`, is compressed, larger than 1 MiB, cut off, or gives a member twice.
    #[must_use]
    pub fn member(&self, pointer: &str) -> Option<&'a Value> {
        let member = self.document?.pointer(pointer)?;
        Some(member).filter(|member| !member.is_null())
    }
}

impl fmt::Debug for ErrorAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorAnswer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
