//! A small world to test in: an issuer that ends a login when a refresh token is used twice, and an
//! API that knows which access tokens are good. Both are scripted by the test and keep a log.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::mpsc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower_token_refresh::BoxError;
use tower_token_refresh::RefreshError;
use tower_token_refresh::RefreshToken;
use tower_token_refresh::Reissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReissueRequest;
use tower_token_refresh::Session;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::TokenStore;
use tower_token_refresh::reissue_fn;

pub const ORIGIN: &str = "https://api.test";

/// What the issuer answers next, in place of new tokens.
pub enum Script {
    Refuse,
    Transient,
    TransientAfter(Duration),
    Misconfigured,
    Unknown,
    /// It is processed, and the answer is lost.
    Lost,
    /// It is processed, and there is never an answer.
    LostAndHang,
    /// It was not processed, and the answer is of no use but for a new refresh token.
    OnlyRotated(&'static str),
    Panic,
    Hang,
    /// The access token that it was asked to replace.
    SameToken,
    /// A token that the API does not take.
    DeadToken,
    /// Tokens that expire after this long.
    ExpiresIn(Duration),
}

/// A request as the API saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub token: Option<String>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub reissues: usize,
    pub reuses: usize,
    pub requests: usize,
    pub rejections: usize,
}

#[derive(Default)]
struct Facts {
    serial: u64,
    good: HashSet<String>,
    used: HashSet<String>,
    revoked: HashSet<String>,
    /// For so long a lost answer is given again to whoever presents the same refresh token.
    grace: Duration,
    lost: HashMap<String, (TokenSet, Instant)>,
    scripts: VecDeque<Script>,
    seen: Vec<Seen>,
}

impl Facts {
    fn once_more(&self, refresh_token: &str) -> Option<TokenSet> {
        let (tokens, at) = self.lost.get(refresh_token)?;
        (at.elapsed() < self.grace).then(|| tokens.clone())
    }
}

#[derive(Clone)]
pub struct World {
    facts: Arc<Mutex<Facts>>,
    counts: Arc<watch::Sender<Counts>>,
    /// A reissue takes one permit; there are plenty unless the test holds them.
    reissues: Arc<Semaphore>,
    /// The same for the API's answers.
    answers: Arc<Semaphore>,
    _limit: Arc<Limit>,
}

impl World {
    pub fn new() -> Self {
        Self {
            facts: Arc::default(),
            counts: Arc::new(watch::Sender::new(Counts::default())),
            reissues: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            answers: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            _limit: Limit::new(),
        }
    }

    /// A login of this user: tokens that are good.
    pub fn tokens(&self, user: &str) -> TokenSet {
        let mut facts = self.lock();
        facts.serial += 1;
        let (access, refresh) = (
            format!("a-{user}-{}", facts.serial),
            format!("r-{user}-{}", facts.serial),
        );
        facts.good.insert(access.clone());
        facts.revoked.remove(user);
        TokenSet::new(access)
            .unwrap()
            .with_refresh_token(refresh)
            .unwrap()
    }

    /// From now on no access token of before is good.
    pub fn expire(&self) {
        self.lock().good.clear();
    }

    pub fn script(&self, script: Script) {
        self.lock().scripts.push_back(script);
    }

