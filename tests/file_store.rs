//! Proves that a session lives on in its file: over a restart, in a file that somebody else has
//! written, and when the file fails (P13).

mod support;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use support::Script;
use support::World;
use tempfile::TempDir;
use tower_token_refresh::FileStore;
use tower_token_refresh::InDoubt;
use tower_token_refresh::Record;
use tower_token_refresh::Session;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::TokenSet;

/// A folder of the test's own, and the file in it.
struct Place {
    folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session.json");
        Self { folder, path }
    }

    fn with(text: impl AsRef<[u8]>) -> Self {
        let place = Self::new();
        fs::write(&place.path, text).unwrap();
        place
    }

    /// The program starts: a session that knows of nothing but the file.
    fn session(&self, world: &World) -> Session {
        let builder = world.builder().shared_store(FileStore::new(&self.path));
        builder.build().unwrap()
    }

    fn text(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.text()).unwrap()
    }

    /// The same without what tells one record from the next, which must be there.
    fn record(&self) -> Value {
        let mut record = self.json();
        for name in ["version", "epoch", "record_id"] {
            let removed = record.as_object_mut().unwrap().remove(name);
            assert!(removed.is_some(), "no {name}");
        }
        record
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// All but the two files that are locked, which stay.
    fn names_but_locks(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| !["session.json.lock", "session.json.witness"].contains(&&**name));
        names
    }

    async fn load(&self) -> Option<TokenSet> {
        FileStore::new(&self.path).load().await.unwrap()
    }

    async fn access_token(&self) -> Option<String> {
        let tokens = self.load().await?;
        Some(tokens.access_token().expose().to_owned())
    }
}

/// The tokens as another program would write them.
fn foreign(tokens: &TokenSet) -> Value {
    json!({
        "theme": "dark",
        "accessToken": tokens.access_token().expose(),
        "refreshToken": tokens.refresh_token().unwrap().expose(),
        "id": 7,
    })
}

fn saved(session: &Session) -> bool {
    format!("{:?}", session.status()).contains("saved: true")
}

async fn until_saved(session: &Session) {
    let mut status = session.subscribe();
    let is_saved = status.wait_for(|_| saved(session));
    support::within(is_saved).await.unwrap();
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let source = error.source().map(chain);
    format!("{error}; {}", source.unwrap_or_default())
}

#[tokio::test]
async fn a_session_goes_on_where_it_stood_when_the_program_ended() {
    let (world, place) = (World::new(), Place::new());
    place
        .session(&world)
        .login(world.tokens("u"))
        .await
        .unwrap();
    assert_eq!(place.access_token().await.as_deref(), Some("a-u-1"));

    let session = place.session(&world);
    assert_eq!(world.client(&session).get().await.unwrap().user, "u");
    assert_eq!(world.counts().reissues, 0);
    world.expire();
    let answer = world.client(&session).get().await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(place.access_token().await.as_deref(), Some("a-u-2"));

    // The rotated refresh token, too: the issuer takes none twice.
    let session = place.session(&world);
    world.expire();
    let answer = world.client(&session).get().await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    world.has_reissued(2);
    assert_eq!(place.names_but_locks(), ["session.json"]);
}

#[tokio::test]
async fn a_file_of_another_program_is_taken_over_at_the_first_save() {
    let world = World::new();
    let text = foreign(&world.tokens("u")).to_string();
    let place = Place::with(&text);
    let session = place.session(&world);
    assert_eq!(world.client(&session).get().await.unwrap().user, "u");
    assert_eq!(place.text(), text.as_bytes(), "reading changes nothing");
    world.expire();
    world.client(&session).get().await.unwrap();
    let mut record = place.record();
    let obtained_at = record.as_object_mut().unwrap().remove("obtained_at");
    assert!(obtained_at.is_some());
    let expected = json!({
        "theme": "dark", "accessToken": "a-u-2", "refreshToken": "r-u-2", "id": 7, "format": 1, "reissues": 1,
    });
    assert_eq!(record, expected);
}

// shows B132, P1, P8: it is another login, whose first request is the next one.
#[tokio::test]
async fn tokens_that_another_program_puts_there_are_used_from_the_next_request_on() {
    let (world, place) = (World::new(), Place::new());
    let session = place.session(&world);
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    let newer = foreign(&world.tokens("u")).to_string();
    fs::write(&place.path, &newer).unwrap();
    let client = world.client(&session);
    let answer = client.get().await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.why.is_some());
    let answer = client.get().await.unwrap();
    assert_eq!((answer.status, answer.user.as_str()), (StatusCode::OK, "u"));
    assert_eq!(world.counts().reissues, 0);
    assert_eq!(place.text(), newer.as_bytes());
}

