//! Random schedules for processes that share a login, and what must hold in all of them.
//!
//! A refresh token may be presented again only where nobody alive has, or can get, its successor: whoever
//! has it must have had a line to the store for the last 8 s, so that it could save it. Where a failover
//! has lost a record, one that has claimed before those who remember could write it back (`BACK` without a call
//! that fails or dawdles), or any where none of them was connected, is excused as well; one that has the
//! successor itself never is.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::timeout;
use tower::Layer;
use tower::service_fn;
use tower_token_refresh::BoxError;
use tower_token_refresh::LostReply;
use tower_token_refresh::Record;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReissueRequest;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

use super::shared::Common;
use super::support::Client;
use super::support::ORIGIN;
use super::support::get;

/// By then those who are connected have written back what was lost.
const BACK: Duration = Duration::from_millis(1500);

/// No answer takes so long.
const HANGS: Duration = Duration::from_secs(700);

const LINE: Duration = Duration::from_secs(8);

/// No call is waited for longer.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub deaths: bool,
    pub issuer: bool,
    pub lines: bool,
    pub logins: bool,
    pub rollbacks: bool,
    pub clocks: bool,
    /// Tokens say how long they live, and are refreshed ahead of that.
    pub lifetimes: bool,
    /// The store loses nothing, and says so.
    pub keeps: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            deaths: true,
            issuer: true,
            lines: true,
            logins: true,
            rollbacks: false,
            clocks: true,
            lifetimes: false,
            keeps: false,
        }
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

async fn pass(time: Duration) {
    if !time.is_zero() {
        let _ = timeout(time, pending::<()>()).await;
    }
}

fn odds(percent: u32) -> bool {
    fastrand::u32(..100) < percent
}

/// `r-u7-12`: of the seventh login.
fn parts(token: &str) -> (u64, u64) {
    let mut parts = token.split('-').skip(1);
    let user = parts.next().unwrap()[1..].parse().unwrap();
    (user, parts.next().unwrap().parse().unwrap())
}

#[derive(Debug, Clone)]
struct Op {
    process: usize,
    /// `None` for a logout.
    user: Option<u64>,
    start: Instant,
    end: Option<Instant>,
    ok: bool,
    blind: bool,
}

#[derive(Default)]
struct Seat {
    alive: bool,
    /// Its session was dropped, and the process lives on.
    left: bool,
    up_since: Option<Instant>,
    /// Of each login the newest refresh token that it has seen.
    has: BTreeMap<u64, u64>,
    memory: (u64, u64),
    seen: Option<(u64, Option<(u64, u64)>)>,
    claimed_at: Option<Instant>,
    /// The last call that failed or dawdled is over then.
    troubled_until: Option<Instant>,
    /// It fails, does not answer, or dawdles in so many of a hundred calls.
    bad: u32,
}

#[derive(Default)]
struct Facts {
    began: Option<Instant>,
    calm: bool,
    serial: u64,
    users: u64,
    good: BTreeSet<String>,
    spent: BTreeMap<String, (u64, Instant, TokenSet)>,
    revoked: BTreeSet<u64>,
    /// Answers that will come, by process.
    coming: BTreeMap<String, usize>,
    grace: Option<Duration>,
    lifetime: Option<Duration>,
    bad_issuer: u32,
    patient: bool,
    notices: u32,
    seats: Vec<Seat>,
    requests: BTreeMap<String, Vec<Option<u64>>>,
    next_request: u64,
    ops: Vec<Op>,
    history: Vec<Record>,
    fallen_back: Option<Instant>,
    /// Since then a failover has lost what nobody could write back.
    lost_for_good: bool,
    /// A clock was shifted, which here is done to the store's times as that process sees them. Epochs are such
    /// times as well, so that those it makes are not to be compared.
    shifts: bool,
    reuses: usize,
    excused: usize,
    reissues: usize,
    sent: usize,
    log: Vec<String>,
    wrong: Vec<String>,
}

impl Facts {
    fn note(&mut self, text: String) {
        let at = self.began.map(|it| it.elapsed().as_millis()).unwrap_or(0);
        self.log.push(format!("{at:>7} {text}"));
    }

    /// Somebody is gone who may have been the one to write back what was lost.
    fn forget(&mut self) {
        let fell = self.fallen_back.map(|it| it.elapsed());
        self.lost_for_good |= fell.is_some_and(|it| it < LINE);
    }

    fn hangs(&self) -> Duration {
        if self.patient { HANGS } else { HANGS / 7 }
    }

    fn wrong(&mut self, text: String) {
        self.note(format!("WRONG {text}"));
        self.wrong.push(text);
    }

