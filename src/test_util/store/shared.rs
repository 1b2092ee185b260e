//! The suite that a store must pass which several processes share.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use futures_util::future::join_all;
use futures_util::future::try_join;
use futures_util::future::try_join3;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::task::yield_now;

use super::difference::none_of;
use super::fault::CUTS;
use super::fault::StoreFault;
use super::fault::answer;
use super::fault::cut;
use super::fault::in_time;
use super::fault::let_others_run;
use super::fault::poll_times;
use super::records::Records;
use super::records::at;
use super::records::record_difference;
use crate::store::Record;
use crate::store::SharedTokenStore;
use crate::store::StoreLock;
use crate::store::Swap;
use crate::time::timeout;

/// So often, several swap with the same version.
const RACES: usize = 16;

/// So many of them at once, through each handle.
const RIVALS: usize = 2;

/// So many take turns in replacing the record, each so often.
const WRITERS: usize = 4;
const WRITES: u64 = 8;

/// So often at most, others read meanwhile.
const READS: usize = 256;

/// A call that waits is polled up to so many times before something happens, or it is dropped.
const POLLS: usize = 3;

/// The store's clock may go back so far between two readings, as when it is set.
const SET_BACK: Duration = Duration::from_secs(1);

/// So long, and so often, the store's clock is waited for.
const TICK: Duration = Duration::from_millis(5);
const TICKS: usize = 400;

/// For a lock that another one holds, and for one that will be free.
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(20);

/// So many want the lock at once, each so often.
const HOLDERS: usize = 4;
const HOLDS: usize = 4;

/// Puts a store that several processes share through what the crate relies on.
///
/// `open` gives a handle on the same storage each time it is called, as each process has one. The
/// storage is empty at first, and holds the record of a logout at the end, whose version is 2^53: it
/// cannot be checked a second time. A store that keeps nothing beyond its process gives clones of an
/// [`Arc`] around one.
///
/// ```
/// use std::sync::Arc;
/// use tower_token_refresh::{MemoryStore, test_util::{StoreFault, check_shared_token_store}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), StoreFault> {
/// let store = Arc::new(MemoryStore::new());
/// check_shared_token_store(async || store.clone()).await
/// # }
/// ```
///
/// # What is checked
///
/// - An empty storage reads as [`Record::empty`], and takes a swap with version 0, once.
/// - What was swapped in comes back whole: the tokens as
///   [`check_token_store`](super::check_token_store) says; version and epoch, up to 2^53; whether the
///   refresh token is free, refused, or claimed, by whom and until when (to the millisecond), or how
///   the login ended. A record that was read can be swapped in again, and is still the same.
/// - All handles see that at once: the one that wrote, another one that was open all the while, and
///   one that is opened afterwards. A read that begins after a swap has returned gives that record
///   or a newer one, also while others swap.
/// - A swap with another version than that of the record, be it older, newer, or 0, is a
///   [`Conflict`](Swap::Conflict) and changes nothing. Of several with the right one, through several
///   handles at once, exactly one is [`Done`](Swap::Done), and its record is there. A conflict is only said
///   where somebody else has swapped.
/// - A swap that is dropped, at whatever moment, leaves the old record or the new one, and what it has
///   left running undoes no later one. A read that is dropped changes nothing.
/// - [`changed`](SharedTokenStore::changed) returns where the record is another already, and where it
///   becomes another while it waits, by whichever handle; one that is dropped does no harm.
/// - The store's clock moves, within 2 s, and does not go back by more than a second, whichever
///   handle is asked.
/// - [`lock`](SharedTokenStore::lock), where there is one, is given to one at a time, through whichever handle, to
///   the next when it is dropped, and to nobody by a call that was dropped. Who does not get it is told so
///   at its limit. Reads and swaps go on while it is held: a logout must not wait.
/// - No error quotes a token.
///
/// # What is not
///
/// That what was swapped in survives a failure of power; that nobody else can read it; that a storage
/// which cannot be read is an error ([`check_unreadable_shared_token_store`](super::check_unreadable_shared_token_store)
/// checks that); what a server does with a statement whose caller is gone, if it takes its time; what
/// happens between processes, as all handles are in one here; that the lock is freed by the death of
/// its holder; and what becomes of a record that a newer version of this crate has written.
///
/// # Errors
///
/// The first thing that is found wrong, as with [`check_token_store`](super::check_token_store).
///
/// # Panics
///
/// Where the store or `open` does.
///
/// # Runtimes
///
/// It needs none, beyond what the store does. On tokio, what is done at once is done in tasks, so
/// that several threads take part where the runtime has them: check it on such a one, too. It waits
/// for nothing but the store and its clock. Leave tokio's clock running if the store talks to
/// somebody else.
///
/// # Cancel safety
///
/// It may be dropped, and then leaves in the storage what is there.
pub async fn check_shared_token_store<S, F>(open: impl Fn() -> F) -> Result<(), StoreFault>
where
    S: SharedTokenStore,
    F: Future<Output = S>,
{
    let records = Records::new().map_err(StoreFault::of_the_suite)?;
    let kit = Kit {
        first: Arc::new(open().await),
        second: Arc::new(open().await),
        open,
        clock: Arc::default(),
    };
    kit.is_empty_at_first().await?;
    kit.takes_the_first_once(&records).await?;
    kit.refuses_other_versions(&records).await?;
    kit.keeps_what_is_swapped_in_again(&records).await?;
    kit.lets_one_win(&records).await?;
    kit.loses_nothing(&records).await?;
    kit.bears_dropped_swaps(&records).await?;
    kit.bears_dropped_reads(&records).await?;
    kit.bears_dropped_waits(&records).await?;
    kit.tells_of_changes(&records).await?;
    kit.has_a_clock().await?;
    kit.locks(&records).await?;
    kit.keeps_and_replaces(&records).await
}

