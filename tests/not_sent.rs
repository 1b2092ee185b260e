//! Proves where a reissue that got no answer was certainly not processed, with real clients: what
//! section 3 of the catalogue has in its row 6, what looks like it and is not, and that no client sends
//! a refresh token twice behind our back.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/raw_h2.rs"]
mod raw_h2;

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::Request;
use http::Response;
use http::Uri;
use http_body::Body;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use raw::Raw;
use raw_h2::RawH2;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower::Service;
use tower::load_shed::LoadShed;
use tower::service_fn;
use tower::timeout::Timeout;
use tower_token_refresh::BoxError;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::RefreshError;
use tower_token_refresh::RefreshGrant;
use tower_token_refresh::Reissue;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;

const GOOD: &str = r#"{"accessToken":"new-access"}"#;

type Http<C = HttpConnector> = Client<C, Full<Bytes>>;

fn http(http2: bool) -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

async fn logged_in(reissue: impl Reissue) -> Session {
    let session = Session::builder(reissue).build().unwrap();
    let tokens = TokenSet::new("old-access").unwrap();
    let tokens = tokens.with_refresh_token("old-refresh").unwrap();
    session.login(tokens).await.unwrap();
    session
}

/// What a reissue from there comes to, through this client.
async fn refreshed<C, B, RB>(address: impl Display, client: C) -> Result<(), RefreshError>
where
    C: Service<Request<B>, Response = Response<RB>> + Clone + Send + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    B: From<Bytes> + Send + 'static,
    RB: Body + Send + 'static,
    RB::Error: Into<BoxError>,
{
    let reissue = JsonReissue::post(format!("http://{address}/token"), client);
    let session = logged_in(reissue.allow_plain_http()).await;
    let outcome = session.refresh().await;
    assert!(session.status().is_logged_in());
    outcome
}

#[track_caller]
fn was_not_sent(outcome: Result<(), RefreshError>, row: &str) {
    let error = outcome.unwrap_err();
    assert!(error.is_transient(), "{row}: {error:?}");
    assert!(!error.is_outcome_unknown(), "{row}: {error:?}");
}

#[track_caller]
fn may_have_been_sent(outcome: Result<(), RefreshError>, row: &str) {
    let error = outcome.unwrap_err();
    assert!(error.is_outcome_unknown(), "{row}: {error:?}");
}

/// An address where nobody listens.
fn closed() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The client of reqwest, as a service of tower.
fn reqwest(
    client: reqwest::Client,
) -> impl Service<
    Request<reqwest::Body>,
    Response = Response<reqwest::Body>,
    Error = BoxError,
    Future: Send,
> + Clone {
    service_fn(move |request: Request<reqwest::Body>| {
        let client = client.clone();
        async move {
            let answer = client.execute(request.try_into()?).await?;
            Ok::<_, BoxError>(answer.into())
        }
    })
}

fn plain_reqwest(http2: bool) -> reqwest::ClientBuilder {
    let client = reqwest::Client::builder().no_proxy();
    match http2 {
        true => client.http2_prior_knowledge(),
        false => client,
    }
}

// ===== row 6: provably not sent =====

// shows section 3, row 6 (connect refused): of hyper-util's and of reqwest's client.
#[tokio::test]
async fn a_refused_connection_is_a_proof() {
    for http2 in [false, true] {
        was_not_sent(refreshed(closed(), http(http2)).await, "hyper-util");
        let client = reqwest(plain_reqwest(http2).build().unwrap());
        was_not_sent(refreshed(closed(), client).await, "reqwest");
    }
}

