//! What is said to people of calls.

use std::{error::Error, iter::successors};

use tonic::Status;
use tower_token_refresh::{RefreshError, Stats};

use crate::{
    cli::words::{chain, explain, plural, show_table, summarise as summarise_all},
    options::Options,
    tally::Tally,
};

/// What several calls came to, or those that were begun before the interruption.
pub fn summarise(options: &Options, tally: &Tally, stats: &Stats, interrupted: bool) {
    let ends = [
        (tally.ok, "OK"),
        (tally.unauthenticated, "UNAUTHENTICATED"),
        (tally.other, "failed otherwise"),
        (tally.hung, "hung"),
        (tally.dropped(), "dropped before their end"),
    ];
    show_table(ends.map(|(count, what)| (count, what.to_owned(), what == "OK")));
    let all = plural(options.parallel.into(), "call");
    summarise_all(&all, interrupted.then_some(tally.sent), tally.wall, stats);
}

/// How a call failed.
pub fn failed(status: &Status) -> String {
    let mut causes = successors(status.source(), |&error| error.source());
    if let Some(error) = causes.find_map(|error| error.downcast_ref::<RefreshError>()) {
        return format!("not sent: {}", explain(error));
    }
    // What the server says goes to a terminal.
    let message = status.message().replace(char::is_control, " ");
    let code = status.code();
    match status.source() {
        // The cause says it again.
        Some(cause) => format!("{code:?}: {}", chain(cause)),
        None if message.is_empty() => format!("{code:?}"),
        None => format!("{code:?}: {message}"),
    }
}
