//! How far it is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Below this there is nothing to watch.
const MANY: u64 = 20;
const LONG: Duration = Duration::from_secs(2);

/// For so many requests, or whatever they are called, that take so long at the least. It is on standard
/// error, and hidden where that is not a terminal.
pub fn progress_bar(requests: u64, what: &str, pauses: Duration) -> ProgressBar {
    if requests == 1 || requests < MANY && pauses <= LONG {
        return ProgressBar::hidden();
    }
    let form = "{bar:40.green/dim} {human_pos} of {human_len} {msg} settled  {elapsed}";
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(requests)
        .with_style(style)
        .with_message(what.to_owned())
}