    fn tokens(&mut self, user: u64) -> TokenSet {
        self.serial += 1;
        let (access, refresh) = (
            format!("a-u{user}-{}", self.serial),
            format!("r-u{user}-{}", self.serial),
        );
        self.good.insert(access.clone());
        let tokens = TokenSet::new(access)
            .unwrap()
            .with_refresh_token(refresh)
            .unwrap();
        match self.lifetime {
            Some(lifetime) => tokens.with_expires_in(lifetime),
            None => tokens,
        }
    }

    fn has(&mut self, process: usize, tokens: Option<&TokenSet>) {
        if let Some(refresh) = tokens.and_then(TokenSet::refresh_token) {
            let (user, serial) = parts(refresh.expose());
            let newest = self.seats[process].has.entry(user).or_default();
            *newest = serial.max(*newest);
        }
    }

    /// Those processes that have a successor of this token.
    fn seats_with(&self, refresh: &str) -> impl Iterator<Item = (usize, &Seat)> {
        let (user, serial) = parts(refresh);
        self.seats.iter().enumerate().filter(move |(_, seat)| {
            let is_connected = seat.up_since.is_some_and(|it| it.elapsed() >= LINE);
            let has = seat.has.get(&user).is_some_and(|has| *has > serial);
            seat.alive && !seat.left && has && is_connected
        })
    }

    /// When those processes could have written it back, after this failover.
    fn is_back_at(&self, refresh: &str, fell: Instant) -> Instant {
        let seats = self.seats_with(refresh);
        let first = seats
            .map(|(_, seat)| seat.troubled_until.unwrap_or(fell))
            .min();
        fell.max(first.unwrap_or(fell)) + BACK
    }

    /// Who has a successor of this token, or gets it.
    fn holders(&self, refresh: &str, stored: &Record) -> Vec<String> {
        let (user, serial) = parts(refresh);
        let mut holders: Vec<_> = self
            .seats_with(refresh)
            .map(|(n, _)| format!("process {n}"))
            .collect();
        let stored = stored.tokens().and_then(TokenSet::refresh_token);
        if stored.is_some_and(|it| {
            let (its, newer) = parts(it.expose());
            its == user && newer > serial
        }) {
            holders.push("the store".to_owned());
        }
        if self.coming.get(refresh).is_some_and(|n| *n > 0) {
            holders.push("an answer on its way".to_owned());
        }
        holders
    }
}

#[derive(Clone)]
struct Sim {
    facts: Arc<Mutex<Facts>>,
    common: Common,
}

enum Fate {
    Answered,
    Transient,
    Refused,
    /// The bytes never arrive.
    NotArrived,
    /// The answer is lost: an error, or nothing at all.
    Lost,
    Hang,
}

impl Sim {
    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    fn issuer_fate(&self) -> (Fate, Duration, Duration) {
        let facts = self.lock();
        let patient = facts.patient;
        if facts.calm || !odds(facts.bad_issuer) {
            return (
                Fate::Answered,
                ms(fastrand::u64(..20)),
                ms(fastrand::u64(..20)),
            );
        }
        let fate = match fastrand::u32(..13) {
            0..2 => Fate::Transient,
            2 => Fate::Refused,
            3 => Fate::NotArrived,
            4 => Fate::Lost,
            5 => Fate::Hang,
            _ => Fate::Answered,
        };
        let slower = if patient { 8 } else { 1 };
        (
            fate,
            ms(fastrand::u64(..4000) * slower),
            ms(fastrand::u64(..5000) * slower),
        )
    }