// shows section 3, row 6 (DNS).
#[tokio::test]
async fn a_name_that_is_not_found_is_a_proof() {
    let resolver = service_fn(|_: Name| {
        let not_found = io::Error::other("no such name");
        std::future::ready(Err::<std::vec::IntoIter<SocketAddr>, _>(not_found))
    });
    for http2 in [false, true] {
        let client: Http<_> = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .build(HttpConnector::new_with_resolver(resolver));
        was_not_sent(refreshed("issuer.example", client).await, "hyper-util");
    }
    struct Nowhere;
    impl reqwest::dns::Resolve for Nowhere {
        fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
            Box::pin(async { Err("no such name".into()) })
        }
    }
    let client = plain_reqwest(false).dns_resolver(std::sync::Arc::new(Nowhere));
    let client = reqwest(client.build().unwrap());
    was_not_sent(refreshed("issuer.example", client).await, "reqwest");
}

// shows section 3, row 6 (TLS handshake): the peer is there, speaks something else, and has seen no more
// than a greeting.
#[tokio::test]
async fn a_handshake_that_fails_is_a_proof() {
    let raw = Raw::start(b"220 mail.example ESMTP\r\n".to_vec(), false).await;
    let address = raw.address;
    let connector = service_fn(move |_: Uri| {
        Box::pin(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"client hello\r\n\r\n").await?;
            let mut answer = [0; 3];
            stream.read_exact(&mut answer).await?;
            assert_eq!(&answer, b"220");
            // As the TLS libraries have it.
            let error = io::Error::new(io::ErrorKind::InvalidData, "corrupt message");
            Err::<TokioIo<TcpStream>, _>(error)
        })
    });
    for http2 in [false, true] {
        let client: Http<_> = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .build(connector);
        was_not_sent(refreshed("issuer.example", client).await, "hyper-util");
    }
    assert_eq!(raw.connections(), 2);
    assert!(!raw.requests().concat().contains("refresh"));
}

// shows section 3, row 6 (h2 REFUSED_STREAM), RFC 9113 section 8.7. No other reason is a proof.
#[tokio::test]
async fn a_refused_stream_is_a_proof_and_no_other_reset() {
    for reason in [
        Reason::REFUSED_STREAM,
        Reason::NO_ERROR,
        Reason::PROTOCOL_ERROR,
        Reason::INTERNAL_ERROR,
        Reason::STREAM_CLOSED,
        Reason::CANCEL,
        Reason::ENHANCE_YOUR_CALM,
        Reason::HTTP_1_1_REQUIRED,
    ] {
        let row = reason.description();
        let act = raw_h2::Act::just(raw_h2::Then::Reset(reason));
        let raw = RawH2::scripted([act]).await;
        let outcome = refreshed(raw.address, http(true)).await;
        match reason {
            Reason::REFUSED_STREAM => was_not_sent(outcome, row),
            _ => may_have_been_sent(outcome, row),
        }
        assert_eq!(raw.requests().len(), 1, "{row}");
        let client = plain_reqwest(true).retry(reqwest::retry::never());
        let outcome = refreshed(raw.address, reqwest(client.build().unwrap())).await;
        match reason {
            Reason::REFUSED_STREAM => was_not_sent(outcome, row),
            _ => may_have_been_sent(outcome, row),
        }
        assert_eq!(raw.requests().len(), 2, "{row}");
    }
}

// A refusal of the stream after its head was sent is no proof: something was processed.
#[tokio::test]
async fn a_stream_refused_after_an_answer_was_begun_is_no_proof() {
    let act = raw_h2::Act {
        head: Some(Response::new(())),
        body: Bytes::from_static(b"{"),
        ..raw_h2::Act::just(raw_h2::Then::Reset(Reason::REFUSED_STREAM))
    };
    let raw = RawH2::scripted([act]).await;
    may_have_been_sent(refreshed(raw.address, http(true)).await, "begun");
}

