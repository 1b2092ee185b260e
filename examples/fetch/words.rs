//! What is said to people of requests and answers.

use ::http::{StatusCode, Uri};
use tower_token_refresh::Stats;

use crate::{
    cli::words::{plural, show_table, summarise as summarise_all},
    options::Options,
    tally::Tally,
};

/// What several requests came to, or those that were sent before the interruption.
pub fn summarise(options: &Options, tally: &Tally, stats: &Stats, interrupted: bool) {
    let answered = tally.statuses.iter().map(|(status, count)| {
        let is_good = (200..300).contains(status);
        (*count, in_words(*status), is_good)
    });
    let unanswered = [
        (tally.errors, "no answer"),
        (tally.hung, "hung"),
        (tally.dropped(), "dropped without an answer"),
    ];
    let unanswered = unanswered.map(|(count, what)| (count, what.to_owned(), false));
    show_table(answered.chain(unanswered));
    let all = plural(options.requests(), "request");
    summarise_all(&all, interrupted.then_some(tally.sent), tally.wall, stats);
}

/// An answer that is no success.
pub fn refused(status: StatusCode, why: Option<String>) -> String {
    match why {
        Some(why) => format!("{status}: {why}"),
        None => status.to_string(),
    }
}

/// Where a request went, without the query, which may hold secrets.
pub fn place(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{authority}{}", uri.path())
}

fn in_words(status: u16) -> String {
    StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |status| status.to_string())
}
