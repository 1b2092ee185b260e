//! The world of the model: what every process, the store, the network and the issuer may do next.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use stateright::Model;
use stateright::Property;

use super::super::Denied;
use super::super::News;
use super::super::end;
use super::super::login;
use super::super::news;
use super::super::refuse;
use super::super::release;
use super::super::renew;
use super::super::settle;
use super::paper::DEAD;
use super::paper::Doubt;
use super::paper::LOGIN;
use super::paper::Lease;
use super::paper::Pair;
use super::paper::Paper;
use super::paper::Tick;
use super::paper::Tokens;
use super::paper::Whose;
use super::paper::at;
use super::paper::ticks;
use super::rules::Rules;
use crate::coordinator::lost_reply::LostReply;
use crate::error::EndReason;
use crate::store::Record;

/// How long an owner may wait for the answer.
const SPAN: Tick = 2;
/// How long a pair in doubt is left alone, the first time.
const QUARANTINE: Tick = 2;
/// Nobody wants another pair than this one of a login.
const ENOUGH: Pair = 3;

pub(super) struct World {
    pub(super) rules: Rules,
    pub(super) processes: u8,
    /// The store has a lock that dies with its holder.
    pub(super) lock: bool,
    /// Whatever follows from a claim is over in time: see [`over_by`](Self::over_by).
    pub(super) bounded: bool,
    /// One login and one logout.
    pub(super) users: bool,
    /// The last tick.
    pub(super) horizon: Tick,
    /// How much may go wrong.
    pub(super) faults: u8,
    pub(super) tokens: Tokens,
    pub(super) events: Events,
}

/// What has been seen to happen. It is no part of a state, of which there would be more.
#[derive(Default)]
pub(super) struct Events([AtomicUsize; 16]);

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// A process sees that another has fetched a pair.
    Adopted,
    /// A commit is judged anew, since another change came before it.
    CommitJudgedAnew,
    /// A pair is committed whose owner had let its time run out, or had given up.
    CommittedLate,
    /// A pair is committed whose refresh token was left in doubt by a process that died.
    CommittedForTheDead,
    /// The issuer has refused for good, and that is stored.
    Ended,
    /// A swap is done after its writer was told nothing.
    LandedLate,
    Left,
    LoggedIn,
    /// Before its deadline, under a lock.
    PresumedDead,
    PresumedLost,
    /// A claim on a refresh token in doubt.
    QuarantineOver,
    ReadBack,
    Released,
    Renewed,
    /// The issuer sees a refresh token again.
    SeenTwice,
    Settled,
}

