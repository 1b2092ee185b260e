//! What is kept beside the state.

use std::future::pending;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::*;
use crate::reissue::reissue_fn;
use crate::store::MemoryStore;
use crate::store::OwnMemory;
use crate::store::SharedTokenStore;
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
    let Recovery::Start(start) = inner.state.reject(stamp, false, Address::new(1), now) else {
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
    assert!(inner.abandon_overdue(&settings(), &later).is_some());
    assert!(inner.peers.lock.is_some());

    let stamp = inner.state.stamp();
    let login = inner.state.log_in(
        Token::new(crate::token::Lifetime::UNKNOWN, true, true),
        &now,
    );
    assert!(inner.state.stamp() != stamp);
    inner.peers.lock = lock(login.number);
    assert!(inner.abandon_overdue(&settings(), &later).is_some());
    assert!(inner.peers.lock.is_none());
}

/// A coordinator whose issuer does not answer, and what tells that it was asked.
fn unanswered(store: Storage) -> (Arc<Coordinator>, Arc<tokio::sync::Semaphore>) {
    let asked = Arc::new(tokio::sync::Semaphore::new(0));
    let reissue = {
        let asked = asked.clone();
        reissue_fn(move |_| {
            asked.add_permits(1);
            pending()
        })
    };
    let hour = Duration::from_secs(3600);
    let settings = Settings {
        attempt: hour,
        reissue_timeout: hour,
        lease: Duration::from_secs(12),
        others: hour,
        wait_timeout: hour,
        waiter_limit: 10,
        ..settings()
    };
    let rules = Rules {
        attempt: hour,
        ..rules()
    };
    let coordinator = Coordinator::new(settings, rules, store, Box::new(reissue));
    (coordinator, asked)
}

/// Passes time in steps, so that what is due in between is done.
async fn pass(seconds: u64) {
    for _ in 0..seconds {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

// shows P1. What an attempt before has left to be written, and a task that makes the store right again, was
// once told to give back the claim of whichever attempt had one.
#[tokio::test(start_paused = true)]
async fn those_who_bring_the_store_to_the_truth_leave_a_running_attempt_its_claim() {
    let store = Arc::new(MemoryStore::new());
    let (coordinator, asked) = unanswered(Storage::Shared(store.clone()));
    coordinator.login(tokens("a")).await.unwrap();
    let Next::Wait(_ticket) = coordinator.refresh() else {
        panic!("there is nothing to wait for");
    };
    asked.acquire().await.unwrap().forget();
    let claim = async || match SharedTokenStore::read(&*store).await.unwrap().0.turn {
        crate::store::Turn::Sent(claim) => claim,
        turn => panic!("{turn:?}"),
    };
    let before = claim().await;
    coordinator.write_truth().await.unwrap();
    coordinator.lock().dirty = true;
    coordinator.write_truth().await.unwrap();
    assert!(claim().await.is_of(&before));
    // It is renewed for as long as the issuer is waited for.
    pass(60).await;
    let renewed = claim().await;
    assert!(renewed.is_of(&before));
    assert!(renewed.deadline > before.deadline);
}

// shows P12: nobody needs them after a logout.
#[tokio::test(start_paused = true)]
async fn a_logout_forgets_what_was_presented_and_what_was_on_offer() {
    for shared in [false, true] {
        let store = match shared {
            true => Storage::Shared(Arc::new(MemoryStore::new())),
            false => Storage::Own(Box::new(OwnMemory::default())),
        };
        let (coordinator, asked) = unanswered(store);
        coordinator.login(tokens("a")).await.unwrap();
        let Next::Wait(_ticket) = coordinator.refresh() else {
            panic!("there is nothing to wait for");
        };
        asked.acquire().await.unwrap().forget();
        let mut adopt = Box::pin(coordinator.adopt(tokens("b")));
        assert!(futures::poll!(&mut adopt).is_pending());
        {
            let inner = coordinator.lock();
            assert!(inner.sent.is_some() && inner.offer.is_some());
        }
        coordinator.logout().await.unwrap();
        let inner = coordinator.lock();
        assert!(inner.sent.is_none() && inner.offer.is_none());
        assert!(inner.tokens.is_none() && inner.header.is_none());
    }
}

/// Somebody else's value, which looks at the session when it is dropped.
#[derive(Debug)]
struct Curious {
    coordinator: Arc<Coordinator>,
    finds_it_locked: Arc<AtomicBool>,
}

impl Drop for Curious {
    fn drop(&mut self) {
        if self.coordinator.inner.try_lock().is_err() {
            self.finds_it_locked.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for Curious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("curious")
    }
}

impl std::error::Error for Curious {}

// shows P14: such a drop would wait for a lock that its own thread holds.
#[tokio::test(start_paused = true)]
async fn what_is_somebody_else_s_is_dropped_when_the_lock_is_released() {
    let locked = Arc::new(AtomicBool::new(false));
    let (coordinator, _) = unanswered(Storage::Own(Box::new(OwnMemory::default())));
    let curious = || Curious {
        coordinator: coordinator.clone(),
        finds_it_locked: locked.clone(),
    };
    let error = || RefreshError::with_source(Kind::Transient, curious());
    let log_in = || {
        let token = Token::new(crate::token::Lifetime::UNKNOWN, true, true);
        coordinator.with(|inner, now| inner.state.log_in(token, now))
    };

    // The lock of a store, whose attempt is given up before it has asked.
    let number = log_in().number;
    coordinator.lock().peers.lock = Some((number, StoreLock::new(curious())));
    tokio::time::advance(Duration::from_secs(3601)).await;
    coordinator.with(|_, _| ());
    assert!(coordinator.lock().peers.lock.is_none());

    // The error of an attempt, when a login takes its place.
    let stamp = coordinator.lock().state.stamp();
    let reject =
        |inner: &mut Inner, now: &Now| inner.state.reject(stamp, false, Address::new(1), now);
    let Recovery::Start(start) = coordinator.with(reject) else {
        panic!("a rejection starts a reissue");
    };
    let launch = coordinator.with(|inner, _| inner.begin(&coordinator, start));
    launch.guard.fail(error());
    log_in();

    // And that of one that no longer counts.
    let late = Guard::new(coordinator.clone(), start, watch::channel(None).1);
    late.fail(error());
    assert!(!locked.load(Ordering::Relaxed));
}

// shows B43: somebody else holds the lock all the while.
#[test]
fn a_request_with_a_good_token_takes_no_lock() {
    let store = Storage::Own(Box::new(OwnMemory::default()));
    let reissue = reissue_fn(|_| pending());
    let coordinator = Coordinator::new(settings(), rules(), store, Box::new(reissue));
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
