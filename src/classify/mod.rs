//! Which answers say that the token is no good.
//!
//! A classifier is asked about the head of each response, and about a body only where it asks for
//! one ([`Verdict::Inspect`]), up to a limit. It is called on the path of every request: it must be
//! quick, and it cannot wait.

mod challenge;
mod default;
mod error_codes;
mod function;
mod or;

pub use default::DefaultClassifier;
pub use error_codes::ErrorCodes;
pub use function::ClassifyFn;
pub use function::classify_fn;
pub use or::Or;

use std::sync::Arc;

use http::HeaderMap;
use http::StatusCode;

use crate::error::ConfigError;

/// Reads an answer of the server.
///
/// A classifier that panics counts as [`Verdict::Accept`] for that one response.
pub trait Classify {
    /// Judges the head of a response.
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict;

    /// Judges a response whose head gave [`Verdict::Inspect`]: `body` is all of it, or `None` where
    /// it could not be read whole within the limits on bytes and time.
    ///
    /// The caller is given the body whole afterwards, whatever the verdict.
    fn inspect(&self, status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> Verdict {
        let _ = (status, headers, body);
        Verdict::Abstain
    }

    /// Judges the trailers of a response whose head or body gave [`Verdict::InspectTrailers`].
    ///
    /// Where they are there with the head, and nothing else is, this is the verdict on the response.
    /// Nobody waits for them: those that come later are judged as the caller reads them, and `Refresh`
    /// then has the token refreshed before the next request is sent.
    fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        let _ = trailers;
        Verdict::Abstain
    }

    /// Says what is wrong with the configuration; called when the layer is given the classifier.
    ///
    /// # Errors
    ///
    /// When this classifier could never work as it is meant to.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Asks `other` where this one abstains.
    fn or<C: Classify>(self, other: C) -> Or<Self, C>
    where
        Self: Sized,
    {
        Or::new(self, other)
    }
}

impl<C: Classify> Classify for Arc<C> {
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        C::classify(self, status, headers)
    }

    fn inspect(&self, status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> Verdict {
        C::inspect(self, status, headers, body)
    }

    fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        C::inspect_trailers(self, trailers)
    }

    fn check(&self) -> Result<(), ConfigError> {
        C::check(self)
    }
}

/// What an answer means for the token it was sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It says nothing against the token. Nobody else is asked.
    Accept,
    /// This classifier does not know; the next one is asked, and where there is none, the response
    /// is accepted.
    Abstain,
    /// The session is over: there is no point in a reissue.
    EndSession,
    /// The body has to be seen first. From [`Classify::inspect`] it means the same as `Abstain`.
    Inspect,
    /// The trailers decide. From [`Classify::inspect_trailers`] it means the same as `Abstain`.
    InspectTrailers,
    /// The token is no good: refresh it, and send the request again.
    Refresh,
}