    /// From now on the issuer has a grace window.
    pub fn grace(&self, window: Duration) {
        self.lock().grace = window;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// So often the issuer was asked, and never with a token that was used.
    #[track_caller]
    pub fn has_reissued(&self, times: usize) {
        let counts = self.counts();
        assert_eq!((counts.reissues, counts.reuses), (times, 0));
    }

    /// Waits until the counts are as the test wants them.
    #[track_caller]
    pub fn until(&self, condition: impl FnMut(&Counts) -> bool) -> impl Future<Output = ()> {
        let mut counts = self.counts.subscribe();
        within(async move { drop(counts.wait_for(condition).await.unwrap()) })
    }

    /// Reissues are received, and not answered until [`Self::release_reissues`].
    pub fn hold_reissues(&self) {
        self.reissues.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_reissues(&self) {
        self.reissues.add_permits(1 << 20);
    }

    /// So many of them are answered.
    pub fn answer_reissues(&self, n: usize) {
        self.reissues.add_permits(n);
    }

    pub fn hold_answers(&self) {
        self.answers.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_answers(&self, n: usize) {
        self.answers.add_permits(n);
    }

    pub fn reissue(&self) -> impl Reissue {
        let world = self.clone();
        reissue_fn(move |request| {
            let world = world.clone();
            async move { world.answer_reissue(request).await }
        })
    }

    pub fn builder(&self) -> SessionBuilder {
        Session::builder(self.reissue())
    }

    pub fn session(&self) -> Session {
        self.builder().build().unwrap()
    }

    /// A session that is logged in, and the tokens it is logged in with.
    pub async fn logged_in(&self, user: &str) -> Session {
        let session = self.session();
        session.login(self.tokens(user)).await.unwrap();
        session
    }

    /// A session whose store holds this.
    pub fn stored(&self, tokens: Option<TokenSet>) -> (Store, Session) {
        let store = Store::new(tokens);
        let builder = self.builder().store(store.clone());
        (store, builder.build().unwrap())
    }

    /// A session that is logged in, and its store.
    pub async fn logged_in_and_stored(&self, user: &str) -> (Store, Session) {
        let (store, session) = self.stored(None);
        session.login(self.tokens(user)).await.unwrap();
        (store, session)
    }

    /// A client with the layer.
    pub fn client(&self, session: &Session) -> Client {
        let layer = TokenRefreshLayer::new(ORIGIN, session.clone()).unwrap();
        Client::new(layer.layer(self.api()))
    }

    pub fn api(&self) -> Api {
        Api {
            world: self.clone(),
            ready: false,
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    async fn answer_reissue(&self, request: ReissueRequest) -> Result<TokenSet, ReissueError> {
        self.count(|counts| counts.reissues += 1);
        let script = self.lock().scripts.pop_front();
        let old = request.access_token().unwrap().expose().to_owned();
        let refresh = request.refresh_token().unwrap().expose().to_owned();
        self.reissues.acquire().await.unwrap().forget();
        let user = refresh.split('-').nth(1).unwrap().to_owned();
        match script {
            Some(Script::Refuse) => return Err(ReissueError::refused("scripted")),
            Some(Script::Transient) => return Err(ReissueError::transient("scripted")),
            Some(Script::TransientAfter(delay)) => {
                return Err(ReissueError::transient("scripted").with_retry_after(delay));
            }
            Some(Script::Misconfigured) => return Err(ReissueError::misconfigured("scripted")),
            Some(Script::Unknown) => return Err(ReissueError::unknown("scripted")),
            Some(Script::OnlyRotated(token)) => {
                let token = RefreshToken::new(token).unwrap();
                return Err(ReissueError::unknown("scripted").with_refresh_token(token));
            }
            Some(Script::Panic) => panic!("scripted"),
            Some(Script::Hang) => return std::future::pending().await,
            Some(Script::SameToken) => return Ok(TokenSet::new(old).unwrap()),
            _ => {}
        }
        if let Some(tokens) = self.lock().once_more(&refresh) {
            return Ok(tokens);
        }
        let reused = !self.lock().used.insert(refresh.clone());
        if reused || self.lock().revoked.contains(&user) {
            self.count(|counts| counts.reuses += 1);
            self.lock().revoked.insert(user);
            return Err(ReissueError::refused("used twice"));
        }
        let tokens = self.tokens(&user);
        Ok(match script {
            Some(lost @ (Script::Lost | Script::LostAndHang)) => {
                let answer = (tokens, Instant::now());
                self.lock().lost.insert(refresh, answer);
                return match lost {
                    Script::Lost => Err(ReissueError::unknown("scripted")),
                    _ => std::future::pending().await,
                };
            }
            Some(Script::DeadToken) => {
                self.lock().good.remove(tokens.access_token().expose());
                tokens
            }
            Some(Script::ExpiresIn(lifetime)) => tokens.with_expires_in(lifetime),
            _ => tokens,
        })
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Response<Full<Bytes>>, BoxError>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let header = head.headers.get("authorization");
        let token = header.map(|value| {
            value
                .to_str()
                .unwrap()
                .trim_start_matches("Bearer ")
                .to_owned()
        });
        let good = token
            .as_ref()
            .is_some_and(|token| self.lock().good.contains(token));
        let body = body
            .collect()
            .await
            .map_err(Into::into)?
            .to_bytes()
            .to_vec();
        let seen = Seen {
            method: head.method,
            uri: head.uri,
            token: token.clone(),
            body: body.clone(),
        };
        self.lock().seen.push(seen);
        self.count(|counts| {
            counts.requests += 1;
            counts.rejections += usize::from(!good);
        });
        self.answers.acquire().await?.forget();
        let user = token
            .unwrap_or_default()
            .split('-')
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        let answer = match good {
            true => Response::builder().header("x-user", user).body(body.into()),
            false => Response::builder()
                .status(401)
                .body("the server's own words".into()),
        };
        Ok(answer?)
    }
}

/// A client's inner service: the API. It insists on being asked for readiness before each call.
pub struct Api {
    world: World,
    ready: bool,
}

impl Clone for Api {
    fn clone(&self) -> Self {
        Self {
            world: self.world.clone(),
            ready: false,
        }
    }
}

impl<B> Service<Request<B>> for Api
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without readiness");
        let world = self.world.clone();
        Box::pin(async move { world.answer(request).await })
    }
}

/// What the caller gets, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub user: String,
    pub body: String,
    pub why: Option<RefreshError>,
}

type Sending = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

/// A client that sends text and gets text.
#[derive(Clone)]
pub struct Client {
    send: Arc<dyn Fn(Request<Full<Bytes>>) -> Sending + Send + Sync>,
}

impl Client {
    pub fn new<S, R>(service: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        R: Body + Send + 'static,
        R::Data: Send,
        R::Error: Into<BoxError>,
    {
        let send = move |request| -> Sending {
            let service = service.clone();
            Box::pin(async move {
                let response = service.oneshot(request).await.map_err(Into::into)?;
                read(response).await
            })
        };
        Self {
            send: Arc::new(send),
        }
    }

    pub fn send(&self, request: Request<Full<Bytes>>) -> Sending {
        (self.send)(request)
    }

    pub fn get(&self) -> Sending {
        self.send(get("/items"))
    }
}

pub async fn read<R>(response: Response<R>) -> Result<Answer, BoxError>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    let user = head
        .headers
        .get("x-user")
        .map(|user| user.to_str().unwrap().to_owned());
    Ok(Answer {
        status: head.status,
        user: user.unwrap_or_default(),
        body: String::from_utf8(body.to_vec())?,
        why: head.extensions.get().cloned(),
    })
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("{ORIGIN}{path}"))
        .body(Full::default())
        .unwrap()
}

pub fn post(path: &str, body: &str) -> Request<Full<Bytes>> {
    let body = Full::from(body.to_owned());
    Request::post(format!("{ORIGIN}{path}")).body(body).unwrap()
}

/// Logs in meanwhile.
pub fn log_in(session: &Session, tokens: TokenSet) -> JoinHandle<Result<(), RefreshError>> {
    let session = session.clone();
    tokio::spawn(async move { session.login(tokens).await })
}

/// The refresh error in a failure of the service itself.
pub fn refresh_error(error: &BoxError) -> &RefreshError {
    error
        .downcast_ref()
        .unwrap_or_else(|| panic!("no RefreshError: {error}"))
}

/// The longest that a test may take which has a [`World`], with all that goes on in it.
const LONGEST: Duration = Duration::from_secs(20 * 60);

/// As long as it is there, time runs. Whatever a test waits for, a task or a lock or a thread, it has an end:
/// then the process is ended, by the name of the test.
struct Limit(#[expect(dead_code, reason = "its end is what is heard")] mpsc::Sender<()>);

impl Limit {
    fn new() -> Arc<Self> {
        let (is_over, over) = mpsc::channel();
        let current = std::thread::current();
        let test = current.name().unwrap_or("a test").to_owned();
        std::thread::spawn(move || {
            if over.recv_timeout(LONGEST) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{test} has hung for {LONGEST:?}");
                std::process::exit(101);
            }
        });
        Arc::new(Self(is_over))
    }
}

/// More than anything takes that happens at all.
const HANG: Duration = Duration::from_secs(120);

/// Waits for what is to happen, and fails the test where it does not. By the clock on the wall, which nobody
/// pauses: in a test that does, time passes for the code and not for this.
#[track_caller]
pub fn within<F: Future>(wait: F) -> impl Future<Output = F::Output> {
    let place = Location::caller();
    async move {
        // The thread ends when there is nobody left to tell.
        let (is_over, over) = mpsc::channel::<()>();
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            if over.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = tell.send(());
            }
        });
        let output = tokio::select! {
            biased;
            output = wait => output,
            Ok(()) = told => panic!("what is waited for does not happen: {place}"),
        };
        drop(is_over);
        output
    }
}

