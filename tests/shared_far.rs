//! Proves what holds for a store without a lock and with a clock of its own: claims are renewed, clocks may
//! differ, it may be slow, and what a failover has lost is written back (P1, P4, P6, P8, P13 between processes).

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::future::Future;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use http::StatusCode;
use shared::Common;
use shared::Fate;
use shared::Notice;
use shared::Process;
use shared::expired;
use shared::in_use;
use shared::pass;
use support::Script;
use support::World;
use support::settle_down;
use tokio::time::Instant;
use tokio::time::advance;
use tokio::time::timeout;
use tower_token_refresh::BoxError;
use tower_token_refresh::EndReason;
use tower_token_refresh::Record;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn patient(builder: SessionBuilder) -> SessionBuilder {
    let builder = builder.reissue_timeout(seconds(100));
    builder.wait_timeout(seconds(300))
}

fn all_away(processes: &[Process], away: bool) {
    for process in processes {
        process.store.set_away(away);
    }
}

fn access(record: &Record) -> Option<&str> {
    Some(record.tokens()?.access_token().expose())
}

// shows B135: a claim lasts for 12 s (four store timeouts), and the issuer takes ten times as long.
#[tokio::test(start_paused = true)]
async fn a_claim_outlives_an_issuer_that_is_ten_times_slower() {
    let (world, store) = (World::new(), Common::new());
    let processes = in_use(&world, &store, 2, patient).await;
    world.expire();
    world.hold_reissues();
    let first = processes[0].send_and_reissue(&world).await;
    let second = processes[1].send();
    pass(92).await;
    assert!(!first.is_finished() && !second.is_finished());
    // It is the same claim still: nobody has been taken for dead.
    assert_eq!(store.doubt().await, None);
    world.release_reissues();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
    world.has_reissued(1);
}

// shows B135: one renewal that fails is made good by the next.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_costs_nothing() {
    for fates in [
        vec![Fate::Lost],
        vec![Fate::Lost, Fate::Lost],
        vec![Fate::Late],
    ] {
        let (world, store) = (World::new(), Common::new());
        let processes = in_use(&world, &store, 2, patient).await;
        world.expire();
        world.hold_reissues();
        let first = processes[0].send_and_reissue(&world).await;
        processes[0].store.next_swaps(fates);
        let second = processes[1].send();
        pass(30).await;
        assert_eq!(store.doubt().await, None);
        world.release_reissues();
        assert_eq!(first.await.unwrap().status, StatusCode::OK);
        assert_eq!(second.await.unwrap().status, StatusCode::OK);
        world.has_reissued(1);
    }
}

// shows section 4: one that cannot renew is taken for dead, and its answer counts all the same when it comes
// while the refresh token is left alone.
#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_from_the_store_is_taken_for_dead_and_its_answer_counts() {
    let (world, store) = (World::new(), Common::new());
    let processes = in_use(&world, &store, 2, patient).await;
    world.expire();
    world.hold_reissues();
    let first = processes[0].send_and_reissue(&world).await;
    processes[0].store.set_away(true);
    let second = processes[1].send();
    pass(15).await;
    assert!(store.doubt().await.is_some());
    assert!(second.await.unwrap().why.unwrap().is_outcome_unknown());
    processes[0].store.set_away(false);
    world.release_reissues();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    store
        .until(|record| record.tokens().is_some_and(|it| it.in_doubt().is_none()))
        .await;
    pass(12).await;
    processes[1].is_ok().await;
    world.has_reissued(1);
}

// shows P13: what could not be saved while the store was away is there before anybody else presents what it
// was fetched with, however long that took.
#[tokio::test(start_paused = true)]
async fn a_pair_that_waits_for_the_store_is_saved_as_soon_as_that_is_back() {
    for away in [30, 570, 1800] {
        let (world, store) = (World::new(), Common::new());
        let processes = expired(&world, &store, 2).await;
        world.hold_reissues();
        let first = processes[0].send_and_reissue(&world).await;
        all_away(&processes, true);
        world.release_reissues();
        assert_eq!(first.await.unwrap().status, StatusCode::OK);
        pass(away).await;
        assert!(processes[1].get().await.why.unwrap().is_store());
        all_away(&processes, false);
        pass(1).await;
        processes[1].is_ok().await;
        world.has_reissued(1);
    }
}