    async fn reissue(
        self,
        process: usize,
        request: ReissueRequest,
    ) -> Result<TokenSet, ReissueError> {
        let refresh = request.refresh_token().unwrap().expose().to_owned();
        let (fate, there, back) = self.issuer_fate();
        let stored = self.common.record().await;
        if !self.lock().seats[process].alive {
            return pending().await;
        }
        let (holders, has_itself) = {
            let mut facts = self.lock();
            facts.reissues += 1;
            let (user, serial) = parts(&refresh);
            let has_itself = facts.seats[process]
                .has
                .get(&user)
                .is_some_and(|it| *it > serial);
            let holders = facts.holders(&refresh, &stored);
            let claimed = facts.seats[process].claimed_at.map(|it| it.elapsed());
            facts.note(format!(
                "p{process} presents {refresh}, claimed {claimed:?} ago; holders {holders:?}; there {there:?} back {back:?}"
            ));
            (holders, has_itself)
        };
        let claimed_at = self.lock().seats[process].claimed_at;
        let (tell, told) = oneshot::channel();
        match fate {
            Fate::Transient => {
                pass(there).await;
                self.lock().note(format!("p{process} gets: try later"));
                return Err(ReissueError::transient("scripted"));
            }
            Fate::Refused => {
                pass(there).await;
                let mut facts = self.lock();
                facts.note(format!("p{process} is refused {refresh}"));
                facts.revoked.insert(parts(&refresh).0);
                return Err(ReissueError::refused("scripted"));
            }
            Fate::NotArrived => {
                self.lock()
                    .note(format!("{refresh} of p{process} never arrives"));
                return pending().await;
            }
            _ => {}
        }
        let comes = matches!(fate, Fate::Answered);
        let this = self.clone();
        drop(tokio::spawn(async move {
            pass(there).await;
            let answer = this
                .process(process, &refresh, &holders, has_itself, claimed_at)
                .await;
            let tell: oneshot::Sender<_> = tell;
            let lives = this.lock().seats[process].alive;
            let reaches = comes && lives && !tell.is_closed() && answer.is_ok();
            if reaches {
                *this.lock().coming.entry(refresh.clone()).or_default() += 1;
            }
            // It comes unless whoever waits gives up.
            if reaches {
                let mut tell = tell;
                let gone = timeout(back, tell.closed()).await.is_ok();
                *this.lock().coming.get_mut(&refresh).unwrap() -= 1;
                if !gone && this.lock().seats[process].alive {
                    let mut facts = this.lock();
                    let tokens = answer.as_ref().unwrap().clone();
                    facts.note(format!(
                        "p{process} gets {}",
                        tokens.refresh_token().unwrap().expose()
                    ));
                    facts.has(process, Some(&tokens));
                    let _ = tell.send(answer);
                } else {
                    this.lock()
                        .note(format!("nobody waits for the answer to {refresh}"));
                }
                return;
            }
            pass(back).await;
            let _ = tell.send(answer);
        }));
        match fate {
            Fate::Answered => match told.await {
                _ if !self.lock().seats[process].alive => pending().await,
                Ok(answer) => answer,
                Err(_) => pending().await,
            },
            Fate::Lost => {
                let _ = told.await;
                self.lock()
                    .note(format!("the answer to p{process} is lost"));
                Err(ReissueError::unknown("scripted"))
            }
            _ => pending().await,
        }
    }

    async fn process(
        &self,
        process: usize,
        refresh: &str,
        holders: &[String],
        has_itself: bool,
        claimed_at: Option<Instant>,
    ) -> Result<TokenSet, ReissueError> {
        let stored = self.common.record().await;
        let mut facts = self.lock();
        let user = parts(refresh).0;
        if facts.revoked.contains(&user) {
            facts.note(format!("the issuer refuses {refresh}"));
            return Err(ReissueError::refused("it is over"));
        }
        if let Some((by, at, tokens)) = facts.spent.get(refresh).cloned() {
            if facts.grace.is_some_and(|grace| at.elapsed() < grace) {
                facts.note(format!("the issuer answers {refresh} once more"));
                return Ok(tokens);
            }
            facts.reuses += 1;
            facts.note(format!(
                "the issuer sees {refresh} again, spent {:?} ago by p{by}",
                at.elapsed()
            ));
            facts.revoked.insert(user);
            let now = facts.holders(refresh, &stored);
            let both = !holders.is_empty()
                || (at.elapsed() < (if facts.patient { ms(90_000) } else { ms(9000) })
                    && !now.is_empty());
            let in_gap = facts
                .fallen_back
                .zip(claimed_at)
                .is_some_and(|(fell, claimed_at)| claimed_at <= facts.is_back_at(refresh, fell));
            let excused = facts.lost_for_good || in_gap;
            if has_itself {
                facts.wrong(format!(
                    "p{process} presents {refresh} and has its successor"
                ));
            } else if both && !excused {
                facts.wrong(format!(
                    "p{process} presents {refresh} again; holders were {holders:?}, are {now:?}"
                ));
            } else if both {
                facts.excused += 1;
            }
            return Err(ReissueError::refused("used twice"));
        }
        let tokens = facts.tokens(user);
        facts.note(format!("the issuer spends {refresh}"));
        facts.spent.insert(
            refresh.to_owned(),
            (process as u64, Instant::now(), tokens.clone()),
        );
        Ok(tokens)
    }

