//! Recording: a `tracing` subscriber is somebody else's code, called in the middle of ours.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

/// Records something. Where the subscriber panics, nothing is lost but the record: one that panicked at
/// "the refresh has settled" once failed every request that waited, although the new token was there.
pub(crate) fn say<T>(record: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(record)).ok()
}
