//! Proves what a session does when something is wrong with the file that it shares: the last good pair is
//! kept, a valid access token goes on being used, nothing is reissued, each failure is told within its
//! deadline, and all goes on when it is put right (B7, S14, DESIGN section 7).

mod support;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use support::Client;
use support::World;
use tempfile::TempDir;
use tokio::time::timeout;
use tower_token_refresh::FileStore;
use tower_token_refresh::Session;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::StoreLock;
use tower_token_refresh::Swap;

/// Far more than the deadlines of the sessions here.
const HANG: Duration = Duration::from_secs(60);

/// A session on a file, logged in, and some of what was in the file before.
struct Scene {
    world: World,
    folder: TempDir,
    session: Session,
    client: Client,
    /// The record of the login before the reissue that the session has made.
    older: Vec<u8>,
}

impl Scene {
    async fn new() -> Self {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        fs::create_dir(folder.path().join("in")).unwrap();
        let session = session(&world, &folder.path().join("in/session.json"));
        session.login(world.tokens("u")).await.unwrap();
        let client = world.client(&session);
        let scene = Self {
            world,
            folder,
            session,
            client,
            older: Vec::new(),
        };
        let older = fs::read(scene.file()).unwrap();
        scene.world.expire();
        scene.is_ok().await;
        Self { older, ..scene }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("in")
    }

    fn file(&self) -> PathBuf {
        self.home().join("session.json")
    }

    async fn status(&self) -> (StatusCode, Option<tower_token_refresh::RefreshError>) {
        let answer = timeout(HANG, self.client.get()).await.expect("a deadline");
        let answer = answer.unwrap();
        (answer.status, answer.why)
    }

    async fn is_ok(&self) {
        let (status, why) = self.status().await;
        assert_eq!(status, StatusCode::OK, "{why:?}");
    }

    /// The valid token is used, and when it is no longer, nothing is reissued.
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

    /// It is put right: the pair that was kept is good for a reissue.
    async fn goes_on(&self) {
        let reissues = self.world.counts().reissues;
        let ok = async {
            while self.status().await.0 != StatusCode::OK {
                tokio::task::yield_now().await;
            }
        };
        timeout(HANG, ok).await.expect("it goes on");
        let counts = self.world.counts();
        assert_eq!((counts.reissues, counts.reuses), (reissues + 1, 0));
    }
}

fn session(world: &World, file: &Path) -> Session {
    let moment = Duration::from_millis(1);
    let builder = world.builder().store(FileStore::new(file));
    let builder = builder
        .cool_down(moment, moment)
        .store_timeout(Duration::from_millis(500))
        .reissue_timeout(Duration::from_millis(500));
    builder.build().unwrap()
}

#[tokio::test]
async fn a_file_that_breaks_off() {
    let scene = Scene::new().await;
    let text = fs::read(scene.file()).unwrap();
    fs::write(scene.file(), &text[..text.len() / 2]).unwrap();
    scene.bears_it("breaks off").await;
    assert_eq!(fs::read(scene.file()).unwrap(), text[..text.len() / 2]);
    fs::write(scene.file(), text).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_backup_that_was_put_back() {
    let scene = Scene::new().await;
    let text = fs::read(scene.file()).unwrap();
    fs::write(scene.file(), &scene.older).unwrap();
    scene.bears_it("older").await;
    fs::write(scene.file(), text).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn the_record_of_another_session() {
    let scene = Scene::new().await;
    let (other, text) = (Scene::new().await, fs::read(scene.file()).unwrap());
    fs::copy(other.file(), scene.file()).unwrap();
    scene.bears_it("another").await;
    fs::write(scene.file(), text).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_record_of_a_newer_version() {
    let scene = Scene::new().await;
    let text = fs::read_to_string(scene.file()).unwrap();
    let newer = text.replace("\"format\": 1", "\"format\": 2");
    assert_ne!(newer, text);
    fs::write(scene.file(), &newer).unwrap();
    scene.bears_it("newer version").await;
    assert_eq!(fs::read_to_string(scene.file()).unwrap(), newer);
    fs::write(scene.file(), text).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_folder_that_is_gone() {
    let scene = Scene::new().await;
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::rename(scene.home(), &elsewhere).unwrap();
    scene.bears_it("folder is missing").await;
    fs::rename(elsewhere, scene.home()).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_file_that_was_removed() {
    let scene = Scene::new().await;
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::rename(scene.file(), &elsewhere).unwrap();
    scene.bears_it("older record").await;
    fs::rename(elsewhere, scene.file()).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_file_that_may_not_be_written() {
    let scene = Scene::new().await;
    let mut permissions = fs::metadata(scene.file()).unwrap().permissions();
    let before = permissions.clone();
    permissions.set_readonly(true);
    fs::set_permissions(scene.file(), permissions).unwrap();
    scene.bears_it("write-protected").await;
    fs::set_permissions(scene.file(), before).unwrap();
    scene.goes_on().await;
}

// shows P13: the pair that was on its way is kept until the file is back.
#[tokio::test]
async fn a_file_that_is_away_when_the_new_tokens_come() {
    let scene = Scene::new().await;
    scene.world.expire();
    scene.world.hold_reissues();
    let elsewhere = scene.folder.path().join("elsewhere");
    let (answer, ()) = tokio::join!(scene.client.get(), async {
        scene.world.until(|counts| counts.reissues == 2).await;
        fs::rename(scene.file(), &elsewhere).unwrap();
        scene.world.release_reissues();
    });
    assert_eq!(
        answer.unwrap().status,
        StatusCode::OK,
        "it is used from memory"
    );
    fs::rename(elsewhere, scene.file()).unwrap();
    scene.world.expire();
    scene.goes_on().await;
}

// shows P8: nobody brings back what was removed.
#[tokio::test]
async fn a_file_that_was_removed_is_not_written_again_by_who_has_not_seen_it() {
    let scene = Scene::new().await;
    let store = FileStore::new(scene.file());
    let (record, _) = SharedTokenStore::read(&store).await.unwrap();
    fs::remove_file(scene.file()).unwrap();
    assert_eq!(
        store.swap(record.version(), &record).await.unwrap(),
        Swap::Conflict
    );
    assert!(!scene.file().exists());
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_with_a_second_name() {
    let scene = Scene::new().await;
    let second = scene.home().join("second");
    fs::hard_link(scene.file(), &second).unwrap();
    scene.bears_it("hard link").await;
    fs::remove_file(second).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_lock_that_somebody_else_never_gives_back() {
    let scene = Scene::new().await;
    let other = FileStore::new(scene.file());
    let held: Option<StoreLock> = other.lock(HANG).await.unwrap();
    scene.bears_it("session.json.lock").await;
    // A logout need not wait for it, nor a login.
    scene.session.login(scene.world.tokens("v")).await.unwrap();
    scene.is_ok().await;
    drop(held);
    scene.world.expire();
    scene.goes_on().await;
}

// shows that what may have been fetched elsewhere is not lost to a file that cannot be read for a while.
#[tokio::test]
async fn what_others_have_stored_meanwhile_is_adopted() {
    let scene = Scene::new().await;
    let other = session(&scene.world, &scene.file());
    let client = scene.world.client(&other);
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::rename(scene.home(), &elsewhere).unwrap();
    scene.bears_it("folder is missing").await;
    fs::rename(elsewhere, scene.home()).unwrap();
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    let adopted = async {
        while scene.status().await.0 != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, adopted).await.expect("it goes on");
    assert_eq!(
        (scene.world.counts().reissues, scene.world.counts().reuses),
        (2, 0)
    );
}
