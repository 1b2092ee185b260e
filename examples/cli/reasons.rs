//! Why requests failed.

use std::collections::BTreeSet;

use super::words;

/// So many different ones are told at the most.
const MOST: usize = 5;

#[derive(Default)]
pub struct Reasons(BTreeSet<String>);

impl Reasons {
    pub fn add(&mut self, reason: String) {
        if self.0.len() < MOST {
            self.0.insert(reason);
        }
    }

    pub fn add_all(&mut self, others: &Self) {
        others.0.iter().for_each(|reason| self.add(reason.clone()));
    }

    pub fn say(&self) {
        self.0.iter().for_each(|reason| words::say(reason));
    }
}
