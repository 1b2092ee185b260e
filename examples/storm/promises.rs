//! What the crate promises of each round, checked against what was counted.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    afterwards::Afterwards, client::MOST_SENDS, options::Scenario, record::Tally, words::time,
};

/// Less the time that the later calls take.
const HALF_A_MINUTE: Duration = Duration::from_secs(20);

/// One promise in one round.
pub struct Promise {
    pub what: &'static str,
    /// What was seen instead.
    pub broken: Option<String>,
}

/// One promise in all rounds.
pub struct Kept {
    pub what: &'static str,
    /// The first time that it was not: the round, and what was seen.
    pub broken: Option<(u32, String)>,
}

impl Kept {
    /// Adds a round's promises to those of the rounds before. They are the same ones each time.
    pub fn note(all: &mut Vec<Self>, round: u32, promises: Vec<Promise>) {
        for Promise { what, broken } in promises {
            let broken = broken.map(|seen| (round, seen));
            match all.iter_mut().find(|kept| kept.what == what) {
                Some(kept) => kept.broken = kept.broken.take().or(broken),
                None => all.push(Self { what, broken }),
            }
        }
    }
}

pub fn judge(scenario: Scenario, tally: &Tally) -> Vec<Promise> {
    let mut promises = match scenario {
        Scenario::Expired => expired(tally),
        Scenario::Late => late(tally),
        Scenario::Fails => fails(tally),
        Scenario::Dead => dead(tally),
        Scenario::Cancel => cancel(tally),
        Scenario::Logout => logout(tally),
        Scenario::Steady => steady(tally),
        Scenario::Flaky => flaky(tally),
    };
    promises.extend(of_tokens(scenario, tally));
    promises.extend(tally.afterwards.as_ref().map(|it| afterwards(scenario, it)));
    let over_limit = tally
        .afterwards
        .as_ref()
        .and_then(|it| it.over_limit.as_ref());
    promises.extend(over_limit.map(|it| the_limit(it)));
    promises.push(check("nothing hangs", tally.hung == 0, || {
        let (hung, n, unanswered) = (tally.hung, tally.n, tally.unanswered);
        format!("{hung} of {n} had not settled, {unanswered} of them for want of an answer")
    }));
    let right = tally.misdelivered == 0;
    promises.push(check("every answer belongs to its request", right, || {
        format!("{} do not", tally.misdelivered)
    }));
    promises
}

fn expired(tally: &Tally) -> Vec<Promise> {
    // Where the server had to let its rejections go early, fewer requests meet one.
    let full = 2 * tally.n + 1;
    let on_the_wire = if tally.gathered {
        let exact = tally.on_the_wire() == full;
        check("exactly 2N + 1 requests on the wire", exact, || wire(tally))
    } else {
        at_most("at most 2N + 1 requests on the wire", full, tally)
    };
    vec![
        one_reissue(tally),
        all_ok(tally),
        on_the_wire,
        no_end(tally),
    ]
}

fn late(tally: &Tally) -> Vec<Promise> {
    vec![
        one_reissue(tally),
        all_ok(tally),
        at_most(
            "at most 2N + 1 requests on the wire",
            2 * tally.n + 1,
            tally,
        ),
        no_end(tally),
    ]
}

fn fails(tally: &Tally) -> Vec<Promise> {
    let told = (tally.ends_counted, tally.ends_told);
    vec![
        one_reissue(tally),
        check(
            "the session ends once, and is told once",
            told == (1, 1),
            || format!("it ended {} times and was told {} times", told.0, told.1),
        ),
        check(
            "everybody gets the server's own 401, with the reason",
            tally.ended == tally.n,
            || format!("{} of {} did{}", tally.ended, tally.n, failures(tally)),
        ),
        at_most("at most N + 1 requests on the wire", tally.n + 1, tally),
    ]
}

fn dead(tally: &Tally) -> Vec<Promise> {
    let requests = tally.requests;
    vec![
        check(
            "at most 5 reissues",
            (1..=5).contains(&dead_reissues(tally)),
            || {
                let later = tally.afterwards.as_ref().map_or(0, |it| it.reissues);
                format!("{}, and {later} later", reissues(tally))
            },
        ),
        check(
            "at most 2 requests per call",
            requests <= 2 * tally.n,
            || format!("{requests} for {} calls", tally.n),
        ),
        at_most(
            "at most 2N + 5 requests on the wire",
            2 * tally.n + 5,
            tally,
        ),
        check(
            "everybody gets the server's own 401",
            tally.refused == tally.n,
            || format!("{} of {} did{}", tally.refused, tally.n, failures(tally)),
        ),
        no_end(tally),
    ]
}

fn cancel(tally: &Tally) -> Vec<Promise> {
    // With nobody left to wait, there need not be one.
    let least = u64::from(tally.n > 1);
    let one = (least..=1).contains(&tally.reissues);
    let stayed = tally.ok == tally.n - tally.dropped;
    vec![
        check("exactly one reissue", one, || reissues(tally)),
        check("everybody who stays is answered with a 2xx", stayed, || {
            let rest = tally.n - tally.dropped;
            format!("{} of {rest} were{}", tally.ok, failures(tally))
        }),
        at_most(
            "at most 2N + 1 requests on the wire",
            2 * tally.n + 1,
            tally,
        ),
        no_end(tally),
    ]
}

fn logout(tally: &Tally) -> Vec<Promise> {
    let (later, later_ok) = (tally.after_login, tally.after_login_ok);
    vec![
        check(
            "nobody is answered as a user who logged in later",
            tally.crossed == 0,
            || format!("{} were", tally.crossed),
        ),
        check(
            "after the other login, requests succeed as that user",
            later == later_ok,
            || format!("{later_ok} of {later} did{}", failures(tally)),
        ),
        check("at most one reissue", tally.reissues <= 1, || {
            reissues(tally)
        }),
        at_most(
            "at most 2N + 1 requests on the wire",
            2 * tally.n + 1,
            tally,
        ),
        no_end(tally),
    ]
}

