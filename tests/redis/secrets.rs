//! What others can see of a session: in the commands that reach the server, in the keys and channels, in what
//! is printed (P12, S20).

use futures::StreamExt;
use tokio::time::timeout;
use tower_token_refresh::Record;
use tower_token_refresh::RedisStore;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;

use crate::common::HANG;
use crate::common::Place;
use crate::common::SECRET;
use crate::common::ask;
use crate::common::client;
use crate::common::from;
use crate::common::read;
use crate::common::server;
use crate::common::swap;

const NAME: &str = "canary-name@example.com";
const TOKENS: [&str; 2] = ["canary-access-token", "canary-refresh-token"];

fn record(version: u64) -> Record {
    from(serde_json::json!({
        "version": version, "epoch": 1, "access_token": TOKENS[0], "refresh_token": TOKENS[1],
        "id": "canary-id",
    }))
}

async fn replace(store: &RedisStore, version: u64) {
    let swapped = swap(store, version, &record(version + 1)).await;
    assert_eq!(swapped.unwrap(), Swap::Done);
}

/// Whatever can be made of a text, in which it must not be.
fn forms(canary: &str) -> Vec<String> {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    let hex: String = canary.bytes().map(|byte| format!("{byte:02x}")).collect();
    // Without what depends on what comes before and after.
    let base64 = [0, 1, 2].map(|skip| {
        let text = BASE64_STANDARD.encode(&canary[skip..]);
        text[..text.len() / 4 * 4 - 4].to_owned()
    });
    [canary.to_owned(), hex].into_iter().chain(base64).collect()
}

/// All that the server is told while the store is used, and what is in it afterwards.
async fn seen(secret: bool) -> String {
    let server = server(&[]);
    let place = Place::of(&server);
    let client = client(&place.url);
    let monitor = client.get_async_monitor().await.unwrap();
    let mut lines = monitor.into_on_message::<String>();
    let store = RedisStore::new(client, NAME).prefix(&place.prefix);
    let store = match secret {
        true => store.secret(SECRET).unwrap(),
        false => store,
    };
    for version in 0..3 {
        read(&store).await.unwrap();
        replace(&store, version).await;
    }
    let other = store.session(NAME);
    let told = timeout(HANG, async {
        tokio::join!(store.changed(3), replace(&other, 3))
    });
    told.await.expect("it hangs");
    let mut admin = place.admin().await;
    let mut seen = format!("{store:?} {store:#?}\n");
    let clients: String = ask(&mut admin, &["CLIENT", "LIST"]).await;
    let channels: Vec<String> = ask(&mut admin, &["PUBSUB", "CHANNELS"]).await;
    seen += &format!("{clients} {channels:?}\n");
    for key in place.keys().await {
        let fields: Vec<String> = ask(&mut admin, &["HGETALL", &key]).await;
        seen += &format!("{key} {fields:?}\n");
    }
    let _: String = ask(&mut admin, &["ECHO", "this is the end"]).await;
    let end = async {
        while let Some(line) = lines.next().await {
            seen += &line;
            seen.push('\n');
            if line.contains("this is the end") {
                return;
            }
        }
    };
    timeout(HANG, end).await.expect("it hangs");
    // It has seen what there is to be seen.
    for word in ["EVALSHA", "SUBSCRIBE", "sealed1", "HSET"] {
        let is_there = seen.to_uppercase().contains(&word.to_uppercase());
        assert!(
            is_there || (!secret && word == "sealed1"),
            "{word}:\n{seen}"
        );
    }
    seen
}

// shows S20, P12
#[tokio::test]
async fn with_a_secret_the_server_is_shown_neither_the_name_nor_a_token() {
    let seen = seen(true).await;
    for canary in [NAME, TOKENS[0], TOKENS[1], "canary-id", "a secret of"] {
        for form in forms(canary) {
            assert!(!seen.contains(&form), "{form}:\n{seen}");
        }
    }
    assert!(!seen.contains("canary"), "{seen}");
}

// shows S20
#[tokio::test]
async fn without_a_secret_the_server_is_shown_no_name() {
    let seen = seen(false).await;
    for form in forms(NAME) {
        assert!(!seen.contains(&form), "{form}:\n{seen}");
    }
    // As the docs say, whoever can read the database can use the tokens.
    assert!(seen.contains(TOKENS[0]));
}

#[tokio::test]
async fn a_secret_that_is_wrong_or_missing_finds_nothing_and_breaks_nothing() {
    let place = Place::new();
    let ours = place.sealed();
    replace(&ours, 0).await;
    let others = [
        place.store(),
        place.store().secret("another secret of 16 bytes").unwrap(),
    ];
    for other in others {
        let (found, _) = read(&other).await.unwrap();
        assert_eq!(found.version(), 0);
    }
    assert_eq!(read(&ours).await.unwrap().0.version(), 1);
}
