//! Stands before the back end, and is where the network goes wrong: it delays reissues and their answers,
//! loses some, and writes down who presented what.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::{Request, Response, StatusCode, Uri, request::Parts},
};
use fastrand::Rng;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error};
use tokio::{net::TcpListener, task::AbortHandle, time::sleep};
use tower_token_refresh::TokenSet;

use crate::{
    faults::Trap,
    fingerprint::Fingerprint,
    messages::{Moment, PROCESS, REISSUE_PATH},
    options::Options,
    oracle::{Oracle, Pair, ReissueId},
    speed::Speeds,
};

const BODY_LIMIT: usize = 64 * 1024;
/// On the way there, and on the way back: together well below the deadline of a reissue.
const DELAY_MS: std::ops::Range<u64> = 0..150;

/// What is written down.
#[derive(Default)]
pub struct Book {
    oracle: Mutex<Oracle>,
    speeds: Mutex<Speeds>,
}

impl Book {
    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn speeds(&self) -> MutexGuard<'_, Speeds> {
        self.speeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These tokens are in the store.
    pub fn stored(&self, access: Fingerprint, refresh: Fingerprint) {
        self.speeds().stored(access);
        self.oracle().stored(refresh);
    }
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// What a login or a reissue answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    access_token: String,
    #[serde(deserialize_with = "time")]
    access_token_expires_at: Timestamp,
    refresh_token: String,
}

fn time<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(input)?;
    text.parse().map_err(D::Error::custom)
}

impl Grant {
    pub fn pair(&self) -> Pair {
        let expires_at = self.access_token_expires_at.as_millisecond();
        Pair {
            access: Fingerprint::of(&self.access_token),
            refresh: Fingerprint::of(&self.refresh_token),
            expires_at: u64::try_from(expires_at).unwrap_or_default(),
        }
    }

    /// Without who they belong to.
    pub fn tokens(self) -> anyhow::Result<TokenSet> {
        let tokens = TokenSet::new(self.access_token)?.with_refresh_token(self.refresh_token)?;
        Ok(tokens.with_expires_at(self.access_token_expires_at.into()))
    }
}

/// Until it is dropped.
pub struct Proxy {
    pub base: String,
    way: Arc<Way>,
    task: AbortHandle,
}

struct Way {
    backend: String,
    http: Client<HttpConnector, Full<Bytes>>,
    book: Arc<Book>,
    trap: Arc<Trap>,
    rng: Mutex<Rng>,
    lose_replies: u8,
    /// One reissue after the other reaches the issuer, so that their order is known.
    issuer: tokio::sync::Mutex<()>,
}

impl Proxy {
    pub async fn start(
        backend: String,
        options: &Options,
        book: Arc<Book>,
        trap: Arc<Trap>,
    ) -> anyhow::Result<Self> {
        let way = Arc::new(Way {
            backend,
            http: Client::builder(TokioExecutor::new()).build_http(),
            book,
            trap,
            rng: Mutex::new(Rng::with_seed(options.seed() ^ 1)),
            lose_replies: options.lose_replies,
            issuer: tokio::sync::Mutex::default(),
        });
        let router = Router::new().fallback(forward).with_state(way.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.context("can't listen on loopback")?;
        let base = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(axum::serve(listener, router).into_future()).abort_handle();
        Ok(Self { base, way, task })
    }

    /// No reissue is at the issuer while this is held: both have counted the same.
    pub async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.way.issuer.lock().await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(State(way): State<Arc<Way>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let number = head.headers.get(PROCESS).and_then(|it| it.to_str().ok());
    let process = number.and_then(|number| number.parse().ok());
    let answer = match (process, to_bytes(body, BODY_LIMIT).await) {
        (Some(process), Ok(body)) if head.uri.path() == REISSUE_PATH => {
            way.reissue(process, head, body).await
        }
        (Some(process), Ok(body)) => {
            if let Some(access) = Fingerprint::of_bearer(&head.headers) {
                way.book.speeds().used(access, process);
            }
            way.ask(head, body).await
        }
        _ => Err(anyhow::anyhow!("not one of the processes")),
    };
    answer
        .map(|answer| answer.map(Body::from))
        .unwrap_or_else(|error| {
            let mut answer = Response::new(Body::from(format!("{error:#}")));
            *answer.status_mut() = StatusCode::BAD_GATEWAY;
            answer
        })
}

impl Way {
    async fn ask(&self, mut head: Parts, body: Bytes) -> anyhow::Result<Response<Bytes>> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = format!("{}{path}", self.backend).parse::<Uri>()?;
        let request = Request::from_parts(head, Full::new(body));
        let (head, body) = self.http.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// A reissue's way there and back. This future is dropped when its process hangs up.
    async fn reissue(
        self: Arc<Self>,
        process: u64,
        head: Parts,
        body: Bytes,
    ) -> anyhow::Result<Response<Bytes>> {
        let refresh = Fingerprint::of_bearer(&head.headers).context("no refresh token")?;
        let reply = Reply {
            id: self.book.oracle().sent(process, refresh),
            book: self.book.clone(),
            delivered: false,
        };
        self.trap.pass(Moment::Sent, process);
        let [there, back] = [self.delay(), self.delay()];
        // What has left its sender arrives, even when that one is gone.
        let arrival = self.clone().arrive(reply.id, process, there, head, body);
        let answer = tokio::spawn(arrival).await??;
        sleep(back).await;
        self.trap.pass(Moment::Answered, process);
        if self.loses() {
            return pending().await;
        }
        reply.deliver();
        Ok(answer)
    }

    async fn arrive(
        self: Arc<Self>,
        id: ReissueId,
        process: u64,
        there: Duration,
        head: Parts,
        body: Bytes,
    ) -> anyhow::Result<Response<Bytes>> {
        sleep(there).await;
        let _one_at_a_time = self.issuer.lock().await;
        self.book.oracle().arrived(id);
        let answer = self.ask(head, body).await?;
        let grant = match answer.status().is_success() {
            true => Some(serde_json::from_slice::<Grant>(answer.body())?.pair()),
            false => None,
        };
        if let Some(pair) = grant {
            self.book.speeds().fetched(&pair, process);
        }
        self.book.oracle().answered(id, grant, now());
        Ok(answer)
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.rng().u64(DELAY_MS))
    }

    fn loses(&self) -> bool {
        self.rng().u32(..100) < u32::from(self.lose_replies)
    }

    fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is delivered, or lost.
struct Reply {
    id: ReissueId,
    book: Arc<Book>,
    delivered: bool,
}

impl Reply {
    fn deliver(mut self) {
        self.delivered = true;
        self.book.oracle().delivered(self.id);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.delivered {
            self.book.oracle().lost(self.id);
        }
    }
}
