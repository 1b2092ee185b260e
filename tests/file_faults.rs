//! Proves what a session does when something is wrong with the file that it shares: the last good pair is
//! kept, a valid access token goes on being used, nothing is reissued, each failure is told within its
//! deadline, and all goes on when it is put right (B7, S14, DESIGN section 7).

mod support;
#[path = "support/trouble.rs"]
mod trouble;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use support::World;
use tempfile::TempDir;
use tower_token_refresh::FileStore;
use tower_token_refresh::Session;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::StoreLock;
use tower_token_refresh::Swap;
use trouble::InUse;

/// A folder with the file in a folder.
struct Place(TempDir);

impl Place {
    fn home(&self) -> PathBuf {
        self.0.path().join("in")
    }

    fn file(&self) -> PathBuf {
        self.home().join("session.json")
    }

    /// For what was in its place.
    fn elsewhere(&self) -> PathBuf {
        self.0.path().join("elsewhere")
    }
}

async fn in_use() -> (Place, InUse) {
    let place = Place(tempfile::tempdir().unwrap());
    fs::create_dir(place.home()).unwrap();
    let world = World::new();
    let session = session(&world, &place.file());
    (place, InUse::of(world, session).await)
}

fn session(world: &World, file: &Path) -> Session {
    let moment = Duration::from_millis(1);
    let builder = world.builder().shared_store(FileStore::new(file));
    let builder = builder
        .cool_down(moment, moment)
        .store_timeout(Duration::from_secs(2))
        .reissue_timeout(Duration::from_secs(2));
    builder.build().unwrap()
}

#[tokio::test]
async fn a_file_that_breaks_off() {
    let (place, scene) = in_use().await;
    let text = fs::read(place.file()).unwrap();
    fs::write(place.file(), &text[..text.len() / 2]).unwrap();
    scene.bears_it("breaks off").await;
    assert_eq!(fs::read(place.file()).unwrap(), text[..text.len() / 2]);
    fs::write(place.file(), text).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_backup_that_was_put_back() {
    let (place, scene) = in_use().await;
    let older = fs::read(place.file()).unwrap();
    scene.world.expire();
    scene.is_ok().await;
    let text = fs::read(place.file()).unwrap();
    fs::write(place.file(), older).unwrap();
    scene.bears_it("older").await;
    fs::write(place.file(), text).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn the_record_of_another_session() {
    let (place, scene) = in_use().await;
    let ((other, _theirs), text) = (in_use().await, fs::read(place.file()).unwrap());
    fs::copy(other.file(), place.file()).unwrap();
    scene.bears_it("another").await;
    fs::write(place.file(), text).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_record_of_a_newer_version() {
    let (place, scene) = in_use().await;
    let text = fs::read_to_string(place.file()).unwrap();
    let newer = text.replace("\"format\": 1", "\"format\": 2");
    assert_ne!(newer, text);
    fs::write(place.file(), &newer).unwrap();
    scene.bears_it("newer version").await;
    assert_eq!(fs::read_to_string(place.file()).unwrap(), newer);
    fs::write(place.file(), text).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_folder_that_is_gone() {
    let (place, scene) = in_use().await;
    fs::rename(place.home(), place.elsewhere()).unwrap();
    scene.bears_it("folder is missing").await;
    fs::rename(place.elsewhere(), place.home()).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_file_that_was_removed() {
    let (place, scene) = in_use().await;
    fs::rename(place.file(), place.elsewhere()).unwrap();
    scene.bears_it("older record").await;
    fs::rename(place.elsewhere(), place.file()).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_file_that_may_not_be_written() {
    let (place, scene) = in_use().await;
    let mut permissions = fs::metadata(place.file()).unwrap().permissions();
    let before = permissions.clone();
    permissions.set_readonly(true);
    fs::set_permissions(place.file(), permissions).unwrap();
    scene.bears_it("write-protected").await;
    fs::set_permissions(place.file(), before).unwrap();
    scene.goes_on().await;
}

// shows P13: the pair that was on its way is kept until the file is back.
#[tokio::test]
async fn a_file_that_is_away_when_the_new_tokens_come() {
    let (place, scene) = in_use().await;
    scene.world.expire();
    scene.world.hold_reissues();
    let (answer, ()) = tokio::join!(scene.client.get(), async {
        scene.world.until(|counts| counts.reissues == 2).await;
        fs::rename(place.file(), place.elsewhere()).unwrap();
        scene.world.release_reissues();
    });
    assert_eq!(
        answer.unwrap().status,
        StatusCode::OK,
        "it is used from memory"
    );
    fs::rename(place.elsewhere(), place.file()).unwrap();
    scene.world.expire();
    scene.goes_on().await;
}

// shows P8: nobody brings back what was removed.
#[tokio::test]
async fn a_file_that_was_removed_is_not_written_again_by_who_has_not_seen_it() {
    let (place, _scene) = in_use().await;
    let store = FileStore::new(place.file());
    let (record, _) = SharedTokenStore::read(&store).await.unwrap();
    fs::remove_file(place.file()).unwrap();
    assert_eq!(
        store.swap(record.version(), &record).await.unwrap(),
        Swap::Conflict
    );
    assert!(!place.file().exists());
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_with_a_second_name() {
    let (place, scene) = in_use().await;
    let second = place.home().join("second");
    fs::hard_link(place.file(), &second).unwrap();
    scene.bears_it("hard link").await;
    fs::remove_file(second).unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_lock_that_somebody_else_never_gives_back() {
    let (place, scene) = in_use().await;
    let other = FileStore::new(place.file());
    let held: Option<StoreLock> = other.lock(Duration::from_secs(60)).await.unwrap();
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
    let (place, scene) = in_use().await;
    let other = session(&scene.world, &place.file());
    let client = scene.world.client(&other);
    fs::rename(place.home(), place.elsewhere()).unwrap();
    scene.bears_it("folder is missing").await;
    fs::rename(place.elsewhere(), place.home()).unwrap();
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    scene.until_ok().await;
    scene.world.has_reissued(2);
}
