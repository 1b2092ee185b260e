//! What is wrong with tokens that came back, in words that quote none.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;

use crate::token::InDoubt;
use crate::token::RefreshToken;
use crate::token::TokenSet;

/// A store may keep times to the second.
const PRECISION: Duration = Duration::from_secs(1);

/// Says of each that it might be what it is instead. One that has no rival needs no name.
pub(super) fn none_of(differences: &[(&str, String)]) -> String {
    match differences {
        [(_, what)] => what.clone(),
        several => {
            let each = several
                .iter()
                .map(|(name, what)| format!("{name} ({what})"));
            format!("neither {}", each.collect::<Vec<_>>().join(" nor "))
        }
    }
}

/// `None` when all is as it should be.
pub(super) fn difference(expected: Option<&TokenSet>, found: Option<&TokenSet>) -> Option<String> {
    let (expected, found) = match (expected, found) {
        (None, None) => return None,
        (Some(_), None) => return Some("there are no tokens".to_owned()),
        (None, Some(_)) => return Some("there are tokens".to_owned()),
        (Some(expected), Some(found)) => (expected, found),
    };
    let mut all = Vec::new();
    all.extend(text(
        "the access token",
        Some(expected.access_token().expose()),
        Some(found.access_token().expose()),
    ));
    all.extend(text(
        "the refresh token",
        expected.refresh_token().map(RefreshToken::expose),
        found.refresh_token().map(RefreshToken::expose),
    ));
    all.extend(time(
        "the expiry",
        expected.expires_at(),
        found.expires_at(),
    ));
    all.extend(time(
        "the time of receipt",
        Some(expected.obtained_at()),
        Some(found.obtained_at()),
    ));
    all.extend(doubt(expected.in_doubt(), found.in_doubt()));
    all.extend(identity(expected.identity(), found.identity()));
    (!all.is_empty()).then(|| all.join(", "))
}

fn text(what: &str, expected: Option<&str>, found: Option<&str>) -> Option<String> {
    let how = match (expected, found) {
        (expected, found) if expected == found => return None,
        (_, None) => "is missing",
        (None, Some(_)) => "was not saved, and is there",
        (Some(expected), Some(found)) if expected.starts_with(found) => "is cut off",
        (Some(expected), Some(found)) if expected.eq_ignore_ascii_case(found) => {
            "has its upper and lower case changed"
        }
        _ => "is another",
    };
    Some(format!("{what} {how}"))
}

fn time(what: &str, expected: Option<SystemTime>, found: Option<SystemTime>) -> Option<String> {
    time_within(PRECISION, what, expected, found)
}

/// To the second, or to the millisecond.
pub(super) fn time_within(
    precision: Duration,
    what: &str,
    expected: Option<SystemTime>,
    found: Option<SystemTime>,
) -> Option<String> {
    let (expected, found) = match (expected, found) {
        (None, None) => return None,
        (Some(_), None) => return Some(format!("{what} is missing")),
        (None, Some(_)) => return Some(format!("{what} was not saved, and is there")),
        (Some(expected), Some(found)) => (expected, found),
    };
    let (distance, direction) = match found.duration_since(expected) {
        Ok(distance) => (distance, "late"),
        Err(error) => (error.duration(), "early"),
    };
    let length = match precision < PRECISION {
        true => format!("{} ms", distance.as_millis()),
        false => format!("{} s", distance.as_secs()),
    };
    (distance >= precision).then(|| format!("{what} is {length} too {direction}"))
}

fn doubt(expected: Option<InDoubt>, found: Option<InDoubt>) -> Option<String> {
    let (expected, found) = match (expected, found) {
        (None, None) => return None,
        (Some(_), None) => return Some("the doubt is missing".to_owned()),
        (None, Some(_)) => return Some("the doubt was not saved, and is there".to_owned()),
        (Some(expected), Some(found)) => (expected, found),
    };
    let tries = (expected.tries != found.tries).then(|| {
        format!(
            "the doubt has {} tries in place of {}",
            found.tries, expected.tries
        )
    });
    let differences = [
        time(
            "the doubt's beginning",
            Some(expected.since),
            Some(found.since),
        ),
        time(
            "when the doubtful one was sent",
            expected.sent_at,
            found.sent_at,
        ),
        tries,
    ];
    let differences: Vec<_> = differences.into_iter().flatten().collect();
    (!differences.is_empty()).then(|| differences.join(", "))
}

/// Names are those of the samples: what else a store comes up with may be anything, a token too.
fn identity(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Option<String> {
    let changed = expected
        .iter()
        .filter_map(|(name, value)| match found.get(name) {
            None => Some(format!("the identity's member {name:?} is missing")),
            Some(found) if found != value => {
                Some(format!("the identity's member {name:?} is another"))
            }
            Some(_) => None,
        });
    let added = found
        .keys()
        .filter(|name| !expected.contains_key(*name))
        .count();
    let added =
        (added > 0).then(|| format!("the identity has members that were not saved ({added})"));
    let differences: Vec<_> = changed.chain(added).collect();
    (!differences.is_empty()).then(|| differences.join(", "))
}
