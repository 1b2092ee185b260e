//! A shared store that bears a fault.

use std::future::pending;
use std::mem::forget;
use std::time::UNIX_EPOCH;

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::*;
use super::fault::Fault;
use crate::error::BoxError;
use crate::error::EndReason;
use crate::store::MemoryStore;
use crate::store::Turn;
use crate::test_util::store::samples::MARK;
use crate::token::TokenSet;

/// What is on the shelf, for all handles.
pub(super) struct Storage {
    memory: MemoryStore,
    before: Mutex<Record>,
    /// Swaps that have begun and not returned.
    swapping: AtomicUsize,
    swaps: AtomicUsize,
    reads: AtomicUsize,
    handles: AtomicUsize,
    lock: Arc<Semaphore>,
    is_locked: Arc<AtomicBool>,
}

pub(super) struct Shelf {
    storage: Arc<Storage>,
    fault: Fault,
    /// Which handle it is.
    number: usize,
    opened: SystemTime,
    seen: Mutex<Option<Record>>,
    own: watch::Sender<u64>,
    own_lock: Arc<Semaphore>,
    is_deaf: AtomicBool,
}

/// Does this when it is dropped, unless it was disarmed.
struct OnDrop<F: FnMut()>(F, bool);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if self.1 {
            (self.0)();
        }
    }
}

impl Storage {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::new(),
            before: Mutex::new(Record::empty()),
            swapping: AtomicUsize::new(0),
            swaps: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            handles: AtomicUsize::new(0),
            lock: Arc::new(Semaphore::new(1)),
            is_locked: Arc::default(),
        })
    }

    fn kept(&self) -> Record {
        self.memory.read().now_or_never().unwrap().unwrap().0
    }

    fn swap(&self, version: u64, record: &Record) -> Swap {
        let swapped = self.memory.swap(version, record).now_or_never();
        swapped.unwrap().unwrap()
    }

    /// Whatever is there.
    pub(super) fn put(&self, record: &Record) -> Swap {
        self.swap(self.kept().version, record)
    }
}

impl Shelf {
    pub(super) fn new(storage: &Arc<Storage>, fault: Fault) -> Self {
        let number = storage.handles.fetch_add(1, Ordering::SeqCst);
        let storage = match fault {
            Fault::EachHandleItsOwn => Storage::new(),
            // There are two that stay open.
            Fault::KeptWhileOpen if number > 1 => Storage::new(),
            _ => storage.clone(),
        };
        Self {
            storage,
            fault,
            number,
            opened: SystemTime::now(),
            seen: Mutex::default(),
            own: watch::Sender::new(0),
            own_lock: Arc::new(Semaphore::new(1)),
            is_deaf: AtomicBool::new(false),
        }
    }

    /// What a store with this fault keeps of a record.
    fn spoilt(&self, record: &Record, old: &Record) -> Record {
        let mut new = record.clone();
        let to_the_second = |at: SystemTime| {
            UNIX_EPOCH + Duration::from_secs(at.duration_since(UNIX_EPOCH).unwrap().as_secs())
        };
        match (self.fault, &mut new.turn) {
            (Fault::LosesRefusal, Turn::Refused) | (Fault::LosesTurn, Turn::Sent(_)) => {
                new.turn = Turn::Free;
            }
            (Fault::LosesReason, Turn::Ended(reason)) => *reason = EndReason::LoggedOut,
            (Fault::LosesOwner, Turn::Sent(claim)) => claim.owner = 0,
            (Fault::OwnerIn63Bits, Turn::Sent(claim)) => claim.owner &= u64::MAX >> 1,
            (Fault::LosesFence, Turn::Sent(claim)) => claim.fence = 0,
            (Fault::SentToTheSecond, Turn::Sent(claim)) => {
                claim.sent_at = to_the_second(claim.sent_at);
            }
            (Fault::DeadlineToTheSecond, Turn::Sent(claim)) => {
                claim.deadline = to_the_second(claim.deadline);
            }
            (Fault::KeepsOldTurn, turn) if old.version > 0 => *turn = old.turn,
            _ => {}
        }
        match self.fault {
            Fault::LosesEpoch => new.epoch = 0,
            Fault::VersionAsEpoch => new.epoch = new.version,
            Fault::VersionIn32Bits => new.version &= u64::from(u32::MAX),
            Fault::EpochAsFloat => new.epoch = new.epoch as f32 as u64,
            Fault::LosesDoubt
            | Fault::LosesRefreshToken
            | Fault::LosesIdentity
            | Fault::ExpiryDrifts => {
                new.tokens = new.tokens.map(|tokens| spoilt_tokens(self.fault, &tokens));
            }
            Fault::KeepsOldTokens => new.tokens = new.tokens.or_else(|| old.tokens.clone()),
            Fault::SkipsSameTokens if access(&new).is_some() && access(&new) == access(old) => {
                new = at(new.version, old);
            }
            Fault::Foreign => new.foreign = true,
            _ => {}
        }
        new
    }

