//! A world: sessions, what they meet, who does what with them, and what is to hold when all is quiet.

use std::future::Future;
use std::future::poll_fn;
use std::ops::Range;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http_body_util::Full;
use shuttle::future::JoinHandle;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_layer::Layer;
use tower_token_refresh::EndReason;
use tower_token_refresh::LostReply;
use tower_token_refresh::RefreshError;
use tower_token_refresh::Session;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::classify_fn;

use crate::api::Api;
use crate::api::classify;
use crate::book::Book;
use crate::issuer::Answer;
use crate::issuer::Issuer;
use crate::names::Pair;
use crate::report::happened;
use crate::report::violated;
use crate::schedule;
use crate::store::Call;
use crate::store::OwnStore;
use crate::store::SharedStore;

/// What can happen in a schedule.
#[derive(Debug)]
pub struct World {
    pub name: &'static str,
    pub sessions: usize,
    pub store: Kind,
    pub has_lock: bool,
    /// Timers end at any moment past their time, while others still run; else only when nothing else can run.
    pub is_late: bool,
    /// So many tasks, each with one of these acts, or with as many more as this.
    pub tasks: RangeInclusive<usize>,
    pub more: usize,
    pub acts: &'static [Act],
    pub begins: Begins,
    pub answers: &'static [Answer],
    pub calls: &'static [Call],
    /// How long things take between the session and the issuer or the API, and at the store.
    pub wire: Pause,
    pub disk: Pause,
    pub cool_down: Duration,
    pub reissue_timeout: Duration,
    pub store_timeout: Duration,
    pub quarantine: Duration,
    pub grace: Option<Duration>,
    /// How long an access token lives, if that is told: it is then refreshed ahead.
    pub lifetime: Option<Duration>,
}

/// Whose the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Own,
    Shared,
}

/// What there is at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// The store has a login, and nobody has read it.
    Stored,
    /// The same, and the API does not take its token any more.
    StoredExpired,
    /// The first session was logged in.
    LoggedIn,
    /// The same, and the API does not take its token any more.
    Expired,
}

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Sends a request.
    Request,
    /// The same, and gives it up at some point.
    Dropped,
    /// The same, and gives it up after some time.
    Timed,
    /// Asks for the access token.
    Token,
    /// Asks for a refresh, and may give it up.
    Refresh,
    Login,
    Logout,
    /// Hands a session what somebody outside has fetched.
    Adopt,
    /// From now on, the API does not take the token.
    Expire,
    /// From now on, the API calls the login over.
    Final,
    /// Waits for some time.
    Wait,
}

/// How long something takes.
#[derive(Debug, Clone)]
pub enum Pause {
    /// No time, but others may take some steps.
    Steps(usize),
    Millis(Range<u64>),
    Seconds(Range<u64>),
    /// Most take no time, and some take some.
    Mixed(Range<u64>),
}

/// Waits as long as that.
pub async fn pause(pause: &Pause) {
    let time = match pause {
        Pause::Steps(most) => {
            for _ in 0..fastrand::usize(0..=*most) {
                shuttle::future::yield_now().await;
            }
            return;
        }
        Pause::Millis(range) => Duration::from_millis(fastrand::u64(range.clone())),
        Pause::Seconds(range) => Duration::from_secs(fastrand::u64(range.clone())),
        Pause::Mixed(range) => match fastrand::u8(..4) {
            0 => Duration::from_millis(fastrand::u64(range.clone())),
            _ => return shuttle::future::yield_now().await,
        },
    };
    tokio::time::sleep(time).await;
}

/// P4: what anybody waits for has an end.
const PATIENCE: Duration = Duration::from_secs(150);

/// Until everything that goes on in the background has come to its end, the quarantine of a refresh token in doubt
/// aside.
const QUIET: Duration = Duration::from_secs(100);

/// And that as well.
const LONG: Duration = Duration::from_secs(400);

