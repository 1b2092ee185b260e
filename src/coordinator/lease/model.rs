//! A model check of the protocol: every order in which processes, a store, a network and an issuer can go
//! on, with the transitions of `lease` as they are.
//!
//! **The world.** Processes that share a record; a store that compares and sets, and has a clock; an issuer
//! that rotates its refresh tokens and takes a second use of one for theft. A process may be stopped between
//! any two steps, and goes on with what it had read. A request may arrive late or never, its answer too; a
//! process may give up early, or crash and come back as another; a swap may stay without an answer and be done
//! later. Each of these counts as one fault, but waiting is free.
//!
//! **The bound.** No refresh token is presented twice while a living process has its successor, if whatever
//! follows from a claim, up to the commit of the new pair, is over less than the quarantine after it was
//! sent or the claim was last renewed, and less than the quarantine after the claim's deadline. A process may
//! be stopped past its deadline and still send, as long as that is kept; and an issuer may take as long as it
//! likes, as long as the claim is renewed. What happens without the bound is a test, too: no lock can
//! exclude it. All that is said of what is stored holds without the bound.
//!
//! **How far.** Claims last for two ticks, and the quarantine is as long. Each check has its number of
//! processes, pairs, ticks and faults; under these limits it is complete. Processes are alike, so that states
//! which differ in their order count once.

mod events;
mod paper;
mod rules;
mod state;
mod world;

use std::time::Instant;

use stateright::Checker;
use stateright::HasDiscoveries;
use stateright::Model;

use events::Event;
use events::Events;
use paper::Tokens;
use rules::FIXED_LIFETIME;
use rules::NO_FENCE;
use rules::NO_QUARANTINE;
use rules::READ_BEFORE_THE_LOCK;
use rules::REAL;
use rules::RENEWAL_ONLY;
use rules::Rules;
use world::AVOIDABLE;
use world::PAIR_LOST;
use world::TWO_OWNERS;
use world::World;

fn world(rules: Rules) -> World {
    World {
        rules,
        processes: 2,
        lock: false,
        bounded: true,
        users: false,
        enough: 3,
        horizon: 5,
        faults: 1,
        tokens: Tokens::new(),
        events: Events::default(),
    }
}

/// Goes through all states: no promise is broken, and all this happens.
fn holds(name: &str, world: World, happens: &[Event]) {
    let began = Instant::now();
    let checker = world.checker().threads(2);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let took = began.elapsed();
    println!("{name}: {states} states, {depth} steps deep, {took:.1?}");
    checker.assert_properties();
    for event in happens {
        let times = checker.model().events.times(*event);
        assert!(times > 0, "{name}: never {event:?}");
    }
}

/// Finds an order in which this promise is broken.
fn breaks(name: &str, world: World, promise: &'static str) {
    let began = Instant::now();
    let checker = world.checker();
    let checker = checker.finish_when(HasDiscoveries::AnyOf([promise].into()));
    let checker = checker.spawn_bfs().join();
    let actions = checker.assert_any_discovery(promise).into_actions();
    let (states, steps) = (checker.unique_state_count(), actions.len());
    let took = began.elapsed();
    println!("{name}: broken in {steps} steps ({states} states, {took:.1?}): {actions:?}");
}

const ALWAYS: [Event; 12] = [
    Event::Adopted,
    Event::CommitJudgedAnew,
    Event::Committed,
    Event::CommittedForTheDead,
    Event::CommittedLate,
    Event::LandedLate,
    Event::QuarantineOver,
    Event::ReadBack,
    Event::Released,
    Event::Renewed,
    Event::Settled,
    Event::Superseded,
];

// shows P1, P6, P13
#[test]
fn two_processes_present_no_refresh_token_twice_in_three_pairs() {
    holds("two processes", world(REAL), &ALWAYS);
}

// shows P1, P6, P13
#[test]
fn two_processes_present_none_twice_when_two_things_go_wrong() {
    let world = World {
        enough: 2,
        faults: 2,
        ..world(REAL)
    };
    let happens = [Event::Ended, Event::PresumedLost, Event::SeenTwice];
    holds("two processes, two faults", world, &happens);
}

// shows P1, P6, P13
#[test]
fn three_processes_present_none_twice() {
    let world = World {
        processes: 3,
        enough: 2,
        ..world(REAL)
    };
    holds("three processes", world, &ALWAYS);
}

// shows P1, P6, P13
#[test]
fn processes_with_a_lock_that_dies_with_its_holder_present_none_twice() {
    let world = World {
        processes: 3,
        lock: true,
        horizon: 6,
        faults: 2,
        ..world(REAL)
    };
    holds("three processes and a lock", world, &[Event::PresumedDead]);
}

// shows P8
#[test]
fn a_login_is_not_overwritten_by_what_an_older_one_has_begun() {
    let world = World {
        users: true,
        enough: 2,
        horizon: 3,
        faults: 0,
        ..world(REAL)
    };
    let happens = [Event::LoggedIn, Event::LoggedOut, Event::Superseded];
    holds("two processes, a login and a logout", world, &happens);
}

/// A process that is stopped between its last look at the clock and its send for as long as it pleases:
/// both present the refresh token. What is stored keeps its order all the same.
#[test]
fn no_lock_can_exclude_a_process_that_is_stopped_for_too_long() {
    let world = || World {
        bounded: false,
        faults: 0,
        ..world(REAL)
    };
    breaks("without the bound", world(), AVOIDABLE);
    let checker = world().checker().finish_when(HasDiscoveries::All);
    let broken = checker.spawn_bfs().join().discoveries();
    let promises = || broken.keys().copied();
    assert!(promises().any(|it| it == AVOIDABLE));
    assert!(promises().all(|it| it == AVOIDABLE || it == TWO_OWNERS));
}

#[test]
fn a_pair_read_before_the_lock_is_presented_twice() {
    breaks(
        "(a) read before the lock",
        world(READ_BEFORE_THE_LOCK),
        AVOIDABLE,
    );
}

#[test]
fn a_lock_with_a_fixed_lifetime_lets_two_present_one_pair() {
    breaks("(b) fixed lifetime", world(FIXED_LIFETIME), AVOIDABLE);
}

#[test]
fn a_lock_that_is_only_renewed_lets_two_present_one_pair() {
    breaks("(c) renewal only", world(RENEWAL_ONLY), AVOIDABLE);
}

#[test]
fn without_a_quarantine_the_bytes_of_before_arrive_after_the_next() {
    breaks("(d) no quarantine", world(NO_QUARANTINE), AVOIDABLE);
}

#[test]
fn without_a_fence_a_pair_is_overwritten_by_an_older_one() {
    breaks("(e) no fence", world(NO_FENCE), PAIR_LOST);
}
