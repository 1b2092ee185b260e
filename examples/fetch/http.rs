//! The HTTP client below everything: connections, and TLS where it is asked for.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower_token_refresh::ReplayBody;

use crate::options::Options;

pub type Body = ReplayBody<Full<Bytes>>;
pub type Http = Client<HttpsConnector<HttpConnector>, Body>;

/// For what else the program has open.
const SPARE_DESCRIPTORS: u64 = 64;

pub fn client(options: &Options) -> Http {
    make_room(options);
    let mut connector = HttpConnector::new();
    // Without it small requests wait for the acknowledgement of the one before.
    connector.set_nodelay(true);
    connector.enforce_http(false);
    // The roots that this machine trusts, if they are needed and there are any; else Mozilla's.
    let native = match needs_tls(options) {
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

fn needs_tls(options: &Options) -> bool {
    let mut uris = options.urls.iter().chain([&options.reissue]);
    uris.any(|uri| uri.scheme_str() == Some("https"))
}

/// Each request of a round may need a connection. Where there can't be so many, those that fail for
/// it are reported like any other.
fn make_room(options: &Options) {
    let connections = options.urls.len() as u64 * u64::from(options.parallel);
    let _ = rlimit::increase_nofile_limit(connections + SPARE_DESCRIPTORS);
}
