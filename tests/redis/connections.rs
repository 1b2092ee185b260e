//! How many connections a store has: two, however many sessions share it, and none when nobody uses it.

use futures::future::join_all;
use tokio::time::timeout;
use tower_token_refresh::SharedTokenStore;

use crate::common::HANG;
use crate::common::Place;
use crate::common::done;
use crate::common::replica_of;
use crate::common::server;
use crate::common::version;

/// As the server counts them, without the one that asks.
struct Clients(redis::aio::MultiplexedConnection);

impl Clients {
    async fn of(place: &Place) -> Self {
        Self(place.admin().await)
    }

    async fn now(&mut self) -> (usize, usize) {
        let list: String = crate::common::ask(&mut self.0, &["CLIENT", "LIST"]).await;
        let lines: Vec<_> = list
            .lines()
            .filter(|line| !line.contains("flags=S"))
            .collect();
        let listening = lines.iter().filter(|line| line.contains("flags=P")).count();
        (lines.len() - 1 - listening, listening)
    }

    async fn until(&mut self, expected: (usize, usize)) {
        let mut last = None;
        let waits = async {
            while last != Some(expected) {
                last = Some(self.now().await);
            }
        };
        let reached = timeout(HANG, waits).await;
        assert!(reached.is_ok(), "{last:?}");
    }
}

#[tokio::test]
async fn a_thousand_sessions_have_two_connections_and_none_when_they_are_gone() {
    const SESSIONS: usize = 1000;

    let server = server(&[]);
    let place = Place::of(&server);
    let mut clients = Clients::of(&place).await;
    let store = place.store();
    assert_eq!(clients.now().await, (0, 0), "nobody has used it yet");
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|i| store.session(&i.to_string()))
        .collect();
    join_all(sessions.iter().map(|session| done(session, 0))).await;
    assert_eq!(clients.now().await, (1, 0));
    // Each is told of its own change.
    let waits: Vec<_> = sessions
        .iter()
        .map(|session| {
            let session = session.clone();
            tokio::spawn(async move { session.changed(1).await })
        })
        .collect();
    clients.until((1, 1)).await;
    join_all(sessions.iter().map(|session| done(session, 1))).await;
    timeout(HANG, join_all(waits)).await.expect("it hangs");
    assert_eq!(clients.now().await, (1, 1));
    drop(sessions);
    assert_eq!(version(&store).await, 0);
    drop(store);
    clients.until((0, 0)).await;
}

#[tokio::test]
async fn a_store_that_waits_for_replicas_has_one_more() {
    let server = server(&[]);
    let _replica = replica_of(server.port());
    let place = Place::of(&server);
    let mut clients = Clients::of(&place).await;
    let store = place.store().wait(1, HANG);
    for i in 0..10 {
        done(&store.session(&i.to_string()), 0).await;
    }
    version(&store).await;
    assert_eq!(clients.now().await, (2, 0));
    drop(store);
    clients.until((0, 0)).await;
}

// A call that is dropped gives its connection up: the old one is closed, and not kept beside the new one.
#[tokio::test]
async fn a_connection_that_is_given_up_is_closed() {
    let server = server(&[]);
    let place = Place::of(&server);
    let mut clients = Clients::of(&place).await;
    let store = place.store();
    done(&store, 0).await;
    let mut dropped = 0;
    for _ in 0..20 {
        let mut read = Box::pin(store.read());
        if futures::poll!(&mut read).is_pending() {
            dropped += 1;
        }
        drop(read);
        version(&store).await;
    }
    assert!(dropped > 0);
    clients.until((1, 0)).await;
    done(&store, 1).await;
}
