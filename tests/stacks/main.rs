//! Proves that the layer keeps its promises wherever it stands among tower's and tower-http's own, over
//! real connections: HTTP/1 and HTTP/2, pooled and not.

mod backends;
mod deadlines;
mod headers_and_bodies;
mod limits;
#[path = "../support/raw.rs"]
mod raw;
mod retries;
#[path = "../support/server.rs"]
mod server;
mod shapes;
#[path = "../support/site.rs"]
mod site;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use http_body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use site::Site;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;

/// How a client connects.
#[derive(Debug, Clone, Copy)]
struct Wire {
    http2: bool,
    pooled: bool,
}

const HTTP1: Wire = Wire {
    http2: false,
    pooled: true,
};

const WIRES: [Wire; 4] = [
    HTTP1,
    Wire {
        http2: false,
        pooled: false,
    },
    Wire {
        http2: true,
        pooled: true,
    },
    Wire {
        http2: true,
        pooled: false,
    },
];

impl Wire {
    fn http<B>(self) -> Client<HttpConnector, B>
    where
        B: Body<Data: Send> + Send,
    {
        let mut builder = Client::builder(TokioExecutor::new());
        if !self.pooled {
            builder.pool_max_idle_per_host(0);
        }
        builder.http2_only(self.http2).build_http()
    }
}

fn layer(site: &Site, session: &Session) -> TokenRefreshLayer {
    TokenRefreshLayer::new(&*site.base, session.clone()).unwrap()
}

/// Whatever still waits then, waits for ever.
async fn within<F: Future>(future: F) -> F::Output {
    let patience = tokio::time::timeout(Duration::from_secs(60), future);
    patience.await.expect("it hangs")
}

/// What a stack makes of requests that are sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// All are on their way before the first is answered.
    Together,
    /// One after another.
    OneByOne,
    /// Some are on their way before the first is answered.
    Some,
}

/// How many are sent at once.
const CROWD: usize = 12;

/// A crowd of requests with an expired token, each with a body of its own: all succeed, with one
/// reissue, and whatever was sent again has the same bytes.
async fn succeeds(site: &Site, client: &support::Client, sent: Sent, stack: &str) {
    let text = |n: usize| n.to_string().repeat(1_000);
    let post = |n| client.send(site.post(&format!("/echo/{n}"), text(n)));
    let before = site.counts();
    site.expire();
    if sent == Sent::Together {
        site.hold_answers();
    }
    let crowd = tokio::spawn(join_all((0..CROWD).map(post)));
    if sent == Sent::Together {
        let all = before.requests + CROWD;
        within(site.until(|counts| counts.requests == all)).await;
        site.release_answers(1 << 20);
    }
    for (n, answer) in within(crowd).await.unwrap().into_iter().enumerate() {
        let answer = answer.unwrap_or_else(|error| panic!("{stack}: {error:?}"));
        assert_eq!(answer.status, StatusCode::OK, "{stack}: {answer:?}");
        assert!(answer.body == text(n), "{stack}: {n}");
    }
    let after = site.counts();
    assert_eq!(after.reissues, before.reissues + 1, "{stack}");
    assert_eq!(after.reuses, 0, "{stack}");
    let expected = match sent {
        Sent::Together => 2 * CROWD..=2 * CROWD,
        Sent::OneByOne => CROWD + 1..=CROWD + 1,
        Sent::Some => CROWD + 1..=2 * CROWD,
    };
    let requests = after.requests - before.requests;
    assert!(expected.contains(&requests), "{stack}: {requests}");
    for seen in &site.seen()[before.requests..] {
        let n: usize = seen.path["/echo/".len()..].parse().unwrap();
        assert!(seen.body == text(n), "{stack}: {n}");
    }
}