/// A client over one connection, of which nobody takes care any more.
fn abandoned(
    address: SocketAddr,
    http2: bool,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<hyper::body::Incoming>,
    Error = hyper::Error,
    Future: Send,
> + Clone {
    service_fn(move |request: Request<Full<Bytes>>| async move {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        if http2 {
            let executor = TokioExecutor::new();
            let handshake = hyper::client::conn::http2::handshake(executor, stream);
            let (mut sender, connection) = handshake.await?;
            drop(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            drop(connection);
            sender.send_request(request).await
        }
    })
}

// shows section 3, row 6 (hyper `is_canceled`): the connection ended before the request was begun.
#[tokio::test]
async fn a_request_that_was_not_begun_is_a_proof() {
    let raw = Raw::start(raw::answer("200 OK", "application/json", GOOD), false).await;
    for http2 in [false, true] {
        let outcome = refreshed(raw.address, abandoned(raw.address, http2)).await;
        was_not_sent(outcome, "abandoned");
    }
    assert!(!raw.requests().concat().contains("refresh"));
}

/// An issuer that is busy for ever: no call is ever let through.
#[derive(Clone)]
struct Busy;

impl Service<Request<Full<Bytes>>> for Busy {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        panic!("called without being ready");
    }
}

#[tokio::test]
async fn a_request_that_was_shed_is_a_proof() {
    was_not_sent(refreshed("127.0.0.1", LoadShed::new(Busy)).await, "shed");
}

// ===== what looks like it =====

// A GOAWAY that names our stream, or a later one, says that it may have been processed; and one that
// leaves it out proves nothing about a head: see `src/reissue/unanswered.rs`. The client does not send
// it again by itself, whatever the last stream.
#[tokio::test]
async fn a_goaway_is_no_proof_where_the_token_is_in_the_head() {
    for last in [0, 1, 0x7fff_ffff] {
        let raw = RawH2::going_away(last).await;
        let outcome = refreshed(raw.address, http(true)).await;
        may_have_been_sent(outcome, &format!("last stream {last}"));
        assert_eq!(raw.requests().len(), 1, "last stream {last}");
    }
    let acts = [raw_h2::Act::just(raw_h2::Then::GoAway)];
    let raw = RawH2::scripted(acts).await;
    may_have_been_sent(refreshed(raw.address, http(true)).await, "at the stream");
    assert_eq!(raw.requests().len(), 1);
}

// shows section 3, row 6 (GOAWAY), RFC 9113 section 6.8.
#[tokio::test]
async fn a_goaway_that_leaves_the_stream_out_is_a_proof_where_the_token_is_in_the_body() {
    for last in [0, 1, 0x7fff_ffff] {
        let row = format!("last stream {last}");
        let raw = RawH2::going_away(last).await;
        let uri = format!("http://{}/token", raw.address);
        let grant = RefreshGrant::post(&uri, http(true)).public_client("the-client");
        let json = JsonReissue::post(&uri, http(true)).refresh_token_in_body("refreshToken");
        for session in [logged_in(grant).await, logged_in(json).await] {
            let outcome = session.refresh().await;
            match last {
                0 => was_not_sent(outcome, &row),
                _ => may_have_been_sent(outcome, &row),
            }
        }
        assert_eq!(raw.requests().len(), 2, "{row}");
    }
}

// shows section 3, row 7 (timeout after sending): tower's own.
#[tokio::test]
async fn a_timeout_is_no_proof() {
    let raw = Raw::never_accepting().await;
    let client = Timeout::new(http(false), Duration::from_millis(100));
    may_have_been_sent(refreshed(raw.address, client).await, "never accepted");
    let acts = [raw_h2::Act::just(raw_h2::Then::Hang)];
    let raw = RawH2::scripted(acts).await;
    let client = Timeout::new(http(true), Duration::from_millis(100));
    may_have_been_sent(refreshed(raw.address, client).await, "not answered");
}

// ===== connections kept alive =====

fn good(then: raw::Then) -> raw::Act {
    raw::Act::say(raw::answer("200 OK", "application/json", GOOD), then)
}

fn another(then: raw::Then) -> raw::Act {
    let body = r#"{"accessToken":"newer-access"}"#;
    raw::Act::say(raw::answer("200 OK", "application/json", body), then)
}

// The server closes a connection that was kept alive right after it has read our next request: the
// client gives up, and does not send the refresh token again on a fresh connection.
#[tokio::test]
async fn a_request_on_a_connection_that_dies_is_not_sent_twice() {
    for (row, then) in [("FIN", raw::Then::Close), ("RST", raw::Then::Reset)] {
        let silent = raw::Act::say(Vec::new(), then);
        let acts = [good(raw::Then::Keep), silent, another(raw::Then::Keep)];
        for with_reqwest in [false, true] {
            let raw = Raw::scripted(acts.clone()).await;
            let uri = format!("http://{}/token", raw.address);
            let reissue = match with_reqwest {
                false => JsonReissue::post(uri, http(false)),
                true => JsonReissue::post(uri, reqwest(plain_reqwest(false).build().unwrap())),
            };
            let session = logged_in(reissue).await;
            session.refresh().await.unwrap();
            may_have_been_sent(session.refresh().await, row);
            assert_eq!(raw.requests().len(), 2, "{row}, reqwest {with_reqwest}");
            assert_eq!(raw.connections(), 1, "{row}, reqwest {with_reqwest}");
        }
    }
}

// The same while the request is half-sent: its body is larger than what the sockets hold.
#[tokio::test]
async fn a_request_that_is_half_sent_is_not_sent_twice() {
    for then in [raw::Then::Close, raw::Then::Reset] {
        let half = raw::Act {
            body_unread: true,
            ..raw::Act::say(Vec::new(), then)
        };
        let acts = [good(raw::Then::Keep), half, another(raw::Then::Keep)];
        let raw = Raw::scripted(acts).await;
        let uri = format!("http://{}/token", raw.address);
        let session = Session::builder(JsonReissue::post(uri, http(false)))
            .build()
            .unwrap();
        let tokens = TokenSet::new("old-access").unwrap();
        let tokens = tokens.with_refresh_token("old-refresh").unwrap();
        let large = "x".repeat(16 << 20);
        session
            .login(tokens.with_identity("note", large))
            .await
            .unwrap();
        session.refresh().await.unwrap();
        may_have_been_sent(session.refresh().await, "half-sent");
        assert_eq!(raw.requests().len(), 2);
        assert_eq!(raw.connections(), 1);
    }
}

// The server closes a connection right after its answer, without a word: whether the client notices
// before the next reissue, while it writes that, or after, it is sent once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_died_between_two_reissues_sends_none_of_them_twice() {
    let acts = [good(raw::Then::Close), another(raw::Then::Keep)];
    for _ in 0..20 {
        let raw = Raw::scripted(acts.clone()).await;
        let uri = format!("http://{}/token", raw.address);
        let session = logged_in(JsonReissue::post(uri, http(false))).await;
        session.refresh().await.unwrap();
        let outcome = session.refresh().await;
        let asked = raw.requests().len();
        match outcome {
            Ok(()) => assert_eq!(asked, 2),
            // It was written on the connection that was closed already.
            Err(error) => {
                assert!(error.is_outcome_unknown(), "{error:?}");
                assert_eq!(asked, 1);
            }
        }
    }
}

// What the client of reqwest does by itself unless it is told `retry::never()`: a stream that was
// refused, or that is above the last one of a GOAWAY, is sent again.
#[tokio::test]
async fn a_request_that_was_not_processed_may_be_sent_again_by_the_client_itself() {
    let acts = [
        raw_h2::Act::just(raw_h2::Then::Reset(Reason::REFUSED_STREAM)),
        raw_h2::Act {
            head: Some(Response::new(())),
            body: Bytes::from_static(GOOD.as_bytes()),
            ..raw_h2::Act::just(raw_h2::Then::Done)
        },
    ];
    let raw = RawH2::scripted(acts).await;
    let client = reqwest(plain_reqwest(true).build().unwrap());
    refreshed(raw.address, client.clone()).await.unwrap();
    assert_eq!(raw.requests().len(), 2);
    let raw = RawH2::going_away(0).await;
    may_have_been_sent(refreshed(raw.address, client).await, "reqwest");
    assert!(raw.requests().len() > 1);
}
