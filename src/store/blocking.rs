//! Work that no other task should have to wait for.

use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::runtime::Handle;

/// Does this on a thread that may wait, and right here where no runtime has one.
pub(super) async fn on_blocking_thread<T>(work: impl Fn() -> T + Send + Sync + 'static) -> T
where
    T: Send + 'static,
{
    let work = Arc::new(work);
    if let Ok(runtime) = Handle::try_current() {
        let on_thread = work.clone();
        match runtime.spawn_blocking(move || on_thread()).await {
            Ok(done) => return done,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime was shut down before it was begun.
            Err(_) => {}
        }
    }
    work()
}