#[tokio::test]
async fn a_refresh_token_in_doubt_is_so_after_a_restart() {
    let (world, place) = (World::new(), Place::new());
    let since = std::time::SystemTime::now();
    let doubt = InDoubt::new(since, 2);
    let tokens = world.tokens("u").with_in_doubt(doubt);
    place.session(&world).login(tokens).await.unwrap();
    assert_eq!(place.load().await.unwrap().in_doubt(), Some(doubt));
}

#[tokio::test]
async fn a_logout_leaves_no_token_in_the_file() {
    let world = World::new();
    let place = Place::with(foreign(&world.tokens("u")).to_string());
    let session = place.session(&world);
    world.client(&session).get().await.unwrap();
    session.logout().await.unwrap();
    assert_eq!(
        place.record(),
        json!({"theme": "dark", "format": 1, "logged_out": true, "ended": "logged_out"})
    );
    let session = place.session(&world);
    world.client(&session).get().await.unwrap();
    assert!(!session.status().is_logged_in());
    assert_eq!(world.seen().last().unwrap().token, None);
    session.login(world.tokens("u")).await.unwrap();
    assert_eq!(place.access_token().await.as_deref(), Some("a-u-2"));
}

// shows B124, P6
#[tokio::test]
async fn the_end_of_a_session_leaves_no_token_in_the_file() {
    let (world, place) = (World::new(), Place::new());
    let session = place.session(&world);
    session.login(world.tokens("u")).await.unwrap();
    world.expire();
    world.script(Script::Refuse);
    let answer = world.client(&session).get().await.unwrap();
    assert!(answer.why.unwrap().is_session_ended());
    // The waiters are told first.
    for _ in 0..10_000 {
        if place.load().await.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut record = place.record();
    let ended = record.as_object_mut().unwrap().remove("ended");
    assert!(ended.is_some());
    assert_eq!(record, json!({"format": 1, "logged_out": true}));
}

// shows B126, P13
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_pair_that_the_file_does_not_take_is_used_from_memory_and_saved_later() {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    let (world, place) = (World::new(), Place::new());
    let session = place.session(&world);
    session.login(world.tokens("u")).await.unwrap();
    let protect = |mode| fs::set_permissions(&place.path, Permissions::from_mode(mode)).unwrap();
    world.expire();
    // It takes the claim, without which nothing is reissued, and then no more.
    world.hold_reissues();
    let request = tokio::spawn(world.client(&session).get());
    world.until(|counts| counts.reissues == 1).await;
    protect(0o400);
    world.release_reissues();
    let answer = request.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.user.as_str()), (StatusCode::OK, "u"));
    assert!(!saved(&session));
    assert_eq!(place.access_token().await.as_deref(), Some("a-u-1"));
    protect(0o600);
    until_saved(&session).await;
    assert_eq!(place.access_token().await.as_deref(), Some("a-u-2"));
}

// shows P13
#[tokio::test(start_paused = true)]
async fn a_login_whose_folder_is_gone_is_saved_when_it_is_back() {
    let (world, place) = (World::new(), Place::new());
    let session = place.session(&world);
    fs::remove_dir(place.folder.path()).unwrap();
    let error = session.login(world.tokens("u")).await.unwrap_err();
    assert!(error.is_not_saved());
    let said = chain(&error);
    assert!(
        said.contains("session.json: its folder is missing: create it"),
        "{said}"
    );
    assert!(session.status().is_logged_in() && !saved(&session));
    let client = world.client(&session);
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    // Nothing is reissued where the others could not be told.
    world.expire();
    let answer = client.get().await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.why.unwrap().is_store());
    assert_eq!(world.counts().reissues, 0);
    fs::create_dir(place.folder.path()).unwrap();
    until_saved(&session).await;
    assert_eq!(place.access_token().await.as_deref(), Some("a-u-1"));
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    assert_eq!(place.access_token().await.as_deref(), Some("a-u-2"));
}

