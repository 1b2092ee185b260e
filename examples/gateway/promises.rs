//! What is promised of all answers together.

use crate::{
    crowd::{Outcome, Plan},
    words::thousands,
};

/// What is promised, and what was seen instead where it was not kept.
pub type Promise = (&'static str, Option<String>);

pub fn judge(plan: Plan, outcome: &Outcome) -> Vec<Promise> {
    let Outcome {
        requests,
        ok,
        foreign,
        failed,
        reissues,
        reuses,
        ..
    } = *outcome;
    let most = most_reissues(plan);
    // Whoever asks as their token expires has it replaced.
    let least = usize::from(plan.expiries > 0);
    vec![
        check("nobody gets what is somebody else's", foreign == 0, || {
            format!("{} answers were", thousands(foreign))
        }),
        check("everybody is answered", ok + foreign == requests, || {
            format!(
                "{} of {} requests failed",
                thousands(failed),
                thousands(requests)
            )
        }),
        check(
            "at most one reissue for each user and expiry",
            (least..=most).contains(&reissues),
            || {
                format!(
                    "the back end counted {}, and not {least} to {most}",
                    thousands(reissues)
                )
            },
        ),
        check("no refresh token is used twice", reuses == 0, || {
            format!("the back end counted {}", thousands(reuses))
        }),
    ]
}

pub fn most_reissues(plan: Plan) -> usize {
    plan.users * plan.expiries
}

fn check(what: &'static str, is_kept: bool, seen: impl FnOnce() -> String) -> Promise {
    (what, (!is_kept).then(seen))
}
