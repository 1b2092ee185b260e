//! What the head of a gRPC answer says (gRPC over HTTP/2, "Responses": *Trailers-Only*).
//!
//! An answer that fails before its first message has its status among the headers, whatever its
//! HTTP status. One that fails later has it in the trailers, which are not seen here.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

static STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The token is no good: `UNAUTHENTICATED`.
pub(super) fn is_unauthenticated(headers: &HeaderMap) -> bool {
    status(headers).is_some_and(|status| status == "16")
}

/// Was this call refused before there was any message? Then it was not processed.
pub(crate) fn is_refused_at_once(headers: &HeaderMap) -> bool {
    status(headers).is_some_and(|status| status != "0")
}

/// `application/grpc`, `application/grpc+proto`, `application/grpc-web` and the like; gRPC writes them
/// in lower case.
fn status(headers: &HeaderMap) -> Option<&HeaderValue> {
    // The name that is cheap to find comes first, as most answers are not of gRPC: it is among the
    // first, and to hash it takes longer than to compare.
    let mut headers_in_order = headers.iter();
    let (_, content_type) = headers_in_order.find(|(name, _)| *name == header::CONTENT_TYPE)?;
    match content_type.as_bytes().starts_with(b"application/grpc") {
        true => headers.get(&STATUS),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: Option<&'static str>, status: Option<&'static str>) -> HeaderMap {
        let content_type = content_type.map(|it| (header::CONTENT_TYPE, it));
        let status = status.map(|it| (STATUS.clone(), it));
        let value = |(name, it)| (name, HeaderValue::from_static(it));
        content_type.into_iter().chain(status).map(value).collect()
    }

    // shows B28
    #[test]
    fn only_the_status_of_a_grpc_answer_counts() {
        let grpc = [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc; charset=utf-8",
            "application/grpc-web+proto",
        ];
        for content_type in grpc {
            let told = |status| {
                let headers = headers(Some(content_type), status);
                (is_unauthenticated(&headers), is_refused_at_once(&headers))
            };
            assert_eq!(told(Some("16")), (true, true), "{content_type}");
            assert_eq!(told(Some("7")), (false, true), "{content_type}");
            assert_eq!(told(Some("0")), (false, false), "{content_type}");
            assert_eq!(told(None), (false, false), "{content_type}");
        }
        let others = [
            None,
            Some("application/json"),
            Some("application/grp"),
            Some(""),
        ];
        for content_type in others {
            let headers = headers(content_type, Some("16"));
            assert!(!is_unauthenticated(&headers), "{content_type:?}");
            assert!(!is_refused_at_once(&headers), "{content_type:?}");
        }
    }
}
