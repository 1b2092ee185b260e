//! When what happened to each request: for the picture, and to know who was sent before whom.
//!
//! The caller gives each request a [`Life`] as an extension. Extensions are copied onto the replay, so
//! that [`Watch`], which sits below the layer and sees everything that is sent, finds the same one there.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use http::{Request, Response, StatusCode};
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
    /// At most two.
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
        self.lock().called = Some(Instant::now());
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

/// From when to when each reissue took, as the client saw it.
#[derive(Clone, Default)]
pub struct Reissues(Arc<Mutex<Vec<(Instant, Instant)>>>);

impl Reissues {
    /// Those since the last time.
    pub fn take(&self) -> Vec<(Instant, Instant)> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them. It is over when its answer is there, or when nobody waits for that any more.
struct Reissue {
    begun: Instant,
    all: Reissues,
}

impl Drop for Reissue {
    fn drop(&mut self) {
        self.all.lock().push((self.begun, Instant::now()));
    }
}

/// Writes down when requests leave and when their answers come.
#[derive(Clone)]
pub struct Watch<S> {
    inner: S,
    /// Where reissues are sent to.
    path: &'static str,
    reissues: Reissues,
}

impl<S> Watch<S> {
    pub fn new(inner: S, path: &'static str, reissues: Reissues) -> Self {
        Self {
            inner,
            path,
            reissues,
        }
    }

    pub fn get_ref(&self) -> &S {
        &self.inner
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
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let life = request.extensions().get::<Life>().cloned();
        let is_reissue = request.uri().path() == self.path;
        let reissue = is_reissue.then(|| Reissue {
            begun: Instant::now(),
            all: self.reissues.clone(),
        });
        if let Some(life) = &life {
            life.sent();
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(life) = life {
                life.answered(answer.status());
            }
            drop(reissue);
            Ok(answer)
        })
    }
}
