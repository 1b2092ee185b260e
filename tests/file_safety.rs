//! Proves what `FileStore` says of the file itself: who can read it, which files it refuses, and
//! what is left of it when the process or the disk fails.

#![cfg(unix)]

use std::fs;
use std::fs::Permissions;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::SystemTime;

use futures::executor::block_on;
use serde_json::json;
use tempfile::TempDir;
use tower_token_refresh::FileStore;
use tower_token_refresh::TokenSet;
use tower_token_refresh::TokenStore;

/// Where the tests that run in a process of their own find their file.
const PATH: &str = "FILE_STORE_PATH";

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.json");
    (folder, path)
}

fn pair(n: usize) -> TokenSet {
    TokenSet::new(format!("access-{n}"))
        .unwrap()
        .with_refresh_token(format!("refresh-{n}"))
        .unwrap()
}

fn save(path: &Path, n: usize) -> Result<(), String> {
    block_on(FileStore::new(path).save(&pair(n))).map_err(|error| error.to_string())
}

/// The number of the pair in the file.
#[track_caller]
fn kept(path: &Path) -> usize {
    let tokens = block_on(FileStore::new(path).load()).unwrap().unwrap();
    let number = |token: &str| token.rsplit('-').next().unwrap().parse().unwrap();
    let access: usize = number(tokens.access_token().expose());
    let refresh: usize = number(tokens.refresh_token().unwrap().expose());
    assert_eq!(access, refresh, "tokens of two pairs");
    access
}

