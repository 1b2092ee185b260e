//! The processes: how they are started, spoken to, and heard.

use std::{process::Stdio, sync::Arc};

use anyhow::Context;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
};

use crate::{
    WORKER,
    faults::Trap,
    messages::{Order, Report, Setup},
    options::Protocol,
    place::Place,
    signals::Living,
};

/// What a process has said, or that it is gone.
pub struct Heard {
    pub place: usize,
    pub process: u64,
    /// `None`: it has ended.
    pub report: Option<Report>,
}

/// One place in the fleet, and the process that has it now.
pub struct Member {
    pub process: u64,
    orders: mpsc::UnboundedSender<String>,
}

/// What all of them need.
pub struct Nursery {
    pub base: String,
    pub place: Place,
    pub protocol: Protocol,
    pub living: Arc<Living>,
    pub trap: Arc<Trap>,
    pub heard: mpsc::UnboundedSender<Heard>,
    /// The number of the process that was started last.
    pub last: u64,
}

impl Nursery {
    pub fn start(&mut self, place: usize) -> anyhow::Result<Member> {
        self.last += 1;
        let process = self.last;
        let program = std::env::current_exe().context("the program does not know where it is")?;
        let mut child = Command::new(program)
            .arg(WORKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("can't start a process")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).context("no pipes to a process")?;
        self.living.add(process, child.id().unwrap_or_default());
        let (orders, received) = mpsc::unbounded_channel();
        tokio::spawn(dictate(input, received));
        let ear = Ear {
            place,
            process,
            // Not those that keep the process: it ends when nobody gives orders any more.
            orders: orders.downgrade(),
            trap: self.trap.clone(),
            living: self.living.clone(),
            heard: self.heard.clone(),
        };
        tokio::spawn(ear.listen(child, output));
        let member = Member { process, orders };
        member.order(&Setup {
            process,
            base: self.base.clone(),
            place: self.place.clone(),
            protocol: self.protocol,
        });
        Ok(member)
    }
}

impl Member {
    pub fn begin(&self, halts: bool) {
        self.order(&Order::Begin { halts });
    }

    fn order(&self, order: &impl Serialize) {
        // One that is gone hears nothing.
        let _ = self.orders.send(line(order));
    }
}

struct Ear {
    place: usize,
    process: u64,
    orders: mpsc::WeakUnboundedSender<String>,
    trap: Arc<Trap>,
    living: Arc<Living>,
    heard: mpsc::UnboundedSender<Heard>,
}

impl Ear {
    async fn listen(self, mut child: Child, output: ChildStdout) {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(text)) = lines.next_line().await {
            match serde_json::from_str(&text) {
                Ok(Report::At(moment)) => {
                    self.trap.pass(moment, self.process);
                    if let Some(orders) = self.orders.upgrade() {
                        let _ = orders.send(line(&Order::Go));
                    }
                }
                Ok(report) => self.tell(Some(report)),
                Err(_) => break,
            }
        }
        self.living.remove(self.process);
        let _ = child.start_kill();
        let _ = child.wait().await;
        self.tell(None);
    }

    fn tell(&self, report: Option<Report>) {
        let (place, process) = (self.place, self.process);
        // When nobody listens any more, all is over.
        let _ = self.heard.send(Heard {
            place,
            process,
            report,
        });
    }
}

async fn dictate(mut input: ChildStdin, mut orders: mpsc::UnboundedReceiver<String>) {
    while let Some(order) = orders.recv().await {
        if input.write_all(order.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn line(order: &impl Serialize) -> String {
    let mut text = serde_json::to_string(order).unwrap_or_default();
    text.push('\n');
    text
}