fn steady(tally: &Tally) -> Vec<Promise> {
    vec![
        check("no reissue", tally.reissues == 0, || reissues(tally)),
        all_ok(tally),
        check(
            "exactly N requests on the wire",
            tally.on_the_wire() == tally.n,
            || wire(tally),
        ),
        no_end(tally),
    ]
}

fn flaky(tally: &Tally) -> Vec<Promise> {
    let (all, failed) = (tally.reissues, tally.failed_reissues);
    let is_short = |(pause, least): &&(Duration, Duration)| pause < least;
    let too_short = tally.pauses.iter().find(is_short);
    vec![
        check(
            "exactly three reissues, of which two fail",
            (all, failed) == (3, 2),
            || format!("the server counted {all}, and {failed} of them failed"),
        ),
        check(
            "after a failure the issuer is left alone for a pause",
            too_short.is_none(),
            || {
                let (pause, least) = too_short.copied().unwrap_or_default();
                format!("for {}, and not for {}", time(pause), time(least))
            },
        ),
        all_ok(tally),
        at_most(
            "at most 6N + 3 requests on the wire",
            MOST_SENDS * tally.n + 3,
            tally,
        ),
        no_end(tally),
    ]
}

/// What holds of tokens whatever happens.
fn of_tokens(scenario: Scenario, tally: &Tally) -> Vec<Promise> {
    let Tally {
        renewals,
        presented,
        needless,
        reuses,
        sent_too_often,
        ..
    } = *tally;
    let mut promises = vec![
        check(
            "no token is replaced that was not rejected",
            needless == 0,
            || format!("{needless} were"),
        ),
        check("no refresh token is used twice", reuses == 0, || {
            format!("the server counted {reuses}")
        }),
        check(
            "nothing is sent more than twice",
            sent_too_often == 0,
            || format!("{sent_too_often} requests were"),
        ),
    ];
    // Callers who leave, or log out, may leave one that nobody tries.
    if !matches!(scenario, Scenario::Cancel | Scenario::Logout) && tally.hung == 0 {
        promises.push(check("every new token is tried", presented == renewals + 1, || {
            format!("{presented} different tokens were sent, and {renewals} reissues brought new ones")
        }));
    }
    promises
}

/// Of the login, when the storm is over.
fn afterwards(scenario: Scenario, seen: &Afterwards) -> Promise {
    let (good, calls) = (seen.good, seen.calls);
    let wrong = || {
        let (expiries, reissues, reuses) = (seen.expiries, seen.reissues, seen.reuses);
        format!(
            "{good} of {calls} calls did{}; the server counted {reissues} reissues for {expiries} expiries, \
             and {reuses} used tokens",
            listed(&seen.failures)
        )
    };
    let as_due = good == calls && seen.reuses == 0;
    let one_each = as_due && seen.reissues == seen.expiries;
    match scenario {
        Scenario::Fails => check("once it is over, the issuer is left alone", one_each, wrong),
        Scenario::Dead => check("later calls get the server's own 401 too", as_due, wrong),
        _ => check(
            "the login lives on: each later expiry costs one reissue",
            one_each,
            wrong,
        ),
    }
}

fn the_limit(seen: &Afterwards) -> Promise {
    let kept = seen.good == seen.calls && seen.reissues == 0;
    let what = "after five reissues in half a minute the issuer is left alone";
    check(what, kept, || {
        let (good, calls, reissues) = (seen.good, seen.calls, seen.reissues);
        let failures = listed(&seen.failures);
        format!(
            "{good} of {calls} calls got the server's own 401 for it{failures}; {reissues} reissues"
        )
    })
}

/// With those of the later calls, which belong to the same half minute unless the storm has taken that long.
fn dead_reissues(tally: &Tally) -> u64 {
    let later = tally
        .afterwards
        .as_ref()
        .filter(|_| tally.wall < HALF_A_MINUTE);
    tally.reissues + later.map_or(0, |it| it.reissues)
}

fn one_reissue(tally: &Tally) -> Promise {
    check("exactly one reissue", tally.reissues == 1, || {
        reissues(tally)
    })
}

fn all_ok(tally: &Tally) -> Promise {
    check(
        "everybody is answered with a 2xx",
        tally.ok == tally.n,
        || format!("{} of {} were{}", tally.ok, tally.n, failures(tally)),
    )
}

fn no_end(tally: &Tally) -> Promise {
    let ends = tally.ends_counted.max(tally.ends_told);
    check("the session does not end", ends == 0, || {
        format!("it ended {ends} times")
    })
}

fn at_most(what: &'static str, most: u64, tally: &Tally) -> Promise {
    check(what, tally.on_the_wire() <= most, || wire(tally))
}

fn check(what: &'static str, kept: bool, seen: impl FnOnce() -> String) -> Promise {
    let broken = (!kept).then(seen);
    Promise { what, broken }
}

fn reissues(tally: &Tally) -> String {
    format!("the server counted {}", tally.reissues)
}

fn wire(tally: &Tally) -> String {
    let (requests, reissues, n) = (tally.requests, tally.reissues, tally.n);
    format!("the server counted {requests} requests and {reissues} reissues for N = {n}")
}

fn failures(tally: &Tally) -> String {
    listed(&tally.failures)
}

fn listed(failures: &BTreeSet<String>) -> String {
    let failures: Vec<_> = failures.iter().map(String::as_str).collect();
    match &failures[..] {
        [] => String::new(),
        some => format!(" ({})", some.join("; ")),
    }
}
