//! All that is said to people, on standard error; and the one line for programs, on standard output.
//! Nobody who has stopped listening ends the program.

use std::{
    io::{Write, stderr, stdout},
    time::Duration,
};

use ::http::StatusCode;
use comfy_table::{Cell, CellAlignment, Color, Table, presets::NOTHING};
use tower_token_refresh::{RefreshError, ReissueError, Stats};

use crate::{
    options::Options,
    tally::{Outcome, Tally},
};

pub const UNSETTLED: &str = "the refresh of the tokens has not settled: they may be lost";

pub fn say(text: &str) {
    let _ = writeln!(stderr(), "fetch: {text}");
}

/// One line, the last.
pub fn print(outcome: &Outcome) {
    let line = serde_json::to_string(outcome).unwrap_or_default();
    let _ = writeln!(stdout(), "{line}");
}

/// Why requests failed.
pub fn say_failures(tally: &Tally) {
    tally.reasons.iter().for_each(|reason| say(reason));
    if tally.hung > 0 {
        say("there was no answer before the deadline; --deadline gives it more time");
    }
}

/// What several requests came to.
pub fn summarise(options: &Options, tally: &Tally, stats: &Stats) {
    let mut table = Table::new();
    table.load_style(NOTHING);
    for (status, count) in &tally.statuses {
        let is_good = (200..300).contains(status);
        table.add_row(row(*count, &in_words(*status), is_good));
    }
    for (count, what) in [(tally.errors, "no answer"), (tally.hung, "hung")] {
        if count > 0 {
            table.add_row(row(count, what, false));
        }
    }
    let _ = writeln!(stderr(), "{table}");
    let took = format!(
        "{} in {}: {}, {}",
        plural(options.requests(), "request"),
        time(tally.wall),
        plural(stats.reissues, "reissue"),
        plural(stats.replays, "replay"),
    );
    say(&match stats.adopted {
        0 => took,
        adopted => format!("{took}, {adopted} adopted"),
    });
    say_failures(tally);
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
    let what = chain(error);
    if error.is_transient() {
        format!("{what}; the tokens are kept, try again later")
    } else {
        what
    }
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
