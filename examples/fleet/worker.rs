//! One of the processes: it goes on when it is told to, and says when it has.

use std::{
    io::{Write, stdout},
    process::{ExitCode, exit},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin},
    sync::{Semaphore, mpsc},
    time::sleep,
};

use crate::{
    lease::Lease,
    messages::{Moment, Order, Report, Setup},
    options::Protocol,
    signals::die_with_parent,
    ttl_lock::TtlLock,
};

/// Between two requests of one that was refused.
const PAUSE: Duration = Duration::from_millis(20);

/// What a request came to.
pub enum Answer {
    Good,
    /// There is no valid token now.
    Refused,
    /// Nor will there be one before a login.
    Ended,
}

/// Tells the fleet what is reached, and waits where that is wanted.
#[derive(Clone)]
pub struct Line(Arc<Shared>);

struct Shared {
    halts: AtomicBool,
    go: Semaphore,
}

impl Line {
    fn new() -> Self {
        Self(Arc::new(Shared {
            halts: AtomicBool::new(false),
            go: Semaphore::new(0),
        }))
    }

    /// This may be the last thing that it does.
    pub async fn reach(&self, moment: Moment) {
        if self.0.halts.load(Ordering::SeqCst) {
            self.tell(&Report::At(moment));
            // It is never closed.
            let _ = self.0.go.acquire().await.map(|go| go.forget());
        }
    }

    fn tell(&self, report: &Report) {
        let text = serde_json::to_string(report).unwrap_or_default();
        let mut out = stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            // Nobody listens any more.
            exit(1);
        }
    }
}

pub async fn run() -> anyhow::Result<ExitCode> {
    die_with_parent();
    let mut input = BufReader::new(stdin()).lines();
    let setup = input.next_line().await?.context("nothing was said")?;
    let setup: Setup = serde_json::from_str(&setup)?;
    let line = Line::new();
    let (begin, mut begun) = mpsc::unbounded_channel();
    tokio::spawn(obey(input, line.clone(), begin));
    let mut client = match setup.protocol {
        Protocol::Lease => Client::Lease(Box::new(Lease::new(&setup, line.clone())?)),
        Protocol::TtlLock => Client::TtlLock(Box::new(TtlLock::new(&setup, line.clone())?)),
    };
    line.tell(&Report::Ready);
    while begun.recv().await.is_some() {
        go_on(&mut client, &line).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the process when the fleet is gone.
async fn obey(mut input: Lines<BufReader<Stdin>>, line: Line, begin: mpsc::UnboundedSender<()>) {
    while let Ok(Some(order)) = input.next_line().await {
        match serde_json::from_str(&order) {
            Ok(Order::Begin { halts }) => {
                line.0.halts.store(halts, Ordering::SeqCst);
                let _ = begin.send(());
            }
            Ok(Order::Go) => line.0.go.add_permits(1),
            Err(_) => break,
        }
    }
    exit(0);
}

/// Asks until the server accepts it.
async fn go_on(client: &mut Client, line: &Line) {
    let mut last = None;
    loop {
        let failed = match client.ask().await {
            Ok(Answer::Good) => break,
            Ok(Answer::Refused) => None,
            Ok(Answer::Ended) => {
                line.tell(&Report::Ended);
                None
            }
            Err(error) => Some(format!("{error:#}")),
        };
        if failed.is_some() && failed != last {
            last.clone_from(&failed);
            let why = failed.unwrap_or_default();
            line.tell(&Report::Failed { why });
        }
        sleep(PAUSE).await;
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let at = since.map_or(0, |since| since.as_micros() as u64);
    line.tell(&Report::Recovered { at });
}

enum Client {
    Lease(Box<Lease>),
    TtlLock(Box<TtlLock>),
}

impl Client {
    async fn ask(&mut self) -> anyhow::Result<Answer> {
        match self {
            Self::Lease(client) => client.ask().await,
            Self::TtlLock(client) => client.ask().await,
        }
    }
}
