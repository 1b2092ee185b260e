//! When the protected routes answer: rare meetings of requests become repeatable in a *round*.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// The longest that a rejection is held.
const HOLD_LIMIT: Duration = Duration::from_secs(5);

/// How the first `requests` requests that arrive are answered; those after them, at once.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub requests: usize,
    /// Rejections (judged on arrival) are held until that many requests have arrived, 5 s at most.
    pub hold_rejections: bool,
    /// Answers are spread evenly: number k of n (from 0) is kept back for k/n of it, after any hold.
    pub spread: Duration,
}

/// The round under way, if there is one.
#[derive(Default)]
pub struct Pace(Mutex<Option<Arc<Running>>>);

struct Running {
    round: Round,
    arrived: AtomicUsize,
    open: watch::Sender<bool>,
}

impl Pace {
    pub fn begin(&self, round: Option<Round>) {
        let next = round.map(|round| Arc::new(Running::new(round)));
        let before = std::mem::replace(&mut *self.lock(), next);
        if let Some(before) = before {
            before.open.send_replace(true);
        }
    }

    /// Gives the request its place in the round.
    pub fn arrive(&self) -> Turn {
        let running = self.lock().clone();
        Turn(running.map(|running| (running.arrive(), running)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Running {
    fn new(round: Round) -> Self {
        let open = !round.hold_rejections || round.requests == 0;
        Self {
            round,
            arrived: AtomicUsize::new(0),
            open: watch::Sender::new(open),
        }
    }

    fn arrive(&self) -> usize {
        let number = self.arrived.fetch_add(1, Ordering::SeqCst);
        if number + 1 == self.round.requests {
            self.open.send_replace(true);
        }
        number
    }

    async fn opened(&self) {
        let mut open = self.open.subscribe();
        if timeout(HOLD_LIMIT, open.wait_for(|open| *open))
            .await
            .is_err()
        {
            // The others have waited long enough too.
            self.open.send_replace(true);
        }
    }

    async fn spread(&self, number: usize) {
        let Round {
            requests, spread, ..
        } = self.round;
        if number < requests && !spread.is_zero() {
            sleep(spread.mul_f64(number as f64 / requests as f64)).await;
        }
    }
}

/// A request's place in the round that it arrived in.
pub struct Turn(Option<(usize, Arc<Running>)>);

impl Turn {
    /// Resolves when an acceptance may be sent.
    pub async fn accepted(self) {
        if let Some((number, running)) = self.0 {
            running.spread(number).await;
        }
    }

    /// Resolves when a rejection may be sent.
    pub async fn rejected(self) {
        if let Some((number, running)) = self.0 {
            running.opened().await;
            running.spread(number).await;
        }
    }
}
