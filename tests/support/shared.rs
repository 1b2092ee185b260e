//! A store that several sessions of a test share, as several processes would: it fails, forgets and
//! has a lock when it is told to, and its clock is the test's.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use tokio::time::Instant;
use tokio::time::timeout;
use tower_token_refresh::BoxError;
use tower_token_refresh::MemoryStore;
use tower_token_refresh::Record;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::StoreLock;
use tower_token_refresh::Swap;
use tower_token_refresh::TokenSet;
use tower_token_refresh::TokenStore;

type Lock = Arc<tokio::sync::Mutex<()>>;

#[derive(Clone)]
pub struct Common {
    state: Arc<State>,
    /// Each process has its own way to the store.
    away: Arc<AtomicBool>,
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
    began: (Instant, SystemTime),
}

impl Common {
    pub fn new() -> Self {
        Self::start(None)
    }

    /// With a lock that is free when its holder is dropped.
    pub fn with_lock() -> Self {
        Self::start(Some(Arc::default()))
    }

    fn start(lock: Option<Lock>) -> Self {
        Self {
            state: Arc::new(State {
                store: MemoryStore::new(),
                shown: Mutex::default(),
                unknown: AtomicUsize::new(0),
                lost: AtomicUsize::new(0),
                swaps: AtomicUsize::new(0),
                lock: lock.map(Mutex::new),
                began: (Instant::now(), SystemTime::now()),
            }),
            away: Arc::default(),
        }
    }

    /// Another process's way to the same storage.
    pub fn other(&self) -> Self {
        Self {
            state: self.state.clone(),
            away: Arc::default(),
        }
    }

    /// From now on this process cannot reach it, or can again.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
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
        self.state.store.load().await.unwrap()
    }

    pub async fn access(&self) -> String {
        let tokens = self.tokens().await.unwrap();
        tokens.access_token().expose().to_owned()
    }

    /// Another process logs in.
    pub async fn log_in(&self, tokens: &TokenSet) {
        self.state.store.save(tokens).await.unwrap();
    }

    /// Another process logs out.
    pub async fn log_out(&self) {
        self.state.store.clear().await.unwrap();
    }

    fn check(&self) -> Result<(), BoxError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err("the store is away".into()),
            false => Ok(()),
        }
    }
}

fn take_one(counter: &AtomicUsize) -> bool {
    let taken = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    taken.is_ok()
}

impl SharedTokenStore for Common {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        self.check()?;
        let (began, wall) = self.state.began;
        let shown = self.state.shown.lock().unwrap().clone();
        let record = match shown {
            Some(record) => record,
            None => self.record().await,
        };
        Ok((record, wall + began.elapsed()))
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        self.check()?;
        if take_one(&self.state.lost) {
            return Err("the swap was lost".into());
        }
        let swapped = self.state.store.swap(version, record).await?;
        self.state.swaps.fetch_add(1, Ordering::Relaxed);
        match take_one(&self.state.unknown) {
            true => Err("the answer was lost".into()),
            false => Ok(swapped),
        }
    }

    async fn changed(&self, version: u64) {
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
}
