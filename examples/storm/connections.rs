//! The HTTP client below everything, and how many connections it may have.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::sync::Semaphore;
use tower::Service;
use tower_token_refresh::{BoxError, ReplayBody};

pub type Body = ReplayBody<Full<Bytes>>;

/// The server takes twice as many on each connection.
const STREAMS: usize = 2048;
/// The server takes twice as many; above this, connections cost more than they show.
const MOST_CONNECTIONS: usize = 4096;
/// Where requests take turns, few do: a request that is dropped takes its connection with it, and its
/// successor opens another while the server may not have taken the first from its backlog.
const SHARED_CONNECTIONS: usize = 512;

/// Hyper clients, and how they share the connections there can be.
#[derive(Clone)]
pub struct Http {
    clients: Arc<[Client<HttpConnector, Body>]>,
    turn: Arc<AtomicUsize>,
    /// HTTP/1: one for each request that may be under way.
    places: Arc<Semaphore>,
    how: Arc<str>,
    /// There is no connection for each request, or no descriptors for so many.
    pub scarce: bool,
}

impl Http {
    /// HTTP/1 with a connection for each request, where there can be so many. If not, they share what
    /// there is, except where all have to be on their way `at_once`: that takes HTTP/2.
    pub fn new(requests: usize, at_once: bool) -> Self {
        let most = connections(requests);
        if most < requests && at_once {
            return Self::multiplexed(requests.div_ceil(STREAMS));
        }
        let scarce = most < requests;
        let places = if scarce {
            most.min(SHARED_CONNECTIONS)
        } else {
            most
        };
        let how = match scarce {
            true => format!("HTTP/1.1, {places} connections, in turns"),
            false => "HTTP/1.1, a connection for each request".to_owned(),
        };
        Self {
            clients: [client(false)].into(),
            turn: Arc::default(),
            places: Arc::new(Semaphore::new(places)),
            how: how.into(),
            scarce,
        }
    }

    fn multiplexed(connections: usize) -> Self {
        Self {
            clients: (0..connections).map(|_| client(true)).collect(),
            turn: Arc::default(),
            places: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            how: match connections {
                1 => "HTTP/2, one connection".into(),
                n => format!("HTTP/2, {n} connections").into(),
            },
            scarce: true,
        }
    }

    pub fn describe(&self) -> &str {
        &self.how
    }
}

impl Service<Request<Body>> for Http {
    type Response = http::Response<Incoming>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let answer = self.clients[turn % self.clients.len()].request(request);
        let places = self.places.clone();
        Box::pin(async move {
            let _place = places.acquire().await?;
            Ok(answer.await?)
        })
    }
}

fn client(http2_only: bool) -> Client<HttpConnector, Body> {
    let mut connector = HttpConnector::new();
    // Without it small requests wait for the acknowledgement of the one before.
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .http2_only(http2_only)
        .build(connector)
}

/// How many connections there can be, up to one for each request, with both ends in this process.
fn connections(requests: usize) -> usize {
    let wanted = requests.min(MOST_CONNECTIONS);
    // Some to spare: a client may open one more while another becomes free.
    let descriptors = 2 * (wanted + wanted / 4) + 256;
    match rlimit::increase_nofile_limit(descriptors as u64) {
        Ok(limit) if limit < descriptors as u64 => (limit as usize).saturating_sub(256) * 2 / 5,
        _ => wanted,
    }
    .max(1)
}
