//! What a server has lost: by a restart, an eviction, or a failover to a replica that lags behind.

use std::time::Duration;

use serde_json::Value;
use tower_token_refresh::EndReason;
use tower_token_refresh::SessionStatus;

use crate::faults::Case;
use crate::faults::both;
use crate::kind::Kind;
use crate::kind::Real;
use crate::kind::Server;
use crate::proxy::Proxy;
use crate::proxy::Way;
use crate::scene::Scene;
use crate::scene::access;
use crate::scene::end_of;
use crate::scene::get;
use crate::scene::in_time;
use crate::scene::is_of;
use crate::scene::is_served;
use crate::servers::RedisOptions;
use crate::way::json;

/// A replica that takes the server's place.
struct Replica {
    server: Server,
    between: Proxy,
}

impl Replica {
    /// It has what the server has by now.
    async fn of(server: &Server) -> Self {
        let between = Proxy::to(server.port()).await;
        Self {
            server: server.replica(between.address.port()).await,
            between,
        }
    }

    /// From now on it hears of nothing.
    fn part(&self) {
        self.between.set_next(None);
        self.between.set(Way::ALL_LOST);
    }

    /// The server dies, and all ways lead to the replica.
    async fn take_over(&self, scene: &mut Scene) {
        scene.server.kill().await;
        self.server.promote().await;
        scene.fail_over(&self.server);
    }
}

/// A login that the replica has, and a newer pair that it has not.
async fn with_a_pair_that_no_replica_has(kind: Kind) -> (Scene, Replica) {
    let server = Server::start(kind).await;
    let scene = Scene::new(&server, 2).await;
    let replica = Replica::of(&server).await;
    replica.part();
    scene.one_more_round().await;
    (scene, replica)
}

// shows P6, P8, P13
#[tokio::test]
async fn a_pair_that_a_failover_has_lost_is_written_back_before_anything_is_presented() {
    both(async |kind| {
        let (mut scene, replica) = with_a_pair_that_no_replica_has(kind).await;
        let newest = scene.access().await.unwrap();
        replica.take_over(&mut scene).await;
        is_written_back(&mut scene, &newest).await;
    })
    .await;
}

// The same where the token expires before anybody has looked.
#[tokio::test]
async fn a_pair_that_a_failover_has_lost_is_what_is_presented_next() {
    both(async |kind| {
        let (mut scene, replica) = with_a_pair_that_no_replica_has(kind).await;
        scene.world.expire();
        replica.take_over(&mut scene).await;
        scene.goes_on().await;
        scene.has_reissued(2);
    })
    .await;
}

// The limit of what can be done (DESIGN section 7): nobody who is alive has the newer pair.
#[tokio::test]
async fn a_pair_that_a_failover_has_lost_and_nobody_remembers_is_lost() {
    both(async |kind| {
        let (mut scene, replica) = with_a_pair_that_no_replica_has(kind).await;
        scene.processes.clear();
        replica.take_over(&mut scene).await;
        let fresh = scene.start().await;
        let answer = get(fresh).await;
        let why = answer.why.unwrap();
        assert_eq!(why.end_reason(), Some(EndReason::Refused), "{why:?}");
        assert_eq!(scene.world.counts().reuses, 1);
    })
    .await;
}

// shows P1: whoever knows of the claim puts it back, and nobody else presents what is being presented.
#[tokio::test]
async fn a_claim_that_a_failover_has_lost_is_written_back() {
    both(async |kind| {
        let server = Server::start(kind).await;
        let mut scene = Scene::new(&server, 2).await;
        let replica = Replica::of(&server).await;
        replica.part();
        scene.world.expire();
        scene.world.hold_reissues();
        let first = scene.processes[0].send();
        scene.world.until(|counts| counts.reissues == 1).await;
        let second = scene.processes[1].send();
        // Who has not seen it could only take the refresh token for free.
        in_time(scene.processes[1].store.until_seen(is_claimed)).await;
        replica.take_over(&mut scene).await;
        scene.until(|record| is_claimed(&json(record))).await;
        scene.world.release_reissues();
        for answer in [first, second] {
            in_time(answer).await.unwrap();
        }
        scene.goes_on().await;
        scene.has_reissued(1);
    })
    .await;
}

// shows P7
#[tokio::test]
async fn a_logout_that_a_failover_has_lost_is_written_back() {
    both(async |kind| {
        let (mut scene, replica) = with_a_pair_that_no_replica_has(kind).await;
        scene.processes[0].session.logout().await.unwrap();
        let out = |status: &SessionStatus| !status.is_logged_in();
        in_time(scene.processes[1].until(out)).await;
        replica.take_over(&mut scene).await;
        scene
            .until(|record| record.version() > 0 && record.tokens().is_none())
            .await;
        let fresh = scene.start().await;
        assert_eq!(end_of(fresh).await, Some(EndReason::LoggedOut));
    })
    .await;
}

