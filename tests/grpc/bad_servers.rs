//! Servers that answer badly: each call gets a clear error, and nothing hangs.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use h2::Reason;
use http::HeaderValue;
use http::Request;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower_token_refresh::Session;

use crate::SAY;
use crate::World;
use crate::channel;
use crate::client;
use crate::grpc_answer;
use crate::layer;
use crate::listen;
use crate::raw::Raw;
use crate::raw::answer;
use crate::raw_h2::Act;
use crate::raw_h2::RawH2;
use crate::raw_h2::Then;
use crate::say;
use crate::server::Server;
use crate::status;

/// What a call comes to, and the session that it was made with.
async fn called(base: &str) -> (Result<String, Status>, World, Session) {
    let world = World::default();
    let session = world.session().await;
    let channel = Endpoint::from_shared(base.to_owned()).unwrap();
    let mut client = client(layer(&session, base), channel.connect_lazy());
    let call = say(&mut client, SAY);
    let said = tokio::time::timeout(Duration::from_secs(30), call).await;
    (said.expect("no hang"), world, session)
}

async fn called_at(address: SocketAddr) -> (Result<String, Status>, World, Session) {
    called(&format!("http://{address}")).await
}

async fn answered<F>(answer: F) -> (Result<String, Status>, World, Session)
where
    F: Fn(Request<Incoming>) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let server = Server::start(move |request| std::future::ready(answer(request))).await;
    called(&server.base).await
}

/// It failed with one of these codes; the token was not at fault, and no part of it is told.
#[track_caller]
fn has_failed((said, world, session): (Result<String, Status>, World, Session), codes: &[Code]) {
    let refused = said.unwrap_err();
    assert!(codes.contains(&refused.code()), "{refused:?}");
    assert!(!format!("{refused:?} {refused}").contains("t0"));
    assert_eq!(world.reissues(), 0, "{refused:?}");
    assert!(session.status().is_logged_in());
}

fn page(number: u16) -> Response<Body> {
    let page = Full::from("<html>this is a web site</html>").map_err(|never| match never {});
    let answer = Response::builder().status(number);
    let answer = answer.header("content-type", "text/html");
    answer.body(Body::new(page)).unwrap()
}

#[tokio::test]
async fn a_server_that_is_not_one_of_grpc() {
    for number in [200, 404, 503] {
        let page = answered(move |_| page(number)).await;
        has_failed(page, &[Code::Unknown, Code::Internal]);
    }
    // A proxy's 401 is a rejection, whoever speaks.
    let (said, world, session) = answered(|_| page(401)).await;
    said.unwrap_err();
    assert_eq!(world.reissues(), 1);
    assert_eq!(session.stats().replays, 1);

    let old = Raw::start(answer("200 OK", "text/html", "hello"), false).await;
    has_failed(
        called_at(old.address).await,
        &[Code::Unavailable, Code::Unknown, Code::Internal],
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    has_failed(
        called_at(nobody).await,
        &[Code::Unavailable, Code::Unknown, Code::Internal],
    );
}

fn message(prefix: [u8; 5], data: &'static [u8]) -> Frame<Bytes> {
    Frame::data(Bytes::from([&prefix, data].concat()))
}

/// A message, and a status in the trailers.
fn told(prefix: [u8; 5], data: &'static [u8], number: &'static str) -> Response<Body> {
    let frames = [message(prefix, data), Frame::trailers(status(number))];
    grpc_answer(StreamBody::new(stream::iter(frames.into_iter().map(Ok))))
}

#[tokio::test]
async fn a_message_of_another_kind() {
    let wrong = answered(|_| told([0, 0, 0, 0, 2], b"\x0a\x7f", "0")).await;
    has_failed(wrong, &[Code::Internal]);
    let (unknown, ..) = answered(|_| told([0, 0, 0, 0, 2], b"\x78\x01", "0")).await;
    assert_eq!(
        unknown.unwrap(),
        "",
        "a field that is not known is no mistake"
    );
    let missing = answered(|_| Status::unimplemented("no such method").into_http()).await;
    has_failed(missing, &[Code::Unimplemented]);
}

#[tokio::test]
async fn a_message_that_lies_about_its_size() {
    let clear = [Code::Internal, Code::OutOfRange, Code::Unknown];
    has_failed(
        answered(|_| told([0, 0, 0, 0, 100], b"\x0a\x01m", "0")).await,
        &clear,
    );
    has_failed(
        answered(|_| told([0, 255, 255, 255, 255], b"\x0a\x01m", "0")).await,
        &clear,
    );
    has_failed(
        answered(|_| told([9, 0, 0, 0, 3], b"\x0a\x01m", "0")).await,
        &clear,
    );
    // The length of HTTP, in an answer of each kind.
    for length in [1, 1000] {
        let lying = move |frames: Vec<Frame<Bytes>>| {
            let frames = stream::iter(frames.into_iter().map(Ok));
            let mut answer = grpc_answer(StreamBody::new(frames));
            let length = HeaderValue::from(length);
            answer.headers_mut().insert("content-length", length);
            answer
        };
        let clear = [Code::Internal, Code::Unknown, Code::Cancelled];
        let good = answered(move |_| {
            let end = Frame::trailers(status("0"));
            lying(vec![message([0, 0, 0, 0, 3], b"\x0a\x01m"), end])
        });
        has_failed(good.await, &clear);
        let (refused, ..) = answered(move |_| lying(vec![Frame::trailers(status("16"))])).await;
        refused.unwrap_err();
    }
}

#[tokio::test]
async fn a_head_of_10_mib() {
    let head = |number: &'static str, of_trailers: bool| {
        move |_: Request<Incoming>| {
            let mut large = status(number);
            for n in 0..10 * 1024 {
                let value = HeaderValue::from_bytes(&[b'x'; 1024]).unwrap();
                large.insert(http::HeaderName::try_from(format!("x-{n}")).unwrap(), value);
            }
            if of_trailers {
                let frames = stream::iter([Ok(Frame::trailers(large))]);
                return grpc_answer(StreamBody::new(frames));
            }
            let mut answer = grpc_answer(StreamBody::new(stream::empty()));
            answer.headers_mut().extend(large);
            answer
        }
    };
    for number in ["0", "16"] {
        for of_trailers in [false, true] {
            // What is too large is not read, so nobody knows what it says of the token.
            let clear = [Code::Internal, Code::Unknown, Code::Cancelled];
            has_failed(answered(head(number, of_trailers)).await, &clear);
        }
    }
}

