//! Proves S4 with a whole gateway over real connections: many users behind one client and one layer, and
//! nobody ever gets what is somebody else's. Shows the example `gateway` as well.

#[path = "../examples/backend/server/mod.rs"]
mod backend;
#[path = "support/child.rs"]
mod child;
#[path = "../examples/gateway/crowd.rs"]
mod crowd;
#[path = "../examples/gateway/proxy/mod.rs"]
mod proxy;
#[path = "support/server.rs"]
mod server;

use std::collections::HashSet;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::Error;
use anyhow::Result;
use backend::Backend;
use backend::Config;
use bytes::Bytes;
use crowd::Browser;
use crowd::Plan;
use futures::future::join_all;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::header::SET_COOKIE;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use proxy::Sessions;
use serde_json::Value;
use serde_json::json;
use server::Server;
use server::token;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

/// Whatever still waits then, waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// The gateway before a back end, on loopback.
struct Gateway {
    base: String,
    sessions: Sessions,
    task: JoinHandle<()>,
}

impl Gateway {
    async fn start(backend: &str, most: usize) -> Result<Self> {
        let sessions = Sessions::new(most);
        let router = proxy::router(backend, sessions.clone()).map_err(Error::from_boxed)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Ok(Self {
            base,
            sessions,
            task,
        })
    }

