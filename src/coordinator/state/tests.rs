//! The rules one by one, and then all short sequences of events against what must always hold.

use super::*;
use crate::token::TokenSet;

const HERE: Address = Address::new(1);
const THERE: Address = Address::new(2);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn rules() -> Rules {
    Rules {
        attempt: seconds(25),
        abandoned: seconds(10),
        cool_down: (seconds(1), seconds(60)),
        window: (5, seconds(30)),
        self_sufficient: false,
    }
}

fn token() -> Token {
    Token::new(Lifetime::UNKNOWN, true, true)
}

/// A token that expires in 100 s and is refreshed 10 s ahead.
fn expiring(now: &Now) -> Token {
    let lifetime = Lifetime {
        ahead: Due::at(now.instant + seconds(90)),
        expires: Due::at(now.instant + seconds(100)),
        lived_out: Some(Due::at(now.instant + seconds(100))),
    };
    Token::new(lifetime, true, true)
}

fn later(now: &Now, n: u64) -> Now {
    Now {
        instant: now.instant + seconds(n),
        wall: now.wall + seconds(n),
    }
}

fn earlier(now: &Now, n: u64) -> Now {
    Now {
        instant: now.instant - seconds(n),
        wall: now.wall - seconds(n),
    }
}

/// A doubt without a window, for so many seconds.
fn closed(now: &Now, n: u64) -> Doubt {
    Doubt {
        open_until: now.instant,
        closed_until: now.instant + seconds(n),
    }
}

/// A session that was loaded with this token.
fn live(token: Token, now: &Now) -> State {
    let mut state = State::new(rules());
    let Admission::Start(start) = state.admit(now) else {
        panic!("the first request loads the store");
    };
    assert_eq!(start.cause, Cause::Load);
    state
        .settle(start.number, Settled::Loaded(Some(token)), now)
        .unwrap();
    state
}

fn failure(kind: Kind) -> Settled {
    Settled::Failed(Failure {
        error: RefreshError::new(kind),
        retry_after: None,
        jitter: 1.0,
    })
}

fn refused() -> Settled {
    Settled::Refused(RefreshError::ended(EndReason::Refused))
}

fn started(recovery: Recovery) -> Start {
    match recovery {
        Recovery::Start(start) => start,
        other => panic!("expected a start: {other:?}"),
    }
}

fn failed(recovery: Recovery) -> Kind {
    match recovery {
        Recovery::Fail(error) => error.kind(),
        other => panic!("expected a failure: {other:?}"),
    }
}

/// Rejects the current token and lets the attempt reissue one that is accepted.
fn cycle(state: &mut State, now: &Now) -> Result<(), Kind> {
    match state.reject(state.stamp(), false, HERE, now) {
        Recovery::Start(start) => {
            state
                .begin_reissue(start.number, now)
                .map_err(|error| error.kind())?;
            state
                .settle(start.number, Settled::Installed(token()), now)
                .unwrap();
            state.accept(state.stamp(), HERE);
            Ok(())
        }
        other => Err(failed(other)),
    }
}

// shows B31, P1
#[test]
fn all_rejections_of_one_generation_share_one_attempt() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let stamp = state.stamp();
    started(state.reject(stamp, false, HERE, &now));
    for _ in 0..100 {
        assert!(matches!(
            state.reject(stamp, false, HERE, &now),
            Recovery::Join
        ));
    }
}

// shows B34, P2
#[test]
fn a_late_rejection_is_replayed_without_an_attempt() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let old = state.stamp();
    cycle(&mut state, &now).unwrap();
    assert!(matches!(
        state.reject(old, false, HERE, &now),
        Recovery::Replay
    ));
    assert!(!state.view(&now).held);
}

// shows P2: a late rejection is not sent into a token that is known to be no good as well.
#[test]
fn a_late_rejection_joins_the_attempt_for_a_newer_generation_that_was_rejected_too() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let old = state.stamp();
    cycle(&mut state, &now).unwrap();
    started(state.reject(state.stamp(), false, HERE, &now));
    assert!(matches!(
        state.reject(old, false, HERE, &now),
        Recovery::Join
    ));
}

// shows B33: after a rejection new requests wait; B105: ahead of expiry they go out.
#[test]
fn new_requests_wait_for_a_refresh_after_a_rejection_and_not_for_one_ahead() {
    let now = Now::read();
    let mut state = live(token(), &now);
    started(state.reject(state.stamp(), false, HERE, &now));
    assert!(state.view(&now).held);
    assert!(matches!(state.admit(&now), Admission::Join));

    let mut state = live(expiring(&now), &now);
    assert!(matches!(state.admit(&later(&now, 89)), Admission::Go));
    assert!(matches!(
        state.admit(&later(&now, 90)),
        Admission::GoAndStart(_)
    ));
    assert!(!state.view(&later(&now, 90)).held);
    assert!(matches!(state.admit(&later(&now, 91)), Admission::Go));
}

// shows B38, B103: whoever finds it expired, or rejected, joins the refresh ahead.
#[test]
fn a_refresh_ahead_is_joined_when_the_token_expires_or_is_rejected() {
    let now = Now::read();
    let mut state = live(expiring(&now), &now);
    let Admission::GoAndStart(_) = state.admit(&later(&now, 90)) else {
        panic!("a refresh ahead is due");
    };
    let mut rejected = state.clone();
    assert!(matches!(
        rejected.reject(rejected.stamp(), false, HERE, &later(&now, 91)),
        Recovery::Join
    ));
    assert!(rejected.view(&later(&now, 91)).held);
    assert!(matches!(state.admit(&later(&now, 100)), Admission::Join));
}

