//! Proves that a tonic client behind the layer stays logged in: what is made good, and what is passed on
//! as it comes.

#[path = "support/server.rs"]
mod server;

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::join_all;
use futures::stream;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::uri::PathAndQuery;
use http_body::Body as _;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use server::Server;
use server::token;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tonic::Code;
use tonic::Status;
use tonic::Streaming;
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use tower::Layer;
use tower::Service;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower::service_fn;
use tower::util::BoxCloneSyncService;
use tower_token_refresh::BoxError;
use tower_token_refresh::Classify;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::EndReason;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ReplaySafe;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::Verdict;
use tower_token_refresh::reissue_fn;

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn text(text: impl Into<String>) -> Text {
    Text { text: text.into() }
}

/// The API, the issuer and what they have seen. The tokens are t0, t1 and so on.
#[derive(Clone, Default)]
struct World {
    /// The number of the token that is good.
    good: Arc<AtomicU64>,
    reissues: Arc<AtomicU64>,
    /// For each call: its token, its messages, the time it says it has.
    calls: Arc<Mutex<Vec<Call>>>,
    /// The second half of an answer takes one permit, where there are two.
    gate: Gate,
    /// Messages that have arrived.
    messages: Arc<watch::Sender<usize>>,
}

#[derive(Clone)]
struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Call {
    token: String,
    timeout: Option<String>,
}

impl World {
    fn expire(&self) {
        self.good.fetch_add(1, Ordering::SeqCst);
    }

    fn open(&self) {
        self.gate.0.add_permits(1);
    }

    async fn pass(&self) {
        self.gate.0.acquire().await.unwrap().forget();
    }

    fn reissues(&self) -> u64 {
        self.reissues.load(Ordering::SeqCst)
    }

    /// The tokens of the calls, in turn.
    fn tokens(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| call.token.clone()).collect()
    }

    fn timeouts(&self) -> Vec<Option<String>> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| call.timeout.clone()).collect()
    }

    /// A session that is logged in with t0.
    async fn session(&self) -> Session {
        let world = self.clone();
        let session = Session::builder(reissue_fn(move |_| {
            let number = world.reissues.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(TokenSet::new(format!("t{number}")).unwrap()) }
        }))
        .build()
        .unwrap();
        let tokens = TokenSet::new("t0").unwrap();
        let tokens = tokens.with_refresh_token("refresh").unwrap();
        session.login(tokens).await.unwrap();
        session
    }

    /// Notes the call, and says whether its token is good.
    fn admit<B>(&self, request: &Request<B>) -> bool {
        let timeout = request.headers().get("grpc-timeout");
        let call = Call {
            token: token(request),
            timeout: timeout.map(|it| it.to_str().unwrap().to_owned()),
        };
        let good = call.token == format!("t{}", self.good.load(Ordering::SeqCst));
        self.calls.lock().unwrap().push(call);
        good
    }

    async fn serve(&self) -> Server {
        let world = self.clone();
        Server::start(move |request| {
            let world = world.clone();
            async move { world.answer(request).await }
        })
        .await
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let good = self.admit(&request);
        let path = request.uri().path().to_owned();
        match (path.as_str(), good) {
            // Those that judge the token by themselves.
            ("/late.Trailers/Stream", _) => return self.late_trailers(request, good).await,
            ("/trailers.At/Once", false) => return trailers_at_once(),
            ("/two.Frames/Once", false) => return head_then_nothing(),
            (_, false) => return Status::unauthenticated("expired").into_http(),
            _ => {}
        }
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
        match path.as_str() {
            "/chat.Chat/Talk" => {
                let talk = |request: tonic::Request<Streaming<Text>>| self.clone().talk(request);
                grpc.streaming(service_fn(talk), request).await
            }
            "/chat.Chat/Tell" => {
                let tell = async |request: tonic::Request<Streaming<Text>>| {
                    let told: Vec<_> = request.into_inner().map(Result::unwrap).collect().await;
                    let told: Vec<_> = told.into_iter().map(|it| it.text).collect();
                    Ok::<_, Status>(tonic::Response::new(text(told.join(","))))
                };
                grpc.client_streaming(service_fn(tell), request).await
            }
            _ => {
                let say = async |request: tonic::Request<Text>| {
                    Ok::<_, Status>(tonic::Response::new(request.into_inner()))
                };
                grpc.unary(service_fn(say), request).await
            }
        }
    }

    /// Answers when the second message is there, and each message after that; before the last one it
    /// waits for a permit.
    async fn talk(
        self,
        request: tonic::Request<Streaming<Text>>,
    ) -> Result<tonic::Response<impl futures::Stream<Item = Result<Text, Status>>>, Status> {
        let mut heard = request.into_inner();
        let mut early = Vec::new();
        while early.len() < 2 {
            early.extend(heard.message().await?);
            self.messages.send_modify(|n| *n += 1);
        }
        let early = stream::iter(early.into_iter().map(Ok));
        let later = heard.then(move |message| {
            let world = self.clone();
            async move {
                world.pass().await;
                message
            }
        });
        Ok(tonic::Response::new(early.chain(later)))
    }

    /// A head, as many messages as the request says, and a status in the trailers that waits for a
    /// permit.
    async fn late_trailers(self, request: Request<Incoming>, good: bool) -> Response<Body> {
        let messages = request.headers().get("x-messages").map_or(0, |it| {
            it.to_str().unwrap().parse::<usize>().expect("a number")
        });
        let message = |_| Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x03\x0a\x01m")));
        let messages = stream::iter((0..messages).map(message));
        let trailers = stream::once(async move {
            self.pass().await;
            Ok::<_, Infallible>(Frame::trailers(status(if good { "0" } else { "16" })))
        });
        grpc_answer(StreamBody::new(messages.chain(trailers)))
    }
}

