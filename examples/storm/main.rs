//! The main job: a thousand requests meet an expired token at once, over real connections.
//!
//! `cargo run --release --example storm`
//!
//! It starts the reference back end on loopback, logs in, has the server expire the token, sends all
//! requests in parallel through one client with the layer, and checks what the crate promises against
//! what the *server* counted. Other scenarios break something in the middle; see `--help`.

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

#[path = "../backend/server/mod.rs"]
mod backend;

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context;
use options::Options;
use picture::Picture;
use record::{Record, Tally};
use storm::Storm;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::read();
    let storm = Storm::prepare(&options).await?;
    let (record, picture) = run(&storm, &options).await?;
    let connections = storm.connections().to_owned();
    storm.finish().await;

    if let Some(path) = options.picture() {
        draw(&path, &picture)?;
    }
    for promise in &record.promises {
        if let Some((round, seen)) = &promise.broken {
            eprintln!("broken in round {round}: {}; {seen}", promise.what);
        }
    }
    report(&options, &connections, &record)?;
    Ok(match record.is_kept() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// All rounds, and the picture of the last.
async fn run(storm: &Storm, options: &Options) -> anyhow::Result<(Record, Picture)> {
    let mut record = Record::default();
    let mut picture = Picture::default();
    for number in 1..=options.rounds {
        let round = storm.round(number).await?;
        let tally = Tally::of(&round);
        let promises = promises::judge(options.scenario, &tally);
        if number == options.rounds {
            picture = Picture::of(options, &round, &tally);
        }
        record.add(number, tally, promises);
    }
    Ok((record, picture))
}

fn draw(path: &Path, picture: &Picture) -> anyhow::Result<()> {
    let written = fs::write(path, picture.to_string());
    written.with_context(|| format!("can't write {}", path.display()))
}

/// The last line on standard output is the JSON, if it is asked for.
fn report(options: &Options, connections: &str, record: &Record) -> anyhow::Result<()> {
    let drawn = options.picture();
    let drawn = drawn.map(|path| format!("the requests' lives: {}", path.display()));
    if options.json {
        drawn.iter().for_each(|drawn| eprintln!("{drawn}"));
        println!("{}", serde_json::to_string(&record.outcome(options))?);
    } else {
        println!("{}", table::show(options, connections, record));
        drawn.iter().for_each(|drawn| println!("  {drawn}\n"));
    }
    Ok(())
}
