//! A model check of the protocol: every order in which three processes, a store, a network and an issuer
//! can go on, with the transitions of `lease` as they are.

mod paper;
mod rules;
mod world;

use std::time::Instant;

use stateright::Checker;
use stateright::HasDiscoveries;
use stateright::Model;

use paper::Tokens;
use rules::FIXED_LIFETIME;
use rules::NO_FENCE;
use rules::NO_QUARANTINE;
use rules::READ_BEFORE_THE_LOCK;
use rules::REAL;
use rules::RENEWAL_ONLY;
use rules::Rules;
use world::AVOIDABLE;
use world::Event;
use world::Events;
use world::PAIR_LOST;
use world::World;

fn world(rules: Rules) -> World {
    World {
        rules,
        processes: 2,
        lock: false,
        bounded: true,
        users: false,
        horizon: 5,
        faults: 1,
        tokens: Tokens::new(),
        events: Events::default(),
    }
}

/// Goes through all states, and finds that no promise is broken and that all this happens.
fn holds(name: &str, world: World, happens: &[Event]) {
    let began = Instant::now();
    let checker = world.checker().threads(2);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let states = checker.unique_state_count();
    let depth = checker.max_depth();
    println!(
        "{name}: {states} states, {depth} steps deep, {:.1?}",
        began.elapsed()
    );
    checker.assert_properties();
    for event in happens {
        assert!(
            checker.model().events.times(*event) > 0,
            "{name}: {event:?}"
        );
    }
}

/// Finds an order in which this promise is broken.
fn breaks(name: &str, world: World, promise: &'static str) {
    let began = Instant::now();
    let checker = world.checker();
    let checker = checker.finish_when(HasDiscoveries::AnyOf([promise].into()));
    let checker = checker.spawn_bfs().join();
    let actions = checker.assert_any_discovery(promise).into_actions();
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states, {:.1?}; {} steps: {actions:?}",
        began.elapsed(),
        actions.len()
    );
}

// shows DESIGN section 7, P1, P13
#[test]
fn no_refresh_token_is_presented_twice_while_its_successor_is_alive() {
    let happens = [
        Event::Adopted,
        Event::CommitJudgedAnew,
        Event::CommittedForTheDead,
        Event::CommittedLate,
        Event::Ended,
        Event::LandedLate,
        Event::PresumedLost,
        Event::QuarantineOver,
        Event::ReadBack,
        Event::Released,
        Event::Renewed,
        Event::SeenTwice,
        Event::Settled,
    ];
    holds("without a lock", world(REAL), &happens);
}

#[test]
fn a_weaker_protocol_presents_one_twice() {
    for (name, rules) in [
        ("(a) read before the lock", READ_BEFORE_THE_LOCK),
        ("(b) fixed lifetime", FIXED_LIFETIME),
        ("(c) renewal only", RENEWAL_ONLY),
        ("(d) no quarantine", NO_QUARANTINE),
    ] {
        breaks(name, world(rules), AVOIDABLE);
    }
    breaks("(e) no fence", world(NO_FENCE), PAIR_LOST);
}