impl Events {
    fn saw(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn times(&self, event: Event) -> usize {
        self.0[event as usize].load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) now: Tick,
    pub(super) store: Paper,
    /// A swap that was sent, and of which its writer knows nothing: by whom, and in place of which version.
    pending: Option<(u8, u8, Paper)>,
    /// Who holds the store's lock: 0 nobody.
    lock: u8,
    pub(super) processes: Vec<Process>,
    requests: Vec<Request>,
    answers: Vec<Answer>,
    /// Of each login, the pair that the issuer takes next: 0 where it takes none any longer.
    issuer: [Pair; 3],
    faults: u8,
    logins: u8,
    logouts: u8,
    /// The doubt was left by a process that died.
    orphan: bool,
    broken: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Process {
    step: Step,
    /// What it has read last.
    seen: Paper,
    /// When.
    read_at: Tick,
    lease: Option<Lease>,
    /// What it presents.
    pair: Pair,
    /// The newest login that it knows of.
    epoch: u8,
}

/// What a process has in hand, and will go on with, now or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
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
    Refused,
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
struct Request {
    owner: u8,
    epoch: u8,
    pair: Pair,
    /// When it is lost, if it has not arrived.
    by: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Answer {
    to: Request,
    says: Says,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Says {
    Bounced,
    New(Pair),
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Read(usize),
    /// The next write of this process, to which the store answers.
    Swap(usize),
    /// The same, and no answer.
    SwapBlindly(usize),
    ReadBack(usize),
    Check(usize),
    Send(usize),
    GiveUp(usize),
    Refuse(usize),
    Watch(usize),
    Login(usize),
    Logout(usize),
    Crash(usize),
    /// What was written blindly is done.
    Land,
    Deliver(usize),
    Bounce(usize),
    Lose(usize),
    Answer(usize),
    LoseAnswer(usize),
    Tick,
}

/// A promise that was broken, as a bit of the state.
#[derive(Debug, Clone, Copy)]
enum Broken {
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
    /// A process has sent the tokens of a login although it knew of a newer one.
    OldEpoch = 32,
    /// What was read is older than what was known.
    ReadOlder = 64,
}

/// What becomes of a swap.
enum Told {
    Done,
    Conflict,
    Nothing,
}

enum Plan {
    Claim(Paper),
    PresumeLost(Paper),
}

pub(super) const AVOIDABLE: &str =
    "no refresh token is presented twice while its successor is alive";
pub(super) const PAIR_LOST: &str = "a pair gives way to its successor alone";
pub(super) const IN_FLIGHT: &str = "at most one request of a login is in flight";

impl World {
    /// By when everything is over that follows from a request that is sent at this time: the bytes
    /// have arrived or died, and the new pair is stored. It is the bound under which no refresh token is
    /// presented twice: less than the quarantine after it was sent, and less than the quarantine after
    /// the owner's deadline. Without the bound it is only the bytes that die.
    fn over_by(&self, now: Tick, lease: Option<Lease>) -> Tick {
        let from = lease.filter(|_| self.bounded);
        from.map_or(now, |lease| now.min(lease.deadline)) + QUARANTINE - 1
    }

    fn presume_lost(&self, found: &Paper, now: Tick, is_gone: bool) -> Option<Paper> {
        let found = self.tokens.record(found);
        (self.rules.presume_lost)(&found, at(now), is_gone).map(|it| Paper::of(&it))
    }

    fn claim(&self, found: &Paper, owner: u8, now: Tick) -> Result<Paper, Denied> {
        let found = self.tokens.record(found);
        let policy = LostReply::strict().quarantine(ticks(QUARANTINE));
        let claimed = (self.rules.claim)(&found, owner.into(), at(now), ticks(SPAN), &policy);
        claimed.map(|it| Paper::of(&it))
    }

    /// What there is to do about this record.
    fn plan(&self, found: &Paper, owner: u8, now: Tick) -> Option<Plan> {
        if found.pair % LOGIN >= ENOUGH {
            return None;
        }
        if let Some(lost) = self.presume_lost(found, now, self.lock) {
            return Some(Plan::PresumeLost(lost));
        }
        self.claim(found, owner, now).ok().map(Plan::Claim)
    }

    /// Reads the store, under the lock if there is one, and finds something to do or not.
    fn look(&self, state: &mut State, i: usize) {
        let owner = owner(i);
        let store = state.store;
        self.learn(state, i);
        let process = &mut state.processes[i];
        if process.step == Step::Idle {
            process.pair = store.pair;
        }
        if !self.rules.presents_the_first_read {
            process.pair = store.pair;
        }
        process.seen = store;
        process.read_at = state.now;
        match self.plan(&store, owner, state.now) {
            Some(_) => {
                process.step = Step::Found;
                if self.lock {
                    state.lock = owner;
                }
            }
            None => idle(state, i),
        }
    }

    /// Takes notice of what is stored.
    fn learn(&self, state: &mut State, i: usize) {
        let store = state.store;
        let process = &mut state.processes[i];
        let (known, found) = (process.seen, self.tokens.record(&store));
        match news(&self.tokens.record(&known), &found) {
            News::Tokens(_) => self.events.saw(Event::Adopted),
            News::Older => state.broken |= Broken::ReadOlder as u8,
            News::Login(_) | News::Nothing | News::Over(_) => {}
        }
        if self.users {
            process.epoch = store.epoch;
        }
    }

    fn swap(&self, state: &mut State, by: u8, version: u8, new: &Paper, blindly: bool) -> Told {
        if blindly {
            state.pending = Some((by, version, *new));
            return Told::Nothing;
        }
        if state.store.version != version {
            return Told::Conflict;
        }
        self.put(state, by, *new);
        Told::Done
    }

    /// A record takes the place of another: nothing may be lost by that.
    fn put(&self, state: &mut State, by: u8, new: Paper) {
        let old = state.store;
        let is_same_login = new.epoch == old.epoch;
        if new.version != old.version + 1 || !(is_same_login || new.epoch == old.epoch + 1) {
            state.broken |= Broken::Counted as u8;
        }
        if is_same_login && new.pair != old.pair && new.pair != old.pair + 1 {
            state.broken |= Broken::PairLost as u8;
        }
        let is_unchanged = is_same_login && new.pair == old.pair;
        if let Some(lease) = old.lease().filter(|_| is_unchanged) {
            let is_kept = new.lease().is_some_and(|it| it.fence == lease.fence);
            let is_over = by == lease.owner || lease.owner == DEAD || state.now >= lease.deadline;
            if !(is_kept && by == lease.owner) && !is_over {
                state.broken |= Broken::Stolen as u8;
            }
            state.orphan = lease.owner == DEAD && new.lease().is_none();
        }
        if !is_unchanged {
            state.orphan = false;
        }
        if new.turn == Whose::RefusedForGood {
            self.events.saw(Event::Ended);
            if state.issuer[usize::from(old.pair / LOGIN)] == old.pair {
                state.broken |= Broken::EndedAlive as u8;
            }
        }
        state.store = new;
    }

    /// The next write of a process. `None` where it has none.
    fn write(&self, state: &mut State, i: usize, blindly: bool) -> Option<()> {
        let process = state.processes[i];
        let (now, owner, seen) = (state.now, owner(i), process.seen);
        let found = self.tokens.record(&seen);
        let claim = process.lease.map(Lease::real);
        let paper = |record: Result<Record, Denied>| record.map(|it| Paper::of(&it));
        match process.step {
            Step::Found => {
                let (new, is_claim) = match self.plan(&seen, owner, process.read_at)? {
                    Plan::Claim(new) => (new, true),
                    Plan::PresumeLost(new) => (new, false),
                };
                match self.swap(state, owner, seen.version, &new, blindly) {
                    Told::Done if is_claim => {
                        if seen.doubt.is_some() {
                            self.events.saw(Event::QuarantineOver);
                        }
                        own(state, i, new);
                    }
                    Told::Done => {
                        let lease = seen.lease().filter(|it| now < it.deadline);
                        self.events.saw(match lease {
                            Some(_) => Event::PresumedDead,
                            None => Event::PresumedLost,
                        });
                        idle(state, i);
                    }
                    Told::Conflict => self.look(state, i),
                    Told::Nothing if is_claim => {
                        let fence = new.version;
                        state.processes[i].step = Step::Unsure { fence };
                    }
                    Told::Nothing => idle(state, i),
                }
                return Some(());
            }
            Step::Claimed | Step::Waiting => {
                let is_waiting = process.step == Step::Waiting;
                let new = paper(renew(&found, &claim?, at(now), ticks(SPAN)));
                match new.map(|new| (new, self.swap(state, owner, seen.version, &new, blindly))) {
                    Ok((new, Told::Done)) => {
                        self.events.saw(Event::Renewed);
                        own(state, i, new);
                    }
                    Ok(_) => self.own_or_not(state, i),
                    Err(_) => idle(state, i),
                }
                if is_waiting {
                    // Whatever becomes of the lock, the answer may come.
                    let mine = state.processes[i].lease;
                    state.processes[i] = match mine {
                        Some(_) => state.processes[i],
                        None => process,
                    };
                    state.processes[i].step = Step::Waiting;
                }
                return Some(());
            }
            _ => {}
        }
        let compares = self.rules.compares || !matches!(process.step, Step::Holds { .. });
        let (new, event) = match process.step {
            Step::Holds {
                epoch, from, new, ..
            } => {
                let from = Record {
                    epoch: epoch.into(),
                    tokens: Some(self.tokens.of(from, None)),
                    ..Record::empty()
                };
                let tokens = self.tokens.of(new, None);
                let event = match seen.lease() {
                    _ if state.orphan => Event::CommittedForTheDead,
                    Some(lease) if process.lease.is_some_and(|it| it.fence == lease.fence) => {
                        match now < lease.deadline {
                            true => Event::Left,
                            false => Event::CommittedLate,
                        }
                    }
                    _ => Event::CommittedLate,
                };
                ((self.rules.commit)(&found, &from, &tokens), Some(event))
            }
            Step::Lost => {
                let claim = claim?;
                let before = seen.doubt;
                let doubt = Doubt {
                    since: now,
                    tries: before.map_or(1, |before| before.tries + 1),
                    sent_at: match before {
                        Some(before) => before.sent_at,
                        None => process.lease.map(|lease| lease.sent_at),
                    },
                };
                let tokens = self.tokens.of(process.pair, Some(doubt));
                (settle(&found, &claim, &tokens), Some(Event::Settled))
            }
            Step::Bounced => (release(&found, &claim?), Some(Event::Released)),
            Step::Refused => {
                let tokens = self.tokens.of(process.pair, None);
                let reason = EndReason::Refused;
                let epoch = process.lease.map(|_| found.epoch);
                (end(&found, epoch?, tokens.refresh_token(), reason), None)
            }
            Step::LoggingIn { epoch, pair } => {
                let tokens = self.tokens.of(pair, None);
                (login(&found, epoch.into(), &tokens), Some(Event::LoggedIn))
            }
            Step::LoggingOut { epoch } => {
                let reason = EndReason::LoggedOut;
                (end(&found, epoch.into(), None, reason), None)
            }
            _ => return None,
        };
        // Denied: somebody else was there, and what is there is good.
        let Ok(new) = paper(new) else {
            self.learn(state, i);
            state.processes[i].seen = state.store;
            idle(state, i);
            return Some(());
        };
        let version = match compares {
            true => seen.version,
            false => state.store.version,
        };
        match self.swap(state, owner, version, &new, blindly) {
            Told::Done => {
                if let Some(event) = event {
                    self.events.saw(event);
                }
                state.processes[i].seen = new;
                if self.users {
                    state.processes[i].epoch = new.epoch;
                }
                idle(state, i);
            }
            Told::Conflict | Told::Nothing => {
                if matches!(process.step, Step::Holds { .. }) {
                    self.events.saw(Event::CommitJudgedAnew);
                }
                state.processes[i].seen = state.store;
            }
        }
        Some(())
    }

    /// Reads back whether a claim is its own.
    fn own_or_not(&self, state: &mut State, i: usize) {
        let fence = match state.processes[i].step {
            Step::Unsure { fence } => fence,
            _ => state.processes[i].lease.map_or(0, |lease| lease.fence),
        };
        let store = state.store;
        self.learn(state, i);
        match store.lease() {
            Some(lease) if (lease.owner, lease.fence) == (owner(i), fence) => own(state, i, store),
            _ => {
                state.processes[i].seen = store;
                idle(state, i);
            }
        }
    }

    fn deliver(&self, state: &mut State, k: usize) {
        let request = state.requests.remove(k);
        let pair = request.pair;
        let login = usize::from(pair / LOGIN);
        let says = if state.issuer[login] == pair {
            state.issuer[login] = pair + 1;
            Says::New(pair + 1)
        } else {
            if state.issuer[login] > 0 {
                self.events.saw(Event::SeenTwice);
                if state.has_successor(pair) {
                    state.broken |= Broken::Avoidable as u8;
                }
            }
            state.issuer[login] = 0;
            Says::Refused
        };
        let to = request;
        state.answer(Answer { to, says });
    }

    fn receive(&self, state: &mut State, k: usize) {
        let Answer { to, says } = state.answers.remove(k);
        let i = usize::from(to.owner - 1);
        let step = state.processes[i].step;
        let is_asking = step == Step::Waiting;
        let next = match says {
            Says::New(new) if is_asking || matches!(step, Step::Idle | Step::Lost) => Step::Holds {
                epoch: to.epoch,
                from: to.pair,
                new,
                by: to.by,
            },
            Says::Refused if is_asking => Step::Refused,
            Says::Bounced if is_asking => Step::Bounced,
            _ => return,
        };
        // The outcome is judged by what is stored then.
        self.learn(state, i);
        let store = state.store;
        let process = &mut state.processes[i];
        process.step = next;
        if !is_asking || says == Says::Refused {
            process.seen = store;
        }
    }

    fn crash(&self, state: &mut State, i: usize) {
        let owner = owner(i);
        let dead = |number| if number == owner { DEAD } else { number };
        state.renumber(dead);
        state.answers.retain(|answer| answer.to.owner != DEAD);
        idle(state, i);
        if self.users {
            state.processes[i].epoch = 0;
        }
        if state.lock == DEAD {
            state.lock = 0;
        }
    }

    fn may_tick(&self, state: &State) -> bool {
        let next = state.now + 1;
        let is_late = |process: &Process| match process.step {
            Step::Checked => next > self.over_by(next, process.lease),
            Step::Holds { by, .. } => next > by,
            _ => false,
        };
        next <= self.horizon
            && state.requests.iter().all(|it| it.by >= next)
            && state.answers.iter().all(|it| it.to.by >= next)
            && !(self.bounded && state.processes.iter().any(is_late))
    }
}

impl Process {
    fn idle(epoch: u8) -> Self {
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
    fn presenting(&self) -> Option<Lease> {
        let presents = matches!(self.step, Step::Claimed | Step::Checked | Step::Waiting);
        self.lease.filter(|_| presents)
    }
}

impl State {
    /// Is there anybody alive who has a later pair of this login, or will have it?
    fn has_successor(&self, pair: Pair) -> bool {
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

    fn answer(&mut self, answer: Answer) {
        if answer.to.owner != DEAD {
            self.answers.push(answer);
        }
    }

    fn renumber(&mut self, number: impl Fn(u8) -> u8) {
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
    fn sorted(mut self) -> Self {
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

    fn keeps(&self, broken: Broken) -> bool {
        self.broken & broken as u8 == 0
    }
}

/// The number of a process: 1 and more.
fn owner(i: usize) -> u8 {
    u8::try_from(i).expect("there are few") + 1
}

/// Lays everything down. It does not even remember what it has read, as there would be many times as
/// many states: a process that has nothing in hand reads before it does anything.
fn idle(state: &mut State, i: usize) {
    let epoch = state.processes[i].epoch;
    state.processes[i] = Process::idle(epoch);
    if state.lock == owner(i) {
        state.lock = 0;
    }
}

/// The claim in this record is its own.
fn own(state: &mut State, i: usize, record: Paper) {
    let process = &mut state.processes[i];
    process.seen = record;
    process.lease = record.lease();
    process.read_at = 0;
    process.step = Step::Claimed;
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let store = Paper {
            version: 1,
            epoch: 1,
            pair: 1,
            doubt: None,
            turn: Whose::Free,
        };
        vec![State {
            now: 0,
            store,
            pending: None,
            lock: 0,
            processes: vec![Process::idle(1); self.processes.into()],
            requests: Vec::new(),
            answers: Vec::new(),
            issuer: [1, LOGIN + 1, 2 * LOGIN + 1],
            faults: self.faults,
            logins: u8::from(self.users),
            logouts: u8::from(self.users),
            orphan: false,
            broken: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if !state.keeps(Broken::Avoidable) {
            return;
        }
        let may_fail = state.faults > 0;
        for (i, process) in state.processes.iter().enumerate() {
            let lease = process.lease;
            let has_time = lease.is_some_and(|lease| state.now < lease.deadline);
            let mut writes = false;
            match process.step {
                Step::Idle => {
                    if state.lock == 0 {
                        actions.push(Action::Read(i));
                    }
                    if state.logins > 0 {
                        actions.push(Action::Login(i));
                    }
                    if state.logouts > 0 {
                        actions.push(Action::Logout(i));
                    }
                }
                Step::Unsure { .. } => actions.push(Action::ReadBack(i)),
                Step::Claimed if has_time => actions.push(Action::Check(i)),
                Step::Claimed => writes = true,
                Step::Checked => actions.push(Action::Send(i)),
                Step::Waiting => {
                    let renewed = lease.map_or(0, |lease| lease.deadline - SPAN);
                    writes = self.rules.renews_while_it_waits && state.now > renewed;
                    if may_fail || !has_time {
                        actions.push(Action::GiveUp(i));
                    }
                }
                Step::Refused => {
                    writes = true;
                    actions.push(Action::Refuse(i));
                }
                Step::Found
                | Step::Holds { .. }
                | Step::Lost
                | Step::Bounced
                | Step::LoggingIn { .. }
                | Step::LoggingOut { .. } => writes = true,
            }
            if writes {
                actions.push(Action::Swap(i));
                if may_fail && state.pending.is_none() {
                    actions.push(Action::SwapBlindly(i));
                }
            }
            if self.users && process.epoch != state.store.epoch && process.step != Step::Idle {
                actions.push(Action::Watch(i));
            }
            if may_fail && process.step != Step::Idle {
                actions.push(Action::Crash(i));
            }
        }
        for k in 0..state.requests.len() {
            actions.push(Action::Deliver(k));
            if may_fail {
                actions.push(Action::Bounce(k));
                actions.push(Action::Lose(k));
            }
        }
        for k in 0..state.answers.len() {
            actions.push(Action::Answer(k));
            if may_fail {
                actions.push(Action::LoseAnswer(k));
            }
        }
        if state.pending.is_some() {
            actions.push(Action::Land);
        }
        if self.may_tick(state) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Read(i) => {
                self.look(&mut state, i);
            }
            Action::Swap(i) => self.write(&mut state, i, false)?,
            Action::SwapBlindly(i) => {
                state.faults -= 1;
                self.write(&mut state, i, true)?;
                // Nothing was written.
                state.pending?;
            }
            Action::ReadBack(i) => {
                self.own_or_not(&mut state, i);
                if state.processes[i].step == Step::Claimed {
                    self.events.saw(Event::ReadBack);
                }
            }
            Action::Check(i) => state.processes[i].step = Step::Checked,
            Action::Send(i) => {
                let process = &mut state.processes[i];
                let epoch = process.seen.epoch;
                if process.epoch > epoch {
                    // What it knows has settled its attempt.
                    idle(&mut state, i);
                } else {
                    process.step = Step::Waiting;
                    state.requests.push(Request {
                        owner: owner(i),
                        epoch,
                        pair: process.pair,
                        by: self.over_by(state.now, process.lease),
                    });
                    let knows = process.epoch;
                    let is_old = (u8::from(process.pair / LOGIN > 0) + 1) < knows;
                    if is_old && knows > epoch {
                        state.broken |= Broken::OldEpoch as u8;
                    }
                }
            }
            Action::GiveUp(i) => {
                let process = &mut state.processes[i];
                if process
                    .lease
                    .is_some_and(|lease| state.now < lease.deadline)
                {
                    state.faults -= 1;
                }
                process.step = Step::Lost;
            }
            Action::Refuse(i) => {
                let process = state.processes[i];
                let found = self.tokens.record(&process.seen);
                let new = refuse(&found, &process.lease?.real());
                let new = Paper::of(&new.ok()?);
                match self.swap(&mut state, owner(i), process.seen.version, &new, false) {
                    Told::Done => idle(&mut state, i),
                    Told::Conflict | Told::Nothing => return None,
                }
            }
            Action::Watch(i) => self.learn(&mut state, i),
            Action::Login(i) => {
                state.logins -= 1;
                let process = &mut state.processes[i];
                process.step = Step::LoggingIn {
                    epoch: process.epoch,
                    pair: LOGIN + 1,
                };
            }
            Action::Logout(i) => {
                state.logouts -= 1;
                let process = &mut state.processes[i];
                let epoch = process.epoch;
                process.step = Step::LoggingOut { epoch };
            }
            Action::Crash(i) => {
                state.faults -= 1;
                self.crash(&mut state, i);
            }
            Action::Land => {
                let (by, version, paper) = state.pending.take()?;
                if state.store.version == version {
                    self.events.saw(Event::LandedLate);
                    self.put(&mut state, by, paper);
                }
            }
            Action::Deliver(k) => self.deliver(&mut state, k),
            Action::Bounce(k) => {
                state.faults -= 1;
                let to = state.requests.remove(k);
                let says = Says::Bounced;
                state.answer(Answer { to, says });
            }
            Action::Lose(k) => {
                state.faults -= 1;
                state.requests.remove(k);
            }
            Action::Answer(k) => self.receive(&mut state, k),
            Action::LoseAnswer(k) => {
                state.faults -= 1;
                state.answers.remove(k);
            }
            Action::Tick => state.now += 1,
        }
        let state = state.sorted();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(AVOIDABLE, |_, state: &State| state.keeps(Broken::Avoidable)),
            Property::always("versions and epochs grow one by one", |_, state: &State| {
                state.keeps(Broken::Counted)
            }),
            Property::always(PAIR_LOST, |_, state: &State| state.keeps(Broken::PairLost)),
            Property::always(
                "no claim is taken from the living in their time",
                |_, state: &State| state.keeps(Broken::Stolen),
            ),
            Property::always("no claim has two owners", |_, state: &State| {
                let leases = || state.processes.iter().filter_map(Process::presenting);
                leases().all(|a| leases().filter(|b| a.fence == b.fence).count() == 1)
                    && leases().filter(|it| state.now < it.deadline).count() <= 1
            }),
            Property::always(
                "a login ends only when its refresh token is dead",
                |_, state: &State| state.keeps(Broken::EndedAlive),
            ),
            Property::always(
                "nobody sends tokens of a login that it knows to be over",
                |_, state: &State| state.keeps(Broken::OldEpoch),
            ),
            Property::always(
                "nobody reads what is older than what it knows",
                |_, state: &State| state.keeps(Broken::ReadOlder),
            ),
        ];
        if self.bounded {
            all.push(Property::always(IN_FLIGHT, |_, state: &State| {
                let login = |pair: Pair| pair / LOGIN;
                let requests = || state.requests.iter();
                requests().all(|a| {
                    requests()
                        .filter(|b| login(a.pair) == login(b.pair))
                        .count()
                        == 1
                })
            }));
        }
        all
    }
}
