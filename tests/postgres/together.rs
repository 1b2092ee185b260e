//! Many sessions and many processes on one table.

use std::sync::Arc;
use std::sync::Barrier;

use futures::future::join_all;
use tower_token_refresh::PostgresStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

use crate::scene::Database;
use crate::scene::in_time;
use crate::scene::read;
use crate::scene::record;
use crate::scene::settle_down;
use crate::scene::swap;
use crate::scene::until_it_hears;
use crate::servers::PgBouncer;
use crate::servers::Postgres;

const TABLE: &str = "token_refresh_sessions";
const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                           AND application_name = 'tower-token-refresh'";

// shows P1: two runtimes, as two processes; in each round all have seen the same version.
#[test]
fn of_several_swaps_with_one_version_exactly_one_is_done_and_none_is_lost() {
    const TASKS: usize = 4;
    const ROUNDS: u64 = 50;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let database = runtime.block_on(Database::with_table());
    let barrier = Arc::new(Barrier::new(2));
    let process = |barrier: Arc<Barrier>| {
        let store = database.config();
        let store = PostgresStore::new(store, tokio_postgres::NoTls, "any");
        std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            let mut done = Vec::new();
            for version in 0..ROUNDS {
                barrier.wait();
                let swaps = (0..TASKS).map(|_| {
                    let store = store.clone();
                    runtime.spawn(async move { store.swap(version, &record(version + 1)).await })
                });
                let swaps = runtime.block_on(join_all(swaps.collect::<Vec<_>>()));
                barrier.wait();
                let found = runtime.block_on(store.read());
                let swaps = swaps.into_iter().map(|swap| swap.unwrap().ok());
                done.push((
                    swaps.collect::<Vec<_>>(),
                    found.map(|it| it.0.version()).ok(),
                ));
            }
            done
        })
    };
    let processes = [process(barrier.clone()), process(barrier)];
    let [one, other] = processes.map(|it| it.join().unwrap());
    for (round, (one, other)) in (1..).zip(one.into_iter().zip(other)) {
        assert_eq!((one.1, other.1), (Some(round), Some(round)));
        let all = [one.0, other.0].concat();
        let done = all.iter().filter(|it| **it == Some(Swap::Done)).count();
        let conflicts = all.iter().filter(|it| **it == Some(Swap::Conflict));
        assert_eq!((done, conflicts.count()), (1, 2 * TASKS - 1), "{round}");
    }
}

#[tokio::test]
async fn a_thousand_sessions_have_two_connections_and_leave_none_behind() {
    let database = Database::with_table().await;
    let store = database.store("any");
    until_it_hears(&store).await;
    let sessions: Vec<_> = (0..1_000).map(|i| store.session(&i.to_string())).collect();
    let swaps = in_time(join_all(sessions.iter().map(|it| swap(it, 0)))).await;
    assert!(swaps.iter().all(|it| matches!(it, Ok(Swap::Done))));
    let waits: Vec<_> = sessions
        .iter()
        .map(|session| {
            let session = session.clone();
            tokio::spawn(async move { session.changed(1).await })
        })
        .collect();
    let reads = in_time(join_all(sessions.iter().map(read))).await;
    assert!(
        reads
            .iter()
            .all(|it| it.as_ref().is_ok_and(|it| it.version() == 1))
    );
    assert_eq!(database.count(CONNECTIONS).await, 2);
    assert_eq!(
        database
            .count(&format!("SELECT count(*) FROM {TABLE}"))
            .await,
        1_000
    );
    drop(sessions);
    for waits in waits {
        waits.abort();
    }
    assert_eq!(database.count(CONNECTIONS).await, 2, "one session is left");
    drop(store);
    database.until(CONNECTIONS, 0).await;
}

#[tokio::test]
async fn nothing_is_connected_before_the_first_use() {
    let database = Database::with_table().await;
    database.until(CONNECTIONS, 0).await;
    let store = database.store("any").session("other").table(TABLE).unwrap();
    settle_down().await;
    assert_eq!(database.count(CONNECTIONS).await, 0);
    drop(store);
}

