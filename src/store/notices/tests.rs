use std::future::Future;
use std::sync::atomic::AtomicUsize;

use futures_util::FutureExt;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::task::yield_now;

use super::*;
use crate::error::BoxError;

/// A wire in the test's hands.
#[derive(Default)]
struct Hand {
    /// Those who listen.
    ears: Mutex<Vec<mpsc::UnboundedSender<String>>>,
    mood: Mutex<Mood>,
    connections: AtomicUsize,
    tells: AtomicUsize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Fine,
    /// Listening works, and nothing ever arrives.
    Deaf,
    /// Nobody is let in.
    Shut,
    /// Nothing is ever answered.
    Silent,
    Broken,
}

impl Hand {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn say(&self, text: &str) {
        let ears = self.ears.lock().unwrap();
        ears.iter().for_each(|ear| drop(ear.send(text.to_owned())));
    }

    fn hang_up(&self) {
        self.ears.lock().unwrap().clear();
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn wire(self: &Arc<Self>) -> Arc<dyn Wire> {
        self.clone()
    }

    /// Waits for a change as a session does.
    fn wait(self: &Arc<Self>, subject: &Subject, version: u64) -> JoinHandle<Duration> {
        let (hand, subject) = (self.clone(), subject.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            subject.changed(version, || hand.wire()).await;
            begun.elapsed()
        })
    }

    async fn until_it_hears(self: &Arc<Self>, notices: &Arc<Notices>) {
        let waits = self.wait(&notices.subject("first"), 0);
        let mut hearing = notices.hearing.subscribe();
        hearing.wait_for(Option::is_some).await.unwrap();
        waits.await.unwrap();
    }
}

impl Wire for Hand {
    fn listen(&self) -> BoxResult<'_, BoxStream<'static, String>> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        match self.mood() {
            Mood::Shut => return async { Err("nobody is let in".into()) }.boxed(),
            Mood::Silent => return pending().boxed(),
            Mood::Broken => panic!("the wire is broken"),
            Mood::Fine | Mood::Deaf => {}
        }
        let (ear, mut told) = mpsc::unbounded_channel();
        self.ears.lock().unwrap().push(ear);
        let told = stream::poll_fn(move |context| told.poll_recv(context)).boxed();
        async { Ok::<_, BoxError>(told) }.boxed()
    }

    fn tell<'a>(&'a self, text: &'a str) -> BoxResult<'a, ()> {
        self.tells.fetch_add(1, Ordering::Relaxed);
        match self.mood() {
            Mood::Fine => self.say(text),
            Mood::Silent => return pending().boxed(),
            Mood::Shut => return async { Err("nobody is let in".into()) }.boxed(),
            Mood::Deaf | Mood::Broken => {}
        }
        async { Ok(()) }.boxed()
    }
}

/// As often as everything that can go on has gone on.
async fn settle_down() {
    for _ in 0..100 {
        yield_now().await;
    }
}