/// Waits until so many wait for a refresh.
#[track_caller]
pub fn until_waiting(session: &Session, n: usize) -> impl Future<Output = ()> {
    within(async move {
        while session.stats().waiters != n {
            tokio::task::yield_now().await;
        }
    })
}

/// Polls `future` at most `polls` times, lets everything else run in between, then drops it.
pub async fn poll_then_drop<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Lets every task that can run do so. For current-thread runtimes.
pub async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A store that the test can make fail, hold and look into.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<StoreState>>,
    /// A write takes one permit.
    pub writes: Arc<Semaphore>,
    pub loads: Arc<Semaphore>,
    pub written: Arc<watch::Sender<usize>>,
    pub loaded: Arc<watch::Sender<usize>>,
}

#[derive(Default)]
struct StoreState {
    tokens: Option<TokenSet>,
    fail_writes: bool,
    fail_loads: bool,
    panic: bool,
}

impl Store {
    pub fn new(tokens: Option<TokenSet>) -> Self {
        let state = StoreState {
            tokens,
            ..StoreState::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            writes: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            loads: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            written: Arc::new(watch::Sender::new(0)),
            loaded: Arc::new(watch::Sender::new(0)),
        }
    }

    pub fn fail_writes(&self, fail: bool) {
        self.state.lock().unwrap().fail_writes = fail;
    }

