//! Proves that processes which name one file share one record: of several writes one is done, nobody
//! takes an older record or another session's for it, and all see what was changed (P1, P8).

use std::fs;
use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::poll_fn;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tower_token_refresh::FileStore;
use tower_token_refresh::Record;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::StoreLock;
use tower_token_refresh::Swap;
use tower_token_refresh::TokenSet;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);

/// A folder of the test's own, and the files in it.
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

    /// With a record of this version, after as many changes.
    fn at(version: u64) -> Self {
        let place = Self::new();
        let store = place.store();
        for version in 0..version {
            done(&store, version, record(version + 1, 1));
        }
        place
    }

    /// As a process has it that has just been started.
    fn store(&self) -> FileStore {
        FileStore::new(&self.path)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.folder.path().join(format!("session.json.{ending}"))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&fs::read(&self.path).unwrap()).unwrap()
    }
}

/// A login whose tokens say which version they came with.
fn record(version: u64, epoch: u64) -> Record {
    from(json!({"version": version, "epoch": epoch, "access_token": format!("access-{version}")}))
}

fn from(mut record: Value) -> Record {
    record["format"] = json!(1);
    Record::from_json(record.to_string().as_bytes()).unwrap()
}

/// Everything in the record.
fn text(record: &Record) -> Value {
    serde_json::from_slice(&record.to_json().unwrap()).unwrap()
}

fn read(store: &FileStore) -> Record {
    block_on(store.read()).unwrap().0
}

fn access_token(record: &Record) -> Option<&str> {
    Some(record.tokens()?.access_token().expose())
}

#[track_caller]
fn done(store: &FileStore, version: u64, record: Record) {
    let swapped = block_on(store.swap(version, &record)).unwrap();
    assert_eq!(swapped, Swap::Done);
}

/// As long as it does not hang.
async fn lock(store: &FileStore, limit: Duration) -> Result<StoreLock, String> {
    let locked = timeout(LONG, store.lock(limit)).await.expect("it hangs");
    let locked = locked.map_err(|error| error.to_string())?;
    Ok(locked.expect("a file has a lock"))
}

/// Neither read nor replaced, for this reason, and the file is as it was.
#[track_caller]
fn refused(store: &FileStore, what: &str) {
    let before = fs::read(store.path()).unwrap();
    let errors = block_on(async {
        [
            store.read().await.map(drop),
            store.swap(1, &record(9, 9)).await.map(drop),
            store.swap(2, &record(9, 9)).await.map(drop),
            store.load().await.map(drop),
            store.save(&TokenSet::new("new").unwrap()).await,
            store.clear().await,
        ]
    });
    for error in errors {
        let said = error.expect_err(what).to_string();
        assert!(said.contains(what), "{said}");
        assert!(said.contains("session.json.witness and start"), "{said}");
    }
    assert_eq!(fs::read(store.path()).unwrap(), before);
}

// shows P1: in each round all have seen the same version.
#[test]
fn of_several_swaps_with_one_version_exactly_one_is_done() {
    const THREADS: usize = 8;
    const ROUNDS: u64 = 40;

    let place = Place::new();
    let handles = [place.store(), place.store()];
    let barrier = Barrier::new(THREADS);
    let swaps = |i: usize| {
        // Some are clones, and some as good as other processes.
        let store = handles[i % 2].clone();
        let mut outcomes = Vec::new();
        for version in 0..ROUNDS {
            barrier.wait();
            let swapped = block_on(store.swap(version, &record(version + 1, 1)));
            barrier.wait();
            // Whoever reads afterwards, through whichever handle, finds it. A panic here would keep
            // the others waiting.
            let found = block_on(store.read()).map(|(found, _)| found.version());
            outcomes.push((swapped.ok(), found.ok()));
        }
        outcomes
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|i| scope.spawn(move || swaps(i)))
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap());
        ended.collect()
    });
    for version in 0..ROUNDS {
        let round = outcomes.iter().map(|ended| &ended[version as usize]);
        let done = round
            .clone()
            .filter(|(swapped, _)| *swapped == Some(Swap::Done));
        let lost = round
            .clone()
            .filter(|(swapped, _)| *swapped == Some(Swap::Conflict));
        assert_eq!((done.count(), lost.count()), (1, THREADS - 1), "{version}");
        for (_, found) in round {
            assert_eq!(*found, Some(version + 1));
        }
    }
}