// shows P5, B51, B52, B53, B54
#[test]
fn rejections_in_a_cool_down_share_the_failure_and_the_first_one_after_it_starts_anew() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let start = started(state.reject(state.stamp(), false, HERE, &now));
    state
        .settle(start.number, failure(Kind::Transient), &now)
        .unwrap();
    for _ in 0..50 {
        assert_eq!(
            failed(state.reject(state.stamp(), false, HERE, &now)),
            Kind::Transient
        );
    }
    assert!(
        matches!(state.admit(&now), Admission::Go),
        "the server decides"
    );
    started(state.reject(state.stamp(), false, HERE, &later(&now, 1)));
}

// shows B60: backoff, and the issuer's own word, clamped.
#[test]
fn the_cool_down_doubles_up_to_its_longest_and_obeys_retry_after() {
    let now = Now::read();
    let mut state = live(token(), &now);
    started(state.reject(state.stamp(), false, HERE, &now));
    let attempt = state.attempt.clone().unwrap();
    let mut pause = |failure: Failure| {
        state.fail(&attempt, failure, now.instant);
        state.cooling.as_ref().unwrap().until - now.instant
    };
    let transient = |retry_after, jitter| Failure {
        error: RefreshError::new(Kind::Transient),
        retry_after,
        jitter,
    };
    assert_eq!(pause(transient(None, 1.0)), seconds(1));
    assert_eq!(pause(transient(None, 1.0)), seconds(2));
    assert_eq!(
        pause(transient(None, 0.0)),
        seconds(2),
        "jitter takes up to a half"
    );
    assert_eq!(pause(transient(Some(seconds(100)), 1.0)), seconds(100));
    assert_eq!(
        pause(transient(Some(seconds(86_400)), 1.0)),
        MOST_RETRY_AFTER
    );
    for _ in 0..40 {
        pause(transient(None, 1.0));
    }
    assert_eq!(pause(transient(None, 1.0)), seconds(60));
}

// shows P6: what was perhaps processed is not repeated while it could still be in flight.
#[test]
fn a_refresh_token_in_doubt_is_left_alone_whatever_happens_meanwhile() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let start = started(state.reject(state.stamp(), false, HERE, &now));
    assert_eq!(state.lose_reply(start.number), None, "nothing was sent");
    state.begin_reissue(start.number, &now).unwrap();
    assert_eq!(state.lose_reply(start.number), Some(now.instant));
    assert_eq!(state.lose_reply(start.number), None, "once per attempt");
    state.set_doubt(Some(closed(&now, 10)));
    state
        .settle(start.number, failure(Kind::Transient), &now)
        .unwrap();
    let told = state.status().unwrap();
    assert!(told.is_logged_in() && told.is_in_doubt());
    assert_eq!(
        failed(state.reject(state.stamp(), false, HERE, &later(&now, 9))),
        Kind::Transient
    );
    started(state.reject(state.stamp(), false, HERE, &later(&now, 10)));
}

#[test]
fn tokens_that_come_with_a_doubt_bring_its_pause_along_and_others_end_it() {
    let now = Now::read();
    let mut doubtful = token();
    doubtful.in_doubt = Some(closed(&now, 7));
    let mut state = live(doubtful.clone(), &now);
    assert_eq!(
        failed(state.reject(state.stamp(), false, HERE, &later(&now, 6))),
        Kind::OutcomeUnknown
    );
    let start = state.log_in(doubtful, &now);
    state
        .settle(start.number, Settled::Saved(true), &now)
        .unwrap();
    assert_eq!(
        failed(state.reject(state.stamp(), false, HERE, &later(&now, 6))),
        Kind::OutcomeUnknown
    );
    state.adopt(token());
    assert!(state.cooling.is_none());
    assert!(!state.settled_status().is_in_doubt());
}

// shows B105: a refresh ahead that has to wait is asked for again when it may be, and not on each request.
#[test]
fn a_refresh_ahead_waits_for_the_end_of_a_doubt() {
    let now = Now::read();
    let mut doubtful = expiring(&now);
    doubtful.in_doubt = Some(closed(&now, 95));
    let mut state = live(doubtful, &now);
    let due = later(&now, 91);
    assert!(matches!(state.admit(&due), Admission::Go));
    assert_eq!(state.view(&due).recheck, Due::at(now.instant + seconds(95)));
    assert!(matches!(
        state.admit(&later(&now, 95)),
        Admission::GoAndStart(_)
    ));
}

/// What the session makes of tokens that live for a minute.
fn for_a_minute(now: &Now) -> Token {
    let tokens = TokenSet::new("access").unwrap().obtained(now);
    let tokens = tokens.with_expires_in(seconds(60)).received(now);
    Token::new(tokens.lifetime(Some(seconds(30)), now), true, true)
}

// shows B107, S22: wherever the wall clock goes, nothing panics, and one jump costs one reissue at the
// most.
#[test]
fn a_wall_clock_that_jumps_by_years_makes_no_loop() {
    const YEARS: u64 = 10 * 365 * 24 * 3600;
    let mut now = Now::read();
    let mut state = live(for_a_minute(&now), &now);
    for _ in 0..1_000 {
        let jump = seconds(fastrand::u64(0..YEARS));
        now.wall = match fastrand::bool() {
            true => now.wall + jump,
            false => now.wall - jump,
        };
        let mut reissues = 0;
        for _ in 0..50 {
            let start = match state.admit(&now) {
                Admission::Go => continue,
                Admission::Start(start) | Admission::GoAndStart(start) => start,
                other => panic!("nothing is running: {other:?}"),
            };
            state.begin_reissue(start.number, &now).unwrap();
            let token = for_a_minute(&now);
            state
                .settle(start.number, Settled::Installed(token), &now)
                .unwrap();
            reissues += 1;
        }
        assert!(
            reissues <= 1,
            "{reissues} reissues after a jump of {jump:?}"
        );
        assert!(matches!(state.admit(&now), Admission::Go), "no lock-out");
        now.instant += seconds(fastrand::u64(0..100));
    }
}