fn status(number: &'static str) -> HeaderMap {
    let number = HeaderValue::from_static(number);
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), number)])
}

fn grpc_answer<B>(body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let body = body.map_err(|never| match never {});
    let answer = Response::builder().header("content-type", "application/grpc");
    answer.body(Body::new(body)).unwrap()
}

/// The status is in trailers, which go out with the head.
fn trailers_at_once() -> Response<Body> {
    grpc_answer(Empty::new().with_trailers(async { Some(Ok(status("16"))) }))
}

/// The status is in the head, and the end of the stream in a frame of its own.
fn head_then_nothing() -> Response<Body> {
    let nothing = stream::iter([Ok(Frame::data(Bytes::new()))]);
    let mut answer = grpc_answer(StreamBody::new(nothing));
    answer.headers_mut().extend(status("16"));
    answer
}

fn layer(session: &Session, base: &str) -> TokenRefreshLayer {
    TokenRefreshLayer::new(base, session.clone()).unwrap()
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::from_shared(server.base.clone()).unwrap()
}

fn channel(server: &Server) -> Channel {
    endpoint(server).connect_lazy()
}

fn into_tonic(request: Request<ReplayBody<Body>>) -> Request<Body> {
    request.map(Body::new)
}

type Client<T = Body> =
    tonic::client::Grpc<BoxCloneSyncService<Request<Body>, Response<T>, BoxError>>;
type Layered = Client<tower_token_refresh::ResponseBody<Body>>;

fn client<C>(layer: TokenRefreshLayer<Session, C>, channel: Channel) -> Layered
where
    C: Classify + Clone + Send + Sync + 'static,
{
    let service = ServiceBuilder::new()
        .layer(layer)
        .map_request(into_tonic)
        .service(channel);
    tonic::client::Grpc::new(BoxCloneSyncService::new(service))
}

/// A client with the layer, and what it talks to.
async fn scene() -> (World, Session, Server, Layered) {
    let world = World::default();
    let (session, server) = (world.session().await, world.serve().await);
    let client = client(layer(&session, &server.base), channel(&server));
    (world, session, server, client)
}

fn path(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}

const SAY: &str = "/chat.Chat/Say";

async fn say(client: &mut Layered, path: &'static str) -> Result<String, Status> {
    say_to(client, path, tonic::Request::new(text("hello"))).await
}

async fn say_to<T>(
    client: &mut tonic::client::Grpc<T>,
    at: &'static str,
    request: tonic::Request<Text>,
) -> Result<String, Status>
where
    T: tonic::client::GrpcService<Body>,
    T::ResponseBody: http_body::Body + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
{
    client
        .ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let answer = client
        .unary(request, path(at), ProstCodec::<Text, Text>::default())
        .await?;
    Ok(answer.into_inner().text)
}

