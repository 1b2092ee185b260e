//! Which origins may see a token.
//!
//! A client follows redirects, takes absolute URLs from answers and shares its connector with other
//! services; a token that goes along with such a request is given away. So a layer is told the origins
//! its tokens are for, and every request that passes, each redirect hop too, is judged by its own URI.
//!
//! An origin is scheme, host and port ([RFC 6454 §4], [RFC 9110 §4.3.1]). The contract:
//!
//! - In doubt the answer is no: what is not understood (userinfo, a zone id, a port that is no number,
//!   another scheme) never matches. A request that goes without its token gets an answer that says so;
//!   a token that went to the wrong host can't be called back.
//! - Upper and lower case, one dot at the end of a name, the default port and the spelling of an IPv6
//!   address make no difference. Names are compared as text: no IDN conversion, no lookup.
//! - A request without authority goes where the inner service is bound, which the request cannot
//!   choose: it counts as the first named origin. Unless its path can be read as an authority (`//evil`,
//!   `/\evil`): a service that resolves it as a link on a page would be sent to another host.
//! - A `Host` header must name the origin that the URI leads to, and each of them where there are more:
//!   a front end that serves many hosts on one address sends the request on to the host of that name.
//! - Plain http only to loopback, unless it was asked for with [`Origin::allow_plain_http`].
//! - Nothing is allocated to judge a request, and the usual one costs a comparison of two short texts and
//!   a look for a header that is not there.
//!
//! [RFC 6454 §4]: https://www.rfc-editor.org/rfc/rfc6454#section-4
//! [RFC 9110 §4.3.1]: https://www.rfc-editor.org/rfc/rfc9110#section-4.3.1

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::HeaderMap;
use http::HeaderValue;
use http::Uri;
use http::header;

use crate::error::ConfigError;
use crate::say::say;

/// A server that may see a token: scheme, host and port.
///
/// Made from text or from an [`http::Uri`] with `try_from`:
///
/// - `https://api.example.com`, `https://api.example.com:8443`, `https://[2001:db8::1]`;
/// - `http://localhost:3000`, `http://127.0.0.1`, `http://[::1]:8080`: plain http is accepted for
///   loopback only. For other hosts see [`allow_plain_http`](Self::allow_plain_http).
///
/// A lone `/` at the end is accepted. Any other path, a query, a fragment, userinfo, a wildcard, another
/// scheme or a port that is none is an error that says so. (An [`http::Uri`] has dropped its fragment
/// already.)
///
/// `Debug` and `Display` print it in its normal form, the default port left out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    /// `host:port`, always with the port: the name in lower case without a dot at its end, or the
    /// address in its normal form. Rendered once, so that a request can be compared with it as text.
    authority: Box<str>,
    /// Where the host ends in `authority`.
    host_end: usize,
    /// The host, if it is an address.
    address: Option<IpAddr>,
    port: u16,
}

impl Origin {
    /// Names an origin that may be reached over plain http although it is not loopback.
    ///
    /// Whoever is on the path to it can then read the tokens: meant for a network that encrypts below
    /// HTTP, a service mesh for instance. Otherwise this is the same as `try_from`; an `https` origin
    /// is accepted too.
    ///
    /// # Errors
    ///
    /// Whatever makes the text no origin; see [`Origin`].
    pub fn allow_plain_http(origin: &str) -> Result<Self, ConfigError> {
        Self::from_uri(&parse(origin)?, true)
    }

    fn from_uri(uri: &Uri, plain_http_allowed: bool) -> Result<Self, ConfigError> {
        let target = accept("origin", uri, plain_http_allowed)?;
        let reason = match uri.authority() {
            Some(authority) if authority.as_str().ends_with(':') => "the port is missing",
            _ if uri.query().is_some() => "an origin has no query",
            _ if uri.path() != "/" => "an origin has no path",
            _ => return Ok(Self::new(&target)),
        };
        Err(refusal("origin", uri, reason))
    }

    fn new(target: &Target<'_>) -> Self {
        let (mut authority, address) = match target.host {
            Host::Name(name) => (name.to_ascii_lowercase(), None),
            Host::Address(address @ IpAddr::V4(v4)) => (v4.to_string(), Some(address)),
            Host::Address(address @ IpAddr::V6(v6)) => (format!("[{v6}]"), Some(address)),
        };
        let host_end = authority.len();
        authority.push_str(&format!(":{}", target.port));
        Self {
            scheme: target.scheme,
            authority: authority.into_boxed_str(),
            host_end,
            address,
            port: target.port,
        }
    }

