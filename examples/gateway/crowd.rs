//! Users with a browser each, who look at nothing but their own name.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{
    Request, Response, StatusCode,
    header::{CONTENT_TYPE, COOKIE, SET_COOKIE},
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};

use crate::backend::{Backend, User};

/// What has no answer by then has none.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a user who is told to try again does so.
const TRIES: usize = 3;

/// What there is to do.
#[derive(Clone, Copy)]
pub struct Plan {
    pub users: usize,
    /// Of each user.
    pub requests: usize,
    pub parallel: usize,
    pub expiries: usize,
}

#[derive(Debug, Serialize)]
pub struct Outcome {
    pub users: usize,
    pub requests: usize,
    pub ok: usize,
    /// Answers that were meant for somebody else.
    pub foreign: usize,
    pub failed: usize,
    /// As the back end counted them.
    pub reissues: usize,
    /// Refresh tokens that came once more when they were used.
    #[serde(skip)]
    pub reuses: usize,
    pub wall_ms: u64,
}

#[derive(Default)]
struct Counts {
    sent: AtomicUsize,
    ok: AtomicUsize,
    foreign: AtomicUsize,
    failed: AtomicUsize,
}

/// One user's browser, once they are logged in.
#[derive(Clone)]
pub struct Browser {
    http: Client<HttpConnector, Full<Bytes>>,
    base: Arc<str>,
    pub cookie: Arc<str>,
}

impl Browser {
    pub async fn log_in(base: &str, email: &str, password: &str) -> anyhow::Result<Self> {
        let browser = Self {
            http: Client::builder(TokioExecutor::new()).build_http(),
            base: base.into(),
            cookie: "".into(),
        };
        browser.log_in_as(email, password).await
    }

    /// Somebody else with the same browser.
    pub async fn log_in_as(&self, email: &str, password: &str) -> anyhow::Result<Self> {
        let credentials = json!({ "email": email, "password": password }).to_string();
        let request = Request::post(format!("{}/login", self.base))
            .header(CONTENT_TYPE, "application/json")
            .header(COOKIE, &*self.cookie)
            .body(Full::from(credentials))?;
        let response = self.send(request).await?;
        ensure!(response.status().is_success(), "{}", response.status());
        let cookie = response.headers().get(SET_COOKIE).context("no cookie")?;
        let cookie = cookie.to_str()?.split(';').next().unwrap_or_default();
        Ok(Self {
            cookie: cookie.into(),
            ..self.clone()
        })
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Response<Bytes>> {
        let request = Request::get(format!("{}{path}", self.base))
            .header(COOKIE, &*self.cookie)
            .body(Full::default())?;
        self.send(request).await
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        let answer = async {
            let (head, body) = self.http.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Response::from_parts(head, body))
        };
        timeout(PATIENCE, answer).await?
    }

    /// Who the back end takes this user for.
    async fn who(&self) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Me {
            email: String,
        }
        let mut answer = self.get("/member/me").await?;
        for _ in 1..TRIES {
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                break;
            }
            answer = self.get("/member/me").await?;
        }
        ensure!(answer.status().is_success(), "{}", answer.status());
        let me: Me = serde_json::from_slice(answer.body())?;
        Ok(me.email)
    }
}

/// Has everybody log in at the gateway at `base`, ask who they are again and again, and tells what
/// they heard. `step` is called for each login and each answer.
pub async fn run(
    plan: Plan,
    base: &str,
    backend: &Arc<Backend>,
    step: impl Fn() + Clone + Send + Sync + 'static,
) -> anyhow::Result<Outcome> {
    // Four ends of connections for each request under way.
    rlimit::increase_nofile_limit((4 * plan.users * plan.parallel + 256) as u64)?;
    let browsers: Vec<_> = stream::iter(0..plan.users)
        .map(|number| enter(number, base, backend))
        .buffer_unordered(4)
        .inspect_ok(|_| step())
        .try_collect()
        .await?;
    backend.reset_stats();
    let (counts, moments) = (Arc::<Counts>::default(), moments(plan));
    let start = Instant::now();
    let mut users = JoinSet::new();
    for (user, browser) in browsers {
        let (counts, moments, backend) = (counts.clone(), moments.clone(), backend.clone());
        let step = step.clone();
        users.spawn(async move {
            let requests = stream::iter(0..plan.requests);
            let each = requests.for_each_concurrent(plan.parallel, |_| async {
                let number = counts.sent.fetch_add(1, Ordering::Relaxed);
                if moments.contains(&number) {
                    backend.expire_access_tokens();
                }
                let counter = match browser.who().await {
                    Ok(email) if email == user.email => &counts.ok,
                    Ok(_) => &counts.foreign,
                    Err(_) => &counts.failed,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                step();
            });
            each.await;
        });
    }
    while let Some(done) = users.join_next().await {
        done?;
    }
    let seen = backend.stats();
    Ok(Outcome {
        users: plan.users,
        requests: plan.users * plan.requests,
        ok: counts.ok.load(Ordering::Relaxed),
        foreign: counts.foreign.load(Ordering::Relaxed),
        failed: counts.failed.load(Ordering::Relaxed),
        reissues: usize::try_from(seen.reissues)?,
        reuses: usize::try_from(seen.reuse_detected)?,
        wall_ms: u64::try_from(start.elapsed().as_millis())?,
    })
}

/// A user with an account and a password of their own, logged in.
async fn enter(number: usize, base: &str, backend: &Backend) -> anyhow::Result<(User, Browser)> {
    let (email, password) = (
        format!("user{number}@example.com"),
        format!("pass-{number}"),
    );
    let user = backend.add_user(&email, &password).await?;
    let browser = Browser::log_in(base, &email, &password).await?;
    Ok((user, browser))
}

/// With which requests all tokens expire: one in each of as many parts of the whole.
fn moments(plan: Plan) -> Arc<[usize]> {
    let part = (plan.users * plan.requests / plan.expiries.max(1)).max(1);
    let parts = 0..plan.expiries;
    parts.map(|n| n * part + fastrand::usize(..part)).collect()
}
