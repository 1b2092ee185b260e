//! What the crate promises of each round, checked against what was counted.

use crate::{options::Scenario, record::Tally};

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
    };
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
        check("at most 5 reissues", tally.reissues <= 5, || {
            reissues(tally)
        }),
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
    let failures: Vec<_> = tally.failures.iter().map(String::as_str).collect();
    match &failures[..] {
        [] => String::new(),
        some => format!(" ({})", some.join("; ")),
    }
}