    async fn swap_spoilt(&self, version: u64, given: &Record) -> Swap {
        let storage = &self.storage;
        let old = storage.kept();
        let new = &self.spoilt(given, &old);
        let is_right = version == old.version;
        let in_a_race = storage.swapping.load(Ordering::SeqCst) > 1;
        let count = storage.swaps.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::IgnoresVersion => return storage.put(new),
            Fault::TakesOlder if version <= old.version => return storage.put(new),
            Fault::TakesNewer if version >= old.version => return storage.put(new),
            Fault::TakesZero if version == 0 => return storage.put(new),
            Fault::ComparesTheNewOne if given.version == old.version + 1 => {
                return storage.put(new);
            }
            Fault::LosesSome if is_right && count % 10 == 9 => return Swap::Done,
            Fault::WritesOnConflict if !is_right => {
                let _ = storage.put(new);
                return Swap::Conflict;
            }
            Fault::ConflictsSometimes if count % 10 == 9 => return Swap::Conflict,
            Fault::AllAreDone if in_a_race => {
                let _ = storage.swap(version, new);
                return Swap::Done;
            }
            Fault::NoneIsDone if in_a_race => return Swap::Conflict,
            Fault::LoserIsStored if in_a_race && given.version == old.version => {
                let _ = storage.put(new);
                return Swap::Conflict;
            }
            Fault::ConflictsInARace if self.number > 1 => return Swap::Conflict,
            Fault::IsNotOneStep if is_right => {
                yield_now().await;
                return storage.put(new);
            }
            Fault::ReadersSeeHalf | Fault::ReadersSeeNothing if is_right => {
                let half = match self.fault {
                    Fault::ReadersSeeHalf => half(new, &old),
                    _ => Record::empty(),
                };
                let mut rollback = OnDrop(
                    || {
                        let _ = storage.put(&old);
                    },
                    true,
                );
                let _ = storage.put(&half);
                yield_now().await;
                rollback.1 = false;
                return storage.put(new);
            }
            Fault::DropMixes if is_right => {
                let mix = || {
                    let _ = storage.swap(version, &half(new, &old));
                };
                let mut mix = OnDrop(mix, true);
                yield_now().await;
                mix.1 = false;
            }
            Fault::DropIsSeenByOne if is_right => {
                let see = || *self.seen.lock().unwrap() = Some(new.clone());
                let mut see = OnDrop(see, true);
                yield_now().await;
                see.1 = false;
            }
            Fault::DropForgets if is_right => {
                let mut forget = OnDrop(
                    || {
                        let _ = storage.put(&Record::empty());
                    },
                    true,
                );
                yield_now().await;
                forget.1 = false;
            }
            Fault::DropWritesLate if is_right => {
                let late = || {
                    let (storage, new) = (storage.clone(), new.clone());
                    drop(tokio::spawn(async move {
                        for _ in 0..30 {
                            yield_now().await;
                        }
                        let _ = storage.put(&new);
                    }));
                };
                let mut late = OnDrop(late, true);
                yield_now().await;
                late.1 = false;
            }
            _ => {}
        }
        let old = storage.kept();
        let swapped = storage.swap(version, new);
        if swapped == Swap::Done {
            *storage.before.lock().unwrap() = old;
        }
        swapped
    }

    fn now(&self, reads: usize) -> SystemTime {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        match self.fault {
            Fault::ClockStands => UNIX_EPOCH + hour,
            Fault::ClockOfOpening => self.opened,
            Fault::ClockGoesBack if reads % 10 == 9 => now - hour,
            Fault::ClocksDiffer if self.number == 1 => now - Duration::from_secs(2),
            _ => now,
        }
    }

    async fn lock_in_one(
        &self,
        lock: &Arc<Semaphore>,
        limit: Duration,
    ) -> Result<Option<StoreLock>, BoxError> {
        let held = timeout(limit, lock.clone().acquire_owned());
        match (held.await, self.fault) {
            (Ok(held), _) => Ok(Some(StoreLock::new(held?))),
            (Err(_), Fault::LockNoneIfHeld) => Ok(None),
            (Err(_), Fault::LockQuotesTokens) => Err(format!("held with {MARK}").into()),
            (Err(_), _) => Err("it is held".into()),
        }
    }

    /// A lock that is a mark, which is looked for again and again.
    async fn lock_by_mark(&self) -> Result<Option<StoreLock>, BoxError> {
        let mark = self.storage.is_locked.clone();
        for _ in 0..1000 {
            let was_locked = match self.fault {
                Fault::LockInTwoSteps => mark.load(Ordering::SeqCst),
                _ => mark.swap(true, Ordering::SeqCst),
            };
            yield_now().await;
            if !was_locked {
                mark.store(true, Ordering::SeqCst);
                let free = move || mark.store(false, Ordering::SeqCst);
                return Ok(Some(StoreLock::new(OnDrop(free, true))));
            }
        }
        Err("it is held".into())
    }

    /// Waits on even if nobody does so any more, and then keeps the lock for nobody.
    async fn lock_for_good(&self) -> Result<Option<StoreLock>, BoxError> {
        let lock = self.storage.lock.clone();
        if let Ok(held) = lock.clone().try_acquire_owned() {
            return Ok(Some(StoreLock::new(held)));
        }
        let waits = lock.clone().acquire_owned();
        let waited = tokio::spawn(async move {
            let held = timeout(SHORT, waits).await;
            held.map(|held| held.unwrap().forget()).is_ok()
        });
        match waited.await? {
            true => Ok(Some(StoreLock::new(OnDrop(
                move || lock.add_permits(1),
                true,
            )))),
            false => Err("it is held".into()),
        }
    }
}

