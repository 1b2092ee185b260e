//! The calls, all at once.

use std::{sync::Arc, time::Duration};

use indicatif::ProgressBar;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, timeout},
};

use crate::{
    cli::progress_bar,
    client::{Client, End},
    options::Options,
    tally::Tally,
};

pub struct Calls {
    options: Arc<Options>,
    client: Client,
    bar: ProgressBar,
    begun: Instant,
}

impl Calls {
    pub fn new(options: &Arc<Options>, client: Client) -> Self {
        Self {
            options: options.clone(),
            client,
            bar: progress_bar(options.parallel.into(), "calls", Duration::ZERO),
            begun: Instant::now(),
        }
    }

    pub async fn run(&self, tally: &mut Tally) {
        let mut tasks = JoinSet::new();
        for number in 1..=self.options.parallel {
            tasks.spawn(self.client.clone().call(number));
            tally.sent += 1;
        }
        // Whatever has not ended by then is hung, and dropped.
        let settled = self.settle(&mut tasks, tally);
        if timeout(self.options.deadline, settled).await.is_err() {
            while let Some(done) = tasks.try_join_next() {
                self.count(done, tally);
            }
            (0..tasks.len()).for_each(|_| tally.hang());
            tasks.shutdown().await;
        }
    }

    /// To be called when they have ended, by themselves or not.
    pub fn finish(&self, tally: &mut Tally) {
        tally.wall = self.begun.elapsed();
        tally.messages = self.client.seen.messages();
        tally.reasons.add_all(&self.client.seen.reasons());
        self.bar.finish_and_clear();
    }

    async fn settle(&self, tasks: &mut JoinSet<End>, tally: &mut Tally) {
        while let Some(done) = tasks.join_next().await {
            self.count(done, tally);
        }
    }

    fn count(&self, done: Result<End, JoinError>, tally: &mut Tally) {
        match done {
            Ok(end) => tally.count(end),
            // A call that panics has not settled.
            Err(_) => tally.hang(),
        }
        self.bar.inc(1);
    }
}
