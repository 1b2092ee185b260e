//! The one connection that all sessions of a store share.
//!
//! It is made at the first call, and made anew by the next one after it has become suspect: after a
//! call that was dropped without an answer, or failed for another reason than the server's word.

use std::future::Future;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::Client;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use redis::cmd;

use super::fault::Fault;
use crate::time::timeout;

/// For a connection to be there, and for somebody else who makes it.
const CONNECT: Duration = Duration::from_secs(2);

/// For an answer. The session's own deadline comes first, unless it was set to more.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) struct Line {
    client: Client,
    state: Mutex<State>,
    /// Only one connects.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    links: u64,
    /// How often somebody has tried to connect, and why the last one failed.
    tries: u64,
    fault: Option<Fault>,
}

/// A connection, for many calls at once.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) number: u64,
    /// It was made for this call.
    pub(super) is_new: bool,
    connection: MultiplexedConnection,
}

impl Line {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// The connection, if it is not suspect, else a new one.
    pub(super) async fn link(&self) -> Result<Link, Fault> {
        let tries = {
            let state = self.lock();
            if let Some(link) = &state.link {
                return Ok(link.clone());
            }
            state.tries
        };
        // Its future is large, and seldom needed.
        Box::pin(self.connect(tries)).await
    }

    /// The same for what must not be sent twice: a connection that was closed for lack of use, or with the
    /// server, is found out before.
    pub(super) async fn live_link(&self) -> Result<Link, Fault> {
        let link = self.link().await?;
        if link.is_new {
            return Ok(link);
        }
        let ping = async |mut connection| {
            let mut ping = cmd("PING");
            // It fails if there is no connection to send it on.
            ping.set_no_response(true).exec_async(&mut connection).await
        };
        match self.ask(&link, Duration::ZERO, ping).await {
            Ok(()) => Ok(link),
            Err(_) => self.link().await,
        }
    }

    async fn connect(&self, tries: u64) -> Result<Link, Fault> {
        // Whoever has it may be on a runtime that nobody drives.
        let _one = timeout(CONNECT, self.connecting.lock()).await;
        {
            let state = self.lock();
            match (&state.link, &state.fault) {
                (Some(link), _) => return Ok(link.clone()),
                (None, Some(fault)) if state.tries > tries => return Err(fault.clone()),
                (None, _) => {}
            }
        }
        // Timers of our own work on every runtime.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let client = &self.client;
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        let connected = match timeout(CONNECT, connection).await {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(error)) => Err(Fault::connecting(&error)),
            None => Err(Fault::no_connection()),
        };
        let mut state = self.lock();
        state.tries += 1;
        state.fault = connected.as_ref().err().cloned();
        let connection = connected?;
        state.links += 1;
        let link = Link {
            number: state.links,
            is_new: false,
            connection,
        };
        state.link = Some(link.clone());
        Ok(Link {
            is_new: true,
            ..link
        })
    }

    /// Asks the server on this connection. Without an answer, the connection is suspect from then on.
    /// `at_work` is how long the server may be at it.
    pub(super) async fn ask<T, F>(
        &self,
        link: &Link,
        at_work: Duration,
        question: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut suspect = Suspect {
            line: self,
            number: Some(link.number),
        };
        let answer = timeout(
            ANSWER + at_work,
            Box::pin(question(link.connection.clone())),
        )
        .await;
        let answer = match answer {
            Some(answer) => answer.map_err(|error| Fault::of(&error)),
            None => Err(Fault::late()),
        };
        if !answer.as_ref().is_err_and(|fault| fault.is_broken) {
            suspect.number = None;
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is given up unless it answers.
struct Suspect<'a> {
    line: &'a Line,
    number: Option<u64>,
}

impl Drop for Suspect<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else {
            return;
        };
        let suspect = self.line.lock().link.take_if(|link| link.number == number);
        // Its end may take others' locks.
        drop(suspect);
    }
}