    async fn answer(
        &self,
        process: usize,
        request: Request<ReplayBody<Full<Bytes>>>,
    ) -> Result<Response<Full<Bytes>>, BoxError> {
        pass(ms(fastrand::u64(..10))).await;
        let header = request.headers().get("authorization");
        let token = header.map(|it| {
            it.to_str()
                .unwrap()
                .trim_start_matches("Bearer ")
                .to_owned()
        });
        let user = token.as_deref().map(|it| parts(it).0);
        let id = request.uri().path().to_owned();
        let (good, slow) = {
            let mut facts = self.lock();
            facts.sent += 1;
            let good = token.as_ref().is_some_and(|it| facts.good.contains(it));
            facts.note(format!("p{process} sends {id} with {token:?}: {good}"));
            let seen = facts.requests.entry(id.clone()).or_default();
            seen.push(user);
            if seen.iter().any(|it| it != &seen[0]) || seen.len() > 2 {
                let text = format!("{id} was sent as {seen:?}");
                facts.wrong(text);
            }
            (good, !facts.calm && odds(20))
        };
        if slow {
            pass(ms(fastrand::u64(..3000))).await;
        }
        let answer = match good {
            true => Response::builder().header("x-user", format!("u{}", user.unwrap())),
            false => Response::builder().status(401),
        };
        Ok(answer.body(Full::default())?)
    }
}

/// A process's way to the store.
#[derive(Clone)]
struct Line {
    sim: Sim,
    common: Common,
    process: usize,
}

enum Trouble {
    None,
    Error,
    Silence,
    ErrorAfter,
    SilenceAfter,
}

impl Line {
    async fn trouble(&self) -> (Trouble, Duration, Duration) {
        let (alive, up, bad, calm) = {
            let facts = self.sim.lock();
            let seat = &facts.seats[self.process];
            (seat.alive, seat.up_since.is_some(), seat.bad, facts.calm)
        };
        if !alive {
            return pending().await;
        }
        if !up {
            let trouble = if odds(50) {
                Trouble::Error
            } else {
                Trouble::Silence
            };
            return (trouble, ms(1), ms(0));
        }
        if calm || !odds(bad) {
            let slow = if odds(50) { 0 } else { 5 };
            return (
                Trouble::None,
                ms(fastrand::u64(..=slow)),
                ms(fastrand::u64(..=slow)),
            );
        }
        let trouble = match fastrand::u32(..6) {
            0 => Trouble::Error,
            1 => Trouble::Silence,
            2 => Trouble::ErrorAfter,
            3 => Trouble::SilenceAfter,
            _ => Trouble::None,
        };
        let slow = if odds(30) { 6000 } else { 800 };
        let (before, after) = (ms(fastrand::u64(..slow)), ms(fastrand::u64(..slow)));
        let lasts = match trouble {
            Trouble::Silence | Trouble::SilenceAfter => STORE_TIMEOUT,
            _ => (before + after).min(STORE_TIMEOUT),
        };
        let until = Instant::now() + lasts;
        let seat = &mut self.sim.lock().seats[self.process];
        seat.troubled_until = seat.troubled_until.max(Some(until));
        (trouble, before, after)
    }

    fn lives(&self) -> bool {
        self.sim.lock().seats[self.process].alive
    }

    fn remember(&self, record: &Record) {
        let refresh = record.tokens().and_then(TokenSet::refresh_token);
        let mark = (record.version(), refresh.map(|it| parts(it.expose())));
        if self.sim.lock().seats[self.process].seen == Some(mark) {
            return;
        }
        let at = place(record);
        let mut facts = self.sim.lock();
        facts.seats[self.process].seen = Some(mark);
        facts.has(self.process, record.tokens());
        let seat = &mut facts.seats[self.process];
        seat.memory = seat.memory.max(at);
    }
}

fn json(record: &Record) -> serde_json::Value {
    match record.version() {
        0 => serde_json::Value::Null,
        _ => serde_json::from_slice(&record.to_json().unwrap()).unwrap(),
    }
}

fn place(record: &Record) -> (u64, u64) {
    (
        json(record)["epoch"].as_u64().unwrap_or(0),
        record.version(),
    )
}

fn brief(record: &Record) -> String {
    let json = json(record);
    format!(
        "v{} e{} {} {} {}",
        record.version(),
        json["epoch"],
        json["refresh_token"],
        json["turn"]["state"],
        json["in_doubt"]["tries"],
    )
}

