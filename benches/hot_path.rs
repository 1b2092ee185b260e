//! Shows what the layer costs a request whose token is good, against the same request sent bare, with
//! a token that cannot change, and through what one composes by hand today.
//!
//! The table comes first: the median of interleaved rounds, as the machine is noisy. The allocations
//! are in `allocations`, the instructions in `instructions`.

mod support;

use std::sync::Barrier;
use std::time::Duration;
use std::time::Instant;

use criterion::Criterion;
use criterion::Throughput;
use tower_token_refresh::BoxError;

use self::support::clients;
use self::support::clients::BARE;
use self::support::clients::Client;
use self::support::clients::HAND_MADE;
use self::support::clients::Sender;
use self::support::clients::Way;
use self::support::is_test;
use self::support::rounds::Rounds;
use self::support::small_request;

/// So many requests are made before they are sent; only the sending is timed.
const CHUNK: u64 = 512;

/// How the clients are used: the name, the way, and from how many threads.
const USES: [(&str, Way, usize); 4] = [
    ("reused", Way::Reused, 1),
    ("cloned", Way::Cloned, 1),
    ("reused_two_threads", Way::Reused, 2),
    ("cloned_two_threads", Way::Cloned, 2),
];

fn main() -> Result<(), BoxError> {
    let clients = clients::all()?;
    println!("hot_path: nanoseconds for each request in each thread");
    println!("use                 client                      ns  /bare  /hand-made");
    for (name, way, threads) in USES {
        table(&clients, name, way, threads);
    }
    let mut criterion = criterion();
    for (name, way, threads) in USES {
        group(&mut criterion, &clients, name, way, threads);
    }
    criterion.final_summary();
    Ok(())
}

fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

fn table(clients: &[Client], name: &str, way: Way, threads: usize) {
    let (rounds, requests) = if is_test() { (1, 16) } else { (41, 8 * CHUNK) };
    let index = |name| clients.iter().position(|it| it.name == name).unwrap_or(0);
    let mut senders: Vec<_> = clients.iter().map(|it| many(it, way, threads)).collect();
    let times = Rounds::run(clients.len(), rounds, |who| {
        time(&mut senders[who], requests)
    });
    for (who, client) in clients.iter().enumerate() {
        println!(
            "{name:<18}  {:<23}  {:>5.0}  {:>5.2}  {:>10.2}",
            client.name,
            times.median(who) / requests as f64,
            times.ratio(who, index(BARE)),
            times.ratio(who, index(HAND_MADE)),
        );
    }
}

fn group(criterion: &mut Criterion, clients: &[Client], name: &str, way: Way, threads: usize) {
    let mut group = criterion.benchmark_group(format!("hot_path/{name}"));
    group.throughput(Throughput::Elements(1));
    for client in clients {
        let mut senders = many(client, way, threads);
        group.bench_function(client.name, |bencher| {
            bencher.iter_custom(|requests| time(&mut senders, requests));
        });
    }
    group.finish();
}

fn many(client: &Client, way: Way, threads: usize) -> Vec<Sender> {
    (0..threads).map(|_| client.sender(way)).collect()
}

/// How long each thread takes for so many requests, while the others do the same.
fn time(senders: &mut [Sender], requests: u64) -> Duration {
    if let [sender] = senders {
        return time_one(sender, requests, &Barrier::new(1));
    }
    let barrier = Barrier::new(senders.len());
    let threads = senders.len() as u32;
    let total: Duration = std::thread::scope(|scope| {
        let start = |sender| scope.spawn(|| time_one(sender, requests, &barrier));
        let running: Vec<_> = senders.iter_mut().map(start).collect();
        let joined = running.into_iter().map(|thread| thread.join());
        joined.map(|time| time.unwrap_or_default()).sum()
    });
    total / threads
}

fn time_one(sender: &mut Sender, requests: u64, barrier: &Barrier) -> Duration {
    let mut time = Duration::ZERO;
    let mut left = requests;
    while left > 0 {
        let chunk = left.min(CHUNK);
        let made = (0..chunk).map(|_| small_request()).collect();
        // All send at the same time, and nobody makes requests meanwhile.
        barrier.wait();
        let start = Instant::now();
        sender(made);
        time += start.elapsed();
        left -= chunk;
    }
    time
}
