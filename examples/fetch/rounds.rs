//! The rounds: so many requests to each URL at once, again and again.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    client::{Client, End},
    options::Options,
    tally::Tally,
};

/// Below this there is nothing to watch.
const LONG: u64 = 20;

pub struct Rounds<'a> {
    options: &'a Options,
    client: &'a Client,
    bar: ProgressBar,
}

impl<'a> Rounds<'a> {
    pub fn new(options: &'a Options, client: &'a Client) -> Self {
        Self {
            options,
            client,
            bar: progress_bar(options),
        }
    }

    pub async fn run(&self, tally: &mut Tally) {
        let begun = Instant::now();
        for number in 1..=self.options.repeat {
            let round_begun = Instant::now();
            self.round(tally).await;
            tally.wall = begun.elapsed();
            if number < self.options.repeat {
                let rest = self.options.every.saturating_sub(round_begun.elapsed());
                sleep(rest).await;
            }
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    async fn round(&self, tally: &mut Tally) {
        let mut calls = self.send();
        // Whatever has no answer by then is hung, and dropped.
        let in_time = timeout(self.options.deadline, self.settle(&mut calls, tally)).await;
        if in_time.is_err() {
            while let Some(done) = calls.try_join_next() {
                self.count(done.ok(), tally);
            }
            tally.hung += calls.len() as u64;
            calls.shutdown().await;
        }
    }

    fn send(&self) -> JoinSet<End> {
        let mut calls = JoinSet::new();
        let shows_body = self.options.shows_body();
        for uri in &self.options.urls {
            for _ in 0..self.options.parallel {
                calls.spawn(self.client.clone().send(uri.clone(), shows_body));
            }
        }
        calls
    }

    async fn settle(&self, calls: &mut JoinSet<End>, tally: &mut Tally) {
        while let Some(done) = calls.join_next().await {
            self.count(done.ok(), tally);
        }
    }

    fn count(&self, end: Option<End>, tally: &mut Tally) {
        match end {
            Some(end) => tally.count(end),
            // A call that panics has not settled.
            None => tally.hung += 1,
        }
        self.bar.inc(1);
    }
}

/// On standard error, and hidden where that is not a terminal.
fn progress_bar(options: &Options) -> ProgressBar {
    let requests = options.requests();
    let is_long = requests >= LONG || options.every * options.repeat > Duration::from_secs(2);
    if requests == 1 || !is_long {
        return ProgressBar::hidden();
    }
    let form = "{bar:40.green/dim} {human_pos} of {human_len} requests settled  {elapsed}";
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(requests).with_style(style)
}
