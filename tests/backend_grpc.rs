//! Proves the contract of the reference back end's Greeter, over loopback, with a plain tonic client.

#[path = "../examples/backend/server/mod.rs"]
mod backend;
#[path = "support/login.rs"]
mod login;

use std::collections::BTreeMap;
use std::time::Duration;

use backend::Backend;
use backend::Config;
use backend::Round;
use backend::greeter_v1::HelloReply;
use backend::greeter_v1::HelloRequest;
use backend::greeter_v1::greeter_client::GreeterClient;
use futures::StreamExt;
use futures::stream;
use http::Request as HttpRequest;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::Request;
use tonic::Status;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use tower::ServiceExt;

type Greeter = GreeterClient<Channel>;

const SAY_HELLO: &str = "/greeter.v1.Greeter/SayHello";

/// With tokens that live until they are expired.
fn serving() -> Config {
    Config {
        access_ttl: Duration::from_secs(3600),
        grpc_port: Some(0),
        ..Config::default()
    }
}

async fn start(config: Config) -> (Backend, Greeter) {
    let backend = Backend::start(config).await.expect("a back end");
    let greeter = GreeterClient::new(channel(&backend));
    (backend, greeter)
}

fn channel(backend: &Backend) -> Channel {
    let base = backend.grpc().expect("it serves gRPC");
    Endpoint::from_shared(base).expect("a URL").connect_lazy()
}

/// An access token that is good.
async fn log_in(backend: &Backend) -> String {
    let answer = login::log_in(backend).await;
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    answer["accessToken"].as_str().expect("a token").to_owned()
}

fn hello(name: &str, count: u32, fail_after: u32) -> HelloRequest {
    HelloRequest {
        name: name.to_owned(),
        count,
        fail_after,
    }
}

/// With this token, as a bearer.
fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a token");
    request.metadata_mut().insert("authorization", value);
    request
}

/// How an answer ended, and the code before its message.
fn told(status: &Status) -> (Code, &str) {
    let (code, words) = status.message().split_once(": ").expect("a code");
    assert!(!words.is_empty());
    (status.code(), code)
}

async fn refusal(greeter: &mut Greeter, token: &str) -> Status {
    let request = with(token, hello("you", 1, 0));
    greeter.say_hello(request).await.expect_err("refused")
}

/// All replies, and how they ended.
async fn replies(greeter: &mut Greeter, request: Request<HelloRequest>) -> (Vec<u32>, Code) {
    let mut stream = greeter.say_hello_stream(request).await.unwrap();
    let mut replies = Vec::new();
    loop {
        match stream.get_mut().message().await {
            Ok(Some(HelloReply { message, seq })) => {
                assert_eq!(message, "Hello, you!");
                replies.push(seq);
            }
            Ok(None) => return (replies, Code::Ok),
            Err(status) => return (replies, status.code()),
        }
    }
}

fn requests(backend: &Backend) -> BTreeMap<u16, u64> {
    backend.stats().requests
}

#[tokio::test]
async fn a_unary_call_is_answered_by_name_and_its_reply_is_number_one() {
    let (backend, mut greeter) = start(serving()).await;
    let token = log_in(&backend).await;
    let reply = greeter
        .say_hello(with(&token, hello("you", 7, 0)))
        .await
        .unwrap();
    let HelloReply { message, seq } = reply.into_inner();
    assert_eq!((message.as_str(), seq), ("Hello, you!", 1));
    assert_eq!(requests(&backend), BTreeMap::from([(200, 1)]));
}