// shows P4: nobody was asked, so nothing is in doubt.
#[test]
fn an_attempt_that_was_abandoned_before_it_asked_has_another_name() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let start = started(state.reject(state.stamp(), false, HERE, &now));
    let mut asked = state.clone();
    asked.begin_reissue(start.number, &now).unwrap();
    let late = now.instant + seconds(25);
    let told = |state: &mut State| state.abandon_overdue(late).unwrap().1.unwrap_err().kind();
    assert_eq!(told(&mut state), Kind::NotStarted);
    assert_eq!(state.lose_reply(start.number), None);
    assert_eq!(told(&mut asked), Kind::OutcomeUnknown);
    assert!(asked.lose_reply(start.number).is_some());
}

// shows B56, B64, B65, B66, P7
#[test]
fn a_refusal_after_a_rejection_ends_the_session_and_nothing_is_started_afterwards() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let stamp = state.stamp();
    let start = started(state.reject(stamp, false, HERE, &now));
    let verdict = state.settle(start.number, refused(), &now).unwrap();
    assert!(verdict.ended);
    let ended = Kind::Ended(EndReason::Refused);
    assert_eq!(verdict.outcome.unwrap_err().kind(), ended);
    assert_eq!(
        failed(state.reject(stamp, false, HERE, &now)),
        ended,
        "a straggler"
    );
    assert_eq!(
        failed(state.reject(state.stamp(), false, HERE, &now)),
        ended,
        "a bare request"
    );
    assert!(matches!(state.admit(&now), Admission::Go));
    assert_eq!(failed(state.refresh(&now)), ended);
}

// shows B57, P6
#[test]
fn a_refusal_ahead_of_expiry_ends_the_session_only_with_the_rejection_or_the_expiry() {
    let now = Now::read();
    let mut state = live(expiring(&now), &now);
    let Admission::GoAndStart(start) = state.admit(&later(&now, 90)) else {
        panic!("a refresh ahead is due");
    };
    let verdict = state
        .settle(start.number, refused(), &later(&now, 91))
        .unwrap();
    assert!(!verdict.ended);
    assert!(
        matches!(state.admit(&later(&now, 99)), Admission::Go),
        "no further reissue"
    );

    let mut rejected = state.clone();
    let end = started(rejected.reject(rejected.stamp(), false, HERE, &later(&now, 92)));
    assert_eq!(end.cause, Cause::End(EndReason::Refused));
    let Admission::Start(end) = state.admit(&later(&now, 100)) else {
        panic!("the expiry ends it");
    };
    assert_eq!(end.cause, Cause::End(EndReason::Refused));
}

// shows P6: an answer that is declared final for the current stamp, and for no other.
#[test]
fn a_final_answer_ends_the_session_of_the_current_stamp_only() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let old = state.stamp();
    cycle(&mut state, &now).unwrap();
    assert!(matches!(
        state.reject(old, true, HERE, &now),
        Recovery::Replay
    ));
    let start = started(state.reject(state.stamp(), true, HERE, &now));
    assert_eq!(start.cause, Cause::End(EndReason::Rejected));
}

// shows P6: the end needs no issuer, so it does not wait for the pause either.
#[test]
fn a_final_answer_in_a_cool_down_ends_the_session() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let start = started(state.reject(state.stamp(), false, HERE, &now));
    state
        .settle(start.number, failure(Kind::Transient), &now)
        .unwrap();
    let end = started(state.reject(state.stamp(), true, HERE, &now));
    assert_eq!(end.cause, Cause::End(EndReason::Rejected));
    state
        .settle(end.number, failure(Kind::Store), &now)
        .unwrap();
    let paused = state.reject(state.stamp(), true, HERE, &now);
    assert_eq!(failed(paused), Kind::Store, "but it waits for the store");
}

// shows B68, B70, B71, P8
#[test]
fn nothing_counts_across_a_login_or_a_logout() {
    let now = Now::read();
    for log_in in [true, false] {
        for late in [
            Settled::Installed(token()),
            refused(),
            failure(Kind::Transient),
        ] {
            let mut state = live(token(), &now);
            let stamp = state.stamp();
            let start = started(state.reject(stamp, false, HERE, &now));
            if log_in {
                let login = state.log_in(token(), &now);
                state
                    .settle(login.number, Settled::Saved(true), &now)
                    .unwrap();
            } else {
                assert!(state.log_out());
            }
            let before = format!("{:?}", (state.stamp(), state.status()));
            assert!(!state.counts(start.number));
            assert!(state.settle(start.number, late, &now).is_none());
            assert_eq!(before, format!("{:?}", (state.stamp(), state.status())));
            assert!(matches!(
                failed(state.reject(stamp, false, HERE, &now)),
                Kind::Ended(_)
            ));
        }
    }
}

// shows P7: the user has acted, whatever came before.
#[test]
fn after_a_logout_it_is_logged_out_and_those_of_the_login_before_are_told_how_that_ended() {
    let now = Now::read();
    let reason = |recovery| match recovery {
        Recovery::Fail(error) => error.end_reason(),
        other => panic!("{other:?}"),
    };
    for (how, ended) in [
        (Some(refused()), EndReason::Refused),
        (None, EndReason::LoggedOut),
    ] {
        let mut state = live(token(), &now);
        let of_the_login = state.stamp();
        match how {
            Some(how) => {
                let start = started(state.reject(of_the_login, false, HERE, &now));
                assert!(state.settle(start.number, how, &now).unwrap().ended);
            }
            None => assert!(state.log_out()),
        }
        let without_a_token = state.stamp();
        for _ in 0..2 {
            assert!(!state.log_out(), "there is nothing to log out of");
            assert_eq!(state.status(), Some(SessionStatus::LoggedOut));
            let absence = state.absence().unwrap();
            assert_eq!(absence.end_reason(), Some(EndReason::LoggedOut));
            let refreshed = reason(state.refresh(&now));
            assert_eq!(refreshed, Some(EndReason::LoggedOut));
            let told = reason(state.reject(of_the_login, false, HERE, &now));
            assert_eq!(told, Some(ended));
            let told = reason(state.reject(without_a_token, false, HERE, &now));
            assert_eq!(told, Some(EndReason::LoggedOut));
        }
        // And another login is another matter.
        state.log_in(token(), &now);
        let told = reason(state.reject(of_the_login, false, HERE, &now));
        assert_eq!(told, Some(EndReason::Replaced));
        let of_the_second = state.stamp();
        assert!(state.log_out());
        let told = reason(state.reject(of_the_second, false, HERE, &now));
        assert_eq!(told, Some(EndReason::LoggedOut));
        let told = reason(state.reject(of_the_login, false, HERE, &now));
        assert_eq!(told, Some(EndReason::Replaced));
    }
}