impl SharedTokenStore for Shelf {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        yield_now().await;
        let storage = &self.storage;
        let reads = storage.reads.fetch_add(1, Ordering::SeqCst);
        let mut kept = storage.kept();
        let now = self.now(reads);
        let in_a_race = storage.swapping.load(Ordering::SeqCst) > 0;
        let before = || storage.before.lock().unwrap().clone();
        match self.fault {
            Fault::Hangs => pending().await,
            Fault::ReadFailsSometimes if reads == 20 => return Err("the shelf is broken".into()),
            Fault::LockBlocksReads => drop(storage.lock.acquire().await),
            Fault::LagsByOne if self.number != 0 => kept = before(),
            Fault::LagsInARace if self.number != 0 && in_a_race => kept = before(),
            Fault::DropIsSeenByOne => {
                let seen = self.seen.lock().unwrap().clone();
                let newer = seen.filter(|seen| seen.version > kept.version);
                kept = newer.unwrap_or(kept);
            }
            Fault::Caches => {
                kept = self.seen.lock().unwrap().get_or_insert(kept).clone();
            }
            Fault::DroppedReadForgets => {
                let mut forget = OnDrop(
                    || {
                        let _ = storage.put(&Record::empty());
                    },
                    true,
                );
                yield_now().await;
                forget.1 = false;
            }
            Fault::EndsAreEmpty if matches!(kept.turn, Turn::Ended(_)) => kept = Record::empty(),
            Fault::NoTokensAreEmpty if kept.turn == Turn::Free && kept.tokens.is_none() => {
                kept = Record::empty();
            }
            _ => {}
        }
        Ok((kept, now))
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        let _locked = match self.fault {
            Fault::LockBlocksSwaps => Some(self.storage.lock.acquire().await),
            _ => None,
        };
        match self.fault {
            Fault::SwapFails => return Err("the shelf is full".into()),
            Fault::QuotesTokens => {
                let token = access(record).unwrap_or_default();
                return Err(format!("no place for {token}").into());
            }
            _ => {}
        }
        self.storage.swapping.fetch_add(1, Ordering::SeqCst);
        let swapping = || {
            self.storage.swapping.fetch_sub(1, Ordering::SeqCst);
        };
        let _swapping = OnDrop(swapping, true);
        yield_now().await;
        let swapped = self.swap_spoilt(version, record).await;
        yield_now().await;
        if swapped == Swap::Done {
            *self.seen.lock().unwrap() = Some(record.clone());
            self.own.send_replace(record.version);
        }
        Ok(swapped)
    }

    async fn changed(&self, version: u64) {
        let memory = &self.storage.memory;
        let now = || self.storage.kept().version;
        match self.fault {
            Fault::NeverTells => pending().await,
            Fault::TellsOfLaterOnes => memory.changed(now()).await,
            Fault::TellsOfItsOwn if now() == version => {
                let mut own = self.own.subscribe();
                let _ = own.wait_for(|own| *own > version).await;
            }
            Fault::MissesOne if now() == version => {
                yield_now().await;
                memory.changed(now()).await;
            }
            Fault::DroppedWaitIsTheLast => {
                if self.is_deaf.swap(true, Ordering::SeqCst) {
                    pending::<()>().await;
                }
                memory.changed(version).await;
                self.is_deaf.store(false, Ordering::SeqCst);
            }
            Fault::DroppedWaitForgets => {
                let forget = || {
                    let _ = self.storage.put(&Record::empty());
                };
                let mut forget = OnDrop(forget, now() == version);
                memory.changed(version).await;
                forget.1 = false;
            }
            _ => memory.changed(version).await,
        }
    }

    async fn lock(&self, limit: Duration) -> Result<Option<StoreLock>, BoxError> {
        let lock = &self.storage.lock;
        match self.fault {
            Fault::LockForAll => Ok(Some(StoreLock::new(()))),
            Fault::LockFails => Err("no such lock".into()),
            Fault::LockOfTheSecond if self.number == 0 => Ok(None),
            Fault::LockOfEachHandle => self.lock_in_one(&self.own_lock, limit).await,
            // One that the system gives to a process as often as it asks.
            Fault::LockOfTheProcess if self.own_lock.available_permits() == 0 => {
                Ok(Some(StoreLock::new(())))
            }
            Fault::LockOfTheProcess => {
                let own = self.own_lock.clone().try_acquire_owned();
                let held = self.lock_in_one(lock, limit).await?;
                Ok(Some(StoreLock::new((held, own))))
            }
            Fault::LockIsNeverFreed => {
                forget(self.lock_in_one(lock, limit).await?);
                Ok(Some(StoreLock::new(())))
            }
            Fault::LockIgnoresLimit => self.lock_in_one(lock, Duration::from_secs(9999)).await,
            Fault::LockInTwoSteps | Fault::DroppedLockHolds => self.lock_by_mark().await,
            Fault::DroppedWaitHolds => self.lock_for_good().await,
            _ => self.lock_in_one(lock, limit).await,
        }
    }
}

