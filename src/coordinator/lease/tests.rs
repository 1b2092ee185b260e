//! What the model does not see: each change by itself, on each kind of record.

use super::*;

use crate::token::InDoubt;

const SPAN: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn strict() -> LostReply {
    LostReply::strict().or_quarantine(SPAN)
}

/// The tokens with this number.
fn pair(number: u32) -> TokenSet {
    let tokens = TokenSet::new(format!("a{number}")).unwrap();
    tokens.with_refresh_token(format!("r{number}")).unwrap()
}

fn access_only(number: u32) -> TokenSet {
    TokenSet::new(format!("a{number}")).unwrap()
}

fn record(version: u64, epoch: u64, tokens: impl Into<Option<TokenSet>>, turn: Turn) -> Record {
    Record {
        version,
        epoch,
        reissues: 0,
        tokens: tokens.into(),
        turn,
        foreign: false,
    }
}

/// A record that can be claimed.
fn free() -> Record {
    record(5, 2, pair(1), Turn::Free)
}

/// Claimed by 7 at 100 s, until 110 s.
fn claimed() -> (Record, Claim) {
    let record = claim(&free(), 7, at(100), SPAN, &strict()).unwrap();
    match record.turn {
        Turn::Sent(claim) => (record, claim),
        turn => panic!("{turn:?}"),
    }
}

/// In words, as the tokens of a record can't be compared otherwise.
fn told(news: &News) -> String {
    let name = |tokens: &TokenSet| tokens.access_token().expose().to_owned();
    match news {
        News::Login => "login".to_owned(),
        News::Nothing => "nothing".to_owned(),
        News::Older => "older".to_owned(),
        News::Over(reason) => format!("over, {reason:?}"),
        News::Tokens(tokens) => format!("tokens {}", name(tokens)),
    }
}

fn is_same(left: &Record, right: &Record) -> bool {
    let same_tokens = match (&left.tokens, &right.tokens) {
        (Some(left), Some(right)) => left.same_tokens(right) && left.in_doubt() == right.in_doubt(),
        (None, None) => true,
        _ => false,
    };
    let numbers = |it: &Record| (it.version, it.epoch, it.reissues, it.turn, it.foreign);
    same_tokens && numbers(left) == numbers(right)
}

#[track_caller]
fn becomes(changed: Changed, expected: &Record) {
    let changed = changed.unwrap();
    assert!(is_same(&changed, expected), "{changed:?}, not {expected:?}");
}

#[track_caller]
fn denied(changed: Changed) -> Denied {
    match changed {
        Err(denied) => denied,
        Ok(record) => panic!("it becomes {record:?}"),
    }
}

#[test]
fn what_is_restored_is_newer_than_both_and_keeps_whose_turn_it_is() {
    let (known, _) = claimed();
    for found in [
        Record::empty(),
        record(3, 2, pair(9), Turn::Free),
        record(8, 2, None, Turn::Free),
    ] {
        let version = found.version.max(known.version) + 1;
        let expected = Record {
            version,
            ..known.clone()
        };
        becomes(restore(&found, &known), &expected);
        assert!(matches!(news(&known, &expected), News::Nothing));
    }
    let foreign = Record {
        foreign: true,
        ..free()
    };
    assert_eq!(denied(restore(&foreign, &known)), Denied::ReadOnly);
    assert_eq!(denied(restore(&free(), &foreign)), Denied::ReadOnly);
}

#[test]
fn a_login_has_the_epoch_after_that_of_what_it_takes_the_place_of() {
    let first = login(&Record::empty(), 1233, &pair(1)).unwrap();
    assert_eq!((first.version, first.epoch), (1, 1234));
    let second = login(&first, 5677, &pair(2)).unwrap();
    assert_eq!((second.version, second.epoch), (2, 5678));
    let third = login(&second, 5678, &pair(3)).unwrap();
    assert_eq!((third.version, third.epoch), (3, 5679));
}

#[test]
fn an_older_pair_is_told_by_the_number_of_reissues_whatever_its_version() {
    let known = commit(&free(), &free(), &pair(2)).unwrap();
    assert_eq!(known.reissues, 1);
    let older = Record {
        version: known.version + 9,
        ..free()
    };
    assert!(matches!(news(&known, &older), News::Older));
    let login = login(&known, 2, &pair(3)).unwrap();
    assert_eq!(login.reissues, 0);
    assert!(matches!(news(&known, &login), News::Login));
}