// shows P13: the same where the store can be read all the time, and not written.
#[tokio::test(start_paused = true)]
async fn a_pair_that_waits_for_a_store_that_takes_no_writes_is_saved_before_others_act() {
    for time in [60, 560, 1770] {
        let (world, store) = (World::new(), Common::new());
        let processes = expired(&world, &store, 2).await;
        world.hold_reissues();
        let first = processes[0].send_and_reissue(&world).await;
        store.lose(usize::MAX);
        world.release_reissues();
        assert_eq!(first.await.unwrap().status, StatusCode::OK);
        pass(time).await;
        store.lose(0);
        // Longer than it takes to give up the dead, and to present their refresh token.
        for _ in 0..30 {
            pass(1).await;
            processes[1].get().await;
        }
        processes[1].is_ok().await;
        world.has_reissued(1);
    }
}

/// Two processes with the second pair of their login, and the record with the first.
async fn second_pair(world: &World, store: &Common) -> (Vec<Process>, Record) {
    let processes = expired(world, store, 2).await;
    let older = store.record().await;
    for process in &processes {
        process.is_ok().await;
    }
    assert_eq!(world.counts().reissues, 1);
    (processes, older)
}

// shows P6, P8: an older record, or none, is what a failover or a restart has left.
#[tokio::test(start_paused = true)]
async fn what_the_store_has_lost_is_written_back() {
    for all in [false, true] {
        let (world, store) = (World::new(), Common::that_can_lose());
        let (processes, older) = second_pair(&world, &store).await;
        let newest = store.access().await;
        let left = if all { Record::empty() } else { older };
        store.fall_back(&left).await;
        store.until(|record| access(record) == Some(&newest)).await;
        let fresh = Process::new(&world, &store);
        fresh.is_ok().await;
        world.expire();
        for process in &processes {
            process.is_ok().await;
        }
        fresh.is_ok().await;
        world.has_reissued(2);
    }
}

// shows P6, P8: also where nobody follows the store, by whoever asks it next.
#[tokio::test(start_paused = true)]
async fn what_the_store_has_lost_is_written_back_before_anything_is_presented() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let (processes, older) = second_pair(&world, &store).await;
    for process in &processes {
        process.store.set_notice(Notice::Never);
    }
    store.fall_back(&older).await;
    world.expire();
    for process in &processes {
        process.is_ok().await;
    }
    world.has_reissued(2);
}

// shows P7: a logout stays one.
#[tokio::test(start_paused = true)]
async fn a_logout_that_the_store_has_lost_is_written_back() {
    for all in [false, true] {
        let (world, store) = (World::new(), Common::that_can_lose());
        let (processes, older) = second_pair(&world, &store).await;
        processes[0].session.logout().await.unwrap();
        processes[1].until(|status| !status.is_logged_in()).await;
        let left = if all { Record::empty() } else { older };
        store.fall_back(&left).await;
        store
            .until(|record| record.version() > 0 && record.tokens().is_none())
            .await;
        let fresh = Process::new(&world, &store);
        let why = fresh.session.token().await.unwrap_err();
        assert_eq!(why.end_reason(), Some(EndReason::LoggedOut));
    }
}

// shows P8: a login on a store that has lost all takes the place of what others remember.
#[tokio::test(start_paused = true)]
async fn a_login_after_a_loss_is_the_newest() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let (processes, _) = second_pair(&world, &store).await;
    all_away(&processes, true);
    store.fall_back(&Record::empty()).await;
    pass(1).await;
    let fresh = Process::new(&world, &store);
    fresh.session.login(world.tokens("v")).await.unwrap();
    all_away(&processes, false);
    for process in &processes {
        process
            .until(|status| matches!(status, SessionStatus::LoggedIn { generation: 3, .. }))
            .await;
        assert_eq!(process.get().await.user, "v");
    }
    assert!(store.access().await.starts_with("a-v"));
}

