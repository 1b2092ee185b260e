//! Nothing of a session's name is shown in the database, nor with a secret anything of its tokens (S20).

use serde_json::json;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

use crate::scene::Database;
use crate::scene::SECRET;
use crate::scene::in_time;
use crate::scene::read;
use crate::scene::record_of;
use crate::scene::until_it_hears;
use crate::servers::Postgres;

const NAME: &str = "canary-of-the-name";
const TOKEN: &str = "canary-of-the-token";

/// What the server has shown while a session was in use: its log with all statements and their parameters, what is
/// told on the channel, the lists of connections and the table itself.
async fn shown(secret: bool) -> String {
    let server = Postgres::start_with(&["log_statement=all", "log_min_messages=debug1"]).unwrap();
    let database = Database::on(&server.url()).await;
    let store = || {
        let store = database.store("any").session(NAME);
        match secret {
            true => store.secret(SECRET).unwrap(),
            false => store,
        }
    };
    let (store, other) = (store(), store());
    in_time(store.create_table()).await.unwrap();
    let canary = |version: u64| {
        record_of(json!({
            "version": version, "epoch": 1, "access_token": TOKEN, "refresh_token": TOKEN,
            "id": TOKEN, "email": TOKEN,
        }))
    };
    let mut shown = String::new();
    until_it_hears(&other).await;
    for version in 0..3 {
        let waiting = other.clone();
        let waits = tokio::spawn(async move { waiting.changed(version).await });
        let swapped = in_time(store.swap(version, &canary(version + 1))).await;
        assert_eq!(swapped.unwrap(), Swap::Done);
        assert_eq!(read(&other).await.unwrap().version(), version + 1);
        in_time(waits).await.unwrap();
        let lists = "SELECT string_agg(it::text, '') FROM pg_stat_activity AS it";
        shown += &database.text(lists).await;
    }
    let table = "SELECT string_agg(it::text, '') FROM token_refresh_sessions AS it";
    shown += &database.text(table).await;
    shown += &format!("{store:?} {other:?}");
    server.sql("SELECT 'the end of what is shown'").unwrap();
    server.wait_for_line(0, "the end of what is shown").unwrap();
    for line in 0..server.lines() {
        shown += &server.wait_for_line(line, "").unwrap();
    }
    shown
}

// shows S20
#[tokio::test]
async fn with_a_secret_neither_its_name_nor_its_tokens_are_shown() {
    let shown = shown(true).await;
    assert_eq!(shown.matches(NAME).count(), 0);
    assert_eq!(shown.matches(TOKEN).count(), 0);
    assert!(
        shown.contains("UPDATE \"token_refresh_sessions\""),
        "{shown}"
    );
    assert!(shown.contains("sealed1 "), "parameters are in the log");
    assert!(shown.contains("LISTEN"), "{shown}");
}

#[tokio::test]
async fn without_a_secret_its_name_is_not_shown() {
    let shown = shown(false).await;
    assert_eq!(shown.matches(NAME).count(), 0);
    assert!(shown.contains(TOKEN), "the tokens are there as they are");
}