// shows P1
#[test]
fn no_change_is_lost_among_many() {
    const THREADS: u64 = 8;
    const CHANGES: u64 = 25;

    let place = Place::new();
    let handles = [place.store(), place.store()];
    let count = |record: &Record| {
        let tokens = record.tokens();
        let count = tokens.and_then(|tokens| tokens.identity().get("id")?.as_u64());
        count.unwrap_or_default()
    };
    std::thread::scope(|scope| {
        for i in 0..THREADS {
            let store = handles[i as usize % 2].clone();
            scope.spawn(move || {
                let mut changes = 0;
                while changes < CHANGES {
                    let old = read(&store);
                    let new = from(json!({
                        "version": old.version() + 1, "access_token": "a", "id": count(&old) + 1,
                    }));
                    if block_on(store.swap(old.version(), &new)).unwrap() == Swap::Done {
                        changes += 1;
                    }
                }
            });
        }
    });
    let last = read(&place.store());
    let all = THREADS * CHANGES;
    assert_eq!((count(&last), last.version()), (all, all));
}

#[test]
fn all_that_a_record_says_comes_back_and_the_rest_of_the_file_stays() {
    let place = Place::new();
    let mine = json!({"theme": "dark", "access_token": "access-0"});
    fs::write(&place.path, mine.to_string()).unwrap();
    let claim = json!({"state": "sent", "owner": "00000000000000ff", "fence": 1,
        "sent_at": "2001-09-09T01:46:40.123Z", "deadline": "2001-09-09T01:46:50.456789Z"});
    let tokens = json!({"access_token": "a", "refresh_token": "r", "obtained_at": "2001-09-09T00:00:00Z",
        "expires_at": "2001-09-09T01:00:00.5Z", "id": 7,
        "in_doubt": {"since": "2001-09-09T00:30:00Z", "tries": 2}});
    let with = |rest: Value| {
        let mut record = tokens.clone();
        let members = rest.as_object().unwrap().clone();
        record.as_object_mut().unwrap().extend(members);
        record
    };
    for (version, record) in (0..).zip([
        with(json!({"turn": claim})),
        with(json!({"turn": {"state": "refused"}})),
        with(json!({})),
        json!({"logged_out": true, "ended": "refused"}),
        json!({"no_tokens": true, "turn": claim}),
    ]) {
        let mut record = record;
        record["version"] = json!(version + 1);
        record["epoch"] = json!(7);
        let record = from(record);
        done(&place.store(), version, record.clone());
        assert_eq!(text(&read(&place.store())), text(&record));
        assert_eq!(place.json()["theme"], "dark");
        assert_eq!(place.json()["version"], version + 1);
    }
}

#[test]
fn a_swap_that_would_not_count_on_is_refused() {
    let place = Place::at(2);
    for version in [0, 1, 2] {
        let error = block_on(place.store().swap(2, &record(version, 1))).unwrap_err();
        assert!(
            error.to_string().contains("must be a higher one"),
            "{error}"
        );
    }
    assert_eq!(read(&place.store()).version(), 2);
}

// shows S14
#[test]
fn the_record_of_another_session_is_refused() {
    let (ours, theirs) = (Place::at(2), Place::at(2));
    let store = ours.store();
    assert_eq!(read(&store).version(), 2);
    // At a higher version than ours, too.
    done(&theirs.store(), 2, record(3, 1));
    fs::copy(&theirs.path, &ours.path).unwrap();
    let what = "it is the record of another session";
    refused(&store, what);
    refused(&ours.store(), what);

    // Who has seen ours is not deceived by both files.
    fs::copy(theirs.beside("witness"), ours.beside("witness")).unwrap();
    refused(&store, what);
    assert_eq!(read(&ours.store()).version(), 3);
}

