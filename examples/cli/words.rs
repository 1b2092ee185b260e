//! What is said to people, on standard error. Nobody who has stopped listening ends the program.

use std::{
    io::{self, Write, stderr},
    time::Duration,
};

use comfy_table::{Cell, CellAlignment, Color, Table, presets::NOTHING};
use tower_token_refresh::{RefreshError, ReissueError, Stats};

use super::{output, terminal};

pub const UNSETTLED: &str = "the refresh of the tokens has not settled: they may be lost";
pub const FINISHING: &str = "finishing the refresh of the tokens";
pub const SAVING: &str = "saving the new tokens";
pub const UNFINISHED: &str = "quit before the refresh of the tokens was finished: they may be lost; log in again if they are \
     refused";
pub const HUNG: &str = "there was no answer before the deadline; --deadline gives it more time";

pub fn say(text: &str) {
    output::end_line();
    let _ = writeln!(stderr(), "{}: {text}", env!("CARGO_BIN_NAME"));
}

/// What several requests came to: how many of them ended how, and whether that is good.
pub fn show_table(rows: impl IntoIterator<Item = (u64, String, bool)>) {
    let mut table = Table::new();
    table.load_style(NOTHING);
    for (count, what, is_good) in rows.into_iter().filter(|(count, ..)| *count > 0) {
        table.add_row(row(count, &what, is_good));
    }
    if !table.is_empty() {
        terminal::fit(&mut table);
        let _ = writeln!(stderr(), "{table}");
    }
}

/// How many of `all` there were, such as `3 calls`, how long they took, and what the session did.
pub fn summarise(all: &str, interrupted_at: Option<u64>, wall: Duration, stats: &Stats) {
    let sent = match interrupted_at {
        Some(sent) => format!("interrupted: {sent} of {all}"),
        None => all.to_owned(),
    };
    let took = format!(
        "{sent} in {}: {}, {}",
        time(wall),
        plural(stats.reissues, "reissue"),
        plural(stats.replays, "replay"),
    );
    say(&match stats.adopted {
        0 => took,
        adopted => format!("{took}, {adopted} adopted"),
    });
}

/// Why there was no fresh token, and what helps.
pub fn explain(error: &RefreshError) -> String {
    let what = in_our_words(&chain(error));
    if error.is_transient() {
        // When it is tried again is told with the tokens, or just was; and what a store fails for
        // says itself what helps.
        let is_told = error.is_outcome_unknown() || error.is_store() || what.contains("later");
        return match is_told {
            true => format!("{what}; the tokens are kept"),
            false => format!("{what}; the tokens are kept, try again later"),
        };
    }
    if error.is_not_replayed() && what.contains("rejected as well") {
        return "the new access token is rejected as well: check that the tokens that --reissue \
                brings are meant for this server"
            .to_owned();
    }
    // With a cause it is about an answer of the issuer.
    let is_answered = std::error::Error::source(error).is_some();
    if error.is_misconfigured() && is_answered && !what.contains("check --") {
        return format!("{what}; check --reissue and --style");
    }
    what
}

/// Without the advice that is for those who write programs, and names the functions for it.
fn in_our_words(text: &str) -> String {
    let clauses = text.split("; ").filter(|clause| !clause.contains("(…)"));
    clauses.collect::<Vec<_>>().join("; ")
}

/// An answer that was not shown.
pub fn unwritten(error: &io::Error) -> String {
    format!("can't write to standard output: {error}")
}

/// The error and its causes.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    // It says in other words what the `RefreshError` above it says.
    let causes = causes.filter(|error| !error.is::<ReissueError>());
    let mut texts: Vec<_> = causes.map(ToString::to_string).collect();
    // Some say what their cause says.
    texts.dedup_by(|cause, error| error.contains(cause.as_str()));
    texts.join(": ")
}

fn row(count: u64, what: &str, is_good: bool) -> [Cell; 2] {
    let color = if is_good { Color::Green } else { Color::Red };
    let count = Cell::new(count).set_alignment(CellAlignment::Right);
    [count.fg(color), Cell::new(what)]
}

pub fn plural(n: u64, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// `95 ms`, `1.9 s`
fn time(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}