// shows B67: a new login re-arms everything, the window included.
#[test]
fn a_login_clears_the_window_and_the_cool_down() {
    let now = Now::read();
    let mut state = live(token(), &now);
    for _ in 0..5 {
        cycle(&mut state, &now).unwrap();
    }
    assert_eq!(cycle(&mut state, &now), Err(Kind::ReissueLimit));
    let login = state.log_in(token(), &now);
    state
        .settle(login.number, Settled::Saved(true), &now)
        .unwrap();
    cycle(&mut state, &now).unwrap();
}

// shows B81, B84, P9: the failed ones count like the others.
#[test]
fn the_window_refuses_the_sixth_reissue_in_thirty_seconds_and_survives_failures() {
    let now = Now::read();
    let mut state = live(token(), &now);
    for _ in 0..3 {
        cycle(&mut state, &now).unwrap();
    }
    state.rules.cool_down = (Duration::ZERO, Duration::ZERO);
    for _ in 0..2 {
        let start = started(state.reject(state.stamp(), false, HERE, &now));
        state.begin_reissue(start.number, &now).unwrap();
        let failed = failure(Kind::Transient);
        state.settle(start.number, failed, &now).unwrap();
    }
    assert_eq!(cycle(&mut state, &now), Err(Kind::ReissueLimit));
    assert_eq!(cycle(&mut state, &later(&now, 29)), Err(Kind::ReissueLimit));
    cycle(&mut state, &later(&now, 30)).unwrap();
}

// shows B82: ahead of expiry it holds as well, and there nobody is told.
#[test]
fn the_window_refuses_a_refresh_ahead_and_lets_the_request_go() {
    let now = Now::read();
    let mut state = live(token(), &now);
    for _ in 0..5 {
        cycle(&mut state, &now).unwrap();
    }
    state.adopt(expiring(&earlier(&now, 95)));
    assert!(matches!(state.admit(&now), Admission::Go));
    let room = later(&now, 30);
    state.adopt(expiring(&earlier(&room, 95)));
    assert!(matches!(state.admit(&room), Admission::GoAndStart(_)));
}

// shows B83
#[test]
fn a_window_of_zero_refuses_every_reissue() {
    let now = Now::read();
    let mut state = live(token(), &now);
    state.rules.window.0 = 0;
    assert_eq!(cycle(&mut state, &now), Err(Kind::ReissueLimit));
}

// shows P9: what has lived out its stated lifetime is not counted.
#[test]
fn a_reissue_after_a_lived_out_lifetime_does_not_count() {
    let mut now = Now::read();
    let mut state = live(expiring(&now), &now);
    state.rules.window = (1, seconds(3600));
    for _ in 0..10 {
        now = later(&now, 100);
        let start = match state.admit(&now) {
            Admission::Start(start) => start,
            other => panic!("the token has expired: {other:?}"),
        };
        state.begin_reissue(start.number, &now).unwrap();
        state
            .settle(start.number, Settled::Installed(expiring(&now)), &now)
            .unwrap();
    }
}

// shows P4: the waiters' deadline; a late result counts as long as there is no successor.
#[test]
fn an_abandoned_attempt_counts_until_its_successor_starts() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let start = started(state.reject(state.stamp(), false, HERE, &now));
    assert!(state.abandon_overdue(now.instant + seconds(24)).is_none());
    assert!(state.abandon_overdue(now.instant + seconds(25)).is_some());
    assert!(
        state.begin_reissue(start.number, &now).is_err(),
        "it may not begin one now"
    );
    let mut late = state.clone();
    assert!(
        late.settle(start.number, Settled::Installed(token()), &now)
            .is_some()
    );

    let quarantined = state.reject(state.stamp(), false, HERE, &later(&now, 34));
    assert_eq!(failed(quarantined), Kind::NotStarted);
    started(state.reject(state.stamp(), false, HERE, &later(&now, 35)));
    assert!(
        state
            .settle(start.number, Settled::Installed(token()), &now)
            .is_none()
    );
}

// shows B7
#[test]
fn after_a_load_that_failed_the_next_request_tries_again() {
    let now = Now::read();
    let mut state = State::new(rules());
    for _ in 0..3 {
        let Admission::Start(start) = state.admit(&now) else {
            panic!("it is loaded");
        };
        state
            .settle(start.number, failure(Kind::Store), &now)
            .unwrap();
    }
}

// shows B6, B72
#[test]
fn a_slow_load_overwrites_neither_a_login_nor_a_logout() {
    let now = Now::read();
    let mut state = State::new(rules());
    let Admission::Start(load) = state.admit(&now) else {
        panic!("it is loaded");
    };
    assert!(state.log_out());
    assert!(
        state
            .settle(load.number, Settled::Loaded(Some(token())), &now)
            .is_none()
    );
    assert_eq!(state.status(), Some(SessionStatus::LoggedOut));
}

#[test]
fn without_a_refresh_token_a_rejection_has_a_name_and_starts_nothing() {
    let now = Now::read();
    let mut state = live(Token::new(Lifetime::UNKNOWN, false, true), &now);
    let rejected = state.reject(state.stamp(), false, HERE, &now);
    assert_eq!(failed(rejected), Kind::NoRefreshToken);
}

