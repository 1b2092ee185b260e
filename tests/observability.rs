//! Shows group L: what a session traces, and that its tokens do not hang on who listens. Whether a span is
//! heard is remembered for the whole process, so the tests take turns.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use futures::future::join_all;
use support::Script;
use support::World;
use tower_token_refresh::MemoryStore;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt;

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

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

// shows B140
#[tokio::test]
async fn each_refresh_is_a_span_with_its_outcome_its_waiters_and_its_time() {
    let _turn = TURN.lock().await;
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

/// Panics at each event.
struct Broken;

impl<S: tracing::Subscriber> Layer<S> for Broken {
    fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
        panic!("the log is full");
    }
}

// shows P3, P4: a subscriber is somebody else's code. The new token was there, and all who waited were told
// that the refresh was interrupted.
#[tokio::test]
async fn a_subscriber_that_panics_costs_nobody_the_new_token() {
    let _turn = TURN.lock().await;
    let subscriber = tracing_subscriber::registry().with(Broken);
    let _guard = tracing::subscriber::set_default(subscriber);
    for shared in [false, true] {
        let world = World::new();
        let builder = match shared {
            true => world.builder().shared_store(Arc::new(MemoryStore::new())),
            false => world.builder(),
        };
        let session = builder.build().unwrap();
        session.login(world.tokens("u")).await.unwrap();
        let client = world.client(&session);
        world.expire();
        for answer in join_all((0..10).map(|_| client.get())).await {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 200, "{:?}", answer.why);
        }
        world.has_reissued(1);
        // What has failed is told as it is, too.
        world.expire();
        world.script(Script::Transient);
        let why = client.get().await.unwrap().why.unwrap();
        assert!(why.is_transient() && !why.is_outcome_unknown(), "{why}");
    }
}
