//! Shows what it costs each caller that its token is rejected, with very many callers at once: one
//! reissue for all, and two calls for each. Two calls with a valid token are needed anyway: what is
//! above 2.0 of one, or 1.0 of two, is the layer's.
//!
//! Each caller is a task. What a caller that waits holds in memory is in `allocations`.

mod support;

use std::time::Duration;
use std::time::Instant;

use criterion::Criterion;
use criterion::SamplingMode;
use criterion::Throughput;
use http::StatusCode;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_token_refresh::BoxError;
use tower_token_refresh::RefreshError;

use self::support::crowd::Client;
use self::support::crowd::FRESH;
use self::support::crowd::STALE;
use self::support::crowd::SmallRequest;
use self::support::crowd::World;
use self::support::is_test;
use self::support::rounds::Rounds;
use self::support::small_request;

/// What each caller does.
const KINDS: [(&str, Kind); 3] = [
    ("valid", Kind::Valid(1)),
    ("valid_twice", Kind::Valid(2)),
    ("rejected", Kind::Rejected),
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// So many calls with a valid token.
    Valid(usize),
    /// One call that is rejected, and sent again.
    Rejected,
}

fn main() -> Result<(), BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let world = World::new()?;
    println!("storm: nanoseconds for each caller");
    println!("callers  valid  twice  rejected  rejected/valid  rejected/twice  reissues/storm");
    let sizes: &[(usize, usize)] = if is_test() {
        &[(1_000, 1)]
    } else {
        &[(1_000, 41), (100_000, 9)]
    };
    for (callers, rounds) in sizes {
        table(&runtime, &world, *callers, *rounds);
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for (callers, _) in sizes {
        group(&mut criterion, &runtime, &world, *callers);
    }
    criterion.final_summary();
    Ok(())
}

fn table(runtime: &Runtime, world: &World, callers: usize, rounds: usize) {
    let before = world.session.stats().reissues;
    let times = Rounds::run(KINDS.len(), rounds, |kind| {
        let storm = storm(world, callers, KINDS[kind].1);
        runtime
            .block_on(storm)
            .unwrap_or_else(|error| panic!("{error}"))
    });
    let reissues = world.session.stats().reissues - before;
    let [valid, twice, rejected] = [0, 1, 2].map(|kind| times.median(kind) / callers as f64);
    println!(
        "{callers:>7}  {valid:>5.0}  {twice:>5.0}  {rejected:>8.0}  {:>14.2}  {:>14.2}  {:>14.2}",
        times.ratio(2, 0),
        times.ratio(2, 1),
        reissues as f64 / rounds as f64,
    );
}

fn group(criterion: &mut Criterion, runtime: &Runtime, world: &World, callers: usize) {
    let mut group = criterion.benchmark_group(format!("storm/{callers}"));
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(callers as u64));
    for (name, kind) in KINDS {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|storms| {
                let storms = (0..storms).map(|_| runtime.block_on(storm(world, callers, kind)));
                let times: Result<Duration, _> = storms.sum();
                times.unwrap_or_else(|error| panic!("{error}"))
            });
        });
    }
    group.finish();
}

/// How long it takes until all callers have their answer. Each storm has a login of its own, for a login
/// may have only so many reissues in so long a time.
async fn storm(world: &World, callers: usize, kind: Kind) -> Result<Duration, BoxError> {
    let (token, calls) = match kind {
        Kind::Valid(calls) => (FRESH, calls),
        Kind::Rejected => (STALE, 1),
    };
    world.login(token, callers).await?;
    let make = |_| (0..calls).map(|_| small_request()).collect::<Vec<_>>();
    let requests: Vec<_> = (0..callers).map(make).collect();

    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for requests in requests {
        tasks.spawn(call(world.client.clone(), requests));
    }
    while let Some(answered) = tasks.join_next().await {
        answered??;
    }
    Ok(start.elapsed())
}

/// One caller.
async fn call(client: Client, requests: Vec<SmallRequest>) -> Result<(), BoxError> {
    for request in requests {
        let response = client.clone().oneshot(request).await?;
        if response.status() != StatusCode::OK {
            let why = response.extensions().get::<RefreshError>();
            return Err(format!("answered with {}: {why:?}", response.status()).into());
        }
    }
    Ok(())
}
