//! When what happened to each request: for the picture, and to know who was sent before whom.
//!
//! The caller gives each request a [`Life`] as an extension. Extensions are copied onto the replay, so
//! that [`Watch`], which sits below the layer and sees everything that is sent, finds the same one there.

use std::{
    collections::HashSet,
    future::Future,
    hash::{BuildHasher, Hash, RandomState},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{HeaderMap, Request, Response, StatusCode, header::AUTHORIZATION};
use tokio::{sync::watch, time::timeout};
use tower::Service;

/// The times of one request, shared by all who add to them.
#[derive(Clone, Default)]
pub struct Life(Arc<Mutex<Times>>);

#[derive(Clone, Default)]
pub struct Times {
    /// The caller handed it over …
    pub called: Option<Instant>,
    /// … and the layer had decided what it carries.
    pub admitted: Option<Instant>,
    /// How often the caller asked: once, unless they try again.
    pub tries: usize,
    /// At most two for each time.
    pub sends: Vec<Sent>,
    pub settled: Option<Instant>,
}

#[derive(Clone, Copy)]
pub struct Sent {
    pub at: Instant,
    pub answered: Option<(Instant, StatusCode)>,
}

impl Life {
    pub fn times(&self) -> Times {
        self.lock().clone()
    }

    pub fn called(&self) {
        let mut times = self.lock();
        times.called.get_or_insert_with(Instant::now);
        times.tries += 1;
    }

    pub fn admitted(&self) {
        self.lock().admitted = Some(Instant::now());
    }

    pub fn settled(&self) {
        self.lock().settled = Some(Instant::now());
    }

    fn sent(&self) {
        let at = Instant::now();
        let answered = None;
        self.lock().sends.push(Sent { at, answered });
    }

    fn answered(&self, status: StatusCode) {
        if let Some(send) = self.lock().sends.last_mut() {
            send.answered = Some((Instant::now(), status));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reissues of a round as the client saw them, and which tokens it has tried.
#[derive(Clone)]
pub struct Reissues(Arc<Shared>);

struct Shared {
    log: Mutex<Log>,
    steps: watch::Sender<Steps>,
    door: watch::Sender<Door>,
    /// Makes the marks worthless to others.
    key: RandomState,
}

#[derive(Default)]
struct Log {
    /// Those that were under way then say nothing of a later one.
    round: u64,
    reissues: Vec<Reissue>,
    presented: HashSet<u64>,
    rejected: HashSet<u64>,
    needless: u64,
}

#[derive(Clone, Copy)]
pub struct Reissue {
    pub begun: Instant,
    /// When its answer was there, or nobody waited for that any more.
    pub over: Option<Instant>,
    /// Of its answer.
    pub status: Option<StatusCode>,
}

impl Reissue {
    pub fn is_good(&self) -> bool {
        self.status.is_some_and(|status| status.is_success())
    }

    pub fn has_failed(&self) -> bool {
        self.status.is_some_and(|status| !status.is_success())
    }
}

/// What the client did in a round.
pub struct Seen {
    pub reissues: Vec<Reissue>,
    /// Different tokens that requests carried.
    pub presented: u64,
    /// Reissues that began when the token they replace had not been rejected.
    pub needless: u64,
}

#[derive(Clone, Copy, Default)]
struct Steps {
    begun: usize,
    /// Requests that have come to the closed door.
    waiting: usize,
}

/// Before the service of some requests: it can be closed for a while, as a limit of concurrency below the
/// layer would be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// Closes with the next answer of the issuer that brings a token.
    Closing,
    Closed,
}

impl Default for Reissues {
    fn default() -> Self {
        Self(Arc::new(Shared {
            log: Mutex::default(),
            steps: watch::Sender::default(),
            door: watch::Sender::new(Door::Open),
            key: RandomState::new(),
        }))
    }
}

impl Reissues {
    /// What was seen since the last time.
    pub fn take(&self) -> Seen {
        let mut log = self.lock();
        let round = log.round + 1;
        let Log {
            reissues,
            presented,
            needless,
            ..
        } = std::mem::replace(
            &mut *log,
            Log {
                round,
                ..Log::default()
            },
        );
        self.0.steps.send_replace(Steps::default());
        Seen {
            reissues,
            presented: presented.len() as u64,
            needless,
        }
    }

    /// The door closes with the next new token.
    pub fn close_door(&self) {
        self.0.door.send_replace(Door::Closing);
    }

    pub fn open_door(&self) {
        self.0.door.send_replace(Door::Open);
    }

    /// One has been sent. `false` when that takes longer than `limit`.
    pub async fn one_has_begun(&self, limit: Duration) -> bool {
        self.step(limit, |steps| steps.begun > 0).await
    }

    /// So many requests are at the closed door. `false` when that takes longer than `limit`.
    pub async fn are_at_door(&self, requests: usize, limit: Duration) -> bool {
        self.step(limit, |steps| steps.waiting >= requests).await
    }

    async fn step(&self, limit: Duration, is_reached: impl Fn(&Steps) -> bool) -> bool {
        let mut steps = self.0.steps.subscribe();
        let reached = timeout(limit, steps.wait_for(is_reached)).await;
        reached.is_ok()
    }

    fn begin(&self) -> UnderWay {
        let mut log = self.lock();
        let replaced = log.reissues.iter().filter(|it| !it.has_failed()).count();
        log.needless += u64::from(log.rejected.len() <= replaced);
        log.reissues.push(Reissue {
            begun: Instant::now(),
            over: None,
            status: None,
        });
        self.0.steps.send_modify(|steps| steps.begun += 1);
        UnderWay {
            round: log.round,
            place: log.reissues.len() - 1,
            all: self.clone(),
            status: None,
        }
    }

    fn answered(&self, status: StatusCode) {
        let closes = |door: &mut Door| {
            let closes = *door == Door::Closing && status.is_success();
            if closes {
                *door = Door::Closed;
            }
            closes
        };
        self.0.door.send_if_modified(closes);
    }

    /// A mark of the token that a request carries, if it carries one.
    fn presented(&self, headers: &HeaderMap) -> Option<u64> {
        let mark = mark(&self.0.key, headers.get(AUTHORIZATION)?);
        self.lock().presented.insert(mark);
        Some(mark)
    }

    fn rejected(&self, token: u64) {
        self.lock().rejected.insert(token);
    }

    /// Resolves when the door is not closed.
    async fn pass_door(self) {
        let mut door = self.0.door.subscribe();
        if *door.borrow() == Door::Closed {
            self.0.steps.send_modify(|steps| steps.waiting += 1);
        }
        // Its sender is here.
        let _ = door.wait_for(|door| *door != Door::Closed).await;
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mark(key: &RandomState, token: &impl Hash) -> u64 {
    key.hash_one(token)
}

/// One of them. It is over when its answer is there, or when nobody waits for that any more.
struct UnderWay {
    round: u64,
    place: usize,
    all: Reissues,
    status: Option<StatusCode>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut log = self.all.lock();
        if log.round == self.round {
            let reissue = &mut log.reissues[self.place];
            reissue.over = Some(Instant::now());
            reissue.status = self.status;
        }
    }
}

/// Writes down when requests leave and when their answers come.
pub struct Watch<S> {
    inner: S,
    /// Where reissues are sent to.
    path: &'static str,
    reissues: Reissues,
    has_door: bool,
    /// Waits at the door.
    passes: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl<S> Watch<S> {
    pub fn new(inner: S, path: &'static str, reissues: Reissues) -> Self {
        Self {
            inner,
            path,
            reissues,
            has_door: false,
            passes: None,
        }
    }

    /// Its requests go through the door.
    pub fn with_door(self) -> Self {
        Self {
            has_door: true,
            ..self
        }
    }

    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone> Clone for Watch<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            path: self.path,
            reissues: self.reissues.clone(),
            has_door: self.has_door,
            // Each waits for itself.
            passes: None,
        }
    }
}

impl<S, B, R> Service<Request<B>> for Watch<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.has_door {
            let reissues = &self.reissues;
            let passes = self
                .passes
                .get_or_insert_with(|| Box::pin(reissues.clone().pass_door()));
            ready!(passes.as_mut().poll(cx));
            self.passes = None;
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let life = request.extensions().get::<Life>().cloned();
        let is_reissue = request.uri().path() == self.path;
        let mut reissue = is_reissue.then(|| self.reissues.begin());
        let mut token = None;
        if let Some(life) = &life {
            life.sent();
            token = self.reissues.presented(request.headers());
        }
        let reissues = self.reissues.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let status = answer.status();
            if let Some(life) = life {
                life.answered(status);
            }
            if let Some(token) = token.filter(|_| status == StatusCode::UNAUTHORIZED) {
                reissues.rejected(token);
            }
            if let Some(mut reissue) = reissue.take() {
                reissue.status = Some(status);
                reissues.answered(status);
            }
            Ok(answer)
        })
    }
}
