//! What has been read of a body, and how the first reader hands it to the second.
//!
//! [`Buffer`] is memory with a bound, [`Handover`] the one place where the two readers meet. Its lock is
//! held for moments only, never while a body is polled or dropped: both are the caller's code.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http_body::Frame;

use crate::error::NotReplayed;

/// Smaller frames are copied together. Each frame that is kept as it is costs some 64 bytes of
/// bookkeeping, and keeps the whole buffer that it is a part of: a body of single bytes would otherwise
/// take a hundred times what the limit says.
const SHARED_FROM: usize = 512;

/// Small frames are copied into pieces of at most this size, so that growing one never copies much and
/// the unused end of one is never large.
const PIECE: usize = 8 * 1024;

/// How many data bytes may be kept: of one body, and of all that share these limits.
#[derive(Debug, Clone)]
pub(crate) struct ReplayLimits {
    pub(crate) each: usize,
    /// What is left for all.
    left: Arc<AtomicUsize>,
}

impl ReplayLimits {
    pub(crate) fn new(each: usize, all: usize) -> Self {
        let left = Arc::new(AtomicUsize::new(all));
        Self { each, left }
    }

    fn take(&self, bytes: usize) -> bool {
        let rest = |left: usize| left.checked_sub(bytes);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest)
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The frames that have been read, within the limits.
pub(super) struct Buffer {
    frames: VecDeque<Bytes>,
    /// The small frames since the last one in `frames`.
    small: BytesMut,
    trailers: Option<HeaderMap>,
    /// Of `frames` and `small`.
    data_len: usize,
    limits: ReplayLimits,
}

impl Buffer {
    fn new(limits: ReplayLimits) -> Self {
        Self {
            frames: VecDeque::new(),
            small: BytesMut::new(),
            trailers: None,
            data_len: 0,
            limits,
        }
    }

    pub(super) fn data_len(&self) -> usize {
        self.data_len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data_len == 0 && self.trailers.is_none()
    }

    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    fn push(&mut self, frame: &Frame<Bytes>) -> Result<(), NotReplayed> {
        if let Some(data) = frame.data_ref() {
            self.push_data(data)
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            Ok(())
        } else {
            Err(NotReplayed::BodyFailed)
        }
    }

    fn push_data(&mut self, data: &Bytes) -> Result<(), NotReplayed> {
        if data.len() > self.limits.each - self.data_len {
            return Err(NotReplayed::BodyOverLimit);
        }
        if !self.limits.take(data.len()) {
            return Err(NotReplayed::BodiesOverLimit);
        }
        self.data_len += data.len();
        let is_shared = data.len() >= SHARED_FROM;
        if is_shared || self.small.len() + data.len() > PIECE {
            let piece = self.take_small();
            self.frames.extend(piece);
        }
        if is_shared {
            self.frames.push_back(data.clone());
        } else {
            self.small.extend_from_slice(data);
        }
        Ok(())
    }

    fn take_small(&mut self) -> Option<Bytes> {
        (!self.small.is_empty()).then(|| mem::take(&mut self.small).freeze())
    }

    /// Takes the first frame out.
    pub(super) fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        if let Some(data) = self.frames.pop_front().or_else(|| self.take_small()) {
            self.data_len -= data.len();
            self.limits.give_back(data.len());
            return Some(Frame::data(data));
        }
        self.trailers.take().map(Frame::trailers)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.limits.give_back(self.data_len);
    }
}

/// The unread rest of a body; `None` when it is at its end.
pub(super) type Unread<B> = Option<Pin<Box<B>>>;

/// Between the first reader and the handle for the second.
pub(super) struct Handover<B>(Mutex<Stage<B>>);

enum Stage<B> {
    /// The first reader has the body, and keeps what it reads.
    Reading {
        kept: Buffer,
        /// Who waits for it to be done.
        waiting: Option<Waker>,
    },
    /// The first reader is at the end, or gone.
    Free(Buffer, Unread<B>),
    /// There is no replay, and nothing is kept.
    Lost(NotReplayed),
}

impl<B> Handover<B> {
    pub(super) fn new(limits: ReplayLimits) -> Self {
        Self(Mutex::new(Stage::Reading {
            kept: Buffer::new(limits),
            waiting: None,
        }))
    }

    /// Keeps a frame that was read. False when that is of no use any more.
    pub(super) fn keep(&self, frame: &Frame<Bytes>) -> bool {
        let mut stage = self.lock();
        let Stage::Reading { kept, .. } = &mut *stage else {
            return false;
        };
        let Err(why) = kept.push(frame) else {
            return true;
        };
        drop(stage);
        self.lose(why);
        false
    }

    /// The body failed: what comes after an error is not to be trusted. False, as for
    /// [`keep`](Self::keep).
    pub(super) fn fail(&self) -> bool {
        self.lose(NotReplayed::BodyFailed);
        false
    }

    /// The second reader won't come.
    pub(super) fn abandon(&self) {
        self.lose(NotReplayed::BodyStillSending);
    }

    fn lose(&self, why: NotReplayed) {
        self.replace(Stage::Lost(why)).let_go();
    }

    /// The first reader is at the end of the body, or lets go of it.
    pub(super) fn release(&self, unread: Unread<B>) {
        let mut stage = self.lock();
        match mem::replace(&mut *stage, Stage::Lost(NotReplayed::BodyStillSending)) {
            Stage::Reading { kept, waiting } => {
                *stage = Stage::Free(kept, unread);
                drop(stage);
                wake(waiting);
            }
            // Nobody will come for the rest: it is dropped, but not under the lock.
            _ => drop(stage),
        }
    }

    /// Is the first reader done?
    pub(super) fn poll_released(&self, cx: &Context<'_>) -> Poll<()> {
        match &mut *self.lock() {
            Stage::Reading { waiting, .. } => {
                *waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            Stage::Free(..) | Stage::Lost(_) => Poll::Ready(()),
        }
    }

    pub(super) fn lost(&self) -> Option<NotReplayed> {
        match *self.lock() {
            Stage::Lost(why) => Some(why),
            Stage::Reading { .. } | Stage::Free(..) => None,
        }
    }

    /// For the second reader; can be done once.
    pub(super) fn take(&self) -> Result<(Buffer, Unread<B>), NotReplayed> {
        let taken = self.replace(Stage::Lost(NotReplayed::BodyStillSending));
        match taken {
            Stage::Reading { .. } => Err(NotReplayed::BodyStillSending),
            Stage::Free(buffer, unread) => Ok((buffer, unread)),
            Stage::Lost(why) => Err(why),
        }
    }

    fn replace(&self, stage: Stage<B>) -> Stage<B> {
        mem::replace(&mut *self.lock(), stage)
    }

    /// No code of ours panics while it holds this lock, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Stage<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Stage<B> {
    /// Whoever waited for this stage to be over is told.
    fn let_go(self) {
        if let Self::Reading { waiting, .. } = self {
            wake(waiting);
        }
    }
}

fn wake(waiting: Option<Waker>) {
    if let Some(waker) = waiting {
        waker.wake();
    }
}