// shows S14
#[test]
fn a_record_that_is_older_than_what_was_there_is_refused() {
    let place = Place::at(1);
    let old = fs::read(&place.path).unwrap();
    let store = place.store();
    done(&store, 1, record(2, 1));
    fs::write(&place.path, old).unwrap();
    let what = "it is older than what was here before";
    refused(&store, what);
    refused(&place.store(), what);

    // As the message says.
    fs::remove_file(place.beside("witness")).unwrap();
    refused(&store, what);
    let store = place.store();
    assert_eq!(access_token(&read(&store)), Some("access-1"));
    done(&store, 1, record(2, 1));
}

#[test]
fn a_login_after_the_file_was_removed_counts_on() {
    let place = Place::at(2);
    let id = place.json()["record_id"].clone();
    fs::remove_file(&place.path).unwrap();
    for store in [place.store(), place.store()] {
        let empty = read(&store);
        assert_eq!((empty.version(), access_token(&empty)), (3, None));
        assert_eq!(text(&empty)["epoch"], 1);
    }
    block_on(place.store().save(&TokenSet::new("new").unwrap())).unwrap();
    let new = place.json();
    assert_eq!((&new["version"], &new["epoch"]), (&json!(4), &json!(2)));
    assert_eq!(new["record_id"], id);
}

