//! All that is said to people, on standard error. Nobody who has stopped listening ends the program.

use std::{
    io::{self, Write, stderr},
    time::Duration,
};

use ::http::{StatusCode, Uri};
use comfy_table::{Cell, CellAlignment, Color, Table, presets::NOTHING};
use tower_token_refresh::{RefreshError, ReissueError, Stats};

use crate::{options::Options, output, tally::Tally};

pub const UNSETTLED: &str = "the refresh of the tokens has not settled: they may be lost";
pub const FINISHING: &str = "finishing the refresh of the tokens";
pub const SAVING: &str = "saving the new tokens";
pub const UNFINISHED: &str = "quit before the refresh of the tokens was finished: they may be lost; log in again if they are \
     refused";
pub const HUNG: &str = "there was no answer before the deadline; --deadline gives it more time";

pub fn say(text: &str) {
    output::end_line();
    let _ = writeln!(stderr(), "fetch: {text}");
}

/// Why requests failed.
pub fn say_failures(tally: &Tally) {
    tally.reasons.iter().for_each(|reason| say(reason));
}

/// What several requests came to, or those that were sent before the interruption.
pub fn summarise(options: &Options, tally: &Tally, stats: &Stats, interrupted: bool) {
    let mut table = Table::new();
    table.load_style(NOTHING);
    for (status, count) in &tally.statuses {
        let is_good = (200..300).contains(status);
        table.add_row(row(*count, &in_words(*status), is_good));
    }
    for (count, what) in [
        (tally.errors, "no answer"),
        (tally.hung, "hung"),
        (tally.dropped(), "dropped without an answer"),
    ] {
        if count > 0 {
            table.add_row(row(count, what, false));
        }
    }
    if !table.is_empty() {
        let _ = writeln!(stderr(), "{table}");
    }
    let all = plural(options.requests(), "request");
    let requests = match interrupted {
        true => format!("interrupted: {} of {all}", tally.sent),
        false => all,
    };
    let took = format!(
        "{requests} in {}: {}, {}",
        time(tally.wall),
        plural(stats.reissues, "reissue"),
        plural(stats.replays, "replay"),
    );
    say(&match stats.adopted {
        0 => took,
        adopted => format!("{took}, {adopted} adopted"),
    });
}

/// An answer that is no success.
pub fn refused(status: StatusCode, why: Option<String>) -> String {
    match why {
        Some(why) => format!("{status}: {why}"),
        None => status.to_string(),
    }
}

/// Why there was no fresh token, and what helps.
pub fn explain(error: &RefreshError) -> String {
    let what = in_our_words(&chain(error));
    if error.is_transient() {
        return match error.is_outcome_unknown() || what.contains("later") {
            // When it is tried again is told with the tokens, or just was.
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

/// Where a request went, without the query, which may hold secrets.
pub fn place(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{authority}{}", uri.path())
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

fn in_words(status: u16) -> String {
    StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |status| status.to_string())
}

fn plural(n: u64, what: &str) -> String {
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
