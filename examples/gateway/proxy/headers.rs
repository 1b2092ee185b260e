//! Which headers go through, and which stop here.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AUTHORIZATION, CONNECTION, COOKIE, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::sessions::COOKIE_NAME;

/// What is said from one connection to the next ([RFC 9110 section
/// 7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)), besides what `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

pub fn keep_end_to_end(headers: &mut HeaderMap) {
    let named: Vec<_> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Makes a browser's headers those of a request of the gateway.
pub fn make_ours(headers: &mut HeaderMap) {
    keep_end_to_end(headers);
    // The client says the back end's own.
    headers.remove(HOST);
    // A header of the caller's own would win over the session's token.
    headers.remove(AUTHORIZATION);
    let cookies = foreign(headers);
    headers.remove(COOKIE);
    headers.extend(cookies.map(|line| (COOKIE, line)));
}

/// The cookies that are not the gateway's. They may have come in several lines, and HTTP/1 has one.
fn foreign(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines = headers.get_all(COOKIE).iter();
    // Byte for byte: some have more than ASCII in them.
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let is_ours = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii() == COOKIE_NAME.as_bytes()
    };
    let others: Vec<_> = pairs
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty() && !is_ours(pair))
        .collect();
    let line = HeaderValue::from_bytes(&others.join(&b"; "[..])).ok()?;
    (!line.is_empty()).then_some(line)
}
