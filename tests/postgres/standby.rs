//! What a synchronous standby does not have.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tower_token_refresh::PostgresStore;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

use crate::servers::Postgres;

fn store(server: &Postgres) -> PostgresStore {
    PostgresStore::new(server.url().parse().unwrap(), NoTls, "session")
}

/// A primary that confirms what its standby has, and that standby, with a table.
fn start() -> (Postgres, Postgres) {
    let primary = Postgres::start().unwrap();
    primary.sql(&store(&primary).create_table_sql()).unwrap();
    let standby = Postgres::standby_of(primary.port()).unwrap();
    primary
        .sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        .unwrap();
    primary.sql("SELECT pg_reload_conf()").unwrap();
    (primary, standby)
}

async fn in_time<F: Future>(call: F) -> F::Output {
    timeout(Duration::from_secs(100), call)
        .await
        .expect("it hangs")
}

// shows P1: a claim that a synchronous standby does not have is lost in a failover to it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_presented_for_a_claim_that_the_synchronous_standby_does_not_have() {
    let (primary, standby) = spawn_blocking(start).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let session = |server: &Postgres| {
        let asked = asked.clone();
        let reissue = reissue_fn(move |_| {
            let n = asked.fetch_add(1, Ordering::Relaxed);
            async move {
                let tokens = TokenSet::new(format!("access-{n}")).map_err(ReissueError::unknown)?;
                tokens
                    .with_refresh_token(format!("refresh-{n}"))
                    .map_err(ReissueError::unknown)
            }
        });
        Session::builder(reissue)
            .shared_store(store(server))
            .build()
            .unwrap()
    };
    let one = session(&primary);
    let tokens = TokenSet::new("first").unwrap();
    let tokens = tokens.with_refresh_token("refresh").unwrap();
    in_time(one.login(tokens)).await.unwrap();
    // The standby is down for a while, and the primary does not confirm anything.
    standby.kill().unwrap();
    let told = in_time(one.refresh()).await;
    let (shown, _) = in_time(store(&primary).read()).await.unwrap();
    drop(one);
    let standby = spawn_blocking(move || {
        primary.kill().unwrap();
        standby.restart().unwrap();
        standby.promote().unwrap();
        standby
    });
    let standby = standby.await.unwrap();
    let (found, _) = in_time(store(&standby).read()).await.unwrap();
    let other = session(&standby);
    let then = in_time(other.refresh()).await;
    let presented = asked.load(Ordering::Relaxed);
    assert!(
        presented < 2,
        "one token was presented {presented} times; the first was told {told:?} and the primary showed version {}; the \
         standby has {}, and the second was told {then:?}",
        shown.version(),
        found.version()
    );
}
