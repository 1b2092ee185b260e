//! Proves by force that processes which share a store that can lose records, whatever happens to them and in
//! whichever order, spend no refresh token twice, mix up no users and find together again (P1, P4, P6, P8).

#[path = "support/schedule.rs"]
mod schedule;
#[path = "support/shared.rs"]
mod shared;
mod support;

use schedule::Faults;

fn run(faults: Faults, default: std::ops::Range<u64>) {
    let seeds = match std::env::var("SEEDS") {
        Ok(text) => {
            let (from, to) = text.split_once("..").unwrap();
            from.parse().unwrap()..to.parse().unwrap()
        }
        Err(_) => default,
    };
    schedule::run(faults, seeds);
}

// shows P1, P4, P6, P8
#[test]
fn processes_that_die_and_are_cut_off_spend_no_token_twice() {
    run(Faults::default(), 0..40);
}

// shows P1, P4, P6, P8: what a failover has lost is written back.
#[test]
fn processes_whose_store_falls_back_spend_no_token_twice() {
    let faults = Faults {
        rollbacks: true,
        lines: false,
        deaths: false,
        ..Faults::default()
    };
    run(faults, 0..40);
}

// shows P1, P4, P6, P8
#[test]
fn everything_at_once_leaves_a_session_that_works() {
    let faults = Faults {
        rollbacks: true,
        ..Faults::default()
    };
    run(faults, 0..40);
}

// shows P1, P4, P6, P8
#[test]
fn a_store_that_loses_nothing() {
    let faults = Faults {
        keeps: true,
        ..Faults::default()
    };
    run(faults, 0..40);
}

// shows P1, P4, P6, P8
#[test]
fn tokens_that_say_how_long_they_live() {
    let faults = Faults {
        lifetimes: true,
        clocks: false,
        ..Faults::default()
    };
    run(faults, 0..40);
}

// shows P1, P4, P6, P8
#[test]
fn tokens_that_say_how_long_they_live_in_a_store_that_falls_back() {
    let faults = Faults {
        lifetimes: true,
        rollbacks: true,
        ..Faults::default()
    };
    run(faults, 0..40);
}
