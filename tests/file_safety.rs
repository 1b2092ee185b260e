//! Proves what `FileStore` says of the file itself: who can read it, which files it refuses, and
//! what is left of it when the process or the disk fails.

#![cfg(unix)]

#[path = "support/child.rs"]
mod child;

use std::fs;
use std::fs::Permissions;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
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
use tower_token_refresh::Record;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;
use tower_token_refresh::TokenSet;

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

/// The same pair as the record of this version.
fn record(version: u64, n: usize) -> Record {
    let text = json!({"format": 1, "version": version, "epoch": 1,
        "access_token": format!("access-{n}"), "refresh_token": format!("refresh-{n}")});
    Record::from_json(text.to_string().as_bytes()).unwrap()
}

fn swap(path: &Path, version: u64, n: usize) -> Result<(), String> {
    let record = record(version + 1, n);
    let swapped = block_on(FileStore::new(path).swap(version, &record));
    swapped
        .map(|swapped| assert_eq!(swapped, Swap::Done))
        .map_err(|error| error.to_string())
}

fn lock(path: &Path) -> Result<(), String> {
    let lock = block_on(FileStore::new(path).lock(Duration::ZERO));
    lock.map(|lock| assert!(lock.is_some()))
        .map_err(|error| error.to_string())
}

/// The file that is locked to write, and the one that is locked to reissue.
fn lock_files(path: &Path) -> [PathBuf; 2] {
    ["witness", "lock"].map(|ending| path.with_extension(format!("json.{ending}")))
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
            store.read().await.map(drop),
            store.swap(0, &record(1, 9)).await.map(drop),
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

/// What is in the folder, but for the files that are locked: they stay.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let stay = ["session.json.witness", "session.json.lock"];
    names.filter(|name| !stay.contains(&&**name)).collect()
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
    let (ended, said) = child::output(&mut command);
    assert!(ended.success() && said.contains("1 passed"), "{said}");
}

/// For the next test, in a process of its own: in this one it does nothing.
#[test]
fn saves_under_this_mask() {
    if let Some(path) = child_path() {
        save(&path, 1).unwrap();
        lock(&path).unwrap();
    }
}

