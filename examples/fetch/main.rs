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
mod output;
mod rounds;
mod signals;
mod tally;
mod tokens;
mod under_way;
mod words;

use std::process::ExitCode;

use client::Client;
use ending::Ending;
use options::Options;
use rounds::Rounds;
use signals::Signals;
use tally::Tally;
use tokens::Tokens;
use tokio::runtime::Runtime;
use under_way::UnderWay;

fn main() -> ExitCode {
    let options = Options::read();
    let runtime = Runtime::new().unwrap_or_else(|error| options::refuse(error));
    let status = runtime.block_on(run(&options));
    // Nothing is waited for any more: whoever reads the output may have stopped for good.
    runtime.shutdown_background();
    output::end_line();
    status
}

async fn run(options: &Options) -> ExitCode {
    let mut signals = Signals::watch();
    let under_way = UnderWay::watch(options.verbose);
    let tokens = Tokens::new(options);
    let client = Client::new(options, &tokens).unwrap_or_else(|error| options::refuse(error));
    let checked = tokio::select! {
        checked = tokens.check() => checked,
        status = signals.next() => return ExitCode::from(status),
    };
    match checked {
        Ok(()) => fetch(options, &client, &tokens, &under_way, &mut signals).await,
        Err(unusable) => {
            words::say(&unusable.to_string());
            report_json(options, &client, &Tally::default(), unusable.is_over());
            ExitCode::FAILURE
        }
    }
}

async fn fetch(
    options: &Options,
    client: &Client,
    tokens: &Tokens,
    under_way: &UnderWay,
    signals: &mut Signals,
) -> ExitCode {
    let mut tally = Tally::default();
    let rounds = Rounds::new(options, client);
    // The requests are dropped then, and the refresh they may wait for goes on.
    let mut signalled = tokio::select! {
        () = rounds.run(&mut tally) => None,
        status = signals.next() => Some(status),
    };
    let interrupted = signalled.is_some();
    rounds.finish(&mut tally);
    let ending = Ending::wait_or_quit(client, tokens, under_way, signals, &mut signalled).await;
    let reported = match ending {
        Some(ending) => report(options, client, &tally, &ending, interrupted),
        None => false,
    };
    match signalled {
        Some(status) => ExitCode::from(status),
        None if reported && tally.is_good(options.requests()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// `false` when somebody wants to read it who can't.
fn report(
    options: &Options,
    client: &Client,
    tally: &Tally,
    ending: &Ending,
    interrupted: bool,
) -> bool {
    if !options.shows_body() {
        words::summarise(options, tally, &client.session.stats(), interrupted);
    } else if tally.dropped() > 0 {
        words::say("interrupted before the whole answer was there");
    }
    words::say_failures(tally);
    ending.remarks.iter().for_each(|remark| words::say(remark));
    report_json(options, client, tally, ending.is_over)
}

/// The last line on standard output is the JSON, if it is asked for.
fn report_json(options: &Options, client: &Client, tally: &Tally, is_over: bool) -> bool {
    if !options.json {
        return true;
    }
    let printed = output::print(&tally.outcome(&client.session.stats(), is_over));
    if let Err(error) = &printed {
        words::say(&words::unwritten(error));
    }
    printed.is_ok()
}