#[test]
fn a_reissuer_that_needs_no_refresh_token_makes_the_first_token_too() {
    let now = Now::read();
    let mut state = State::new(Rules {
        self_sufficient: true,
        ..rules()
    });
    let Admission::Start(load) = state.admit(&now) else {
        panic!("it is loaded");
    };
    let mut failed = state.clone();
    failed.begin_reissue(load.number, &now).unwrap();
    failed
        .settle(load.number, failure(Kind::Transient), &now)
        .unwrap();
    assert!(matches!(failed.admit(&now), Admission::Fail(_)), "P5");
    assert!(matches!(
        failed.admit(&later(&now, 1)),
        Admission::Start(Start {
            cause: Cause::Reissue,
            ..
        })
    ));
    state
        .settle(load.number, Settled::Loaded(None), &now)
        .unwrap();
    assert!(state.view(&now).held);
    assert!(matches!(
        state.admit(&now),
        Admission::Start(Start {
            cause: Cause::Reissue,
            ..
        })
    ));
}

// shows P7, P8 between processes.
#[test]
fn what_another_process_has_done_to_the_login_is_done_here() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let before = state.stamp();
    let start = started(state.reject(before, false, HERE, &now));
    let replaced = || RefreshError::ended(EndReason::Replaced);
    let settled = Settled::TakenOver(Some(token()), replaced());
    let verdict = state.settle(start.number, settled, &now).unwrap();
    assert!(!verdict.ended);
    assert_eq!(
        verdict.outcome.unwrap_err().end_reason(),
        Some(EndReason::Replaced)
    );
    assert!(state.stamp().epoch > before.epoch && state.stamp().generation > before.generation);
    assert!(
        matches!(state.reject(before, false, HERE, &now), Recovery::Fail(_)),
        "P8"
    );
    assert!(!state.take_over(None, RefreshError::ended(EndReason::LoggedOut)));
    assert_eq!(state.status(), Some(SessionStatus::LoggedOut));
    assert!(!state.take_over(Some(token()), replaced()));
    assert!(
        state.take_over(None, RefreshError::ended(EndReason::Refused)),
        "P7"
    );
    assert!(
        !state.take_over(None, RefreshError::ended(EndReason::Refused)),
        "P7"
    );
    let ended = state.status().unwrap().end_reason();
    assert_eq!(ended, Some(EndReason::Refused));
}

/// A token from a reissue, of which no more is known.
fn fresh(now: &Now) -> Token {
    let mut token = token();
    token.settles = Some(TokenSet::new("access").unwrap().obtained(now).settles(now));
    token
}

/// Like [`cycle`], with a fresh token that this address rejects as well. How many requests wait for it
/// that were not rejected.
fn in_vain(state: &mut State, address: Address, now: &Now) -> Result<bool, Kind> {
    match state.reject(state.stamp(), false, address, now) {
        Recovery::Start(start) => {
            let is_held = state.view(now).held;
            state.begin_reissue(start.number, now).unwrap();
            let installed = Settled::Installed(fresh(now));
            state.settle(start.number, installed, now).unwrap();
            state.reject_replay(state.stamp(), address, now);
            Ok(is_held)
        }
        other => Err(failed(other)),
    }
}

fn millis(now: &Now, n: u64) -> Now {
    Now {
        instant: now.instant + Duration::from_millis(n),
        wall: now.wall + Duration::from_millis(n),
    }
}

// shows P2: what a replay meets is no reason to refresh for the next request.
#[test]
fn a_replay_that_was_rejected_holds_nobody_back_and_starts_nothing() {
    let now = Now::read();
    let mut state = live(token(), &now);
    in_vain(&mut state, HERE, &now).unwrap();
    assert!(!state.view(&now).held);
    assert!(matches!(state.admit(&now), Admission::Go));
}

// shows P2, P5: the most reported storm. It was 13 reissues, and 7 healthy requests that waited.
#[test]
fn seven_bad_calls_in_74_seconds_cost_six_reissues_and_only_the_first_holds_others_back() {
    let begun = Now::read();
    let mut state = live(token(), &begun);
    let (mut reissues, mut held, mut told) = (0, 0, Vec::new());
    for second in 0..=74 {
        let now = later(&begun, second);
        state.accept(state.stamp(), THERE);
        if [0, 12, 24, 37, 49, 62, 74].contains(&second) {
            match in_vain(&mut state, HERE, &now) {
                Ok(is_held) => (reissues, held) = (reissues + 1, held + u32::from(is_held)),
                Err(kind) => told.push(kind),
            }
        }
        assert!(
            matches!(state.admit(&now), Admission::Go),
            "P2: at {second} s"
        );
    }
    assert_eq!((reissues, held, told), (6, 1, vec![Kind::NotCured]));
}

// shows P5, P9
#[test]
fn an_address_that_always_rejects_costs_a_reissue_and_then_one_per_pause() {
    let begun = Now::read();
    let mut state = live(token(), &begun);
    let mut at = Vec::new();
    for tenth in 0..10_000 {
        let now = millis(&begun, tenth * 100);
        state.accept(state.stamp(), THERE);
        match in_vain(&mut state, HERE, &now) {
            Ok(_) => at.push(tenth),
            Err(kind) => assert_eq!(kind, Kind::NotCured),
        }
    }
    // The fourth has to wait until there is room in the window for two others.
    assert_eq!(at, [0, 10, 30, 300, 380, 540, 860, 1500, 2780, 5340, 8340]);
}