impl World {
    pub fn answer(&self) -> Answer {
        fastrand::choice(self.answers)
            .copied()
            .unwrap_or(Answer::Give)
    }

    pub fn call(&self) -> Call {
        fastrand::choice(self.calls).copied().unwrap_or(Call::Fast)
    }

    /// One schedule of it.
    pub fn run(&'static self) {
        drop(shuttle::future::spawn(schedule::clock()));
        shuttle::future::block_on(Run::new(self).live());
        schedule::stop();
    }
}

/// One schedule.
#[derive(Clone)]
struct Run {
    world: &'static World,
    book: Arc<Book>,
    sessions: Vec<Session>,
    /// Held while an act begins.
    beginning: Arc<tokio::sync::Mutex<()>>,
    own: Option<OwnStore>,
    shared: Option<SharedStore>,
}

impl Run {
    fn new(world: &'static World) -> Self {
        let book = Arc::new(Book::new(world));
        let own = OwnStore::new(book.clone(), world);
        let shared = SharedStore::new(book.clone(), world);
        let policy = match world.grace {
            Some(grace) => LostReply::grace(grace),
            None => LostReply::strict(),
        };
        let sessions = (0..world.sessions).map(|session| {
            let issuer = Issuer {
                book: book.clone(),
                world,
                session,
            };
            let builder = Session::builder(issuer)
                .reissue_timeout(world.reissue_timeout)
                .store_timeout(world.store_timeout)
                .lost_reply(policy.quarantine(world.quarantine))
                .cool_down(world.cool_down, world.cool_down * 8);
            let builder = match world.store {
                Kind::Own => builder.store(own.clone()),
                Kind::Shared => builder.shared_store(shared.of(session)),
            };
            let builder = match world.lifetime {
                Some(lifetime) => builder.refresh_ahead(lifetime / 4),
                None => builder,
            };
            match builder.build() {
                Ok(session) => session,
                Err(error) => violated("the explorer", &error.to_string()),
            }
        });
        Self {
            world,
            sessions: sessions.collect(),
            beginning: Arc::default(),
            book,
            own: (world.store == Kind::Own).then_some(own),
            shared: (world.store == Kind::Shared).then_some(shared),
        }
    }

    async fn live(self) {
        self.begin().await;
        let followers: Vec<_> = match self.world.store {
            Kind::Own if self.world.more > 0 => self.sessions.iter().map(follow).collect(),
            _ => Vec::new(),
        };
        let count = fastrand::usize(self.world.tasks.clone());
        let tasks: Vec<_> = (0..count).map(|_| self.task()).collect();
        for task in tasks {
            drop(task.await);
        }
        schedule::calm_down();
        self.book.heal();
        happened(|| "everybody has settled".to_owned());
        tokio::time::sleep(QUIET).await;
        self.check_quiet();
        self.check_alive().await;
        drop(self);
        // Until the last of them has looked once more whether anybody is left.
        tokio::time::sleep(QUIET).await;
        for follower in followers {
            drop(follower.await);
        }
        let left = tokio::model::tasks();
        if left > 0 {
            violated("P14", &format!("{left} tasks outlive their session"));
        }
    }

    async fn begin(&self) {
        let first = self.book.log_in();
        match self.world.begins {
            Begins::Stored | Begins::StoredExpired => {
                if let Some(store) = &self.own {
                    store.fill(self.tokens(first));
                }
                if let Some(store) = &self.shared {
                    store.fill(self.tokens(first));
                }
                for session in 0..self.sessions.len() {
                    let act = self.book.act_begins(session, Some(first.login));
                    self.book.act_ends(act, true);
                }
            }
            Begins::LoggedIn | Begins::Expired => self.log_in(0, first).await,
        }
        if matches!(self.world.begins, Begins::Expired | Begins::StoredExpired) {
            self.book.expire();
        }
    }