// shows B7: a file that cannot be read is no logout, and nothing is reissued that may be lost.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_damaged_meanwhile_stops_the_reissue_and_nothing_else() {
    let (world, place) = (World::new(), Place::new());
    let session = place.session(&world);
    let client = world.client(&session);
    session.login(world.tokens("u")).await.unwrap();
    let whole = place.text();
    let damaged = &whole[..whole.len() / 2];
    fs::write(&place.path, damaged).unwrap();
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    world.expire();
    let answer = client.get().await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.why.unwrap().is_store());
    assert_eq!(world.counts().reissues, 0);
    assert!(session.status().is_logged_in());
    assert_eq!(place.text(), damaged);
    fs::write(&place.path, whole).unwrap();
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    assert_eq!(place.access_token().await.as_deref(), Some("a-u-2"));
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_used_and_neither_written_nor_reissued_from() {
    let world = World::new();
    let mut record = foreign(&world.tokens("u"));
    record["format"] = json!(2);
    let text = record.to_string();
    let place = Place::with(&text);
    let session = place.session(&world);
    let client = world.client(&session);
    assert_eq!(client.get().await.unwrap().user, "u");
    world.expire();
    let answer = client.get().await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.why.unwrap().is_misconfigured());
    assert_eq!(world.counts().reissues, 0);
    let error = session.login(world.tokens("v")).await.unwrap_err();
    assert!(error.is_not_saved());
    let said = chain(&error);
    assert!(said.contains("a newer version"), "{said}");
    assert_eq!(place.text(), text.as_bytes());
    let error = FileStore::new(&place.path).save(&world.tokens("v")).await;
    let said = error.unwrap_err().to_string();
    assert!(said.contains("session.json: a newer version"), "{said}");
    assert_eq!(place.text(), text.as_bytes());
}

#[track_caller]
fn refused(path: &Path, what: &str) {
    let store = FileStore::new(path);
    let tokens = TokenSet::new("CANARY-new").unwrap();
    let record = br#"{"format":1,"version":1,"access_token":"CANARY-new"}"#;
    let record = Record::from_json(record).unwrap();
    let before = fs::read(path).ok();
    let errors = futures::executor::block_on(async {
        [
            store.load().await.map(drop),
            store.save(&tokens).await,
            store.clear().await,
            store.read().await.map(drop),
            store.swap(0, &record).await.map(drop),
        ]
    });
    for error in errors {
        let error = error.expect_err(what);
        let said = chain(&*error);
        assert!(said.contains(what), "{said}");
        assert!(said.starts_with(&store.path().display().to_string()));
        assert!(!format!("{said} {error:?} {store:?}").contains("CANARY"));
    }
    assert_eq!(fs::read(path).ok(), before);
}

// shows B7, P12
#[test]
fn a_file_that_is_not_what_it_should_be_is_refused_and_left_as_it_is() {
    for (text, what) in [
        ("", "it is empty"),
        ("CANARY", "it is no JSON"),
        (r#"{"access_token":"CANARY"#, "it breaks off"),
        (r#"["CANARY"]"#, "but no object"),
        (r#"{"refresh_token":"CANARY"}"#, "it has no access token"),
        (r#"{"access_token":["CANARY"]}"#, "is no text"),
        (
            r#"{"access_token":"CANARY\r\nCANARY"}"#,
            "contains a control character",
        ),
        (
            r#"{"access_token":"a","accessToken":"CANARY"}"#,
            "say different things",
        ),
        (
            r#"{"access_token":"a","access_token":"CANARY"}"#,
            "a member twice",
        ),
        (
            &format!(r#"{{"access_token":"{}"}}"#, "CANARY".repeat(1 << 18)),
            "larger than",
        ),
    ] {
        let place = Place::with(text);
        refused(&place.path, what);
        assert_eq!(place.names(), ["session.json"]);
    }
}

#[test]
fn a_path_that_can_hold_no_file_is_refused() {
    let place = Place::with("{}");
    refused(place.folder.path(), "it is a folder");
    refused(&place.path.join("below"), "cannot be opened");
    refused(
        &place.folder.path().join("no/session.json"),
        "its folder is missing",
    );
    for path in ["", "/", ".."] {
        refused(Path::new(path), "names no file");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_yet_means_that_nobody_is_logged_in() {
    let place = Place::new();
    let store = FileStore::new(&place.path);
    assert!(store.load().await.unwrap().is_none());
    store.clear().await.unwrap();
    assert!(place.names().is_empty());
    store.save(&TokenSet::new("a").unwrap()).await.unwrap();
    assert_eq!(place.access_token().await.as_deref(), Some("a"));
}

#[test]
fn it_works_without_a_runtime_and_under_one_that_was_shut_down() {
    let place = Place::new();
    let store = FileStore::new(&place.path);
    let save = |token| {
        let tokens = TokenSet::new(token).unwrap();
        futures::executor::block_on(store.save(&tokens)).unwrap();
        let kept = futures::executor::block_on(store.load()).unwrap().unwrap();
        assert_eq!(kept.access_token().expose(), token);
    };
    save("a");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    let _entered = handle.enter();
    save("b");
    runtime.shutdown_background();
    save("c");
}
