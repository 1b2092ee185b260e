//! What is kept beside the state.

use super::*;
use crate::token::InDoubt;

fn settings() -> Settings {
    let second = Duration::from_secs(1);
    Settings {
        attach: Attach::default(),
        attempt: second,
        lost_reply: LostReply::strict().or_quarantine(second),
        lease: second,
        others: Duration::ZERO,
        refresh_ahead: None,
        reissue_timeout: second,
        runtime: None,
        self_sufficient: false,
        store_timeout: second,
        wait_timeout: second,
        waiter_limit: 1,
    }
}

fn rules() -> Rules {
    let second = Duration::from_secs(1);
    Rules {
        attempt: second,
        abandoned: second,
        cool_down: (second, second),
        window: (5, second),
        self_sufficient: false,
    }
}

fn tokens(user: &str) -> TokenSet {
    let tokens = TokenSet::new(format!("a-{user}")).unwrap();
    tokens.with_refresh_token(format!("r-{user}")).unwrap()
}

/// A login of this user, and a reissue for it that is under way.
fn asking(inner: &mut Inner, user: &str, now: &Now) -> u64 {
    let token = Token::new(crate::token::Lifetime::UNKNOWN, true, true);
    let login = inner.state.log_in(token, now);
    inner.put(&Attach::default(), Some(tokens(user)));
    inner
        .state
        .settle(login.number, state::Settled::Saved(true), now);
    let stamp = inner.state.stamp();
    let Recovery::Start(start) = inner.state.reject(stamp, false, now) else {
        panic!("a rejection starts a reissue");
    };
    inner.state.begin_reissue(start.number, now).unwrap();
    start.number
}

// shows B70, P8: an attempt that wakes up after another user's login has no part in what is lost then.
#[test]
fn a_lost_reply_is_about_the_refresh_token_that_its_own_attempt_has_sent() {
    let now = Now::read();
    let mut inner = Inner::new(State::new(rules()));
    let first = asking(&mut inner, "a", &now);
    let sent = |user| tokens(user).refresh_token().cloned().unwrap();
    inner.sent = Some((first, sent("a")));
    let second = asking(&mut inner, "b", &now);
    assert!(
        !inner.lose_reply(first, &settings(), &now),
        "it does not count"
    );
    assert!(
        !inner.lose_reply(second, &settings(), &now),
        "it has sent nothing yet"
    );
    assert_eq!(inner.tokens.as_ref().unwrap().in_doubt(), None);
    inner.sent = Some((second, sent("b")));
    assert!(inner.lose_reply(second, &settings(), &now));
    let kept = inner.tokens.unwrap();
    assert_eq!(kept.refresh_token().unwrap().expose(), "r-b");
    assert_eq!(kept.in_doubt().map(|doubt: InDoubt| doubt.tries), Some(1));
}

// shows DESIGN section 7: a holder that is not driven any more may still get the answer, as one that is
// stopped may. One that has sent nothing keeps nobody away.
#[test]
fn an_attempt_that_is_given_up_keeps_the_lock_of_the_store_where_its_bytes_are_out() {
    let now = Now::read();
    let later = Now {
        instant: now.instant + Duration::from_secs(60),
        ..now
    };
    let lock = |number| Some((number, crate::store::StoreLock::new(())));
    let mut inner = Inner::new(State::new(rules()));
    let asked = asking(&mut inner, "a", &now);
    inner.peers.lock = lock(asked);
    assert!(inner.abandon_overdue(&settings(), &later).is_none());
    assert!(inner.peers.lock.is_some());

    let stamp = inner.state.stamp();
    let login = inner.state.log_in(
        Token::new(crate::token::Lifetime::UNKNOWN, true, true),
        &now,
    );
    assert!(inner.state.stamp() != stamp);
    inner.peers.lock = lock(login.number);
    inner.abandon_overdue(&settings(), &later);
    assert!(inner.peers.lock.is_none());
}

// shows B43: somebody else holds the lock all the while.
#[test]
fn a_request_with_a_good_token_takes_no_lock() {
    let store = Storage::Own(Box::new(crate::store::MemoryStore::new()));
    let reissue = crate::reissue::reissue_fn(|_| std::future::pending());
    let coordinator = Coordinator::new(settings(), rules(), store, Box::new(reissue));
    let coordinator = Arc::new(coordinator);
    let login = coordinator.login(tokens("a"));
    futures_util::FutureExt::now_or_never(login)
        .unwrap()
        .unwrap();

    let held = coordinator.lock();
    let (tell, told) = std::sync::mpsc::channel();
    let other = coordinator.clone();
    std::thread::spawn(move || {
        let sent = matches!(other.admit(), Admitted::Go(_, Some(_)));
        let again = other.current().1.is_some();
        let _ = tell.send(sent && again);
    });
    let done = told.recv_timeout(Duration::from_secs(60));
    drop(held);
    assert_eq!(done, Ok(true), "it waits for the lock");
}
