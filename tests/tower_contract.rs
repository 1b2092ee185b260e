//! Proves that the layer keeps tower's contract: it asks a service for readiness before each call, the
//! clone that sends again too, passes on what it says, and gives a place back that it has no use for.

mod support;

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use futures::TryFutureExt;
use futures::future::join_all;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::combinators::MapFrame;
use support::Script;
use support::Store;
use support::World;
use support::get;
use support::post;
use support::read;
use support::settle_down;
use tokio::sync::AcquireError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_test::assert_pending;
use tokio_test::assert_ready;
use tokio_test::task;
use tower::Layer;
use tower::Service;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower::limit::ConcurrencyLimitLayer;
use tower_test::mock;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::EndReason;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ResponseFuture;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefresh;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::WithoutToken;

type Asked = Request<Full<Bytes>>;
type Sent = Request<ReplayBody<Full<Bytes>>>;
type Received = Response<Full<Bytes>>;

fn layer(session: &Session) -> TokenRefreshLayer {
    TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap()
}

fn rejection() -> Received {
    Response::builder()
        .status(401)
        .body(Full::default())
        .unwrap()
}

async fn is_ready<S>(service: &mut S) -> &mut S
where
    S: Service<Asked, Error: std::fmt::Debug>,
{
    service.ready().await.unwrap()
}

/// Drops what is ready then.
async fn until_ready<S>(mut service: S)
where
    S: Service<Asked, Error: std::fmt::Debug>,
{
    is_ready(&mut service).await;
}

/// Whatever still waits then, waits for ever.
async fn within<F: Future>(future: F) -> F::Output {
    let patience = timeout(Duration::from_secs(60), future);
    patience.await.expect("it hangs")
}

/// Says "not yet" before it is ready, each clone for itself, and keeps a list of what the contract
/// forbids.
struct Strict<S> {
    inner: S,
    state: State,
    log: Arc<Mutex<Log>>,
}

#[derive(PartialEq)]
enum State {
    New,
    Asked,
    Ready,
}

#[derive(Debug, Default)]
struct Log {
    calls: usize,
    calls_without_readiness: usize,
}

impl<S> Strict<S> {
    fn new(inner: S) -> Self {
        let (state, log) = (State::New, Arc::default());
        Self { inner, state, log }
    }
}

impl<S: Clone> Clone for Strict<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            state: State::New,
            log: self.log.clone(),
        }
    }
}

impl<S: Service<R>, R> Service<R> for Strict<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.state == State::New {
            self.state = State::Asked;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.inner.poll_ready(cx))?;
        self.state = State::Ready;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> S::Future {
        let is_ready = std::mem::replace(&mut self.state, State::New) == State::Ready;
        let mut log = self.log.lock().unwrap();
        log.calls += 1;
        log.calls_without_readiness += usize::from(!is_ready);
        drop(log);
        self.inner.call(request)
    }
}

fn own_header() -> Asked {
    let mut request = get("/own");
    let value = HeaderValue::from_static("Basic bWU6bXlzZWxm");
    request.headers_mut().insert(AUTHORIZATION, value);
    request
}

fn without_token() -> Asked {
    let mut request = get("/public");
    request.extensions_mut().insert(WithoutToken);
    request
}

fn elsewhere() -> Asked {
    let request = Request::get("https://elsewhere.test/");
    request.body(Full::default()).unwrap()
}