    fn tokens(&self, pair: Pair) -> TokenSet {
        let tokens = pair.tokens();
        match self.world.lifetime {
            Some(lifetime) => tokens.with_expires_in(lifetime),
            None => tokens,
        }
    }

    fn task(&self) -> JoinHandle<()> {
        let this = self.clone();
        let session = fastrand::usize(..self.sessions.len());
        let acts: Vec<Act> = (0..=fastrand::usize(..=self.world.more))
            .filter_map(|_| fastrand::choice(self.world.acts).copied())
            .collect();
        shuttle::future::spawn(async move {
            for act in acts {
                let began = Instant::now();
                happened(|| format!("session {session}: {act:?}"));
                this.act(session, act).await;
                if schedule::is_calm() && began.elapsed() > PATIENCE {
                    let elapsed = began.elapsed();
                    violated("P4", &format!("{act:?} has taken {elapsed:?}"));
                }
            }
        })
    }

    async fn act(&self, session: usize, act: Act) {
        match act {
            Act::Request => drop(self.request(session).await),
            Act::Dropped => drop(dropped(self.request(session)).await),
            Act::Timed => {
                let time = Duration::from_millis(fastrand::u64(..8000));
                let request = pin!(self.request(session));
                let timer = pin!(tokio::time::sleep(time));
                let _ = futures_util::future::select(request, timer).await;
            }
            Act::Token => drop(self.sessions[session].token().await),
            Act::Refresh => {
                let _refreshing = Refreshing::new(&self.book);
                let refresh = self.sessions[session].refresh();
                match fastrand::bool() {
                    true => drop(refresh.await),
                    false => drop(dropped(refresh).await),
                }
            }
            Act::Login => {
                let pair = self.book.log_in();
                self.log_in(session, pair).await;
            }
            Act::Logout => {
                let gives_up = fastrand::u8(..3) == 0;
                self.begin_act(session, None, gives_up, self.sessions[session].logout())
                    .await;
            }
            Act::Adopt => self.adopt(session).await,
            Act::Expire => self.book.expire(),
            Act::Final => self.book.declare_over(),
            Act::Wait => pause(&Pause::Millis(1..20_000)).await,
        }
    }

    async fn request(&self, session: usize) -> Option<StatusCode> {
        let api = Api {
            book: self.book.clone(),
            request: self.book.request_begins(session),
        };
        let layer = TokenRefreshLayer::new("https://api.test", self.sessions[session].clone());
        let layer = match layer {
            Ok(layer) => layer.classify(classify_fn(classify)),
            Err(error) => violated("the explorer", &error.to_string()),
        };
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = http::Uri::from_static("https://api.test/");
        match layer.layer(api).oneshot(request).await {
            Ok(response) => {
                happened(|| format!("session {session} gets {}", response.status()));
                Some(response.status())
            }
            Err(error) => {
                happened(|| format!("session {session} gets no answer: {error}"));
                None
            }
        }
    }

    async fn log_in(&self, session: usize, pair: Pair) {
        let gives_up = self.world.acts.contains(&Act::Login) && fastrand::u8(..3) == 0;
        let login = self.sessions[session].login(self.tokens(pair));
        self.begin_act(session, Some(pair.login), gives_up, login).await;
    }

    /// Begins a login or a logout. It counts from its first poll on, and nobody adopts anything for the login before
    /// it between the moment at which the book is told and that poll.
    async fn begin_act(
        &self,
        session: usize,
        login: Option<usize>,
        gives_up: bool,
        act: impl Future<Output = Result<(), RefreshError>>,
    ) {
        let mut act = Box::pin(act);
        let beginning = self.beginning.lock().await;
        let acting = Acting::new(&self.book, session, login);
        let first = poll_fn(|cx| Poll::Ready(act.as_mut().poll(cx))).await;
        drop(beginning);
        match first {
            Poll::Ready(outcome) => acting.end(outcome.is_ok()),
            Poll::Pending if gives_up => drop(dropped(act).await),
            Poll::Pending => acting.end(act.await.is_ok()),
        }
    }

