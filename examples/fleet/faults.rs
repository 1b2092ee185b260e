//! What goes wrong in a round, and when.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    messages::Moment,
    options::Options,
    proxy::Book,
    signals::{Living, Signal},
    view::View,
    words,
};

/// Shorter than a reissue may take, or longer than it, or longer than a lock with a lifetime lasts.
const PAUSES: std::ops::Range<u64> = 200..3500;
/// From the beginning of a round until about its end.
const ROUND: std::ops::Range<u64> = 0..400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    Kill,
    Pause(Duration),
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("killed"),
            Self::Pause(time) => write!(f, "stopped for {}", words::time(*time)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever gets there first.
    At(Moment, Blow),
    /// This one, wherever it stands.
    After(Duration, usize, Blow),
}

/// Chooses them.
pub struct Plan {
    rng: Rng,
    kills: bool,
    pauses: bool,
    members: usize,
}

impl Plan {
    pub fn new(options: &Options) -> Self {
        Self {
            rng: Rng::with_seed(options.seed()),
            kills: options.kill,
            pauses: options.pause,
            members: options.processes as usize,
        }
    }

    /// For the next round. Now and then there is none.
    pub fn next(&mut self) -> Option<Fault> {
        let kills = match (self.kills, self.pauses) {
            (false, false) => return None,
            (true, true) => self.rng.bool(),
            (kills, _) => kills,
        };
        let blow = match kills {
            true => Blow::Kill,
            false => Blow::Pause(Duration::from_millis(self.rng.u64(PAUSES))),
        };
        let after = Duration::from_millis(self.rng.u64(ROUND));
        match self.rng.usize(..6) {
            0 => None,
            1 => Some(Fault::After(after, self.rng.usize(..self.members), blow)),
            n => Some(Fault::At(Moment::ALL[n - 2], blow)),
        }
    }
}

/// Waits for the moment, and hits whoever is there.
pub struct Trap {
    armed: Mutex<Armed>,
    living: Arc<Living>,
    book: Arc<Book>,
    view: View,
}

#[derive(Default)]
struct Armed {
    fault: Option<(Moment, Blow)>,
    /// Whom it has hit.
    hits: Vec<String>,
    /// Those that are stopped go on when these are done.
    pauses: Vec<JoinHandle<()>>,
}

impl Trap {
    pub fn new(living: Arc<Living>, book: Arc<Book>, view: View) -> Arc<Self> {
        Arc::new(Self {
            armed: Mutex::default(),
            living,
            book,
            view,
        })
    }

    /// Takes the place of what was armed before.
    pub fn arm(&self, moment: Option<(Moment, Blow)>) {
        self.lock().fault = moment;
    }

    /// A process has got there.
    pub fn pass(self: &Arc<Self>, moment: Moment, process: u64) {
        let blow = {
            let fault = &mut self.lock().fault;
            let is_it = |(armed, _): &mut (Moment, Blow)| *armed == moment;
            fault.take_if(is_it).map(|(_, blow)| blow)
        };
        if let Some(blow) = blow {
            self.strike(process, blow, &format!(", {moment}"));
        }
    }

    /// `when` is for people.
    pub fn strike(self: &Arc<Self>, process: u64, blow: Blow, when: &str) {
        let hit = format!("process {process} was {blow}{when}");
        self.lock().hits.push(hit);
        match blow {
            Blow::Kill => {
                self.book.oracle().killed(process);
                self.signal(process, Signal::Kill);
                self.view.say(process, "killed");
            }
            Blow::Pause(time) => {
                self.signal(process, Signal::Stop);
                self.view.say(process, "stopped");
                let trap = self.clone();
                let pause = tokio::spawn(async move {
                    sleep(time).await;
                    trap.view.say(process, "goes on");
                    trap.signal(process, Signal::Resume);
                });
                self.lock().pauses.push(pause);
            }
        }
    }

    /// Returns who was hit since the last time, when all of them go on.
    pub async fn rest(&self) -> Vec<String> {
        self.arm(None);
        let pauses = mem::take(&mut self.lock().pauses);
        for pause in pauses {
            let _ = pause.await;
        }
        mem::take(&mut self.lock().hits)
    }

    fn signal(&self, process: u64, signal: Signal) {
        // One that has ended meanwhile needs none.
        let _ = self.living.signal(process, signal);
    }

    fn lock(&self) -> MutexGuard<'_, Armed> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