// shows P8
#[test]
fn tokens_that_are_put_there_by_hand_are_a_new_login_that_nobody_overwrites_unseen() {
    let place = Place::at(2);
    let id = place.json()["record_id"].clone();
    let store = place.store();
    assert_eq!(read(&store).version(), 2);
    fs::write(&place.path, r#"{"accessToken":"by-hand"}"#).unwrap();
    let swapped = block_on(store.swap(2, &record(3, 1))).unwrap();
    assert_eq!(swapped, Swap::Conflict, "it replaces what it has not seen");
    for store in [&store, &place.store()] {
        let login = read(store);
        assert_eq!(access_token(&login), Some("by-hand"));
        assert_eq!((login.version(), &text(&login)["epoch"]), (3, &json!(2)));
    }
    done(&store, 3, record(4, 2));
    assert_eq!(
        (&place.json()["record_id"], read(&place.store()).version()),
        (&id, 4)
    );
}

#[test]
fn tokens_that_are_there_from_the_start_are_a_login_of_version_0() {
    let place = Place::new();
    let store = place.store();
    assert_eq!(text(&read(&store)), text(&Record::empty()));
    fs::write(&place.path, r#"{"access_token":"a","version":7,"turn":1}"#).unwrap();
    let login = read(&store);
    assert_eq!((login.version(), &text(&login)["epoch"]), (0, &json!(0)));
    done(&store, 0, record(1, 1));
}

#[test]
fn a_file_that_is_moved_goes_on() {
    let (place, elsewhere) = (Place::at(3), Place::new());
    let id = place.json()["record_id"].clone();
    fs::rename(&place.path, &elsewhere.path).unwrap();
    let store = elsewhere.store();
    assert_eq!(read(&store).version(), 3);
    done(&store, 3, record(4, 1));
    assert_eq!(elsewhere.json()["record_id"], id);
}

#[test]
fn a_witness_that_is_not_whole_is_none_until_the_next_change() {
    let place = Place::at(1);
    let old = fs::read(&place.path).unwrap();
    done(&place.store(), 1, record(2, 1));
    let witness = place.beside("witness");
    let whole = fs::read(&witness).unwrap();
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    for text in [&b""[..], &whole[..40], &damaged] {
        fs::write(&witness, text).unwrap();
        assert_eq!(read(&place.store()).version(), 2);
        fs::write(&place.path, &old).unwrap();
        let store = place.store();
        assert_eq!(read(&store).version(), 1);
        done(&store, 1, record(2, 1));
        assert_eq!(fs::read(&witness).unwrap(), whole);
    }
}

#[test]
fn a_logout_leaves_a_record_that_counts_on() {
    let place = Place::at(1);
    let store = place.store();
    block_on(store.clear()).unwrap();
    let end =
        json!({"format": 1, "version": 2, "epoch": 2, "logged_out": true, "ended": "logged_out"});
    assert_eq!(text(&read(&store)), end);
    let before = fs::read(&place.path).unwrap();
    block_on(store.clear()).unwrap();
    assert_eq!(fs::read(&place.path).unwrap(), before, "it was over");
    assert!(block_on(store.load()).unwrap().is_none());
}

// shows B134
#[tokio::test(start_paused = true)]
async fn a_lock_that_another_holds_is_waited_for_and_then_named() {
    let place = Place::new();
    let (ours, theirs) = (place.store(), place.store());
    for _ in 0..2 {
        let held = lock(&theirs, NOW).await.unwrap();
        let said = lock(&ours, Duration::from_secs(10)).await.unwrap_err();
        let expected = "session.json.lock: another process has held it for 10 s or more, \
                        to get new tokens. If it is stopped, let it go on";
        assert!(said.contains(expected), "{said}");
        let (got, ()) = tokio::join!(lock(&ours, LONG), async {
            tokio::task::yield_now().await;
            drop(held);
        });
        let held = got.unwrap();
        let said = lock(&ours.clone(), Duration::from_secs(10))
            .await
            .unwrap_err();
        let expected = "session.json.lock: this process has held it for 10 s or more";
        assert!(said.contains(expected), "{said}");
        drop(held);
        lock(&theirs, NOW).await.unwrap();
    }
}

// shows B138: all of one process, whatever threads they are on, get their turn, one at a time.
#[test]
fn the_threads_of_one_process_take_turns_with_the_lock() {
    let place = Place::new();
    let (store, turns) = (place.store(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for n in 0..8 {
            // Clones of one handle, and handles of their own.
            let store = if n % 2 == 0 {
                store.clone()
            } else {
                place.store()
            };
            let turns = &turns;
            scope.spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                for _ in 0..25 {
                    let held = runtime.block_on(lock(&store, LONG)).unwrap();
                    let others = turns.fetch_add(1, Ordering::SeqCst) % 2;
                    assert_eq!(others, 0, "two have it at once");
                    turns.fetch_add(1, Ordering::SeqCst);
                    drop(held);
                }
            });
        }
    });
    assert_eq!(turns.into_inner(), 2 * 8 * 25);
}

// shows P3, B138: whoever gave up waiting has neither the lock nor a place in the queue.
#[tokio::test(start_paused = true)]
async fn who_stops_waiting_for_a_lock_does_not_get_it() {
    let place = Place::new();
    let (ours, theirs) = (place.store(), place.store());
    for holder in [&ours, &theirs] {
        let held = lock(holder, NOW).await.unwrap();
        let waiting = timeout(Duration::from_secs(1), ours.lock(LONG)).await;
        assert!(waiting.is_err());
        drop(held);
        for store in [&theirs, &ours] {
            lock(store, NOW).await.unwrap();
        }
    }
}