    fn host(&self) -> &str {
        &self.authority[..self.host_end]
    }

    /// The host alone where the port is the scheme's own, else both.
    fn short_authority(&self) -> &str {
        if self.port == self.scheme.default_port() {
            self.host()
        } else {
            &self.authority
        }
    }

    /// The fast path: true when the request spells this origin as we do.
    fn is_spelt(&self, scheme: Scheme, authority: &str) -> bool {
        self.scheme == scheme
            && (authority == self.short_authority() || authority == &*self.authority)
    }

    /// Is it this origin that the `Host` header names, over this origin's scheme?
    fn is_host(&self, value: &HeaderValue) -> bool {
        value.to_str().is_ok_and(|authority| {
            self.is_spelt(self.scheme, authority)
                || Target::read(self.scheme, authority).is_ok_and(|target| self.is(&target))
        })
    }

    fn is(&self, target: &Target<'_>) -> bool {
        self.scheme == target.scheme
            && self.port == target.port
            && match target.host {
                Host::Name(name) => name.eq_ignore_ascii_case(self.host()),
                Host::Address(address) => self.address == Some(address),
            }
    }
}

impl TryFrom<&str> for Origin {
    type Error = ConfigError;

    fn try_from(origin: &str) -> Result<Self, Self::Error> {
        Self::from_uri(&parse(origin)?, false)
    }
}

impl TryFrom<String> for Origin {
    type Error = ConfigError;

    fn try_from(origin: String) -> Result<Self, Self::Error> {
        Self::try_from(origin.as_str())
    }
}

impl TryFrom<&String> for Origin {
    type Error = ConfigError;

    fn try_from(origin: &String) -> Result<Self, Self::Error> {
        Self::try_from(origin.as_str())
    }
}

impl TryFrom<Uri> for Origin {
    type Error = ConfigError;

    fn try_from(origin: Uri) -> Result<Self, Self::Error> {
        Self::from_uri(&origin, false)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.short_authority())
    }
}

/// The named origins of a layer, never none: a request without authority counts as the first. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub(crate) struct Origins(Arc<[Origin]>);

impl Origins {
    pub(crate) fn new(first: Origin) -> Self {
        Self(Arc::new([first]))
    }

    /// Adds one; naming an origin twice is no error.
    pub(crate) fn push(&mut self, origin: Origin) {
        if !self.0.contains(&origin) {
            self.0 = self.0.iter().cloned().chain([origin]).collect();
        }
    }

    /// The named origin that a request to this URI goes to; the first where it names none of them.
    pub(crate) fn of(&self, uri: &Uri) -> &Origin {
        self.named_by(uri).unwrap_or(&self.0[0])
    }

    /// May a request with this URI and these headers carry a token (P11)?
    pub(crate) fn allow(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let Some(origin) = self.named_by(uri) else {
            return false;
        };
        !headers.contains_key(header::HOST) || is_host_of_all(origin, headers)
    }

    /// The origin that this URI leads to, if it is one of ours.
    fn named_by(&self, uri: &Uri) -> Option<&Origin> {
        let Some(authority) = uri.authority() else {
            let is_bound = uri.scheme().is_none() && !is_read_as_authority(uri.path());
            return self.0.first().filter(|_| is_bound);
        };
        let scheme = Scheme::of(uri)?;
        let authority = authority.as_str();
        let mut origins = self.0.iter();
        origins
            .find(|origin| origin.is_spelt(scheme, authority))
            .or_else(|| self.by_other_spelling(scheme, authority))
    }

    #[cold]
    fn by_other_spelling(&self, scheme: Scheme, authority: &str) -> Option<&Origin> {
        let target = Target::read(scheme, authority).ok()?;
        self.0.iter().find(|origin| origin.is(&target))
    }
}

/// Where a link on a page begins like this, an authority follows (RFC 3986 section 4.2, and the URL
/// standard for `\`). Other spellings of a slash are none to anybody, and [`Uri`] holds no tab or line break,
/// which browsers skip.
fn is_read_as_authority(path: &str) -> bool {
    matches!(path.as_bytes(), [b'/', b'/' | b'\\', ..])
}

#[cold]
fn is_host_of_all(origin: &Origin, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let named = hosts.all(|host| origin.is_host(host));
    if !named {
        say(|| {
            tracing::debug!(
                "a request names another host in its Host header, and goes without the token"
            );
        });
    }
    named
}

