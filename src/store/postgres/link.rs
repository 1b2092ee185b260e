//! The connection that all sessions of a store share.
//!
//! Their statements are sent one after the other, without waiting for answers once it is known that no
//! pooler picks them apart: one that sees the end of an answer takes the server's connection away although
//! half of the next statement is there already, and what follows is garbage to both, and to others. A
//! connection that left a call without an answer is given up: whoever waits on it still may get one, and
//! whoever comes next has a new one.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use super::connect::Servers;
use super::connect::poll_over;
use super::failure::Failure;
use super::failure::Then;

/// A connection that is being made for so much longer than it may take is on a runtime that nobody drives.
const SLACK: Duration = Duration::from_secs(1);

pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// What became of a connection, once it is known.
type Made = watch::Receiver<Option<Result<Arc<Open>, Failure>>>;

/// One connection, opened when it is needed.
pub(super) struct Link {
    pub(super) servers: Arc<Servers>,
    state: Arc<Mutex<State>>,
    /// No pooler is between here and the server, or it leaves a connection to its client.
    pub(super) is_direct: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Open>>,
    opening: Option<Opening>,
}

/// A connection that is there.
struct Open {
    client: Client,
    driver: AbortHandle,
    servers: Arc<Servers>,
    /// A call was left without an answer.
    is_suspect: AtomicBool,
    /// For one call at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// One that is being made, for all who wait for it.
struct Opening {
    since: Instant,
    done: Made,
    task: AbortHandle,
}

impl Link {
    pub(super) fn new(servers: Arc<Servers>) -> Self {
        Self {
            servers,
            state: Arc::default(),
            is_direct: Arc::default(),
        }
    }

    /// Runs one statement on this table, and makes something of its rows. It may find that this server is
    /// of no use.
    pub(super) async fn query<T>(
        &self,
        table: &str,
        statement: &str,
        parameters: &[Parameter<'_>],
        make: impl FnOnce(&[Row]) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let call = self.call().await?;
        let rows = call.open.client.query_typed(statement, parameters).await;
        let rows = rows.map_err(|error| Failure::of_statement(&error, table));
        call.answered(rows.and_then(|rows| make(&rows)))
    }

    /// Runs a text of statements without parameters.
    pub(super) async fn execute(&self, table: &str, statements: &str) -> Result<(), Failure> {
        let call = self.call().await?;
        let answer = call.open.client.batch_execute(statements).await;
        call.answered(answer.map_err(|error| Failure::of_statement(&error, table)))
    }

    async fn call(&self) -> Result<Call<'_>, Failure> {
        loop {
            let open = self.open().await?;
            let turn = match self.is_direct.load(Ordering::Relaxed) {
                true => None,
                false => Some(open.turn.clone().lock_owned().await),
            };
            // Whoever had the turn may have been dropped before its answer came.
            if turn.is_none() || !open.is_suspect.load(Ordering::Relaxed) {
                return Ok(Call {
                    open,
                    link: self,
                    is_answered: false,
                    _turn: turn,
                });
            }
        }
    }

    /// The connection. Those who need a new one at the same time wait for the same.
    async fn open(&self) -> Result<Arc<Open>, Failure> {
        let mut done = {
            let mut state = self.lock();
            match &state.open {
                Some(open) if open.is_alive() => return Ok(open.clone()),
                _ => state.open = None,
            }
            match &state.opening {
                Some(opening) if opening.since.elapsed() < self.servers.limit() + SLACK => {
                    opening.done.clone()
                }
                _ => self.start(&mut state)?,
            }
        };
        let made = match done.wait_for(Option::is_some).await {
            Ok(made) => made.clone(),
            Err(_) => None,
        };
        made.unwrap_or_else(|| {
            self.lock()
                .opening
                .take_if(|it| it.done.same_channel(&done));
            let what = "the runtime on which PostgreSQL was being connected is gone, or has no I/O";
            Err(Failure::new(what, Then::Lost))
        })
    }

    /// Starts to connect. The task goes on when those who wait are gone, so that the next one need not
    /// begin again.
    fn start(&self, state: &mut State) -> Result<Made, Failure> {
        let runtime = Handle::try_current().map_err(|_| {
            let what = "the store talks to PostgreSQL on a runtime of tokio, and was called outside of one";
            Failure::new(what, Then::Nothing)
        })?;
        let (made, done) = watch::channel(None);
        let (shared, servers) = (self.state.clone(), self.servers.clone());
        let task = runtime.spawn(async move {
            let open = servers.connect().await.map(|(client, mut driver)| {
                let drive = poll_fn(move |context| poll_over(&mut *driver, context));
                let driver = tokio::spawn(drive).abort_handle();
                Arc::new(Open {
                    client,
                    driver,
                    servers,
                    is_suspect: AtomicBool::new(false),
                    turn: Arc::default(),
                })
            });
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            // One that took too long has a successor.
            let is_ours = |it: &mut Opening| it.done.same_channel(&made.subscribe());
            if state.opening.take_if(is_ours).is_some() {
                state.open = open.as_ref().ok().cloned();
            }
            drop(state);
            made.send_replace(Some(open));
        });
        if let Some(late) = state.opening.replace(Opening {
            since: Instant::now(),
            done: done.clone(),
            task: task.abort_handle(),
        }) {
            late.task.abort();
        }
        Ok(done)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever comes next takes another one.
    fn give_up(&self, open: &Arc<Open>) {
        let given_up = self.lock().open.take_if(|it| Arc::ptr_eq(it, open));
        drop(given_up);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(opening) = self.lock().opening.take() {
            opening.task.abort();
        }
    }
}

impl Open {
    fn is_alive(&self) -> bool {
        !self.client.is_closed() && !self.driver.is_finished()
    }
}

impl Drop for Open {
    /// Without its client the driver says goodbye and ends. One that is suspect would wait for answers
    /// first, and its server may be doing, or waiting to do, what nobody wants any more.
    fn drop(&mut self) {
        if !*self.is_suspect.get_mut() {
            return;
        }
        let is_alive = self.is_alive();
        self.driver.abort();
        if let (true, Ok(runtime)) = (is_alive, Handle::try_current()) {
            let (token, servers) = (self.client.cancel_token(), self.servers.clone());
            runtime.spawn(async move { servers.cancel(token).await });
        }
    }
}

/// A statement under way. Dropped without an answer, it has its connection given up.
struct Call<'a> {
    open: Arc<Open>,
    link: &'a Link,
    is_answered: bool,
    // Dropped last, when it is known whether the connection is suspect.
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Call<'_> {
    fn answered<T>(mut self, answer: Result<T, Failure>) -> Result<T, Failure> {
        self.is_answered = true;
        if let Err(failure) = &answer
            && matches!(failure.then, Then::Lost | Then::Elsewhere)
        {
            self.link.give_up(&self.open);
        }
        answer
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.open.is_suspect.store(true, Ordering::Relaxed);
            self.link.give_up(&self.open);
        }
    }
}