#[test]
fn a_claim_that_was_lost_is_written_again_unless_somebody_took_its_owner_for_dead() {
    let (known, ours) = claimed();
    let found = Record {
        version: 40,
        ..free()
    };
    let again = claim_again(&found, &known, &ours, at(105), SPAN).unwrap();
    let renewed = Claim {
        deadline: at(115),
        ..ours
    };
    assert_eq!((again.version, again.turn), (41, Turn::Sent(renewed)));
    let dead = presume_lost(&known, at(110), false).unwrap();
    let others = claim(&found, 8, at(100), SPAN, &strict()).unwrap();
    let login = login(&found, 2, &pair(1)).unwrap();
    let moved_on = commit(&found, &found, &pair(2)).unwrap();
    for found in [dead, others, login, moved_on] {
        let changed = claim_again(&found, &known, &ours, at(111), SPAN);
        assert_eq!(denied(changed), Denied::Superseded);
    }
}

#[test]
fn news_are_told_for_each_pair_of_records() {
    let free = |version, epoch, number| record(version, epoch, pair(number), Turn::Free);
    let ended = |version, epoch, reason| record(version, epoch, None, Turn::Ended(reason));
    let bare = |version| record(version, 1, None, Turn::Free);
    let (refused, logged_out) = (EndReason::Refused, EndReason::LoggedOut);
    let (sent, _) = claimed();
    let known = free(3, 1, 1);
    for (known, found, expected) in [
        (&known, known.clone(), "nothing"),
        (&known, free(4, 1, 1), "nothing"),
        (&known, record(4, 1, pair(1), sent.turn), "nothing"),
        (&known, record(4, 1, pair(1), Turn::Refused), "nothing"),
        (&known, free(4, 1, 2), "tokens a2"),
        (&known, record(4, 1, pair(2), sent.turn), "tokens a2"),
        (
            &known,
            record(4, 1, access_only(1), Turn::Free),
            "tokens a1",
        ),
        (&known, free(4, 2, 2), "login"),
        // The same tokens in a new login are a new login all the same.
        (&known, free(4, 2, 1), "login"),
        (&known, free(2, 1, 2), "older"),
        (&known, free(4, 0, 2), "older"),
        // A store that has lost all it had counts versions anew.
        (&known, free(2, 2, 2), "login"),
        (&known, bare(4), "older"),
        (&known, ended(2, 2, refused), "over, Refused"),
        (&known, ended(4, 2, refused), "over, Refused"),
        (&known, ended(4, 2, logged_out), "over, LoggedOut"),
        (&Record::empty(), Record::empty(), "nothing"),
        (&Record::empty(), free(1, 1, 1), "login"),
        // An attempt without a login: client credentials.
        (&Record::empty(), free(1, 0, 1), "tokens a1"),
        (&Record::empty(), record(1, 0, None, sent.turn), "nothing"),
        (&Record::empty(), ended(2, 2, refused), "over, Refused"),
        (&ended(4, 2, refused), ended(4, 2, refused), "nothing"),
        (&ended(4, 2, refused), ended(5, 2, refused), "nothing"),
        (
            &ended(4, 2, refused),
            ended(6, 4, logged_out),
            "over, LoggedOut",
        ),
        (&ended(4, 2, refused), free(5, 3, 2), "login"),
    ] {
        let news = told(&news(known, &found));
        assert_eq!(news, expected, "{known:?}, then {found:?}");
    }
}

#[test]
fn a_free_turn_is_claimed_until_the_deadline_under_a_fence_of_its_own() {
    let (record, claim) = claimed();
    let expected = Claim {
        owner: 7,
        fence: 6,
        sent_at: at(100),
        deadline: at(110),
    };
    assert_eq!(claim, expected);
    becomes(
        Ok(record),
        &super::tests::record(6, 2, pair(1), Turn::Sent(claim)),
    );
    let empty = super::claim(&Record::empty(), 7, at(100), SPAN, &strict());
    assert_eq!(empty.unwrap().version, 1);
}

#[test]
fn a_turn_that_is_not_free_is_not_claimed() {
    let claim = |turn| {
        let found = Record { turn, ..free() };
        denied(claim(&found, 8, at(105), SPAN, &strict()))
    };
    let (taken, _) = claimed();
    assert_eq!(claim(taken.turn), Denied::Busy { until: at(110) });
    assert_eq!(claim(Turn::Refused), Denied::Refused);
    let ended = Turn::Ended(EndReason::LoggedOut);
    assert_eq!(claim(ended), Denied::Superseded);
}