impl SharedTokenStore for Line {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        let (trouble, before, after) = self.trouble().await;
        pass(before).await;
        match trouble {
            Trouble::Error | Trouble::ErrorAfter => return Err("scripted".into()),
            Trouble::Silence | Trouble::SilenceAfter => return pending().await,
            Trouble::None => {}
        }
        let read = self.common.read().await?;
        pass(after).await;
        if !self.lives() {
            return pending().await;
        }
        self.remember(&read.0);
        Ok(read)
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        let (trouble, before, after) = self.trouble().await;
        match trouble {
            Trouble::Error => {
                pass(before).await;
                return Err("scripted".into());
            }
            Trouble::Silence => return pending().await,
            _ => {}
        }
        let (tell, told) = oneshot::channel();
        let (this, record) = (self.clone(), record.clone());
        let kept = record.clone();
        drop(tokio::spawn(async move {
            pass(before).await;
            let was = this.common.record().await;
            let done = this.common.swap(version, &record).await;
            let now = this.common.record().await;
            {
                let mut facts = this.sim.lock();
                if matches!(done, Ok(Swap::Done)) {
                    facts.history.push(now.clone());
                    facts.note(format!(
                        "p{} swaps {} for {}",
                        this.process,
                        brief(&was),
                        brief(&now)
                    ));
                    let (was, now) = (json(&was), json(&now));
                    if now["turn"]["state"] == "sent"
                        && was["turn"]["fence"] != now["turn"]["fence"]
                    {
                        facts.seats[this.process].claimed_at = Some(Instant::now());
                    }
                } else {
                    facts.note(format!("p{} loses a swap of {version}", this.process));
                }
            }
            let _ = tell.send(done);
        }));
        let done = told.await.unwrap()?;
        pass(after).await;
        if !self.lives() {
            return pending().await;
        }
        match trouble {
            Trouble::ErrorAfter => Err("scripted".into()),
            Trouble::SilenceAfter => pending().await,
            _ => {
                if done == Swap::Done {
                    self.remember(&kept);
                }
                Ok(done)
            }
        }
    }

    async fn changed(&self, version: u64) {
        let (up, notices) = {
            let facts = self.sim.lock();
            (facts.seats[self.process].up_since.is_some(), facts.notices)
        };
        if !self.lives() {
            return pending().await;
        }
        // By notice, or by looking.
        let looks = pass(ms(200 + fastrand::u64(..200)));
        if up && odds(notices) {
            tokio::select! {
                biased;
                () = self.common.changed(version) => {}
                () = looks => {}
            }
        } else {
            looks.await;
        }
    }

    fn can_lose(&self) -> bool {
        self.common.can_lose()
    }
}

struct Process {
    n: usize,
    line: Line,
    session: Session,
    client: Client,
    running: Vec<JoinHandle<()>>,
}

impl Process {
    fn start(sim: &Sim) -> Self {
        let n = {
            let mut facts = sim.lock();
            let bad = if facts.calm {
                0
            } else {
                facts.seats.first().map_or(0, |it| it.bad)
            };
            facts.seats.push(Seat {
                alive: true,
                up_since: Some(Instant::now() - LINE),
                bad,
                ..Seat::default()
            });
            facts.seats.len() - 1
        };
        let common = sim.common.other();
        let line = Line {
            sim: sim.clone(),
            common,
            process: n,
        };
        let issuer = sim.clone();
        let reissue = reissue_fn(move |request| issuer.clone().reissue(n, request));
        let mut builder = Session::builder(reissue)
            .shared_store(line.clone())
            .reissue_limit(u32::MAX, Duration::from_secs(1));
        if let Some(grace) = sim.lock().grace {
            builder = builder.lost_reply(LostReply::grace(grace));
        }
        if let Some(lifetime) = sim.lock().lifetime {
            builder = builder.refresh_ahead(lifetime / 3);
        }
        if sim.lock().patient {
            builder = builder
                .reissue_timeout(ms(100_000))
                .wait_timeout(ms(300_000));
        }
        let session = builder.build().unwrap();
        let api = sim.clone();
        let service = service_fn(move |request| {
            let api = api.clone();
            async move { api.answer(n, request).await }
        });
        let layer = TokenRefreshLayer::new(ORIGIN, session.clone()).unwrap();
        let client = Client::new(layer.layer(service));
        Self {
            n,
            line,
            session,
            client,
            running: Vec::new(),
        }
    }

    fn request(&mut self) {
        let (sim, client, n) = (self.line.sim.clone(), self.client.clone(), self.n);
        let id = {
            let mut facts = sim.lock();
            facts.next_request += 1;
            format!("/{}", facts.next_request)
        };
        let hangs = sim.lock().hangs();
        let limit = if odds(15) {
            ms(fastrand::u64(..4000))
        } else {
            hangs
        };
        self.running.push(tokio::spawn(async move {
            let answer = timeout(limit, client.send(get(&id))).await;
            if answer.is_err() && limit == hangs && sim.lock().seats[n].alive {
                sim.lock().wrong(format!("p{n}: {id} hangs"));
            }
            let mut facts = sim.lock();
            match answer {
                Ok(Ok(answer)) => facts.note(format!(
                    "p{n}: {id} got {} {}",
                    answer.status,
                    answer.why.map_or(String::new(), |it| it.to_string())
                )),
                Ok(Err(error)) => facts.note(format!("p{n}: {id} failed {error}")),
                Err(_) => facts.note(format!("p{n}: {id} was dropped")),
            }
        }));
    }