/// Whether a secret may be sent to this absolute URI: https, or plain http to loopback (or to
/// anywhere, if that is allowed). For the endpoints of issuers, which are no origins: they have a path.
///
/// # Errors
///
/// Says what is wrong and names the host, not the rest of the URI, which may hold secrets.
pub(crate) fn check_endpoint(uri: &Uri, plain_http_allowed: bool) -> Result<(), ConfigError> {
    accept("endpoint", uri, plain_http_allowed).map(drop)
}

/// The rules that are the same for origins and endpoints.
fn accept<'a>(
    what: &str,
    uri: &'a Uri,
    plain_http_allowed: bool,
) -> Result<Target<'a>, ConfigError> {
    let target = Target::of(uri).map_err(|reason| refusal(what, uri, reason))?;
    if target.scheme == Scheme::Https || plain_http_allowed || target.host.is_loopback() {
        return Ok(target);
    }
    let reason = if what == "origin" {
        "plain http is for loopback only, use https (or `Origin::allow_plain_http`, \
         where nobody can listen)"
    } else {
        "plain http is for loopback only, use https (or `allow_plain_http`, where nobody can listen)"
    };
    Err(refusal(what, uri, reason))
}

/// Names the host only: the rest, userinfo above all, may hold secrets (P12).
fn refusal(what: &str, uri: &Uri, reason: &str) -> ConfigError {
    ConfigError::new(match uri.host() {
        Some(host) => format!("invalid {what} with host {host:?}: {reason}"),
        None => format!("invalid {what}: {reason}"),
    })
}

