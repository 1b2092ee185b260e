//! What a server means that follows the standards.

use http::HeaderMap;
use http::StatusCode;

use super::Classify;
use super::Verdict;
use super::challenge;
use crate::grpc;

/// Reads the status, the `WWW-Authenticate` header and the status of a gRPC call.
///
/// It is the classifier of a layer that is given none. The first line that fits decides:
///
/// | answer | verdict |
/// |---|---|
/// | of gRPC, with the status `UNAUTHENTICATED` (16) in the head | `Refresh` |
/// | of gRPC, without a status in the head, and no client error | `InspectTrailers`, where the same status is a `Refresh` |
/// | no client error (4xx) | `Abstain` |
/// | a challenge for `Bearer` or `DPoP` with the error `invalid_token` (RFC 6750 section 3.1) | `Refresh` |
/// | such a challenge with the error `insufficient_scope`, `invalid_request`, `insufficient_user_authentication` (RFC 9470), `insufficient_claims` (Entra ID), `invalid_dpop_proof` or `use_dpop_nonce` (RFC 9449): the token is not at fault | `Accept` |
/// | a 401, with whatever else or without a challenge | `Refresh` |
/// | anything else | `Abstain` |
///
/// All challenges of all `WWW-Authenticate` headers are read (RFC 9110 section 11.6.1), and those of
/// other schemes are skipped. Of a header with a mistake in it, the challenges before the mistake
/// count.
///
/// An answer of gRPC is one whose `Content-Type` begins with `application/grpc`. The trailers that
/// gRPC-Web puts into the body are not read.
///
/// ```
/// use http::{HeaderMap, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
/// use tower_token_refresh::{Classify, DefaultClassifier, Verdict};
///
/// let mut headers = HeaderMap::new();
/// let judge = |headers: &_| DefaultClassifier.classify(StatusCode::UNAUTHORIZED, headers);
/// assert_eq!(judge(&headers), Verdict::Refresh);
///
/// let challenge = r#"Basic realm="a", Bearer realm="a", error="insufficient_scope""#;
/// headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
/// assert_eq!(judge(&headers), Verdict::Accept); // a new token would not help
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no options")]
pub struct DefaultClassifier;

impl Classify for DefaultClassifier {
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        // Of a success no more is read than what kind of body it has.
        let grpc_status = grpc::is_grpc(headers).then(|| grpc::status(headers));
        if grpc_status.flatten().is_some_and(grpc::is_unauthenticated) {
            return Verdict::Refresh;
        }
        if !status.is_client_error() {
            return match grpc_status {
                Some(None) => Verdict::InspectTrailers,
                _ => Verdict::Abstain,
            };
        }
        match challenge::verdict(headers) {
            Verdict::Abstain if status == StatusCode::UNAUTHORIZED => Verdict::Refresh,
            verdict => verdict,
        }
    }

    fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        match grpc::status(trailers) {
            Some(status) if grpc::is_unauthenticated(status) => Verdict::Refresh,
            _ => Verdict::Abstain,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::HeaderValue;
    use http::header;

    use super::*;

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        let of = of.iter().cloned();
        of.map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect()
    }

    fn challenge(value: &'static str) -> HeaderMap {
        headers(&[(header::WWW_AUTHENTICATE, value)])
    }

    /// The verdict for each status: on a 401, on other client errors, on all others.
    fn judged(headers: &HeaderMap) -> (Verdict, Verdict, Verdict) {
        let judge = |number| {
            let status = StatusCode::from_u16(number).unwrap();
            DefaultClassifier.classify(status, headers)
        };
        let (denied, other) = (judge(403), judge(200));
        for number in 100..1000 {
            let expected = match number {
                401 => continue,
                400..500 => denied,
                _ => other,
            };
            assert_eq!(judge(number), expected, "{number}");
        }
        (judge(401), denied, other)
    }

    // shows B17
    #[test]
    fn without_a_challenge_a_401_and_no_other_status_refreshes() {
        use Verdict::*;
        assert_eq!(judged(&HeaderMap::new()), (Refresh, Abstain, Abstain));
    }

    // shows B21, B22
    #[test]
    fn a_challenge_decides_where_it_says_anything_and_the_status_where_not() {
        use Verdict::*;
        let cases = [
            (
                r#"Bearer error="invalid_token""#,
                (Refresh, Refresh, Abstain),
            ),
            (r#"DPoP error="invalid_token""#, (Refresh, Refresh, Abstain)),
            (
                r#"Bearer error="insufficient_scope""#,
                (Accept, Accept, Abstain),
            ),
            (
                r#"Bearer error="invalid_request""#,
                (Accept, Accept, Abstain),
            ),
            (
                r#"Bearer error="something_new""#,
                (Refresh, Abstain, Abstain),
            ),
            (r#"Bearer realm="x""#, (Refresh, Abstain, Abstain)),
            ("Bearer", (Refresh, Abstain, Abstain)),
            (r#"Basic realm="x""#, (Refresh, Abstain, Abstain)),
            ("Negotiate dG9rZW4=", (Refresh, Abstain, Abstain)),
            (r#"Bearer error=""#, (Refresh, Abstain, Abstain)),
        ];
        for (value, expected) in cases {
            assert_eq!(judged(&challenge(value)), expected, "{value}");
        }
    }

    // shows B28
    #[test]
    fn an_unauthenticated_grpc_call_refreshes_whatever_its_http_status() {
        use Verdict::*;
        let status = HeaderName::from_static("grpc-status");
        let answer = |content_type, number| {
            headers(&[
                (header::CONTENT_TYPE, content_type),
                (status.clone(), number),
            ])
        };
        let grpc = "application/grpc+proto";
        assert_eq!(judged(&answer(grpc, "16")), (Refresh, Refresh, Refresh));
        assert_eq!(judged(&answer(grpc, "7")), (Refresh, Abstain, Abstain));
        assert_eq!(judged(&answer(grpc, "0")), (Refresh, Abstain, Abstain));
        let untold = headers(&[(header::CONTENT_TYPE, grpc)]);
        assert_eq!(judged(&untold), (Refresh, Abstain, InspectTrailers));
        let json = "application/json";
        assert_eq!(judged(&answer(json, "16")), (Refresh, Abstain, Abstain));
    }

    // shows B28
    #[test]
    fn trailers_are_judged_by_their_status() {
        let judge = |trailers: &_| DefaultClassifier.inspect_trailers(trailers);
        let status = |number| headers(&[(HeaderName::from_static("grpc-status"), number)]);
        assert_eq!(judge(&status("16")), Verdict::Refresh);
        assert_eq!(judge(&status("7")), Verdict::Abstain);
        assert_eq!(judge(&status("0")), Verdict::Abstain);
        assert_eq!(judge(&HeaderMap::new()), Verdict::Abstain);
    }
}
