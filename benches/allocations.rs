//! Shows what the heap costs: allocations and bytes of each request on the hot path, and the bytes that
//! a caller holds while it waits for a refresh. These are counts, the same on any machine.
//!
//! Fails when a request through the layer allocates more often than through what one composes by hand.

mod support;

use dhat::HeapStats;
use dhat::Profiler;
use tokio::runtime::Builder;
use tower_token_refresh::BoxError;

use self::support::clients;
use self::support::clients::Client;
use self::support::clients::HAND_MADE;
use self::support::clients::OURS;
use self::support::clients::Way;
use self::support::crowd;
use self::support::crowd::STALE;
use self::support::crowd::World;
use self::support::is_test;
use self::support::small_request;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const REQUESTS: u64 = 100;

fn main() -> Result<(), BoxError> {
    let _profiler = Profiler::builder()
        .testing()
        .trim_backtraces(Some(4))
        .build();
    println!("allocations: of each request");
    println!("use     client                   allocations  bytes");
    for (name, way) in [("reused", Way::Reused), ("cloned", Way::Cloned)] {
        hot_path(name, way)?;
    }
    println!("allocations: of each caller that waits");
    println!("callers  waiting for          allocations  bytes");
    let callers: &[usize] = if is_test() { &[100] } else { &[1_000, 100_000] };
    for callers in callers {
        waiting(*callers)?;
    }
    Ok(())
}

fn hot_path(name: &str, way: Way) -> Result<(), BoxError> {
    let mut counts = Vec::new();
    for client in clients::all()? {
        let (blocks, bytes) = of_requests(&client, way);
        println!(
            "{name:<6}  {:<23}  {blocks:>11.2}  {bytes:>5.0}",
            client.name
        );
        counts.push((client.name, blocks));
    }
    let count = |name| {
        counts
            .iter()
            .find(|(it, _)| *it == name)
            .map(|(_, blocks)| *blocks)
    };
    match count(OURS) <= count(HAND_MADE) {
        true => Ok(()),
        false => Err("ours allocates more often than the hand-made one".into()),
    }
}

fn of_requests(client: &Client, way: Way) -> (f64, f64) {
    let mut send = client.sender(way);
    // What is only done once is not counted.
    send(vec![small_request()]);
    let requests = (0..REQUESTS).map(|_| small_request()).collect();
    let before = HeapStats::get();
    send(requests);
    let after = HeapStats::get();
    let each = |total: u64| total as f64 / REQUESTS as f64;
    let blocks = each(after.total_blocks - before.total_blocks);
    (blocks, each(after.total_bytes - before.total_bytes))
}

/// Those who wait for a refresh, and for comparison those who wait for a server.
fn waiting(callers: usize) -> Result<(), BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let world = World::new()?;
    runtime.block_on(async {
        let before = HeapStats::get();
        let mut waiting = crowd::wait_for_the_server(callers).await;
        print_held("the server, bare", callers, &before);
        waiting.shutdown().await;

        world.login(STALE, usize::MAX).await?;
        let before = HeapStats::get();
        let mut waiting = crowd::wait_for_the_refresh(&world, callers).await;
        print_held("the refresh, ours", callers, &before);
        waiting.shutdown().await;
        Ok(())
    })
}

fn print_held(what: &str, callers: usize, before: &HeapStats) {
    let after = HeapStats::get();
    let each = |held: usize| held as f64 / callers as f64;
    let blocks = each(after.curr_blocks - before.curr_blocks);
    let bytes = each(after.curr_bytes - before.curr_bytes);
    println!("{callers:>7}  {what:<19}  {blocks:>11.2}  {bytes:>5.0}");
}
