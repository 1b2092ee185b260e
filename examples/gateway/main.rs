//! A gateway that holds each user's own session behind one client and one layer.
//!
//! `cargo run --release --example gateway`
//!
//! It starts the reference back end and the gateway before it, both on loopback. Users log in at the
//! gateway and keep asking who they are, while all access tokens expire at random moments. What can be
//! copied is in `proxy/`; the rest tries it out. See `--help`.

mod crowd;
mod options;
mod promises;
mod proxy;

#[path = "../backend/server/mod.rs"]
mod backend;
#[path = "../backend/input.rs"]
mod input;
#[path = "../cli/signals.rs"]
mod signals;
#[path = "../terminal/mod.rs"]
mod terminal;
#[path = "../storm/words.rs"]
mod words;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Error};
use axum::Router;
use backend::{Backend, Config};
use clap::Parser;
use crowd::{Outcome, Plan};
use options::Options;
use promises::Promise;
use proxy::Sessions;
use serde_json::json;
use signals::Signals;
use terminal::Progress;
use tokio::net::TcpListener;
use words::{thousands, time};

/// How many users can be logged in at once.
const MOST_SESSIONS: usize = 10_000;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let backend = Backend::start(Config {
        rotate: true,
        ..Config::default()
    })
    .await?;
    let router = proxy::router(&backend.base(), Sessions::new(MOST_SESSIONS));
    let router = router.map_err(Error::from_boxed)?;
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await;
    let listener = listener.with_context(|| format!("can't listen on port {}", options.port))?;
    let base = format!("http://{}", listener.local_addr()?);
    if options.serve {
        println!("{}", json!({ "base": base, "user": backend.user() }));
        eprintln!("serving; POST {base}/login first");
        return serve(listener, router).await;
    }
    tokio::spawn(axum::serve(listener, router).into_future());
    // They do not expire by themselves, but when it is time.
    backend.set_access_ttl(Duration::from_secs(3600));
    let plan = plan(&options);
    let mut signals = Signals::watch();
    let outcome = tokio::select! {
        outcome = try_out(plan, &base, backend) => outcome?,
        status = signals.next() => return Ok(ExitCode::from(status)),
    };
    let promises = promises::judge(plan, &outcome);
    let broken = promises
        .iter()
        .filter_map(|(what, seen)| Some((what, seen.as_ref()?)));
    for (what, seen) in broken.clone() {
        eprintln!("broken: {what}; {seen}");
    }
    if options.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        print(plan, &outcome, promises.clone());
    }
    Ok(match broken.count() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

async fn try_out(plan: Plan, base: &str, backend: Backend) -> anyhow::Result<Outcome> {
    // Logins take their time, too.
    let steps = plan.users + plan.users * plan.requests;
    let progress = Arc::new(Progress::new(steps as u64, "logins and answers"));
    crowd::run(plan, base, &Arc::new(backend), move || progress.step()).await
}

/// Until nobody wants it any more; answers under way are finished.
async fn serve(listener: TcpListener, router: Router) -> anyhow::Result<ExitCode> {
    let end = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = input::closed() => {}
        }
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(end)
        .await?;
    Ok(ExitCode::SUCCESS)
}

fn plan(options: &Options) -> Plan {
    Plan {
        users: options.users as usize,
        requests: options.requests as usize,
        parallel: options.parallel as usize,
        expiries: options.expiries as usize,
    }
}

fn print(plan: Plan, outcome: &Outcome, promises: Vec<Promise>) {
    let Outcome {
        users, requests, ..
    } = *outcome;
    let expiries = plan.expiries;
    let wall = time(Duration::from_millis(outcome.wall_ms));
    println!("\n  {users} users of one gateway, and all tokens expire {expiries} times\n");
    for (what, number, of) in [
        (
            "their own answer",
            outcome.ok,
            format!("of {}", thousands(requests)),
        ),
        (
            "somebody else's",
            outcome.foreign,
            "expected: none".to_owned(),
        ),
        ("failed", outcome.failed, "expected: none".to_owned()),
        (
            "reissues",
            outcome.reissues,
            format!("{} at the most", thousands(promises::most_reissues(plan))),
        ),
    ] {
        println!("  {what:<18} {:>8}  {of}", thousands(number));
    }
    println!("  {:<18} {wall:>8}\n", "time");
    let promises = promises.iter().map(|(what, seen)| (*what, seen.clone()));
    println!("{}\n", terminal::promises("promises", promises));
}