#[test]
fn not_even_the_owner_or_the_time_that_has_run_out_makes_a_claim_free() {
    let (taken, _) = claimed();
    for (owner, now) in [(7, 105), (8, 110), (8, 1_000)] {
        let denied = denied(claim(&taken, owner, at(now), SPAN, &strict()));
        assert_eq!(denied, Denied::Busy { until: at(110) }, "{owner} at {now}");
    }
}

#[test]
fn a_refresh_token_in_doubt_is_claimed_after_its_quarantine_and_keeps_its_doubt() {
    let doubt = InDoubt::new(at(100), 1).with_sent_at(at(95));
    let found = Record {
        tokens: Some(pair(1).with_in_doubt(doubt)),
        ..free()
    };
    for now in [100, 109] {
        let denied = denied(claim(&found, 8, at(now), SPAN, &strict()));
        assert_eq!(denied, Denied::InDoubt, "at {now}");
    }
    let claimed = claim(&found, 8, at(110), SPAN, &strict()).unwrap();
    let tokens = claimed.tokens.unwrap();
    assert_eq!(tokens.in_doubt(), Some(doubt));
    // Within the issuer's window it is presented again at once.
    let window = LostReply::OKTA.or_quarantine(SPAN);
    assert_eq!(
        claim(&found, 8, at(100), SPAN, &window).is_ok(),
        !window.is_closed_at(&doubt, at(100))
    );
}

#[test]
fn the_owner_has_longer_after_a_renewal_under_the_same_fence() {
    let (found, claim) = claimed();
    let renewed = Claim {
        deadline: at(118),
        ..claim
    };
    let expected = record(7, 2, pair(1), Turn::Sent(renewed));
    becomes(renew(&found, &claim, at(108), SPAN), &expected);
}

#[test]
fn the_owner_gives_its_turn_back() {
    let (found, claim) = claimed();
    let freed = record(7, 2, pair(1), Turn::Free);
    becomes(release(&found, &claim, false), &freed);
    becomes(
        refuse(&found, &claim),
        &record(7, 2, pair(1), Turn::Refused),
    );
    let doubt = InDoubt::new(at(108), 1).with_sent_at(at(100));
    let doubtful = pair(1).with_in_doubt(doubt);
    becomes(
        lose(&found, &claim, at(108)),
        &record(7, 2, doubtful, Turn::Free),
    );
}

#[test]
fn a_doubt_goes_with_an_answer_and_stays_with_what_was_not_processed() {
    let (found, claim) = claimed();
    let doubtful = pair(1).with_in_doubt(InDoubt::new(at(50), 1));
    let found = Record {
        tokens: Some(doubtful.clone()),
        ..found
    };
    let freed = |tokens| record(7, 2, tokens, Turn::Free);
    becomes(release(&found, &claim, true), &freed(pair(1)));
    becomes(release(&found, &claim, false), &freed(doubtful));
    let again = InDoubt::new(at(108), 2);
    becomes(
        lose(&found, &claim, at(108)),
        &freed(pair(1).with_in_doubt(again)),
    );
}

#[test]
fn a_claim_that_was_not_stored_yet_never_will_be_once_it_is_given_back() {
    let (stored, claim) = claimed();
    let found = free();
    becomes(
        release(&found, &claim, false),
        &record(6, 2, pair(1), Turn::Free),
    );
    assert_eq!(stored.version, 6, "the late swap finds another version");
}

#[test]
fn whoever_has_lost_its_claim_changes_nothing_with_it() {
    let (found, claim) = claimed();
    let turns = [
        Turn::Free,
        Turn::Refused,
        Turn::Ended(EndReason::Refused),
        Turn::Sent(Claim { owner: 8, ..claim }),
        Turn::Sent(Claim { fence: 9, ..claim }),
    ];
    for turn in turns {
        let found = Record {
            turn,
            ..found.clone()
        };
        for changed in [
            renew(&found, &claim, at(105), SPAN),
            release(&found, &claim, false),
            refuse(&found, &claim),
            lose(&found, &claim, at(105)),
        ] {
            assert_eq!(denied(changed), Denied::Superseded, "{turn:?}");
        }
    }
}