// shows P8: a logout does not wait for a reissue.
#[tokio::test]
async fn who_holds_the_lock_keeps_nobody_from_writing() {
    let place = Place::at(1);
    let (ours, theirs) = (place.store(), place.store());
    let _held = lock(&theirs, NOW).await.unwrap();
    ours.clear().await.unwrap();
    assert!(theirs.load().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_stands_still_is_named_and_the_others_go_on_after_it() {
    let place = Place::at(1);
    let stands_still = File::open(place.beside("witness")).unwrap();
    stands_still.lock().unwrap();
    let store = place.store();
    // Several clones wait together.
    let begun = tokio::time::Instant::now();
    let swaps = (0..8).map(|_| {
        let store = store.clone();
        async move {
            store
                .swap(1, &record(2, 1))
                .await
                .map_err(|error| error.to_string())
        }
    });
    let swapped = timeout(LONG, futures::future::join_all(swaps)).await;
    for swapped in swapped.expect("it hangs") {
        let said = swapped.unwrap_err();
        assert!(
            said.contains("session.json.witness: other processes have kept it locked"),
            "{said}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(
        store.read().await.unwrap().0.version(),
        1,
        "reading goes on"
    );
    drop(stands_still);
    assert_eq!(store.swap(1, &record(2, 1)).await.unwrap(), Swap::Done);
}

#[tokio::test(start_paused = true)]
async fn a_change_by_another_is_seen_and_nothing_else() {
    let place = Place::new();
    let (ours, theirs) = (place.store(), place.store());
    for version in 0..3 {
        assert_eq!(ours.read().await.unwrap().0.version(), version);
        assert!(
            timeout(LONG, ours.changed(version)).await.is_err(),
            "nothing has changed"
        );
        let new = record(version + 1, 1);
        let seen = timeout(LONG, ours.changed(version));
        let (swapped, seen) = tokio::join!(theirs.swap(version, &new), seen);
        assert_eq!((swapped.unwrap(), seen), (Swap::Done, Ok(())));
        // One's own change is none.
        assert!(timeout(LONG, theirs.changed(version + 1)).await.is_err());
    }
    ours.read().await.unwrap();
    fs::remove_file(&place.path).unwrap();
    timeout(LONG, ours.changed(3)).await.unwrap();
}

/// Whoever asks in a loop is not kept busy by a file that cannot be read.
#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_is_looked_at_again_after_a_second() {
    let place = Place::at(1);
    let store = place.store();
    store.read().await.unwrap();
    fs::write(&place.path, "{").unwrap();
    timeout(LONG, store.changed(1)).await.unwrap();
    for _ in 0..2 {
        store.read().await.unwrap_err();
        let begun = tokio::time::Instant::now();
        store.changed(1).await;
        let waited = begun.elapsed();
        let second = Duration::from_secs(1);
        assert!((second..2 * second).contains(&waited), "{waited:?}");
    }
}

// shows P3: wherever it is dropped, it is done or not, and the next one does not wait for it.
#[tokio::test]
async fn a_swap_that_is_dropped_is_done_or_not() {
    let place = Place::new();
    let store = place.store();
    let mut dropped = 0;
    for cut in 0..64 {
        let version = store.read().await.unwrap().0.version();
        let new = record(version + 1, 1);
        let mut swap = Box::pin(store.swap(version, &new));
        let mut polled = 0;
        let swapped = poll_fn(|context| {
            if polled == cut {
                return std::task::Poll::Ready(None);
            }
            polled += 1;
            swap.as_mut().poll(context).map(Some)
        })
        .await;
        drop(swap);
        if swapped.is_some() {
            break;
        }
        dropped += 1;
        // Whether or not it still was.
        let swapped = store.swap(version, &new).await.unwrap();
        let found = place.store().read().await.unwrap().0;
        assert_eq!(found.version(), version + 1, "{swapped:?}");
    }
    assert!((1..64).contains(&dropped), "{dropped}");
}

#[test]
fn all_of_it_works_without_a_runtime() {
    let place = Place::new();
    let (ours, theirs) = (place.store(), place.store());
    let (end, ended) = mpsc::channel();
    std::thread::spawn(move || {
        block_on(async {
            let held = ours.lock(NOW).await.unwrap();
            assert!(theirs.lock(Duration::from_millis(1)).await.is_err());
            assert_eq!(ours.swap(0, &record(1, 1)).await.unwrap(), Swap::Done);
            theirs.changed(0).await;
            assert_eq!(theirs.read().await.unwrap().0.version(), 1);
            drop(held);
            assert!(theirs.lock(NOW).await.unwrap().is_some());
        });
        end.send(()).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_secs(30));
    assert!(ended.is_ok(), "it hangs, or has failed");
}