// shows P8: a login after a failover is none of those that were lost by it, and the newest.
#[tokio::test]
async fn a_login_after_a_failover_is_another_than_the_one_that_was_lost() {
    both(async |kind| {
        for more in [0, 5] {
            let server = Server::start(kind).await;
            let _case = Case::new(&server, more);
            let mut scene = Scene::new(&server, 2).await;
            let replica = Replica::of(&server).await;
            replica.part();
            let login = scene.world.tokens("v");
            in_time(scene.processes[0].session.login(login))
                .await
                .unwrap();
            is_of(&scene.processes[1], "v").await;
            // So that its record is newer by so many versions.
            for _ in 0..more {
                scene.world.expire();
                scene.goes_on().await;
            }
            let adopted = |scene: &Scene| {
                let all = scene.processes.iter().take(2);
                all.map(|it| it.session.stats().adopted).sum::<u64>()
            };
            let before = adopted(&scene);
            // They can't reach it yet.
            for proxy in &scene.proxies {
                proxy.set_next(None);
                proxy.cut();
            }
            replica.take_over(&mut scene).await;
            let login = scene.world.tokens("w");
            let fresh = scene.start().await;
            in_time(fresh.session.login(login)).await.unwrap();
            for proxy in &scene.proxies {
                proxy.set_next(Some(Way::OPEN));
            }
            for process in &scene.processes[..2] {
                is_of(process, "w").await;
            }
            assert_eq!(adopted(&scene), before);
            scene.goes_on().await;
            assert_eq!(get(&scene.processes[2]).await.user, "w");
        }
    })
    .await;
}

fn is_claimed(record: &Value) -> bool {
    record["turn"]["state"] == "sent"
}

async fn redis(more: &[&str]) -> Server {
    let more = more.iter().map(|&it| it.to_owned()).collect();
    Server::redis(RedisOptions {
        in_memory: true,
        more,
        ..RedisOptions::default()
    })
    .await
}

/// By whoever remembers it, for a process that starts later.
async fn is_written_back(scene: &mut Scene, newest: &str) {
    for process in &scene.processes {
        is_served(process).await;
    }
    scene.until(|record| access(record) == Some(newest)).await;
    scene.start().await;
    scene.goes_on().await;
    scene.has_reissued(1);
    scene.one_more_round().await;
    scene.has_reissued(2);
}

// shows P13
#[tokio::test]
async fn all_that_a_redis_without_a_disk_has_lost_is_written_back() {
    let server = redis(&[]).await;
    let mut scene = Scene::new(&server, 2).await;
    scene.one_more_round().await;
    let newest = scene.access().await.unwrap();
    server.kill().await;
    server.restart().await;
    is_written_back(&mut scene, &newest).await;
}

#[tokio::test]
async fn what_a_redis_has_not_put_on_the_disk_in_time_is_written_back() {
    let server = redis(&[]).await;
    let mut scene = Scene::new(&server, 2).await;
    let _: String = server.command(&["SAVE"]).await;
    scene.one_more_round().await;
    let newest = scene.access().await.unwrap();
    server.kill().await;
    server.restart().await;
    is_written_back(&mut scene, &newest).await;
}

#[tokio::test]
async fn a_record_that_a_redis_has_evicted_is_written_back() {
    let server = redis(&["--maxmemory-policy", "allkeys-lru"]).await;
    let mut scene = Scene::new(&server, 2).await;
    scene.one_more_round().await;
    let newest = scene.access().await.unwrap();
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    in_time(async { while server.command::<u64>(&["DBSIZE"]).await > 0 {} }).await;
    for process in &scene.processes {
        is_served(process).await;
    }
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    is_written_back(&mut scene, &newest).await;
}

/// A Redis with a replica, and processes that take a write for done when the replica has it.
async fn confirmed() -> (Scene, Replica) {
    let server = Server::start(Kind::Redis).await;
    let replica = Replica::of(&server).await;
    let mut scene = Scene::empty(&server, 0).await;
    for _ in 0..2 {
        scene
            .start_with(|store| match store {
                Real::Redis(store) => Real::Redis(store.wait(1, Duration::from_millis(100))),
                other => other,
            })
            .await;
    }
    scene.log_in().await;
    (scene, replica)
}

#[tokio::test]
async fn nothing_is_reissued_under_a_claim_that_no_replica_has() {
    let (scene, replica) = confirmed().await;
    replica.server.stop().await;
    let why = in_time(scene.processes[0].session.refresh())
        .await
        .unwrap_err();
    assert!(
        why.is_store() && format!("{why:?}").contains("replica"),
        "{why:?}"
    );
    for process in &scene.processes {
        is_served(process).await;
    }
    scene.has_reissued(0);
    replica.server.resume().await;
    scene.one_more_round().await;
    scene.has_reissued(1);
}

#[tokio::test]
async fn a_pair_that_no_replica_has_is_used_from_memory_until_one_has() {
    for fails_over in [false, true] {
        let (mut scene, replica) = confirmed().await;
        scene.world.hold_reissues();
        let refresh = scene.processes[0].refresh();
        scene.world.until(|counts| counts.reissues == 1).await;
        replica.part();
        scene.world.release_reissues();
        in_time(refresh).await.unwrap().unwrap();
        let unsaved =
            |it: &SessionStatus| matches!(it, SessionStatus::LoggedIn { saved: false, .. });
        in_time(scene.processes[0].until(unsaved)).await;
        let newest = in_time(scene.processes[0].session.token()).await.unwrap();
        match fails_over {
            true => replica.take_over(&mut scene).await,
            false => {
                replica.between.set_next(Some(Way::OPEN));
                replica.between.cut();
            }
        }
        for process in &scene.processes {
            is_served(process).await;
        }
        if fails_over {
            // Without a replica of its own, it confirms nothing.
            scene
                .until(|record| access(record) == Some(newest.expose()))
                .await;
            scene.has_reissued(1);
            continue;
        }
        let saved = |it: &SessionStatus| matches!(it, SessionStatus::LoggedIn { saved: true, .. });
        in_time(scene.processes[0].until(saved)).await;
        scene.has_reissued(1);
        scene.one_more_round().await;
        scene.has_reissued(2);
    }
}
