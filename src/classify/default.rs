//! What a server means that says nothing but a status.

use http::HeaderMap;
use http::StatusCode;

use super::Classify;
use super::Verdict;

/// A 401 means that the token is no good; about everything else this classifier abstains.
///
/// It is the classifier of a layer that is given none.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_token_refresh::{Classify, DefaultClassifier, Verdict};
///
/// let judge = |status| DefaultClassifier.classify(status, &HeaderMap::new());
/// assert_eq!(judge(StatusCode::UNAUTHORIZED), Verdict::Refresh);
/// assert_eq!(judge(StatusCode::FORBIDDEN), Verdict::Abstain);
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no options")]
pub struct DefaultClassifier;

impl Classify for DefaultClassifier {
    fn classify(&self, status: StatusCode, _: &HeaderMap) -> Verdict {
        match status {
            StatusCode::UNAUTHORIZED => Verdict::Refresh,
            _ => Verdict::Abstain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // shows B17
    #[test]
    fn a_401_and_no_other_status_refreshes() {
        for number in 100..1000 {
            let status = StatusCode::from_u16(number).unwrap();
            let refreshes =
                DefaultClassifier.classify(status, &HeaderMap::new()) == Verdict::Refresh;
            assert_eq!(refreshes, number == 401, "{number}");
        }
    }
}
