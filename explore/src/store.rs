//! The stores: slow, late, broken, and for one session or for several.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tower_token_refresh::BoxError;
use tower_token_refresh::Record;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::StoreLock;
use tower_token_refresh::Swap;
use tower_token_refresh::TokenSet;
use tower_token_refresh::TokenStore;

use crate::book::Book;
use crate::names::Pair;
use crate::report::happened;
use crate::world::Pause;
use crate::world::World;
use crate::world::pause;

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Done within one step.
    Fast,
    /// Done after some time, in which others take theirs.
    Slow,
    /// Done in the background, when nobody waits for it any more.
    Late,
    /// Not done, or done, and the answer is an error.
    Fail,
    /// As if nobody were there.
    Hang,
    Panic,
}

/// What is kept, and how each call goes.
struct Kept<T> {
    book: Arc<Book>,
    world: &'static World,
    value: Mutex<T>,
    /// How often it was written.
    writes: AtomicUsize,
}

impl<T: Send + 'static> Kept<T> {
    fn new(book: Arc<Book>, world: &'static World, value: T) -> Self {
        Self {
            book,
            world,
            value: Mutex::new(value),
            writes: AtomicUsize::new(0),
        }
    }

    fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    fn write(&self, value: T) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        *self.lock() = value;
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` on what is kept, as this call goes.
    async fn call<R: Send + 'static>(
        self: &Arc<Self>,
        session: usize,
        what: &'static str,
        work: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> Result<R, BoxError> {
        let mut unanswered = Unanswered {
            book: &self.book,
            session,
            is_answered: false,
        };
        let call = match self.book.is_healthy() {
            true => Call::Fast,
            false => self.world.call(),
        };
        happened(|| format!("{what}: {call:?}"));
        let failed = || Err(BoxError::from("the store is away"));
        let done = match call {
            Call::Fast => Ok(work(self)),
            Call::Slow => {
                pause(&self.world.disk).await;
                let done = work(self);
                pause(&self.world.disk).await;
                Ok(done)
            }
            Call::Late => {
                let (this, writes) = (self.clone(), self.writes());
                let late = async move {
                    pause(&Pause::Seconds(3..12)).await;
                    // Later than that, nobody could make it good.
                    if this.writes() <= writes + 1 {
                        happened(|| format!("{what}: done late"));
                        drop(work(&this));
                    }
                };
                if let Ok(runtime) = Handle::try_current() {
                    drop(runtime.spawn(late));
                }
                pending().await
            }
            Call::Fail => {
                pause(&self.world.disk).await;
                if fastrand::bool() {
                    drop(work(self));
                }
                return failed();
            }
            Call::Hang => pending().await,
            Call::Panic => resume_unwind(Box::new("planned")),
        };
        unanswered.is_answered = true;
        drop(unanswered);
        happened(|| format!("{what}: done"));
        done
    }
}

/// A call that has no answer yet, and perhaps will never have one.
struct Unanswered<'a> {
    book: &'a Book,
    session: usize,
    is_answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.book.store_fails(self.session);
        }
    }
}

/// The store of one session.
#[derive(Clone)]
pub struct OwnStore(Arc<Kept<Option<TokenSet>>>);

impl OwnStore {
    pub fn new(book: Arc<Book>, world: &'static World) -> Self {
        Self(Arc::new(Kept::new(book, world, None)))
    }

    /// What it holds.
    pub fn peek(&self) -> Option<TokenSet> {
        self.0.lock().clone()
    }

    /// It held these before.
    pub fn fill(&self, tokens: TokenSet) {
        self.0.book.stored(Some(&tokens));
        *self.0.lock() = Some(tokens);
    }
}

impl TokenStore for OwnStore {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        self.0.call(0, "load", |kept| kept.lock().clone()).await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
        let new = tokens.clone();
        let saved = self.0.call(0, "save", move |kept| {
            kept.book.stored(Some(&new));
            kept.write(Some(new));
        });
        saved.await
    }

    async fn clear(&self) -> Result<(), BoxError> {
        self.0.call(0, "clear", |kept| kept.write(None)).await
    }
}

/// The store of several sessions.
#[derive(Clone)]
pub struct SharedStore {
    kept: Arc<Kept<Record>>,
    version: Arc<watch::Sender<u64>>,
    /// Whose face of it this is.
    session: usize,
    /// Where it has a lock that dies with its holder.
    lock: Option<Arc<tokio::sync::Mutex<()>>>,
}

impl SharedStore {
    pub fn new(book: Arc<Book>, world: &'static World) -> Self {
        Self {
            kept: Arc::new(Kept::new(book, world, Record::empty())),
            version: Arc::new(watch::channel(0).0),
            session: 0,
            lock: world.has_lock.then(Arc::default),
        }
    }

    /// As this session sees it.
    pub fn of(&self, session: usize) -> Self {
        Self {
            session,
            ..self.clone()
        }
    }

    /// What it holds.
    pub fn peek(&self) -> Record {
        self.kept.lock().clone()
    }

    /// It held these before.
    pub fn fill(&self, tokens: TokenSet) {
        self.kept.book.stored(Some(&tokens));
        let mut record = self.kept.lock();
        if let Ok(filled) = record.with_login(tokens, tokio::model::wall()) {
            *record = filled;
        }
    }
}

impl SharedTokenStore for SharedStore {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        let read = |kept: &Kept<Record>| (kept.lock().clone(), tokio::model::wall());
        self.kept.call(self.session, "read", read).await
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        let (new, told, session) = (record.clone(), self.version.clone(), self.session);
        let swapped = self.kept.call(self.session, "swap", move |kept| {
            if kept.lock().version() != version {
                happened(|| format!("a conflict at version {version}"));
                return Swap::Conflict;
            }
            happened(|| format!("version {} is {new:?}", new.version()));
            check_claim(&kept.book, session, &kept.lock(), &new);
            kept.book.stored(new.tokens());
            let version = new.version();
            kept.write(new);
            // Two that are told of at once may come here in either order.
            told.send_if_modified(|newest| {
                version > std::mem::replace(newest, version.max(*newest))
            });
            Swap::Done
        });
        swapped.await
    }

    async fn changed(&self, version: u64) {
        let mut told = self.version.subscribe();
        let _ = told.wait_for(|it| *it != version).await;
    }

    async fn lock(&self, limit: Duration) -> Result<Option<StoreLock>, BoxError> {
        let _ = limit;
        Ok(match &self.lock {
            Some(lock) => Some(StoreLock::new(lock.clone().lock_owned().await)),
            None => None,
        })
    }
}

/// P1: what becomes of a claim says what is to be feared of the refresh token.
fn check_claim(book: &Book, session: usize, old: &Record, new: &Record) {
    if new.is_claimed() && !old.is_claimed() {
        book.claim_begins(session);
    }
    let (Some(before), Some(after)) = (old.tokens(), new.tokens()) else {
        return;
    };
    let refresh = Pair::of_refresh(before);
    let is_same = Pair::of(before) == Pair::of(after) && refresh == Pair::of_refresh(after);
    if let Some(refresh) = refresh
        && is_same
        && old.is_claimed()
        && !new.is_claimed()
    {
        let tries = |tokens: &TokenSet| tokens.in_doubt().map_or(0, |doubt| doubt.tries);
        book.claim_ends(session, refresh, tries(after) > tries(before));
    }
}
