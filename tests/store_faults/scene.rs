//! Processes that share a login, each with a way of its own to the server, and an issuer that knows whether
//! they behave.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use tokio::time::timeout;
use tower_token_refresh::EndReason;
use tower_token_refresh::LostReply;
use tower_token_refresh::Record;
use tower_token_refresh::Reissue;
use tower_token_refresh::Session;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::reissue_fn;

use crate::kind::Real;
use crate::kind::Server;
use crate::proxy::Proxy;
use crate::shared;
use crate::support::Answer;
use crate::support::World;
use crate::support::refresh_error;
use crate::way::Way;

pub type Process = shared::Process<Way>;

/// Far more than anything here takes.
pub const HANG: Duration = Duration::from_secs(90);

const STORE_TIMEOUT: Duration = Duration::from_millis(500);

/// Nobody waits for it to be over, where all goes well.
const QUARANTINE: Duration = Duration::from_secs(6);

pub struct Scene {
    pub world: World,
    pub server: Server,
    /// The store, past all faults but the server's own.
    pub store: Real,
    pub processes: Vec<Process>,
    pub proxies: Vec<Proxy>,
    /// How the sessions are built that are started from now on.
    pub tune: fn(SessionBuilder) -> SessionBuilder,
    session: String,
    /// Reissues of processes that had no claim in the store.
    unclaimed: Arc<AtomicUsize>,
}

impl Scene {
    /// Processes that are logged in, on a server that may have other sessions.
    pub async fn new(server: &Server, processes: usize) -> Self {
        let scene = Self::empty(server, processes).await;
        scene.log_in().await;
        scene
    }

    pub async fn empty(server: &Server, processes: usize) -> Self {
        let session = format!("session-{:016x}", fastrand::u64(..));
        let mut scene = Self {
            world: World::new(),
            store: server.store(server.port(), &session),
            server: server.clone(),
            processes: Vec::new(),
            proxies: Vec::new(),
            tune: |builder| builder,
            session,
            unclaimed: Arc::default(),
        };
        for _ in 0..processes {
            scene.start().await;
        }
        scene
    }

    /// Other processes of the same login.
    pub fn of(other: &Self) -> Self {
        Self {
            world: other.world.clone(),
            server: other.server.clone(),
            store: other.store.clone(),
            processes: Vec::new(),
            proxies: Vec::new(),
            tune: other.tune,
            session: other.session.clone(),
            unclaimed: other.unclaimed.clone(),
        }
    }

    /// One more process.
    pub async fn start(&mut self) -> &Process {
        self.start_with(|store| store).await
    }

    pub async fn start_with(&mut self, options: impl FnOnce(Real) -> Real) -> &Process {
        let proxy = Proxy::to(self.server.port()).await;
        let store = self.server.store(proxy.address.port(), &self.session);
        self.proxies.push(proxy);
        let store = Way::to(options(store));
        let session = (self.tune)(self.builder(&store)).build().unwrap();
        self.processes.push(Process {
            client: self.world.client(&session),
            session,
            store,
        });
        &self.processes[self.processes.len() - 1]
    }

    fn builder(&self, store: &Way) -> SessionBuilder {
        let moment = Duration::from_millis(1);
        let issuer = Arc::new(self.world.reissue());
        let (unclaimed, way) = (self.unclaimed.clone(), store.clone());
        let issuer = reissue_fn(move |request| {
            if !way.has_claim() {
                unclaimed.fetch_add(1, Ordering::Relaxed);
            }
            let issuer = issuer.clone();
            async move { issuer.reissue(request).await }
        });
        Session::builder(issuer)
            .shared_store(store.clone())
            .cool_down(moment, moment)
            .store_timeout(STORE_TIMEOUT)
            .lost_reply(LostReply::strict().quarantine(QUARANTINE))
    }

    /// All ways lead to this server from now on.
    pub fn fail_over(&mut self, to: &Server) {
        self.server = to.clone();
        self.store = to.store(to.port(), &self.session);
        for proxy in &self.proxies {
            proxy.lead_to(to.port());
            proxy.cut();
        }
    }

    pub async fn log_in(&self) {
        // On a busy machine it may have to be saved a second time.
        let _ = self.processes[0]
            .session
            .login(self.world.tokens("u"))
            .await;
        let saved = |it: &SessionStatus| matches!(it, SessionStatus::LoggedIn { saved: true, .. });
        in_time(self.processes[0].until(saved)).await;
        for process in &self.processes {
            ok(process).await;
        }
    }

