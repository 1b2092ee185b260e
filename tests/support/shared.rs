//! A store that several sessions of a test share, as several processes would: it fails, forgets,
//! dawdles and has a lock when it is told to, and its clock is the test's. And such a process.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use http::StatusCode;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::advance;
use tokio::time::timeout;
use tower_token_refresh::BoxError;
use tower_token_refresh::InDoubt;
use tower_token_refresh::MemoryStore;
use tower_token_refresh::Record;
use tower_token_refresh::RefreshError;
use tower_token_refresh::Session;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::StoreLock;
use tower_token_refresh::Swap;
use tower_token_refresh::TokenSet;

use crate::support::Answer;
use crate::support::Client;
use crate::support::World;
use crate::support::settle_down;
use crate::support::within;

type Lock = Arc<tokio::sync::Mutex<()>>;

const YEAR: Duration = Duration::from_secs(365 * 86400);

/// No test needs so many of one process.
const MOST_READS: usize = 100_000;

#[derive(Clone)]
pub struct Common {
    state: Arc<State>,
    way: Arc<Way>,
}

/// Each process has its own way to the store.
#[derive(Default)]
struct Way {
    away: AtomicBool,
    notice: Mutex<Notice>,
    /// What becomes of its next reads and swaps.
    reads: Mutex<VecDeque<Fate>>,
    swaps: Mutex<VecDeque<Fate>>,
    held: Notify,
    released: Notify,
    /// By how much this process sees a later time than the others.
    ahead: Mutex<Duration>,
    /// The clock of this process's machine, against the store's: all times of the store are that much
    /// earlier to it.
    fast: Mutex<Duration>,
    asked: AtomicUsize,
}

/// What becomes of a read or a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// It waits for the test, and is done then.
    HeldBefore,
    /// It is done, and its answer waits for the test.
    HeldAfter,
    /// It is not done, and answered by an error.
    Lost,
    /// It is answered by an error, and done when the test says so.
    Late,
}

/// When a process is told that something has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Notice {
    #[default]
    InTime,
    /// All the time, whether it has or not.
    TooEarly,
    Never,
}

impl Way {
    async fn hold(&self) {
        self.held.notify_one();
        self.released.notified().await;
    }
}

struct State {
    store: MemoryStore,
    /// What a read gives in place of the record.
    shown: Mutex<Option<Record>>,
    /// So many swaps are done, or not done, and answered by an error.
    unknown: AtomicUsize,
    lost: AtomicUsize,
    swaps: AtomicUsize,
    lock: Option<Mutex<Lock>>,
    can_lose: bool,
    began: (Instant, SystemTime),
}

impl Common {
    pub fn new() -> Self {
        Self::start(None, false)
    }

    /// It has failovers.
    pub fn that_can_lose() -> Self {
        Self::start(None, true)
    }

    /// With a lock that is free when its holder is dropped.
    pub fn with_lock() -> Self {
        Self::start(Some(Arc::default()), false)
    }

    fn start(lock: Option<Lock>, can_lose: bool) -> Self {
        Self {
            state: Arc::new(State {
                store: MemoryStore::new(),
                shown: Mutex::default(),
                unknown: AtomicUsize::new(0),
                lost: AtomicUsize::new(0),
                swaps: AtomicUsize::new(0),
                lock: lock.map(Mutex::new),
                can_lose,
                began: (Instant::now(), SystemTime::now()),
            }),
            way: Arc::default(),
        }
    }

    /// Another process's way to the same storage.
    pub fn other(&self) -> Self {
        Self {
            state: self.state.clone(),
            way: Arc::default(),
        }
    }

    /// From now on this process cannot reach it, or can again.
    pub fn set_away(&self, away: bool) {
        self.way.away.store(away, Ordering::Relaxed);
    }

    /// What becomes of this process's next swaps.
    pub fn next_swaps(&self, fates: impl IntoIterator<Item = Fate>) {
        *self.way.swaps.lock().unwrap() = fates.into_iter().collect();
    }

    /// What becomes of this process's next reads.
    pub fn next_reads(&self, fates: impl IntoIterator<Item = Fate>) {
        *self.way.reads.lock().unwrap() = fates.into_iter().collect();
    }

    /// Waits until a read or swap of this process waits for the test.
    pub async fn until_held(&self) {
        self.way.held.notified().await;
    }

    pub fn release(&self) {
        self.way.released.notify_one();
    }

    /// From now on this process is told of changes so.
    pub fn set_notice(&self, notice: Notice) {
        *self.way.notice.lock().unwrap() = notice;
    }

    /// From now on the clock is wrong by so much when this process looks.
    pub fn set_ahead(&self, by: Duration) {
        *self.way.ahead.lock().unwrap() = by;
    }

    /// This process's own clock is fast by so much.
    pub fn set_fast(&self, by: Duration) {
        *self.way.fast.lock().unwrap() = by;
    }

    /// A failover: what was stored since this record is lost.
    pub async fn fall_back(&self, to: &Record) {
        let now = self.record().await.version();
        let swapped = self.state.store.swap(now, to).await.unwrap();
        assert_eq!(swapped, Swap::Done);
    }

