//! What is said of gRPC in the heads and trailers of its calls (gRPC over HTTP/2).
//!
//! An answer that fails before its first message has its status among the headers, whatever its
//! HTTP status (*Trailers-Only*). One that fails later has it in the trailers, and so have those of
//! servers and proxies that send every head before they know how the call ends.

use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Version;
use http::header;
use http::request::Parts;
use tokio::time::Instant;

static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Is this the head of a message of gRPC? `application/grpc`, `application/grpc+proto`,
/// `application/grpc-web` and the like; gRPC writes them in lower case.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    // The name that is cheap to find: it is among the first, and to hash it takes longer than to
    // compare.
    let mut headers_in_order = headers.iter();
    let content_type = headers_in_order.find(|(name, _)| *name == header::CONTENT_TYPE);
    content_type.is_some_and(|(_, it)| it.as_bytes().starts_with(b"application/grpc"))
}

/// The status of a call, if it is in this head or in these trailers.
pub(crate) fn status(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(&STATUS)
}

/// The token is no good: `UNAUTHENTICATED`.
pub(crate) fn is_unauthenticated(status: &HeaderValue) -> bool {
    status == "16"
}

/// Is this the status of a call that failed?
pub(crate) fn is_failure(status: &HeaderValue) -> bool {
    status != "0"
}

/// When a call has to be over that may take the time in its `grpc-timeout`, counted from now.
pub(crate) fn deadline(head: &Parts) -> Option<Instant> {
    // Every call of gRPC is a POST over HTTP/2: other requests are not searched.
    if head.version != Version::HTTP_2 || head.method != Method::POST {
        return None;
    }
    let time = parse_timeout(head.headers.get(&TIMEOUT)?)?;
    Instant::now().checked_add(time)
}

/// Says in `grpc-timeout` how much time there is left. `false` when there is none.
pub(crate) fn shorten(headers: &mut HeaderMap, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    if let Some(value) = format_timeout(left) {
        headers.insert(TIMEOUT.clone(), value);
    }
    !left.is_zero()
}

/// At most eight digits and a unit: `TimeoutValue TimeoutUnit`.
fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// In the finest unit whose eight digits suffice; never longer than it is.
fn format_timeout(time: Duration) -> Option<HeaderValue> {
    let seconds = u128::from(time.as_secs());
    let units = [
        (time.as_nanos(), 'n'),
        (time.as_micros(), 'u'),
        (time.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
        (seconds / 3600, 'H'),
    ];
    let (number, unit) = units
        .into_iter()
        .find(|(number, _)| *number < 100_000_000)?;
    HeaderValue::try_from(format!("{number}{unit}")).ok()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    // shows B28
    #[test]
    fn a_message_of_grpc_is_known_by_its_content_type() {
        let is_known = |content_type| {
            let value = HeaderValue::from_static(content_type);
            is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        let grpc = [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc; charset=utf-8",
            "application/grpc-web+proto",
        ];
        for content_type in grpc {
            assert!(is_known(content_type), "{content_type}");
        }
        for content_type in ["application/json", "application/grp", ""] {
            assert!(!is_known(content_type), "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    fn parse(text: &'static str) -> Option<Duration> {
        parse_timeout(&HeaderValue::from_static(text))
    }

    #[test]
    fn a_timeout_is_read_as_it_is_specified_and_in_no_other_way() {
        let secs = Duration::from_secs;
        let good = [
            ("1H", secs(3600)),
            ("2M", secs(120)),
            ("3S", secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("00000001S", secs(1)),
            ("0S", Duration::ZERO),
            ("99999999H", secs(99_999_999 * 3600)),
        ];
        for (text, time) in good {
            assert_eq!(parse(text), Some(time), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "1.5S",
            "1 S",
            "100000000n",
            "1SS",
            "\u{7f}",
        ] {
            let value = HeaderValue::from_bytes(text.as_bytes());
            assert_eq!(value.ok().and_then(|it| parse_timeout(&it)), None, "{text}");
        }
    }

    #[test]
    fn a_timeout_is_written_so_that_it_is_read_as_no_longer_and_hardly_shorter() {
        let read_again = |time| parse_timeout(&format_timeout(time).unwrap()).unwrap();
        for power in 0..60 {
            for more in [0, 1, 7] {
                let time = Duration::from_nanos((1 << power) + more);
                let again = read_again(time);
                assert!(again <= time && time - again <= time / 50_000, "{time:?}");
            }
        }
        assert_eq!(read_again(Duration::ZERO), Duration::ZERO);
        assert_eq!(format_timeout(Duration::MAX), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_that_of_the_whole_call() {
        let request = |method, timeout| {
            let request = Request::builder().method(method).version(Version::HTTP_2);
            let request = request.header("grpc-timeout", timeout).body(());
            request.unwrap().into_parts().0
        };
        assert_eq!(deadline(&request(Method::GET, "5S")), None);
        assert_eq!(deadline(&request(Method::POST, "5 s")), None);
        let mut other = request(Method::POST, "5S");
        other.version = Version::HTTP_11;
        assert_eq!(deadline(&other), None);
        let head = request(Method::POST, "5S");
        let deadline = deadline(&head).unwrap();
        let mut headers = head.headers;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(shorten(&mut headers, deadline));
        assert_eq!(
            parse_timeout(&headers["grpc-timeout"]),
            Some(Duration::from_secs(3))
        );
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(!shorten(&mut headers, deadline));
    }
}
