//! Who runs next: the schedulers, and the task that moves the clock.
//!
//! Each schedule comes from a seed of its own, and depends on nothing that was explored before it: so a world, a
//! scheduler and a seed are all that is needed to see it again.

use std::cell::Cell;
use std::cell::RefCell;

use fastrand::Rng;
use shuttle::scheduler::DfsScheduler;
use shuttle::scheduler::Schedule;
use shuttle::scheduler::Scheduler;
use shuttle::scheduler::Task;
use shuttle::scheduler::TaskId;

use crate::report::violated;
use crate::world::World;

/// The task that moves the clock is the first that a world spawns.
const CLOCK: usize = 1;

/// A clock that is late ends one of so many timers that are due first.
const NEAR: usize = 4;

/// How it is decided who runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any task that can, each step anew.
    Random,
    /// The one with the highest of priorities that are random, and that change at a few random steps
    /// (probabilistic concurrency testing).
    Pct,
    /// All schedules there are in which somebody is interrupted who could go on no more than so many times, one after
    /// the other. Without that limit, those of even two tasks are too many.
    Dfs,
}

impl Kind {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Pct => "pct",
            Self::Dfs => "dfs",
        }
    }
}

/// The schedule that is explored now.
#[derive(Debug, Clone, Copy)]
pub struct Current {
    pub world: &'static World,
    pub kind: Kind,
    pub seed: u64,
    /// How many were explored before it.
    pub number: usize,
    /// Steps so far.
    pub steps: usize,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
    /// Nothing but the clock can run.
    static ALONE: Cell<bool> = const { Cell::new(false) };
    /// Timers end when nothing else can run, in their order.
    static CALM: Cell<bool> = const { Cell::new(true) };
    static OVER: Cell<bool> = const { Cell::new(false) };
}

/// The schedule that is explored now.
pub fn current() -> Option<Current> {
    CURRENT.with(|current| *current.borrow())
}

/// From now on, time passes only when nothing else can run.
pub fn calm_down() {
    CALM.set(true);
}

/// Does time pass only when nothing else can run?
pub fn is_calm() -> bool {
    CALM.get()
}

/// The clock is not needed any more.
pub fn stop() {
    OVER.set(true);
}

/// The task that moves the clock. To be spawned before any other.
pub async fn clock() {
    loop {
        shuttle::future::yield_now().await;
        if OVER.get() {
            return;
        }
        let timers = tokio::model::timers();
        if timers == 0 && ALONE.get() {
            violated(
                "P4",
                "somebody waits, and nothing is left that could wake him",
            );
        }
        let nth = match CALM.get() {
            true => 0,
            false => fastrand::usize(..NEAR.min(timers).max(1)),
        };
        tokio::model::fire(nth);
    }
}

