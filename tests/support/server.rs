//! A hyper server on loopback, for HTTP/1 and HTTP/2, that answers as a closure says.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::header::AUTHORIZATION;
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

/// More than anything takes that happens at all.
const HANG: Duration = Duration::from_secs(120);

pub struct Server {
    pub base: String,
    connections: Arc<watch::Sender<Connections>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    pub opened: usize,
    pub open: usize,
    /// At once.
    pub most: usize,
}

/// Counts a connection until it is dropped.
struct Connected(Arc<watch::Sender<Connections>>);

impl Connected {
    fn new(connections: Arc<watch::Sender<Connections>>) -> Self {
        connections.send_modify(|it| {
            it.opened += 1;
            it.open += 1;
            it.most = it.most.max(it.open);
        });
        Self(connections)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.send_modify(|it| it.open -= 1);
    }
}

impl Server {
    pub async fn start<A, F, B>(answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(watch::Sender::default());
        let its = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Without it small answers wait for an acknowledgement of the last one.
                stream.set_nodelay(true).unwrap();
                let connected = Connected::new(its.clone());
                let answer = answer.clone();
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                tokio::spawn(async move {
                    let _connected = connected;
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // The client may leave as it likes.
                    drop(
                        builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self {
            base,
            connections,
            task,
        }
    }

    pub fn connections(&self) -> Connections {
        *self.connections.borrow()
    }

    /// Waits until no more connections than these are open.
    pub async fn until_open(&self, most: usize) {
        let mut connections = self.connections.subscribe();
        let few = |it: &Connections| it.open <= most;
        let closed = timeout(HANG, connections.wait_for(few)).await;
        closed.expect("they are closed").unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The token that a request carries.
pub fn token<B>(request: &Request<B>) -> String {
    let header = request.headers().get(AUTHORIZATION);
    let text = header.map_or("", |header| header.to_str().unwrap());
    text.trim_start_matches("Bearer ").to_owned()
}

/// A client of hyper's whose requests have this body.
pub fn hyper_client<B>(http2: bool) -> Client<HttpConnector, B>
where
    B: Body<Data: Send> + Send,
{
    pooling_client(http2, usize::MAX)
}

/// One that keeps so many idle connections at the most.
pub fn pooling_client<B>(http2: bool, idle: usize) -> Client<HttpConnector, B>
where
    B: Body<Data: Send> + Send,
{
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .pool_max_idle_per_host(idle)
        .build(connector)
}

/// Logged in with the token `old`, for which the issuer gives `new`.
pub async fn old_for_new() -> Session {
    let reissue = reissue_fn(async |_| TokenSet::new("new").map_err(ReissueError::unknown));
    let session = Session::builder(reissue).build().unwrap();
    log_in_old(&session).await;
    session
}

pub async fn log_in_old(session: &Session) {
    let tokens = TokenSet::new("old").unwrap();
    let tokens = tokens.with_refresh_token("refresh").unwrap();
    session.login(tokens).await.unwrap();
}
