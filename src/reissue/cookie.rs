//! Issuers that keep the refresh token in a cookie.

use std::time::SystemTime;

use ::cookie::Cookie;
use ::cookie::time::OffsetDateTime;
use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::header;

use super::Reissue;
use super::ReissueError;
use super::ReissueRequest;
use super::answer::Contract;
use super::exchange::Exchange;
use super::exchange::secret_value;
use super::settings::client_settings;
use super::settings::json_settings;
use crate::error::BoxError;
use crate::error::ConfigError;
use crate::token::RefreshToken;
use crate::token::TokenSet;

/// Posts the refresh token as a cookie, with an empty body, and reads the access token out of a
/// JSON answer and a new refresh token out of its `Set-Cookie`.
///
/// There is no `Authorization` header. What an answer means is told at
/// [`JsonReissue`](crate::JsonReissue#what-an-answer-means).
///
/// ```
/// # fn main() -> Result<(), tower_token_refresh::ConfigError> {
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use tower::service_fn;
/// use http::StatusCode;
/// use tower_token_refresh::{CookieReissue, Reissue};
///
/// # let http = service_fn(async |_: http::Request<Full<Bytes>>| {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::new())))
/// # });
/// let reissue = CookieReissue::post("https://api.example.com/v1/api/auth/reissue", http)
///     .cookie("refresh")
///     .refused_status(StatusCode::UNAUTHORIZED);
/// reissue.check()?;
/// # Ok(())
/// # }
/// ```
pub struct CookieReissue {
    exchange: Exchange,
    cookie: String,
}

client_settings!(CookieReissue, Contract::home_made() => {
    cookie: "refreshToken".to_owned()
});

json_settings!(CookieReissue);

impl CookieReissue {
    /// The cookie's name: `refreshToken` unless set.
    #[must_use]
    pub fn cookie(mut self, name: impl Into<String>) -> Self {
        self.cookie = name.into();
        self
    }

    fn request(&self, request: &ReissueRequest) -> Result<Request<Bytes>, ReissueError> {
        let token = request.refresh_token_to_send()?;
        // RFC 6265 section 5.4: what was set goes back as it came, if the grammar of section 4.1.1
        // allows it or not. A cookie never brings this one character, where its value would end.
        if token.contains(';') {
            let message = "the refresh token has a ';', which cannot stand in a cookie";
            return Err(ReissueError::misconfigured(message));
        }
        let mut http = self.exchange.request(Bytes::new())?;
        let cookie = secret_value(&format!("{}=", self.cookie), token)?;
        http.headers_mut().insert(header::COOKIE, cookie);
        Ok(http)
    }
}

impl Reissue for CookieReissue {
    async fn reissue(&self, request: ReissueRequest) -> Result<TokenSet, ReissueError> {
        self.check().map_err(ReissueError::misconfigured)?;
        let answer = self.exchange.send(self.request(&request)?).await?;
        let rotated = rotated(&answer.headers, &self.cookie, SystemTime::now());
        self.exchange.contract.success(answer, rotated)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !is_cookie_name(&self.cookie) {
            let message = format!("{:?} is no name of a cookie", self.cookie);
            return Err(ConfigError::new(message));
        }
        self.exchange.check([&header::COOKIE])
    }
}

/// RFC 6265 section 4.1.1, which takes the tokens of RFC 2616: those of methods and headers.
fn is_cookie_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// The refresh token that an answer sets, if it sets one that lives. `now` is the local clock's time,
/// which counts where the answer does not say when it was made.
pub(super) fn rotated(
    headers: &HeaderMap,
    name: &str,
    now: SystemTime,
) -> Result<Option<RefreshToken>, BoxError> {
    // Both times of the issuer's clock: ours may be wrong (RFC 9110 section 6.6.1).
    let now = date(headers).unwrap_or(now);
    let set = headers.get_all(header::SET_COOKIE).into_iter();
    // An attribute may be in any encoding, and is none of our business.
    let mut ours = set
        .filter_map(|value| Cookie::parse(String::from_utf8_lossy(value.as_bytes())).ok())
        .filter(|cookie| cookie.name() == name && lives(cookie, now));
    match ours.next_back() {
        Some(cookie) => Ok(Some(RefreshToken::new(cookie.value())?)),
        None => Ok(None),
    }
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    httpdate::parse_http_date(text.trim()).ok()
}

