//! What there is at one moment: a state of the model.

use super::paper::DEAD;
use super::paper::LOGIN;
use super::paper::Lease;
use super::paper::Pair;
use super::paper::Paper;
use super::paper::Tick;
use crate::store::Record;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) now: Tick,
    pub(super) store: Paper,
    /// A swap that was sent, and of which its writer knows nothing: by whom, and in place of which version.
    pub(super) pending: Option<(u8, u8, Paper)>,
    /// Who holds the store's lock: 0 nobody.
    pub(super) lock: u8,
    pub(super) processes: Vec<Process>,
    pub(super) requests: Vec<Request>,
    pub(super) answers: Vec<Answer>,
    /// Of each login, the pair that the issuer takes next: 0 where it takes none any longer.
    pub(super) issuer: [Pair; 3],
    pub(super) faults: u8,
    pub(super) logins: u8,
    pub(super) logouts: u8,
    /// The doubt was left by a process that died.
    pub(super) orphan: bool,
    pub(super) broken: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Process {
    pub(super) step: Step,
    /// What it has read last.
    pub(super) seen: Paper,
    /// When.
    pub(super) read_at: Tick,
    pub(super) lease: Option<Lease>,
    /// What it presents.
    pub(super) pair: Pair,
    /// The newest login that it knows of.
    pub(super) epoch: u8,
}