async fn listen(
    client: &mut Layered,
    messages: usize,
) -> Result<tonic::Response<Streaming<Text>>, Status> {
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(text("hello"));
    let messages = messages.to_string().parse().unwrap();
    request.metadata_mut().insert("x-messages", messages);
    let codec = ProstCodec::<Text, Text>::default();
    client
        .server_streaming(request, path("/late.Trailers/Stream"), codec)
        .await
}

/// A conversation in which the client goes on speaking.
async fn talk(
    client: &mut Layered,
) -> Result<
    (
        mpsc::UnboundedSender<Text>,
        tonic::Response<Streaming<Text>>,
    ),
    Status,
> {
    client.ready().await.unwrap();
    let (speak, spoken) = mpsc::unbounded();
    speak.unbounded_send(text("one")).unwrap();
    speak.unbounded_send(text("two")).unwrap();
    let codec = ProstCodec::<Text, Text>::default();
    let request = tonic::Request::new(spoken);
    let answer = client
        .streaming(request, path("/chat.Chat/Talk"), codec)
        .await?;
    Ok((speak, answer))
}

// shows B28, P1
#[tokio::test]
async fn calls_that_were_refused_cost_one_reissue_and_all_succeed() {
    let (world, _session, _server, client) = scene().await;
    world.expire();
    let calls = (0..50).map(|_| {
        let mut client = client.clone();
        async move { say(&mut client, SAY).await }
    });
    for said in join_all(calls).await {
        assert_eq!(said.unwrap(), "hello");
    }
    assert_eq!(world.reissues(), 1);
    let tokens = world.tokens();
    let with = |token| tokens.iter().filter(|it| *it == token).count();
    assert_eq!(with("t1"), 50);
    assert_eq!(with("t0") + with("t1"), tokens.len());
}

// shows B111, P10
#[tokio::test]
async fn a_client_stream_that_was_kept_is_sent_again_whole() {
    let (world, session, _server, mut client) = scene().await;
    world.expire();
    client.ready().await.unwrap();
    let names: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let messages = stream::iter(names.clone()).map(text);
    let codec = ProstCodec::<Text, Text>::default();
    let request = tonic::Request::new(messages);
    let told = client
        .client_streaming(request, path("/chat.Chat/Tell"), codec)
        .await;
    let told: Text = told.unwrap().into_inner();
    assert_eq!(told.text, names.join(","));
    assert_eq!(world.tokens(), ["t0", "t1"]);
    assert_eq!(session.stats().replays, 1);
}

