//! Explores schedules of the coordinator. See README.md beside it.

mod api;
mod book;
mod issuer;
mod names;
mod report;
mod schedule;
mod store;
mod world;
mod worlds;

use std::process::exit;
use std::time::Instant;

use shuttle::Config;
use shuttle::FailurePersistence;
use shuttle::MaxSteps;
use shuttle::Runner;

use crate::schedule::Explorer;
use crate::schedule::Kind;
use crate::schedule::current;
use crate::world::World;
use crate::worlds::PAIR;
use crate::worlds::WORLDS;

const USAGE: &str = "\
explore [--schedules N] [--world NAME] [--scheduler random|pct] [--seed N]
    explores so many schedules (10,000 unless set) of all worlds, or of this one, from this seed on
explore --scheduler dfs [--schedules N] [--interruptions N]
    explores all schedules of two tasks in which somebody is interrupted no more than so often (once unless set)
explore --world NAME --scheduler random|pct --replay SEED
    explores one schedule again, and tells what happens in it
It exits with 1 when a promise is broken, and with 2 for wrong usage.";

/// No schedule has so many steps, unless somebody turns in circles.
const MOST_STEPS: usize = 200_000;

/// For the futures of the library, with room to spare.
const STACK: usize = 1 << 18;

struct Options {
    schedules: usize,
    worlds: Vec<&'static World>,
    kinds: Vec<Kind>,
    seed: u64,
    interruptions: usize,
    replay: Option<u64>,
}

fn main() {
    let options = options();
    report::watch_panics();
    let began = Instant::now();
    let explored = match options.replay {
        Some(seed) => {
            report::tell_all();
            let (world, kind) = (options.worlds[0], options.kinds[0]);
            explore(Explorer::replay(world, kind, seed))
        }
        None if options.kinds[..] == [Kind::Dfs] => {
            let world = options.worlds[0];
            explore(Explorer::exhaust(
                world,
                options.interruptions,
                options.schedules,
            ))
        }
        None => {
            let pairs = |world: &&'static World| {
                let world = *world;
                options.kinds.iter().map(move |kind| (world, *kind))
            };
            let plan: Vec<_> = options.worlds.iter().flat_map(pairs).collect();
            explore(Explorer::new(plan, options.seed, options.schedules))
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let is_all = options.kinds[..] == [Kind::Dfs] && explored < options.schedules;
    let all = if is_all {
        ", and there are no others"
    } else {
        ""
    };
    println!("{explored} schedules in {seconds:.1} s, no promise broken{all}");
}

fn explore(explorer: Explorer) -> usize {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.stack_size = STACK;
    Runner::new(explorer, config).run(|| {
        if let Some(current) = current() {
            current.world.run();
        }
    })
}

fn options() -> Options {
    let mut options = Options {
        schedules: 10_000,
        worlds: WORLDS.iter().collect(),
        kinds: vec![Kind::Random, Kind::Pct],
        seed: 1,
        interruptions: 1,
        replay: None,
    };
    let mut has_world = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let Some(value) = arguments.next() else {
            wrong(&name);
        };
        let number = || value.parse().unwrap_or_else(|_| wrong(&value));
        match name.as_str() {
            "--schedules" => options.schedules = value.parse().unwrap_or_else(|_| wrong(&value)),
            "--interruptions" => {
                options.interruptions = value.parse().unwrap_or_else(|_| wrong(&value));
            }
            "--seed" => options.seed = number(),
            "--replay" => options.replay = Some(number()),
            "--world" => {
                has_world = true;
                options.worlds = vec![worlds::named(&value).unwrap_or_else(|| wrong(&value))];
            }
            "--scheduler" => {
                options.kinds = vec![match value.as_str() {
                    "random" => Kind::Random,
                    "pct" => Kind::Pct,
                    "dfs" => Kind::Dfs,
                    _ => wrong(&value),
                }];
            }
            _ => wrong(&name),
        }
    }
    if options.kinds[..] == [Kind::Dfs] && !has_world {
        options.worlds = vec![PAIR];
    }
    let is_one = options.worlds.len() == 1 && options.kinds.len() == 1;
    if options.replay.is_some() && !is_one {
        wrong("--replay");
    }
    options
}

fn wrong(what: &str) -> ! {
    let names: Vec<&str> = WORLDS
        .iter()
        .chain([PAIR])
        .map(|world| world.name)
        .collect();
    eprintln!(
        "{what} is not understood\n{USAGE}\nThe worlds: {}",
        names.join(", ")
    );
    exit(2)
}
