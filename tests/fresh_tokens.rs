//! Shows over real connections that a fresh token which is rejected is first of all a fresh token, and
//! that an address which rejects every token costs few reissues and holds nobody else up (P2, P5, P9).
//!
//! No clock decides here: the server knows a token, or does not, as the test says. The sessions may make
//! so few reissues in an hour that the pauses make no difference either, however slow the machine is;
//! how long they are is shown in the tests of the rules.

#[path = "support/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use server::Server;
use server::hyper_client;
use server::token;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tower::Layer;
use tower::ServiceExt;
use tower_token_refresh::Classify;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::MemoryStore;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::TokenRefresh;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

type Http = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// Nothing takes as long, so that no test can hang.
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// How many reissues a session may make in an hour. Half of them are left for a token that has died.
const MOST: u32 = 4;

/// An issuer and an API. The tokens are t0, t1 and so on.
#[derive(Clone)]
struct World {
    /// The API knows the tokens from the first of these to before the last.
    known: Arc<(AtomicU64, AtomicU64)>,
    reissues: Arc<watch::Sender<u64>>,
    /// A reissue takes one permit.
    issuer: Arc<Semaphore>,
    /// So does the answer to a request for `/slow`.
    slow: Arc<Semaphore>,
    asked_slowly: Arc<watch::Sender<u64>>,
    /// What the issuer says of the lifetime of its tokens.
    stated: Option<Duration>,
}

impl World {
    fn new() -> Self {
        Self {
            known: Arc::new((AtomicU64::new(0), AtomicU64::new(u64::MAX))),
            reissues: Arc::default(),
            issuer: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            slow: Arc::new(Semaphore::new(0)),
            asked_slowly: Arc::default(),
            stated: None,
        }
    }

    /// All tokens that were issued so far die.
    fn expire(&self) {
        self.known.0.store(self.reissues() + 1, Ordering::SeqCst);
    }

    /// The API has not heard of this token, nor of those after it.
    fn know_only_before(&self, number: u64) {
        self.known.1.store(number, Ordering::SeqCst);
    }

    fn reissues(&self) -> u64 {
        *self.reissues.borrow()
    }

    async fn until_reissues(&self, number: u64) {
        let mut reissues = self.reissues.subscribe();
        within(reissues.wait_for(|it| *it >= number)).await.unwrap();
    }

    fn hold_reissues(&self) {
        self.issuer.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn release_reissues(&self) {
        self.issuer.add_permits(1 << 20);
    }

    fn builder(&self) -> SessionBuilder {
        let world = self.clone();
        let reissue = reissue_fn(move |_| {
            let world = world.clone();
            async move {
                let mut number = 0;
                world.reissues.send_modify(|it| {
                    *it += 1;
                    number = *it;
                });
                world.issuer.acquire().await.unwrap().forget();
                let tokens = TokenSet::new(format!("t{number}")).unwrap();
                Ok(match world.stated {
                    Some(lifetime) => tokens.with_expires_in(lifetime),
                    None => tokens,
                })
            }
        });
        Session::builder(reissue).reissue_limit(MOST, HOUR)
    }

    async fn log_in(&self, builder: SessionBuilder) -> Session {
        let session = builder.build().unwrap();
        let tokens = TokenSet::new("t0").unwrap();
        let tokens = tokens.with_refresh_token("refresh").unwrap();
        session.login(tokens).await.unwrap();
        session
    }

    async fn serve(&self) -> Server {
        let world = self.clone();
        Server::start(move |request| {
            let (token, path) = (token(&request), request.uri().path().to_owned());
            let world = world.clone();
            async move { world.answer(&token, &path).await }
        })
        .await
    }

    async fn answer(&self, token: &str, path: &str) -> Response<Full<Bytes>> {
        let number: u64 = token.strip_prefix('t').unwrap().parse().unwrap();
        if path == "/slow" && number == 0 {
            self.asked_slowly.send_modify(|it| *it += 1);
            self.slow.acquire().await.unwrap().forget();
        }
        let (from, before) = (&self.known.0, &self.known.1);
        let known = from.load(Ordering::SeqCst)..before.load(Ordering::SeqCst);
        let is_good = known.contains(&number) && !path.starts_with("/bad");
        let mut answer = Response::new(Full::from("words"));
        if !is_good {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
        }
        answer
    }
}

/// A session, the layer and a hyper client.
#[derive(Clone)]
struct Caller<C = DefaultClassifier> {
    base: String,
    session: Session,
    service: TokenRefresh<Http, Session, C>,
}

impl Caller {
    fn new(server: &Server, session: Session) -> Self {
        let layer = TokenRefreshLayer::new(&*server.base, session.clone()).unwrap();
        Self {
            base: server.base.clone(),
            session,
            service: layer.layer(hyper_client(false)),
        }
    }
}

impl<C: Classify + Clone + Send + Sync + 'static> Caller<C> {
    async fn get(&self, path: &str) -> (StatusCode, Option<RefreshError>) {
        let (head, body) = self.send(path).await.into_parts();
        assert_eq!(body, "words", "whole");
        (head.status, head.extensions.get().cloned())
    }

