//! The main job: a thousand requests meet an expired token at once, over real connections.
//!
//! `cargo run --release --example storm`
//!
//! It starts the reference back end on loopback, logs in, has the server expire the token, sends all
//! requests in parallel through one client with the layer, and checks what the crate promises against
//! what the *server* counted. Other scenarios break something in the middle; see `--help`.

mod afterwards;
mod client;
mod connections;
mod options;
mod picture;
mod promises;
mod record;
mod storm;
mod table;
mod trace;
mod words;

#[path = "../cli/signals.rs"]
mod asked;
#[path = "../backend/server/mod.rs"]
mod backend;
#[path = "../terminal/mod.rs"]
mod terminal;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use asked::Signals;
use options::Options;
use picture::Picture;
use record::{Record, Tally};
use storm::Storm;

/// What it came to.
struct Ran {
    record: Record,
    picture: Picture,
    connections: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::read();
    let mut signals = Signals::watch();
    let ran = tokio::select! {
        ran = run(&options) => ran?,
        status = signals.next() => return Ok(ExitCode::from(status)),
    };
    let drawn = draw(&options, &ran.picture)?;
    for promise in &ran.record.promises {
        if let Some((round, seen)) = &promise.broken {
            eprintln!("broken in round {round}: {}; {seen}", promise.what);
        }
    }
    report(&options, &ran, drawn.as_deref())?;
    Ok(match ran.record.is_kept() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// All rounds, and the picture of the last.
async fn run(options: &Options) -> anyhow::Result<Ran> {
    let storm = Storm::prepare(options).await?;
    let mut record = Record::default();
    let mut picture = Picture::default();
    for number in 1..=options.rounds {
        let mut round = storm.round(number).await?;
        let tally = Tally::of(&mut round);
        let promises = promises::judge(options.scenario, &tally);
        if number == options.rounds {
            picture = Picture::of(options, &round, &tally);
        }
        record.add(number, tally, promises);
    }
    let connections = storm.connections().to_owned();
    storm.finish().await;
    Ok(Ran {
        record,
        picture,
        connections,
    })
}

/// Where `--plot` says. If it says nothing, in a new file: one with a name that is always the same could be
/// somebody else's. With `--json` alone, nowhere.
fn draw(options: &Options, picture: &Picture) -> anyhow::Result<Option<PathBuf>> {
    let path = match &options.plot {
        Some(path) => path.clone(),
        None if options.json => return Ok(None),
        None => {
            let mut file = tempfile::Builder::new();
            let file = file.prefix("storm-").suffix(".svg").tempfile();
            let file = file.context("can't make a file for the picture")?;
            file.into_temp_path().keep()?
        }
    };
    let written = fs::write(&path, picture.to_string());
    written.with_context(|| format!("can't write {}", path.display()))?;
    Ok(Some(path))
}

/// The last line on standard output is the JSON, if it is asked for.
fn report(options: &Options, ran: &Ran, drawn: Option<&Path>) -> anyhow::Result<()> {
    let drawn = drawn.map(|path| format!("the requests' lives: {}", path.display()));
    if options.json {
        drawn.iter().for_each(|drawn| eprintln!("{drawn}"));
        println!("{}", serde_json::to_string(&ran.record.outcome(options))?);
    } else {
        println!("{}", table::show(options, &ran.connections, &ran.record));
        drawn.iter().for_each(|drawn| println!("  {drawn}\n"));
    }
    Ok(())
}
