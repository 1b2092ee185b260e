//! A write that counts when replicas have it.
//!
//! Redis answers a write before its replicas have it, and says on request (`WAIT`) how many have all that
//! was written on the connection that asks. It says so of that connection alone, so that what is written
//! and the `WAIT` go on the same one; and while it waits, it reads nothing more on it, so that one `WAIT`
//! is for all that was written before.
//!
//! A write that too few replicas have is there all the same, for whoever reads it: see [`Doubts`](crate::store::doubts::Doubts).

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

impl Replicas {
    pub(super) fn new(client: Client, number: u32, limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            number,
            // 0 would be for ever.
            limit: limit.clamp(Duration::from_millis(1), LONGEST),
            line: Line::new(client),
            queue: Mutex::default(),
            waiting: tokio::sync::Mutex::default(),
        })
    }

    /// Waits until enough replicas have what was written on this connection.
    pub(super) async fn confirm(&self, link: &Link) -> Result<(), Fault> {
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