    async fn send(&self, path: &str) -> Response<Bytes> {
        let request = Request::get(format!("{}{path}", self.base));
        let request = request.body(Full::default()).unwrap();
        let answer = within(self.service.clone().oneshot(request)).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = within(body.collect()).await.unwrap();
        Response::from_parts(head, body.to_bytes())
    }

    async fn is_ok(&self, path: &str) {
        let (status, why) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {why:?}");
        assert!(why.is_none());
    }

    async fn is_rejected(&self, path: &str) -> RefreshError {
        let (status, why) = self.get(path).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        why.expect("a reason")
    }
}

async fn scene(world: &World) -> (Server, Caller) {
    let session = world.log_in(world.builder()).await;
    let server = world.serve().await;
    let caller = Caller::new(&server, session);
    (server, caller)
}

async fn within<F: Future>(future: F) -> F::Output {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.expect("it hangs")
}

// shows P2, P5: it was two reissues per bad call, and the healthy request waited for the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_always_rejects_costs_few_reissues_beside_one_that_is_healthy() {
    let world = World::new();
    let (_server, caller) = scene(&world).await;
    caller.is_ok("/good").await;
    assert!(caller.is_rejected("/bad").await.is_not_replayed());
    let mut not_cured = 0;
    for n in 0..50 {
        caller.is_ok("/good").await;
        let why = caller.is_rejected(&format!("/bad?n={n}")).await;
        not_cured += u64::from(why.is_not_cured());
        assert!(why.is_not_cured() || why.is_not_replayed(), "{why:?}");
        assert!(!why.is_transient(), "to try again does not help");
    }
    let reissues = world.reissues();
    assert!(reissues <= 2, "{reissues}");
    assert_eq!(not_cured, 51 - reissues);
    assert_eq!(caller.session.stats().failures.other, 0);
}

// shows P2, P14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_request_never_waits_for_a_refresh_that_a_bad_endpoint_has_caused() {
    let world = World::new();
    let (_server, caller) = scene(&world).await;
    caller.is_rejected("/bad").await;
    caller.is_ok("/good").await;
    assert_eq!(world.reissues(), 1);
    world.hold_reissues();
    let bad = tokio::spawn({
        let caller = caller.clone();
        async move { caller.is_rejected("/bad/other").await }
    });
    world.until_reissues(2).await;
    for _ in 0..20 {
        caller.is_ok("/good").await;
    }
    assert!(!bad.is_finished());
    assert_eq!(
        caller.session.stats().waiters,
        1,
        "the one that was rejected"
    );
    world.release_reissues();
    assert!(within(bad).await.unwrap().is_not_replayed());
    caller.is_ok("/good").await;
    assert_eq!(world.reissues(), 2);
}

