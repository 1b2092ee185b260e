//! The rounds: so many requests to each URL at once, again and again.

use std::collections::HashMap;

use ::http::Uri;
use indicatif::ProgressBar;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::{
    cli::progress_bar,
    client::{Client, End},
    options::Options,
    tally::Tally,
};

pub struct Rounds<'a> {
    options: &'a Options,
    client: Client,
    bar: ProgressBar,
    begun: Instant,
}

/// The requests of a round.
struct Calls<'a> {
    tasks: JoinSet<End>,
    /// Where those go that have not settled.
    places: HashMap<Id, &'a Uri>,
}

impl<'a> Rounds<'a> {
    pub fn new(options: &'a Options, client: Client) -> Self {
        Self {
            options,
            client,
            bar: progress_bar(
                options.requests(),
                "requests",
                options.every.saturating_mul(options.repeat),
            ),
            begun: Instant::now(),
        }
    }

    pub async fn run(&self, tally: &mut Tally) {
        for number in 1..=self.options.repeat {
            let round_begun = Instant::now();
            self.round(tally).await;
            if number < self.options.repeat {
                let rest = self.options.every.saturating_sub(round_begun.elapsed());
                sleep(rest).await;
            }
        }
    }

    /// To be called when they have ended, by themselves or not.
    pub fn finish(&self, tally: &mut Tally) {
        tally.wall = self.begun.elapsed();
        self.bar.finish_and_clear();
    }

    async fn round(&self, tally: &mut Tally) {
        let mut calls = self.send(tally);
        // Whatever has no answer by then is hung, and dropped.
        let in_time = timeout(self.options.deadline, self.settle(&mut calls, tally)).await;
        if in_time.is_err() {
            while let Some(done) = calls.tasks.try_join_next_with_id() {
                self.count(done, &mut calls.places, tally);
            }
            let hung = calls.places.values();
            hung.for_each(|uri| tally.hang(self.place(uri)));
            calls.tasks.shutdown().await;
        }
    }

    fn send(&self, tally: &mut Tally) -> Calls<'a> {
        let mut tasks = JoinSet::new();
        let mut places = HashMap::new();
        let shows_body = self.options.shows_body();
        for uri in &self.options.urls {
            for _ in 0..self.options.parallel {
                let task = tasks.spawn(self.client.clone().send(uri.clone(), shows_body));
                places.insert(task.id(), uri);
                tally.sent += 1;
            }
        }
        Calls { tasks, places }
    }

    async fn settle(&self, calls: &mut Calls<'a>, tally: &mut Tally) {
        while let Some(done) = calls.tasks.join_next_with_id().await {
            self.count(done, &mut calls.places, tally);
        }
    }

    fn count(
        &self,
        done: Result<(Id, End), JoinError>,
        places: &mut HashMap<Id, &Uri>,
        tally: &mut Tally,
    ) {
        let mut place = |id| places.remove(&id).and_then(|uri| self.place(uri));
        match done {
            Ok((id, end)) => tally.count(end, place(id)),
            // A call that panics has not settled.
            Err(error) => tally.hang(place(error.id())),
        }
        self.bar.inc(1);
    }

    /// Told where it is not clear.
    fn place<'u>(&self, uri: &'u Uri) -> Option<&'u Uri> {
        (self.options.urls.len() > 1).then_some(uri)
    }
}
