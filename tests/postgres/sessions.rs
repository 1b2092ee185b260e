//! What a session does when something is wrong with its database: a valid token is used, nothing is reissued, the
//! reason is told, and all goes on when it is put right (B7, S14).

use std::time::Duration;

use http::StatusCode;
use tokio_postgres::NoTls;
use tower_token_refresh::PostgresStore;
use tower_token_refresh::RefreshError;
use tower_token_refresh::Session;

use crate::scene::Database;
use crate::scene::in_time;
use crate::servers::PgBouncer;
use crate::servers::Postgres;
use crate::support::Client;
use crate::support::World;

const TABLE: &str = "token_refresh_sessions";

/// A session that is logged in.
struct Scene {
    world: World,
    session: Session,
    client: Client,
}

impl Scene {
    async fn new(store: PostgresStore) -> Self {
        let world = World::new();
        let session = session(&world, store);
        session.login(world.tokens("u")).await.unwrap();
        let client = world.client(&session);
        let scene = Self {
            world,
            session,
            client,
        };
        scene.world.expire();
        scene.is_ok().await;
        scene
    }

    async fn status(&self) -> (StatusCode, Option<RefreshError>) {
        let answer = in_time(self.client.get()).await.unwrap();
        (answer.status, answer.why)
    }

    async fn is_ok(&self) {
        let (status, why) = self.status().await;
        assert_eq!(status, StatusCode::OK, "{why:?}");
    }

    async fn bears_it(&self, words: &str) {
        let reissues = self.world.counts().reissues;
        self.is_ok().await;
        self.world.expire();
        let (status, why) = self.status().await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let why = why.unwrap();
        assert!(why.is_store() && why.is_transient(), "{why:?}");
        assert!(format!("{why:?}").contains(words), "{why:?}");
        assert_eq!(self.world.counts().reissues, reissues);
        assert!(self.session.status().is_logged_in());
    }

    async fn goes_on(&self) {
        let reissues = self.world.counts().reissues;
        let ok = async {
            while self.status().await.0 != StatusCode::OK {
                tokio::task::yield_now().await;
            }
        };
        in_time(ok).await;
        let counts = self.world.counts();
        assert_eq!((counts.reissues, counts.reuses), (reissues + 1, 0));
    }
}

fn session(world: &World, store: PostgresStore) -> Session {
    let moment = Duration::from_millis(1);
    let builder = world.builder().shared_store(store);
    builder.cool_down(moment, moment).build().unwrap()
}

#[tokio::test]
async fn a_database_that_takes_no_writes() {
    let database = Database::with_table().await;
    let config = database.config_of_another().await;
    let user = config.get_user().unwrap().to_owned();
    let grant = format!("GRANT SELECT, INSERT, UPDATE ON {TABLE} TO {user}");
    database.sql(&grant).await;
    let scene = Scene::new(PostgresStore::new(config, NoTls, "any")).await;
    database
        .sql(&format!("REVOKE UPDATE ON {TABLE} FROM {user}"))
        .await;
    scene.bears_it("42501").await;
    database.sql(&grant).await;
    scene.goes_on().await;
}

#[tokio::test]
async fn a_table_that_is_away() {
    let database = Database::with_table().await;
    let scene = Scene::new(database.store("any")).await;
    database
        .sql(&format!("ALTER TABLE {TABLE} RENAME TO away"))
        .await;
    scene.bears_it("create_table").await;
    database
        .sql(&format!("ALTER TABLE away RENAME TO {TABLE}"))
        .await;
    scene.goes_on().await;
}

#[tokio::test]
async fn the_record_of_another_session() {
    let database = Database::with_table().await;
    let store = database.store("any");
    let scene = Scene::new(store.clone()).await;
    let other = Scene::new(store.session("other")).await;
    let keep = format!("CREATE TABLE kept AS TABLE {TABLE}");
    database.sql(&keep).await;
    let copy = format!(
        "UPDATE {TABLE} SET record = kept.record FROM kept WHERE kept.session <> {TABLE}.session"
    );
    database.sql(&copy).await;
    scene.bears_it("another session").await;
    let back = format!(
        "UPDATE {TABLE} SET record = kept.record FROM kept WHERE kept.session = {TABLE}.session"
    );
    database.sql(&back).await;
    scene.goes_on().await;
    other.is_ok().await;
}

#[tokio::test]
async fn a_server_that_is_killed() {
    let server = Postgres::start().unwrap();
    let database = Database::on(&server.url()).await;
    let store = database.store("any");
    store.create_table().await.unwrap();
    let scene = Scene::new(store).await;
    server.kill().unwrap();
    scene.bears_it("the connection to PostgreSQL").await;
    server.restart().unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_server_that_is_stopped() {
    let server = Postgres::start().unwrap();
    let database = Database::on(&server.url()).await;
    let store = database.store("any");
    store.create_table().await.unwrap();
    let world = World::new();
    let moment = Duration::from_millis(1);
    // The session's own deadline is the one that counts.
    let session = world
        .builder()
        .shared_store(store)
        .cool_down(moment, moment)
        .store_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    session.login(world.tokens("u")).await.unwrap();
    let client = world.client(&session);
    let scene = Scene {
        world,
        session,
        client,
    };
    server.stop().unwrap();
    scene.bears_it("").await;
    server.resume().unwrap();
    scene.goes_on().await;
}

// shows P1: processes on several machines, and the pooler that they have in common.
#[tokio::test]
async fn processes_that_share_a_login_make_one_reissue() {
    let server = Postgres::start().unwrap();
    let pooler = PgBouncer::start(&server).unwrap();
    for url in [server.url(), pooler.url()] {
        let database = Database::on(&url).await;
        database.store("any").create_table().await.unwrap();
        let scene = Scene::new(database.store("any")).await;
        let processes: Vec<_> = (0..4)
            .map(|_| session(&scene.world, database.store("any")))
            .collect();
        let clients: Vec<_> = processes.iter().map(|it| scene.world.client(it)).collect();
        for round in 2..6 {
            scene.world.expire();
            let gets = clients
                .iter()
                .flat_map(|client| [client.get(), client.get()]);
            for answer in in_time(futures::future::join_all(gets)).await {
                let answer = answer.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.why);
            }
            let counts = scene.world.counts();
            assert_eq!((counts.reissues, counts.reuses), (round, 0));
        }
    }
}
