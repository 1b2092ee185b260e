//! Proves that the suite for shared stores can fail: that each fault is found, and said in words.

mod fault;
mod said;
mod shelf;

use std::error::Error;
use std::iter::successors;

use super::*;
use crate::test_util::store::samples::Samples;
use crate::token::TokenSet;
use fault::Fault;
use said::SAID;
use shelf::Shelf;
use shelf::Storage;

async fn check(fault: Fault) -> Result<(), StoreFault> {
    let storage = Storage::new();
    if fault == Fault::BeginsWithALogin {
        let tokens = TokenSet::new("left-behind").unwrap();
        let record = Record {
            tokens: Some(tokens),
            ..at(1, &Record::empty())
        };
        let _ = storage.put(&record);
    }
    check_shared_token_store(async || Shelf::new(&storage, fault)).await
}

// shows P1, P8: what these do to the processes that share a login is found before there are any.
#[tokio::test(start_paused = true)]
async fn each_fault_of_a_shared_store_is_found_and_said_in_words() {
    let mut missed = Vec::new();
    for (fault, step, what) in SAID {
        let said = format!("{:?}", check(fault).await);
        if !said.contains(step) || !said.contains(what) {
            missed.push(format!("{fault:?}: {said}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

// shows that the faults, and not what they are put in, are what is found.
#[tokio::test]
async fn the_shared_store_that_bears_the_faults_passes_without_one() {
    check(Fault::Nothing).await.unwrap();
}

// shows P12
#[tokio::test(start_paused = true)]
async fn no_message_of_a_shared_store_has_a_token_or_a_part_of_one() {
    let samples = Samples::new().unwrap();
    let sets = [samples.old, samples.new, samples.next].into_iter();
    let sets = sets.chain(samples.in_turn.into_iter().map(|sample| sample.tokens));
    let sets: Vec<_> = sets.collect();
    let access = sets.iter().map(|set| set.access_token().expose());
    let refresh = sets
        .iter()
        .filter_map(|set| Some(set.refresh_token()?.expose()));
    let secrets: Vec<_> = access
        .chain(refresh)
        .filter(|secret| secret.len() > 8)
        .collect();
    assert!(secrets.len() > 10, "there is something to look for");
    for (fault, ..) in SAID {
        let said = check(fault).await.unwrap_err();
        let sources = successors(said.source(), |&error| error.source());
        let said = sources.fold(format!("{said} {said:?}"), |said, error| {
            format!("{said} {error} {error:?}")
        });
        for secret in &secrets {
            let (begin, end) = (&secret[..8], &secret[secret.len() - 8..]);
            assert!(!said.contains(begin) && !said.contains(end), "{fault:?}");
        }
    }
}