    fn act(&mut self, user: Option<Option<u64>>) {
        let (sim, session, n) = (self.line.sim.clone(), self.session.clone(), self.n);
        let hangs = sim.lock().hangs();
        let limit = if odds(10) {
            ms(fastrand::u64(..2000))
        } else {
            hangs
        };
        self.running.push(tokio::spawn(async move {
            let is_empty = sim.common.tokens().await.is_none();
            let (index, tokens) = {
                let mut facts = sim.lock();
                let tokens = user.flatten().map(|it| facts.tokens(it));
                facts.has(n, tokens.as_ref());
                let blind = facts.seats[n].memory == (0, 0);
                if let Some(user) = user {
                    facts.note(format!("p{n} logs in {user:?}"));
                    facts.ops.push(Op {
                        process: n,
                        user,
                        start: Instant::now(),
                        end: None,
                        ok: false,
                        blind,
                    });
                }
                (facts.ops.len().wrapping_sub(1), tokens)
            };
            let act = async {
                match (user, tokens) {
                    (None, _) => session.refresh().await,
                    (Some(_), Some(tokens)) => session.login(tokens).await,
                    (Some(_), None) => session.logout().await,
                }
            };
            let done = timeout(limit, act).await;
            let mut facts = sim.lock();
            if !facts.seats[n].alive {
                return;
            }
            if done.is_err() && limit == hangs {
                facts.wrong(format!("p{n}: {user:?} hangs"));
            }
            let told = match &done {
                Ok(Ok(())) => "ok".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "dropped".to_owned(),
            };
            facts.note(format!("p{n} {user:?}: {told}"));
            if user.is_some() {
                // One whose caller has left goes on.
                facts.ops[index].end = done.is_ok().then(Instant::now);
                // A logout where nobody is logged in leaves no trace.
                let says = !is_empty || user.flatten().is_some();
                facts.ops[index].ok = matches!(done, Ok(Ok(()))) && says;
                if matches!(done, Ok(Ok(()))) && user.flatten().is_some() {
                    facts.lost_for_good = false;
                }
            }
        }));
    }

    fn die(mut self) {
        for task in self.running.drain(..) {
            task.abort();
        }
        let mut facts = self.line.sim.lock();
        facts.note(format!("p{} dies", self.n));
        facts.seats[self.n].alive = false;
        facts.forget();
        let n = self.n;
        for op in &mut facts.ops {
            if op.process == n {
                op.end.get_or_insert_with(Instant::now);
            }
        }
    }
}

async fn fall_back(sim: &Sim) {
    let now = sim.common.record().await;
    let to = {
        let facts = sim.lock();
        let last = facts.history.len();
        match fastrand::u32(..10) {
            _ if last == 0 => return,
            0 => Record::empty(),
            1 => facts.history[fastrand::usize(..last)].clone(),
            _ => facts.history[last.saturating_sub(1 + fastrand::usize(1..4))].clone(),
        }
    };
    sim.common.fall_back(&to).await;
    let mut facts = sim.lock();
    let at = place(&now);
    let remember: Vec<_> = (0..facts.seats.len())
        .filter(|n| {
            let seat = &facts.seats[*n];
            seat.alive && !seat.left && seat.up_since.is_some() && seat.memory >= at
        })
        .collect();
    facts.note(format!(
        "FALLS BACK from {} to {}; {remember:?} remember",
        brief(&now),
        brief(&to)
    ));
    facts.fallen_back = Some(Instant::now());
    facts.lost_for_good |= remember.is_empty();
    facts.history.push(to);
}

/// Times of the virtual clock that one seed has taken to settle, and what it has seen.
struct Report {
    settled: Duration,
    reissues: usize,
    reuses: usize,
    excused: usize,
    requests: usize,
    wrong: Vec<String>,
    log: Vec<String>,
}

