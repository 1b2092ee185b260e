//! The HTTP client below everything: connections, and TLS where it is asked for.

use ::http::Uri;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower_token_refresh::ReplayBody;

pub type Body = ReplayBody<Full<Bytes>>;
pub type Http = Client<HttpsConnector<HttpConnector>, Body>;

/// For what else the program has open.
const SPARE_DESCRIPTORS: u64 = 64;

/// For these servers, and so many requests at once.
pub fn client<'a>(uris: impl IntoIterator<Item = &'a Uri>, requests: u64) -> Http {
    make_room(requests);
    let needs_tls = uris
        .into_iter()
        .any(|uri| uri.scheme_str() == Some("https"));
    let mut connector = HttpConnector::new();
    // Without it small requests wait for the acknowledgement of the one before.
    connector.set_nodelay(true);
    connector.enforce_http(false);
    // The roots that this machine trusts, if they are needed and there are any; else Mozilla's.
    let native = match needs_tls {
        true => HttpsConnectorBuilder::new().with_native_roots().ok(),
        false => None,
    };
    let https = native
        .unwrap_or_else(|| HttpsConnectorBuilder::new().with_webpki_roots())
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new()).build(https)
}

/// Each request may need a connection. Where there can't be so many, those that fail for it are
/// reported like any other.
fn make_room(requests: u64) {
    let _ = rlimit::increase_nofile_limit(requests + SPARE_DESCRIPTORS);
}
