//! A crowd of callers, each a task of its own, whose token is rejected all at once.

use std::convert::Infallible;
use std::future::Future;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::task::yield_now;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower_token_refresh::BoxError;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefresh;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

use super::ORIGIN;
use super::small_request;

/// The one token that the server takes; others are rejected.
pub const FRESH: &str = "fresh";
pub const STALE: &str = "stale";

pub type SmallRequest = Request<Full<Bytes>>;

pub type Client = TokenRefresh<Server, Session, DefaultClassifier>;

/// A client whose server knows one good token, and whose issuer answers when so many requests have been
/// rejected.
pub struct World {
    pub session: Session,
    pub client: Client,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    rejected: AtomicUsize,
    due: AtomicUsize,
}

impl World {
    pub fn new() -> Result<Self, BoxError> {
        let counts = Arc::new(Counts::default());
        let issuer = Arc::clone(&counts);
        let session =
            Session::builder(reissue_fn(move |_| reissue(Arc::clone(&issuer)))).build()?;
        let server = Server {
            counts: Arc::clone(&counts),
        };
        Ok(Self {
            client: TokenRefreshLayer::new(ORIGIN, session.clone())?.layer(server),
            session,
            counts,
        })
    }

    /// Begins a login with this token; the issuer waits for so many rejections.
    pub async fn login(&self, token: &str, due: usize) -> Result<(), BoxError> {
        self.counts.rejected.store(0, Ordering::Relaxed);
        self.counts.due.store(due, Ordering::Relaxed);
        let tokens = TokenSet::new(token)?.with_refresh_token("refresh")?;
        Ok(self.session.login(tokens).await?)
    }
}

async fn reissue(counts: Arc<Counts>) -> Result<TokenSet, ReissueError> {
    while counts.rejected.load(Ordering::Relaxed) < counts.due.load(Ordering::Relaxed) {
        yield_now().await;
    }
    TokenSet::new(FRESH)
        .and_then(|tokens| tokens.with_refresh_token("refresh"))
        .map_err(ReissueError::unknown)
}

/// A server that answers at the second poll: when all have sent, no answer was read yet.
#[derive(Debug, Clone)]
pub struct Server {
    counts: Arc<Counts>,
}

impl<B> Service<Request<B>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let header = request.headers().get(AUTHORIZATION);
        let is_good = header.is_some_and(|it| it.as_bytes().ends_with(FRESH.as_bytes()));
        if !is_good {
            self.counts.rejected.fetch_add(1, Ordering::Relaxed);
        }
        Answering {
            is_good,
            is_polled: false,
        }
    }
}

#[derive(Debug)]
pub struct Answering {
    is_good: bool,
    is_polled: bool,
}

impl Future for Answering {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.is_polled, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let (status, body) = match self.is_good {
            true => (StatusCode::OK, r#"{"ok":true}"#),
            false => (StatusCode::UNAUTHORIZED, r#"{"code":"T-002"}"#),
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        Poll::Ready(Ok(response))
    }
}

/// A server that does not answer.
#[derive(Debug, Clone, Default)]
pub struct Silent {
    arrived: Arc<AtomicUsize>,
}

impl Service<SmallRequest> for Silent {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: SmallRequest) -> Self::Future {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            // Held for as long as it is under way.
            let _request = request;
            pending().await
        })
    }
}

/// Callers who wait for an unanswered server.
pub async fn wait_for_the_server(callers: usize) -> JoinSet<()> {
    let silent = Silent::default();
    let waiting = spawn(&silent, callers);
    while silent.arrived.load(Ordering::Relaxed) < callers {
        yield_now().await;
    }
    waiting
}

/// Callers who were rejected, and wait for a reissue that is not answered.
pub async fn wait_for_the_refresh(world: &World, callers: usize) -> JoinSet<()> {
    let waiting = spawn(&world.client, callers);
    while world.session.stats().waiters < callers {
        yield_now().await;
    }
    waiting
}

fn spawn<S>(service: &S, callers: usize) -> JoinSet<()>
where
    S: Service<SmallRequest> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut waiting = JoinSet::new();
    for _ in 0..callers {
        let sent = service.clone().oneshot(small_request());
        waiting.spawn(async move { drop(sent.await) });
    }
    waiting
}
