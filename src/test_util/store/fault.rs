//! What is wrong with a store, and how its calls are watched: for how long, and dropped at which
//! moments.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::iter::successors;
use std::pin::Pin;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::yield_now;

use super::samples::MARK;
use crate::error::BoxError;
use crate::time::timeout;
use crate::token::InvalidToken;

/// How long one call may take: so long that only one that hangs takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call is dropped at so many of its moments at most: before and after each time it is polled.
pub(super) const CUTS: usize = 64;

/// Tasks that a dropped call may have left get so many turns to do what they should not.
const TURNS: usize = 64;

/// What is wrong with a store, and in which step it showed.
///
/// No token is in it. `Debug` says the same as `Display`, and what the store's own error says, as
/// that is what a test prints.
pub struct StoreFault {
    step: String,
    what: String,
    source: Option<BoxError>,
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.what)
    }
}

impl fmt::Debug for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        chain(self.source()).try_for_each(|error| write!(f, ": {error}"))
    }
}

impl Error for StoreFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

impl StoreFault {
    pub(super) fn new(step: &str, what: impl Into<String>) -> Self {
        Self {
            step: step.to_owned(),
            what: what.into(),
            source: None,
        }
    }

    /// Of what is to be put into a store.
    pub(super) fn of_the_suite(error: InvalidToken) -> Self {
        Self {
            source: Some(error.into()),
            ..Self::new(
                "before anything was done",
                "the suite's own tokens are no good",
            )
        }
    }

    /// Of an error of the store.
    pub(super) fn failed(step: &str, error: BoxError) -> Self {
        match Self::quoted(step, &error) {
            Some(fault) => fault,
            None => Self {
                source: Some(error),
                ..Self::new(step, "it failed")
            },
        }
    }

    /// Of one that is as it should be, unless it quotes a token.
    pub(super) fn quoted(step: &str, error: &BoxError) -> Option<Self> {
        chain(Some(&**error))
            .any(|error| format!("{error} {error:?}").contains(MARK))
            .then(|| Self::new(step, "it failed, and its error quotes a token"))
    }
}

fn chain<'a>(
    error: Option<&'a (dyn Error + 'static)>,
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(error, |&error| error.source())
}

/// What the store says, if it does so in time.
pub(super) async fn answer<T>(
    step: &str,
    call: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, StoreFault> {
    let answer = in_time(step, call).await?;
    answer.map_err(|error| StoreFault::failed(step, error))
}

/// The same, where an error may be right, or there is none.
pub(super) async fn in_time<T>(step: &str, call: impl Future<Output = T>) -> Result<T, StoreFault> {
    let answer = timeout(PATIENCE, call).await;
    answer.ok_or_else(|| {
        let limit = PATIENCE.as_secs();
        StoreFault::new(step, format!("there was no answer within {limit} s"))
    })
}

/// Drops the call at one of its moments: `None`, unless it was done by then. The moments are: before
/// it is polled, after that, when it was woken, after it was polled for the second time, and so on.
pub(super) async fn cut<T, E>(
    call: impl Future<Output = Result<T, E>>,
    at: usize,
) -> Result<Option<T>, E> {
    let mut call = pin!(call);
    let mut moment = 0;
    poll_fn(move |context| {
        if moment == at {
            return Poll::Ready(Ok(None));
        }
        if let Poll::Ready(done) = call.as_mut().poll(context) {
            return Poll::Ready(done.map(Some));
        }
        if moment + 1 == at {
            return Poll::Ready(Ok(None));
        }
        moment += 2;
        Poll::Pending
    })
    .await
}

/// Polls the call so many times at most, whether it was woken or not: `None`, unless it was done by
/// then.
pub(super) async fn poll_times<F: Future>(
    mut call: Pin<&mut F>,
    times: usize,
) -> Option<F::Output> {
    for _ in 0..times {
        let polled = poll_fn(|context| Poll::Ready(call.as_mut().poll(context)));
        if let Poll::Ready(done) = polled.await {
            return Some(done);
        }
        yield_now().await;
    }
    None
}

/// Lets others run, those that were left behind too.
pub(super) async fn let_others_run() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}