// A pool of the user's may be named, and found in the server's lists.
#[tokio::test]
async fn a_name_of_the_application_that_the_user_has_set_stays() {
    let database = Database::with_table().await;
    let mut config = database.config();
    config.application_name("of-the-user");
    let store = PostgresStore::new(config, tokio_postgres::NoTls, "any");
    read(&store).await.unwrap();
    let named = CONNECTIONS.replace("tower-token-refresh", "of-the-user");
    assert_eq!(database.count(&named).await, 1);
}

// A poll would take 15 s here.
#[tokio::test]
async fn who_waits_for_a_change_is_told_of_it() {
    let database = Database::with_table().await;
    let (store, other) = (database.store("any"), database.store("any"));
    until_it_hears(&store).await;
    for version in 0..20 {
        let waiting = store.clone();
        let waits = tokio::spawn(async move { waiting.changed(version).await });
        settle_down().await;
        assert_eq!(swap(&other, version).await.unwrap(), Swap::Done);
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), waits);
        told.await.expect("it is not told").unwrap();
    }
    // Of one that was not done nobody is told: the channel says so to a stranger.
    assert_eq!(swap(&other, 1).await.unwrap(), Swap::Conflict);
    assert_eq!(swap(&other, 0).await.unwrap(), Swap::Conflict);
}

// The statements are the same, and so is the pool of connections behind the pooler.
#[tokio::test]
async fn behind_a_pooler_nothing_is_left_listening() {
    let server = Postgres::start().unwrap();
    let pooler = PgBouncer::start(&server).unwrap();
    let database = Database::on(&pooler.url()).await;
    let direct = crate::scene::client(&crate::scene::url_of(&server.url(), &database.name)).await;
    let store = database.store("any");
    in_time(store.create_table()).await.unwrap();
    let tried = format!("SELECT count(*) FROM {TABLE}");
    for version in 0..10 {
        assert_eq!(swap(&store, version).await.unwrap(), Swap::Done);
        in_time(store.changed(version + 1)).await;
    }
    assert_eq!(database.count(&tried).await, 1);
    assert!(format!("{store:?}").contains("is_hearing: false"));
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^(UN)?LISTEN'";
    let row = direct.query_one(listening, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_create_the_table_at_once() {
    for _ in 0..5 {
        let database = Database::new().await;
        let stores: Vec<_> = (0..20).map(|i| database.store(&i.to_string())).collect();
        // Connected already, so that they meet.
        join_all(stores.iter().map(read)).await;
        let created = stores
            .into_iter()
            .map(|store| tokio::spawn(async move { in_time(store.create_table()).await }));
        for created in join_all(created.collect::<Vec<_>>()).await {
            created.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn the_table_can_be_made_by_hand_and_be_another() {
    let database = Database::new().await;
    database.sql("CREATE SCHEMA \"Aside\"").await;
    let store = database.store("any").table("Aside.Sessions$1").unwrap();
    database.sql(&store.create_table_sql()).await;
    assert_eq!(swap(&store, 0).await.unwrap(), Swap::Done);
    assert_eq!(
        database
            .count("SELECT count(*) FROM \"Aside\".\"Sessions$1\"")
            .await,
        1
    );
    in_time(store.create_table()).await.unwrap();
    assert_eq!(read(&store).await.unwrap().version(), 1);
}

// shows that a new pair outlives a crash of the server where commits may be lost.
#[tokio::test]
async fn a_commit_is_durable_and_what_is_stronger_stays() {
    let database = Database::with_table().await;
    // What counts is what is set when the transaction commits.
    let watch = format!(
        "CREATE TABLE seen (it text); \
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER see AFTER INSERT OR UPDATE ON {TABLE} \
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see()"
    );
    database.sql(&watch).await;
    for (set, counts) in [
        ("off", "on"),
        ("on", "on"),
        ("local", "local"),
        ("remote_write", "remote_write"),
        ("remote_apply", "remote_apply"),
    ] {
        database.set(&format!("synchronous_commit = {set}")).await;
        database
            .sql(&format!("TRUNCATE {TABLE}; TRUNCATE seen"))
            .await;
        let store = database.store("any");
        for version in 0..2 {
            assert_eq!(swap(&store, version).await.unwrap(), Swap::Done);
        }
        let seen = "SELECT string_agg(it, ' ') FROM seen";
        assert_eq!(
            database.text(seen).await,
            format!("{counts} {counts}"),
            "{set}"
        );
    }
}