async fn is_over<T>(task: JoinHandle<T>) -> Option<T> {
    settle_down().await;
    match task.is_finished() {
        true => Some(task.await.unwrap()),
        false => None,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Goes on to that much later.
async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    settle_down().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_at_once() {
    let (hand, notices) = (Hand::new(), Notices::new());
    hand.until_it_hears(&notices).await;
    let (one, other) = (notices.subject("one"), notices.subject("other"));
    let waits = [hand.wait(&one, 6), hand.wait(&one, 6)];
    let [still, older] = [hand.wait(&other, 6), hand.wait(&one, 7)];
    settle_down().await;
    hand.say("one 7");
    for waits in waits {
        assert_eq!(is_over(waits).await, Some(Duration::ZERO));
    }
    assert_eq!(is_over(still).await, None, "it was not told of that");
    assert_eq!(is_over(older).await, None, "it knows that record");
    // Before it waited, but after it has looked.
    hand.say("one 8");
    settle_down().await;
    assert_eq!(is_over(hand.wait(&one, 7)).await, Some(Duration::ZERO));
}

// The server may be another, with an older record: what is told of it counts.
#[tokio::test(start_paused = true)]
async fn a_smaller_version_is_told_of_too() {
    let (hand, notices) = (Hand::new(), Notices::new());
    hand.until_it_hears(&notices).await;
    let subject = notices.subject("one");
    let waits = hand.wait(&subject, 9);
    settle_down().await;
    hand.say("one 2");
    assert_eq!(is_over(waits).await, Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_of_what_is_no_notice() {
    let (hand, notices) = (Hand::new(), Notices::new());
    hand.until_it_hears(&notices).await;
    let subject = notices.subject("one");
    let waits = hand.wait(&subject, 1);
    settle_down().await;
    for text in [
        "",
        " ",
        "one",
        "one ",
        "one -1",
        "one 1e3",
        "one 99999999999999999999",
        "two 2",
    ] {
        hand.say(text);
    }
    assert_eq!(is_over(waits).await, None);
    assert!(notices.hearing.borrow().is_some(), "it hears still");
}

#[tokio::test(start_paused = true)]
async fn a_record_is_looked_at_soon_while_nothing_is_heard_and_seldom_while_something_is() {
    let (hand, notices) = (Hand::new(), Notices::new());
    let subject = notices.subject("one");
    for mood in [Mood::Shut, Mood::Silent, Mood::Deaf] {
        hand.set(mood);
        for _ in 0..20 {
            let waited = hand.wait(&subject, 1).await.unwrap();
            assert!(waited <= Duration::from_millis(400), "{mood:?} {waited:?}");
            assert!(waited >= Duration::from_millis(200), "{mood:?} {waited:?}");
        }
    }
    hand.set(Mood::Fine);
    hand.until_it_hears(&notices).await;
    for _ in 0..20 {
        let waited = hand.wait(&subject, 1).await.unwrap();
        assert!(waited >= seconds(15) && waited <= seconds(25), "{waited:?}");
    }
}

// The trait allows it: each look is a read, and there are thousands of sessions.
#[tokio::test(start_paused = true)]
async fn many_records_share_the_looks_of_a_few() {
    let (hand, notices) = (Hand::new(), Notices::new());
    hand.set(Mood::Shut);
    let subjects: Vec<_> = (0..4_000)
        .map(|i| notices.subject(&i.to_string()))
        .collect();
    let waited = hand.wait(&subjects[0], 1).await.unwrap();
    assert!(waited >= Duration::from_millis(1_600), "{waited:?}");
    assert!(waited <= Duration::from_millis(3_200), "{waited:?}");
    drop(subjects);
    let waited = hand.wait(&notices.subject("one"), 1).await.unwrap();
    assert!(waited <= Duration::from_millis(400), "{waited:?}");
}

// What was told before was told to nobody.
#[tokio::test(start_paused = true)]
async fn who_waits_looks_again_when_something_is_heard_and_when_it_is_not_any_more() {
    let (hand, notices) = (Hand::new(), Notices::new());
    let subject = notices.subject("one");
    let waits = hand.wait(&subject, 1);
    assert_eq!(is_over(waits).await, Some(Duration::ZERO), "it hears now");
    let waits = hand.wait(&subject, 1);
    settle_down().await;
    hand.set(Mood::Shut);
    hand.hang_up();
    assert_eq!(is_over(waits).await, Some(Duration::ZERO), "it is deaf now");
    let waited = hand.wait(&subject, 1).await.unwrap();
    assert!(waited <= Duration::from_millis(400), "{waited:?}");
}

// shows that a connection which looks like peace and quiet is found out: half open, or a pooler's.
#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_arrives_any_more_is_found_out() {
    for mood in [Mood::Deaf, Mood::Silent] {
        let (hand, notices) = (Hand::new(), Notices::new());
        hand.until_it_hears(&notices).await;
        let subject = notices.subject("one");
        let waits = hand.wait(&subject, 1);
        hand.set(mood);
        let waited = waits.await.unwrap();
        assert!(waited <= QUIET + ECHO, "{mood:?} {waited:?}");
        let waited = hand.wait(&subject, 1).await.unwrap();
        assert!(waited <= Duration::from_millis(400), "{mood:?} {waited:?}");
        hand.set(Mood::Fine);
        hand.until_it_hears(&notices).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_something_arrives_is_kept() {
    let (hand, notices) = (Hand::new(), Notices::new());
    hand.until_it_hears(&notices).await;
    for _ in 0..100 {
        pass(seconds(5)).await;
    }
    assert_eq!(hand.connections(), 1);
    let tells = hand.tells.load(Ordering::Relaxed);
    assert!((90..110).contains(&tells), "{tells}");
    assert!(notices.pause().start >= 15_000, "it hears");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_heard_it_is_tried_again_less_and_less_often() {
    for mood in [Mood::Shut, Mood::Deaf, Mood::Silent] {
        let (hand, notices) = (Hand::new(), Notices::new());
        hand.set(mood);
        let waits = hand.wait(&notices.subject("one"), 1);
        for _ in 0..3_600 {
            pass(seconds(1)).await;
        }
        drop(waits);
        let tries = hand.connections();
        assert!((80..=260).contains(&tries), "{mood:?}: {tries} in an hour");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_after_a_moment_is_made_again_soon() {
    let (hand, notices) = (Hand::new(), Notices::new());
    let subject = notices.subject("one");
    hand.until_it_hears(&notices).await;
    for connections in 1..10 {
        assert_eq!(hand.connections(), connections);
        hand.hang_up();
        settle_down().await;
        pass(Duration::from_millis(500)).await;
    }
    drop(subject);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_older_than_what_was_told_of_it_is_not_looked_at_all_the_time() {
    let (hand, notices) = (Hand::new(), Notices::new());
    hand.until_it_hears(&notices).await;
    let subject = notices.subject("one");
    hand.say("one 7");
    settle_down().await;
    // The same subject, as a session has it.
    let wait = async || {
        let begun = Instant::now();
        subject.changed(3, || hand.wire()).await;
        begun.elapsed()
    };
    assert_eq!(wait().await, Duration::ZERO, "it looks");
    for _ in 0..10 {
        let waited = wait().await;
        assert!(waited >= Duration::from_millis(200), "{waited:?}");
        assert!(waited <= Duration::from_millis(400), "{waited:?}");
    }
    hand.say("one 8");
    settle_down().await;
    assert_eq!(wait().await, Duration::ZERO, "it looks at what is new");
}

#[tokio::test(start_paused = true)]
async fn all_sessions_of_a_store_listen_once() {
    let (hand, notices) = (Hand::new(), Notices::new());
    let subjects: Vec<_> = (0..100).map(|i| notices.subject(&i.to_string())).collect();
    let waits: Vec<_> = subjects.iter().map(|it| hand.wait(it, 1)).collect();
    for waits in waits {
        waits.await.unwrap();
    }
    assert_eq!(hand.connections(), 1);
}

// shows that nothing is left running, at once: neither the connection nor the task.
#[tokio::test(start_paused = true)]
async fn it_ends_with_the_last_that_could_wait() {
    for mood in [Mood::Fine, Mood::Deaf, Mood::Silent, Mood::Shut] {
        let (hand, notices) = (Hand::new(), Notices::new());
        hand.set(mood);
        let one = notices.subject("one");
        let other = one.other("other");
        drop(notices);
        hand.wait(&one, 1).await.unwrap();
        drop(one);
        settle_down().await;
        assert_eq!(Arc::strong_count(&hand), 2, "{mood:?}: the other may wait");
        drop(other);
        settle_down().await;
        assert_eq!(Arc::strong_count(&hand), 1, "{mood:?}");
        assert!(hand.ears.lock().unwrap().iter().all(|ear| ear.is_closed()));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_a_session_that_is_gone() {
    let (hand, notices) = (Hand::new(), Notices::new());
    hand.until_it_hears(&notices).await;
    assert_eq!(notices.lock().heard.len(), 0);
    let subject = notices.subject("one");
    let again = [
        subject.clone(),
        notices.subject("one"),
        subject.other("two"),
    ];
    assert_eq!(notices.lock().heard.len(), 2);
    drop(subject);
    assert_eq!(notices.lock().heard.len(), 2);
    drop(again);
    assert_eq!(notices.lock().heard.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_does_no_harm() {
    let (hand, notices) = (Hand::new(), Notices::new());
    hand.until_it_hears(&notices).await;
    let subject = notices.subject("one");
    let waits = hand.wait(&subject, 1);
    settle_down().await;
    let dropped = hand.wait(&subject, 1);
    settle_down().await;
    dropped.abort();
    settle_down().await;
    hand.say("one 2");
    assert_eq!(is_over(waits).await, Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_wire_that_panics_is_tried_again() {
    let (hand, notices) = (Hand::new(), Notices::new());
    hand.set(Mood::Broken);
    let subject = notices.subject("one");
    hand.wait(&subject, 1).await.unwrap();
    hand.set(Mood::Fine);
    hand.until_it_hears(&notices).await;
    assert_eq!(hand.connections(), 2);
}

#[test]
fn without_a_runtime_it_is_a_wait_all_the_same() {
    let (hand, notices) = (Hand::new(), Notices::new());
    let subject = notices.subject("one");
    futures::executor::block_on(subject.changed(1, || hand.wire()));
    assert_eq!(hand.connections(), 0);
}

// P4: a runtime that is gone, or that nobody drives, keeps nobody on another one waiting.
#[test]
fn on_another_runtime_it_goes_on() {
    let (hand, notices) = (Hand::new(), Notices::new());
    let subject = notices.subject("one");
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let waited = |runtime: &tokio::runtime::Runtime, wait: &dyn Fn() -> JoinHandle<Duration>| {
        runtime.block_on(async { wait().await.unwrap() })
    };
    let first = runtime();
    first.block_on(hand.until_it_hears(&notices));
    drop(first);
    let second = runtime();
    second.block_on(async {
        assert_eq!(*notices.hearing.borrow(), None, "it went with its runtime");
        hand.until_it_hears(&notices).await;
    });
    assert_eq!(hand.connections(), 2);
    // The second is not driven any more.
    notices.lock().heard_at = Instant::now().checked_sub(FRESH);
    let waited = waited(&runtime(), &|| hand.wait(&subject, 1));
    assert!(waited <= Duration::from_millis(400), "{waited:?}");
    drop(second);
}

fn _is_send(subject: &Subject) -> impl Future<Output = ()> + Send {
    subject.changed(1, || unreachable!())
}
