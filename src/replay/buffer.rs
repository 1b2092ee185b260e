//! What has been read of a body, and how the first reader hands it to the second.
//!
//! [`Buffer`] is memory with a bound, [`Handover`] the one place where the two readers meet. Its lock is
//! held for moments only, never while a body is polled or dropped: both are the caller's code.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

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

/// The frames that have been read, at most `limit` data bytes.
pub(super) struct Buffer {
    frames: VecDeque<Bytes>,
    /// The small frames since the last one in `frames`.
    small: BytesMut,
    trailers: Option<HeaderMap>,
    /// Of `frames` and `small`.
    data_len: usize,
    limit: usize,
}

impl Buffer {
    fn new(limit: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            small: BytesMut::new(),
            trailers: None,
            data_len: 0,
            limit,
        }
    }

    pub(super) fn data_len(&self) -> usize {
        self.data_len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data_len == 0 && self.trailers.is_none()
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
        if data.len() > self.limit - self.data_len {
            return Err(NotReplayed::BodyOverLimit);
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
            return Some(Frame::data(data));
        }
        self.trailers.take().map(Frame::trailers)
    }
}

/// The unread rest of a body; `None` when it is at its end.
pub(super) type Unread<B> = Option<Pin<Box<B>>>;

/// Between the first reader and the handle for the second.
pub(super) struct Handover<B>(Mutex<Stage<B>>);

enum Stage<B> {
    /// The first reader has the body, and keeps what it reads.
    Reading(Buffer),
    /// The first reader is at the end, or gone.
    Free(Buffer, Unread<B>),
    /// There is no replay, and nothing is kept.
    Lost(NotReplayed),
}

impl<B> Handover<B> {
    pub(super) fn new(limit: usize) -> Self {
        Self(Mutex::new(Stage::Reading(Buffer::new(limit))))
    }

    /// Keeps a frame that was read. False when that is of no use any more.
    pub(super) fn keep(&self, frame: &Frame<Bytes>) -> bool {
        let mut stage = self.lock();
        let Stage::Reading(buffer) = &mut *stage else {
            return false;
        };
        let Err(why) = buffer.push(frame) else {
            return true;
        };
        let kept = mem::replace(&mut *stage, Stage::Lost(why));
        drop(stage);
        drop(kept);
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
        let kept = mem::replace(&mut *self.lock(), Stage::Lost(why));
        drop(kept);
    }

    /// The first reader is at the end of the body, or lets go of it.
    pub(super) fn release(&self, unread: Unread<B>) {
        let mut stage = self.lock();
        match mem::replace(&mut *stage, Stage::Lost(NotReplayed::BodyStillSending)) {
            Stage::Reading(buffer) => *stage = Stage::Free(buffer, unread),
            // Nobody will come for the rest: it is dropped, but not under the lock.
            _ => drop(stage),
        }
    }

    pub(super) fn lost(&self) -> Option<NotReplayed> {
        match *self.lock() {
            Stage::Lost(why) => Some(why),
            Stage::Reading(_) | Stage::Free(..) => None,
        }
    }

    /// For the second reader; can be done once.
    pub(super) fn take(&self) -> Result<(Buffer, Unread<B>), NotReplayed> {
        let taken = mem::replace(
            &mut *self.lock(),
            Stage::Lost(NotReplayed::BodyStillSending),
        );
        match taken {
            Stage::Reading(_) => Err(NotReplayed::BodyStillSending),
            Stage::Free(buffer, unread) => Ok((buffer, unread)),
            Stage::Lost(why) => Err(why),
        }
    }

    /// No code of ours panics while it holds this lock, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Stage<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