// shows P8: by its own clock, a machine that is slow would log in before the login that was lost.
#[tokio::test(start_paused = true)]
async fn a_login_is_numbered_by_the_clock_of_a_store_that_can_lose_it() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let process = Process::new(&world, &store);
    process.store.set_ahead(seconds(3600));
    let hour = SystemTime::now() + seconds(3600);
    let least = hour.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    process.session.login(world.tokens("u")).await.unwrap();
    assert!(u128::from(store.epoch().await) >= least.as_millis() - 1000);
}

// shows P1: whoever remembers less writes back less, and gives way to the one who remembers more.
#[tokio::test(start_paused = true)]
async fn the_newest_of_what_is_remembered_wins() {
    let (world, store) = (World::new(), Common::that_can_lose());
    let processes = expired(&world, &store, 2).await;
    let first = store.access().await;
    processes[1].store.set_away(true);
    processes[0].is_ok().await;
    let newest = store.access().await;
    processes[0].store.set_away(true);
    // The one with the first pair is the first to find that it is gone, and so often that its record has
    // the highest version.
    for failover in 0..5 {
        store.fall_back(&Record::empty()).await;
        processes[1].store.set_away(false);
        store.until(|record| access(record) == Some(&first)).await;
        processes[1].store.set_away(failover < 4);
        settle_down().await;
    }
    processes[0].store.set_away(false);
    store.until(|record| access(record) == Some(&newest)).await;
    processes[1].is_ok().await;
    assert_eq!(store.access().await, newest);
    world.has_reissued(1);
}

// shows B108 between machines: times are told by the store's clock.
#[tokio::test(start_paused = true)]
async fn a_machine_whose_clock_is_fast_takes_no_fresh_token_for_an_expired_one() {
    let (world, store) = (World::new(), Common::new());
    let ahead = |builder: SessionBuilder| builder.refresh_ahead(seconds(30));
    let processes = in_use(&world, &store, 2, ahead).await;
    let skewed = &processes[1];
    skewed.store.set_fast(seconds(3600));
    world.script(Script::ExpiresIn(seconds(600)));
    world.expire();
    processes[0].is_ok().await;
    skewed
        .until(|status| matches!(status, SessionStatus::LoggedIn { generation: 2, .. }))
        .await;
    skewed.is_ok().await;
    assert_eq!(world.counts().reissues, 1);
    // And it knows when it is time.
    pass(580).await;
    skewed.is_ok().await;
    world.until(|counts| counts.reissues == 2).await;
}

// shows section 4: a doubt is as old for a machine whose clock is fast.
#[tokio::test(start_paused = true)]
async fn a_machine_whose_clock_is_fast_leaves_a_refresh_token_in_doubt_alone_as_long_as_others() {
    let (world, store) = (World::new(), Common::new());
    let processes = expired(&world, &store, 2).await;
    processes[1].store.set_fast(seconds(3600));
    world.script(Script::Unknown);
    assert!(processes[0].get().await.why.unwrap().is_outcome_unknown());
    processes[1].until(SessionStatus::is_in_doubt).await;
    pass(8).await;
    assert!(processes[1].get().await.why.unwrap().is_outcome_unknown());
    assert_eq!(world.counts().reissues, 1);
    pass(3).await;
    processes[1].is_ok().await;
    world.has_reissued(2);
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

async fn wait(time: Duration) {
    let _ = timeout(time, pending::<()>()).await;
}

/// How long a read, or a swap, takes there and back.
type Pace = Arc<dyn Fn(bool) -> [u64; 2] + Send + Sync>;

/// A way to the store that takes its time.
#[derive(Clone)]
struct Slow {
    common: Common,
    pace: Pace,
}

impl Slow {
    async fn take<T>(&self, is_swap: bool, call: impl Future<Output = T>) -> T {
        let [there, back] = (self.pace)(is_swap);
        wait(ms(there)).await;
        let answer = call.await;
        wait(ms(back)).await;
        answer
    }
}

impl SharedTokenStore for Slow {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        self.take(false, self.common.read()).await
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        self.take(true, self.common.swap(version, record)).await
    }

    async fn changed(&self, version: u64) {
        self.common.changed(version).await;
    }

    fn can_lose(&self) -> bool {
        self.common.can_lose()
    }
}