// shows B113, P10
#[tokio::test]
async fn a_client_stream_that_was_not_kept_whole_is_not_sent_again() {
    let world = World::default();
    let (session, server) = (world.session().await, world.serve().await);
    let layer = layer(&session, &server.base).replay_limit(100);
    let mut client = client(layer, channel(&server));
    world.expire();
    client.ready().await.unwrap();
    let messages = stream::iter((0..100).map(|n| text(n.to_string())));
    let codec = ProstCodec::<Text, Text>::default();
    let request = tonic::Request::new(messages);
    let told: Result<tonic::Response<Text>, _> = client
        .client_streaming(request, path("/chat.Chat/Tell"), codec)
        .await;
    assert_eq!(told.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
    assert_eq!(
        world.tokens(),
        ["t0", "t1"],
        "the next call is refreshed already"
    );
    assert_eq!(session.stats().replays, 0);
}

#[tokio::test]
async fn a_server_that_answers_after_the_second_message_is_waited_for() {
    let (world, _session, _server, mut client) = scene().await;
    let (speak, answer) = talk(&mut client).await.unwrap();
    let mut heard = answer.into_inner();
    assert_eq!(heard.message().await.unwrap(), Some(text("one")));
    assert_eq!(heard.message().await.unwrap(), Some(text("two")));
    speak.unbounded_send(text("three")).unwrap();
    world.open();
    assert_eq!(heard.message().await.unwrap(), Some(text("three")));
    drop(speak);
    assert_eq!(heard.message().await.unwrap(), None);
    assert_eq!(world.tokens(), ["t0"]);
}

// shows B111: what the first send has read is kept, and the rest is read from the caller's stream.
#[tokio::test]
async fn a_conversation_that_was_refused_starts_again_from_its_first_message() {
    let (world, session, _server, mut client) = scene().await;
    world.expire();
    let (speak, answer) = talk(&mut client).await.unwrap();
    let mut heard = answer.into_inner();
    assert_eq!(heard.message().await.unwrap(), Some(text("one")));
    assert_eq!(heard.message().await.unwrap(), Some(text("two")));
    speak.unbounded_send(text("three")).unwrap();
    world.open();
    assert_eq!(heard.message().await.unwrap(), Some(text("three")));
    assert_eq!(world.tokens(), ["t0", "t1"]);
    assert_eq!(session.stats().replays, 1);
}

// shows B28
#[tokio::test]
async fn trailers_that_come_with_the_head_are_as_good_as_a_status_in_it() {
    for at in ["/trailers.At/Once", "/two.Frames/Once"] {
        let (world, session, _server, mut client) = scene().await;
        world.expire();
        assert_eq!(say(&mut client, at).await.unwrap(), "hello", "{at}");
        assert_eq!(world.tokens(), ["t0", "t1"], "{at}");
        assert_eq!(session.stats().replays, 1, "{at}");
    }
}

// shows B28, B29, P10: the head is there although the trailers are not.
#[tokio::test]
async fn trailers_that_come_later_are_passed_on_and_the_next_call_is_refreshed_first() {
    for messages in [0, 1, 3] {
        let (world, session, _server, mut client) = scene().await;
        world.expire();
        let mut heard = listen(&mut client, messages).await.unwrap().into_inner();
        for _ in 0..messages {
            assert_eq!(heard.message().await.unwrap(), Some(text("m")));
        }
        assert_eq!(world.reissues(), 0, "nothing is known yet");
        world.open();
        assert_eq!(
            heard.message().await.unwrap_err().code(),
            Code::Unauthenticated
        );
        assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
        assert_eq!(world.tokens(), ["t0", "t1"], "{messages} messages");
        assert_eq!(session.stats().replays, 0);
    }
}

// shows B29: everything is there at once, a message as well.
#[tokio::test]
async fn a_call_that_has_had_a_message_is_not_made_again() {
    let (world, session, _server, mut client) = scene().await;
    world.expire();
    world.open();
    let mut heard = listen(&mut client, 1).await.unwrap().into_inner();
    assert_eq!(heard.message().await.unwrap(), Some(text("m")));
    assert_eq!(
        heard.message().await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(session.stats().replays, 0);
    world.open();
    assert!(
        listen(&mut client, 0)
            .await
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(world.tokens(), ["t0", "t1"]);
}

// shows P2
#[tokio::test]
async fn late_trailers_of_a_token_that_was_replaced_cost_nothing() {
    let (world, _session, _server, mut client) = scene().await;
    world.expire();
    let mut late = listen(&mut client, 1).await.unwrap().into_inner();
    assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
    world.open();
    assert_eq!(late.message().await.unwrap(), Some(text("m")));
    assert_eq!(
        late.message().await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
    assert_eq!(world.tokens(), ["t0", "t0", "t1", "t1"]);
    assert_eq!(world.reissues(), 1);
}

/// Takes the status 16 for the end of the session, wherever it is.
#[derive(Clone)]
struct Final;

impl Classify for Final {
    fn classify(&self, status: http::StatusCode, headers: &HeaderMap) -> Verdict {
        DefaultClassifier.classify(status, headers)
    }

    fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        match DefaultClassifier.inspect_trailers(trailers) {
            Verdict::Refresh => Verdict::EndSession,
            verdict => verdict,
        }
    }
}

// shows P6, P7
#[tokio::test]
async fn trailers_that_are_final_end_the_session() {
    for at_once in [true, false] {
        let world = World::default();
        let (session, server) = (world.session().await, world.serve().await);
        let mut client = client(
            layer(&session, &server.base).classify(Final),
            channel(&server),
        );
        world.expire();
        let refused = match at_once {
            true => say(&mut client, "/trailers.At/Once").await.unwrap_err(),
            false => {
                let mut heard = listen(&mut client, 0).await.unwrap().into_inner();
                world.open();
                heard.message().await.unwrap_err()
            }
        };
        assert_eq!(refused.code(), Code::Unauthenticated);
        // The next call is the one that finds out, where nobody has waited.
        assert_eq!(
            say(&mut client, SAY).await.unwrap_err().code(),
            Code::Unauthenticated
        );
        assert_eq!(
            session.status().end_reason(),
            Some(EndReason::Rejected),
            "{at_once}"
        );
        assert_eq!(session.stats().ends, 1);
        assert_eq!(world.tokens(), ["t0", ""], "{at_once}");
        assert_eq!(world.reissues(), 0);
    }
}

// shows P2: the answer to the second send is the answer, and counts for the next call.
#[tokio::test]
async fn a_replay_that_is_refused_in_its_trailers_counts_for_the_next_call() {
    let (world, session, _server, mut client) = scene().await;
    world.expire();
    world.expire();
    let refused = say(&mut client, "/trailers.At/Once").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
    assert_eq!(world.tokens(), ["t0", "t1", "t2"]);
    assert_eq!(session.stats().replays, 1);
}

// shows B118: what stands above sees one call, what stands below each attempt.
#[tokio::test]
async fn interceptors_stand_above_and_below() {
    let world = World::default();
    let (session, server) = (world.session().await, world.serve().await);
    let counted = |count: &Arc<AtomicU64>| {
        let count = count.clone();
        move |request: tonic::Request<()>| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(request)
        }
    };
    let (above, below) = (Arc::default(), Arc::default());
    let service = ServiceBuilder::new()
        .layer(layer(&session, &server.base))
        .map_request(into_tonic)
        .service(InterceptedService::new(channel(&server), counted(&below)));
    let service = InterceptedService::new(service, counted(&above));
    let mut client = tonic::client::Grpc::new(service);
    world.expire();
    let request = tonic::Request::new(text("hello"));
    assert_eq!(say_to(&mut client, SAY, request).await.unwrap(), "hello");
    assert_eq!(world.tokens(), ["t0", "t1"]);
    assert_eq!(above.load(Ordering::SeqCst), 1);
    assert_eq!(below.load(Ordering::SeqCst), 2);
}

/// Of a call with 5 s: the number of a `grpc-timeout`, in seconds.
fn seconds(timeout: &Option<String>) -> f64 {
    let text = timeout.as_deref().expect("a time");
    let (number, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "S" => 1.0,
        _ => panic!("{text}"),
    };
    number.parse::<f64>().unwrap() * unit
}

// shows B99
#[tokio::test]
async fn a_replay_says_what_is_left_of_the_time() {
    let (world, _session, _server, mut client) = scene().await;
    world.expire();
    let mut request = tonic::Request::new(text("hello"));
    request.set_timeout(Duration::from_secs(100));
    assert_eq!(say_to(&mut client, SAY, request).await.unwrap(), "hello");
    let timeouts = world.timeouts();
    assert_eq!(
        seconds(&timeouts[0]),
        100.0,
        "the first send is as the caller made it"
    );
    let left = seconds(&timeouts[1]);
    assert!(left < 100.0, "{timeouts:?}");
}

/// What the service below is sent, in a world where time stands still.
type Below = tower_test::mock::Handle<Request<ReplayBody<Body>>, Response<Body>>;

/// A layered service whose reissues take as long as the test wants: it takes a permit.
async fn still_world() -> (
    Session,
    Below,
    BoxCloneSyncService<Request<Body>, Response<tower_token_refresh::ResponseBody<Body>>, BoxError>,
    Arc<Semaphore>,
) {
    let gate = Arc::new(Semaphore::new(0));
    let its = gate.clone();
    let session = Session::builder(reissue_fn(move |_| {
        let gate = its.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(TokenSet::new("t1").unwrap())
        }
    }))
    .build()
    .unwrap();
    let tokens = TokenSet::new("t0").unwrap();
    let tokens = tokens.with_refresh_token("refresh").unwrap();
    session.login(tokens).await.unwrap();
    let (service, handle) = tower_test::mock::pair();
    let service = layer(&session, "http://localhost").layer(service);
    (session, handle, BoxCloneSyncService::new(service), gate)
}

fn with_5_seconds() -> Request<Body> {
    let request = Request::post("http://localhost/chat.Chat/Say");
    let request = request.header("grpc-timeout", "5S");
    request.body(Body::default()).unwrap()
}

fn refusal() -> Response<Body> {
    Status::unauthenticated("expired").into_http()
}

// shows B99
#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_spans_both_sends_and_the_wait_between_them() {
    let (_session, mut below, service, gate) = still_world().await;
    let call = tokio::spawn(service.oneshot(with_5_seconds()));
    let (first, respond) = below.next_request().await.unwrap();
    assert_eq!(first.headers()["grpc-timeout"], "5S");
    tokio::time::advance(Duration::from_millis(500)).await;
    respond.send_response(refusal());
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_millis(1500)).await;
    gate.add_permits(1);
    let (second, respond) = below.next_request().await.unwrap();
    assert_eq!(
        seconds(&Some(
            second.headers()["grpc-timeout"]
                .to_str()
                .unwrap()
                .to_owned()
        )),
        3.0
    );
    respond.send_response(Response::new(Body::default()));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

