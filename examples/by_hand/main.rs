//! What this crate replaces: the two usual forms of the job, written by hand, in the same storms.
//!
//! `cargo run --release --example by_hand`
//!
//! The first has each rejection refresh, the second has a flag and a queue; both are what
//! `docs/coming-from-axios.md` shows. They meet the back end that the example `storm` meets, and its browser
//! route, where the token before is dead as soon as there is a new one. It prints the figures of the README.

#[path = "../backend/server/mod.rs"]
mod backend;
#[path = "../storm/words.rs"]
#[expect(dead_code, reason = "the storm uses all of it")]
mod words;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use backend::{Backend, Config, ReissueMode, Round};
use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE},
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// What has not settled by then is hung.
const PATIENCE: Duration = Duration::from_secs(5);
const FORMS: [(&str, Form); 2] = [
    ("each rejection refreshes", Form::Each),
    ("flag and queue", Form::Queue),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Each,
    Queue,
}

/// A situation that both of them meet.
#[derive(Clone, Copy)]
struct Storm {
    what: &'static str,
    requests: usize,
    mode: ReissueMode,
    /// Over so long a time the rejections arrive.
    spread: Duration,
}

/// A client written by hand.
struct ByHand {
    form: Form,
    base: String,
    http: Client<HttpConnector, Full<Bytes>>,
    token: Mutex<String>,
    cookie: String,
    /// Up while a refresh runs: those who wait for it.
    queue: Mutex<Option<Vec<oneshot::Sender<()>>>>,
    settled: AtomicU64,
    succeeded: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let storm = |what, requests, mode, spread| Storm {
        what,
        requests,
        mode,
        spread: Duration::from_millis(spread),
    };
    let storms = [
        storm("all goes well", 10, ReissueMode::Ok, 0),
        storm("all goes well", 100, ReissueMode::Ok, 0),
        storm("all goes well", 1000, ReissueMode::Ok, 0),
        storm("the reissue fails", 100, ReissueMode::Error, 0),
        storm(
            "the 401s come up to 200 ms apart",
            100,
            ReissueMode::Ok,
            200,
        ),
        storm("the new token is refused too", 1, ReissueMode::Dead, 0),
    ];
    println!("reissues / requests on the wire / succeeded / hung after 5 s");
    for storm in storms {
        for (name, form) in FORMS {
            let counts = run(storm, form).await?;
            let [reissues, wire, succeeded, hung] = counts.map(words::thousands);
            let Storm { what, requests, .. } = storm;
            println!(
                "{what:<33} N = {requests:<5} {name:<25} {reissues} / {wire} / {succeeded} / {hung}"
            );
        }
    }
    Ok(())
}

async fn run(storm: Storm, form: Form) -> Result<[u64; 4]> {
    // Both ends of each connection are in this process.
    rlimit::increase_nofile_limit(8192)?;
    let backend = Backend::start(Config {
        access_ttl: Duration::from_secs(60),
        reissue_delay: Duration::from_millis(20),
        reissue_mode: storm.mode,
        ..Config::default()
    })
    .await?;
    let client = Arc::new(ByHand::log_in(&backend, form).await?);
    backend.expire_access_tokens();
    backend.reset_stats();
    backend.set_round(Some(Round {
        requests: storm.requests,
        hold_rejections: true,
        spread: storm.spread,
    }));
    let end = Instant::now() + PATIENCE;
    let mut calls = JoinSet::new();
    for item in 0..storm.requests {
        calls.spawn(client.clone().call(item));
    }
    let all = async { while calls.join_next().await.is_some() {} };
    let _ = timeout_at(end, all).await;
    let stats = backend.stats();
    let settled = client.settled.load(Ordering::SeqCst);
    drop(calls);
    let requests: u64 = stats.requests.values().sum();
    Ok([
        stats.reissues,
        requests + stats.reissues,
        client.succeeded.load(Ordering::SeqCst),
        storm.requests as u64 - settled,
    ])
}

impl ByHand {
    async fn log_in(backend: &Backend, form: Form) -> Result<Self> {
        let mut client = Self {
            form,
            base: backend.base(),
            http: Client::builder(TokioExecutor::new()).build_http(),
            token: Mutex::default(),
            cookie: String::new(),
            queue: Mutex::default(),
            settled: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
        };
        let user = backend.user();
        let credentials = json!({ "email": user.email, "password": user.password });
        let login = Request::post(format!("{}/member/login", client.base))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(credentials.to_string()))?;
        let answer = client.send(login).await?;
        let cookie = answer.headers().get(SET_COOKIE).context("no cookie")?;
        let cookie = cookie.to_str()?.split(';').next().unwrap_or_default();
        client.cookie = cookie.to_owned();
        *lock(&client.token) = token_in(&answer)?;
        Ok(client)
    }

    async fn call(self: Arc<Self>, item: usize) {
        let status = self.try_call(item).await;
        let is_good = status.is_ok_and(|status| status.is_success());
        self.succeeded
            .fetch_add(u64::from(is_good), Ordering::SeqCst);
        self.settled.fetch_add(1, Ordering::SeqCst);
    }

    async fn try_call(&self, item: usize) -> Result<StatusCode> {
        loop {
            let token = lock(&self.token).clone();
            let request = Request::get(format!("{}/items/{item}", self.base))
                .header(AUTHORIZATION, format!("Bearer {token}"))
                .body(Full::default())?;
            let status = self.send(request).await?.status();
            if status != StatusCode::UNAUTHORIZED {
                return Ok(status);
            }
            match self.form {
                Form::Each => self.refresh().await?,
                Form::Queue => self.refresh_or_wait().await?,
            }
        }
    }

    async fn refresh_or_wait(&self) -> Result<()> {
        let waits = {
            let mut queue = lock(&self.queue);
            match &mut *queue {
                Some(queue) => {
                    let (sender, waits) = oneshot::channel();
                    queue.push(sender);
                    Some(waits)
                }
                None => {
                    *queue = Some(Vec::new());
                    None
                }
            }
        };
        match waits {
            Some(waits) => Ok(waits.await?),
            None => {
                // Where it fails, the flag stays up, and nobody is told.
                self.refresh().await?;
                let queue = lock(&self.queue).take();
                for waiting in queue.into_iter().flatten() {
                    let _ = waiting.send(());
                }
                Ok(())
            }
        }
    }

    async fn refresh(&self) -> Result<()> {
        let request = Request::post(format!("{}/v1/api/auth/reissue", self.base))
            .header(COOKIE, &self.cookie)
            .body(Full::default())?;
        let answer = self.send(request).await?;
        ensure!(answer.status().is_success(), "no new token");
        *lock(&self.token) = token_in(&answer)?;
        Ok(())
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let (head, body) = self.http.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

fn token_in(answer: &Response<Bytes>) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Grant {
        access_token: String,
    }
    let grant: Grant = serde_json::from_slice(answer.body())?;
    Ok(grant.access_token)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
