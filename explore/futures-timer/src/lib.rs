//! A timer that needs no runtime: here, one of the clock that the scheduler moves.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::model::Timer;

/// See `futures_timer::Delay`.
#[derive(Debug)]
pub struct Delay(Timer);

impl Delay {
    /// Ends after this time.
    pub fn new(time: Duration) -> Self {
        Self(Timer::new(time))
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}