/// Reads an origin's text, and refuses what `Uri` would drop or explain badly.
fn parse(origin: &str) -> Result<Uri, ConfigError> {
    let reason = if origin.is_empty() {
        "it is empty"
    } else if origin.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "it contains whitespace"
    } else if origin.contains('*') {
        "wildcards are not supported, name each origin"
    } else if origin.contains('#') {
        "an origin has no fragment"
    } else {
        return origin
            .parse()
            .map_err(|error| ConfigError::new(format!("invalid origin: {error}")));
    };
    Err(ConfigError::new(format!("invalid origin: {reason}")))
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn of(uri: &Uri) -> Option<Self> {
        // Parsing has normalised the case. A scheme built from parts as "HTTPS" is another one to
        // `http`, and some connectors then speak plain http: not ours to allow.
        let scheme = uri.scheme()?;
        if *scheme == http::uri::Scheme::HTTPS {
            Some(Self::Https)
        } else if *scheme == http::uri::Scheme::HTTP {
            Some(Self::Http)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Where a URI leads; borrows from it.
struct Target<'a> {
    scheme: Scheme,
    host: Host<'a>,
    port: u16,
}

impl<'a> Target<'a> {
    fn of(uri: &'a Uri) -> Result<Self, &'static str> {
        let authority = uri.authority().ok_or("scheme and host are missing")?;
        if uri.scheme().is_none() {
            return Err("the scheme is missing, as in https://api.example.com");
        }
        let scheme = Scheme::of(uri).ok_or("the scheme is neither https nor http")?;
        Self::read(scheme, authority.as_str())
    }

    /// Takes the authority apart itself: `http::uri::Authority` looks for the host and for the port
    /// separately, so that it finds one in `[::1]evil` and in `host:+443`, and none in `host:99999`.
    fn read(scheme: Scheme, authority: &'a str) -> Result<Self, &'static str> {
        if authority.contains('@') {
            return Err("userinfo is not allowed");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or(NOT_IPV6)?;
                (Host::read_v6(address)?, after)
            }
            None => {
                let end = authority.find(':').unwrap_or(authority.len());
                (Host::read(&authority[..end])?, &authority[end..])
            }
        };
        Ok(Self {
            scheme,
            host,
            port: read_port(port, scheme)?,
        })
    }
}

#[derive(Clone, Copy)]
enum Host<'a> {
    Name(&'a str),
    Address(IpAddr),
}

const NOT_IPV6: &str = "the host is not an IPv6 address";

impl<'a> Host<'a> {
    fn read_v6(address: &str) -> Result<Self, &'static str> {
        match address.parse::<Ipv6Addr>() {
            Ok(address) => Ok(Self::Address(address.into())),
            Err(_) => Err(NOT_IPV6),
        }
    }

    fn read(host: &'a str) -> Result<Self, &'static str> {
        if host.is_empty() {
            return Err("the host is empty");
        }
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        let last = name.rsplit('.').next().unwrap_or(name);
        if name.split('.').any(|label| !is_label(label)) {
            Err("the host is not a name")
        } else if is_number(last) {
            // What `127.1`, `0x7f.1`, `127.0.0.1.` mean depends on who reads them.
            Err("the host is not an IPv4 address of four decimal numbers")
        } else {
            Ok(Self::Name(name))
        }
    }

    fn is_loopback(self) -> bool {
        match self {
            Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
            Host::Address(address) => address.is_loopback(),
        }
    }
}

fn is_label(label: &str) -> bool {
    let is_valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !label.is_empty() && label.bytes().all(is_valid)
}

fn is_number(label: &str) -> bool {
    match label.get(..2) {
        Some("0x" | "0X") => label[2..].bytes().all(|b| b.is_ascii_hexdigit()),
        _ => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// `after_host` is what stands after the host: nothing, or `:` and digits. No digits are the default
/// port too ([RFC 3986 §6.2.3](https://www.rfc-editor.org/rfc/rfc3986#section-6.2.3)).
fn read_port(after_host: &str, scheme: Scheme) -> Result<u16, &'static str> {
    let digits = match after_host.strip_prefix(':') {
        Some(digits) => digits,
        None if after_host.is_empty() => "",
        None => return Err("the host is followed by something that is no port"),
    };
    if digits.is_empty() {
        return Ok(scheme.default_port());
    }
    // `parse` alone would take a sign.
    match digits.parse() {
        Ok(port) if port != 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err("the port is not a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::Config;
    use proptest::test_runner::TestRunner;
    use url::Url;

    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::try_from(text).unwrap()
    }

    #[track_caller]
    fn refused(text: &str) -> String {
        match Origin::try_from(text) {
            Ok(origin) => panic!("{text:?} was taken for {origin}"),
            Err(error) => error.to_string(),
        }
    }

    #[track_caller]
    fn assert_allows(origins: &Origins, uri: &str, expected: bool) {
        let parsed: Uri = uri.parse().unwrap();
        let headers = HeaderMap::new();
        assert_eq!(origins.allow(&parsed, &headers), expected, "{uri}");
    }

    #[test]
    fn an_origin_prints_in_its_normal_form() {
        for (given, printed) in [
            ("https://api.example.com", "https://api.example.com"),
            ("https://api.example.com/", "https://api.example.com"),
            ("HTTPS://API.Example.COM", "https://api.example.com"),
            ("https://api.example.com.", "https://api.example.com"),
            ("https://api.example.com:443", "https://api.example.com"),
            ("https://api.example.com:0443", "https://api.example.com"),
            (
                "https://api.example.com:8443",
                "https://api.example.com:8443",
            ),
            ("https://api.example.com:80", "https://api.example.com:80"),
            ("https://my_service-2", "https://my_service-2"),
            (
                "https://xn--bcher-kva.example",
                "https://xn--bcher-kva.example",
            ),
            ("https://192.0.2.1:1", "https://192.0.2.1:1"),
            ("https://[2001:DB8:0:0::1]", "https://[2001:db8::1]"),
            ("http://localhost:80", "http://localhost"),
        ] {
            assert_eq!(origin(given).to_string(), printed);
            assert_eq!(format!("{:?}", origin(given)), printed);
            assert_eq!(origin(given), origin(printed));
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("*", "wildcard"),
            ("https://*.example.com", "wildcard"),
            ("https://api.example.com ", "whitespace"),
            (" https://api.example.com", "whitespace"),
            ("https://api.example.com\n", "whitespace"),
            ("https://api.example.com/v1", "path"),
            ("https://api.example.com//", "path"),
            ("https://api.example.com?x=1", "query"),
            ("https://api.example.com/?", "query"),
            ("https://api.example.com#top", "fragment"),
            ("https://api.example.com/#", "fragment"),
            ("https://user@api.example.com", "userinfo"),
            ("https://user:hunter2@api.example.com", "userinfo"),
            ("api.example.com", "scheme is missing"),
            ("api.example.com:443", "scheme is missing"),
            ("localhost", "scheme is missing"),
            ("/", "scheme and host are missing"),
            ("//api.example.com", "scheme and host are missing"),
            ("ftp://api.example.com", "neither https nor http"),
            ("wss://api.example.com", "neither https nor http"),
            ("https://", "invalid origin"),
            ("https:///", "invalid origin"),
            ("https:/api.example.com", "invalid origin"),
            ("https://:443", "host is empty"),
            ("https://.", "not a name"),
            ("https://api..example.com", "not a name"),
            ("https://api.example.com..", "not a name"),
            ("https://api,example.com", "not a name"),
            ("https://api.example.com:0", "port"),
            ("https://api.example.com:", "port is missing"),
            ("https://api.example.com:65536", "port"),
            ("https://api.example.com:http", "port"),
            ("https://api.example.com:+443", "port"),
            ("https://[::1", "invalid"),
            ("https://[::1]evil", "no port"),
            ("https://[::1%25eth0]", "not an IPv6"),
            ("https://[fe80::1%eth0]", "not an IPv6"),
            ("https://[v1.x]", "not an IPv6"),
            ("https://[127.0.0.1]", "not an IPv6"),
            ("https://evil[::1]", "not a name"),
            ("https://127.1", "not an IPv4"),
            ("https://2130706433", "not an IPv4"),
            ("https://0x7f.0.0.1", "not an IPv4"),
            ("https://api.0x1f", "not an IPv4"),
            ("https://api.0X1F", "not an IPv4"),
            ("https://api.0x", "not an IPv4"),
            ("https://127.0.0.01", "not an IPv4"),
            ("https://127.0.0.1.", "not an IPv4"),
        ] {
            let message = refused(text);
            assert!(message.contains(reason), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_refusal_names_the_host_and_no_secret() {
        let message = refused("https://user:hunter2@api.example.com");
        assert!(message.contains("api.example.com"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
        let message = refused("https://api.example.com/?token=hunter2");
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for text in [
            "http://localhost",
            "http://LocalHost.:3000",
            "http://127.0.0.1:8080",
            "http://127.255.255.254",
            "http://[::1]",
            "http://[0:0:0:0:0:0:0:1]:80",
            "http://[::0.0.0.1]",
        ] {
            assert!(Origin::try_from(text).is_ok(), "{text}");
        }
        for text in [
            "http://api.example.com",
            "http://localhost.example.com",
            "http://api.localhost",
            "http://127.0.0.1.example.com",
            "http://128.0.0.1",
            "http://0.0.0.0",
            "http://[::2]",
            "http://[::]",
            "http://[::ffff:127.0.0.1]",
        ] {
            let message = refused(text);
            assert!(message.contains("Origin::allow_plain_http"), "{message}");
        }
    }

    #[test]
    fn plain_http_to_another_host_can_be_asked_for() {
        let mesh = Origin::allow_plain_http("http://orders.internal:8080").unwrap();
        let origins = Origins::new(mesh);
        assert_eq!(origins.0[0].to_string(), "http://orders.internal:8080");
        assert_allows(&origins, "http://orders.internal:8080/1", true);
        assert_allows(&origins, "https://orders.internal:8080/1", false);
        assert!(Origin::allow_plain_http("https://orders.internal").is_ok());
        assert!(Origin::allow_plain_http("http://orders.internal/path").is_err());
        assert!(Origin::allow_plain_http("ftp://orders.internal").is_err());
    }

    #[test]
    fn every_form_of_input_gives_the_same_origin() {
        let text = "https://api.example.com:8443";
        let owned = text.to_owned();
        assert_eq!(Origin::try_from(&owned).unwrap(), origin(text));
        assert_eq!(Origin::try_from(owned).unwrap(), origin(text));
        assert_eq!(
            Origin::try_from(Uri::from_static(text)).unwrap(),
            origin(text)
        );
        for no_origin in ["/", "*", "api.example.com:443", "https://api.example.com/x"] {
            assert!(
                Origin::try_from(Uri::from_static(no_origin)).is_err(),
                "{no_origin}"
            );
        }
    }

    #[test]
    fn a_request_is_judged_by_scheme_host_and_port() {
        let mut origins = Origins::new(origin("https://api.example.com"));
        origins.push(origin("https://other.example.com:8443"));
        origins.push(origin("https://[2001:db8::1]"));
        origins.push(origin("https://192.0.2.1"));
        origins.push(origin("http://localhost:3000"));
        for (uri, expected) in [
            ("https://api.example.com", true),
            ("https://api.example.com/a?b", true),
            ("https://api.example.com:443/a", true),
            ("https://api.example.com:00443/a", true),
            ("https://api.example.com:/a", true),
            ("HTTPS://API.EXAMPLE.COM/a", true),
            ("https://api.example.com./a", true),
            ("https://API.example.com.:443/a", true),
            ("https://other.example.com:8443/", true),
            ("https://OTHER.example.com:8443/", true),
            ("https://[2001:db8::1]/", true),
            ("https://[2001:0DB8:0:0:0:0:0:1]:443/", true),
            ("https://192.0.2.1:443/", true),
            ("http://localhost:3000/", true),
            ("http://localhost.:3000/", true),
            ("http://api.example.com/", false),
            ("http://api.example.com:443/", false),
            ("wss://api.example.com/", false),
            ("ftp://api.example.com:443/", false),
            ("https://api.example.com:80/", false),
            ("https://api.example.com:8443/", false),
            ("https://other.example.com/", false),
            ("https://other.example.com:443/", false),
            ("https://localhost:3000/", false),
            ("http://localhost/", false),
            ("http://127.0.0.1:3000/", false),
            ("https://example.com/", false),
            ("https://evil.api.example.com/", false),
            ("https://api.example.com.evil.com/", false),
            ("https://api.example.comevil/", false),
            ("https://evilapi.example.com/", false),
            ("https://api.example.com../", false),
            ("https://.api.example.com/", false),
            ("https://user@api.example.com/", false),
            ("https://user:pass@api.example.com/", false),
            ("https://api.example.com@evil.com/", false),
            ("https://api.example.com:443@evil.com/", false),
            ("https://api.example.com:0/", false),
            ("https://api.example.com:+443/", false),
            ("https://api.example.com:65979/", false),
            ("https://api.example.com:99999/", false),
            ("https://[2001:db8::1%25eth0]/", false),
            ("https://[2001:db8::1]evil/", false),
            ("https://[2001:db8::2]/", false),
            ("https://[::192.0.2.1]/", false),
            ("https://[::ffff:192.0.2.1]/", false),
            ("https://192.0.2.01/", false),
            ("https://192.0.2.1./", false),
            ("https://192.0.513/", false),
            ("https://3221225985/", false),
        ] {
            assert_allows(&origins, uri, expected);
        }
    }

    #[test]
    fn a_request_without_authority_counts_as_the_first_origin() {
        let origins = Origins::new(origin("https://api.example.com"));
        for uri in [
            "/",
            "/a?b",
            "*",
            "/@evil.com",
            "/a//evil.com",
            "/.//evil.com",
            "/a\\\\evil.com",
            "/%2fevil.com",
            "/%2F/evil.com",
            "/%5cevil.com",
            "/?//evil.com",
            "/\u{2215}evil.com",
        ] {
            assert_allows(&origins, uri, true);
        }
    }

    // What comes after such a beginning is an authority to the URL standard, whatever it is.
    #[test]
    fn a_path_that_is_read_as_an_authority_counts_as_no_origin() {
        let origins = Origins::new(origin("https://api.example.com"));
        let base = Url::parse("https://api.example.com").unwrap();
        for path in [
            "//evil.com/",
            "//api.example.com/",
            "//evil.com:443",
            "//u@evil.com",
            "///evil.com",
            "/\\evil.com",
            "/\\/evil.com",
            "/\\\\evil.com",
            "//?evil.com",
            "//",
            "/\\",
        ] {
            assert_allows(&origins, path, false);
            // With a host of its own, the URI leads there.
            assert_allows(&origins, &format!("https://api.example.com{path}"), true);
            let joined = base.join(path);
            let is_its_own = path.contains("api.example");
            assert!(is_its_own || joined != base.join("/"), "{path}");
        }
    }

    fn hosts(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(header::HOST, value);
        }
        headers
    }

    #[test]
    fn a_host_header_must_name_the_origin_that_the_uri_leads_to() {
        let mut origins = Origins::new(origin("https://api.example.com"));
        origins.push(origin("https://other.example.com:8443"));
        origins.push(origin("http://[::1]:3000"));
        origins.push(origin("https://192.0.2.1"));
        let first: &[&str] = &[
            "https://api.example.com/",
            "https://API.example.com:443/",
            "/",
            "*",
        ];
        for (uris, named, others) in [
            (
                first,
                &[
                    "api.example.com",
                    "API.Example.Com",
                    "api.example.com.",
                    "api.example.com:443",
                    "api.example.com:0443",
                    "api.example.com:",
                ][..],
                &[
                    "",
                    " ",
                    "evil.com",
                    "other.example.com:8443",
                    "api.example.com:80",
                    "api.example.com:8443",
                    "api.example.com:+443",
                    "api.example.com..",
                    "api.example.com evil.com",
                    "api.example.com,evil.com",
                    "api.example.com/",
                    "api.example.com?",
                    " api.example.com",
                    "https://api.example.com",
                    "u@api.example.com",
                    "api.example.com@evil.com",
                    "evil.com#api.example.com",
                    "\u{e4}pi.example.com",
                    "example.com",
                ][..],
            ),
            (
                &["https://other.example.com:8443/"],
                &["other.example.com:8443", "OTHER.example.com.:08443"],
                &[
                    "other.example.com",
                    "other.example.com:443",
                    "api.example.com",
                ],
            ),
            (
                &["http://[::1]:3000/"],
                &["[::1]:3000", "[0:0:0:0:0:0:0:1]:3000"],
                &["[::1]", "::1:3000", "localhost:3000", "[::1%25lo]:3000"],
            ),
            (
                &["https://192.0.2.1/"],
                &["192.0.2.1", "192.0.2.1:443"],
                &["192.0.2.1.", "3221225985", "[::ffff:192.0.2.1]"],
            ),
        ] {
            for uri in uris {
                let parsed: Uri = uri.parse().unwrap();
                let allows = |values: &[&str]| origins.allow(&parsed, &hosts(values));
                for host in named {
                    assert!(allows(&[host]), "{uri} with {host:?}");
                    assert!(allows(&[host, host]), "{uri} with {host:?} twice");
                }
                for host in others {
                    assert!(!allows(&[host]), "{uri} with {host:?}");
                    assert!(!allows(&[named[0], host]), "{uri} with {host:?} at the end");
                    assert!(!allows(&[host, named[0]]), "{uri} with {host:?} at first");
                }
            }
        }
    }

    #[test]
    fn a_host_header_opens_no_origin_that_the_uri_does_not_lead_to() {
        let origins = Origins::new(origin("https://api.example.com"));
        for uri in [
            "https://evil.com/",
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "api.example.com:443",
            "//evil.com/",
        ] {
            let headers = hosts(&["api.example.com"]);
            assert!(!origins.allow(&uri.parse().unwrap(), &headers), "{uri}");
        }
    }

    #[test]
    fn a_tunnel_request_gets_no_token() {
        let origins = Origins::new(origin("https://api.example.com"));
        assert_allows(&origins, "api.example.com", false);
        assert_allows(&origins, "api.example.com:443", false);
    }

    #[test]
    fn a_scheme_that_connectors_read_differently_gets_no_token() {
        let origins = Origins::new(origin("https://api.example.com"));
        let built = Uri::builder()
            .scheme("HTTPS")
            .authority("api.example.com")
            .path_and_query("/")
            .build()
            .unwrap();
        assert!(!origins.allow(&built, &HeaderMap::new()));
    }

    #[test]
    fn an_origin_named_twice_is_kept_once() {
        let mut origins = Origins::new(origin("https://api.example.com"));
        origins.push(origin("https://other.example.com"));
        origins.push(origin("https://API.example.com:443"));
        assert_eq!(
            *origins.0,
            ["https://api.example.com", "https://other.example.com"].map(origin)
        );
    }

    #[test]
    fn an_endpoint_must_be_https_or_loopback() {
        for (uri, plain_http_allowed, accepted) in [
            ("https://issuer.example.com/token?x=1", false, true),
            ("http://localhost:3000/token", false, true),
            ("http://[::1]/token", false, true),
            ("http://issuer.example.com/token", false, false),
            ("http://issuer.example.com/token", true, true),
            (
                "https://user:hunter2@issuer.example.com/token",
                false,
                false,
            ),
            ("https://user:hunter2@issuer.example.com/token", true, false),
            ("ftp://issuer.example.com/token", true, false),
            ("https://issuer.example.com:0/token", true, false),
            ("https://issuer.example.com:+443/token", true, false),
            ("https://127.1/token", true, false),
            ("issuer.example.com", true, false),
            ("/token", true, false),
        ] {
            let result = check_endpoint(&Uri::from_static(uri), plain_http_allowed);
            assert_eq!(result.is_ok(), accepted, "{uri}");
            let message = result.map_or_else(|error| error.to_string(), |()| String::new());
            assert!(!message.contains("hunter2"), "{message}");
            assert!(
                accepted
                    || uri.starts_with('/')
                    || message.contains("127.1")
                    || message.contains("issuer.example.com"),
                "{message}"
            );
        }
    }

    /// Judges with another parser, the one that browsers agree on.
    fn same_origin(one: &Url, other: &Url) -> bool {
        let host = |url: &Url| {
            let host = url.host_str()?;
            Some(host.strip_suffix('.').unwrap_or(host).to_owned())
        };
        one.scheme() == other.scheme()
            && host(one) == host(other)
            && one.port_or_known_default() == other.port_or_known_default()
    }

    fn every_origin() -> impl Iterator<Item = String> {
        const HOSTS: [&str; 6] = [
            "api.example.com",
            "xn--bcher-kva.example",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "[2001:db8::1]",
        ];
        let authorities = HOSTS
            .iter()
            .flat_map(|host| ["", ":80", ":8443"].map(|port| format!("{host}{port}")));
        authorities.flat_map(|authority| ["http", "https"].map(|s| format!("{s}://{authority}")))
    }

    /// Where that parser may say yes and we don't: it reads what names two things to two readers.
    fn is_ambiguous(uri: &str) -> bool {
        let authority = uri.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.split(':').next().unwrap_or_default();
        let last = host.trim_end_matches('.').rsplit('.').next();
        authority.contains('@')
            || last.is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()))
                && host.parse::<Ipv4Addr>().is_err()
    }

    /// Pieces are separated by spaces; `-` stands for none.
    fn piece(of: &'static str) -> impl Strategy<Value = &'static str> {
        let pieces: Vec<_> = of.split_whitespace().collect();
        proptest::sample::select(pieces).prop_map(|piece| if piece == "-" { "" } else { piece })
    }

    fn spelling() -> impl Strategy<Value = String> {
        let host = prop_oneof![
            piece(
                "api.example.com API.Example.com api.example.com. xn--bcher-kva.example \
                 XN--BCHER-KVA.example. localhost LOCALHOST localhost. 127.0.0.1 [::1] [::0.0.0.1] \
                 [0:0:0:0:0:0:0:1] [2001:db8::1] [2001:DB8::1] [2001:0db8:0::0:1]"
            ),
            piece(
                "api.example.com.. evil.api.example.com api.example.com.evil example.com \
                 api-example.com localhost.evil 127.0.0.1. 127.1 0x7f.1 0x7F.0.0.1 2130706433 \
                 127.0.0.01 127.0.0.1.evil 1.2.3 1.2.3.4.5 0x 256.256.256.256 [::1%25lo] [::1]x \
                 [::01] [::ffff:127.0.0.1] [1::2::3]"
            ),
        ];
        let noise = prop_oneof![
            9 => Just(None),
            1 => (0..40usize, "[a-zA-Z0-9.:@\\[\\]/%_-]").prop_map(Some)
        ];
        let pieces = (
            piece("https https https http http HTTPS hTTp wss"),
            piece("- - - - - - - - u@ u:p@ api.example.com@ a%20b@"),
            host,
            piece("- - - : :443 :0443 :80 :080 :8443 :08443 :+443 :0 :65979 :65616 :99999 :x"),
            piece("- / /a?b ?q #f /@evil //evil /a#f ?@evil :80 @evil . /%2e"),
            noise,
        );
        pieces.prop_map(|(scheme, userinfo, host, port, rest, noise)| {
            let mut uri = format!("{scheme}://{userinfo}{host}{port}{rest}");
            if let Some((at, noise)) = noise {
                uri.insert_str((scheme.len() + 3 + at).min(uri.len()), &noise);
            }
            uri
        })
    }

    #[test]
    fn no_random_request_is_allowed_where_another_parser_sees_another_origin() {
        let named: Vec<_> = every_origin()
            .map(|text| {
                let origin = Origin::allow_plain_http(&text).unwrap();
                (Origins::new(origin), Url::parse(&text).unwrap())
            })
            .collect();
        let (judged, allowed) = (Cell::new(0), Cell::new(0));
        let config = Config {
            cases: 10_000,
            failure_persistence: None,
            ..Config::default()
        };
        let property = |text: String| {
            let Ok(uri) = text.parse::<Uri>() else {
                return Ok(());
            };
            let parsed = Url::parse(&text).ok();
            for (origins, origin) in &named {
                let ours = origins.allow(&uri, &HeaderMap::new());
                let theirs = parsed.as_ref().is_some_and(|url| same_origin(origin, url));
                prop_assert!(theirs || !ours, "{origin} allows {text}");
                prop_assert!(
                    ours || !theirs || is_ambiguous(&text),
                    "{origin} refuses {text}"
                );
                allowed.set(allowed.get() + u32::from(ours));
            }
            judged.set(judged.get() + 1);
            Ok(())
        };
        TestRunner::new(config).run(&spelling(), property).unwrap();
        // Else it would have shown nothing.
        assert!(judged.get() > 5_000, "{judged:?} judged");
        assert!(allowed.get() > 1_000, "{allowed:?} allowed");
    }
}
