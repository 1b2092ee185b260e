//! The HTTP client below everything, and how many connections it may have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, Error, ResponseFuture, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::Service;
use tower_token_refresh::ReplayBody;

pub type Body = ReplayBody<Full<Bytes>>;

/// The server takes twice as many.
const STREAMS: usize = 2048;
/// The server takes twice as many; above this, connections cost more than they show.
const MOST_CONNECTIONS: usize = 4096;

/// One hyper client, or several where one connection could not hold all requests at once.
#[derive(Clone)]
pub struct Http {
    clients: Arc<[Client<HttpConnector, Body>]>,
    turn: Arc<AtomicUsize>,
    multiplexed: bool,
}

impl Http {
    /// HTTP/1 with a connection for each request where the system allows so many, else HTTP/2 with
    /// a few: the server holds its rejections until all requests are there, so none may wait for a
    /// connection.
    pub fn for_requests(requests: usize) -> Self {
        let multiplexed = requests > MOST_CONNECTIONS || !descriptors_for(requests);
        let clients = if multiplexed {
            requests.div_ceil(STREAMS)
        } else {
            1
        };
        Self {
            clients: (0..clients).map(|_| client(multiplexed)).collect(),
            turn: Arc::default(),
            multiplexed,
        }
    }

    pub fn describe(&self) -> String {
        match self.clients.len() {
            _ if !self.multiplexed => "HTTP/1.1, a connection for each request".to_owned(),
            1 => "HTTP/2, one connection".to_owned(),
            n => format!("HTTP/2, {n} connections"),
        }
    }

    /// The system would not allow a connection for each request, or the server would not.
    pub fn is_multiplexed(&self) -> bool {
        self.multiplexed
    }
}

impl Service<Request<Body>> for Http {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.clients[turn % self.clients.len()].request(request)
    }
}

fn client(multiplexed: bool) -> Client<HttpConnector, Body> {
    let mut connector = HttpConnector::new();
    // Without it small requests wait for the acknowledgement of the one before.
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .http2_only(multiplexed)
        .build(connector)
}

/// Makes room for a connection for each request, with both its ends in this process, and some to
/// spare: a client may open one more while another becomes free.
fn descriptors_for(requests: usize) -> bool {
    let wanted = (2 * (requests + requests / 4) + 256) as u64;
    rlimit::increase_nofile_limit(wanted).is_ok_and(|limit| limit >= wanted)
}
