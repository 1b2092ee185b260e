//! The world of the model: what every process, the store, the network and the issuer may do next.

use stateright::Model;
use stateright::Property;

use super::super::Changed;
use super::super::Denied;
use super::super::News;
use super::super::end;
use super::super::log_out;
use super::super::login;
use super::super::lose;
use super::super::news;
use super::super::refuse;
use super::super::release;
use super::super::renew;
use super::events::Event;
use super::events::Events;
use super::paper::DEAD;
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
use super::state::Answer;
use super::state::Broken;
use super::state::Process;
use super::state::Request;
use super::state::Says;
use super::state::State;
use super::state::Step;
use super::state::owner;
use crate::coordinator::lost_reply::LostReply;
use crate::error::EndReason;
use crate::store::Record;

pub(super) const AVOIDABLE: &str =
    "no refresh token is presented twice while its successor is alive";
pub(super) const TWO_OWNERS: &str = "no claim has two owners";
pub(super) const PAIR_LOST: &str = "a pair gives way to its successor alone";

/// How long an owner may wait for the answer.
const SPAN: Tick = 2;
/// How long a pair in doubt is left alone, the first time.
const QUARANTINE: Tick = 2;

pub(super) struct World {
    pub(super) rules: Rules,
    pub(super) processes: u8,
    /// The store has a lock that dies with its holder.
    pub(super) lock: bool,
    /// Whatever follows from a claim is over in time: see [`over_by`](Self::over_by).
    pub(super) bounded: bool,
    /// One login and one logout.
    pub(super) users: bool,
    /// Nobody wants another pair than this one of a login.
    pub(super) enough: Pair,
    /// The last tick.
    pub(super) horizon: Tick,
    /// How much may go wrong.
    pub(super) faults: u8,
    pub(super) tokens: Tokens,
    pub(super) events: Events,
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
        if found.pair % LOGIN >= self.enough {
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
            None => state.idle(i),
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
            News::Login | News::Nothing | News::Over(_) => {}
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
            let is_same = |other: Lease| other.fence == lease.fence;
            let in_time = by != lease.owner && state.now < lease.deadline;
            let mut presenting = state.processes.iter().filter_map(Process::presenting);
            if in_time && presenting.any(is_same) && !new.lease().is_some_and(is_same) {
                state.broken |= Broken::Stolen as u8;
            }
            state.orphan = lease.owner == DEAD && new.lease().is_none();
        }
        if !is_unchanged {
            state.orphan = false;
        }
        let is_taken = state.issuer[usize::from(old.pair / LOGIN)] == old.pair;
        if new.turn == Whose::RefusedForGood && is_taken {
            state.broken |= Broken::EndedAlive as u8;
        }
        state.store = new;
    }

    /// The next write of a process. `None` where it has none.
    fn write(&self, state: &mut State, i: usize, blindly: bool) -> Option<()> {
        match state.processes[i].step {
            Step::Found => self.write_found(state, i, blindly),
            Step::Claimed => self.write_renewal(state, i, blindly),
            Step::Waiting => {
                let waiting = state.processes[i];
                self.write_renewal(state, i, blindly)?;
                // Whatever becomes of the lock, the answer may come.
                let process = &mut state.processes[i];
                if process.lease.is_none() {
                    *process = waiting;
                }
                process.step = Step::Waiting;
                self.live_on(state, i);
                Some(())
            }
            _ => self.write_outcome(state, i, blindly),
        }
    }

    /// An owner that renews its claim may wait for longer: the bound is about the latest one.
    fn live_on(&self, state: &mut State, i: usize) {
        let Some(lease) = state.processes[i].lease.filter(|_| self.bounded) else {
            return;
        };
        let by = self.over_by(state.now, Some(lease));
        let asked = state.requests.iter_mut();
        for request in asked.chain(state.answers.iter_mut().map(|answer| &mut answer.to)) {
            if request.fence == lease.fence {
                request.by = request.by.max(by);
            }
        }
    }

    /// Claims the refresh token, or says that whoever had claimed it is lost.
    fn write_found(&self, state: &mut State, i: usize, blindly: bool) -> Option<()> {
        let Process { seen, read_at, .. } = state.processes[i];
        let owner = owner(i);
        let (new, is_claim) = match self.plan(&seen, owner, read_at)? {
            Plan::Claim(new) => (new, true),
            Plan::PresumeLost(new) => (new, false),
        };
        match self.swap(state, owner, seen.version, &new, blindly) {
            Told::Done if is_claim => {
                if seen.doubt.is_some() {
                    self.events.saw(Event::QuarantineOver);
                }
                state.own(i, new);
            }
            Told::Done => {
                let has_time = seen.lease().is_some_and(|it| state.now < it.deadline);
                self.events.saw(match has_time {
                    true => Event::PresumedDead,
                    false => Event::PresumedLost,
                });
                state.idle(i);
            }
            Told::Conflict => self.look(state, i),
            Told::Nothing if is_claim => {
                let fence = new.version;
                state.processes[i].step = Step::Unsure { fence };
            }
            Told::Nothing => state.idle(i),
        }
        Some(())
    }

    fn write_renewal(&self, state: &mut State, i: usize, blindly: bool) -> Option<()> {
        let Process { seen, lease, .. } = state.processes[i];
        let found = self.tokens.record(&seen);
        let Ok(new) = renew(&found, &lease?.real(), at(state.now), ticks(SPAN)) else {
            state.idle(i);
            return Some(());
        };
        let new = Paper::of(&new);
        match self.swap(state, owner(i), seen.version, &new, blindly) {
            Told::Done => {
                self.events.saw(Event::Renewed);
                state.own(i, new);
            }
            Told::Conflict | Told::Nothing => self.own_or_not(state, i),
        }
        Some(())
    }

    /// Writes what has become of what was sent, or of a login.
    fn write_outcome(&self, state: &mut State, i: usize, blindly: bool) -> Option<()> {
        let Process { seen, step, .. } = state.processes[i];
        let is_commit = matches!(step, Step::Holds { .. });
        let (new, event) = self.outcome(state, i)?;
        // Somebody else was there, and what is there is good.
        let Ok(new) = new else {
            self.events.saw(Event::Superseded);
            self.learn(state, i);
            state.idle(i);
            return Some(());
        };
        let version = match self.rules.compares || !is_commit {
            true => seen.version,
            false => state.store.version,
        };
        match self.swap(state, owner(i), version, &Paper::of(&new), blindly) {
            Told::Done => {
                self.events.saw(event);
                if self.users {
                    state.processes[i].epoch = state.store.epoch;
                }
                state.idle(i);
            }
            Told::Conflict | Told::Nothing => {
                if is_commit {
                    self.events.saw(Event::CommitJudgedAnew);
                }
                self.learn(state, i);
                state.processes[i].seen = state.store;
            }
        }
        Some(())
    }

    /// What is to take the place of the record that this process has seen.
    fn outcome(&self, state: &State, i: usize) -> Option<(Changed, Event)> {
        let process = &state.processes[i];
        let seen = &process.seen;
        let found = self.tokens.record(seen);
        let claim = process.lease.map(Lease::real);
        Some(match process.step {
            Step::Holds {
                epoch, from, new, ..
            } => {
                let from = Record {
                    epoch: epoch.into(),
                    tokens: Some(self.tokens.of(from, None)),
                    ..Record::empty()
                };
                let tokens = self.tokens.of(new, None);
                let ours = process.lease.zip(seen.lease());
                let ours = ours.filter(|(ours, its)| ours.fence == its.fence);
                let event = match ours {
                    _ if state.orphan => Event::CommittedForTheDead,
                    Some((_, lease)) if state.now < lease.deadline => Event::Committed,
                    _ => Event::CommittedLate,
                };
                ((self.rules.commit)(&found, &from, &tokens), event)
            }
            Step::Lost => (lose(&found, &claim?, at(state.now)), Event::Settled),
            Step::Bounced => (release(&found, &claim?, false), Event::Released),
            Step::Refused { epoch } => {
                let from = Record {
                    epoch: epoch.into(),
                    tokens: Some(self.tokens.of(process.pair, None)),
                    ..Record::empty()
                };
                (end(&found, &from, EndReason::Refused), Event::Ended)
            }
            Step::LoggingIn { epoch, pair } => {
                let tokens = self.tokens.of(pair, None);
                (login(&found, epoch.into(), &tokens), Event::LoggedIn)
            }
            Step::LoggingOut { epoch } => (log_out(&found, epoch.into(), false), Event::LoggedOut),
            _ => return None,
        })
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
            Some(lease) if (lease.owner, lease.fence) == (owner(i), fence) => state.own(i, store),
            _ => state.idle(i),
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
        let is_asked = |lease: Lease| lease.fence == to.fence;
        let is_asking = step == Step::Waiting && state.processes[i].lease.is_some_and(is_asked);
        let next = match says {
            Says::New(new) if is_asking || matches!(step, Step::Idle | Step::Lost) => Step::Holds {
                epoch: to.epoch,
                from: to.pair,
                new,
                by: to.by,
            },
            Says::Refused if is_asking => Step::Refused { epoch: to.epoch },
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
        state.idle(i);
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
                    writes = self.rules.renews_while_it_waits && !self.lock && state.now > renewed;
                    if may_fail || !has_time {
                        actions.push(Action::GiveUp(i));
                    }
                }
                Step::Refused { .. } => {
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
                    state.idle(i);
                } else {
                    process.step = Step::Waiting;
                    state.requests.push(Request {
                        owner: owner(i),
                        fence: process.lease?.fence,
                        epoch,
                        pair: process.pair,
                        by: self.over_by(state.now, process.lease),
                    });
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
                    Told::Done => state.idle(i),
                    Told::Conflict | Told::Nothing => return None,
                }
            }
            Action::Watch(i) => self.learn(&mut state, i),
            Action::Login(i) => {
                state.logins -= 1;
                let pair = LOGIN + 1;
                self.learn(&mut state, i);
                let (epoch, seen) = (state.store.epoch, state.store);
                let process = &mut state.processes[i];
                process.seen = seen;
                process.step = Step::LoggingIn { epoch, pair };
            }
            Action::Logout(i) => {
                state.logouts -= 1;
                self.learn(&mut state, i);
                let (epoch, seen) = (state.store.epoch, state.store);
                let process = &mut state.processes[i];
                process.seen = seen;
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
            Property::always(TWO_OWNERS, |_, state: &State| state.claims_are_apart()),
            Property::always(
                "a login ends only when its refresh token is dead",
                |_, state: &State| state.keeps(Broken::EndedAlive),
            ),
            Property::always(
                "nobody claims a login that it knows to be over",
                |_, state: &State| state.keeps(Broken::OldLogin),
            ),
            Property::always(
                "nobody reads what is older than what it knows",
                |_, state: &State| state.keeps(Broken::ReadOlder),
            ),
        ];
        if self.bounded {
            all.push(Property::always(
                "at most one request of a login is in flight",
                |_, state: &State| {
                    let login = |pair: Pair| pair / LOGIN;
                    let requests = || state.requests.iter();
                    requests().all(|a| {
                        requests()
                            .filter(|b| login(a.pair) == login(b.pair))
                            .count()
                            == 1
                    })
                },
            ));
        }
        all
    }
}
