//! A back end to hold clients against: logins, short-lived access tokens, refresh tokens in a database.
//!
//! The `backend` example runs it as a program; other examples and the tests include this module and
//! steer it at run time (`expire_access_tokens`, `set_round`, …), which makes rare moments repeatable.

// Each program that includes this module uses a part of it.
#![allow(dead_code)]

mod app;
mod greeter;
#[path = "../../greeter/mod.rs"]
pub mod greeter_v1;
mod guard;
mod listen;
mod logins;
mod oauth;
mod pace;
mod passwords;
mod refusal;
mod routes;
mod secrets;
mod stats;
mod store;
mod tokens;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use serde::Serialize;
use tokio::{sync::oneshot, task::JoinHandle};

use app::App;
pub use oauth::Client;
pub use pace::Round;
use refusal::Refusal;
pub use stats::Stats;

const DEMO_EMAIL: &str = "demo@example.com";
const DEMO_PASSWORD: &str = "demo-password";

/// What the command line of the `backend` example says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Where gRPC is served on 127.0.0.1, if it is; 0 takes a free port.
    pub grpc_port: Option<u16>,
    /// The database's file; in memory if `None`.
    pub db: Option<PathBuf>,
    pub access_ttl: Duration,
    pub refresh_ttl: Duration,
    /// How long the answer of a reissue is kept back. Its work is done on arrival.
    pub reissue_delay: Duration,
    pub reissue_mode: ReissueMode,
    /// The code for an access token that has expired or was superseded.
    pub expired_code: String,
    /// Each refresh token works once; using it again ends its family.
    pub rotate: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 0,
            grpc_port: None,
            db: None,
            access_ttl: Duration::from_secs(2),
            refresh_ttl: Duration::from_secs(14 * 24 * 60 * 60),
            reissue_delay: Duration::ZERO,
            reissue_mode: ReissueMode::Ok,
            expired_code: "T-002".to_owned(),
            rotate: false,
        }
    }
}

/// How reissues end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReissueMode {
    /// With new tokens.
    #[default]
    Ok,
    /// Refused, as if the refresh token were dead.
    Fail,
    /// With a fault of the server.
    Error,
    /// With access tokens that have expired already.
    Dead,
}

/// Somebody who can log in.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    pub id: String,
    pub email: String,
    pub password: String,
}

/// A running back end. Dropping it cuts its connections; [`Backend::shutdown`] lets answers finish.
pub struct Backend {
    app: Arc<App>,
    user: User,
    http: Server,
    grpc: Option<Server>,
}

/// What listens on one port, until it is dropped.
struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Backend {
    /// Listens on loopback, with the demonstration user already in the database.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let (port, grpc_port) = (config.port, config.grpc_port);
        let app = Arc::new(App::open(config).await?);
        let user = app.put_user(DEMO_EMAIL, DEMO_PASSWORD).await?;
        let http = Server::start(port, routes::router(&app))?;
        let grpc = grpc_port.map(|port| Server::start(port, greeter::router(&app)));
        Ok(Self {
            app,
            user,
            http,
            grpc: grpc.transpose()?,
        })
    }

    /// `http://127.0.0.1:PORT`
    pub fn base(&self) -> String {
        self.http.base()
    }

    pub fn addr(&self) -> SocketAddr {
        self.http.addr
    }

    /// The same for gRPC, where it is served.
    pub fn grpc(&self) -> Option<String> {
        self.grpc.as_ref().map(Server::base)
    }

    /// The demonstration user.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The client that may use `/oauth/token` in its own name.
    pub fn client(&self) -> Client {
        Client::demo()
    }

    /// Adds a user, or gives the one with this e-mail address a new password.
    pub async fn add_user(&self, email: &str, password: &str) -> anyhow::Result<User> {
        self.app.put_user(email, password).await
    }

    /// Every access token issued until now has expired.
    pub fn expire_access_tokens(&self) {
        self.app.tokens.expire_all();
    }

    /// For the access tokens issued from now on.
    pub fn set_access_ttl(&self, ttl: Duration) {
        self.app.configure(|config| config.access_ttl = ttl);
    }

    pub fn set_reissue_mode(&self, mode: ReissueMode) {
        self.app.configure(|config| config.reissue_mode = mode);
    }

    /// The next two reissues fail, and none after them: with a fault of the server, and with 503 and a
    /// `Retry-After` of two seconds. Nothing is spent by them.
    pub fn fail_two_reissues(&self) {
        self.app.fail_next([Refusal::Broken, Refusal::Busy(2)]);
    }

    pub fn set_reissue_delay(&self, delay: Duration) {
        self.app.configure(|config| config.reissue_delay = delay);
    }

    /// Begins a round, which decides when the protected routes answer; `None` goes back to answering
    /// at once. Whatever the round before still held is let go.
    pub fn set_round(&self, round: Option<Round>) {
        self.app.pace.begin(round);
    }

    /// The same as `GET /stats`.
    pub fn stats(&self) -> Stats {
        self.app.counters.snapshot()
    }

    pub fn reset_stats(&self) {
        self.app.counters.reset();
    }

    /// Takes no more connections, and waits for the answers under way (two seconds at most).
    pub async fn shutdown(self) {
        self.set_round(None);
        let grpc = async {
            if let Some(grpc) = self.grpc {
                grpc.shutdown().await;
            }
        };
        tokio::join!(self.http.shutdown(), grpc);
    }
}

impl Server {
    fn start(port: u16, router: Router) -> anyhow::Result<Self> {
        let listener =
            listen::bind(port).with_context(|| format!("can't listen on port {port}"))?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        Ok(Self {
            addr,
            stop: Some(stop),
            task: tokio::spawn(listen::serve(listener, router, stopped)),
        })
    }

    fn base(&self) -> String {
        format!("http://{}", self.addr)
    }

    async fn shutdown(mut self) {
        self.stop.take();
        // An error here is a panic or a cancelled task: stopped in either case.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