#[test]
fn a_claim_is_presumed_lost_at_its_deadline_or_with_its_owner() {
    let (found, _) = claimed();
    assert!(presume_lost(&found, at(109), false).is_none());
    let lost = |now, is_gone| {
        let lost = presume_lost(&found, at(now), is_gone).unwrap();
        assert_eq!((lost.version, lost.epoch, lost.turn), (7, 2, Turn::Free));
        lost.tokens.unwrap().in_doubt().unwrap()
    };
    let doubt = |since| InDoubt::new(at(since), 1).with_sent_at(at(100));
    assert_eq!(lost(110, false), doubt(110));
    // Its owner died long ago: the bytes are as old.
    assert_eq!(lost(500, true), doubt(110));
    assert_eq!(lost(103, true), doubt(103));
    // Where only the clock says so, it may have jumped.
    assert_eq!(lost(500, false), doubt(500));
    assert!(presume_lost(&found, at(90), false).is_none());
    assert_eq!(lost(89, false), doubt(89));
}

#[test]
fn each_lost_reply_counts_and_the_first_send_is_kept() {
    let (found, _) = claimed();
    let before = InDoubt::new(at(50), 3).with_sent_at(at(40));
    for (before, tries) in [
        (before, 4),
        (
            InDoubt {
                tries: u32::MAX,
                ..before
            },
            u32::MAX,
        ),
    ] {
        let found = Record {
            tokens: Some(pair(1).with_in_doubt(before)),
            ..found.clone()
        };
        let lost = presume_lost(&found, at(110), false).unwrap();
        let expected = InDoubt::new(at(110), tries).with_sent_at(at(40));
        assert_eq!(lost.tokens.unwrap().in_doubt(), Some(expected));
    }
    // Nobody knows when the first was sent: so it stays.
    let found = Record {
        tokens: Some(pair(1).with_in_doubt(InDoubt::new(at(50), 1))),
        ..found
    };
    let lost = presume_lost(&found, at(110), false).unwrap();
    let expected = InDoubt::new(at(110), 2);
    assert_eq!(lost.tokens.unwrap().in_doubt(), Some(expected));
}

#[test]
fn what_has_no_refresh_token_is_not_in_doubt() {
    let (found, _) = claimed();
    for tokens in [Some(access_only(1)), None] {
        let found = Record {
            tokens: tokens.clone(),
            ..found.clone()
        };
        let lost = presume_lost(&found, at(110), false).unwrap();
        assert!(is_same(&lost, &record(7, 2, tokens, Turn::Free)));
    }
}

#[test]
fn nobody_is_lost_who_has_no_claim() {
    for turn in [Turn::Free, Turn::Refused, Turn::Ended(EndReason::Refused)] {
        let found = Record { turn, ..free() };
        assert!(presume_lost(&found, at(500), true).is_none(), "{turn:?}");
    }
}

#[test]
fn new_tokens_take_the_place_of_those_they_come_from_whosever_turn_it_is() {
    let (from, claim) = claimed();
    let doubtful = pair(1).with_in_doubt(InDoubt::new(at(110), 1));
    let other = Turn::Sent(Claim {
        owner: 8,
        fence: 9,
        ..claim
    });
    for (tokens, turn) in [
        (pair(1), from.turn),
        (pair(1), other),
        (pair(1), Turn::Refused),
        (doubtful, Turn::Free),
    ] {
        let found = record(9, 2, tokens, turn);
        let expected = Record {
            reissues: 1,
            ..record(10, 2, pair(2), Turn::Free)
        };
        becomes(commit(&found, &from, &pair(2)), &expected);
    }
}

#[test]
fn new_tokens_take_the_place_of_no_others() {
    let (from, _) = claimed();
    let ended = Turn::Ended(EndReason::Refused);
    for found in [
        record(9, 2, pair(2), Turn::Free),
        record(9, 2, access_only(1), Turn::Free),
        record(9, 3, pair(1), Turn::Free),
        record(9, 1, pair(1), Turn::Free),
        record(9, 2, None, Turn::Free),
        record(9, 3, None, ended),
    ] {
        let denied = denied(commit(&found, &from, &pair(3)));
        assert_eq!(denied, Denied::Superseded, "{found:?}");
    }
}

