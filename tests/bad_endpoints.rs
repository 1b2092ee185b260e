//! Proves S10: an issuer's address to which no secret may go is refused when the session is built, and
//! not a byte of the refresh token is on any socket.

#[path = "support/raw.rs"]
mod raw;

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use raw::Raw;
use raw::answer;
use tokio::net::TcpStream;
use tower::Service;
use tower::service_fn;
use tower_token_refresh::ClientCredentials;
use tower_token_refresh::ConfigError;
use tower_token_refresh::CookieReissue;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::RefreshGrant;
use tower_token_refresh::Reissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReissueRequest;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;

/// Where a secret would be read by somebody else, or by nobody can say whom. `PORT` is the trap's.
const BAD: [&str; 23] = [
    // Plain http to another machine, and to what only looks like this one.
    "http://issuer.example:PORT/token",
    "http://192.0.2.1:PORT/token",
    "http://0.0.0.0:PORT/token",
    "http://[2001:db8::1]:PORT/token",
    "http://localhost.issuer.example:PORT/token",
    "http://127.0.0.1.issuer.example:PORT/token",
    // Userinfo.
    "http://user@127.0.0.1:PORT/token",
    "http://user:CANARY@127.0.0.1:PORT/token",
    "https://user@issuer.example/token",
    "https://user:CANARY@issuer.example/token",
    "https://issuer.example@127.0.0.1:PORT/token",
    // No scheme, no host.
    "",
    "/token",
    "127.0.0.1:PORT",
    "//127.0.0.1:PORT/token",
    "http:///token",
    // Another scheme.
    "ftp://127.0.0.1:PORT/token",
    "ws://127.0.0.1:PORT/token",
    // A fragment (RFC 6749 section 3.2).
    "http://127.0.0.1:PORT/token#CANARY",
    // What is no address.
    "http://127.0.0.1:99999/token",
    "http://127.0.0.1:PORT/to ken",
    "http://127.0.0.1:PORT\r\nx: y/token",
    "http://127.0.0.1%:PORT/token",
];

type Stream = TokioIo<TcpStream>;

/// A client that ends up in the trap, whatever the address.
fn client(
    trap: SocketAddr,
) -> Client<
    impl Service<Uri, Response = Stream, Error = io::Error, Future: Unpin + Send> + Clone + Send + Sync,
    Full<Bytes>,
> {
    let connector = service_fn(move |_: Uri| {
        Box::pin(async move { TcpStream::connect(trap).await.map(TokioIo::new) })
    });
    Client::builder(TokioExecutor::new()).build(connector)
}

/// A reissuer that is built although its configuration is wrong.
struct Unchecked<R>(R);

impl<R: Reissue> Reissue for Unchecked<R> {
    async fn reissue(&self, request: ReissueRequest) -> Result<TokenSet, ReissueError> {
        self.0.reissue(request).await
    }
}

fn tokens() -> TokenSet {
    let tokens = TokenSet::new("old-access").unwrap();
    tokens.with_refresh_token("CANARY-refresh").unwrap()
}

/// Neither builds, nor sends anything.
async fn is_refused<R: Reissue>(reissue: impl Fn() -> R, row: &str) {
    let error: ConfigError = Session::builder(reissue()).build().map(drop).unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(!told.contains("CANARY"), "{row}: {told}");
    let session = Session::builder(Unchecked(reissue())).build().unwrap();
    session.login(tokens()).await.unwrap();
    let error = session.refresh().await.unwrap_err();
    assert!(error.is_misconfigured(), "{row}: {error:?}");
    assert!(!format!("{error:?}").contains("CANARY"), "{row}: {error:?}");
    assert!(session.status().is_logged_in(), "{row}");
}

// shows S10: 23 bad endpoints, four reissuers, no connection.
#[tokio::test]
async fn a_bad_endpoint_is_refused_and_sees_nothing() {
    let body = r#"{"accessToken":"stolen","access_token":"stolen"}"#;
    let trap = Raw::start(answer("200 OK", "application/json", body), false).await;
    let (address, port) = (trap.address, trap.address.port().to_string());
    for bad in BAD {
        let uri = bad.replace("PORT", &port);
        let http = || client(address);
        is_refused(|| JsonReissue::post(&uri, http()), bad).await;
        is_refused(|| CookieReissue::post(&uri, http()), bad).await;
        is_refused(|| RefreshGrant::post(&uri, http()), bad).await;
        let credentials = || ClientCredentials::post(&uri, http()).basic("id", "CANARY");
        is_refused(credentials, bad).await;
    }
    assert_eq!(trap.connections(), 0);
    // The trap is one: a good address ends up in it.
    for good in ["http://localhost/token", "https://issuer.example/token"] {
        let session = Session::builder(JsonReissue::post(good, client(address)));
        let session = session.build().unwrap();
        session.login(tokens()).await.unwrap();
        session.refresh().await.unwrap();
    }
    let seen = trap.requests().concat();
    assert_eq!(seen.matches("CANARY-refresh").count(), 2, "{seen}");
}

// shows S10: with leave, plain http to another machine; and nothing else of the above.
#[tokio::test]
async fn plain_http_elsewhere_needs_leave_and_gets_no_more() {
    let body = r#"{"accessToken":"new-access"}"#;
    let raw = Raw::start(answer("200 OK", "application/json", body), false).await;
    let (address, port) = (raw.address, raw.address.port().to_string());
    for (n, bad) in BAD.iter().enumerate() {
        let uri = bad.replace("PORT", &port);
        let reissue = JsonReissue::post(&uri, client(address)).allow_plain_http();
        // The first six are plain http and nothing worse.
        assert_eq!(reissue.check().is_ok(), n < 6, "{bad}");
    }
}

// shows S10: the refresh token is in the head or in the body of the request, and never in its URI.
#[tokio::test]
async fn the_refresh_token_is_never_in_the_address() {
    let body = r#"{"accessToken":"new-access","access_token":"new-access"}"#;
    let raw = Raw::start(answer("200 OK", "application/json", body), false).await;
    let uri = format!("http://{}/token?tenant=7", raw.address);
    let http = || client(raw.address);
    refresh(JsonReissue::post(&uri, http())).await;
    refresh(JsonReissue::post(&uri, http()).refresh_token_in_body("refresh")).await;
    refresh(CookieReissue::post(&uri, http())).await;
    refresh(RefreshGrant::post(&uri, http()).public_client("id")).await;
    let requests = raw.requests();
    assert_eq!(requests.len(), 4);
    for request in requests {
        let (line, rest) = request.split_once("\r\n").unwrap();
        assert_eq!(line, "POST /token?tenant=7 HTTP/1.1");
        assert!(rest.contains("CANARY-refresh"), "{rest}");
    }
}

async fn refresh(reissue: impl Reissue) {
    let session = Session::builder(reissue).build().unwrap();
    session.login(tokens()).await.unwrap();
    session.refresh().await.unwrap();
}
