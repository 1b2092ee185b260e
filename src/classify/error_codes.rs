//! Servers that say what is wrong with the token by a code in a JSON body.

use std::sync::Arc;

use http::HeaderMap;
use http::StatusCode;
use serde_json::Value;

use super::Classify;
use super::Or;
use super::Verdict;
use crate::error::ConfigError;
use crate::grpc;
use crate::json;
use crate::json::MediaType;
use crate::json::Pointer;

/// Reads an error code out of a JSON body, such as `{"code": "T-002", "message": "…"}`.
///
/// It looks at the bodies of client errors (4xx) whose `Content-Type` is JSON or absent. A code
/// that it was not told, a body that is no JSON, is compressed or is over the limits: about all
/// those it abstains. Alone, it lets a 401 without a known code through to the caller. Mostly the
/// code should decide where there is one, and the status where there is none:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_token_refresh::{Classify, DefaultClassifier, ErrorCodes, Verdict};
///
/// let classifier = ErrorCodes::json("/code")
///     .expired("T-002") // refresh the token, and send the request again
///     .ended("T-003") // there is no point: the session is over
///     .pass("T-005") // a 401 that is not about the token
///     .or(DefaultClassifier);
///
/// # let headers = HeaderMap::new();
/// let judge = |body: &[u8]| {
///     assert_eq!(classifier.classify(StatusCode::UNAUTHORIZED, &headers), Verdict::Inspect);
///     classifier.inspect(StatusCode::UNAUTHORIZED, &headers, Some(body))
/// };
/// assert_eq!(judge(br#"{"code": "T-003"}"#), Verdict::EndSession);
/// assert_eq!(judge(br#"{"code": "T-005"}"#), Verdict::Accept);
/// assert_eq!(judge(b"<h1>Unauthorized</h1>"), Verdict::Refresh); // by its status
/// ```
///
/// A code that the server writes as a number is given as text: `expired("40101")`.
#[derive(Debug, Clone)]
pub struct ErrorCodes {
    /// Shared, as a layer is cloned often.
    inner: Arc<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    pointer: Pointer,
    codes: Vec<(String, Verdict)>,
    in_success: bool,
}

impl ErrorCodes {
    /// `pointer` is a JSON pointer (RFC 6901) to the code: `"/code"`, `"/error/code"`.
    ///
    /// One that is none is reported when the layer is given this classifier.
    pub fn json(pointer: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                pointer: Pointer::new(pointer),
                codes: Vec::new(),
                in_success: false,
            }),
        }
    }

    /// This code says that the access token is no good: [`Verdict::Refresh`].
    #[must_use]
    pub fn expired(self, code: impl Into<String>) -> Self {
        self.means(code, Verdict::Refresh)
    }

    /// This code says that the session is over: [`Verdict::EndSession`].
    #[must_use]
    pub fn ended(self, code: impl Into<String>) -> Self {
        self.means(code, Verdict::EndSession)
    }

    /// This code says nothing against the token: [`Verdict::Accept`], whatever the status.
    #[must_use]
    pub fn pass(self, code: impl Into<String>) -> Self {
        self.means(code, Verdict::Accept)
    }

    /// Looks into the bodies of successful answers (2xx) as well, where their `Content-Type` is
    /// JSON: for servers that report everything as `200 OK`.
    ///
    /// The server may have processed a request that it answers so. The token is refreshed, but the
    /// request is sent again only where the caller marked it [`ReplaySafe`](crate::ReplaySafe).
    #[must_use]
    pub fn in_success(mut self) -> Self {
        Arc::make_mut(&mut self.inner).in_success = true;
        self
    }

    /// Asks `other` about an answer whose code is not known, or that has none; the same as
    /// [`Classify::or`].
    pub fn or<C: Classify>(self, other: C) -> Or<Self, C> {
        Or::new(self, other)
    }

    fn means(mut self, code: impl Into<String>, verdict: Verdict) -> Self {
        let inner = Arc::make_mut(&mut self.inner);
        inner.codes.push((code.into(), verdict));
        self
    }

    fn meaning(&self, code: &str) -> Option<Verdict> {
        let mut codes = self.inner.codes.iter();
        codes
            .find(|(known, _)| known == code)
            .map(|(_, verdict)| *verdict)
    }

    fn verdict(&self, body: &[u8]) -> Option<Verdict> {
        let document: Value = serde_json::from_slice(body).ok()?;
        let code = json::code(self.inner.pointer.get(&document)?)?;
        self.meaning(&code)
    }
}