// shows B118: on every way through the layer, by a service that is kept and by its clones.
#[tokio::test]
async fn no_service_and_no_clone_of_it_is_called_without_readiness() {
    let world = World::new();
    let store = Store::new(Some(world.tokens("u")));
    let builder = world.builder().store(store);
    let builder = builder.reissue_limit(100, Duration::from_secs(30));
    let session = builder.build().unwrap();
    let strict = Strict::new(world.api());
    let log = strict.log.clone();
    let mut kept = layer(&session).layer(strict);
    // The first is held until the store is read; some pass; some are sent once, some twice.
    let expired = [false, false, false, false, true, true];
    let requests = [
        get("/first"),
        own_header(),
        without_token(),
        elsewhere(),
        get("/again"),
        post("/again", "body"),
    ];
    let calls = [1, 1, 1, 1, 2, 2];
    for ((expired, request), calls) in expired.into_iter().zip(requests).zip(calls) {
        for clone in [false, true] {
            if expired {
                world.expire();
            }
            let before = log.lock().unwrap().calls;
            let sent = request.clone();
            let answer = match clone {
                true => within(kept.clone().oneshot(sent)).await,
                false => {
                    let service = is_ready(&mut kept).await;
                    within(service.call(sent)).await
                }
            };
            let way = format!("{} {clone}", request.uri());
            assert!(answer.is_ok(), "{way}");
            assert_eq!(log.lock().unwrap().calls - before, calls, "{way}");
        }
    }
    // Held by a refresh that runs, with its own service and with a clone.
    world.expire();
    world.hold_reissues();
    let reissues = world.counts().reissues;
    let rejected = tokio::spawn(is_ready(&mut kept).await.call(get("/rejected")));
    world.until(|it| it.reissues == reissues + 1).await;
    let held = tokio::spawn(is_ready(&mut kept).await.call(get("/held")));
    let cloned = tokio::spawn(kept.clone().oneshot(get("/held")));
    settle_down().await;
    world.release_reissues();
    for sent in [held, rejected] {
        let answer = within(sent).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let answer = within(cloned).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    // The second send is rejected as well, then the token is too fresh to be replaced.
    world.expire();
    world.script(Script::DeadToken);
    for _ in 0..2 {
        let service = is_ready(&mut kept).await;
        drop(within(service.call(get("/over"))).await);
    }
    // Then no token is left.
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    world.script(Script::Refuse);
    for _ in 0..2 {
        let service = is_ready(&mut kept).await;
        drop(within(service.call(get("/over"))).await);
    }
    assert!(!session.status().is_logged_in());
    let log = log.lock().unwrap();
    assert_eq!(log.calls_without_readiness, 0, "{log:?}");
    assert_eq!(log.calls, world.counts().requests, "{log:?}");
}

// shows P14: what is ready and not called gives its place back; its clone has none.
#[tokio::test]
async fn a_service_that_is_dropped_when_it_is_ready_gives_its_place_back() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let mut ready = ServiceBuilder::new()
        .layer(layer(&session))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(world.api());
    is_ready(&mut ready).await;
    let clone = ready.clone();
    let mut next = task::spawn(until_ready(clone));
    assert_pending!(next.poll());
    drop(ready);
    assert_ready!(next.poll());
    assert_eq!(world.counts().requests, 0);
}

// shows P3, P14: one that is dropped while its replay stands in the queue leaves the queue.
#[tokio::test]
async fn a_replay_that_is_dropped_while_it_waits_for_a_place_takes_none() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let service = ServiceBuilder::new()
        .layer(layer(&session))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(world.api());
    world.expire();
    world.hold_reissues();
    let mut dropped = Box::pin(service.clone().oneshot(get("/dropped")));
    let reissued = world.until(|counts| counts.reissues == 1);
    tokio::select! {
        _ = &mut dropped => panic!("nobody has answered"),
        () = reissued => {}
    }
    // Another takes the place and keeps it, so that the replay has to queue.
    world.hold_answers();
    let other = tokio::spawn(service.clone().oneshot(without_token()));
    world.until(|counts| counts.requests == 2).await;
    world.release_reissues();
    assert!(support::poll_then_drop(dropped, 100).await.is_none());
    let next = tokio::spawn(service.oneshot(get("/next")));
    world.release_answers(2);
    for sent in [other, next] {
        within(sent).await.unwrap().unwrap();
    }
    let paths: Vec<_> = world.seen().into_iter().map(|it| it.uri).collect();
    let paths: Vec<_> = paths.iter().map(|uri| uri.path()).collect();
    assert_eq!(paths, ["/dropped", "/public", "/next"]);
}

