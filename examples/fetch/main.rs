//! A client for any server: it sends requests and keeps itself logged in, with its tokens in a file.
//!
//! `cargo run --release --example fetch -- --tokens session.json \
//!     --reissue https://login.example.com/oauth2/token --style oauth2 https://api.example.com/me`
//!
//! A single request works as with other clients: the body goes to standard output. Several of them,
//! in parallel and in rounds, are counted. See `--help`.

mod client;
mod ending;
mod http;
mod issuer;
mod options;
mod rounds;
mod tally;
mod tokens;
mod under_way;
mod words;

use std::process::ExitCode;

use client::Client;
use ending::Ending;
use options::Options;
use rounds::Rounds;
use tally::Tally;
use tokens::Tokens;
use under_way::UnderWay;

/// As shells report a program that was ended by SIGINT.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::read();
    let under_way = UnderWay::watch(options.verbose);
    let tokens = Tokens::new(&options);
    let client = Client::new(&options, &tokens).unwrap_or_else(|error| options::refuse(error));
    match tokens.check().await {
        Ok(()) => fetch(&options, &client, &tokens, &under_way).await,
        Err(unusable) => {
            words::say(&unusable.to_string());
            if options.json && unusable.is_over() {
                words::print(&Tally::default().outcome(&client.session.stats(), true));
            }
            ExitCode::FAILURE
        }
    }
}

async fn fetch(
    options: &Options,
    client: &Client,
    tokens: &Tokens,
    under_way: &UnderWay,
) -> ExitCode {
    let mut tally = Tally::default();
    let rounds = Rounds::new(options, client);
    // The requests are dropped then, and the refresh they may wait for goes on.
    let interrupted = tokio::select! {
        () = rounds.run(&mut tally) => false,
        Ok(()) = tokio::signal::ctrl_c() => true,
    };
    rounds.finish();
    // Whoever interrupts it twice means it.
    let ending = tokio::select! {
        ending = Ending::wait(client, tokens, under_way) => ending,
        Ok(()) = tokio::signal::ctrl_c() => return ExitCode::from(INTERRUPTED),
    };
    report(options, client, &tally, &ending);
    match interrupted {
        true => ExitCode::from(INTERRUPTED),
        false if tally.is_good(options.requests()) => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The last line on standard output is the JSON, if it is asked for.
fn report(options: &Options, client: &Client, tally: &Tally, ending: &Ending) {
    let stats = client.session.stats();
    if options.shows_body() {
        words::say_failures(tally);
    } else {
        words::summarise(options, tally, &stats);
    }
    ending.remarks.iter().for_each(|remark| words::say(remark));
    if options.json {
        words::print(&tally.outcome(&stats, ending.is_over));
    }
}