// shows B99
#[tokio::test(start_paused = true)]
async fn a_call_whose_time_is_over_while_it_waits_gets_its_refusal() {
    let (_session, mut below, service, _gate) = still_world().await;
    let started = tokio::time::Instant::now();
    let call = tokio::spawn(service.oneshot(with_5_seconds()));
    let (_, respond) = below.next_request().await.unwrap();
    respond.send_response(refusal());
    let answer = call.await.unwrap().unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    assert_eq!(answer.headers()["grpc-status"], "16");
    assert!(
        answer
            .extensions()
            .get::<RefreshError>()
            .unwrap()
            .is_wait_timeout()
    );
}

// shows B99: a request that waits before it is sent.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_that_is_held_runs_on() {
    for in_time in [true, false] {
        let (session, mut below, mut service, gate) = still_world().await;
        let started = tokio::time::Instant::now();
        let first = tokio::spawn(service.clone().oneshot(with_5_seconds()));
        let (_, respond) = below.next_request().await.unwrap();
        respond.send_response(refusal());
        while session.stats().waiters == 0 {
            tokio::task::yield_now().await;
        }
        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let held = tokio::spawn(service.call(with_5_seconds()));
        if !in_time {
            let error = held.await.unwrap().unwrap_err();
            let error = error.downcast_ref::<RefreshError>().unwrap();
            assert!(error.is_wait_timeout(), "{error}");
            assert_eq!(started.elapsed(), Duration::from_secs(5));
            continue;
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        gate.add_permits(1);
        for _ in 0..2 {
            let (sent, respond) = below.next_request().await.unwrap();
            let left = sent.headers()["grpc-timeout"].to_str().unwrap().to_owned();
            assert_eq!(seconds(&Some(left)), 3.0);
            respond.send_response(Response::new(Body::default()));
        }
        assert!(first.await.unwrap().is_ok() && held.await.unwrap().is_ok());
    }
}