// shows P2: nor does it wait where the refresh for the bad endpoint has failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_bad_endpoints_leaves_the_healthy_ones_alone() {
    let world = World::new();
    let (_server, caller) = scene(&world).await;
    caller.is_ok("/good").await;
    for n in 0..100 {
        let why = caller.is_rejected(&format!("/bad/{n}")).await;
        let is_limit = why.is_reissue_limit();
        assert!(
            is_limit || why.is_not_replayed() || why.is_not_cured(),
            "{why:?}"
        );
        caller.is_ok("/good").await;
    }
    assert!(world.reissues() <= u64::from(MOST));
    assert_eq!(world.reissues(), caller.session.stats().replays);
}

// shows P2: it was three reissues in the first wave, and five in all, each of which replaced a token that
// was about to work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_learns_of_a_token_late_costs_no_more_than_two_reissues() {
    let world = World::new();
    let (_server, caller) = scene(&world).await;
    caller.is_ok("/items").await;
    world.expire();
    world.know_only_before(1);
    for number in 0..4 {
        let paths: Vec<_> = (0..50).map(|n| format!("/items/{}", n % 5)).collect();
        for why in join_all(paths.iter().map(|path| caller.is_rejected(path))).await {
            let is_told = why.is_too_fresh() || why.is_not_replayed();
            assert!(is_told, "wave {number}: {why:?}");
        }
    }
    world.know_only_before(u64::MAX);
    for _ in 0..2 {
        let paths: Vec<_> = (0..50).map(|n| format!("/items/{}", n % 5)).collect();
        join_all(paths.iter().map(|path| caller.is_ok(path))).await;
    }
    let reissues = world.reissues();
    assert!((1..=2).contains(&reissues), "{reissues}");
}

// shows P2: the same for a pair that another session has fetched a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_another_session_has_just_fetched_is_too_fresh_as_well() {
    let world = World::new();
    let server = world.serve().await;
    let store = Arc::new(MemoryStore::new());
    let builder = || world.builder().shared_store(store.clone());
    let one = Caller::new(&server, world.log_in(builder()).await);
    let other = Caller::new(&server, builder().build().unwrap());
    one.is_ok("/items").await;
    other.is_ok("/items").await;
    world.expire();
    world.know_only_before(1);
    let mut status = other.session.subscribe();
    assert!(one.is_rejected("/items").await.is_not_replayed());
    let is_adopted = |it: &SessionStatus| matches!(it, SessionStatus::LoggedIn { generation, .. } if *generation > 1);
    within(status.wait_for(is_adopted)).await.unwrap();
    for _ in 0..10 {
        for caller in [&one, &other] {
            let why = caller.is_rejected("/items").await;
            assert!(why.is_too_fresh() || why.is_not_replayed(), "{why:?}");
        }
    }
    world.know_only_before(u64::MAX);
    one.is_ok("/items").await;
    other.is_ok("/items").await;
    let reissues = world.reissues();
    assert!((1..=2).contains(&reissues), "{reissues}");
}

// shows P1, P2: whether its lifetime is stated or not, and beside a bad endpoint too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_has_died_is_replaced_at_once() {
    for stated in [None, Some(Duration::from_secs(1)), Some(HOUR)] {
        for is_beside in [false, true] {
            let world = World {
                stated,
                ..World::new()
            };
            let builder = world.builder().reissue_limit(100, HOUR);
            let server = world.serve().await;
            let caller = Caller::new(&server, world.log_in(builder).await);
            for path in ["/a", "/a", "/b", "/b", "/a"] {
                if is_beside {
                    caller.is_rejected("/bad").await;
                }
                caller.is_ok(path).await;
                let reissues = world.reissues();
                world.expire();
                caller.is_ok(path).await;
                assert_eq!(world.reissues(), reissues + 1, "{stated:?} {is_beside}");
            }
        }
    }
}