    /// What it answers to these words, and closes.
    async fn answers(&self, request: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.base.trim_start_matches("http://")).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request as the back end saw it.
struct Seen {
    head: http::request::Parts,
    body: Bytes,
    /// Whose token it carried.
    user: String,
}

#[derive(Default)]
struct Facts {
    serial: usize,
    good: HashSet<String>,
    refused: HashSet<String>,
    is_broken: bool,
    seen: Vec<Seen>,
}

impl Facts {
    /// New tokens, with the name of their user in them.
    fn tokens(&mut self, user: &str) -> Value {
        self.serial += 1;
        let access = format!("a-{user}-{}", self.serial);
        self.good.insert(access.clone());
        json!({ "id": user, "email": user, "accessToken": access, "refreshToken": format!("r-{user}") })
    }
}

/// A back end whose reissues wait until the test lets them go.
#[derive(Clone)]
struct Gated {
    facts: Arc<Mutex<Facts>>,
    reissues: watch::Sender<usize>,
    gate: Arc<Semaphore>,
}

impl Gated {
    async fn start() -> (Server, Self) {
        let gated = Self {
            facts: Arc::default(),
            reissues: watch::Sender::new(0),
            gate: Arc::new(Semaphore::new(0)),
        };
        let answering = gated.clone();
        let server = Server::start(move |request| {
            let gated = answering.clone();
            async move { gated.answer(request).await }
        });
        (server.await, gated)
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    fn expire(&self) {
        self.lock().good.clear();
    }

    fn release(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn until_reissue(&self, n: usize) {
        let mut reissues = self.reissues.subscribe();
        let seen = reissues.wait_for(|seen| *seen == n);
        timeout(PATIENCE, seen).await.unwrap().unwrap();
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let token = token(&request);
        let user = token.split('-').nth(1).unwrap_or_default().to_owned();
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let (status, answer) = match head.uri.path() {
            "/member/login" => {
                let login: Value = serde_json::from_slice(&body).unwrap();
                match login["email"].as_str().unwrap() {
                    "nobody" => (401, "{}".into()),
                    user => (200, self.lock().tokens(user).to_string().into()),
                }
            }
            "/member/token/refresh" => {
                self.reissues.send_modify(|n| *n += 1);
                self.gate.acquire().await.unwrap().forget();
                let mut facts = self.lock();
                match (facts.is_broken, facts.refused.contains(&user)) {
                    (true, _) => (503, "later".into()),
                    (_, true) => (401, r#"{"code":"T-003"}"#.into()),
                    _ => (200, facts.tokens(&user).to_string().into()),
                }
            }
            _ => {
                let mut facts = self.lock();
                let answer = match facts.good.contains(&token) {
                    true => (200, body.clone()),
                    false => (401, r#"{"code":"T-002"}"#.into()),
                };
                facts.seen.push(Seen {
                    head,
                    body,
                    user: user.clone(),
                });
                answer
            }
        };
        let response = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, "application/json")
            .header("x-user", user)
            .header("connection", "x-hop")
            .header("x-hop", "between us");
        response.body(Full::new(answer)).unwrap()
    }
}

/// What an answer says: its status, the user it is for, and the code of an error.
fn said(answer: &Response<Bytes>) -> (u16, &str, String) {
    let user = answer.headers().get("x-user");
    let user = user.map_or("", |user| user.to_str().unwrap());
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let code = body["code"].as_str().unwrap_or_default().to_owned();
    (answer.status().as_u16(), user, code)
}

fn clears_the_cookie(answer: &Response<Bytes>) -> bool {
    let cookie = answer.headers().get(SET_COOKIE);
    cookie.is_some_and(|it| it.to_str().unwrap().contains("Max-Age=0"))
}

// shows B39, B128, P1, S4
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_users_get_their_own_answers_while_all_tokens_expire() -> Result<()> {
    let backend = Backend::start(Config {
        rotate: true,
        ..Config::default()
    });
    let backend = Arc::new(backend.await?);
    backend.set_access_ttl(Duration::from_secs(600));
    let gateway = Gateway::start(&backend.base(), 64).await?;
    let plan = Plan {
        users: 64,
        requests: 60,
        parallel: 4,
        expiries: 4,
    };
    let outcome = timeout(
        4 * PATIENCE,
        crowd::run(plan, &gateway.base, &backend, || ()),
    )
    .await??;
    assert_eq!(outcome.foreign, 0, "{outcome:?}");
    assert_eq!(outcome.ok, 64 * 60, "{outcome:?}");
    // One for each user and expiry at the most, and for most of them one.
    assert!(outcome.reissues <= 64 * 4, "{outcome:?}");
    assert!(outcome.reissues >= 64, "{outcome:?}");
    assert_eq!(outcome.reuses, 0, "{outcome:?}");
    assert_eq!(gateway.sessions.len(), 64, "nobody was logged out");
    Ok(())
}

// shows P8, S4: those who wait are answered as nobody but Ann, or not at all.
#[tokio::test]
async fn a_login_in_the_same_browser_gets_none_of_the_requests_that_wait() -> Result<()> {
    let (server, backend) = Gated::start().await;
    let gateway = Gateway::start(&server.base, 10).await?;
    let ann = Browser::log_in(&gateway.base, "ann", "-").await?;
    backend.expire();
    let requests = join_all((0..8).map(|_| {
        let ann = ann.clone();
        tokio::spawn(async move { ann.get("/anns").await })
    }));
    backend.until_reissue(1).await;
    let bob = ann.log_in_as("bob", "-").await?;
    assert_eq!(said(&bob.get("/bobs").await?), (200, "bob", String::new()));
    backend.release();
    for answer in timeout(PATIENCE, requests).await? {
        let answer = answer??;
        assert_eq!(said(&answer), (401, "", "G-002".to_owned()));
        // The browser has Bob's by now.
        assert_eq!(answer.headers().get(SET_COOKIE), None);
    }
    let again = ann.get("/anns").await?;
    assert_eq!(said(&again), (401, "", "G-001".to_owned()));
    assert_eq!(said(&bob.get("/bobs").await?), (200, "bob", String::new()));
    for seen in &backend.lock().seen {
        let owner = seen.head.uri.path().trim_matches(['/', 's']);
        assert_eq!(seen.user, owner, "sent with somebody else's token");
    }
    assert_eq!(gateway.sessions.len(), 1);
    Ok(())
}

// shows B39, P7: sessions share no token and no refresh, and one that is over leaves.
#[tokio::test]
async fn an_ended_session_ends_for_one_user_only() -> Result<()> {
    let (server, backend) = Gated::start().await;
    backend.release();
    let gateway = Gateway::start(&server.base, 10).await?;
    let ann = Browser::log_in(&gateway.base, "ann", "-").await?;
    let bob = Browser::log_in(&gateway.base, "bob", "-").await?;
    backend.lock().refused.insert("ann".to_owned());
    backend.expire();
    let (anns, bobs) = tokio::join!(ann.get("/x"), bob.get("/x"));
    let anns = anns?;
    assert_eq!(said(&anns), (401, "", "G-002".to_owned()));
    assert_eq!(said(&bobs?), (200, "bob", String::new()));
    // It is taken out by a task of its own.
    let left = async {
        while gateway.sessions.len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, left).await?;
    assert_eq!(said(&ann.get("/x").await?).0, 401);
    assert_eq!(said(&bob.get("/x").await?).1, "bob");
    assert_eq!(*backend.reissues.borrow(), 2, "one each");
    Ok(())
}

// shows P6: a 401 would make the browser throw the login away.
#[tokio::test]
async fn a_user_whose_token_cannot_be_refreshed_now_is_not_logged_out() -> Result<()> {
    let (server, backend) = Gated::start().await;
    backend.release();
    let gateway = Gateway::start(&server.base, 10).await?;
    let ann = Browser::log_in(&gateway.base, "ann", "-").await?;
    backend.lock().is_broken = true;
    backend.expire();
    let answer = ann.get("/x").await?;
    assert_eq!(said(&answer), (503, "", "G-003".to_owned()));
    assert_eq!(gateway.sessions.len(), 1);
    Ok(())
}

// shows P11, S3: what the browser says of itself stops at the gateway, and nothing else does.
#[tokio::test]
async fn a_request_goes_through_without_what_is_for_the_gateway_alone() -> Result<()> {
    let (server, backend) = Gated::start().await;
    let gateway = Gateway::start(&server.base, 10).await?;
    let ann = Browser::log_in(&gateway.base, "ann", "-").await?;
    let request = format!(
        "PUT http://evil.test/a//b?c=d%20e HTTP/1.1\r\nhost: evil.test\r\nauthorization: Bearer a-bob-1\r\n\
         cookie: theme=dark; name=Jürg; {}\r\ncookie: lang=en\r\nconnection: close, x-private\r\nx-private: 1\r\nx-kept: yes\r\n\
         te: trailers\r\nproxy-authorization: Basic x\r\ncontent-length: 4\r\n\r\nbody",
        ann.cookie
    );
    let answer = gateway.answers(&request).await?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("body"), "{answer}");
    assert!(answer.contains("x-user: ann"), "{answer}");
    assert!(!answer.contains("x-hop"), "{answer}");
    let seen = backend.lock().seen.pop().unwrap();
    assert_eq!(seen.head.method, "PUT");
    assert_eq!(seen.head.uri, "/a//b?c=d%20e");
    assert_eq!(seen.body, "body");
    let text = |name: &str| seen.head.headers.get(name).map(|it| it.to_str().unwrap());
    assert_eq!(text("host"), server.base.strip_prefix("http://"));
    let cookie = seen.head.headers.get("cookie").map(HeaderValue::as_bytes);
    assert_eq!(cookie, Some("theme=dark; name=Jürg; lang=en".as_bytes()));
    assert_eq!(text("x-kept"), Some("yes"));
    for name in ["x-private", "te", "proxy-authorization", "connection"] {
        assert_eq!(text(name), None, "{name}");
    }
    Ok(())
}

// shows P11: a target that is no path could name another server.
#[tokio::test]
async fn a_target_that_is_no_path_goes_nowhere() -> Result<()> {
    let (server, backend) = Gated::start().await;
    let gateway = Gateway::start(&server.base, 10).await?;
    let ann = Browser::log_in(&gateway.base, "ann", "-").await?;
    let whole = "GET http://evil.test?x=1 HTTP/1.1\r\nhost: evil.test\r\nconnection: close\r\n";
    let whole = format!("{whole}cookie: {}\r\n\r\n", ann.cookie);
    let answer = gateway.answers(&whole).await?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(backend.lock().seen.pop().unwrap().head.uri, "/?x=1");
    for target in ["OPTIONS *", "CONNECT evil.test:80"] {
        let request = format!(
            "{target} HTTP/1.1\r\nhost: evil.test\r\ncookie: {}\r\nconnection: close\r\n\r\n",
            ann.cookie
        );
        let answer = gateway.answers(&request).await?;
        assert!(answer.starts_with("HTTP/1.1 400"), "{target}: {answer}");
    }
    assert!(backend.lock().seen.is_empty());
    Ok(())
}

#[tokio::test]
async fn no_tokens_are_to_be_had_through_the_gateway() -> Result<()> {
    let (server, backend) = Gated::start().await;
    let gateway = Gateway::start(&server.base, 10).await?;
    let ann = Browser::log_in(&gateway.base, "ann", "-").await?;
    for path in ["/member/login", "/member/token/refresh?x", "/oauth/token"] {
        assert_eq!(said(&ann.get(path).await?).0, 404, "{path}");
    }
    assert_eq!(*backend.reissues.borrow(), 0);
    let refused = Browser::log_in(&gateway.base, "nobody", "-").await;
    assert_eq!(refused.err().unwrap().to_string(), "401 Unauthorized");
    let login = Request::post(format!("{}/login", gateway.base));
    let login = login.body(Full::from(r#"{"email":"bob"}"#))?;
    let answer = ann.send(login).await?;
    let cookie = answer.headers()[SET_COOKIE].to_str()?;
    assert!(cookie.contains("; HttpOnly; SameSite=Lax"), "{cookie}");
    let body: Value = serde_json::from_slice(answer.body())?;
    assert_eq!(body, json!({ "id": "bob", "email": "bob" }));
    Ok(())
}

// shows B75: the gateway tells the back end first, with the token that the logout then forgets.
#[tokio::test]
async fn whoever_logs_out_is_out_and_the_back_end_knows() -> Result<()> {
    let (server, backend) = Gated::start().await;
    let gateway = Gateway::start(&server.base, 10).await?;
    let ann = Browser::log_in(&gateway.base, "ann", "-").await?;
    let logout = Request::post(format!("{}/logout", gateway.base))
        .header("cookie", &*ann.cookie)
        .body(Full::default())?;
    let answer = ann.send(logout).await?;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(clears_the_cookie(&answer));
    assert_eq!(said(&ann.get("/x").await?), (401, "", "G-001".to_owned()));
    let told: Vec<_> = backend.lock().seen.drain(..).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].head.uri, "/member/logout");
    assert_eq!(told[0].user, "ann");
    Ok(())
}

// shows P9 for the gateway's own memory.
#[tokio::test]
async fn the_oldest_login_makes_room_for_one_too_many() -> Result<()> {
    let (server, _backend) = Gated::start().await;
    let gateway = Gateway::start(&server.base, 2).await?;
    let ann = Browser::log_in(&gateway.base, "ann", "-").await?;
    let bob = Browser::log_in(&gateway.base, "bob", "-").await?;
    let cy = Browser::log_in(&gateway.base, "cy", "-").await?;
    assert_eq!(gateway.sessions.len(), 2);
    assert_eq!(said(&ann.get("/x").await?).0, 401);
    assert_eq!(said(&bob.get("/x").await?).1, "bob");
    assert_eq!(said(&cy.get("/x").await?).1, "cy");
    Ok(())
}

// What the guide says: nothing is left of a session that had to make room.
#[tokio::test]
async fn a_session_that_is_dropped_leaves_no_task_behind() -> Result<()> {
    let sessions = Sessions::new(1);
    for _ in 0..10 {
        let session = Session::builder(reissue_fn(async |_| Err(ReissueError::refused("no"))));
        let session = session.build()?;
        session.login(TokenSet::new("a")?).await?;
        sessions.insert(session);
    }
    let metrics = tokio::runtime::Handle::current().metrics();
    let one_is_left = async {
        while metrics.num_alive_tasks() > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, one_is_left).await?;
    assert_eq!(sessions.len(), 1);
    Ok(())
}

/// The program, through cargo: one that lies about from an earlier build would prove nothing.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--quiet", "--example", "gateway"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.arg("--").args(arguments).stderr(Stdio::null());
    command
}

#[test]
fn the_program_tries_itself_out_and_says_how_it_went() -> Result<()> {
    let arguments = [
        "--users",
        "6",
        "--requests",
        "40",
        "--expiries",
        "2",
        "--json",
    ];
    let (ended, printed) = child::output(&mut program(&arguments));
    let outcome: Value = serde_json::from_str(printed.lines().last().unwrap_or_default())?;
    let expected = json!({
        "users": 6, "requests": 240, "ok": 240, "foreign": 0, "failed": 0,
        "reissues": outcome["reissues"], "wall_ms": outcome["wall_ms"],
    });
    assert_eq!(outcome, expected);
    assert!((1..=12).contains(&outcome["reissues"].as_u64().unwrap()));
    assert!(outcome["wall_ms"].is_u64());
    assert_eq!(ended.code(), Some(0));
    Ok(())
}

#[test]
fn the_program_ends_with_2_for_wrong_usage() -> Result<()> {
    for arguments in [["--users", "0"], ["--expiries", "6"], ["--serve", "--json"]] {
        let (ended, _) = child::output(&mut program(&arguments));
        assert_eq!(ended.code(), Some(2));
    }
    Ok(())
}

#[tokio::test]
async fn the_program_serves_until_its_input_closes() -> Result<()> {
    let mut running = program(&["--serve"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let line: Value = serde_json::from_str(&child::first_line(&mut running))?;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (base, user) = (text(&line["base"]), &line["user"]);
    let browser = Browser::log_in(&base, &text(&user["email"]), &text(&user["password"])).await?;
    let me: Value = serde_json::from_slice(browser.get("/member/me").await?.body())?;
    assert_eq!(me["id"], user["id"]);
    drop(running.stdin.take());
    assert!(child::wait(&mut running).success());
    Ok(())
}
