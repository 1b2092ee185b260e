//! Proves that a tonic client behind the layer stays logged in: what is made good, and what is passed on
//! as it comes.

mod bad_servers;
mod calls;
mod deadlines;
#[path = "../support/raw.rs"]
mod raw;
#[path = "../support/raw_h2.rs"]
mod raw_h2;
#[path = "../support/server.rs"]
mod server;
mod trailers;
mod world;

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
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::TokenStore;
use tower_token_refresh::Verdict;
use tower_token_refresh::reissue_fn;
use world::Text;
use world::World;
use world::grpc_answer;
use world::status;
use world::text;

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
    listen_at(client, "/late.Trailers/Stream", messages).await
}

async fn listen_at(
    client: &mut Layered,
    at: &'static str,
    messages: usize,
) -> Result<tonic::Response<Streaming<Text>>, Status> {
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(text("hello"));
    let messages = messages.to_string().parse().unwrap();
    request.metadata_mut().insert("x-messages", messages);
    let codec = ProstCodec::<Text, Text>::default();
    client.server_streaming(request, path(at), codec).await
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
    let request = request.version(http::Version::HTTP_2);
    let request = request.header("grpc-timeout", "5S");
    request.body(Body::default()).unwrap()
}
