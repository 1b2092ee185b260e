//! Many processes that share one login, some of which are killed or stopped at the worst moments.
//!
//! `cargo run --release --example fleet -- --kill --pause --lose-replies 10`
//!
//! It starts the reference back end, with refresh tokens that work once and whose second use ends the
//! login, and as many processes as are asked for, each with a session of its own on one store of tokens: a
//! file, or a database (`--store spawn-redis` starts one).
//! Round by round the access token expires, and all of them want to go on. A proxy before the issuer
//! writes down who presents which refresh token. See `--help`.

mod faults;
mod fingerprint;
mod http;
mod lease;
mod lock;
mod members;
mod messages;
mod options;
mod oracle;
mod outcome;
mod place;
mod proxy;
mod rounds;
mod signals;
mod spawned;
mod speed;
mod stored;
mod table;
mod ttl_lock;
mod view;
mod worker;

#[path = "../cli/signals.rs"]
mod asked;
#[path = "../backend/server/mod.rs"]
mod backend;
#[cfg(unix)]
#[path = "../servers/mod.rs"]
mod servers;
#[path = "../stores/mod.rs"]
mod stores;
#[path = "../terminal/mod.rs"]
mod terminal;
#[path = "../storm/words.rs"]
mod words;

use std::{env, process::ExitCode};

use asked::Signals;
use options::Options;
use outcome::Outcome;
use rounds::Fleet;

/// How the program starts itself again, as one of the processes.
const WORKER: &str = "worker";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    if env::args_os().nth(1).is_some_and(|first| first == WORKER) {
        return worker::run().await;
    }
    let options = Options::read();
    let mut signals = Signals::watch();
    tokio::select! {
        outcome = run(&options) => report(&options, &outcome?),
        // What was started ends with this process.
        status = signals.next() => Ok(ExitCode::from(status)),
    }
}

async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut fleet = Fleet::start(options).await?;
    let (processes, seed) = (options.processes, options.seed());
    eprintln!("{processes} processes are ready, seed {seed}");
    for number in 1..=options.rounds {
        fleet.round(number).await?;
    }
    fleet.finish().await
}

/// The last line on standard output is the JSON, if it is asked for.
fn report(options: &Options, outcome: &Outcome) -> anyhow::Result<ExitCode> {
    let promises = outcome.promises(options);
    let broken = promises
        .iter()
        .filter_map(|it| Some((it.what, it.broken.as_ref()?)));
    for (what, seen) in broken.clone() {
        eprintln!("broken: {what}; {seen}");
    }
    if options.json {
        eprintln!("{}", outcome.speed);
        println!("{}", serde_json::to_string(&outcome.line(options))?);
    } else {
        println!("{}", table::show(options, outcome, &promises));
    }
    Ok(match broken.count() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