/// What is explored: so many schedules of each of these worlds in turn.
pub struct Explorer {
    plan: Vec<(&'static World, Kind)>,
    /// The first seed, or the only one.
    base: u64,
    is_replay: bool,
    count: usize,
    number: usize,
    chooser: Chooser,
}

enum Chooser {
    Random(Noise),
    Pct(Noise, Priorities),
    Dfs(Box<Exhaustion>),
}

impl Explorer {
    pub fn new(plan: Vec<(&'static World, Kind)>, base: u64, count: usize) -> Self {
        Self {
            plan,
            base,
            is_replay: false,
            count,
            number: 0,
            chooser: Chooser::Random(Noise::new(Rng::with_seed(0))),
        }
    }

    /// The one schedule with this seed.
    pub fn replay(world: &'static World, kind: Kind, seed: u64) -> Self {
        Self {
            is_replay: true,
            ..Self::new(vec![(world, kind)], seed, 1)
        }
    }

    /// All schedules of a world in which nothing is left to chance, with so many interruptions; but for no more than
    /// `count`.
    pub fn exhaust(world: &'static World, most: usize, count: usize) -> Self {
        let all = DfsScheduler::new(Some(count), false);
        Self {
            chooser: Chooser::Dfs(Box::new(Exhaustion {
                all,
                most,
                preemptions: 0,
            })),
            ..Self::new(vec![(world, Kind::Dfs)], 0, count)
        }
    }
}

impl Scheduler for Explorer {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.number == self.count {
            return None;
        }
        let (world, kind) = self.plan[self.number % self.plan.len()];
        let seed = match (kind, self.is_replay) {
            (Kind::Dfs, _) => 0,
            (_, true) => self.base,
            (_, false) => Rng::with_seed(self.base.wrapping_add(self.number as u64)).u64(..),
        };
        let mut rng = Rng::with_seed(seed);
        match kind {
            Kind::Random => self.chooser = Chooser::Random(Noise::new(rng)),
            Kind::Pct => {
                let priorities = Priorities::new(rng.fork());
                self.chooser = Chooser::Pct(Noise::new(rng), priorities);
            }
            Kind::Dfs => {
                let Chooser::Dfs(all) = &mut self.chooser else {
                    return None;
                };
                all.preemptions = 0;
                all.all.new_execution()?;
            }
        }
        CURRENT.set(Some(Current {
            world,
            kind,
            seed,
            number: self.number,
            steps: 0,
        }));
        self.number += 1;
        tokio::model::begin();
        fastrand::seed(seed);
        CALM.set(!world.is_late);
        OVER.set(false);
        Some(Schedule::new(seed))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        CURRENT.with_borrow_mut(|current| {
            if let Some(current) = current {
                current.steps += 1;
            }
        });
        let is_clock = |task: &&&Task| usize::from(task.id()) == CLOCK;
        let clock = runnable.iter().find(is_clock).map(|task| task.id());
        let mut others = runnable.iter().filter(|task| !is_clock(task)).copied();
        let is_alone = others.clone().next().is_none();
        ALONE.set(is_alone);
        if let Some(clock) = clock
            && (is_alone || OVER.get() || (!CALM.get() && self.chooser.moves_clock()))
        {
            return Some(clock);
        }
        match &mut self.chooser {
            Chooser::Random(noise) => {
                let nth = noise.rng.usize(..others.clone().count());
                others.nth(nth).map(|task| task.id())
            }
            Chooser::Pct(_, priorities) => {
                priorities.choose(others.map(|task| task.id()), current, is_yielding)
            }
            Chooser::Dfs(all) => all.choose(others.collect(), current, is_yielding),
        }
    }

    fn next_u64(&mut self) -> u64 {
        fastrand::u64(..)
    }
}

impl Chooser {
    /// Where timers end late: does time pass now, although somebody can run?
    fn moves_clock(&mut self) -> bool {
        match self {
            Self::Random(noise) | Self::Pct(noise, _) => noise.rng.u32(..) <= noise.passing,
            Self::Dfs(_) => false,
        }
    }
}

struct Exhaustion {
    all: DfsScheduler,
    most: usize,
    /// How often somebody was interrupted so far.
    preemptions: usize,
}

impl Exhaustion {
    fn choose(
        &mut self,
        mut runnable: Vec<&Task>,
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let of_current = |task: &&Task| Some(task.id()) == current;
        let goes_on = !is_yielding && runnable.iter().any(of_current);
        if goes_on && self.preemptions == self.most {
            runnable.retain(of_current);
        }
        let next = self.all.next_task(&runnable, current, is_yielding);
        self.preemptions += usize::from(goes_on && next != current);
        next
    }
}

struct Noise {
    rng: Rng,
    /// How often time passes while others run.
    passing: u32,
}

impl Noise {
    fn new(mut rng: Rng) -> Self {
        let passing = u32::MAX >> rng.u32(3..9);
        Self { rng, passing }
    }
}

struct Priorities {
    rng: Rng,
    /// By the number of the task; the highest runs.
    of_tasks: Vec<i64>,
    lowest: i64,
    /// The steps at which whoever runs gets the lowest priority.
    changes: Vec<usize>,
    step: usize,
}

impl Priorities {
    fn new(mut rng: Rng) -> Self {
        // Nobody knows how long it will be, and what comes first matters most.
        let length = 1 << rng.usize(6..12);
        let changes = (0..rng.usize(1..6)).map(|_| rng.usize(..length)).collect();
        Self {
            rng,
            of_tasks: Vec::new(),
            lowest: 0,
            changes,
            step: 0,
        }
    }

    fn choose(
        &mut self,
        runnable: impl Iterator<Item = TaskId> + Clone,
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let newest = runnable.clone().map(usize::from).max()?;
        while self.of_tasks.len() <= newest {
            self.of_tasks.push(self.rng.i64(1..i64::MAX));
        }
        if runnable.clone().nth(1).is_some() {
            if let Some(current) = current
                && (is_yielding || self.changes.contains(&self.step))
                && let Some(priority) = self.of_tasks.get_mut(usize::from(current))
            {
                self.lowest -= 1;
                *priority = self.lowest;
            }
            self.step += 1;
        }
        runnable.max_by_key(|task| self.of_tasks[usize::from(*task)])
    }
}