/// An empty or expired cookie deletes the browser's, and hands out nothing.
fn lives(cookie: &Cookie<'_>, now: SystemTime) -> bool {
    let expired = match (cookie.max_age(), cookie.expires_datetime()) {
        (Some(age), _) => !age.is_positive(),
        (None, Some(at)) => at <= OffsetDateTime::from(now),
        (None, None) => false,
    };
    !expired && !cookie.value_trimmed().is_empty()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn set(cookies: &[&'static str]) -> Result<Option<String>, BoxError> {
        let line = |text: &&'static str| (header::SET_COOKIE, HeaderValue::from_static(text));
        let headers = HeaderMap::from_iter(cookies.iter().map(line));
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let token = rotated(&headers, "refreshToken", now)?;
        Ok(token.map(|token| token.expose().to_owned()))
    }

    #[test]
    fn a_cookie_of_that_name_is_a_rotation() {
        let found = set(&[
            "a=1",
            "refreshToken=r2; Path=/; HttpOnly",
            "refreshTokens=x",
        ]);
        assert_eq!(found.unwrap().as_deref(), Some("r2"));
        let found = set(&["refreshToken=r2; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]);
        assert_eq!(
            found.unwrap().as_deref(),
            Some("r2"),
            "Max-Age goes before Expires"
        );
        let found = set(&["refreshToken=a==; Expires=Fri, 01 Jan 2100 00:00:00 GMT"]);
        assert_eq!(found.unwrap().as_deref(), Some("a=="));
        assert_eq!(
            set(&["refreshToken=\"r2\""]).unwrap().as_deref(),
            Some("\"r2\"")
        );
    }

    #[test]
    fn of_several_the_last_that_lives_counts() {
        let found = set(&[
            "refreshToken=r2",
            "refreshToken=r3",
            "refreshToken=; Max-Age=0; Path=/old",
        ]);
        assert_eq!(found.unwrap().as_deref(), Some("r3"));
    }

    #[test]
    fn a_deleted_cookie_is_no_rotation() {
        let deleted = [
            "refreshToken=",
            "refreshToken=\"\"",
            "refreshToken=r2; Max-Age=0",
            "refreshToken=r2; Max-Age=-1",
            "refreshToken=r2; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            "RefreshToken=r2",
            "refreshToken",
        ];
        for cookie in deleted {
            assert_eq!(set(&[cookie]).unwrap(), None, "{cookie}");
        }
        assert_eq!(set(&[]).unwrap(), None);
    }

    #[test]
    fn a_rotated_token_with_a_space_is_an_error_that_does_not_quote_it() {
        let error = set(&["refreshToken=CANARY x"]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }

    #[test]
    fn an_attribute_may_have_bytes_that_are_no_ascii() {
        let lines: [&[u8]; 3] = [
            b"refreshToken=r2; Path=/; X=\xff",
            "refreshToken=r2; Path=/caf\u{e9}".as_bytes(),
            b"refreshToken=r2; Max-Age=60; comment=a\tb \xfe",
        ];
        for line in lines {
            let line = HeaderValue::from_bytes(line).unwrap();
            let headers = HeaderMap::from_iter([(header::SET_COOKIE, line)]);
            let token = rotated(&headers, "refreshToken", SystemTime::now()).unwrap();
            assert_eq!(token.unwrap().expose(), "r2", "{headers:?}");
        }
        let value = HeaderValue::from_bytes(b"refreshToken=CANARY\xff").unwrap();
        let headers = HeaderMap::from_iter([(header::SET_COOKIE, value)]);
        let error = rotated(&headers, "refreshToken", SystemTime::now()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }

    #[test]
    fn whether_it_has_expired_is_judged_by_the_clock_of_the_issuer() {
        const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);
        let fresh = "refreshToken=r2; Expires=Sun, 06 Nov 1994 08:59:37 GMT";
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
        let lives = |date: Option<&'static str>, now| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SET_COOKIE, HeaderValue::from_static(fresh));
            if let Some(date) = date {
                headers.insert(header::DATE, HeaderValue::from_static(date));
            }
            rotated(&headers, "refreshToken", now).unwrap().is_some()
        };
        let ahead = at + HOUR;
        assert!(lives(Some("Sun, 06 Nov 1994 08:49:37 GMT"), ahead));
        assert!(!lives(Some("Sun, 06 Nov 1994 09:49:37 GMT"), at));
        for none in [None, Some("yesterday")] {
            assert!(lives(none, at) && !lives(none, ahead), "{none:?}");
        }
    }

    #[test]
    fn a_name_is_a_token() {
        assert!(is_cookie_name("__Host-refresh.token"));
        for name in ["", "a=b", "a;b", "a b", "a\"", "\u{e9}"] {
            assert!(!is_cookie_name(name), "{name}");
        }
    }
}
