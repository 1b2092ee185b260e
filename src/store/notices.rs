//! Notifications of a database: who waits for which record, and whether any arrive at all.
//!
//! A notification saves time, and nothing depends on it: whoever waits looks at the record itself, soon
//! where none are heard, and seldom where they are. That they are heard is not taken for granted: a
//! connection that is half open, or a pooler that swallows them, looks like peace and quiet. So the
//! listener tells itself something now and then, by the way the others use, and listens for it.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::select;
use futures_util::future::try_join;
use futures_util::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::BoxResult;
use crate::time::timeout;

/// Milliseconds between two looks at a record while nothing is heard.
const DEAF: Range<u64> = 200..400;

/// So many records are looked at as often as that; where there are more, each is looked at less often, but
/// that no less than so many times.
const MANY: usize = 500;
const LEAST: u64 = 20;

/// The same while notifications arrive. Whether they do is known all the time.
const HEARING: Range<u64> = 15_000..25_000;

/// What is told to oneself arrives within this, or nothing does.
const ECHO: Duration = Duration::from_secs(2);

/// Between two such tries.
const QUIET: Duration = Duration::from_secs(5);

/// Somebody hears if it has heard something in so long: else it stands still, with its runtime.
const FRESH: Duration = Duration::from_secs(10);

/// For a connection to be there.
const CONNECT: Duration = Duration::from_secs(10);

/// No record is called like that.
const ECHO_KEY: &str = "echo";

/// After a try that failed: from the first to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A connection on which a database tells of changes.
pub(super) trait Wire: Send + Sync + 'static {
    /// What is told from now on, as texts.
    fn listen(&self) -> BoxResult<'_, BoxStream<'static, String>>;

    /// Tells this to those who listen, on this wire at least, by the way on which changes are told.
    fn tell<'a>(&'a self, text: &'a str) -> BoxResult<'a, ()>;
}

/// What is heard on a wire, for all sessions of this process that use the database.
pub(super) struct Notices {
    inner: Mutex<Inner>,
    /// How often the wire has been connected, while it is; `None` where nothing is heard.
    hearing: watch::Sender<Option<u64>>,
    /// Closed when nobody is left to hear.
    here: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    heard: HashMap<String, Weak<watch::Sender<u64>>>,
    /// Somebody listens already.
    is_listening: bool,
    connections: u64,
    heard_at: Option<Instant>,
}

/// The record of one key: the version that was told of last.
pub(super) struct Subject {
    key: String,
    heard: Arc<watch::Sender<u64>>,
    /// What was told of last when somebody was sent to look.
    looked_for: AtomicU64,
    notices: Arc<Notices>,
}

/// What is told of a change.
pub(super) fn notice(key: &str, version: u64) -> String {
    format!("{key} {version}")
}