#[tokio::test]
async fn a_stream_has_as_many_replies_as_asked_for_or_fails_after_so_many() {
    let (backend, mut greeter) = start(serving()).await;
    let token = log_in(&backend).await;
    for (count, fail_after, sent, end) in [
        (0, 0, 0, Code::Ok),
        (1, 0, 1, Code::Ok),
        (300, 0, 300, Code::Ok),
        (5, 2, 2, Code::Unauthenticated),
        (5, 5, 5, Code::Unauthenticated),
        (0, 3, 3, Code::Unauthenticated),
    ] {
        let request = with(&token, hello("you", count, fail_after));
        let expected = ((1..=sent).collect(), end);
        assert_eq!(replies(&mut greeter, request).await, expected);
    }
    // Their token was good.
    assert_eq!(requests(&backend), BTreeMap::from([(200, 6)]));
}

#[tokio::test]
async fn names_are_collected_in_order_and_counted() {
    let (backend, mut greeter) = start(serving()).await;
    let token = log_in(&backend).await;
    for count in [0_u32, 1, 1000] {
        let names: Vec<_> = (0..count).map(|n| format!("number {n}")).collect();
        let messages: Vec<_> = names.iter().map(|name| hello(name, 1, 0)).collect();
        let request = with(&token, stream::iter(messages));
        let summary = greeter.collect_hellos(request).await.unwrap().into_inner();
        assert_eq!((summary.received, summary.names), (count, names));
    }
}

#[tokio::test]
async fn too_many_names_are_refused() {
    let (backend, mut greeter) = start(serving()).await;
    let token = log_in(&backend).await;
    for name in ["", "a name that goes on and on"] {
        let many = stream::iter(vec![hello(name, 1, 0); 200_000]);
        let refused = greeter.collect_hellos(with(&token, many)).await;
        assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    }
}

#[tokio::test]
async fn each_fault_of_a_token_has_the_code_that_it_has_over_http() {
    let config = Config {
        expired_code: "GONE".to_owned(),
        ..serving()
    };
    let (backend, mut greeter) = start(config).await;
    let bare = greeter.say_hello(hello("you", 1, 0)).await.unwrap_err();
    assert_eq!(told(&bare), (Code::Unauthenticated, "T-004"));
    let garbled = refusal(&mut greeter, "nonsense").await;
    assert_eq!(told(&garbled), (Code::Unauthenticated, "T-001"));
    let mut twice = with("nonsense", hello("you", 1, 0));
    let value = "Bearer nonsense".parse().unwrap();
    twice.metadata_mut().append("authorization", value);
    let twice = greeter.say_hello(twice).await.unwrap_err();
    assert_eq!(told(&twice), (Code::Unauthenticated, "T-001"));
    let token = log_in(&backend).await;
    backend.expire_access_tokens();
    let expired = refusal(&mut greeter, &token).await;
    assert_eq!(told(&expired), (Code::Unauthenticated, "GONE"));
    assert!(!expired.message().contains(&token));
    // Those of the calls, and of nothing else.
    assert_eq!(requests(&backend), BTreeMap::from([(401, 4)]));
}

#[tokio::test]
async fn all_methods_are_judged_also_those_that_are_not_there() {
    let (backend, mut greeter) = start(serving()).await;
    let streamed = greeter.say_hello_stream(hello("you", 1, 1)).await;
    assert_eq!(told(&streamed.unwrap_err()).1, "T-004");
    let collected = greeter.collect_hellos(stream::empty()).await;
    assert_eq!(told(&collected.unwrap_err()).1, "T-004");
    let status = head(&backend, "/greeter.v1.Greeter/SayGoodbye", None).await;
    assert_eq!(status, Some("16".to_owned()));
    assert_eq!(requests(&backend), BTreeMap::from([(401, 3)]));
    let token = log_in(&backend).await;
    let status = head(&backend, "/greeter.v1.Greeter/SayGoodbye", Some(&token)).await;
    assert_eq!(status, Some("12".to_owned()));
    assert_eq!(requests(&backend), BTreeMap::from([(200, 1), (401, 3)]));
}