/// The turn of one, the rest of the other.
fn half(new: &Record, old: &Record) -> Record {
    Record {
        turn: old.turn,
        ..new.clone()
    }
}

fn access(record: &Record) -> Option<&str> {
    let tokens = record.tokens()?;
    Some(tokens.access_token().expose())
}

/// The same tokens, but for one thing.
fn spoilt_tokens(fault: Fault, tokens: &TokenSet) -> TokenSet {
    let mut set = TokenSet::new(tokens.access_token().clone())
        .unwrap()
        .with_obtained_at(tokens.obtained_at());
    if let Some(at) = tokens.expires_at() {
        let drifts = fault == Fault::ExpiryDrifts;
        let early = Duration::from_millis(if drifts { 400 } else { 0 });
        set = set.with_expires_at(at - early);
    }
    if let (Some(token), false) = (tokens.refresh_token(), fault == Fault::LosesRefreshToken) {
        set = set.with_refresh_token(token.clone()).unwrap();
    }
    if let (Some(doubt), false) = (tokens.in_doubt(), fault == Fault::LosesDoubt) {
        set = set.with_in_doubt(doubt);
    }
    let identity = tokens.identity().iter();
    let identity = identity.filter(|_| fault != Fault::LosesIdentity);
    identity.fold(set, |set, (name, value)| {
        set.with_identity(name, value.clone())
    })
}