/// One store under test: two handles that stay open, and a way to get more.
struct Kit<S, O> {
    first: Arc<S>,
    second: Arc<S>,
    open: O,
    clock: Arc<Clock>,
}

/// The latest reading of the store's clock, through all handles.
#[derive(Default)]
struct Clock(Mutex<Option<SystemTime>>);

/// What may be found: its name, where there are several.
type Allowed<'a> = (&'static str, &'a Record);

impl<S, F, O> Kit<S, O>
where
    S: SharedTokenStore,
    F: Future<Output = S>,
    O: Fn() -> F,
{
    async fn is_empty_at_first(&self) -> Result<(), StoreFault> {
        let empty = Record::empty();
        self.holds("at first, while nothing was stored", &empty)
            .await
    }

    async fn takes_the_first_once(&self, records: &Records) -> Result<(), StoreFault> {
        let (first, other) = (at(1, &records.old), at(1, &records.new));
        let step = "a swap with version 1 of the empty storage";
        refused(&*self.first, step, 1, &at(2, &records.new)).await?;
        self.holds(step, &Record::empty()).await?;
        let step = "the first swap, with version 0";
        done(&*self.first, step, 0, &first).await?;
        self.holds(&format!("after {step}"), &first).await?;
        for (store, who) in self.handles() {
            let step = format!("a second swap with version 0, through {who}");
            refused(store, &step, 0, &other).await?;
            self.holds(&format!("after {step}"), &first).await?;
        }
        Ok(())
    }

    async fn keeps_and_replaces(&self, records: &Records) -> Result<(), StoreFault> {
        let mut version = self.read("a read").await?.version;
        for (sample, (writer, who)) in records.in_turn.iter().zip(self.handles().iter().cycle()) {
            let record = at(sample.record.version.max(version + 1), &sample.record);
            let step = format!("a swap that writes {}, through {who}", sample.name);
            done(*writer, &step, version, &record).await?;
            self.holds(&format!("after {step}"), &record).await?;
            version = record.version;
        }
        Ok(())
    }

    /// The session does that: it changes a part of what it has read.
    async fn keeps_what_is_swapped_in_again(&self, records: &Records) -> Result<(), StoreFault> {
        let mut expected = self.replace("a swap", &records.old).await?;
        for (store, who) in [self.handles(), self.handles()].concat() {
            let found = self
                .read("a read of what is to be swapped in again")
                .await?;
            let step = format!("a swap that writes what was read, through {who}");
            done(
                store,
                &step,
                expected.version,
                &at(found.version + 1, &found),
            )
            .await?;
            expected.version += 1;
            self.holds(&format!("after {step}"), &expected).await?;
        }
        Ok(())
    }

    async fn refuses_other_versions(&self, records: &Records) -> Result<(), StoreFault> {
        for _ in 0..3 {
            self.replace("a swap", &records.old).await?;
        }
        let kept = self.replace("a swap", &records.next).await?;
        let version = kept.version;
        for (store, who) in self.handles() {
            for (wrong, which) in [
                (version - 1, "the version before"),
                (1, "an old version"),
                (0, "version 0"),
                (version + 1, "the version after"),
                (1 << 53, "a version far ahead"),
            ] {
                let step = format!("a swap with {which}, through {who}");
                // As its own writer has it, and as one that would fit.
                for new in [wrong + 1, version + 1] {
                    refused(store, &step, wrong, &at(new, &records.new)).await?;
                    self.holds(&format!("after {step}"), &kept).await?;
                }
            }
        }
        Ok(())
    }

    async fn lets_one_win(&self, records: &Records) -> Result<(), StoreFault> {
        let step = "several swaps at once with the same version";
        let handles = self.several_handles().await;
        let mut version = self.replace("a swap", &records.old).await?.version;
        for round in 0..RACES {
            let rivals = handles.iter().cycle().take(handles.len() * RIVALS);
            let rivals = rivals.zip(0..).map(|(store, rival)| {
                let store = store.clone();
                let record = Record {
                    epoch: rival,
                    ..at(version + 1, [&records.new, &records.next][round % 2])
                };
                let swap: BoxFuture<'static, _> = Box::pin(async move {
                    let swapped = answer(step, store.swap(version, &record)).await?;
                    Ok((swapped == Swap::Done).then_some(record))
                });
                swap
            });
            let winners = at_once(rivals.collect()).await.into_iter();
            let winners = winners.collect::<Result<Vec<_>, StoreFault>>()?;
            let mut done = winners.iter().flatten();
            let (Some(winner), None) = (done.next(), done.next()) else {
                let (all, done) = (winners.len(), winners.iter().flatten().count());
                let what = format!("{done} of {all} were done in place of one");
                return Err(StoreFault::new(step, what));
            };
            self.holds(&format!("after {step}, of which one was done"), winner)
                .await?;
            version += 1;
        }
        Ok(())
    }

    /// What is written says by its version how it must look, and no version may be left out.
    async fn loses_nothing(&self, records: &Records) -> Result<(), StoreFault> {
        let begin = self.replace("a swap", &records.old).await?.version;
        let race = Arc::new(Race {
            even: records.old.clone(),
            odd: records.new.clone(),
            begin: at(begin, &records.old),
            done: AtomicU64::new(begin),
            writers: AtomicUsize::new(WRITERS),
            clock: self.clock.clone(),
        });
        let mut all: Vec<BoxFuture<'static, _>> = Vec::new();
        let handles = self.several_handles().await;
        for store in handles.iter().cycle().take(WRITERS) {
            let (race, store) = (race.clone(), store.clone());
            all.push(Box::pin(async move {
                let written = race.write(&*store).await;
                race.writers.fetch_sub(1, Ordering::SeqCst);
                written
            }));
        }
        for store in handles {
            let race = race.clone();
            all.push(Box::pin(async move { race.look_on(&*store).await }));
        }
        let all = at_once(all).await;
        all.into_iter().collect::<Result<(), _>>()?;
        let end = begin + WRITERS as u64 * WRITES;
        let step = "after swaps by several at once, each until it was done";
        self.holds(step, &race.expected(end)).await
    }

    async fn bears_dropped_swaps(&self, records: &Records) -> Result<(), StoreFault> {
        for moment in 0..CUTS {
            let old = self.replace("a swap", &records.old).await?;
            let new = at(old.version + 1, &records.new);
            let step = "a swap that is to be dropped";
            match answer(step, cut(self.first.swap(old.version, &new), moment)).await? {
                Some(Swap::Done) => return self.holds("after a swap", &new).await,
                Some(Swap::Conflict) => return Err(StoreFault::new(step, CONFLICT)),
                None => {}
            }
            let allowed = [("the old record", &old), ("the new one", &new)];
            self.holds_one_of("after a swap that was dropped", &allowed)
                .await?;
            let step = "a swap after one that was dropped";
            let next = self.replace_late(step, &records.next).await?;
            self.still_holds(step, &next).await?;
        }
        Ok(())
    }

    async fn bears_dropped_reads(&self, records: &Records) -> Result<(), StoreFault> {
        let kept = self.replace("a swap", &records.old).await?;
        for moment in 0..CUTS {
            let step = "a read that is to be dropped";
            let read = answer(step, cut(self.first.read(), moment)).await?;
            self.still_holds("after a read that was dropped", &kept)
                .await?;
            if read.is_some() {
                break;
            }
        }
        Ok(())
    }

    async fn bears_dropped_waits(&self, records: &Records) -> Result<(), StoreFault> {
        let kept = self.replace("a swap", &records.old).await?;
        for polls in 0..=POLLS {
            for (store, _) in self.handles() {
                let changed = pin!(store.changed(kept.version));
                poll_times(changed, polls).await;
                self.still_holds("after a wait for a change that was dropped", &kept)
                    .await?;
            }
        }
        Ok(())
    }

    async fn tells_of_changes(&self, records: &Records) -> Result<(), StoreFault> {
        let version = self.replace("a swap", &records.old).await?.version;
        for (store, who) in self.handles() {
            for (older, which) in [(version - 1, "the version before"), (0, "version 0")] {
                let step = format!("a wait for another than {which}, through {who}");
                in_time(&step, store.changed(older)).await?;
            }
        }
        let mut next = [&records.new, &records.next].into_iter().cycle();
        for polls in 0..=POLLS {
            for ((writer, _), is_left_alone) in self.handles().into_iter().zip([false, true]) {
                let new = next.next().unwrap_or(&records.new);
                self.tells_all_of(new, writer, polls, is_left_alone).await?;
            }
        }
        Ok(())
    }

    /// All handles wait, and one swaps when each was polled so often. Those that are left alone are
    /// polled again when the swap is done and not before: nothing may get lost in between.
    async fn tells_all_of(
        &self,
        new: &Record,
        writer: &S,
        polls: usize,
        is_left_alone: bool,
    ) -> Result<(), StoreFault> {
        let reopened = (self.open)().await;
        // Who waits for a change has read what is to change.
        let step = "a read through a handle that was opened anew";
        let version = read(&reopened, &self.clock, step).await?.version;
        let new = at(version + 1, new);
        let (waiting, is_done) = (AtomicUsize::new(0), AtomicBool::new(false));
        let wait = async |store: &S, step: &str| {
            let mut changed = pin!(store.changed(version));
            let returned = poll_times(changed.as_mut(), polls).await;
            waiting.fetch_add(1, Ordering::SeqCst);
            while is_left_alone && !is_done.load(Ordering::SeqCst) {
                yield_now().await;
            }
            let told = async {
                if returned.is_none() {
                    changed.await;
                }
                loop {
                    let found = read(store, &self.clock, step).await?;
                    if found.version != version {
                        return Ok(found);
                    }
                    // It was too early, which it may be.
                    yield_now().await;
                    store.changed(version).await;
                }
            };
            let found = in_time(step, told).await??;
            is_one_of(step, &found, &[("this", &new)]).map(drop)
        };
        let swap = async {
            while waiting.load(Ordering::SeqCst) < 3 {
                yield_now().await;
            }
            let step = "a swap while others wait for it";
            let swapped = done(writer, step, version, &new).await;
            is_done.store(true, Ordering::SeqCst);
            swapped
        };
        let waits = try_join3(
            wait(&self.first, "a wait for a change, through the first handle"),
            wait(
                &self.second,
                "a wait for a change, through the second handle",
            ),
            wait(
                &reopened,
                "a wait for a change, through a handle that was opened anew",
            ),
        );
        try_join(waits, swap).await.map(drop)
    }

    async fn has_a_clock(&self) -> Result<(), StoreFault> {
        for (store, who) in self.handles() {
            let step = format!("reads of the store's clock, through {who}");
            let (_, begin) = answer(&step, store.read()).await?;
            let mut has_moved = false;
            for _ in 0..TICKS {
                timeout(TICK, std::future::pending::<()>()).await;
                let before = *self.clock.latest();
                let (_, now) = answer(&step, store.read()).await?;
                self.clock.tells(&step, before, now)?;
                if now > begin {
                    has_moved = true;
                    break;
                }
            }
            if !has_moved {
                let what = format!("it stands still for {} s", (TICK * TICKS as u32).as_secs());
                return Err(StoreFault::new(&step, what));
            }
        }
        Ok(())
    }

    async fn locks(&self, records: &Records) -> Result<(), StoreFault> {
        let step = "a lock that nobody holds";
        let Some(held) = answer(step, self.first.lock(LONG)).await? else {
            return match answer(step, self.second.lock(LONG)).await? {
                None => Ok(()),
                Some(_) => Err(StoreFault::new(
                    step,
                    "the second handle has one, and the first has none",
                )),
            };
        };
        self.is_held(held, records).await?;
        self.is_freed().await?;
        self.bears_dropped_locks().await?;
        self.bears_dropped_waits_for_the_lock().await?;
        self.is_given_to_one_at_a_time().await
    }

    /// Nobody else gets the lock, and all else goes on.
    async fn is_held(&self, held: StoreLock, records: &Records) -> Result<(), StoreFault> {
        let reopened = (self.open)().await;
        for (store, who) in [
            (&*self.first, "the same handle"),
            (&*self.second, "another handle"),
            (&reopened, "a handle that was opened anew"),
        ] {
            let step = format!("a lock that is held already, through {who}");
            let what = match in_time(&step, store.lock(SHORT)).await? {
                Ok(Some(_)) => "two have it at once",
                Ok(None) => "there is none, while another has it",
                Err(error) => match StoreFault::quoted(&step, &error) {
                    Some(fault) => return Err(fault),
                    None => continue,
                },
            };
            return Err(StoreFault::new(&step, what));
        }
        for (store, who) in self.handles() {
            let version = self.read("a read while the lock is held").await?.version;
            let new = at(version + 1, &records.new);
            let step = format!("a swap while the lock is held, through {who}");
            done(store, &step, version, &new).await?;
            self.holds(&step, &new).await?;
        }
        drop(held);
        Ok(())
    }

    async fn is_freed(&self) -> Result<(), StoreFault> {
        for (store, who) in self.handles() {
            let step = format!("a lock that was dropped, through {who}");
            locked(store, &step).await?;
        }
        for (holder, waiter) in [(&self.first, &self.second), (&self.second, &self.first)] {
            let held = locked(&**holder, "a lock").await?;
            let step = "a lock that is dropped while another waits for it";
            let mut waits = pin!(locked(&**waiter, step));
            let early = poll_times(waits.as_mut(), POLLS).await;
            if let Some(early) = early {
                early?;
                return Err(StoreFault::new(step, "two have it at once"));
            }
            drop(held);
            waits.await?;
        }
        Ok(())
    }

    async fn bears_dropped_locks(&self) -> Result<(), StoreFault> {
        for moment in 0..CUTS {
            let step = "a lock whose call is to be dropped";
            let locked_in_time = answer(step, cut(self.first.lock(LONG), moment)).await?;
            let is_done = locked_in_time.is_some();
            drop(locked_in_time);
            for (store, who) in self.handles() {
                let step = format!("a lock after one whose call was dropped, through {who}");
                locked(store, &step).await?;
            }
            if is_done {
                break;
            }
        }
        Ok(())
    }

    async fn bears_dropped_waits_for_the_lock(&self) -> Result<(), StoreFault> {
        for polls in 0..=POLLS {
            for (waiter, _) in self.handles() {
                let held = locked(&*self.first, "a lock").await?;
                poll_times(pin!(waiter.lock(LONG)), polls).await;
                drop(held);
                for (store, who) in self.handles() {
                    let step = format!("a lock after a wait for it was dropped, through {who}");
                    locked(store, &step).await?;
                }
            }
        }
        Ok(())
    }

    async fn is_given_to_one_at_a_time(&self) -> Result<(), StoreFault> {
        let step = "a lock that several want at once";
        let holders = Arc::new(AtomicUsize::new(0));
        let handles = self.several_handles().await;
        let all = handles.iter().cycle().take(HOLDERS).map(|store| {
            let (store, holders) = (store.clone(), holders.clone());
            let hold: BoxFuture<'static, _> = Box::pin(async move {
                for _ in 0..HOLDS {
                    let held = locked(&*store, step).await?;
                    let others = holders.fetch_add(1, Ordering::SeqCst);
                    yield_now().await;
                    holders.fetch_sub(1, Ordering::SeqCst);
                    drop(held);
                    if others > 0 {
                        return Err(StoreFault::new(step, "two have it at once"));
                    }
                }
                Ok(())
            });
            hold
        });
        at_once(all.collect()).await.into_iter().collect()
    }

    fn handles(&self) -> [(&S, &'static str); 2] {
        [
            (&*self.first, "the first handle"),
            (&*self.second, "the second handle"),
        ]
    }

    /// To be used in tasks.
    async fn several_handles(&self) -> Vec<Arc<S>> {
        let reopened = [(self.open)().await, (self.open)().await].map(Arc::new);
        let open = [self.first.clone(), self.second.clone()];
        open.into_iter().chain(reopened).collect()
    }

    async fn read(&self, step: &str) -> Result<Record, StoreFault> {
        read(&*self.first, &self.clock, step).await
    }

    /// Puts this in the place of what is there, with the next version.
    async fn replace(&self, step: &str, record: &Record) -> Result<Record, StoreFault> {
        let version = self.read(&format!("a read before {step}")).await?.version;
        let record = at(version + 1, record);
        done(&*self.first, step, version, &record).await?;
        self.holds(&format!("after {step}"), &record).await?;
        Ok(record)
    }

    /// The same where a swap that was dropped may still be done, once.
    async fn replace_late(&self, step: &str, record: &Record) -> Result<Record, StoreFault> {
        for _ in 0..2 {
            let version = self.read(step).await?.version;
            let record = at(version + 1, record);
            if answer(step, self.first.swap(version, &record)).await? == Swap::Done {
                return Ok(record);
            }
        }
        Err(StoreFault::new(step, CONFLICT))
    }

    /// The storage holds this, whoever asks and however often.
    async fn holds(&self, step: &str, record: &Record) -> Result<(), StoreFault> {
        self.holds_one_of(step, &[("this", record)]).await
    }

    /// The same, and whatever may have been left running does not change it.
    async fn still_holds(&self, step: &str, record: &Record) -> Result<(), StoreFault> {
        self.holds(step, record).await?;
        let_others_run().await;
        self.holds(&format!("{step}, and some turns later"), record)
            .await
    }

    /// Who has seen a later one of these must not see an earlier one again.
    async fn holds_one_of(&self, step: &str, allowed: &[Allowed<'_>]) -> Result<(), StoreFault> {
        let reopened = (self.open)().await;
        let mut allowed = allowed;
        for (store, who) in [
            (&*self.first, "a read through the first handle"),
            (&*self.first, "a read after another read"),
            (&*self.second, "a read through the second handle"),
            (&reopened, "a read through a handle that was opened anew"),
        ] {
            let step = format!("{step}, {who}");
            let found = read(store, &self.clock, &step).await?;
            allowed = &allowed[is_one_of(&step, &found, allowed)?..];
        }
        Ok(())
    }
}

/// Several that write, each on top of what it has read, and several that look on.
struct Race {
    even: Record,
    odd: Record,
    begin: Record,
    /// The highest version whose swap has returned.
    done: AtomicU64,
    /// So many still write.
    writers: AtomicUsize,
    clock: Arc<Clock>,
}

impl Race {
    fn expected(&self, version: u64) -> Record {
        if version == self.begin.version {
            return self.begin.clone();
        }
        let looks = if version.is_multiple_of(2) {
            &self.even
        } else {
            &self.odd
        };
        Record {
            epoch: version,
            ..at(version, looks)
        }
    }

    async fn look<S: SharedTokenStore>(&self, store: &S, step: &str) -> Result<u64, StoreFault> {
        let done = self.done.load(Ordering::SeqCst);
        let found = read(store, &self.clock, step).await?;
        if found.version < done {
            let what = format!(
                "the version is {}, where a swap to {done} has returned already",
                found.version
            );
            return Err(StoreFault::new(step, what));
        }
        let expected = self.expected(found.version);
        is_one_of(step, &found, &[("this", &expected)])?;
        Ok(found.version)
    }

    async fn write<S: SharedTokenStore>(&self, store: &S) -> Result<(), StoreFault> {
        let step = "swaps by several at once, each until it is done";
        // Each conflict is due to one of the others' swaps.
        let mut conflicts = (WRITERS as u64 - 1) * WRITES;
        let mut writes = WRITES;
        while writes > 0 {
            let version = self.look(store, step).await?;
            yield_now().await;
            let record = self.expected(version + 1);
            match answer(step, store.swap(version, &record)).await? {
                Swap::Done => {
                    self.done.fetch_max(version + 1, Ordering::SeqCst);
                    writes -= 1;
                }
                Swap::Conflict if conflicts == 0 => {
                    let what = "there are more conflicts than others have swapped";
                    return Err(StoreFault::new(step, what));
                }
                Swap::Conflict => conflicts -= 1,
            }
        }
        Ok(())
    }

    async fn look_on<S: SharedTokenStore>(&self, store: &S) -> Result<(), StoreFault> {
        for _ in 0..READS {
            self.look(store, "a read while others swap").await?;
            if self.writers.load(Ordering::SeqCst) == 0 {
                break;
            }
            yield_now().await;
        }
        Ok(())
    }
}

impl Clock {
    fn latest(&self) -> MutexGuard<'_, Option<SystemTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `before` is the latest when the store was asked: what others have read since may be later.
    fn tells(
        &self,
        step: &str,
        before: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<(), StoreFault> {
        let mut latest = self.latest();
        *latest = (*latest).max(Some(now));
        match before.unwrap_or(now).duration_since(now) {
            Ok(back) if back > SET_BACK => {
                let what = format!("the store's clock went back by {} s", back.as_secs());
                Err(StoreFault::new(step, what))
            }
            _ => Ok(()),
        }
    }
}

const CONFLICT: &str = "it is a conflict, though the version is the right one";

async fn read<S: SharedTokenStore>(
    store: &S,
    clock: &Clock,
    step: &str,
) -> Result<Record, StoreFault> {
    let before = *clock.latest();
    let (record, now) = answer(step, store.read()).await?;
    clock.tells(step, before, now)?;
    Ok(record)
}

/// A swap that must be done.
async fn done<S: SharedTokenStore>(
    store: &S,
    step: &str,
    version: u64,
    record: &Record,
) -> Result<(), StoreFault> {
    match answer(step, store.swap(version, record)).await? {
        Swap::Done => Ok(()),
        Swap::Conflict => Err(StoreFault::new(step, CONFLICT)),
    }
}

/// A swap that must not be done.
async fn refused<S: SharedTokenStore>(
    store: &S,
    step: &str,
    version: u64,
    record: &Record,
) -> Result<(), StoreFault> {
    match answer(step, store.swap(version, record)).await? {
        Swap::Conflict => Ok(()),
        Swap::Done => {
            let what = "it says that it is done, though the record has another version";
            Err(StoreFault::new(step, what))
        }
    }
}

/// A lock that must be given.
async fn locked<S: SharedTokenStore>(store: &S, step: &str) -> Result<StoreLock, StoreFault> {
    let held = answer(step, store.lock(LONG)).await?;
    held.ok_or_else(|| StoreFault::new(step, "there is none, where there was one before"))
}

/// Which of them it is.
fn is_one_of(step: &str, found: &Record, allowed: &[Allowed<'_>]) -> Result<usize, StoreFault> {
    let mut differences = Vec::new();
    for (i, (name, expected)) in allowed.iter().enumerate() {
        match record_difference(expected, found) {
            Some(what) => differences.push((*name, what)),
            None => return Ok(i),
        }
    }
    Err(StoreFault::new(step, none_of(&differences)))
}

/// Does all of them at once: in tasks where there is a runtime of tokio, as that may have several
/// threads. In no certain order.
async fn at_once<T: Send + 'static>(calls: Vec<BoxFuture<'static, T>>) -> Vec<T> {
    let Ok(runtime) = Handle::try_current() else {
        return join_all(calls).await;
    };
    let mut tasks = JoinSet::new();
    for call in calls {
        tasks.spawn_on(call, &runtime);
    }
    let mut done = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        match joined.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(output) => done.push(output),
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime is shut down, and this with it.
            Err(Err(_)) => {}
        }
    }
    done
}

#[cfg(test)]
mod tests;
