//! A tonic client for any Greeter (`greeter.proto`): it makes calls and keeps itself logged in, with its
//! tokens in a file.
//!
//! `cargo run --release --example grpc -- --tokens session.json --url http://localhost:50051 \
//!     --reissue https://login.example.com/oauth2/token --style oauth2 --call server-stream --count 3`
//!
//! How the layer is put on a `Channel` is in `client.rs`. The replies of a single call go to standard
//! output; several, in parallel, are counted. See `--help`.

mod calls;
#[path = "../cli/mod.rs"]
mod cli;
mod client;
mod codes;
#[path = "../greeter/mod.rs"]
mod greeter;
mod metadata;
mod options;
mod tally;
mod words;

use std::{process::ExitCode, sync::Arc};

use calls::Calls;
use cli::{Job, tokens::Tokens, words::say};
use client::Client;
use options::Options;
use serde::Serialize;
use tally::Tally;
use tower_token_refresh::Session;

fn main() -> ExitCode {
    let options = Arc::new(Options::read());
    let greet = |tokens: &Tokens| Greet::new(&options, tokens);
    cli::run(&options.common, greet, |error| options::refuse(error))
}

struct Greet {
    options: Arc<Options>,
    session: Session,
    calls: Calls,
    tally: Tally,
}

impl Greet {
    fn new(options: &Arc<Options>, tokens: &Tokens) -> Self {
        let client = Client::new(options, tokens).unwrap_or_else(|error| options::refuse(error));
        Self {
            options: options.clone(),
            session: client.session.clone(),
            calls: Calls::new(options, client),
            tally: Tally::default(),
        }
    }
}

impl Job for Greet {
    fn session(&self) -> &Session {
        &self.session
    }

    async fn work(&mut self) {
        self.calls.run(&mut self.tally).await;
    }

    fn finish(&mut self) {
        self.calls.finish(&mut self.tally);
    }

    fn tell(&self, interrupted: bool) {
        if !self.options.shows_replies() {
            words::summarise(
                &self.options,
                &self.tally,
                &self.session.stats(),
                interrupted,
            );
        } else if self.tally.dropped() > 0 {
            say("interrupted before the call had ended");
        }
        self.tally.reasons.say();
    }

    fn outcome(&self, is_over: bool) -> impl Serialize {
        self.tally.outcome(&self.session.stats(), is_over)
    }

    fn is_good(&self) -> bool {
        self.tally.ok == u64::from(self.options.parallel)
    }
}