/// The gRPC status among the headers of the answer, if it is there.
async fn head(backend: &Backend, method: &str, token: Option<&str>) -> Option<String> {
    let base = backend.grpc().expect("it serves gRPC");
    let mut request = HttpRequest::post(format!("{base}{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(tonic::body::Body::empty())
        .expect("a request");
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a token");
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let answer = channel(backend).oneshot(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let status = answer.headers().get("grpc-status").cloned();
    let body = answer.into_body().collect().await.expect("a body");
    if status.is_some() {
        // It is all there is: neither messages nor trailers follow.
        assert_eq!(body.trailers(), None);
        assert!(body.to_bytes().is_empty());
    }
    status.map(|status| status.to_str().expect("a number").to_owned())
}

#[tokio::test]
async fn a_refusal_is_trailers_only() {
    let (backend, _) = start(serving()).await;
    let status = head(&backend, SAY_HELLO, Some("nonsense")).await;
    assert_eq!(status, Some("16".to_owned()));
    assert_eq!(head(&backend, SAY_HELLO, None).await, Some("16".to_owned()));
}

#[tokio::test]
async fn a_round_holds_the_refusals_of_calls_too() {
    let (backend, greeter) = start(serving()).await;
    let token = log_in(&backend).await;
    let refused = async || refusal(&mut greeter.clone(), "nonsense").await;
    backend.set_round(Some(Round {
        requests: 10,
        hold_rejections: true,
        spread: Duration::ZERO,
    }));
    let mut held = Box::pin(async { tokio::join!(refused(), refused()) });
    // Seven that are answered at once, on the same connection: the two would have their answers, too.
    let meanwhile = async {
        while requests(&backend) != BTreeMap::from([(401, 2)]) {
            tokio::task::yield_now().await;
        }
        for _ in 0..7 {
            let request = with(&token, hello("you", 1, 0));
            greeter.clone().say_hello(request).await.expect("a reply");
        }
    };
    tokio::select! {
        biased;
        _ = &mut held => panic!("they are answered before the tenth has arrived"),
        () = meanwhile => {}
    }
    let ((first, second), tenth) = tokio::join!(held, refused());
    for status in [first, second, tenth] {
        assert_eq!(told(&status), (Code::Unauthenticated, "T-001"));
    }
    assert_eq!(requests(&backend), BTreeMap::from([(200, 7), (401, 3)]));
}

#[tokio::test]
async fn many_calls_at_once_share_a_connection() {
    let (backend, greeter) = start(serving()).await;
    let token = log_in(&backend).await;
    let calls = stream::iter(0..1000).map(|n| {
        let (mut greeter, request) = (greeter.clone(), with(&token, hello("you", n % 3, 0)));
        async move { replies(&mut greeter, request).await }
    });
    let ended: Vec<_> = calls.buffer_unordered(200).collect().await;
    assert!(ended.iter().all(|(_, code)| *code == Code::Ok));
    assert_eq!(requests(&backend), BTreeMap::from([(200, 1000)]));
}

#[tokio::test]
async fn without_a_port_there_is_no_grpc() {
    let config = Config {
        grpc_port: None,
        ..serving()
    };
    let backend = Backend::start(config).await.unwrap();
    assert_eq!(backend.grpc(), None);
    let answer = HttpRequest::post(format!("{}{SAY_HELLO}", backend.base()))
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(Full::<bytes::Bytes>::default());
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(answer.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_at_the_start() {
    let (backend, _) = start(serving()).await;
    let config = Config {
        grpc_port: Some(backend.addr().port()),
        ..serving()
    };
    assert!(Backend::start(config).await.is_err());
}

#[tokio::test]
async fn grpc_is_shut_down_with_the_rest() {
    let (backend, mut greeter) = start(serving()).await;
    let token = log_in(&backend).await;
    let base = backend.grpc().expect("it serves gRPC");
    let addr = base.strip_prefix("http://").expect("http").to_owned();
    let request = with(&token, hello("you", 1, 0));
    greeter.say_hello(request).await.expect("a reply");
    backend.shutdown().await;
    assert!(TcpStream::connect(addr).await.is_err());
}
