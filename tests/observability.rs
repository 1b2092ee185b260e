//! Shows group L: what a session counts and traces.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use futures::future::join_all;
use support::Script;
use support::World;
use tracing::Level;
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn with(&self, part: &str) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .filter(|line| line.contains(part))
            .map(str::to_owned)
            .collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `scene` and gives back what was traced.
async fn traced(scene: impl Future) -> Lines {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(Level::DEBUG)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    scene.await;
    support::settle_down().await;
    lines
}

// shows B140
#[tokio::test]
async fn each_refresh_is_a_span_with_its_outcome_its_waiters_and_its_time() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let client = world.client(&session);
    world.expire();
    world.hold_reissues();
    let lines = traced(async {
        let requests: Vec<_> = (0..3).map(|_| tokio::spawn(client.get())).collect();
        world.until(|counts| counts.reissues == 1).await;
        support::settle_down().await;
        world.release_reissues();
        join_all(requests).await;
    })
    .await;
    let closed = lines.with("close");
    assert_eq!(closed.len(), 1, "{closed:?}");
    for part in [
        "token_refresh{",
        "cause=Reissue",
        "outcome=\"ok\"",
        "waiters=3",
        "elapsed_ms=",
    ] {
        assert!(closed[0].contains(part), "{part} in {closed:?}");
    }

    world.expire();
    world.script(Script::Refuse);
    let lines = traced(client.get()).await;
    assert!(lines.with("close")[0].contains("refused the refresh token"));
    assert_eq!(lines.with("a rejection is returned").len(), 1);
}

// shows B139
#[tokio::test(start_paused = true)]
async fn a_session_counts_what_it_does() {
    let world = World::new();
    let (store, session) = world.logged_in_and_stored("u").await;
    let client = world.client(&session);
    let scenes = [
        None,
        Some(Script::Transient),
        Some(Script::Misconfigured),
        Some(Script::Unknown),
    ];
    for script in scenes {
        world.expire();
        script.into_iter().for_each(|script| world.script(script));
        client.get().await.unwrap();
        tokio::time::advance(std::time::Duration::from_secs(61)).await;
    }
    store.fail_loads(true);
    client.get().await.unwrap();
    store.fail_loads(false);
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    world.script(Script::Refuse);
    client.get().await.unwrap();
    let stats = session.stats();
    assert_eq!(
        (stats.reissues, stats.replays, stats.adopted, stats.ends),
        (5, 1, 0, 1)
    );
    assert_eq!((stats.waiters, stats.late_rejections), (0, 0));
    let failures = stats.failures;
    assert_eq!(
        (failures.transient, failures.misconfigured, failures.unknown),
        (1, 1, 1)
    );
    assert_eq!(
        (failures.store, failures.refused, failures.other),
        (1, 1, 0)
    );
}
