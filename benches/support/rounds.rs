//! Times in rounds: in each round everything that is compared has its turn, so that a noisy machine
//! hits all of it alike, and what is told is the median of the rounds' ratios.

use std::time::Duration;

/// What each of those compared took, round by round.
#[derive(Debug)]
pub struct Rounds {
    times: Vec<Vec<f64>>,
}

impl Rounds {
    /// Runs `time(i)` for each `i` below `n`, for so many rounds. Each round begins with another one.
    pub fn run(n: usize, rounds: usize, mut time: impl FnMut(usize) -> Duration) -> Self {
        let mut times = vec![Vec::with_capacity(rounds); n];
        for round in 0..rounds {
            for turn in 0..n {
                let who = (round + turn) % n;
                times[who].push(time(who).as_nanos() as f64);
            }
        }
        Self { times }
    }

    /// In nanoseconds.
    pub fn median(&self, who: usize) -> f64 {
        median(self.times[who].clone())
    }

    /// How many times as long as the other one it takes.
    pub fn ratio(&self, who: usize, other: usize) -> f64 {
        let pairs = self.times[who].iter().zip(&self.times[other]);
        median(pairs.map(|(a, b)| a / b).collect())
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