    /// The record that the server has by now.
    pub async fn record(&self) -> Record {
        in_time(async {
            loop {
                if let Ok((record, _)) = self.store.read().await {
                    return record;
                }
                self.store.changed(0).await;
            }
        })
        .await
    }

    /// The two processes of most tests.
    pub fn two(&self) -> [&Process; 2] {
        [&self.processes[0], &self.processes[1]]
    }

    pub async fn access(&self) -> Option<String> {
        access(&self.record().await).map(str::to_owned)
    }

    /// Waits until the server holds such a record.
    pub async fn until(&self, mut condition: impl FnMut(&Record) -> bool) {
        in_time(async {
            loop {
                let record = self.record().await;
                if condition(&record) {
                    return;
                }
                self.store.changed(record.version()).await;
            }
        })
        .await;
    }

    /// The server is back: all of them get an answer with the same token, which the store has.
    pub async fn goes_on(&self) {
        for process in &self.processes {
            ok(process).await;
        }
        self.agree().await;
    }

    /// All of them use what the store has, sooner or later.
    pub async fn agree(&self) {
        in_time(async {
            loop {
                let stored = self.access().await;
                let mut all = self.processes.iter().map(|it| it.session.token());
                let all = join_all(&mut all).await;
                let own = all.into_iter().map(|it| it.unwrap().expose().to_owned());
                if stored.is_some() && own.map(Some).all(|own| own == stored) {
                    return;
                }
            }
        })
        .await;
    }

    /// The token expires once more, and it takes one reissue.
    pub async fn one_more_round(&self) {
        let before = self.world.counts().reissues;
        self.world.expire();
        self.goes_on().await;
        assert_eq!(self.world.counts().reissues, before + 1);
    }

    /// So often was the issuer asked, each time under a claim, and never with a token that was used.
    #[track_caller]
    pub fn has_reissued(&self, times: usize) {
        let counts = self.world.counts();
        assert_eq!(
            (counts.reissues, counts.reuses, self.unclaimed()),
            (times, 0, 0),
            "reissues, reuses, reissues without a claim"
        );
    }

    fn unclaimed(&self) -> usize {
        self.unclaimed.load(Ordering::Relaxed)
    }
}

pub fn access(record: &Record) -> Option<&str> {
    Some(record.tokens()?.access_token().expose())
}

pub async fn in_time<F: Future>(call: F) -> F::Output {
    timeout(HANG, call).await.expect("it hangs")
}

/// An answer comes, whichever.
pub async fn get(process: &Process) -> Answer {
    in_time(process.get()).await
}

/// Its requests are answered as soon as it can be: until then, with the reason.
pub async fn ok(process: &Process) {
    in_time(async {
        loop {
            match process.client.get().await {
                Ok(answer) if answer.status == StatusCode::OK => return,
                Ok(answer) => is_told_why(&answer),
                // On a busy machine, what it was started with could not be read in time.
                Err(error) => assert!(refresh_error(&error).is_transient(), "{error:?}"),
            }
            look(process).await;
        }
    })
    .await;
}

/// Asking a server takes its time, and that is what there is to be waited for.
async fn look(process: &Process) {
    let _ = process.store.store.read().await;
}

/// How it ended, as one knows who has been started since.
pub async fn end_of(process: &Process) -> Option<EndReason> {
    in_time(async {
        loop {
            match process.session.token().await {
                Err(why) if !why.is_transient() => return why.end_reason(),
                Err(_) => look(process).await,
                Ok(_) => return None,
            }
        }
    })
    .await
}

/// It is the server's answer, and why there is no better one; the session goes on.
#[track_caller]
pub fn is_told_why(answer: &Answer) {
    let why = answer.why.as_ref().expect("it says why");
    assert!(!why.is_session_ended(), "{why:?}");
}

/// Its requests are those of this user, as soon as it can be.
pub async fn is_of(process: &Process, user: &str) {
    in_time(async {
        while process.get().await.user != user {
            look(process).await;
        }
    })
    .await;
}

/// A valid token is used, whatever becomes of the store.
pub async fn is_served(process: &Process) {
    let answer = get(process).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.why);
    assert!(answer.why.is_none());
}