impl Notices {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            hearing: watch::Sender::new(None),
            here: watch::Sender::new(()),
        })
    }

    pub(super) fn subject(self: &Arc<Self>, key: &str) -> Subject {
        let mut inner = self.lock();
        let known = inner.heard.get(key).and_then(Weak::upgrade);
        let heard = known.unwrap_or_else(|| Arc::new(watch::Sender::new(0)));
        inner.heard.insert(key.to_owned(), Arc::downgrade(&heard));
        drop(inner);
        Subject {
            key: key.to_owned(),
            heard,
            looked_for: AtomicU64::new(0),
            notices: self.clone(),
        }
    }

    /// Of one that is no notice of a change, nothing is made.
    fn hear(&self, text: &str) {
        let Some((key, version)) = text.split_once(' ') else {
            return;
        };
        // Under the lock: a subject that is dropped meanwhile shall see that it is the last one.
        let inner = self.lock();
        let heard = inner.heard.get(key).and_then(Weak::upgrade);
        if let (Some(heard), Ok(version)) = (heard, version.parse()) {
            heard.send_replace(version);
        }
    }

    /// Starts to listen, unless somebody does or there is no runtime for it.
    fn start(self: &Arc<Self>, wire: impl FnOnce() -> Arc<dyn Wire>) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if std::mem::replace(&mut self.lock().is_listening, true) {
            return;
        }
        let (ear, wire, mut here) = (Ear(Arc::downgrade(self)), wire(), self.here.subscribe());
        runtime.spawn(async move {
            // Nothing is sent there.
            select(pin!(listen(ear, wire)), pin!(here.changed())).await;
        });
    }

    /// How long a record of this many is left alone, where nothing is told of it.
    fn pause(&self) -> Range<u64> {
        let inner = self.lock();
        let is_hearing = self.hearing.borrow().is_some()
            && inner.heard_at.is_some_and(|at| at.elapsed() < FRESH);
        match is_hearing {
            true => HEARING,
            false => {
                let times = u64::try_from(inner.heard.len() / MANY).unwrap_or(LEAST);
                let times = times.clamp(1, LEAST);
                DEAF.start * times..DEAF.end * times
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject {
    /// Do notifications arrive?
    #[cfg(feature = "postgres")]
    pub(super) fn is_hearing(&self) -> bool {
        self.notices.hearing.borrow().is_some()
    }

    /// The record of another key.
    #[cfg(feature = "postgres")]
    pub(super) fn other(&self, key: &str) -> Self {
        self.notices.subject(key)
    }

    /// Waits until the record may be another than that of this version: until it is told of one, or for
    /// a while. `wire` is how to listen, if nobody does yet.
    pub(super) async fn changed(&self, version: u64, wire: impl FnOnce() -> Arc<dyn Wire>) {
        self.notices.start(wire);
        let mut heard = self.heard.subscribe();
        let mut hearing = self.notices.hearing.subscribe();
        hearing.borrow_and_update();
        let mut pause = self.notices.pause();
        let told = *heard.borrow_and_update();
        if told > version {
            if self.looked_for.swap(told, Ordering::Relaxed) != told {
                return;
            }
            // That record is not to be found, or not for all who look: an older one was put back.
            pause.start = pause.start.min(DEAF.start);
            pause.end = pause.end.min(DEAF.end);
        }
        // The senders are here.
        let mut told =
            pin!(async { while heard.changed().await.is_ok() && *heard.borrow() == version {} });
        // What was told before was told to nobody.
        let mut turned = pin!(hearing.changed());
        let news = select(&mut told, &mut turned);
        timeout(Duration::from_millis(fastrand::u64(pause)), news).await;
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let mut inner = self.notices.lock();
        if Arc::strong_count(&self.heard) == 1 {
            inner.heard.remove(&self.key);
        }
    }
}

impl Clone for Subject {
    fn clone(&self) -> Self {
        self.notices.subject(&self.key)
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_hearing = self.hearing.borrow().is_some();
        f.debug_struct("Notices")
            .field("is_hearing", &is_hearing)
            .finish_non_exhaustive()
    }
}

/// The task's that listens. Keeps nothing alive.
struct Ear(Weak<Notices>);

impl Ear {
    /// `false` when nobody is left to hear.
    fn set(&self, is_hearing: bool) -> bool {
        let Some(notices) = self.0.upgrade() else {
            return false;
        };
        let connections = {
            let mut inner = notices.lock();
            inner.connections += u64::from(is_hearing);
            inner.heard_at = is_hearing.then(Instant::now).or(inner.heard_at);
            inner.connections
        };
        let now = is_hearing.then_some(connections);
        notices.hearing.send_if_modified(|before| {
            let is_new = before.is_some() != now.is_some();
            if is_new {
                *before = now;
            }
            is_new
        });
        true
    }
}

impl Drop for Ear {
    /// A task that ends with its runtime is started again by whoever waits next.
    fn drop(&mut self) {
        if let Some(notices) = self.0.upgrade() {
            notices.lock().is_listening = false;
            notices.hearing.send_replace(None);
        }
    }
}

/// Until nobody is left to hear.
async fn listen(ear: Ear, wire: Arc<dyn Wire>) {
    let (first, longest) = BACKOFF;
    let mut backoff = first;
    loop {
        backoff = match hear_out(&ear, &*wire).await {
            true => first,
            false => longest.min(backoff * 2),
        };
        if !ear.set(false) {
            return;
        }
        let pause = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
        let _: Option<()> = timeout(pause, pending()).await;
        if ear.0.strong_count() == 0 {
            return;
        }
    }
}

/// Listens on one connection until it fails, or nothing arrives there. Has anything?
async fn hear_out(ear: &Ear, wire: &dyn Wire) -> bool {
    let mut has_heard = false;
    let Some(Ok(mut told)) = timeout(CONNECT, wire.listen()).await else {
        return has_heard;
    };
    loop {
        let echo = notice(ECHO_KEY, fastrand::u64(..));
        let tell = async { wire.tell(&echo).await.is_ok().then_some(()).ok_or(()) };
        let arrives = hear_until(ear, &mut told, Some(&echo));
        let arrives = async { arrives.await.then_some(()).ok_or(()) };
        let echoed = try_join(tell, arrives);
        if !matches!(timeout(ECHO, echoed).await, Some(Ok(_))) {
            return has_heard;
        }
        has_heard = true;
        if !ear.set(true)
            || timeout(QUIET, hear_until(ear, &mut told, None))
                .await
                .is_some()
        {
            return has_heard;
        }
    }
}

/// Passes on what is told, up to this text. `false` when the connection is lost before.
async fn hear_until(ear: &Ear, told: &mut BoxStream<'static, String>, last: Option<&str>) -> bool {
    while let Some(text) = told.next().await {
        let Some(notices) = ear.0.upgrade() else {
            return false;
        };
        notices.hear(&text);
        if last == Some(&text) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
