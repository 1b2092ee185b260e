//! Proves that a store which is slow, but within its deadline, costs nothing but time (P1, P4).

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::future::Future;
use std::future::pending;
use std::time::Duration;
use std::time::SystemTime;

use http::StatusCode;
use shared::Common;
use shared::Process;
use support::World;
use tokio::time::Instant;
use tokio::time::timeout;
use tower_token_refresh::BoxError;
use tower_token_refresh::Record;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

async fn pass(time: Duration) {
    let _ = timeout(time, pending::<()>()).await;
}

/// A way to the store that takes its time there, and back.
#[derive(Clone)]
struct Slow {
    common: Common,
    read: [u64; 2],
    swap: [u64; 2],
}

impl SharedTokenStore for Slow {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        pass(ms(self.read[0])).await;
        let read = self.common.read().await;
        pass(ms(self.read[1])).await;
        read
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        pass(ms(self.swap[0])).await;
        let swapped = self.common.swap(version, record).await;
        pass(ms(self.swap[1])).await;
        swapped
    }

    async fn changed(&self, version: u64) {
        self.common.changed(version).await;
    }

    fn can_lose(&self) -> bool {
        self.common.can_lose()
    }
}

fn slow(world: &World, common: &Common, read: [u64; 2], swap: [u64; 2]) -> Process<Slow> {
    let common = common.other();
    let store = Slow { common, read, swap };
    let session = world.builder().shared_store(store.clone());
    let session = session.build().unwrap();
    Process {
        client: world.client(&session),
        session,
        store,
    }
}

// shows P1, P4
#[tokio::test(start_paused = true)]
async fn a_store_that_takes_almost_all_of_its_time_serves_all_the_same() {
    for (read, swap) in [
        ([50, 2850], [2800, 100]),
        ([2850, 50], [2800, 100]),
        ([1450, 1450], [1450, 1450]),
        ([50, 2850], [50, 2850]),
    ] {
        let (world, common) = (World::new(), Common::that_can_lose());
        let all: Vec<_> = (0..3).map(|_| slow(&world, &common, read, swap)).collect();
        all[0].session.login(world.tokens("u")).await.unwrap();
        for process in &all {
            process.is_ok().await;
        }
        for round in 1..4 {
            world.expire();
            let began = Instant::now();
            let sent: Vec<_> = all.iter().map(Process::send).collect();
            let mut bad = Vec::new();
            for sent in sent {
                let answer = sent.await.unwrap();
                if answer.status != StatusCode::OK {
                    bad.push(answer.why);
                }
            }
            let counts = world.counts();
            assert!(
                bad.is_empty() && counts.reissues == round && counts.reuses == 0,
                "{read:?} {swap:?} round {round} after {:?}: {counts:?} {bad:?}",
                began.elapsed()
            );
            pass(ms(60_000)).await;
        }
    }
}

// shows P1: its owner lives, is in touch, and has the successor.
#[tokio::test(start_paused = true)]
async fn a_claim_of_one_with_a_slow_store_is_not_taken_away_while_it_waits_for_a_slow_issuer() {
    let (world, common) = (World::new(), Common::that_can_lose());
    let owner = slow(&world, &common, [50, 2850], [2800, 100]);
    let other = Process::new(&world, &common);
    owner.session.login(world.tokens("u")).await.unwrap();
    owner.is_ok().await;
    other.is_ok().await;
    world.expire();
    world.hold_reissues();
    let sent = owner.send();
    world.until(|counts| counts.reissues == 1).await;
    let began = Instant::now();
    let mut released = false;
    let mut gets = Vec::new();
    while began.elapsed() < ms(40_000) {
        if !released && began.elapsed() >= ms(9_500) {
            released = true;
            world.release_reissues();
        }
        gets.push((began.elapsed(), other.get().await.status));
        pass(ms(100)).await;
    }
    let answer = sent.await.unwrap();
    let counts = world.counts();
    assert_eq!(
        (counts.reuses, counts.reissues),
        (0, 1),
        "{counts:?} {:?} {:?}",
        answer.status,
        answer.why
    );
}

/// A way to the store that takes any time up to this, there and back together.
#[derive(Clone)]
struct Any {
    common: Common,
    most: u64,
}

impl Any {
    async fn take<T>(&self, call: impl Future<Output = T>) -> T {
        let all = fastrand::u64(..self.most);
        let there = fastrand::u64(..=all);
        pass(ms(there)).await;
        let answer = call.await;
        pass(ms(all - there)).await;
        answer
    }
}

impl SharedTokenStore for Any {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        self.take(self.common.read()).await
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        self.take(self.common.swap(version, record)).await
    }

    async fn changed(&self, version: u64) {
        self.common.changed(version).await;
    }

    fn can_lose(&self) -> bool {
        true
    }
}

// shows P1: nobody dies, nothing fails, and nothing is lost; the issuer and the store only take their time.
#[test]
fn stores_and_issuers_that_take_their_time_have_nothing_presented_twice() {
    let most = 2900;
    let mut wrong = Vec::new();
    let (mut reissues, mut expiries) = (0, 0);
    for seed in 0..60 {
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let counts = runtime.block_on(async {
            let (world, common) = (World::new(), Common::that_can_lose());
            let all: Vec<_> = (0..3)
                .map(|_| {
                    let common = common.other();
                    let store = Any { common, most };
                    let session = world.builder().shared_store(store.clone());
                    let session = session.build().unwrap();
                    Process {
                        client: world.client(&session),
                        session,
                        store,
                    }
                })
                .collect();
            all[0].session.login(world.tokens("u")).await.unwrap();
            for process in &all {
                let _ = process.client.get().await;
            }
            for _ in 0..4 {
                world.expire();
                world.hold_reissues();
                let before = world.counts().reissues;
                let mut sent: Vec<_> = all.iter().map(Process::send).collect();
                world.until(|counts| counts.reissues > before).await;
                let began = Instant::now();
                let answers = ms(5000 + fastrand::u64(..4500));
                let mut is_held = true;
                while began.elapsed() < ms(60_000) {
                    if is_held && began.elapsed() >= answers {
                        world.release_reissues();
                        is_held = false;
                    }
                    for (process, sent) in all.iter().zip(&mut sent) {
                        if sent.is_finished() {
                            *sent = process.send();
                        }
                    }
                    pass(ms(250)).await;
                }
            }
            world.counts()
        });
        reissues += counts.reissues;
        expiries += 4;
        if counts.reuses > 0 || counts.reissues > 4 {
            wrong.push((seed, counts.reissues, counts.reuses));
        }
    }
    println!("{expiries} expiries, {reissues} reissues; seed, reissues, reuses: {wrong:?}");
    assert!(wrong.is_empty(), "{wrong:?}");
}