fn head() -> Response<()> {
    let head = Response::builder().header("content-type", "application/grpc");
    head.body(()).unwrap()
}

#[tokio::test]
async fn a_server_that_resets_each_stream() {
    let reasons = [
        Reason::REFUSED_STREAM,
        Reason::INTERNAL_ERROR,
        Reason::CANCEL,
        Reason::ENHANCE_YOUR_CALM,
        Reason::NO_ERROR,
    ];
    for reason in reasons {
        for (head, body) in [
            (None, ""),
            (Some(head()), ""),
            (Some(head()), "\0\0\0\0\u{3}\n\u{1}m"),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            let act = Act {
                head,
                body,
                ..Act::just(Then::Reset(reason))
            };
            let server = RawH2::scripted([act]).await;
            let (said, world, session) = called_at(server.address).await;
            assert!(said.is_err(), "{reason:?}: {said:?}");
            assert_eq!(world.reissues(), 0);
            assert!(session.status().is_logged_in());
        }
    }
    for then in [Then::Close, Then::GoAway] {
        let act = Act {
            head: Some(head()),
            ..Act::just(then)
        };
        let server = RawH2::scripted([act]).await;
        let (said, world, _) = called_at(server.address).await;
        assert!(said.is_err(), "{said:?}");
        assert_eq!(world.reissues(), 0);
    }
}

// shows P10: a refusal whose stream breaks off, or does not end, is handed on.
#[tokio::test]
async fn a_refusal_that_is_not_the_whole_answer() {
    let refusal = || {
        let mut head = head();
        head.headers_mut().extend(status("16"));
        head
    };
    let ends = [
        ("", Then::Reset(Reason::INTERNAL_ERROR)),
        ("", Then::Hang),
        ("", Then::Close),
        ("\0\0\0\0\u{3}\n\u{1}m", Then::Done),
        ("\0\0\0\0\u{3}\n\u{1}m", Then::Hang),
    ];
    for (body, then) in ends {
        let body = Bytes::from_static(body.as_bytes());
        let act = Act {
            head: Some(refusal()),
            body,
            ..Act::just(then)
        };
        let server = RawH2::scripted([act]).await;
        let (said, _, session) = called_at(server.address).await;
        assert_eq!(said.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(session.stats().replays, 0);
    }
}

#[tokio::test]
async fn frames_that_say_nothing_do_not_hold_the_head_back() {
    let server = Server::start(async |_| {
        let empty = || Ok(Frame::data(Bytes::new()));
        let flood = stream::repeat_with(empty).take(10_000);
        grpc_answer(StreamBody::new(flood.chain(stream::pending())))
    })
    .await;
    let world = World::default();
    let session = world.session().await;
    let mut client = client(layer(&session, &server.base), channel(&server));
    let listening = listen(&mut client, 0);
    let heard = tokio::time::timeout(Duration::from_secs(30), listening).await;
    assert!(heard.expect("no hang").is_ok());
}