    /// A pair that somebody outside has got for the login that is latest: he has polled once, at the least.
    async fn adopt(&self, session: usize) {
        let beginning = self.beginning.lock().await;
        let latest = self.book.latest(session);
        let [Some(login)] = latest[..] else {
            return;
        };
        if !self.book.is_idle(session) {
            return;
        }
        let Some(pair) = self.book.reissue_outside(login) else {
            return;
        };
        happened(|| format!("session {session} adopts {pair:?}"));
        let mut adopt = Box::pin(self.sessions[session].adopt(self.tokens(pair)));
        let adopting = self.book.adopting(session, login);
        let first = poll_fn(|cx| Poll::Ready(adopt.as_mut().poll(cx))).await;
        drop((adopting, beginning));
        if first.is_ready() {
            return;
        }
        match fastrand::bool() {
            true => drop(dropped(adopt).await),
            false => drop(adopt.await),
        }
    }

    /// What the store holds.
    fn stored(&self) -> Option<TokenSet> {
        let own = self.own.as_ref().and_then(OwnStore::peek);
        let shared = self.shared.as_ref().map(SharedStore::peek);
        own.or_else(|| shared?.tokens().cloned())
    }

    /// All that goes on in the background is over: what everybody is told, and what the store holds, is one.
    fn check_quiet(&self) {
        let stored = self.stored();
        for (number, session) in self.sessions.iter().enumerate() {
            let status = session.status();
            let wrong = |what: &str| self.wrong("P13", what, number);
            match (status, &stored) {
                (SessionStatus::Unloaded, _) => {}
                (SessionStatus::LoggedIn { saved: false, .. }, _) => wrong("it is not saved"),
                (SessionStatus::LoggedIn { .. }, None) => wrong("the store has no tokens"),
                (SessionStatus::LoggedIn { in_doubt, .. }, Some(tokens)) => {
                    if in_doubt != tokens.in_doubt().is_some() {
                        wrong("the doubt of one is not that of the other");
                    }
                }
                (_, Some(_)) => wrong("the store still has tokens"),
                (_, None) => {}
            }
            self.check_latest(number, status, stored.as_ref());
        }
    }

    /// P6, P7, P8: a session is in the login, or logout, that came last, and its end was said by somebody.
    fn check_latest(&self, number: usize, status: SessionStatus, stored: Option<&TokenSet>) {
        // Where a store fails, nobody can say which of two that share it came last.
        let is_certain =
            self.shared.is_none() || (!self.world.is_late && self.book.failures() == 0);
        let latest = self.latest(number);
        if !is_certain {
            return;
        }
        let wrong = |promise: &str, what: &str| self.wrong(promise, what, number);
        match status {
            SessionStatus::Ended { reason, .. } => {
                // One that was over already stays so when it is logged out.
                let is_out = latest.contains(&None);
                let logins = latest.iter().flatten();
                let mut may_be_over = logins.map(|login| self.book.may_be_over(*login));
                if !is_out && !may_be_over.any(|it| it) {
                    wrong("P6", "nobody has said that it is over");
                }
                if reason == EndReason::Replaced {
                    wrong("P7", "no session ends for this reason");
                }
            }
            SessionStatus::LoggedIn { .. } => {
                let login = stored.map(|tokens| Pair::of(tokens).login);
                let is_stray = login.is_some_and(|login| self.book.is_stray(login));
                if !latest.contains(&login) && !is_stray {
                    wrong("P8", "it is in a login that is over");
                }
            }
            SessionStatus::LoggedOut if !latest.contains(&None) => {
                wrong("P8", "nobody has logged out since");
            }
            _ => {}
        }
    }

    fn latest(&self, number: usize) -> Vec<Option<usize>> {
        match self.shared {
            None => self.book.latest(number),
            Some(_) => self.book.latest_of_all(),
        }
    }