    /// Waits until the store holds such a record.
    pub async fn until(&self, mut condition: impl FnMut(&Record) -> bool) {
        loop {
            let record = self.record().await;
            if condition(&record) {
                return;
            }
            self.state.store.changed(record.version()).await;
        }
    }

    /// How often this process has read.
    pub fn reads(&self) -> usize {
        self.way.asked.load(Ordering::Relaxed)
    }

    /// How many hold this process's way to the store.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.way)
    }

    /// So many swaps from now on are done, and answered by an error.
    pub fn answer_unknown(&self, swaps: usize) {
        self.state.unknown.store(swaps, Ordering::Relaxed);
    }

    /// So many swaps from now on are not done, and answered by an error.
    pub fn lose(&self, swaps: usize) {
        self.state.lost.store(swaps, Ordering::Relaxed);
    }

    /// Puts back an older record, or takes that away again.
    pub fn show(&self, record: Option<Record>) {
        *self.state.shown.lock().unwrap() = record;
    }

    /// Whoever holds the lock has died.
    pub fn kill_holder(&self) {
        if let Some(lock) = &self.state.lock {
            *lock.lock().unwrap() = Lock::default();
        }
    }

    pub fn swaps(&self) -> usize {
        self.state.swaps.load(Ordering::Relaxed)
    }

    pub async fn record(&self) -> Record {
        SharedTokenStore::read(&self.state.store).await.unwrap().0
    }

    pub async fn tokens(&self) -> Option<TokenSet> {
        self.record().await.tokens().cloned()
    }

    pub async fn doubt(&self) -> Option<InDoubt> {
        self.tokens().await?.in_doubt()
    }

    /// How many logins, logouts and ends there have been.
    pub async fn epoch(&self) -> u64 {
        let text = self.record().await.to_json().unwrap();
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        record["epoch"].as_u64().unwrap()
    }

    pub async fn access(&self) -> String {
        let tokens = self.tokens().await.unwrap();
        tokens.access_token().expose().to_owned()
    }

    /// Another process logs in.
    pub async fn log_in(&self, tokens: &TokenSet) {
        self.replace(|old, now| old.with_login(tokens.clone(), now).unwrap())
            .await;
    }

    /// Another process logs out.
    pub async fn log_out(&self) {
        let end = json!({"format": 1, "logged_out": true, "ended": "logged_out"});
        self.replace(|_, _| Record::from_json(end.to_string().as_bytes()).unwrap())
            .await;
    }

    /// What is written counts on from what is there.
    async fn replace(&self, new: impl Fn(&Record, SystemTime) -> Record) {
        for _ in 0..1_000 {
            let (old, now) = SharedTokenStore::read(&self.state.store).await.unwrap();
            let json = |record: &Record| -> serde_json::Value {
                serde_json::from_slice(&record.to_json().unwrap()).unwrap()
            };
            let (mut text, old_text) = (json(&new(&old, now)), json(&old));
            for count in ["version", "epoch"] {
                text[count] = json!(old_text[count].as_u64().unwrap() + 1);
            }
            let record = Record::from_json(text.to_string().as_bytes()).unwrap();
            let swap = SharedTokenStore::swap(&self.state.store, old.version(), &record);
            if swap.await.unwrap() == Swap::Done {
                return;
            }
        }
        panic!("somebody else was faster each time");
    }

    fn check(&self) -> Result<(), BoxError> {
        match self.way.away.load(Ordering::Relaxed) {
            true => Err("the store is away".into()),
            false => Ok(()),
        }
    }
}

fn take_one(counter: &AtomicUsize) -> bool {
    let taken = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    taken.is_ok()
}

fn next(fates: &Mutex<VecDeque<Fate>>) -> Fate {
    fates.lock().unwrap().pop_front().unwrap_or(Fate::Done)
}

impl SharedTokenStore for Common {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        self.check()?;
        let asked = self.way.asked.fetch_add(1, Ordering::Relaxed);
        assert!(asked < MOST_READS, "it is read without end");
        let fate = next(&self.way.reads);
        match fate {
            Fate::HeldBefore => self.way.hold().await,
            Fate::Lost | Fate::Late => return Err("the read was lost".into()),
            Fate::Done | Fate::HeldAfter => {}
        }
        let (began, wall) = self.state.began;
        let shown = self.state.shown.lock().unwrap().clone();
        let record = match shown {
            Some(record) => record,
            None => self.record().await,
        };
        if fate == Fate::HeldAfter {
            self.way.hold().await;
        }
        let ahead = *self.way.ahead.lock().unwrap();
        let fast = *self.way.fast.lock().unwrap();
        let now = wall + began.elapsed() + ahead;
        Ok((moved(&record, |time| time - fast), now - fast))
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        self.check()?;
        if take_one(&self.state.lost) {
            return Err("the swap was lost".into());
        }
        let fate = next(&self.way.swaps);
        match fate {
            Fate::HeldBefore => self.way.hold().await,
            Fate::Lost => return Err("the swap was lost".into()),
            Fate::Late => {
                let (this, record) = (self.clone(), record.clone());
                tokio::spawn(async move {
                    this.way.hold().await;
                    let _: Swap = this.state.store.swap(version, &record).await.unwrap();
                });
                return Err("the answer was lost".into());
            }
            Fate::Done | Fate::HeldAfter => {}
        }
        let fast = *self.way.fast.lock().unwrap();
        let record = moved(record, |time| time + fast);
        let swapped = self.state.store.swap(version, &record).await?;
        self.state.swaps.fetch_add(1, Ordering::Relaxed);
        if fate == Fate::HeldAfter {
            self.way.hold().await;
        }
        match take_one(&self.state.unknown) {
            true => Err("the answer was lost".into()),
            false => Ok(swapped),
        }
    }

    async fn changed(&self, version: u64) {
        let notice = *self.way.notice.lock().unwrap();
        match notice {
            Notice::InTime => {}
            Notice::TooEarly => return,
            Notice::Never => std::future::pending().await,
        }
        self.state.store.changed(version).await;
    }

    async fn lock(&self, limit: Duration) -> Result<Option<StoreLock>, BoxError> {
        let Some(lock) = &self.state.lock else {
            return Ok(None);
        };
        let lock = lock.lock().unwrap().clone();
        let held = timeout(limit, lock.lock_owned()).await?;
        Ok(Some(StoreLock::new(held)))
    }

    fn can_lose(&self) -> bool {
        self.state.can_lose
    }
}

