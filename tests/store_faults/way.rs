//! A process's way to its store, which the test can stop at a step.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::watch;
use tower_token_refresh::BoxError;
use tower_token_refresh::Record;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

use crate::kind::Real;
use crate::shared::moved;
use crate::support::within;

/// What a process does with the store, told by the record that it reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Read,
    /// The refresh token may be presented from now on.
    Claim,
    Renewal,
    /// New tokens of the same login.
    Commit,
    /// The claim is given back.
    Release,
    Login,
    Logout,
}

/// When it stops there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Before it asks.
    Before,
    /// When it was done, and before the process knows of it.
    After,
}

/// One process's. Clones are the same one.
#[derive(Clone)]
pub struct Way {
    pub store: Real,
    state: Arc<State>,
}

struct State {
    /// Where all that this process does with the store comes to a stand.
    stop: Mutex<Option<(Step, Side)>>,
    is_open: watch::Sender<bool>,
    /// What it has seen last in the store.
    seen: watch::Sender<Value>,
    /// How its claims are signed.
    owner: Mutex<Option<String>>,
    renewals: watch::Sender<usize>,
    /// The clock of its machine, against that of all others.
    fast: Mutex<i64>,
}

impl Way {
    pub fn to(store: Real) -> Self {
        let state = State {
            stop: Mutex::default(),
            is_open: watch::Sender::new(true),
            seen: watch::Sender::new(Value::Null),
            owner: Mutex::default(),
            renewals: watch::Sender::new(0),
            fast: Mutex::default(),
        };
        Self {
            store,
            state: Arc::new(state),
        }
    }

    /// All that this process does with its store comes to a stand when it gets there, until
    /// [`Self::go_on`].
    pub fn stop_at(&self, step: Step, side: Side) {
        *self.state.stop.lock().unwrap() = Some((step, side));
    }

    pub async fn until_stopped(&self) {
        let mut is_open = self.state.is_open.subscribe();
        within(is_open.wait_for(|is_open| !is_open)).await.unwrap();
    }

    pub fn go_on(&self) {
        self.state.is_open.send_replace(true);
    }

    /// So many seconds later than it is.
    pub fn set_fast(&self, seconds: i64) {
        *self.state.fast.lock().unwrap() = seconds;
    }

    /// Waits until it has renewed its claims so often.
    pub async fn until_renewed(&self, times: usize) {
        let mut renewals = self.state.renewals.subscribe();
        let renewed = renewals.wait_for(|all| *all >= times);
        within(renewed).await.unwrap();
    }

    /// Waits until it has seen such a record in the store.
    pub async fn until_seen(&self, condition: impl FnMut(&Value) -> bool) {
        let mut seen = self.state.seen.subscribe();
        within(seen.wait_for(condition)).await.unwrap();
    }

    /// Is a claim of this process what it has seen last in the store?
    pub fn has_claim(&self) -> bool {
        let owner = self.state.owner.lock().unwrap().clone();
        let seen = self.state.seen.borrow();
        owner.is_some() && owner.as_deref() == seen["turn"]["owner"].as_str()
    }

    async fn pass(&self, step: Step, side: Side) {
        {
            let mut stop = self.state.stop.lock().unwrap();
            if stop.take_if(|stop| *stop == (step, side)).is_some() {
                self.state.is_open.send_replace(false);
            }
        }
        let mut is_open = self.state.is_open.subscribe();
        is_open.wait_for(|is_open| *is_open).await.unwrap();
    }

    fn see(&self, record: &Record) {
        self.state.seen.send_replace(json(record));
    }

    fn step(&self, record: &Value) -> Step {
        let seen = self.state.seen.borrow();
        let is_same = |member: &str| seen[member] == record[member];
        match &record["turn"]["fence"] {
            Value::Null => {}
            fence if *fence == record["version"] => return Step::Claim,
            _ => return Step::Renewal,
        }
        match record.get("ended").is_some() {
            true => Step::Logout,
            false if !is_same("epoch") => Step::Login,
            false if !is_same("access_token") => Step::Commit,
            false => Step::Release,
        }
    }

    fn to_ours(&self, time: SystemTime) -> SystemTime {
        let fast = *self.state.fast.lock().unwrap();
        let by = Duration::from_secs(fast.unsigned_abs());
        if fast < 0 { time + by } else { time - by }
    }

    fn to_theirs(&self, time: SystemTime) -> SystemTime {
        let fast = *self.state.fast.lock().unwrap();
        let by = Duration::from_secs(fast.unsigned_abs());
        if fast < 0 { time - by } else { time + by }
    }
}

/// What a record says.
pub fn json(record: &Record) -> Value {
    // One of a newer version is only read.
    record
        .to_json()
        .map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
}

impl SharedTokenStore for Way {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        self.pass(Step::Read, Side::Before).await;
        let read = self.store.read().await;
        if let Ok((record, _)) = &read {
            self.see(record);
        }
        self.pass(Step::Read, Side::After).await;
        let (record, now) = read?;
        Ok((moved(&record, |time| self.to_ours(time)), self.to_ours(now)))
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        let record = moved(record, |time| self.to_theirs(time));
        let written = json(&record);
        let step = self.step(&written);
        if step == Step::Claim {
            let owner = written["turn"]["owner"].as_str().unwrap();
            *self.state.owner.lock().unwrap() = Some(owner.to_owned());
        }
        self.pass(step, Side::Before).await;
        let swapped = self.store.swap(version, &record).await;
        if matches!(swapped, Ok(Swap::Done)) {
            self.see(&record);
            let renewed = usize::from(step == Step::Renewal);
            self.state.renewals.send_modify(|all| *all += renewed);
        }
        self.pass(step, Side::After).await;
        swapped
    }

    async fn changed(&self, version: u64) {
        self.store.changed(version).await;
    }

    fn can_lose(&self) -> bool {
        self.store.can_lose()
    }
}