// shows P2: there is room for it, and it is replaced at once.
#[test]
fn a_token_that_dies_beside_bad_addresses_is_replaced_at_once_and_nobody_waits_who_was_not_rejected()
 {
    let begun = Now::read();
    let mut state = live(token(), &begun);
    let mut reissues = 0;
    for tenth in 0..100 {
        let now = millis(&begun, tenth * 100);
        state.accept(state.stamp(), THERE);
        for bad in 10..30 {
            reissues += u32::from(in_vain(&mut state, Address::new(bad), &now).is_ok());
        }
    }
    assert_eq!(reissues, 3, "half of the window");

    let mut state = live(token(), &begun);
    let mut now = begun;
    for second in [0, 1, 3, 7, 15] {
        now = later(&begun, second);
        state.accept(state.stamp(), THERE);
        in_vain(&mut state, HERE, &now).ok();
    }
    state.accept(state.stamp(), THERE);
    let start = started(state.reject(state.stamp(), false, THERE, &now));
    assert!(!state.view(&now).held);
    assert!(matches!(state.admit(&now), Admission::Go));
    let joined = state.reject(state.stamp(), false, HERE, &now);
    assert!(matches!(joined, Recovery::Join), "a bad address as well");
    state.begin_reissue(start.number, &now).unwrap();
}

// shows P2: what was issued a moment ago, and nobody was accepted with yet, is not replaced.
#[test]
fn a_token_is_too_fresh_for_five_seconds_or_until_somebody_was_accepted_with_it() {
    let begun = Now::read();
    let mut state = live(token(), &begun);
    in_vain(&mut state, HERE, &begun).unwrap();
    let mut accepted = state.clone();
    let elsewhere = |state: &mut State, now: &Now| state.reject(state.stamp(), false, THERE, now);
    for n in [0, 1, 4_999] {
        let now = millis(&begun, n);
        assert_eq!(
            failed(elsewhere(&mut state, &now)),
            Kind::TooFresh,
            "{n} ms"
        );
        assert_eq!(
            failed(state.reject(state.stamp(), false, HERE, &now)),
            Kind::TooFresh
        );
        assert!(!state.view(&now).held);
    }
    started(elsewhere(&mut state, &millis(&begun, 5_000)));

    accepted.accept(accepted.stamp(), Address::new(3));
    let paused = accepted.reject(accepted.stamp(), false, HERE, &begun);
    assert_eq!(failed(paused), Kind::NotCured);
    started(elsewhere(&mut accepted, &begun));
}

// shows P2: a login's token, or one that was stored, may be as old as it likes.
#[test]
fn a_token_of_a_login_is_never_too_fresh() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let login = state.log_in(token(), &now);
    let saved = Settled::Saved(true);
    state.settle(login.number, saved, &now).unwrap();
    started(state.reject(state.stamp(), false, HERE, &now));
}

// shows P2: the API knows a token a second after its issue. It was five reissues, each of which
// replaced a token that was about to work.
#[test]
fn waves_of_requests_to_an_api_that_learns_of_a_token_late_cost_one_reissue() {
    let begun = Now::read();
    let mut state = live(token(), &begun);
    let mut reissues = 0;
    for wave in 0..10 {
        let now = millis(&begun, wave * 300);
        for n in 0..50 {
            let address = Address::new(n);
            if reissues == 1 && wave >= 4 {
                state.accept(state.stamp(), address);
                continue;
            }
            match in_vain(&mut state, address, &now) {
                Ok(_) => reissues += 1,
                Err(kind) => assert_eq!(kind, Kind::TooFresh),
            }
        }
    }
    assert_eq!(reissues, 1);
    assert_eq!(state.marks(), 0, "nothing is held against any address");
    started(state.reject(state.stamp(), false, HERE, &millis(&begun, 3_000)));
    assert!(state.view(&begun).held, "a death, as any other");
}

// shows P2, P9: a token that lives for a second is replaced when it has died, whether its lifetime was
// stated or not.
#[test]
fn the_settling_time_is_never_more_than_half_of_a_stated_lifetime() {
    let begun = Now::read();
    for (stated, settling) in [
        (1_000, 500),
        (4_000, 2_000),
        (10_000, 5_000),
        (3_600_000, 5_000),
    ] {
        let tokens = TokenSet::new("access").unwrap().obtained(&begun);
        let tokens = tokens.with_expires_in(Duration::from_millis(stated));
        let settles = tokens.settles(&begun);
        assert_eq!(settles, begun.instant + Duration::from_millis(settling));
    }
    for stated in [true, false] {
        let mut state = live(token(), &begun);
        state.rules.window.0 = 100;
        for second in 0..60 {
            let now = later(&begun, second);
            let tokens = TokenSet::new("access").unwrap().obtained(&now);
            let tokens = match stated {
                true => tokens.with_expires_in(seconds(1)),
                false => tokens,
            };
            let start = started(state.reject(state.stamp(), false, HERE, &now));
            assert!(state.view(&now).held);
            let mut token = Token::new(tokens.lifetime(None, &now), true, true);
            token.settles = Some(tokens.settles(&now));
            state
                .settle(start.number, Settled::Installed(token), &now)
                .unwrap();
            state.accept(state.stamp(), HERE);
        }
    }
}

// shows P5: the pause of an address is for as long as the token may be good.
#[test]
fn an_address_pauses_no_longer_than_the_stated_lifetime_of_the_token() {
    let begun = Now::read();
    let mut state = live(token(), &begun);
    for second in [0, 15, 30, 45, 60] {
        in_vain(&mut state, HERE, &later(&begun, second)).unwrap();
    }
    let now = later(&begun, 60);
    state.install(expiring(&now));
    state.accept(state.stamp(), THERE);
    let rejected = |state: &mut State, n| {
        let now = later(&now, n);
        state.reject(state.stamp(), false, HERE, &now)
    };
    assert_eq!(failed(rejected(&mut state.clone(), 15)), Kind::NotCured);
    state
        .addresses
        .reject(HERE, state.generation + 8, now.instant);
    started(rejected(&mut state, 100));
    assert!(state.view(&later(&now, 100)).held, "it has expired for all");
}

