//! What each process does, on a terminal.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};

use crate::{
    options::Options,
    terminal::{style, target},
};

/// A line for each place in the fleet. It is hidden where standard error is no terminal.
#[derive(Clone)]
pub struct View {
    all: MultiProgress,
    rounds: ProgressBar,
    lines: Arc<[ProgressBar]>,
    /// Which process has which place.
    places: Arc<Mutex<HashMap<u64, usize>>>,
}

impl View {
    pub fn new(options: &Options) -> Self {
        let all = MultiProgress::with_draw_target(target());
        let form = "{wide_bar:.green/dim} {pos} of {len} rounds  {msg}";
        let rounds = all.add(ProgressBar::new(options.rounds.into()).with_style(style(form)));
        let line = |number| {
            let line = ProgressBar::no_length().with_style(style("{prefix:>4}  {msg}"));
            all.add(line.with_prefix(format!("{number}")))
        };
        Self {
            lines: (1..=options.processes).map(line).collect(),
            rounds,
            all,
            places: Arc::default(),
        }
    }

    /// This process has this place now.
    pub fn place(&self, process: u64, place: usize) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert(process, place);
    }

    pub fn say(&self, process: u64, what: impl Into<String>) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(&process) {
            self.lines[*place].set_message(what.into());
        }
    }

    pub fn round(&self, counts: String) {
        self.rounds.inc(1);
        self.rounds.set_message(counts);
    }

    /// Above the lines, or on its own.
    pub fn remark(&self, what: &str) {
        self.all.suspend(|| eprintln!("{what}"));
    }

    /// It says no more.
    pub fn close(&self) {
        // A terminal that is gone needs no clearing.
        let _ = self.all.clear();
        self.all.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// The view is closed when this is dropped: a program that is asked to end leaves no lines behind that say
/// nothing any more.
pub struct Curtain(pub View);

impl Drop for Curtain {
    fn drop(&mut self) {
        self.0.close();
    }
}