// shows S15
#[test]
fn all_three_files_are_private_whatever_the_mask() {
    for mask in ["000", "022", "077", "277"] {
        let (_folder, path) = place();
        succeeds(child(
            "saves_under_this_mask",
            &format!("umask {mask}"),
            &path,
        ));
        assert_eq!(mode(&path), 0o600, "{mask}");
        assert_eq!(
            lock_files(&path).map(|path| mode(&path)),
            [0o600; 2],
            "{mask}"
        );
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

// shows S14: nothing is locked, or written, that is not there for it.
#[test]
fn what_is_no_lock_file_is_not_taken_for_one() {
    type Put = fn(&Path);
    let cases: [(Put, &str); 6] = [
        (|at| symlink("elsewhere", at).unwrap(), "is a symbolic link"),
        (
            |at| symlink("session.json", at).unwrap(),
            "is a symbolic link",
        ),
        (|at| fs::create_dir(at).unwrap(), "is a folder, where"),
        (
            |at| assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
            "is no regular file",
        ),
        (
            |at| {
                std::os::unix::net::UnixListener::bind(at)
                    .map(drop)
                    .unwrap()
            },
            "cannot be opened",
        ),
        (|at| fs::write(at, [b'x'; 77]).unwrap(), "not as this crate"),
    ];
    for (put, what) in cases {
        let (folder, path) = place();
        save(&path, 1).unwrap();
        let text = fs::read(&path).unwrap();
        for lock_file in &lock_files(&path) {
            let _ = fs::remove_file(lock_file);
            put(lock_file);
        }
        let [witness, lock_file] = lock_files(&path).map(|path| path.display().to_string());
        assert_eq!(kept(&path), 1, "{what}");
        for error in [save(&path, 2), swap(&path, 1, 2)] {
            let said = error.expect_err(what);
            assert!(said.contains(what) && said.contains(&witness), "{said}");
        }
        match lock(&path) {
            // What it holds is not looked at.
            Ok(()) => assert_eq!(what, "not as this crate"),
            Err(said) => assert!(said.contains(what) && said.contains(&lock_file), "{said}"),
        }
        assert_eq!(fs::read(&path).unwrap(), text);
        assert_eq!(names(folder.path()), ["session.json"]);
    }
}

// shows S14
#[test]
fn a_lock_file_of_another_user_is_refused() {
    let (_folder, path) = place();
    save(&path, 1).unwrap();
    lock(&path).unwrap();
    for lock_file in lock_files(&path) {
        // Only root can give a file away.
        if std::os::unix::fs::chown(lock_file, Some(65_534), None).is_err() {
            return;
        }
    }
    for error in [save(&path, 2), swap(&path, 1, 2), lock(&path)] {
        let said = error.unwrap_err();
        assert!(said.contains("it belongs to another user"), "{said}");
    }
    assert_eq!(kept(&path), 1);
}

#[test]
fn a_lock_file_that_others_were_let_into_is_made_private_again() {
    let (_folder, path) = place();
    for version in 0..2 {
        swap(&path, version, 1).unwrap();
        lock(&path).unwrap();
        for lock_file in lock_files(&path) {
            assert_eq!(mode(&lock_file), 0o600);
            set_mode(&lock_file, 0o666);
        }
    }
}

// shows S20
#[test]
fn no_lock_file_says_anything_of_a_token() {
    let (_folder, path) = place();
    save(&path, 1).unwrap();
    swap(&path, 1, 2).unwrap();
    lock(&path).unwrap();
    let [witness, lock_file] = lock_files(&path).map(|path| fs::read_to_string(path).unwrap());
    assert_eq!(lock_file, "");
    // Whose record it is, the version and the epoch, and what they add up to.
    let fields: Vec<_> = witness.split_ascii_whitespace().collect();
    let record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(fields.len(), 4, "{witness}");
    assert_eq!(fields[0], record["record_id"]);
    assert_eq!(
        [fields[1], fields[2]].map(|field| field.parse()),
        [Ok(2), Ok(1)]
    );
    assert!(u64::from_str_radix(fields[3], 16).is_ok());
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

/// For the next test, in a process of its own: in this one it does nothing.
#[test]
fn saves_where_nothing_can_be_made() {
    let Some(path) = child_path() else { return };
    let folder = path.parent().unwrap();
    assert!(fs::write(folder.join("probe"), "").is_err());
    for saved in [save(&path, 2), swap(&path, 1, 2)] {
        let said = saved.unwrap_err();
        assert!(
            said.contains("no file can be written in its folder"),
            "{said}"
        );
    }
    assert_eq!(kept(&path), 1);
    // And where there were no lock files either.
    let fresh = folder.join("fresh.json");
    for made in [save(&fresh, 2), swap(&fresh, 0, 2), lock(&fresh)] {
        let said = made.unwrap_err();
        assert!(
            said.contains(
                "to lock it: give this process's user the right to write it and its folder"
            ),
            "{said}"
        );
    }
    assert!(block_on(FileStore::new(&fresh).load()).unwrap().is_none());
}

/// Root may write everywhere, so this is done as somebody else.
#[test]
fn a_folder_that_takes_no_file_leaves_the_old_one() {
    const NOBODY: u32 = 65_534;

    let (folder, path) = place();
    save(&path, 1).unwrap();
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command
        .args(["saves_where_nothing_can_be_made", "--exact", "--nocapture"])
        .env(PATH, &path)
        .current_dir(folder.path());
    let [witness, _] = lock_files(&path);
    let all = [folder.path(), &path, &witness, &program];
    let given = all.map(|path| std::os::unix::fs::chown(path, Some(NOBODY), None));
    if given.iter().all(Result::is_ok) {
        command.uid(NOBODY);
    }
    let before = names(folder.path());
    set_mode(folder.path(), 0o500);
    succeeds(command);
    set_mode(folder.path(), 0o700);
    assert_eq!(names(folder.path()), before);
}

// Where the system itself makes the files, and nobody else.
#[cfg(target_os = "linux")]
#[test]
fn a_place_that_takes_no_file_says_so() {
    let in_proc = Path::new("/proc/session.json").to_owned();
    let (folder, _) = place();
    let long = folder.path().join("x".repeat(252));
    for path in [in_proc, long] {
        for made in [save(&path, 1), swap(&path, 0, 1), lock(&path)] {
            let said = made.unwrap_err();
            assert!(
                said.contains("cannot be opened or created, to lock it"),
                "{said}"
            );
        }
    }
    assert!(names(folder.path()).is_empty());
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
fn swaps_until_it_is_killed() {
    let Some(path) = child_path() else { return };
    let store = FileStore::new(&path);
    for _ in 0..100_000 {
        let lock = block_on(store.lock(Duration::from_secs(30))).unwrap();
        let (old, _) = block_on(store.read()).unwrap();
        let version = old.version();
        let new = record(version + 1, usize::try_from(version).unwrap() + 1);
        let swapped = block_on(store.swap(version, &new)).unwrap();
        assert_eq!(swapped, Swap::Done, "another has changed it under the lock");
        println!("done {}", version + 1);
        drop(lock);
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

/// So many processes are killed, or as many as this says.
const KILLS: &str = "KILLS";

// shows S15, B134: two processes that take turns are killed at any moment, and nothing is lost, torn or
// still locked.
#[test]
fn a_process_that_is_killed_leaves_the_old_pair_or_the_new_one_and_no_lock() {
    let kills = std::env::var(KILLS).map_or(50, |kills| kills.parse().unwrap());
    let (folder, path) = place();
    let other = write_long_file(&path);
    let mut random = fastrand::Rng::new();
    let mut most = 0;
    for kill in 0..kills {
        let (said, ours) = std::io::pipe().unwrap();
        let children = [(); 2].map(|()| {
            let mut command = child("swaps_until_it_is_killed", ":", &path);
            command.stdout(ours.try_clone().unwrap());
            command.stderr(Stdio::null());
            Killed(command.spawn().unwrap())
        });
        drop(ours);
        let lines = BufReader::new(said).lines().map_while(Result::ok);
        let mut done = lines.filter_map(|line| line.rsplit_once("done ")?.1.parse().ok());
        let first: u64 = done.nth(random.usize(..4)).unwrap();
        for _ in 0..random.usize(..1_000_000) {
            std::hint::spin_loop();
        }
        drop(children);
        let told = done.last().unwrap_or(first);

        let (found, _) = block_on(FileStore::new(&path).read()).unwrap();
        let version = found.version();
        assert!(
            version >= told.max(most),
            "kill {kill}: {version} after {told} and {most}"
        );
        assert_eq!(kept(&path) as u64, version);
        let text = fs::read(&path).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["other"], other);
        for lock_file in lock_files(&path) {
            let file = fs::File::open(lock_file).unwrap();
            assert!(file.try_lock().is_ok(), "kill {kill}: it is still locked");
        }
        most = version;
    }
    eprintln!("{kills} times two processes were killed, at version {most} in the end");
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
