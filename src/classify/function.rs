//! A closure as a classifier.

use std::fmt;

use http::HeaderMap;
use http::StatusCode;

use super::Classify;
use super::Verdict;

/// A classifier made of a closure over the head of a response.
///
/// It sees no body, so that [`Verdict::Inspect`] from it comes to nothing: implement [`Classify`]
/// for a type of your own where the body matters.
///
/// ```
/// use http::StatusCode;
/// use tower_token_refresh::{Classify, DefaultClassifier, Verdict, classify_fn};
///
/// let classifier = classify_fn(|status, headers| match status.as_u16() {
///     419 => Verdict::Refresh,
///     401 if headers.contains_key("x-banned") => Verdict::EndSession,
///     _ => Verdict::Abstain,
/// })
/// .or(DefaultClassifier);
/// # let headers = http::HeaderMap::new();
/// # assert_eq!(classifier.classify(StatusCode::UNAUTHORIZED, &headers), Verdict::Refresh);
/// ```
pub fn classify_fn<F>(function: F) -> ClassifyFn<F>
where
    F: Fn(StatusCode, &HeaderMap) -> Verdict,
{
    ClassifyFn { function }
}

/// See [`classify_fn`].
#[derive(Clone, Copy)]
pub struct ClassifyFn<F> {
    function: F,
}

impl<F> Classify for ClassifyFn<F>
where
    F: Fn(StatusCode, &HeaderMap) -> Verdict,
{
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        (self.function)(status, headers)
    }
}

impl<F> fmt::Debug for ClassifyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassifyFn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // shows B18
    #[test]
    fn a_closure_decides_by_status_and_headers() {
        let classifier = classify_fn(|status, headers| {
            if status.as_u16() == 419 && !headers.contains_key("x-final") {
                Verdict::Refresh
            } else {
                Verdict::Accept
            }
        });
        let status = StatusCode::from_u16(419).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(classifier.classify(status, &headers), Verdict::Refresh);
        assert_eq!(
            classifier.classify(StatusCode::OK, &headers),
            Verdict::Accept
        );
        headers.insert("x-final", http::HeaderValue::from_static("1"));
        assert_eq!(classifier.classify(status, &headers), Verdict::Accept);
    }
}