async fn play(seed: u64, faults: Faults) -> Report {
    fastrand::seed(seed);
    let sim = Sim {
        facts: Arc::default(),
        common: match faults.keeps {
            true => Common::new(),
            false => Common::that_can_lose(),
        },
    };
    {
        let mut facts = sim.lock();
        facts.began = Some(Instant::now());
        facts.bad_issuer = if faults.issuer {
            [0, 10, 40, 80][fastrand::usize(..4)]
        } else {
            0
        };
        facts.patient = faults.issuer && odds(25);
        facts.notices = [0, 80, 100][fastrand::usize(..3)];
        facts.lifetime = faults.lifetimes.then(|| ms(fastrand::u64(2000..60_000)));
        facts.grace = (faults.issuer && odds(20)).then(|| ms(60_000));
    }
    let n = fastrand::usize(2..5);
    let mut processes: Vec<_> = (0..n).map(|_| Process::start(&sim)).collect();
    let bad = if faults.lines {
        [0, 0, 5, 20][fastrand::usize(..4)]
    } else {
        0
    };
    for seat in &mut sim.lock().seats {
        seat.bad = bad;
    }
    let user = |sim: &Sim| {
        let mut facts = sim.lock();
        facts.users += 1;
        facts.users
    };
    let first = user(&sim);
    processes[0].act(Some(Some(first)));
    pass(ms(fastrand::u64(..2000))).await;
    let steps = fastrand::u32(10..70);
    let few = odds(50);
    let heavy = odds(30);
    for _ in 0..steps {
        let p = fastrand::usize(..n);
        match fastrand::u32(..100) {
            0..45 => processes[p].request(),
            45..60 => {
                {
                    let mut facts = sim.lock();
                    facts.good.clear();
                    facts.note("all access tokens expire".to_owned());
                }
                for process in &mut processes {
                    if odds(60) {
                        process.request();
                        pass(ms([0, 1, 10, 300][fastrand::usize(..4)])).await;
                    }
                }
            }
            60..65 => processes[p].act(None),
            65..69 if faults.logins => {
                let user = user(&sim);
                processes[p].act(Some(Some(user)));
            }
            69..71 if faults.logins => processes[p].act(Some(None)),
            71..77 if faults.lines => {
                let is_short = few || odds(60);
                let mut facts = sim.lock();
                facts.note(format!("p{} is cut off", processes[p].n));
                facts.seats[processes[p].n].up_since = None;
                facts.forget();
                drop(facts);
                let (sim, n) = (sim.clone(), processes[p].n);
                let time = if is_short {
                    fastrand::u64(..5000)
                } else {
                    fastrand::u64(5000..60_000)
                };
                drop(tokio::spawn(async move {
                    pass(ms(time)).await;
                    let mut facts = sim.lock();
                    facts.note(format!("p{n} is back"));
                    facts.seats[n].up_since.get_or_insert_with(Instant::now);
                }));
            }
            77 if faults.deaths => {
                let mut gone = std::mem::replace(&mut processes[p], Process::start(&sim));
                let mut facts = sim.lock();
                facts.note(format!("p{}'s session is dropped", gone.n));
                facts.seats[gone.n].left = true;
                facts.forget();
                drop(facts);
                for task in gone.running.drain(..) {
                    task.abort();
                }
                let mut facts = sim.lock();
                for op in &mut facts.ops {
                    if op.process == gone.n {
                        // What was begun is still written.
                        op.end.get_or_insert_with(|| Instant::now() + LINE);
                    }
                }
            }
            78..80 if faults.deaths => {
                let dead = std::mem::replace(&mut processes[p], Process::start(&sim));
                dead.die();
            }
            80..84 if faults.rollbacks => fall_back(&sim).await,
            84..100 if faults.rollbacks && heavy => fall_back(&sim).await,
            85..87 if faults.clocks && !faults.rollbacks => {
                let fast = ms(fastrand::u64(..7_200_000));
                let mut facts = sim.lock();
                facts.note(format!("p{}'s clock is fast by {fast:?}", processes[p].n));
                facts.shifts = true;
                drop(facts);
                processes[p].line.common.set_fast(fast);
            }
            _ => processes[p].request(),
        }
        let gap = match fastrand::u32(..10) {
            0..4 => 0,
            4..6 => fastrand::u64(..20),
            6..8 => fastrand::u64(..1000),
            8 => fastrand::u64(..5000),
            _ => fastrand::u64(..20_000),
        };
        pass(ms(gap)).await;
        if !sim.lock().wrong.is_empty() {
            return report(&sim, Duration::ZERO);
        }
    }
    let calm = Instant::now();
    {
        let mut facts = sim.lock();
        facts.note("CALM".to_owned());
        facts.calm = true;
        facts.good.clear();
        for seat in &mut facts.seats {
            seat.up_since.get_or_insert_with(Instant::now);
            seat.bad = 0;
        }
    }
    for process in &mut processes {
        for task in process.running.drain(..) {
            task.await.unwrap();
        }
    }
    // They find together.
    let mut settled = None;
    let mut last = String::new();
    for round in 0..400 {
        pass(ms(5000)).await;
        let mut seen = Vec::new();
        for process in &mut processes {
            let id = format!("/calm-{round}-{}", process.n);
            let Ok(answer) = timeout(HANGS, process.client.send(get(&id))).await else {
                sim.lock().wrong(format!("{id} hangs"));
                return report(&sim, calm.elapsed());
            };
            seen.push(match answer {
                Ok(answer) if answer.status == 200 => answer.user,
                Ok(answer) => format!(
                    "{} {:?}",
                    answer.status,
                    answer.why.map(|it| it.end_reason().is_some())
                ),
                Err(error) => format!("error {error}"),
            });
        }
        let stored = sim.common.tokens().await;
        let stored = stored.map(|it| format!("u{}", parts(it.access_token().expose()).0));
        last = format!("{stored:?} {seen:?}");
        sim.lock().note(last.clone());
        let all = match &stored {
            Some(user) => seen.iter().all(|it| it == user),
            None => {
                seen.iter().all(|it| it.starts_with("401"))
                    && processes
                        .iter()
                        .all(|it| !it.session.status().is_logged_in())
            }
        };
        if all {
            settled = Some(calm.elapsed());
            break;
        }
        if !sim.lock().wrong.is_empty() {
            return report(&sim, calm.elapsed());
        }
    }
    if settled.is_none() {
        sim.lock()
            .wrong(format!("they do not find together: {last}"));
        return report(&sim, calm.elapsed());
    }
    check_ops(&sim).await;
    // Nobody writes without need, once what was begun ahead of expiry is done.
    pass(ms(1000)).await;
    let before = sim.common.record().await.version();
    pass(ms(20_000)).await;
    if sim.common.record().await.version() != before {
        sim.lock().wrong("the record changes for ever".to_owned());
    }
    let user = user(&sim);
    let tokens = sim.lock().tokens(user);
    if let Err(error) = processes[0].session.login(tokens).await {
        sim.lock().wrong(format!("the last login fails: {error}"));
    }
    pass(ms(1000)).await;
    for process in &processes {
        let answer = process
            .client
            .send(get(&format!("/last-{}", process.n)))
            .await;
        if !answer
            .as_ref()
            .is_ok_and(|it| it.user == format!("u{user}"))
        {
            sim.lock()
                .wrong(format!("p{} after the last login: {answer:?}", process.n));
        }
    }
    report(&sim, settled.unwrap_or_default())
}