    fn wrong(&self, promise: &str, what: &str, number: usize) -> ! {
        let status = self.sessions[number].status();
        let stored = match self.stored() {
            Some(tokens) => format!("{:?}", (Pair::of(&tokens), tokens.in_doubt())),
            None => "nothing".to_owned(),
        };
        let latest = self.latest(number);
        violated(
            promise,
            &format!(
                "{what}: session {number} is {status:?}, the store has {stored}, the latest acts are {latest:?}"
            ),
        )
    }

    /// P3, P5: whatever has happened, a login that the issuer goes on with works, and the store has what is newest.
    async fn check_alive(&self) {
        let mut answers = Vec::new();
        for number in 0..self.sessions.len() {
            answers.push(self.request(number).await);
        }
        if answers.iter().any(|answer| *answer != Some(StatusCode::OK)) {
            tokio::time::sleep(LONG).await;
            for (number, answer) in answers.iter_mut().enumerate() {
                *answer = self.request(number).await;
            }
        }
        let mut tokens = Vec::new();
        for session in &self.sessions {
            tokens.push(session.token().await.ok());
        }
        // So that those who share it have heard of it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.check_quiet();
        let stored = self.stored();
        for (number, session) in self.sessions.iter().enumerate() {
            let Some(stored) = stored.as_ref().filter(|_| session.status().is_logged_in()) else {
                continue;
            };
            let pair = Pair::of(stored);
            let wrong = |what: &str| self.wrong("P3", what, number);
            if self.book.is_stray(pair.login) {
                continue;
            }
            let is_sound = self.book.is_sound(pair.login);
            let is_answered = answers[number] == Some(StatusCode::OK);
            match (is_sound, is_answered) {
                (true, false) => wrong("the login is good, and its requests are rejected"),
                (false, false) => wrong("the issuer has ended this login, and nobody was told"),
                (true, true) if Pair::of_refresh(stored) != Some(self.book.newest(pair.login)) => {
                    wrong("the newest refresh token is lost");
                }
                _ => {}
            }
            let token = tokens[number]
                .as_ref()
                .map(|token| Pair::parse(token.expose()));
            if is_answered && self.shared.is_none() && token != Some(pair) {
                wrong("the session has another token than the store");
            }
        }
    }
}

/// P7: watches what is told of a session.
fn follow(session: &Session) -> JoinHandle<()> {
    let mut status = session.subscribe();
    shuttle::future::spawn(async move {
        let mut before = *status.borrow();
        while status.changed().await.is_ok() {
            let now = *status.borrow_and_update();
            happened(|| format!("told: {now:?}"));
            if before.end_reason().is_some() && now.end_reason().is_some() {
                violated("P7", &format!("{now:?} was told after {before:?}"));
            }
            before = now;
        }
    })
}

/// Polls a future some times, at least once, and drops it.
async fn dropped<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = fastrand::usize(1..8);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            // It may be woken no more.
            if fastrand::bool() {
                cx.waker().wake_by_ref();
            }
            match left {
                0 => Poll::Ready(None),
                _ => Poll::Pending,
            }
        }
    })
    .await
}

/// A login or a logout, until it is over or given up.
struct Acting<'a> {
    book: &'a Book,
    act: usize,
    is_done: bool,
}

impl<'a> Acting<'a> {
    fn new(book: &'a Book, session: usize, login: Option<usize>) -> Self {
        Self {
            book,
            act: book.act_begins(session, login),
            is_done: false,
        }
    }

    fn end(mut self, is_done: bool) {
        self.is_done = is_done;
    }
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        self.book.act_ends(self.act, self.is_done);
    }
}

/// A call of `refresh`, until it is over or given up.
struct Refreshing<'a>(&'a Book);

impl<'a> Refreshing<'a> {
    fn new(book: &'a Book) -> Self {
        book.refresh_begins();
        Self(book)
    }
}

impl Drop for Refreshing<'_> {
    fn drop(&mut self) {
        self.0.refresh_ends();
    }
}
