//! How far it is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish};

use super::terminal;

/// Below this there is nothing to watch.
const MANY: u64 = 20;
const LONG: Duration = Duration::from_secs(2);

/// For so many requests, or whatever they are called, that take so long at the least. It is on standard
/// error, hidden where that is not a terminal, and gone when it is dropped.
pub fn progress_bar(requests: u64, what: &str, pauses: Duration) -> ProgressBar {
    if requests == 1 || requests < MANY && pauses <= LONG {
        return ProgressBar::hidden();
    }
    let form = "{wide_bar:.green/dim} {human_pos} of {human_len} {msg} settled  {elapsed}";
    ProgressBar::with_draw_target(Some(requests), terminal::target())
        .with_style(terminal::style(form))
        .with_message(what.to_owned())
        .with_finish(ProgressFinish::AndClear)
}