fn slow(world: &World, common: &Common, pace: &Pace) -> Process<Slow> {
    let store = Slow {
        common: common.other(),
        pace: pace.clone(),
    };
    let session = world.builder().shared_store(store.clone());
    let session = session.build().unwrap();
    Process {
        client: world.client(&session),
        session,
        store,
    }
}

fn always(read: [u64; 2], swap: [u64; 2]) -> Pace {
    Arc::new(move |is_swap| if is_swap { swap } else { read })
}

/// The issuer answers after so long.
fn release_after(world: &World, time: Duration) {
    let world = world.clone();
    drop(tokio::spawn(async move {
        wait(time).await;
        world.release_reissues();
    }));
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
        let all: Vec<_> = (0..3)
            .map(|_| slow(&world, &common, &always(read, swap)))
            .collect();
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
            wait(ms(60_000)).await;
        }
    }
}

// shows P1: its owner lives, is in touch, and has the successor.
#[tokio::test(start_paused = true)]
async fn a_claim_of_one_with_a_slow_store_is_not_taken_away_while_it_waits_for_a_slow_issuer() {
    let (world, common) = (World::new(), Common::that_can_lose());
    let owner = slow(&world, &common, &always([50, 2850], [2800, 100]));
    let other = Process::new(&world, &common);
    owner.session.login(world.tokens("u")).await.unwrap();
    owner.is_ok().await;
    other.is_ok().await;
    world.expire();
    world.hold_reissues();
    let sent = owner.send();
    world.until(|counts| counts.reissues == 1).await;
    release_after(&world, ms(9_500));
    let began = Instant::now();
    while began.elapsed() < ms(40_000) {
        other.get().await;
        wait(ms(100)).await;
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

// shows P1: nobody dies, nothing fails, and nothing is lost; the issuer and the store only take their time.
#[test]
fn stores_and_issuers_that_take_any_time_have_nothing_presented_twice() {
    for seed in 0..60 {
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let counts = runtime.block_on(async {
            let (world, common) = (World::new(), Common::that_can_lose());
            let any: Pace = Arc::new(|_| {
                let all = fastrand::u64(..2900);
                let there = fastrand::u64(..=all);
                [there, all - there]
            });
            let all: Vec<_> = (0..3).map(|_| slow(&world, &common, &any)).collect();
            all[0].session.login(world.tokens("u")).await.unwrap();
            for process in &all {
                process.is_ok().await;
            }
            for _ in 0..4 {
                world.expire();
                world.hold_reissues();
                let before = world.counts().reissues;
                let mut sent: Vec<_> = all.iter().map(Process::send).collect();
                world.until(|counts| counts.reissues > before).await;
                release_after(&world, ms(5000 + fastrand::u64(..4500)));
                for _ in 0..240 {
                    for (process, sent) in all.iter().zip(&mut sent) {
                        if sent.is_finished() {
                            *sent = process.send();
                        }
                    }
                    wait(ms(250)).await;
                }
            }
            world.counts()
        });
        assert_eq!((counts.reissues, counts.reuses), (4, 0), "seed {seed}");
    }
}

// shows P8: it may be put right any time, and is neither asked nor warned of without end until then.
#[tokio::test(start_paused = true)]
async fn an_older_record_that_stays_is_looked_at_now_and_then() {
    let (world, store) = (World::new(), Common::new());
    let processes = in_use(&world, &store, 1, |builder| builder).await;
    let before = store.record().await;
    world.expire();
    processes[0].is_ok().await;
    store.fall_back(&before).await;
    settle_down().await;
    let reads = processes[0].store.reads();
    for _ in 0..600 {
        advance(Duration::from_millis(100)).await;
        settle_down().await;
    }
    let reads = processes[0].store.reads() - reads;
    assert!(reads <= 60, "{reads} reads and warnings in a minute");
}