#[track_caller]
fn refused(path: &Path, what: &str) {
    let store = FileStore::new(path);
    let errors = block_on(async {
        [
            store.load().await.map(drop),
            store.save(&pair(9)).await,
            store.clear().await,
        ]
    });
    for error in errors {
        let said = error.expect_err(what).to_string();
        assert!(said.contains(what), "{said}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What is in the folder, but for the file that writers lock: it stays.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name != "session.json.witness")
        .collect()
}

/// This test in a process of its own, after the shell has done its part.
fn child(test: &str, shell: &str, path: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(PATH, path);
    command
}

/// `None` in the process that runs all tests.
fn child_path() -> Option<PathBuf> {
    Some(std::env::var_os(PATH)?.into())
}

#[track_caller]
fn succeeds(mut command: Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

/// For the next test, in a process of its own: in this one it does nothing.
#[test]
fn saves_under_this_mask() {
    if let Some(path) = child_path() {
        save(&path, 1).unwrap();
    }
}

// shows S15
#[test]
fn the_file_is_private_whatever_the_mask() {
    for mask in ["000", "022", "077", "277"] {
        let (_folder, path) = place();
        succeeds(child(
            "saves_under_this_mask",
            &format!("umask {mask}"),
            &path,
        ));
        assert_eq!(mode(&path), 0o600, "{mask}");
        assert_eq!(kept(&path), 1);
    }
}

/// Collects what is warned of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_others_can_read_is_read_with_one_warning_and_then_made_private() {
    let warnings = Warnings::default();
    let writer = warnings.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let (_folder, path) = place();
    fs::write(&path, r#"{"access_token":"CANARY"}"#).unwrap();
    for public in [0o604, 0o660] {
        set_mode(&path, public);
        let store = FileStore::new(&path);
        for _ in 0..3 {
            assert!(block_on(store.load()).unwrap().is_some());
        }
    }
    let text = String::from_utf8(warnings.0.lock().unwrap().clone()).unwrap();
    let warned = text.matches("other users of this machine can read the tokens");
    assert_eq!(warned.count(), 2, "once for each store: {text}");
    assert!(!text.contains("CANARY"));
    save(&path, 1).unwrap();
    assert_eq!(mode(&path), 0o600);
}

// shows S14
#[test]
fn a_symbolic_link_is_not_followed_and_not_replaced() {
    let (folder, path) = place();
    let target = folder.path().join("elsewhere.json");
    symlink(&target, &path).unwrap();
    for exists in [false, true] {
        refused(&path, "it is a symbolic link");
        assert_eq!(target.exists(), exists);
        fs::write(&target, r#"{"access_token":"a"}"#).unwrap();
    }
    assert_eq!(fs::read(&target).unwrap(), br#"{"access_token":"a"}"#);
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn a_folder_may_be_a_link() {
    let (folder, _) = place();
    let (elsewhere, real) = place();
    let link = folder.path().join("link");
    symlink(elsewhere.path(), &link).unwrap();
    save(&link.join("session.json"), 1).unwrap();
    assert_eq!(kept(&real), 1);
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let (folder, path) = place();
    refused(folder.path(), "it is a folder");
    refused(Path::new("/dev/zero"), "it is no regular file");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        refused(&path, "it is no regular file");
        done.send(()).unwrap();
    });
    let waited = wait.recv_timeout(Duration::from_secs(30));
    assert!(waited.is_ok(), "a pipe holds it up, or is not refused");
}

// shows S14
#[test]
fn a_file_of_another_user_is_refused() {
    let (_folder, path) = place();
    save(&path, 1).unwrap();
    // Only root can give a file away; everybody else finds one of root's.
    match std::os::unix::fs::chown(&path, Some(65_534), None) {
        Ok(()) => refused(&path, "it belongs to another user"),
        Err(_) => refused(Path::new("/etc/passwd"), "it belongs to another user"),
    }
}

#[test]
fn a_write_protected_file_is_read_and_not_replaced() {
    let (folder, path) = place();
    save(&path, 1).unwrap();
    set_mode(&path, 0o400);
    assert!(
        save(&path, 2)
            .unwrap_err()
            .contains("it is write-protected")
    );
    let cleared = block_on(FileStore::new(&path).clear());
    assert!(
        cleared
            .unwrap_err()
            .to_string()
            .contains("it is write-protected")
    );
    assert_eq!((kept(&path), mode(&path)), (1, 0o400));
    assert_eq!(names(folder.path()), ["session.json"]);
}

#[test]
fn a_folder_that_takes_no_file_leaves_the_old_one() {
    let (folder, path) = place();
    save(&path, 1).unwrap();
    set_mode(folder.path(), 0o500);
    if fs::write(folder.path().join("probe"), "").is_ok() {
        return; // Root may do everything.
    }
    let error = save(&path, 2).unwrap_err();
    assert!(
        error.contains("no file can be written in its folder"),
        "{error}"
    );
    assert_eq!(kept(&path), 1);
    set_mode(folder.path(), 0o700);
    assert_eq!(names(folder.path()), ["session.json"]);
}

/// For the next test, in a process of its own: in this one it does nothing.
#[test]
fn saves_where_there_is_no_room() {
    let Some(path) = child_path() else { return };
    let error = save(&path, 2).unwrap_err();
    assert!(
        error.contains("cannot be written, so the old one stays"),
        "{error}"
    );
}

// shows S15: a limit on the size of files stands for a disk that gets full while it is written.
#[test]
fn a_full_disk_leaves_the_old_file_and_no_other() {
    let (folder, path) = place();
    let text = json!({"access_token": "access-1", "refresh_token": "refresh-1",
        "other": "x".repeat(100_000)});
    fs::write(&path, text.to_string()).unwrap();
    let limited = "trap '' XFSZ; ulimit -f 16";
    succeeds(child("saves_where_there_is_no_room", limited, &path));
    assert_eq!(fs::read(&path).unwrap(), text.to_string().as_bytes());
    assert_eq!(names(folder.path()), ["session.json"]);
}

/// A file with the first pair, long enough not to be written at one stroke.
fn write_long_file(path: &Path) -> String {
    let other = "x".repeat(50_000);
    let text = json!({"access_token": "access-0", "refresh_token": "refresh-0", "other": other});
    fs::write(path, format!("{text}\n")).unwrap();
    other
}

// shows S15
#[test]
fn whoever_reads_the_file_while_it_is_saved_sees_the_old_text_or_the_new_one() {
    let (_folder, path) = place();
    write_long_file(&path);
    let saving = {
        let path = path.clone();
        std::thread::spawn(move || (1..200).for_each(|n| save(&path, n).unwrap()))
    };
    while !saving.is_finished() {
        let text = fs::read(&path).unwrap();
        assert!(text.ends_with(b"}\n"), "{} bytes of it", text.len());
    }
    saving.join().unwrap();
    assert_eq!(kept(&path), 199);
}

/// For the next test, in a process of its own: in this one it does nothing.
#[test]
fn saves_until_it_is_killed() {
    let Some(path) = child_path() else { return };
    let store = FileStore::new(&path);
    for n in (kept(&path) + 1..).take(100_000) {
        block_on(store.save(&pair(n))).unwrap();
        println!("saved {n}");
    }
}

/// Does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

// shows S15
#[test]
fn a_process_that_is_killed_leaves_the_old_pair_or_the_new_one() {
    let (folder, path) = place();
    let other = write_long_file(&path);
    let mut random = fastrand::Rng::new();
    for _ in 0..100 {
        let mut command = child("saves_until_it_is_killed", ":", &path);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Killed(command.spawn().unwrap());
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let saves = lines.map_while(|line| {
            let line = line.unwrap();
            let said = line
                .rsplit_once("saved ")
                .map(|(_, n)| n.parse::<usize>().unwrap());
            Some(said.unwrap_or(0))
        });
        let told = saves.filter(|n| *n > 0).nth(random.usize(..3)).unwrap();
        for _ in 0..random.usize(..2_000_000) {
            std::hint::spin_loop();
        }
        drop(child);
        assert!(kept(&path) >= told, "a pair is lost that was saved");
        let text = fs::read(&path).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["other"], other);
    }
    assert_eq!(mode(&path), 0o600);

    // What they left besides is removed once it is old.
    let two_minutes_ago = SystemTime::now() - Duration::from_secs(120);
    for name in names(folder.path()) {
        let file = fs::File::options()
            .write(true)
            .open(folder.path().join(name))
            .unwrap();
        file.set_modified(two_minutes_ago).unwrap();
    }
    save(&path, 1).unwrap();
    assert_eq!(names(folder.path()), ["session.json"]);
}

#[test]
fn only_what_is_a_temporary_file_of_this_one_and_old_is_removed() {
    let (folder, path) = place();
    let names = [
        (".session.json.tmp-0aZ9bY1c", 61, false),
        (".session.json.tmp-0aZ9bY1d", 5, true),
        (".session.json.tmp-0aZ9bY1", 61, true),
        (".session.json.tmp-0aZ9bY1cc", 61, true),
        (".session.json.tmp-0aZ9.Y1c", 61, true),
        (".other.json.tmp-0aZ9bY1c", 61, true),
        ("session.json.tmp-0aZ9bY1c", 61, true),
    ];
    for (name, age, _) in names {
        let file = fs::File::create(folder.path().join(name)).unwrap();
        let age = Duration::from_secs(age);
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    let link = folder.path().join(".session.json.tmp-linklink");
    symlink("nowhere", &link).unwrap();
    save(&path, 1).unwrap();
    for (name, _, stays) in names {
        assert_eq!(folder.path().join(name).exists(), stays, "{name}");
    }
    assert!(link.is_symlink());
}