/// What a process has in hand, and will go on with, now or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Step {
    Idle,
    /// It has read a record that leaves something to do.
    Found,
    /// It has tried to claim, and nobody says with what success.
    Unsure {
        fence: u8,
    },
    Claimed,
    /// It has seen that there is time left, and sends next.
    Checked,
    Waiting,
    /// A new pair, which takes the place of another of this epoch, in time if by then.
    Holds {
        epoch: u8,
        from: Pair,
        new: Pair,
        by: Tick,
    },
    /// The refresh token of this login, by the issuer.
    Refused {
        epoch: u8,
    },
    /// No answer came.
    Lost,
    /// The issuer has not processed it.
    Bounced,
    LoggingIn {
        epoch: u8,
        pair: Pair,
    },
    LoggingOut {
        epoch: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Request {
    pub(super) owner: u8,
    pub(super) fence: u8,
    pub(super) epoch: u8,
    pub(super) pair: Pair,
    /// When it is lost, if it has not arrived.
    pub(super) by: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Answer {
    pub(super) to: Request,
    pub(super) says: Says,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Says {
    Bounced,
    New(Pair),
    Refused,
}

/// A promise that was broken, as a bit of the state.
#[derive(Debug, Clone, Copy)]
pub(super) enum Broken {
    /// A refresh token was presented twice, although a living process had, or could have had, its successor.
    Avoidable = 1,
    /// A version or an epoch did not grow as it should.
    Counted = 2,
    /// A pair was overwritten by another than its successor.
    PairLost = 4,
    /// A claim was taken from an owner that lives and has time left.
    Stolen = 8,
    /// The login was ended while the issuer would have taken its refresh token.
    EndedAlive = 16,
    /// A process has claimed a refresh token although it knew of a newer login.
    OldLogin = 32,
    /// What was read is older than what was known.
    ReadOlder = 64,
}

impl Process {
    pub(super) fn idle(epoch: u8) -> Self {
        Self {
            step: Step::Idle,
            seen: Paper::of(&Record::empty()),
            read_at: 0,
            lease: None,
            pair: 0,
            epoch,
        }
    }

    /// The claim under which it sends, or waits for what it has sent.
    pub(super) fn presenting(&self) -> Option<Lease> {
        let presents = matches!(self.step, Step::Claimed | Step::Checked | Step::Waiting);
        self.lease.filter(|_| presents)
    }
}

impl State {
    /// Lays everything down. It does not even remember what it has read, as there would be many times as
    /// many states: a process that has nothing in hand reads before it does anything.
    pub(super) fn idle(&mut self, i: usize) {
        self.processes[i] = Process::idle(self.processes[i].epoch);
        if self.lock == owner(i) {
            self.lock = 0;
        }
    }

    /// The claim in this record is its own.
    pub(super) fn own(&mut self, i: usize, record: Paper) {
        let process = &mut self.processes[i];
        if record.epoch < process.epoch {
            self.broken |= Broken::OldLogin as u8;
        }
        process.seen = record;
        process.lease = record.lease();
        process.read_at = 0;
        process.step = Step::Claimed;
    }

    /// Is there anybody alive who has a later pair of this login, or will have it?
    pub(super) fn has_successor(&self, pair: Pair) -> bool {
        let is_later = |other: Pair| other / LOGIN == pair / LOGIN && other > pair;
        let has = |process: &Process| match process.step {
            Step::Holds { new, .. } => is_later(new),
            _ => is_later(process.seen.pair),
        };
        is_later(self.store.pair)
            || self.processes.iter().any(has)
            || self
                .answers
                .iter()
                .any(|it| matches!(it.says, Says::New(new) if is_later(new)))
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        if answer.to.owner != DEAD {
            self.answers.push(answer);
        }
    }

    pub(super) fn renumber(&mut self, number: impl Fn(u8) -> u8) {
        self.store.renumber(&number);
        self.lock = number(self.lock);
        if let Some((by, _, paper)) = &mut self.pending {
            *by = number(*by);
            paper.renumber(&number);
        }
        for process in &mut self.processes {
            process.seen.renumber(&number);
            if let Some(lease) = &mut process.lease {
                lease.owner = number(lease.owner);
            }
        }
        for request in &mut self.requests {
            request.owner = number(request.owner);
        }
        for answer in &mut self.answers {
            answer.to.owner = number(answer.to.owner);
        }
    }

    /// One of the states that differ in nothing but the order of processes and packets.
    pub(super) fn sorted(mut self) -> Self {
        let key = |i: usize| {
            let mut process = self.processes[i];
            let me = owner(i);
            let number = |number| match number {
                0 | DEAD => number,
                _ if number == me => 1,
                _ => 2,
            };
            process.seen.renumber(number);
            if let Some(lease) = &mut process.lease {
                lease.owner = number(lease.owner);
            }
            let named = self.store.lease().is_some_and(|it| it.owner == me);
            (process, named)
        };
        let mut order: Vec<usize> = (0..self.processes.len()).collect();
        order.sort_by_key(|i| key(*i));
        if !order.is_sorted() {
            self.processes = order.iter().map(|i| self.processes[*i]).collect();
            self.renumber(|number| {
                let to = order.iter().position(|i| owner(*i) == number);
                to.map_or(number, owner)
            });
        }
        self.requests.sort_unstable();
        self.answers.sort_unstable();
        // It can't be done any more.
        let version = self.store.version;
        self.pending = self.pending.filter(|it| it.1 == version);
        self
    }

    /// No two processes present under one claim, nor under two of one login that both have time left.
    pub(super) fn claims_are_apart(&self) -> bool {
        let presenting = || {
            let all = self.processes.iter();
            all.filter_map(|it| it.presenting().map(|lease| (it.seen.epoch, lease)))
        };
        let is_apart = |(epoch, lease): (u8, Lease)| {
            let is_near = |(other, it): &(u8, Lease)| {
                let both = self.now < it.deadline && self.now < lease.deadline;
                it.fence == lease.fence || (both && *other == epoch)
            };
            presenting().filter(is_near).count() == 1
        };
        presenting().all(is_apart)
    }

    pub(super) fn keeps(&self, broken: Broken) -> bool {
        self.broken & broken as u8 == 0
    }
}

/// The number of a process: 1 and more.
pub(super) fn owner(i: usize) -> u8 {
    u8::try_from(i).expect("there are few") + 1
}
