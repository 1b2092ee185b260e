//! An API and its issuer behind one hyper server on loopback, which keep a log of what they saw. The
//! issuer ends the login when a refresh token comes twice.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::time::timeout;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::Session;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::TokenSet;

use super::server::Server;
use super::server::token;

/// More than anything takes that happens at all.
const HANG: Duration = Duration::from_secs(120);

/// What the API says when it rejects a token.
pub const REJECTION: &str = "the server's own words";

/// In each token, so that it is found wherever it should not be.
pub const MARK: &str = "c4n4ry";

/// A request as the API read it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub token: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    /// How many tokens the issuer had issued before this one; 0 is that of the login.
    pub fn serial(&self) -> u64 {
        let serial = self.token.rsplit('-').next();
        serial.and_then(|serial| serial.parse().ok()).unwrap()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// What the API has read, rejected ones included.
    pub requests: usize,
    pub rejections: usize,
    /// What the issuer has read.
    pub reissues: usize,
    pub reuses: usize,
}

/// What is known of the one login, by all servers that take its tokens.
#[derive(Default)]
struct Login {
    good: HashSet<String>,
    used: HashSet<String>,
    serial: u64,
    refuses: bool,
}

type Answer = Response<Full<Bytes>>;

/// Answers in place of the API; it is told whether the token is good.
type Hook = Arc<dyn Fn(&Seen, bool) -> Option<Answer> + Send + Sync>;

#[derive(Clone)]
pub struct Site {
    pub base: String,
    login: Arc<Mutex<Login>>,
    log: Arc<Log>,
    server: Arc<Server>,
}

struct Log {
    seen: Mutex<Vec<Seen>>,
    counts: watch::Sender<Counts>,
    /// An answer of the API takes one permit; there are plenty unless the test holds them.
    answers: Semaphore,
    /// The same for the issuer's.
    reissues: Semaphore,
}

impl Site {
    pub async fn start() -> Self {
        Self::answering(|_, _| None).await
    }

    pub async fn answering(
        hook: impl Fn(&Seen, bool) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::open(Arc::default(), Arc::new(hook)).await
    }

    /// Another server that takes the same tokens.
    pub async fn beside(&self) -> Self {
        Self::open(self.login.clone(), Arc::new(|_, _| None)).await
    }

    async fn open(login: Arc<Mutex<Login>>, hook: Hook) -> Self {
        let log = Arc::new(Log {
            seen: Mutex::default(),
            counts: watch::Sender::default(),
            answers: Semaphore::new(Semaphore::MAX_PERMITS),
            reissues: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let (its_login, its_log) = (login.clone(), log.clone());
        let server = Server::start(move |request| {
            let (login, log, hook) = (its_login.clone(), its_log.clone(), hook.clone());
            async move {
                match request.uri().path() {
                    "/token" => log.reissue(&login, request).await,
                    _ => log.answer(&login, &hook, request).await,
                }
            }
        })
        .await;
        Self {
            base: server.base.clone(),
            login,
            log,
            server: Arc::new(server),
        }
    }

    /// Logged in, with a token that the API does not take any more.
    pub async fn session(&self) -> Session {
        self.session_of(self.builder()).await
    }

    /// A session that asks this issuer, through a client of its own.
    pub fn builder(&self) -> SessionBuilder {
        let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let issuer = JsonReissue::post(format!("{}/token", self.base), http);
        Session::builder(issuer.refused("T-003"))
    }

    pub async fn session_of(&self, builder: SessionBuilder) -> Session {
        let session = builder.build().unwrap();
        let tokens = TokenSet::new(format!("{MARK}-access-0")).unwrap();
        let tokens = tokens.with_refresh_token(format!("{MARK}-refresh-0"));
        session.login(tokens.unwrap()).await.unwrap();
        session
    }

    /// From now on no token of before is good.
    pub fn expire(&self) {
        self.login.lock().unwrap().good.clear();
    }

    /// From now on the issuer refuses.
    pub fn refuse(&self) {
        self.login.lock().unwrap().refuses = true;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().unwrap().clone()
    }

    pub fn counts(&self) -> Counts {
        *self.log.counts.borrow()
    }

    /// How many connections it has accepted, the issuer's included.
    pub fn connections(&self) -> usize {
        self.server.connections().opened
    }

    /// Waits until the counts are as the test wants them.
    pub async fn until(&self, condition: impl FnMut(&Counts) -> bool) {
        let mut counts = self.log.counts.subscribe();
        let reached = timeout(HANG, counts.wait_for(condition)).await;
        reached.expect("it happens").unwrap();
    }

    /// Requests are read, and not answered until [`Self::release_answers`].
    pub fn hold_answers(&self) {
        self.log.answers.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_answers(&self, n: usize) {
        self.log.answers.add_permits(n);
    }

    /// Reissues are read, and not answered until [`Self::release_reissues`].
    pub fn hold_reissues(&self) {
        self.log.reissues.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_reissues(&self) {
        self.log.reissues.add_permits(1 << 20);
    }

    pub fn get(&self, path: &str) -> Request<Full<Bytes>> {
        let request = Request::get(format!("{}{path}", self.base));
        request.body(Full::default()).unwrap()
    }

    pub fn post(&self, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let request = Request::post(format!("{}{path}", self.base));
        request.body(Full::new(body.into())).unwrap()
    }
}

impl Log {
    async fn answer(
        &self,
        login: &Mutex<Login>,
        hook: &Hook,
        request: Request<Incoming>,
    ) -> Answer {
        let token = token(&request);
        let good = login.lock().unwrap().good.contains(&token);
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return plain(StatusCode::BAD_REQUEST, "the body broke off");
        };
        let seen = Seen {
            path: head.uri.path().to_owned(),
            token,
            headers: head.headers,
            body: body.to_bytes(),
        };
        self.seen.lock().unwrap().push(seen.clone());
        let is_open = seen.path.starts_with("/public");
        self.counts.send_modify(|counts| {
            counts.requests += 1;
            counts.rejections += usize::from(!good && !is_open);
        });
        self.answers.acquire().await.unwrap().forget();
        match hook(&seen, good) {
            Some(answer) => answer,
            None if good || is_open => Response::new(Full::new(seen.body)),
            None => plain(StatusCode::UNAUTHORIZED, REJECTION),
        }
    }

    async fn reissue(&self, login: &Mutex<Login>, request: Request<Incoming>) -> Answer {
        self.counts.send_modify(|counts| counts.reissues += 1);
        self.reissues.acquire().await.unwrap().forget();
        let mut login = login.lock().unwrap();
        let reused = !login.used.insert(token(&request));
        self.counts
            .send_modify(|counts| counts.reuses += usize::from(reused));
        if reused || login.refuses {
            return json_answer(StatusCode::UNAUTHORIZED, &json!({ "code": "T-003" }));
        }
        login.serial += 1;
        let serial = login.serial;
        let access = format!("{MARK}-access-{serial}");
        login.good = HashSet::from([access.clone()]);
        let refresh = format!("{MARK}-refresh-{serial}");
        let tokens = json!({ "accessToken": access, "refreshToken": refresh });
        json_answer(StatusCode::OK, &tokens)
    }
}

fn plain(status: StatusCode, body: &'static str) -> Answer {
    let answer = Response::builder().status(status);
    answer.body(Full::from(body)).unwrap()
}

fn json_answer(status: StatusCode, body: &serde_json::Value) -> Answer {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}
