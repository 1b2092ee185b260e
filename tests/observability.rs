//! Shows group L: what a session traces. One test alone: whether a span is heard is remembered for
//! the whole process.

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
