//! What classifiers, reissuers and stores all want to know of JSON: whether an answer is some, which
//! code it carries, and what it says of a time.

use std::borrow::Cow;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::header;
use jiff::Timestamp;
use serde_json::Value;

use crate::error::ConfigError;

/// A JSON pointer (RFC 6901): the way to a value inside a document. The empty one is all of it.
#[derive(Debug, Clone)]
pub(crate) struct Pointer {
    text: String,
}

impl Pointer {
    /// Takes any text over: what is wrong with it is said by [`check`](Self::check).
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let escaped = |rest: &str| rest.starts_with(['0', '1']);
        let why = if !self.text.is_empty() && !self.text.starts_with('/') {
            "it must start with '/', as \"/code\" does"
        } else if !self.text.split('~').skip(1).all(escaped) {
            "'~' must be written \"~0\", and '/' inside a name \"~1\""
        } else {
            return Ok(());
        };
        let message = format!("{:?} is no JSON pointer (RFC 6901): {why}", self.text);
        Err(ConfigError::new(message))
    }

    /// The value, unless it is absent or null.
    pub(crate) fn get<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        document
            .pointer(&self.text)
            .filter(|value| !value.is_null())
    }

    /// The same, moved out of the document: a secret is not copied.
    pub(crate) fn take(&self, document: &mut Value) -> Option<Value> {
        let value = document.pointer_mut(&self.text).map(Value::take)?;
        Some(value).filter(|value| !value.is_null())
    }

    /// The names of the members on the way.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let segments = self.text.split('/').skip(1);
        segments.map(|segment| segment.replace("~1", "/").replace("~0", "~"))
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// An error code as text. Some servers number theirs.
pub(crate) fn code(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(code) => Some(Cow::Borrowed(code)),
        Value::Number(code) => Some(Cow::Owned(code.to_string())),
        _ => None,
    }
}

/// A lifetime in seconds.
pub(crate) fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// A moment as RFC 3339 writes it, or in seconds since 1970.
pub(crate) fn moment(value: &Value) -> Option<SystemTime> {
    match value {
        Value::Number(_) => SystemTime::UNIX_EPOCH.checked_add(seconds(value)?),
        Value::String(text) => Some(text.trim().parse::<Timestamp>().ok()?.into()),
        _ => None,
    }
}

/// What the `Content-Type` says of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    Absent,
    Json,
    Other,
}

impl MediaType {
    /// JSON is `application/json`, and what ends in `+json` (RFC 6839 section 3.1).
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Self::Absent;
        };
        let text = value.to_str().unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default().trim();
        let suffix = essence.len().saturating_sub("+json".len());
        let suffix = essence.get(suffix..).unwrap_or_default();
        if essence.eq_ignore_ascii_case("application/json") || suffix.eq_ignore_ascii_case("+json")
        {
            Self::Json
        } else {
            Self::Other
        }
    }
}

/// Whether the body is as it was written: nothing here unpacks one, and so none can be a bomb.
pub(crate) fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    codings.all(|coding| {
        coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"identity")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_pointer_starts_with_a_slash_or_is_empty() {
        for text in ["", "/", "/code", "/error/code", "/a~1b", "/a~0b", "/0"] {
            assert!(Pointer::new(text).check().is_ok(), "{text:?}");
        }
        for text in ["code", "#/code", "$.code", " /code", "/a~b", "/a~", "/~~0"] {
            assert!(Pointer::new(text).check().is_err(), "{text:?}");
        }
    }

    #[test]
    fn null_is_nothing() {
        let mut document = json!({"code": null, "deep": {"code": 7}});
        assert_eq!(Pointer::new("/code").get(&document), None);
        assert_eq!(Pointer::new("/code").take(&mut document), None);
        assert_eq!(Pointer::new("/deep/code").get(&document), Some(&json!(7)));
        assert_eq!(
            Pointer::new("/deep/code").take(&mut document),
            Some(json!(7))
        );
        assert_eq!(Pointer::new("/deep/code").get(&document), None);
    }

    #[test]
    fn the_names_of_a_pointer_are_unescaped() {
        let names: Vec<_> = Pointer::new("/a~1b/~01").names().collect();
        assert_eq!(names, ["a/b", "~1"]);
    }

    #[test]
    fn json_is_known_by_its_media_type_alone() {
        let json = [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/problem+json",
            "application/vnd.api+json;version=2",
        ];
        for text in json {
            assert_eq!(
                MediaType::of(&headers(header::CONTENT_TYPE, text)),
                MediaType::Json
            );
        }
        for text in ["text/html", "application/jsonp", "text/plain; a=+json", ""] {
            assert_eq!(
                MediaType::of(&headers(header::CONTENT_TYPE, text)),
                MediaType::Other
            );
        }
        assert_eq!(MediaType::of(&HeaderMap::new()), MediaType::Absent);
    }

    #[test]
    fn only_identity_is_plain() {
        assert!(is_plain(&HeaderMap::new()));
        assert!(is_plain(&headers(header::CONTENT_ENCODING, "Identity")));
        for coding in ["gzip", "identity, gzip", "br"] {
            assert!(!is_plain(&headers(header::CONTENT_ENCODING, coding)));
        }
    }

    #[test]
    fn a_lifetime_is_a_number_of_seconds_or_the_text_of_one() {
        let lifetime = |value: Value| seconds(&value);
        assert_eq!(lifetime(json!(900)), Some(Duration::from_secs(900)));
        assert_eq!(lifetime(json!("900")), Some(Duration::from_secs(900)));
        assert_eq!(lifetime(json!(0.25)), Some(Duration::from_millis(250)));
        for value in [
            json!(-1),
            json!("soon"),
            json!("NaN"),
            json!(1e300),
            json!(true),
            json!([]),
        ] {
            assert_eq!(lifetime(value.clone()), None, "{value}");
        }
    }

    #[test]
    fn a_moment_is_rfc_3339_or_seconds_since_1970() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(moment(&json!("2001-09-09T01:46:40Z")), at(1_000_000_000));
        assert_eq!(
            moment(&json!("2001-09-09T03:46:40.000+02:00")),
            at(1_000_000_000)
        );
        assert_eq!(moment(&json!(1_000_000_000)), at(1_000_000_000));
        for value in [
            json!("2001-09-09"),
            json!("1000000000"),
            json!(-1),
            json!(1e300),
            json!({}),
        ] {
            assert_eq!(moment(&value), None, "{value}");
        }
    }
}
