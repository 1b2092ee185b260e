//! As much of tokio as the library uses, for the explorer: `shuttle-tokio`, but for the time and the runtime.
//!
//! Shuttle does not model time: its `sleep` ends at the first poll, and its `Instant` is that of the machine. Here
//! both belong to one clock, [`model`], which stands still unless the explorer's scheduler moves it.

pub mod model;

pub use shuttle_tokio::sync;
pub use shuttle_tokio::task_local;

/// See `tokio::task`.
pub mod task {
    pub use shuttle_tokio::task::JoinHandle;
    pub use shuttle_tokio::task::coop::unconstrained;
}

/// See `tokio::time`.
pub mod time {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::Context;
    use std::task::Poll;
    use std::time::Duration;

    pub use crate::model::Instant;
    use crate::model::Timer;

    /// See `tokio::time::sleep`.
    pub fn sleep(time: Duration) -> Sleep {
        Sleep(Timer::new(time))
    }

    /// See `tokio::time::Sleep`.
    #[derive(Debug)]
    pub struct Sleep(Timer);

    impl Future for Sleep {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.0.poll(cx)
        }
    }
}

/// See `tokio::runtime`.
pub mod runtime {
    use std::future::Future;

    use shuttle_tokio::runtime::TryCurrentError;

    use crate::model::Counted;
    use crate::task::JoinHandle;

    /// Counts what it spawns, so that a run can wait until nothing is left.
    #[derive(Debug, Clone)]
    pub struct Handle(shuttle_tokio::runtime::Handle);

    impl Handle {
        /// There is one wherever a schedule is explored.
        pub fn try_current() -> Result<Self, TryCurrentError> {
            shuttle_tokio::runtime::Handle::try_current().map(Self)
        }

        /// See `tokio::runtime::Handle::spawn`.
        pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
        where
            F: Future<Output: Send + 'static> + Send + 'static,
        {
            let counted = Counted::new();
            self.0.spawn(async move {
                let _counted = counted;
                future.await
            })
        }
    }
}
