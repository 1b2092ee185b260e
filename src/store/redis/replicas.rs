//! A write that counts when replicas have it.
//!
//! Redis answers a write before its replicas have it, and says on request (`WAIT`) how many have all that
//! was written on the connection that asks. It says so of that connection alone, so that what is written
//! and the `WAIT` go on the same one; and while it waits, it reads nothing more on it, so that one `WAIT`
//! is for all that was written before.
//!
//! A write that too few replicas have is there all the same, for whoever reads it: the session, which asks
//! for what became of it, and would take it for done. So what was not confirmed is remembered, and a read
//! that would show it has it confirmed first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use redis::Client;
use redis::cmd;

use super::fault::Fault;
use super::line::Line;
use super::line::Link;
use crate::time::timeout;

const LONGEST: Duration = Duration::from_secs(3600);

/// For the way there and back.
const SLACK: Duration = Duration::from_secs(1);

/// What is written through a store that waits for replicas.
pub(super) struct Replicas {
    /// So many have to have it.
    number: u32,
    limit: Duration,
    /// For writes, and for reads of what was not confirmed.
    pub(super) line: Line,
    queue: Mutex<Queue>,
    /// Only one waits.
    waiting: tokio::sync::Mutex<()>,
    /// By key: the swaps that may be done without being confirmed.
    doubts: Mutex<HashMap<String, Vec<Doubt>>>,
}

/// Who wants writes to be confirmed on the connection that is used now.
#[derive(Default)]
struct Queue {
    /// Which connection that is.
    link: u64,
    asked: u64,
    /// All up to this one have been told.
    confirmed: u64,
    refused: Option<(u64, Fault)>,
}

/// Swaps in place of the record of one version, of which nobody can say yet whether a replica has them.
struct Doubt {
    version: u64,
    swaps: u64,
}

impl Replicas {
    pub(super) fn new(client: Client, number: u32, limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            number,
            // 0 would be for ever.
            limit: limit.clamp(Duration::from_millis(1), LONGEST),
            line: Line::new(client),
            queue: Mutex::default(),
            waiting: tokio::sync::Mutex::default(),
            doubts: Mutex::default(),
        })
    }

    /// A swap in place of this version is about to be sent.
    pub(super) fn begin(&self, key: &str, version: u64) {
        let mut doubts = lock(&self.doubts);
        let of_key = doubts.entry(key.to_owned()).or_default();
        match of_key.iter_mut().find(|doubt| doubt.version == version) {
            Some(doubt) => doubt.swaps += 1,
            None => of_key.push(Doubt { version, swaps: 1 }),
        }
    }

    /// It was not done.
    pub(super) fn give_up(&self, key: &str, version: u64) {
        self.change(key, |doubt| {
            if doubt.version == version {
                doubt.swaps -= 1;
            }
            doubt.swaps > 0
        });
    }

    /// The record of this version, and so what came before it, has been confirmed. A swap in place of it
    /// may come later.
    fn settle(&self, key: &str, version: u64) {
        self.change(key, |doubt| doubt.version >= version);
    }

    fn change(&self, key: &str, stays: impl FnMut(&mut Doubt) -> bool) {
        let mut doubts = lock(&self.doubts);
        if let Some(of_key) = doubts.get_mut(key) {
            of_key.retain_mut(stays);
            if of_key.is_empty() {
                doubts.remove(key);
            }
        }
    }

    /// May the record of this version be one that this process has written, and no replica has?
    pub(super) fn is_in_doubt(&self, key: &str, version: u64) -> bool {
        let doubts = lock(&self.doubts);
        let of_key = doubts.get(key).map(Vec::as_slice).unwrap_or_default();
        of_key.iter().any(|doubt| doubt.version < version)
    }

    /// Waits until enough replicas have what was written on this connection, up to this version of the
    /// record.
    pub(super) async fn confirm(&self, link: &Link, key: &str, version: u64) -> Result<(), Fault> {
        self.wait(link).await?;
        self.settle(key, version);
        Ok(())
    }

    async fn wait(&self, link: &Link) -> Result<(), Fault> {
        let place = {
            let mut queue = lock(&self.queue);
            if link.number > queue.link {
                *queue = Queue {
                    link: link.number,
                    ..Queue::default()
                };
            }
            queue.asked += 1;
            queue.asked
        };
        // Whoever waits may be on a runtime that nobody drives. There may be one before the one that is
        // for this write as well.
        let _one = timeout(self.limit * 2 + SLACK, self.waiting.lock()).await;
        let asked = {
            let queue = lock(&self.queue);
            match &queue.refused {
                // It is the one before the last: there is no way to ask on it any more.
                _ if queue.link != link.number => return Err(lost()),
                _ if queue.confirmed >= place => return Ok(()),
                Some((refused, fault)) if *refused >= place => return Err(fault.clone()),
                _ => queue.asked,
            }
        };
        let limit = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        let answer = self
            .line
            .ask(link, self.limit, async |mut connection| {
                let mut wait = cmd("WAIT");
                wait.arg(self.number).arg(limit);
                wait.query_async::<u32>(&mut connection).await
            })
            .await;
        let answer = answer.and_then(|number| match number >= self.number {
            true => Ok(()),
            false => Err(Fault::new(format!(
                "{number} of the {} replicas have got the write within {} ms: it may be lost if this \
                 server fails, and so it does not count yet",
                self.number,
                self.limit.as_millis()
            ))),
        });
        let mut queue = lock(&self.queue);
        if queue.link == link.number {
            match &answer {
                Ok(()) => queue.confirmed = queue.confirmed.max(asked),
                Err(fault) => queue.refused = Some((asked, fault.clone())),
            }
        }
        answer
    }
}

fn lost() -> Fault {
    Fault::new(
        "the connection was lost before the replicas had the write, so that it may be done or not",
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