#[test]
fn the_first_tokens_of_those_who_need_no_login_take_the_place_of_none() {
    let from = Record::empty();
    let (sent, _) = claimed();
    let found = record(1, 0, None, sent.turn);
    let expected = Record {
        reissues: 1,
        ..record(2, 0, pair(1), Turn::Free)
    };
    becomes(commit(&found, &from, &pair(1)), &expected);
    let ended = record(1, 0, None, Turn::Ended(EndReason::LoggedOut));
    assert_eq!(denied(commit(&ended, &from, &pair(1))), Denied::Superseded);
    let other = record(1, 0, pair(2), Turn::Free);
    assert_eq!(denied(commit(&other, &from, &pair(1))), Denied::Superseded);
}

#[test]
fn a_login_takes_the_place_of_the_one_it_knows() {
    let (found, _) = claimed();
    let expected = record(7, 3, pair(2), Turn::Free);
    becomes(login(&found, 2, &pair(2)), &expected);
    let tombstone = record(6, 2, None, Turn::Ended(EndReason::Refused));
    becomes(login(&tombstone, 2, &pair(2)), &expected);
    assert_eq!(denied(login(&found, 1, &pair(2))), Denied::Superseded);
    // A failover has brought one back from before it.
    let expected = record(7, 9, pair(2), Turn::Free);
    becomes(login(&found, 8, &pair(2)), &expected);
}

#[test]
fn the_end_leaves_a_tombstone_of_the_login_it_is_for() {
    let (found, _) = claimed();
    for reason in [EndReason::Refused, EndReason::Rejected] {
        let expected = record(7, 3, None, Turn::Ended(reason));
        becomes(end(&found, &free(), reason), &expected);
        for epoch in [1, 3] {
            let from = record(5, epoch, pair(1), Turn::Free);
            assert_eq!(denied(end(&found, &from, reason)), Denied::Superseded);
        }
    }
    let expected = record(7, 3, None, Turn::Ended(EndReason::LoggedOut));
    becomes(log_out(&found, 2, false), &expected);
    assert_eq!(denied(log_out(&found, 1, false)), Denied::Superseded);
    // A failover has brought back a login from before it.
    let expected = record(7, 9, None, Turn::Ended(EndReason::LoggedOut));
    becomes(log_out(&found, 8, false), &expected);
}

#[test]
fn a_refused_refresh_token_ends_only_the_login_that_still_has_it() {
    let newer_access = TokenSet::new("a2").unwrap();
    let newer_access = newer_access.with_refresh_token("r1").unwrap();
    for tokens in [
        Some(pair(2)),
        Some(newer_access),
        Some(access_only(1)),
        None,
    ] {
        let found = record(6, 2, tokens, Turn::Free);
        let denied = denied(end(&found, &free(), EndReason::Refused));
        assert_eq!(denied, Denied::Superseded, "{found:?}");
    }
}

#[test]
fn what_has_ended_does_not_end_again() {
    let found = record(6, 2, None, Turn::Ended(EndReason::Refused));
    assert_eq!(denied(log_out(&found, 2, false)), Denied::Superseded);
}

#[test]
fn a_record_of_a_newer_version_is_only_read() {
    let (found, claim) = claimed();
    let found = Record {
        foreign: true,
        ..found
    };
    let free = Record {
        foreign: true,
        ..free()
    };
    let tombstone = Record {
        foreign: true,
        ..record(6, 2, None, Turn::Ended(EndReason::Refused))
    };
    for changed in [
        super::claim(&free, 7, at(105), SPAN, &strict()),
        renew(&found, &claim, at(105), SPAN),
        release(&found, &claim, false),
        refuse(&found, &claim),
        lose(&found, &claim, at(105)),
        commit(&found, &found, &pair(2)),
        login(&found, 2, &pair(2)),
        end(&found, &found, EndReason::Refused),
        log_out(&found, 2, false),
        reopen(&tombstone, 0),
    ] {
        assert_eq!(denied(changed), Denied::ReadOnly);
    }
    assert!(presume_lost(&found, at(500), true).is_none());
    assert_eq!(told(&news(&Record::empty(), &found)), "login");
}

#[test]
fn a_record_of_a_newer_version_is_news_where_its_access_token_is() {
    let newer = |number| Record {
        foreign: true,
        ..record(7, 2, access_only(number), Turn::Free)
    };
    assert_eq!(told(&news(&free(), &newer(1))), "nothing");
    assert_eq!(told(&news(&free(), &newer(2))), "tokens a2");
    let ours = record(7, 2, access_only(1), Turn::Free);
    assert_eq!(told(&news(&free(), &ours)), "tokens a1");
}