/// Has one place, which is free again when the response's body is read to its end or dropped.
struct OnePlace<S> {
    inner: S,
    places: Arc<Semaphore>,
    waiting: Option<Waiting>,
    place: Option<OwnedSemaphorePermit>,
}

type Waiting = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

impl<S> OnePlace<S> {
    fn new(inner: S) -> Self {
        let places = Arc::new(Semaphore::new(1));
        let (waiting, place) = (None, None);
        Self {
            inner,
            places,
            waiting,
            place,
        }
    }
}

impl<S: Clone> Clone for OnePlace<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            places: self.places.clone(),
            waiting: None,
            place: None,
        }
    }
}

impl<S, R, B> Service<R> for OnePlace<S>
where
    S: Service<R, Response = Response<B>>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<MapFrame<B, Occupied>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.place.is_none() {
            let places = &self.places;
            let waiting = self
                .waiting
                .get_or_insert_with(|| Box::pin(places.clone().acquire_owned()));
            self.place = ready!(waiting.as_mut().poll(cx)).ok();
            self.waiting = None;
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let place = self.place.take().expect("called without readiness");
        let response = self.inner.call(request);
        Box::pin(async move {
            let occupied: Occupied = Box::new(move |frame| {
                let _place = &place;
                frame
            });
            Ok(response.await?.map(|body| body.map_frame(occupied)))
        })
    }
}

/// Passes frames on, and keeps a place as long as it is there.
type Occupied = Box<dyn FnMut(http_body::Frame<Bytes>) -> http_body::Frame<Bytes> + Send>;

// shows B116, B118, P14: the rejection gives its place to its own replay, looked into or not.
#[tokio::test]
async fn a_place_that_the_first_response_holds_is_free_for_the_replay() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let inner = OnePlace::new(world.api());
    let plain = layer(&session).layer(inner.clone());
    let codes = ErrorCodes::json("/code")
        .expired("T-002")
        .or(DefaultClassifier);
    let looking = layer(&session).classify(codes).layer(inner.clone());
    world.expire();
    let crowd = (0..3).map(|_| plain.clone().oneshot(get("/items")).and_then(read));
    for answer in within(join_all(crowd)).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    world.expire();
    let crowd = (0..3).map(|_| looking.clone().oneshot(get("/items")).and_then(read));
    for answer in within(join_all(crowd)).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    // The answer that the caller gets holds it as long as it is there.
    let answer = within(plain.oneshot(get("/items"))).await.unwrap();
    let mut next = task::spawn(until_ready(inner));
    assert_pending!(next.poll());
    drop(answer);
    assert_ready!(next.poll());
}

// shows P10: what is too large to be read goes to the caller, who holds the place then; nobody hangs.
#[tokio::test]
async fn a_rejection_that_is_not_read_keeps_its_place_and_is_not_sent_again() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let inner = OnePlace::new(world.api());
    let service = layer(&session)
        .response_limit(4, Duration::from_secs(60))
        .layer(inner);
    world.expire();
    let answer = within(service.clone().oneshot(get("/items")))
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let why: &RefreshError = answer.extensions().get().unwrap();
    assert!(why.is_not_replayed());
    let mut next = task::spawn(service.oneshot(get("/items")));
    assert_pending!(next.poll());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "the server's own words");
    assert_eq!(within(next).await.unwrap().status(), StatusCode::OK);
}

type Mocked = TokenRefresh<mock::Mock<Sent, Received>, Session, DefaultClassifier>;
type Handle = mock::Handle<Sent, Received>;
type Sending =
    ResponseFuture<mock::Mock<Sent, Received>, DefaultClassifier, Full<Bytes>, Full<Bytes>>;

fn mocked(session: &Session) -> (Mocked, Handle) {
    let (inner, handle) = mock::pair();
    (layer(session).layer(inner), handle)
}