    pub fn fail_loads(&self, fail: bool) {
        self.state.lock().unwrap().fail_loads = fail;
    }

    pub fn panic(&self, panic: bool) {
        self.state.lock().unwrap().panic = panic;
    }

    pub fn hold_writes(&self) {
        self.writes.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn hold_loads(&self) {
        self.loads.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Waits until so many writes have begun.
    #[track_caller]
    pub fn until_written(&self, n: usize) -> impl Future<Output = ()> {
        let mut written = self.written.subscribe();
        within(async move { drop(written.wait_for(|written| *written == n).await.unwrap()) })
    }

    /// The same of reads.
    #[track_caller]
    pub fn until_loaded(&self, n: usize) -> impl Future<Output = ()> {
        let mut loaded = self.loaded.subscribe();
        within(async move { drop(loaded.wait_for(|loaded| *loaded == n).await.unwrap()) })
    }

    /// Somebody else writes into it.
    pub fn put(&self, tokens: Option<TokenSet>) {
        self.state.lock().unwrap().tokens = tokens;
    }

    pub fn tokens(&self) -> Option<TokenSet> {
        self.state.lock().unwrap().tokens.clone()
    }

    pub fn access_token(&self) -> Option<String> {
        Some(self.tokens()?.access_token().expose().to_owned())
    }

    async fn write(&self, tokens: Option<TokenSet>) -> Result<(), BoxError> {
        self.written.send_modify(|n| *n += 1);
        self.writes.acquire().await?.forget();
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.panic {
            drop(state);
            panic!("scripted");
        }
        if state.fail_writes {
            return Err("scripted".into());
        }
        state.tokens = tokens;
        Ok(())
    }
}

impl TokenStore for Store {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        self.loaded.send_modify(|n| *n += 1);
        self.loads.acquire().await?.forget();
        let state = self.state.lock().unwrap();
        match state.fail_loads {
            true => Err("scripted".into()),
            false => Ok(state.tokens.clone()),
        }
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
        self.write(Some(tokens.clone())).await
    }

    async fn clear(&self) -> Result<(), BoxError> {
        self.write(None).await
    }
}