// shows P2: a token that is good is not refreshed for a rejection whose refresh has failed.
#[test]
fn an_acceptance_takes_back_what_another_address_has_said_of_the_token() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let start = started(state.reject(state.stamp(), false, HERE, &now));
    state
        .settle(start.number, failure(Kind::Transient), &now)
        .unwrap();
    assert!(state.view(&now).held, "the next request refreshes first");
    assert_eq!(state.marks(), u64::MAX);
    state.accept(state.stamp(), THERE);
    assert!(!state.view(&now).held);
    assert!(matches!(state.admit(&later(&now, 60)), Admission::Go));

    let start = started(state.reject(state.stamp(), true, HERE, &now));
    state.accept(state.stamp(), HERE);
    assert_eq!(start.cause, Cause::End(EndReason::Rejected));
    assert!(state.view(&now).held, "what is final stays");
}

// shows P2, P10: a rejection whose caller has its answer already is for the next request.
#[test]
fn what_is_told_late_has_the_next_request_refresh_first_or_beside_bad_addresses_in_the_background()
{
    let now = Now::read();
    let mut state = live(token(), &now);
    state.reject_later(state.stamp(), false, HERE, &now);
    assert!(matches!(state.admit(&now), Admission::Start(_)));

    let mut state = live(token(), &now);
    in_vain(&mut state, THERE, &now).unwrap();
    state.reject_later(state.stamp(), false, HERE, &now);
    assert!(
        matches!(state.admit(&now), Admission::Go),
        "it is too fresh"
    );
    state.accept(state.stamp(), HERE);
    state.reject_later(state.stamp(), false, THERE, &now);
    assert!(matches!(state.admit(&now), Admission::Go), "it pauses");
    state.reject_later(state.stamp(), false, HERE, &now);
    let mut accepted = state.clone();
    assert!(state.view(&now).held, "to be asked");
    assert!(matches!(state.admit(&now), Admission::GoAndStart(_)));
    assert!(matches!(state.admit(&now), Admission::Go));
    accepted.accept(accepted.stamp(), HERE);
    assert!(matches!(accepted.admit(&now), Admission::Go));

    state.reject_later(state.stamp(), true, HERE, &now);
    assert!(matches!(state.admit(&now), Admission::Join), "it is final");
}

// shows P7: a login makes everything new.
#[test]
fn a_login_forgets_what_addresses_have_said() {
    let now = Now::read();
    let mut state = live(token(), &now);
    in_vain(&mut state, HERE, &now).unwrap();
    let login = state.log_in(token(), &now);
    let saved = Settled::Saved(true);
    state.settle(login.number, saved, &now).unwrap();
    assert_eq!(state.marks(), 0);
    started(state.reject(state.stamp(), false, HERE, &now));
    assert!(state.view(&now).held);
}

// shows P2, P8: a late rejection is not held against its address, nor is one of a login before.
#[test]
fn what_is_late_is_remembered_of_no_address() {
    let now = Now::read();
    let mut state = live(token(), &now);
    let old = state.stamp();
    cycle(&mut state, &now).unwrap();
    assert!(matches!(
        state.reject(old, false, THERE, &now),
        Recovery::Replay
    ));
    state.reject_replay(old, THERE, &now);
    state.accept(old, HERE);
    assert_eq!(state.marks(), 0);
    state.log_out();
    state.reject_replay(state.stamp(), THERE, &now);
    assert!(matches!(
        state.reject(old, false, THERE, &now),
        Recovery::Fail(_)
    ));
    assert_eq!(state.marks(), 0);
}

/// The events of the exhaustive walk.
#[derive(Debug, Clone, Copy)]
enum Event {
    Admit,
    RejectCurrent,
    RejectThere,
    RejectFinally,
    RejectOldest,
    RejectReplay,
    RejectLater,
    Accept,
    Refresh,
    LogIn,
    LogOut,
    OtherLogsIn,
    OtherEnds,
    Begin,
    SettleInstalled,
    SettleFailed,
    SettleLost,
    SettleRefused,
    SettleLoaded,
    SettleTakenOver,
    Pass,
}

const EVENTS: [Event; 21] = [
    Event::Admit,
    Event::RejectCurrent,
    Event::RejectThere,
    Event::RejectFinally,
    Event::RejectOldest,
    Event::RejectReplay,
    Event::RejectLater,
    Event::Accept,
    Event::Refresh,
    Event::LogIn,
    Event::LogOut,
    Event::OtherLogsIn,
    Event::OtherEnds,
    Event::Begin,
    Event::SettleInstalled,
    Event::SettleFailed,
    Event::SettleLost,
    Event::SettleRefused,
    Event::SettleLoaded,
    Event::SettleTakenOver,
    Event::Pass,
];

/// The state, and what a world around it would remember.
#[derive(Clone)]
struct World {
    state: State,
    now: Now,
    oldest: Stamp,
    /// Attempts that were started and have not been settled by their own task.
    tasks: Vec<Start>,
    begun: Vec<Instant>,
    /// The refresh token is in doubt until then.
    in_doubt: Option<Instant>,
}