/// An answer whose frames are there at once.
fn ready_answer(frames: Vec<Frame<Bytes>>) -> Response<Body> {
    let frames = stream::iter(frames.into_iter().map(Ok));
    grpc_answer(StreamBody::new(frames))
}

// shows B29, B119
#[tokio::test]
async fn what_stands_before_the_trailers_decides_on_the_replay() {
    let empty = || Frame::data(Bytes::new());
    let message = || Frame::data(Bytes::from_static(b"\0\0\0\0\0"));
    let end = || Frame::trailers(status("16"));
    let cases = [
        (vec![end()], false, true),
        (vec![empty(), empty(), end()], false, true),
        (vec![message(), end()], false, false),
        (vec![empty(), message(), end()], false, false),
        // A caller that doesn't mind is no reason to hold messages back.
        (vec![message(), end()], true, false),
    ];
    for (n, (frames, is_safe, replayed)) in cases.into_iter().enumerate() {
        let (session, mut below, service, gate) = still_world().await;
        gate.add_permits(1);
        let mut request = with_5_seconds();
        if is_safe {
            request.extensions_mut().insert(ReplaySafe);
        }
        let call = tokio::spawn(service.oneshot(request));
        let (_, respond) = below.next_request().await.unwrap();
        let whole: usize = frames
            .iter()
            .filter_map(Frame::data_ref)
            .map(Bytes::len)
            .sum();
        respond.send_response(ready_answer(frames));
        if replayed {
            let (_, respond) = below.next_request().await.unwrap();
            respond.send_response(ready_answer(vec![Frame::trailers(status("0"))]));
        }
        let answer = call.await.unwrap().unwrap().into_body();
        assert!(!answer.is_end_stream(), "case {n}");
        let answer = answer.collect().await.unwrap();
        let trailers = answer.trailers().unwrap().clone();
        assert_eq!(
            trailers["grpc-status"],
            if replayed { "0" } else { "16" },
            "case {n}"
        );
        assert_eq!(
            answer.to_bytes().len(),
            if replayed { 0 } else { whole },
            "case {n}"
        );
        assert_eq!(session.stats().replays, u64::from(replayed), "case {n}");
    }
}