// shows P2, B34
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_rejection_costs_no_reissue_and_is_not_held_against_its_address() {
    let world = World::new();
    let (_server, caller) = scene(&world).await;
    let late: Vec<_> = (0..10)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move { caller.is_ok("/slow").await })
        })
        .collect();
    let mut asked = world.asked_slowly.subscribe();
    within(asked.wait_for(|it| *it == 10)).await.unwrap();
    world.expire();
    caller.is_ok("/items").await;
    world.slow.add_permits(10);
    for late in late {
        within(late).await.unwrap();
    }
    assert_eq!(
        (world.reissues(), caller.session.stats().late_rejections),
        (1, 10)
    );
    world.expire();
    caller.is_ok("/slow").await;
    assert_eq!(world.reissues(), 2);
}

// shows B21: they ask for something else than a fresh token. It was five reissues for three requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_for_something_else_than_a_fresh_token_comes_back_untouched() {
    let challenges: [&[&str]; 6] = [
        &[r#"Bearer error="insufficient_claims", claims="eyJhIjoxfQ==""#],
        &[r#"Bearer error="insufficient_user_authentication", acr_values="mfa""#],
        &[r#"Bearer realm="api", error="insufficient_scope", scope="a b""#],
        &[
            r#"Basic realm="api", Bearer realm="", authorization_uri="https://login.example/common", error="insufficient_claims", claims="e30=""#,
        ],
        &[
            "Negotiate",
            "DPoP error=\"insufficient_claims\"",
            "Basic realm=x",
        ],
        &[r#"Bearer error="insufficient_claims", Bearer error="insufficient_scope", Newauth"#],
    ];
    for challenge in challenges {
        let world = World::new();
        let session = world.log_in(world.builder()).await;
        let server = Server::start(move |_: Request<hyper::body::Incoming>| async move {
            let mut answer = Response::new(Full::<Bytes>::from("words"));
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
            for value in challenge {
                let value = HeaderValue::from_static(value);
                answer.headers_mut().append(WWW_AUTHENTICATE, value);
            }
            answer
        })
        .await;
        let plain = Caller::new(&server, session.clone());
        let layer = TokenRefreshLayer::new(&*server.base, session).unwrap();
        let codes = ErrorCodes::json("/code").expired("T-002");
        let coded = Caller {
            base: plain.base.clone(),
            session: plain.session.clone(),
            service: layer
                .classify(codes.or(DefaultClassifier))
                .layer(hyper_client(false)),
        };
        for _ in 0..3 {
            for answer in [plain.send("/items").await, coded.send("/items").await] {
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
                let values = answer.headers().get_all(WWW_AUTHENTICATE);
                assert!(values.iter().eq(challenge), "{challenge:?}");
                assert!(answer.extensions().get::<RefreshError>().is_none());
                assert_eq!(answer.body(), "words");
            }
        }
        assert_eq!(world.reissues(), 0, "{challenge:?}");
    }
}

// shows P2: other paths, and the same path of another origin, are other addresses; another query is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_origin_and_path_without_the_query() {
    let world = World::new();
    let (server, caller) = scene(&world).await;
    let elsewhere = world.serve().await;
    let session = caller.session.clone();
    let layer = TokenRefreshLayer::new(&*server.base, session.clone()).unwrap();
    let both = Caller {
        base: elsewhere.base.clone(),
        session,
        service: layer
            .also(&*elsewhere.base)
            .unwrap()
            .layer(hyper_client(false)),
    };
    caller.is_rejected("/bad").await;
    caller.is_ok("/good").await;
    // Not paused: the token is refreshed for them, the second time for nothing else than the origin.
    assert!(both.is_rejected("/bad").await.is_not_replayed());
    assert_eq!(world.reissues(), 2);
    caller.is_ok("/good").await;
    for base in [&caller, &both] {
        let why = base.is_rejected("/bad?another=query").await;
        assert!(why.is_not_cured(), "{why:?}");
    }
    assert_eq!(world.reissues(), 2);
    assert!(caller.is_rejected("/bad/").await.is_not_replayed());
    assert_eq!(world.reissues(), 3);
}