impl World {
    fn step(&mut self, event: Event) {
        let before = self.state.stamp();
        self.state.abandon_overdue(self.now.instant);
        match event {
            Event::Admit => self.admit(),
            Event::RejectCurrent => self.reject(self.state.stamp(), false, HERE),
            Event::RejectThere => self.reject(self.state.stamp(), false, THERE),
            Event::RejectFinally => self.reject(self.state.stamp(), true, HERE),
            Event::RejectOldest => self.reject(self.oldest, false, HERE),
            Event::RejectReplay => {
                let stamp = self.state.stamp();
                self.state.reject_replay(stamp, HERE, &self.now);
            }
            Event::RejectLater => {
                let stamp = self.state.stamp();
                self.state.reject_later(stamp, false, HERE, &self.now);
            }
            Event::Accept => self.state.accept(self.state.stamp(), HERE),
            Event::Refresh => {
                if let Recovery::Start(start) = self.state.refresh(&self.now) {
                    self.start(start);
                }
            }
            Event::LogIn => {
                let start = self.state.log_in(token(), &self.now);
                self.begun.clear();
                self.tasks.push(start);
            }
            Event::LogOut => {
                self.begun.clear();
                self.state.log_out();
                let status = self.state.status();
                assert_eq!(status, Some(SessionStatus::LoggedOut), "P7");
            }
            Event::OtherLogsIn => self.take_over(Some(token()), EndReason::Replaced),
            Event::OtherEnds => self.take_over(None, EndReason::Refused),
            Event::Begin => self.begin(),
            Event::SettleInstalled => {
                let mut token = token();
                token.settles = Some(self.now.instant + seconds(5));
                self.settle(|| Settled::Installed(token.clone()));
            }
            Event::SettleFailed => self.settle(|| failure(Kind::Transient)),
            Event::SettleLost => {
                self.lose_reply();
                self.settle(|| failure(Kind::OutcomeUnknown));
            }
            Event::SettleRefused => self.settle(refused),
            Event::SettleLoaded => self.settle(|| Settled::Loaded(Some(token()))),
            Event::SettleTakenOver => {
                let error = || RefreshError::ended(EndReason::Replaced);
                self.settle(|| Settled::TakenOver(Some(token()), error()));
            }
            Event::Pass => self.now = later(&self.now, 30),
        }
        let after = self.state.stamp();
        assert!(after.epoch >= before.epoch && after.generation >= before.generation);
        if after != before {
            self.in_doubt = None;
        }
        assert!(
            self.state.attempt.is_some() || !self.is_blocked(),
            "nobody would ever be let go"
        );
    }

    /// Another process has logged in, or seen the end.
    fn take_over(&mut self, token: Option<Token>, reason: EndReason) {
        let (was_live, ends) = (self.state.token().is_some(), token.is_none());
        let ended = self.state.take_over(token, RefreshError::ended(reason));
        assert_eq!(ended, was_live && ends, "P7: told once");
        self.begun.clear();
    }

    fn is_blocked(&self) -> bool {
        let probe = self.state.clone().admit(&self.now);
        matches!(probe, Admission::Join)
    }

    fn admit(&mut self) {
        let over = matches!(self.state.login, Login::Over(_));
        match self.state.admit(&self.now) {
            Admission::Start(start) | Admission::GoAndStart(start) => {
                assert!(!over, "P7: after the end nothing is started");
                self.start(start);
            }
            Admission::Join => assert!(self.state.running().is_some()),
            Admission::Go | Admission::Fail(_) => {}
        }
    }

    fn reject(&mut self, stamp: Stamp, is_final: bool, address: Address) {
        let was_held = self.state.is_held();
        let others = self.state.addresses.any_not_cured();
        let recovery = self.state.reject(stamp, is_final, address, &self.now);
        if !was_held && !is_final && others {
            assert!(!self.state.is_held(), "P2: nobody else waits for it");
        }
        match recovery {
            Recovery::Replay => {
                let current = self.state.stamp();
                assert_eq!(stamp.epoch, current.epoch, "P8");
                assert!(
                    stamp.generation < current.generation,
                    "P1: not with the same token"
                );
                assert!(
                    self.state.is_usable(&self.now),
                    "P2: not with one known to be no good"
                );
            }
            Recovery::Join => assert!(self.state.running().is_some()),
            Recovery::Start(start) => self.start(start),
            Recovery::Fail(_) => {}
        }
    }

    /// Longer than a `Pass`, so that one of them does not end it.
    fn lose_reply(&mut self) {
        let Some(start) = self.tasks.first() else {
            return;
        };
        let until = self.now.instant + seconds(40);
        if self.state.lose_reply(start.number).is_some() {
            self.state.set_doubt(Some(closed(&self.now, 40)));
            self.in_doubt = Some(until);
        }
    }

    fn start(&mut self, start: Start) {
        assert!(self.state.counts(start.number));
        let left_alone = self.in_doubt.is_some_and(|until| self.now.instant < until);
        assert!(
            start.cause != Cause::Reissue || !left_alone,
            "a refresh token in doubt is left alone"
        );
        self.tasks.push(start);
    }

    fn begin(&mut self) {
        let Some(start) = self.tasks.last().copied() else {
            return;
        };
        if start.cause == Cause::Reissue
            && self.state.begin_reissue(start.number, &self.now).is_ok()
        {
            self.begun.push(self.now.instant);
            let recent = |at: &&Instant| self.now.instant.duration_since(**at) < seconds(30);
            assert!(self.begun.iter().filter(recent).count() <= 2, "P9");
        }
    }

    /// The oldest task settles first: the one that is most likely not to count any more.
    fn settle(&mut self, how: impl Fn() -> Settled) {
        if self.tasks.is_empty() {
            return;
        }
        let start = self.tasks.remove(0);
        let counted = self.state.counts(start.number);
        let before = self.state.stamp();
        let verdict = self.state.settle(start.number, how(), &self.now);
        assert_eq!(verdict.is_some(), counted);
        if !counted {
            assert_eq!(
                self.state.stamp(),
                before,
                "P8: a result that does not count changes nothing"
            );
        }
        if self.state.stamp().epoch != before.epoch {
            self.begun.clear();
        }
    }
}

// shows B36, B91: there is no moment between a new token and its bookkeeping.
#[test]
fn no_short_sequence_of_events_breaks_a_promise() {
    let now = Now::read();
    let mut state = live(token(), &now);
    state.rules.window.0 = 2;
    let world = World {
        oldest: state.stamp(),
        state,
        now,
        tasks: Vec::new(),
        begun: Vec::new(),
        in_doubt: None,
    };
    let mut walked = 0;
    walk(&world, 5, &mut walked);
    assert_eq!(walked, (1..=5).map(|depth| 21_u64.pow(depth)).sum::<u64>());
}

fn walk(world: &World, depth: u32, walked: &mut u64) {
    if depth == 0 {
        return;
    }
    for event in EVENTS {
        let mut next = world.clone();
        next.step(event);
        *walked += 1;
        walk(&next, depth - 1, walked);
    }
}
