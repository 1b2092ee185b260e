//! Shows a generated tonic client behind the layer, against the reference back end's Greeter on loopback.

#[path = "../examples/backend/server/mod.rs"]
mod backend;
#[path = "support/login.rs"]
mod login;

use std::sync::mpsc;
use std::time::Duration;

use backend::Backend;
use backend::Config;
use backend::greeter_v1::HelloRequest;
use backend::greeter_v1::greeter_client::GreeterClient;
use bytes::Bytes;
use futures::stream;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::ServiceBuilder;
use tower::util::BoxCloneSyncService;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ResponseBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;

type Api = BoxCloneSyncService<Request<Body>, Response<ResponseBody<Body>>, Status>;

/// No test takes as long.
const LIMIT: Duration = Duration::from_secs(60);

struct World {
    backend: Backend,
    session: Session,
    api: Api,
    greeter: GreeterClient<Api>,
}

impl World {
    /// Logged in, with a token that lives until it is expired.
    async fn new() -> Self {
        let backend = Backend::start(Config {
            access_ttl: Duration::from_secs(3600),
            rotate: true,
            grpc_port: Some(0),
            ..Config::default()
        })
        .await
        .expect("a back end");
        let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let issuer = format!("{}/member/token/refresh", backend.base());
        let issuer = JsonReissue::post(issuer, http).refused("T-003");
        let session = Session::builder(issuer).build().expect("a session");
        let tokens = log_in(&backend).await;
        session.login(tokens).await.expect("logged in");
        let url = backend.grpc().expect("it serves gRPC");
        let channel = Endpoint::from_shared(url.clone()).expect("a URL");
        let layer = TokenRefreshLayer::new(url, session.clone()).expect("an origin");
        let api = ServiceBuilder::new()
            .map_err(Status::from_error)
            .layer(layer)
            .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
            .service(channel.connect_lazy());
        let api = BoxCloneSyncService::new(api);
        Self {
            api: api.clone(),
            greeter: GreeterClient::new(api),
            backend,
            session,
        }
    }

    /// Calls that were refused, calls that were not, and reissues, as the server has seen them.
    fn counts(&self) -> [u64; 3] {
        let stats = self.backend.stats();
        let count = |status| stats.requests.get(&status).copied().unwrap_or_default();
        [count(401), count(200), stats.reissues]
    }

    /// How a unary call ends.
    async fn call(&mut self) -> Code {
        match self.greeter.say_hello(hello(1, 0)).await {
            Ok(reply) => {
                assert_eq!(reply.get_ref().message, "Hello, you!");
                Code::Ok
            }
            Err(status) => status.code(),
        }
    }

    /// The replies that there are before a stream ends, and how it does.
    async fn stream(&mut self, count: u32, fail_after: u32) -> (Vec<u32>, Code) {
        let request = hello(count, fail_after);
        let mut replies = self
            .greeter
            .say_hello_stream(request)
            .await
            .expect("a head");
        let mut seen = Vec::new();
        loop {
            match replies.get_mut().message().await {
                Ok(Some(reply)) => seen.push(reply.seq),
                Ok(None) => return (seen, Code::Ok),
                Err(status) => return (seen, status.code()),
            }
        }
    }
}

fn hello(count: u32, fail_after: u32) -> HelloRequest {
    HelloRequest {
        name: "you".to_owned(),
        count,
        fail_after,
    }
}

async fn log_in(backend: &Backend) -> TokenSet {
    let answer: Value = serde_json::from_slice(&login::log_in(backend).await).expect("JSON");
    let text = |name: &str| answer[name].as_str().expect("a string").to_owned();
    let tokens = TokenSet::new(text("accessToken"))
        .and_then(|tokens| tokens.with_refresh_token(text("refreshToken")));
    let tokens = tokens.expect("tokens").with_identity("id", text("id"));
    tokens.with_identity("email", text("email"))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("it settles")
}

// shows B29, P2
#[tokio::test]
async fn a_stream_that_fails_after_messages_is_not_sent_again_and_the_next_call_is_refreshed_first()
{
    let mut world = World::new().await;
    let failed = within(world.stream(5, 2)).await;
    assert_eq!(failed, (vec![1, 2], Code::Unauthenticated));
    assert_eq!(world.counts(), [0, 1, 0]);
    assert_eq!(within(world.call()).await, Code::Ok);
    // It went out once, with the new token.
    assert_eq!(world.counts(), [0, 2, 1]);
    assert_eq!(world.session.stats().replays, 0);
    assert_eq!(within(world.stream(3, 0)).await, (vec![1, 2, 3], Code::Ok));
    assert_eq!(world.counts(), [0, 3, 1]);
}

// shows B28, P1
#[tokio::test]
async fn calls_of_all_kinds_from_tasks_of_their_own_share_one_reissue() {
    let world = World::new().await;
    world.backend.expire_access_tokens();
    let mut calls = JoinSet::new();
    for n in 0..30 {
        let mut greeter = world.greeter.clone();
        calls.spawn(async move {
            match n % 3 {
                0 => greeter.say_hello(hello(1, 0)).await.map(drop),
                1 => greeter.say_hello_stream(hello(4, 0)).await.map(drop),
                _ => {
                    let names = vec![hello(1, 0); 4];
                    let summary = greeter.collect_hellos(stream::iter(names)).await;
                    summary.map(|summary| assert_eq!(summary.get_ref().received, 4))
                }
            }
        });
    }
    let ended = within(calls.join_all()).await;
    assert!(ended.iter().all(Result::is_ok));
    let [rejected, accepted, reissues] = world.counts();
    assert_eq!((accepted, reissues), (30, 1));
    assert_eq!(world.session.stats().replays, rejected);
}

// shows B118
#[tokio::test]
async fn an_interceptor_of_the_generated_client_sees_each_call_once_and_may_refuse_it() {
    let world = World::new().await;
    world.backend.expire_access_tokens();
    let (seen, count) = mpsc::channel();
    let mut greeter = GreeterClient::with_interceptor(world.api.clone(), move |call| {
        seen.send(()).expect("the test listens");
        Ok(call)
    });
    within(greeter.say_hello(hello(1, 0)))
        .await
        .expect("a reply");
    assert_eq!(count.try_iter().count(), 1);
    assert_eq!(world.counts(), [1, 1, 1]);
    let refuse = |_| Err(Status::aborted("not now"));
    let mut greeter = GreeterClient::with_interceptor(world.api.clone(), refuse);
    let refused = within(greeter.say_hello(hello(1, 0))).await;
    assert_eq!(refused.expect_err("refused").code(), Code::Aborted);
    assert_eq!(world.counts(), [1, 1, 1]);
}