/// A request that was rejected, and whose refresh is done: only readiness is missing for the replay.
async fn rejected(service: &mut Mocked, handle: &mut Handle) -> task::Spawn<Sending> {
    let mut future = sent(service, handle);
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.headers()[AUTHORIZATION], "Bearer a-u-1");
    respond.send_response(rejection());
    assert_pending!(future.poll());
    settle_down().await;
    assert_pending!(future.poll(), "the mock lets nobody through yet");
    future
}

/// The mock lets one through, and this is it.
fn sent(service: &mut Mocked, handle: &mut Handle) -> task::Spawn<Sending> {
    handle.allow(1);
    let mut ready = task::spawn(is_ready(service));
    let future = assert_ready!(ready.poll()).call(get("/"));
    let mut future = task::spawn(future);
    assert_pending!(future.poll());
    future
}

async fn welcome(handle: &mut Handle) {
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.headers()[AUTHORIZATION], "Bearer a-u-2");
    respond.send_response(Response::new(Full::default()));
}

// shows B118
#[tokio::test]
async fn readiness_is_asked_again_for_the_replay() {
    let session = World::new().logged_in("u").await;
    let (mut service, mut handle) = mocked(&session);
    let mut future = rejected(&mut service, &mut handle).await;
    handle.allow(1);
    assert!(future.is_woken());
    assert_pending!(future.poll());
    welcome(&mut handle).await;
    let answer = assert_ready!(future.poll()).unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

// shows B45, B118
#[tokio::test]
async fn while_one_replay_waits_for_readiness_other_requests_go_on() {
    let session = World::new().logged_in("u").await;
    let (mut service, mut handle) = mocked(&session);
    let mut waits = rejected(&mut service, &mut handle).await;
    for _ in 0..10 {
        let mut other = sent(&mut service, &mut handle);
        assert_pending!(waits.poll());
        welcome(&mut handle).await;
        let answer = assert_ready!(other.poll()).unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    handle.allow(1);
    assert_pending!(waits.poll());
    welcome(&mut handle).await;
    let answer = assert_ready!(waits.poll()).unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn errors_of_readiness_are_passed_on() {
    let session = World::new().logged_in("u").await;
    let (mut service, mut handle) = mocked(&session);
    handle.send_error("closed");
    let error = ServiceExt::<Asked>::ready(&mut service).await.map(|_| ());
    assert_eq!(error.unwrap_err().to_string(), "closed");
}

// shows P10: nothing was sent, so there is nothing else to tell.
#[tokio::test]
async fn when_the_service_is_not_ready_for_a_request_that_waited_its_error_is_passed_on() {
    let world = World::new();
    let (store, session) = world.stored(Some(world.tokens("u")));
    let (mut service, mut handle) = mocked(&session);
    store.hold_loads();
    let mut future = sent(&mut service, &mut handle);
    store.loads.add_permits(1);
    settle_down().await;
    handle.send_error("closed");
    let error = assert_ready!(future.poll()).unwrap_err();
    assert_eq!(error.to_string(), "closed");
}

// shows P10: a rejection is not swallowed because the service below can take no second request.
#[tokio::test]
async fn when_the_service_is_not_ready_for_the_replay_the_rejection_is_returned() {
    let session = World::new().logged_in("u").await;
    let (mut service, mut handle) = mocked(&session);
    let mut future = rejected(&mut service, &mut handle).await;
    handle.send_error("closed");
    let answer = assert_ready!(future.poll()).unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let why: &RefreshError = answer.extensions().get().unwrap();
    assert!(why.is_not_replayed());
    assert_eq!(why.source().unwrap().to_string(), "closed");
}

// shows P8 at the last moment: a logout while the replay waits for its place.
#[tokio::test]
async fn a_logout_while_the_replay_waits_for_readiness_is_seen() {
    let session = World::new().logged_in("u").await;
    let (mut service, mut handle) = mocked(&session);
    let mut future = rejected(&mut service, &mut handle).await;
    session.logout().await.unwrap();
    handle.allow(1);
    let answer = assert_ready!(future.poll()).unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let why: &RefreshError = answer.extensions().get().unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::LoggedOut));
    assert_eq!(session.stats().replays, 0);
}