impl Classify for ErrorCodes {
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        let wanted = match MediaType::of(headers) {
            // Messages with a frame around each, whatever is in them.
            MediaType::Json if grpc::is_grpc(headers) => false,
            MediaType::Json if status.is_success() => self.inner.in_success,
            MediaType::Json | MediaType::Absent => status.is_client_error(),
            MediaType::Other => false,
        };
        if wanted && json::is_plain(headers) {
            Verdict::Inspect
        } else {
            Verdict::Abstain
        }
    }

    fn inspect(&self, _: StatusCode, _: &HeaderMap, body: Option<&[u8]>) -> Verdict {
        body.and_then(|body| self.verdict(body))
            .unwrap_or(Verdict::Abstain)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.inner.pointer.check()?;
        if self.inner.codes.is_empty() {
            let message = "ErrorCodes knows no code: name one with expired(…) or ended(…)";
            return Err(ConfigError::new(message));
        }
        let clash = |(code, verdict): &&(String, Verdict)| self.meaning(code) != Some(*verdict);
        match self.inner.codes.iter().find(clash) {
            Some((code, _)) => Err(ConfigError::new(format!(
                "ErrorCodes was given two meanings for the code {code:?}"
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header;
    use proptest::prelude::*;

    use super::*;
    use crate::classify::DefaultClassifier;

    const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;

    fn codes() -> ErrorCodes {
        let codes = ErrorCodes::json("/code").expired("T-002").ended("T-003");
        codes.pass("T-005").expired("40101")
    }

    fn headers(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    fn read(body: &str) -> Verdict {
        codes().inspect(UNAUTHORIZED, &HeaderMap::new(), Some(body.as_bytes()))
    }

    #[test]
    fn each_known_code_has_its_verdict() {
        assert_eq!(read(r#"{"code":"T-002","message":"x"}"#), Verdict::Refresh);
        assert_eq!(read(r#"{"code":"T-003"}"#), Verdict::EndSession);
        assert_eq!(read(r#"{"code":"T-005"}"#), Verdict::Accept);
        assert_eq!(read(r#"{"code":40101}"#), Verdict::Refresh);
    }

    #[test]
    fn what_has_no_known_code_is_left_to_others() {
        let deep = "[".repeat(10_000);
        let bodies = [
            r#"{"code":"T-009"}"#,
            r#"{"code":"t-002"}"#,
            r#"{"code":null}"#,
            r#"{"code":["T-002"]}"#,
            r#"{"error":{"code":"T-002"}}"#,
            r#"{"code":"T-002""#,
            r#""T-002""#,
            "<h1>T-002</h1>",
            "",
            &deep,
        ];
        for body in bodies {
            assert_eq!(read(body), Verdict::Abstain, "{body:.40}");
        }
        let unread = codes().inspect(UNAUTHORIZED, &HeaderMap::new(), None);
        assert_eq!(unread, Verdict::Abstain);
    }

    /// A document with up to three mistakes in it.
    fn spoilt(seed: u64) -> Vec<u8> {
        const PIECES: [&str; 10] = [
            "\"",
            "{",
            "}",
            "[",
            "\\",
            ",",
            ":",
            "1e999",
            "\\ud800",
            "\"code\":\"T-003\",",
        ];
        let mut random = fastrand::Rng::with_seed(seed);
        let good = [
            r#"{"code":"T-002","message":"x"}"#,
            r#"{"a":[{"code":1}],"code":40101}"#,
        ];
        let mut text = good[random.usize(..good.len())].as_bytes().to_vec();
        for _ in 0..random.u8(..4) {
            let at = random.usize(..=text.len());
            match random.u8(..4) {
                0 => text.truncate(at),
                1 => text.insert(at, random.u8(..)),
                2 => drop(text.splice(at..(at + 1).min(text.len()), [random.u8(..)])),
                _ => drop(text.splice(at..at, PIECES[random.usize(..PIECES.len())].bytes())),
            }
        }
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        // shows S8: a body that says nothing certain decides nothing.
        #[test]
        fn only_a_code_that_is_there_decides(seed in any::<u64>()) {
            let body = spoilt(seed);
            let codes = codes();
            let verdict = codes.inspect(UNAUTHORIZED, &HeaderMap::new(), Some(&body));
            let named: Option<Value> = serde_json::from_slice(&body).ok();
            let named = named.as_ref().and_then(|document| document.get("code"));
            prop_assert_eq!(verdict, match named {
                Some(code) if code == "T-002" || code == 40101 => Verdict::Refresh,
                Some(code) if code == "T-003" => Verdict::EndSession,
                Some(code) if code == "T-005" => Verdict::Accept,
                _ => Verdict::Abstain,
            });
        }
    }

    // shows B26: a stream of messages is not held back for a look at it.
    #[test]
    fn messages_of_grpc_are_no_document() {
        let classify = |content_type| {
            let value = http::HeaderValue::from_static(content_type);
            let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, value)]);
            codes().in_success().classify(StatusCode::OK, &headers)
        };
        assert_eq!(classify("application/problem+json"), Verdict::Inspect);
        assert_eq!(classify("application/grpc+json"), Verdict::Abstain);
    }

    #[test]
    fn a_pointer_reaches_into_the_document() {
        let inspect = |pointer: &str, body: &str| {
            let codes = ErrorCodes::json(pointer).expired("x");
            codes.inspect(UNAUTHORIZED, &HeaderMap::new(), Some(body.as_bytes()))
        };
        assert_eq!(
            inspect("/error/code", r#"{"error":{"code":"x"}}"#),
            Verdict::Refresh
        );
        assert_eq!(
            inspect("/errors/0/code", r#"{"errors":[{"code":"x"}]}"#),
            Verdict::Refresh
        );
        assert_eq!(inspect("", r#""x""#), Verdict::Refresh);
    }

    // shows B26
    #[test]
    fn only_client_errors_in_json_are_looked_into() {
        let json = headers("application/problem+json; charset=utf-8");
        for number in 100..1000 {
            let status = StatusCode::from_u16(number).unwrap();
            let looks = |headers: &_| codes().classify(status, headers) == Verdict::Inspect;
            assert_eq!(looks(&json), status.is_client_error(), "{number}");
            assert_eq!(
                looks(&HeaderMap::new()),
                status.is_client_error(),
                "{number}"
            );
            assert!(!looks(&headers("text/html")), "{number}");
        }
    }

    #[test]
    fn a_compressed_body_is_not_looked_into() {
        let mut json = headers("application/json");
        json.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(codes().classify(UNAUTHORIZED, &json), Verdict::Abstain);
        assert_eq!(
            codes().in_success().classify(StatusCode::OK, &json),
            Verdict::Abstain
        );
    }

    // shows B27
    #[test]
    fn successes_are_looked_into_only_where_asked_for_and_declared_as_json() {
        let json = headers("application/json");
        assert_eq!(codes().classify(StatusCode::OK, &json), Verdict::Abstain);
        let codes = codes().in_success();
        assert_eq!(codes.classify(StatusCode::OK, &json), Verdict::Inspect);
        assert_eq!(
            codes.classify(StatusCode::OK, &HeaderMap::new()),
            Verdict::Abstain
        );
        assert_eq!(
            codes.classify(StatusCode::BAD_GATEWAY, &json),
            Verdict::Abstain
        );
        assert_eq!(
            codes.classify(UNAUTHORIZED, &HeaderMap::new()),
            Verdict::Inspect
        );
    }

    // shows B141
    #[test]
    fn a_configuration_that_cannot_work_is_told() {
        assert!(codes().check().is_ok());
        assert!(
            codes().expired("T-002").check().is_ok(),
            "the same twice is no contradiction"
        );
        let wrong = [
            ErrorCodes::json("code").expired("T-002"),
            ErrorCodes::json("/code"),
            codes().ended("T-002"),
        ];
        for codes in wrong {
            assert!(codes.check().is_err(), "{codes:?}");
            assert!(
                codes.clone().or(DefaultClassifier).check().is_err(),
                "{codes:?}"
            );
            assert!(
                DefaultClassifier.or(codes.clone()).check().is_err(),
                "{codes:?}"
            );
        }
    }
}
