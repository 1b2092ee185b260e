//! What is said of a schedule: how to see it again, and what was broken.

use std::cell::Cell;
use std::panic;
use std::process::exit;
use std::sync::Once;

use crate::schedule::current;

thread_local! {
    /// What happens is written down as it happens.
    static IS_TOLD: Cell<bool> = const { Cell::new(false) };
    static IN_VIOLATION: Cell<bool> = const { Cell::new(false) };
}

/// Writes down what happens from now on.
pub fn tell_all() {
    IS_TOLD.set(true);
}

/// Something has happened.
pub fn happened(what: impl FnOnce() -> String) {
    if IS_TOLD.get() {
        let who = shuttle::current::try_get_current_task().map_or(0, usize::from);
        eprintln!("{:>12.3?}  {who:>3}  {}", tokio::model::elapsed(), what());
    }
}

/// A promise is broken. Ends the process: a panic would be caught, for the library takes it for a failure of the
/// issuer or of the store.
pub fn violated(promise: &str, what: &str) -> ! {
    if !IN_VIOLATION.replace(true) {
        println!("violation of {promise}: {what}");
        match current() {
            Some(it) => println!(
                "in schedule {} (after {} of its steps), to be seen again with\n    explore --world {} --scheduler {} --replay {}",
                it.number + 1,
                it.steps,
                it.world.name,
                it.kind.name(),
                it.seed,
            ),
            None => println!("in no schedule"),
        }
    }
    exit(1)
}

/// A panic that nobody has planned is a violation as well.
pub fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            violated("P4", &format!("a panic: {info}"));
        }));
    });
}