/// The record with all its times changed.
pub fn moved(record: &Record, to: impl Fn(SystemTime) -> SystemTime) -> Record {
    fn walk(value: &mut serde_json::Value, to: &impl Fn(SystemTime) -> SystemTime) {
        match value {
            serde_json::Value::Object(members) => members.values_mut().for_each(|it| walk(it, to)),
            serde_json::Value::String(text) => {
                if let Ok(time) = humantime::parse_rfc3339(text) {
                    *text = humantime::format_rfc3339_nanos(to(time)).to_string();
                }
            }
            _ => {}
        }
    }
    if to(SystemTime::UNIX_EPOCH + YEAR) == SystemTime::UNIX_EPOCH + YEAR {
        return record.clone();
    }
    let mut json = serde_json::from_slice(&record.to_json().unwrap()).unwrap();
    walk(&mut json, &to);
    Record::from_json(json.to_string().as_bytes()).unwrap()
}

/// One process: its session, its client, and its way to the store.
pub struct Process<S = Common> {
    pub session: Session,
    pub client: Client,
    pub store: S,
}

impl Process {
    pub fn new(world: &World, store: &Common) -> Self {
        Self::with(world, store, |builder| builder)
    }

    pub fn with(
        world: &World,
        store: &Common,
        options: impl FnOnce(SessionBuilder) -> SessionBuilder,
    ) -> Self {
        let store = store.other();
        let builder = world.builder().shared_store(store.clone());
        let session = options(builder).build().unwrap();
        Self {
            client: world.client(&session),
            session,
            store,
        }
    }
}

impl<S> Process<S> {
    pub async fn get(&self) -> Answer {
        self.client.get().await.unwrap()
    }

    /// Sends a request meanwhile.
    pub fn send(&self) -> JoinHandle<Answer> {
        let client = self.client.clone();
        tokio::spawn(async move { client.get().await.unwrap() })
    }

    /// The same, and waits until the issuer is asked for it.
    pub async fn send_and_reissue(&self, world: &World) -> JoinHandle<Answer> {
        let before = world.counts().reissues;
        let request = self.send();
        world.until(|counts| counts.reissues == before + 1).await;
        request
    }

    /// Refreshes meanwhile.
    pub fn refresh(&self) -> JoinHandle<Result<(), RefreshError>> {
        let session = self.session.clone();
        tokio::spawn(async move { session.refresh().await })
    }

    pub async fn is_ok(&self) {
        let answer = self.get().await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.why);
    }

    /// Waits until the session stands so.
    pub async fn until(&self, condition: impl FnMut(&SessionStatus) -> bool) -> SessionStatus {
        let mut status = self.session.subscribe();
        *within(status.wait_for(condition)).await.unwrap()
    }
}

/// Processes that have used the login.
pub async fn in_use(
    world: &World,
    store: &Common,
    n: usize,
    options: impl Fn(SessionBuilder) -> SessionBuilder,
) -> Vec<Process> {
    let process = |_| Process::with(world, store, &options);
    let processes: Vec<_> = (0..n).map(process).collect();
    processes[0].session.login(world.tokens("u")).await.unwrap();
    for process in &processes {
        process.is_ok().await;
    }
    processes
}

/// The same, and its token has expired since.
pub async fn expired(world: &World, store: &Common, n: usize) -> Vec<Process> {
    let processes = in_use(world, store, n, |builder| builder).await;
    world.expire();
    processes
}

/// What is due in so many seconds gets done.
pub async fn pass(time: u64) {
    for _ in 0..time {
        advance(Duration::from_secs(1)).await;
        settle_down().await;
    }
}

/// The same in so many milliseconds.
pub async fn pass_ms(time: u64) {
    for _ in 0..time / 50 {
        advance(Duration::from_millis(50)).await;
        settle_down().await;
    }
}
