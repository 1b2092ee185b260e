//! Two classifiers as one.

use http::HeaderMap;
use http::StatusCode;

use super::Classify;
use super::Verdict;
use crate::error::ConfigError;

/// Asks the second classifier where the first abstains. Made by [`Classify::or`].
///
/// Where a body had to be seen, both are asked about the head a second time.
#[derive(Debug, Clone, Copy)]
pub struct Or<A, B> {
    first: A,
    second: B,
}

impl<A, B> Or<A, B> {
    pub(crate) fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: Classify, B: Classify> Classify for Or<A, B> {
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        match self.first.classify(status, headers) {
            Verdict::Abstain => self.second.classify(status, headers),
            // The second may see a rejection before there are trailers.
            Verdict::InspectTrailers => match self.second.classify(status, headers) {
                Verdict::Abstain | Verdict::Accept => Verdict::InspectTrailers,
                verdict => verdict,
            },
            verdict => verdict,
        }
    }

    fn inspect(&self, status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> Verdict {
        match judge(&self.first, status, headers, body) {
            Verdict::Abstain | Verdict::Inspect => judge(&self.second, status, headers, body),
            Verdict::InspectTrailers => match judge(&self.second, status, headers, body) {
                Verdict::Abstain | Verdict::Accept | Verdict::Inspect => Verdict::InspectTrailers,
                verdict => verdict,
            },
            verdict => verdict,
        }
    }

    fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        match self.first.inspect_trailers(trailers) {
            Verdict::Abstain | Verdict::Inspect | Verdict::InspectTrailers => {
                self.second.inspect_trailers(trailers)
            }
            verdict => verdict,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.first.check()?;
        self.second.check()
    }
}

/// Either of the two may have been the one that wanted to see the body.
fn judge(
    classifier: &impl Classify,
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&[u8]>,
) -> Verdict {
    match classifier.classify(status, headers) {
        Verdict::Inspect => classifier.inspect(status, headers, body),
        verdict => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says the one about heads and the other about bodies, and counts a wrong body as a refresh.
    #[derive(Clone, Copy)]
    struct Says(Verdict, Verdict);

    impl Classify for Says {
        fn classify(&self, _: StatusCode, _: &HeaderMap) -> Verdict {
            self.0
        }

        fn inspect(&self, _: StatusCode, _: &HeaderMap, body: Option<&[u8]>) -> Verdict {
            assert_eq!(body, Some(&b"body"[..]));
            assert_eq!(
                self.0,
                Verdict::Inspect,
                "asked about a body it had not asked for"
            );
            self.1
        }
    }

    fn head(verdict: Verdict) -> Says {
        Says(verdict, Verdict::Refresh)
    }

    fn body(verdict: Verdict) -> Says {
        Says(Verdict::Inspect, verdict)
    }

    /// As the service asks: the head first, and the body where it is wanted.
    fn asked(classifier: impl Classify) -> Verdict {
        judge(
            &classifier,
            StatusCode::OK,
            &HeaderMap::new(),
            Some(b"body"),
        )
    }

    #[test]
    fn the_second_is_asked_only_where_the_first_abstains() {
        use Verdict::*;
        assert_eq!(asked(head(Abstain).or(head(Refresh))), Refresh);
        assert_eq!(asked(head(Accept).or(head(Refresh))), Accept);
        assert_eq!(asked(head(EndSession).or(body(Refresh))), EndSession);
        assert_eq!(asked(head(Abstain).or(head(Abstain))), Abstain);
    }

    #[test]
    fn a_body_wanted_by_either_is_shown_to_either() {
        use Verdict::*;
        assert_eq!(asked(body(Refresh).or(head(Accept))), Refresh);
        assert_eq!(asked(body(Abstain).or(head(Refresh))), Refresh);
        assert_eq!(asked(body(Inspect).or(head(Refresh))), Refresh);
        assert_eq!(asked(head(Abstain).or(body(EndSession))), EndSession);
        assert_eq!(asked(body(Abstain).or(body(EndSession))), EndSession);
        assert_eq!(
            asked(body(Abstain).or(body(Abstain)).or(body(Refresh))),
            Refresh
        );
    }
}
