//! A client for any server: it sends requests and keeps itself logged in, with its tokens in a file.
//!
//! `cargo run --release --example fetch -- --tokens session.json \
//!     --reissue https://login.example.com/oauth2/token --style oauth2 https://api.example.com/me`
//!
//! A single request works as with other clients: the body goes to standard output. Several of them,
//! in parallel and in rounds, are counted. See `--help`.

#[path = "../cli/mod.rs"]
mod cli;
mod client;
mod options;
mod rounds;
mod tally;
mod words;

use std::process::ExitCode;

use cli::{Job, tokens::Tokens, words::say};
use client::Client;
use options::Options;
use rounds::Rounds;
use serde::Serialize;
use tally::Tally;
use tower_token_refresh::Session;

fn main() -> ExitCode {
    let options = Options::read();
    let fetch = |tokens: &Tokens| Fetch::new(&options, tokens);
    cli::run(&options.common, fetch, |error| options::refuse(error))
}

struct Fetch<'a> {
    options: &'a Options,
    session: Session,
    rounds: Rounds<'a>,
    tally: Tally,
}

impl<'a> Fetch<'a> {
    fn new(options: &'a Options, tokens: &Tokens) -> Self {
        let client = Client::new(options, tokens).unwrap_or_else(|error| options::refuse(error));
        Self {
            options,
            session: client.session.clone(),
            rounds: Rounds::new(options, client),
            tally: Tally::default(),
        }
    }
}

impl Job for Fetch<'_> {
    fn session(&self) -> &Session {
        &self.session
    }

    async fn work(&mut self) {
        self.rounds.run(&mut self.tally).await;
    }

    fn finish(&mut self) {
        self.rounds.finish(&mut self.tally);
    }

    fn tell(&self, interrupted: bool) {
        if !self.options.shows_body() {
            words::summarise(
                self.options,
                &self.tally,
                &self.session.stats(),
                interrupted,
            );
        } else if self.tally.dropped() > 0 {
            say("interrupted before the whole answer was there");
        }
        self.tally.reasons.say();
    }

    fn outcome(&self, is_over: bool) -> impl Serialize {
        self.tally.outcome(&self.session.stats(), is_over)
    }

    fn is_good(&self) -> bool {
        self.tally.is_good(self.options.requests())
    }
}