async fn check_ops(sim: &Sim) {
    let record = sim.common.record().await;
    let mut facts = sim.lock();
    // Nobody can say what came first where one has never read a store that does not tell by its epochs.
    let is_unsure = |op: &Op| op.blind && !op.ok && !sim.common.can_lose();
    if facts.lost_for_good || facts.shifts || facts.ops.iter().any(is_unsure) {
        return;
    }
    let ops = facts.ops.clone();
    let is_superseded = |op: &Op| {
        ops.iter()
            .any(|it| it.ok && op.end.is_some_and(|end| it.start > end))
    };
    let left: Vec<_> = ops.iter().filter(|it| !is_superseded(it)).collect();
    let holds = match record.tokens() {
        Some(tokens) => {
            let user = parts(tokens.access_token().expose()).0;
            left.iter().any(|it| it.user == Some(user))
        }
        // Or nobody was told that he had logged in.
        None => {
            let is_out = |it: &&Op| it.user.is_none_or(|user| facts.revoked.contains(&user));
            left.iter().copied().any(|it| is_out(&it)) || !ops.iter().any(|it| it.ok)
        }
    };
    if !holds {
        let text = format!("{} is left, and not one of {left:?}", brief(&record));
        facts.wrong(text);
    }
}

fn report(sim: &Sim, settled: Duration) -> Report {
    let mut facts = sim.lock();
    Report {
        settled,
        reissues: facts.reissues,
        reuses: facts.reuses,
        excused: facts.excused,
        requests: facts.sent,
        wrong: std::mem::take(&mut facts.wrong),
        log: std::mem::take(&mut facts.log),
    }
}

pub fn run(faults: Faults, seeds: std::ops::Range<u64>) {
    let mut wrong = Vec::new();
    let (mut reissues, mut reuses, mut excused, mut requests) = (0, 0, 0, 0);
    let mut longest = (Duration::ZERO, 0);
    let all = seeds.end - seeds.start;
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(play(seed, faults))
        }));
        let Ok(report) = played else {
            wrong.push(format!("seed {seed} panics"));
            continue;
        };
        reissues += report.reissues;
        reuses += report.reuses;
        excused += report.excused;
        requests += report.requests;
        longest = longest.max((report.settled, seed));
        if !report.wrong.is_empty() {
            if let Some(folder) = std::env::var_os("LOGS") {
                let name = format!(
                    "{}{}-{seed}.txt",
                    if faults.rollbacks { "back" } else { "" },
                    if faults.lines { "lines" } else { "" }
                );
                let text = format!(
                    "{faults:?}\n{}\n{}\n",
                    report.wrong.join("\n"),
                    report.log.join("\n")
                );
                std::fs::write(std::path::Path::new(&folder).join(name), text).unwrap();
            }
            wrong.push(format!(
                "seed {seed} ({} lines): {:?}",
                report.log.len(),
                report.wrong
            ));
        }
    }
    println!(
        "{all} seeds, {requests} requests, {reissues} reissues, {reuses} reuses ({excused} excused), settled after {longest:?} at most"
    );
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
