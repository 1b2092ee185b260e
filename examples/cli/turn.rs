//! The tokens' store, and whether this process waits there while another one gets new tokens: then it
//! has sent nothing, and loses nothing by ending.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::timeout};
use tower_token_refresh::{BoxError, Record, SharedTokenStore, StoreLock, Swap};

use super::stores::Store;

/// Who has waited so long may be kept for as long as the other one stands still.
const GRACE: Duration = Duration::from_secs(1);

/// The store, which tells whether its lock is waited for.
#[derive(Clone)]
pub struct InTurn {
    store: Store,
    queue: Arc<watch::Sender<Queue>>,
}

#[derive(Default)]
struct Queue {
    /// So many calls wait for the lock.
    waiting: usize,
    /// None of them gets it any more.
    closed: bool,
}

/// One who waits.
struct Place {
    queue: Arc<watch::Sender<Queue>>,
    has_left: bool,
}

impl InTurn {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            queue: Arc::default(),
        }
    }

    pub fn is_waiting(&self) -> bool {
        self.queue.borrow().waiting > 0
    }

    /// Resolves when another process has held the lock for a while. This one does not get it after
    /// that, so that nothing begins that would have to be waited for.
    pub async fn give_up(&self) {
        let mut queue = self.queue.subscribe();
        loop {
            // The sender is here.
            let _ = queue.wait_for(|queue| queue.waiting > 0).await;
            let moved = queue.wait_for(|queue| queue.waiting == 0);
            if timeout(GRACE, moved).await.is_ok() {
                continue;
            }
            let close = |queue: &mut Queue| {
                queue.closed = queue.waiting > 0;
                queue.closed
            };
            if self.queue.send_if_modified(close) {
                return;
            }
        }
    }
}

impl Place {
    fn take(queue: &Arc<watch::Sender<Queue>>) -> Self {
        queue.send_modify(|queue| queue.waiting += 1);
        Self {
            queue: queue.clone(),
            has_left: false,
        }
    }

    /// Goes on with the lock, unless that was given up. Both are looked at in one step, so that it is
    /// not given up by one who has gone on.
    async fn leave(mut self) {
        let leave = |queue: &mut Queue| {
            if !queue.closed {
                queue.waiting -= 1;
            }
            !queue.closed
        };
        match self.queue.send_if_modified(leave) {
            true => self.has_left = true,
            false => pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.has_left {
            self.queue.send_modify(|queue| queue.waiting -= 1);
        }
    }
}

impl SharedTokenStore for InTurn {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        self.store.read().await
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        self.store.swap(version, record).await
    }

    async fn changed(&self, version: u64) {
        self.store.changed(version).await;
    }

    async fn lock(&self, limit: Duration) -> Result<Option<StoreLock>, BoxError> {
        let place = Place::take(&self.queue);
        let lock = self.store.lock(limit).await;
        place.leave().await;
        lock
    }

    fn can_lose(&self) -> bool {
        self.store.can_lose()
    }
}
