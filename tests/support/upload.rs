//! Request bodies that come as the test wants.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use futures::stream::BoxStream;
use http::HeaderMap;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use tokio::sync::Notify;

/// What comes next.
#[derive(Clone)]
pub enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing, until the test says so.
    Wait(Arc<Notify>),
    Fail,
}

/// The body's own error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller's body failed")
    }
}

impl std::error::Error for Failed {}

pub struct Upload {
    frames: BoxStream<'static, Result<Frame<Bytes>, Failed>>,
    /// What is left of its length, if it tells.
    left: Option<u64>,
    polls: Arc<AtomicUsize>,
}

impl Upload {
    /// Of a length that nobody knows.
    pub fn of(steps: impl IntoIterator<Item = Step, IntoIter: Send + 'static>) -> Self {
        let frames = stream::iter(steps).filter_map(async |step| match step {
            Step::Data(data) => Some(Ok(Frame::data(data))),
            Step::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            Step::Fail => Some(Err(Failed)),
            Step::Wait(until) => {
                until.notified().await;
                None
            }
        });
        Self {
            frames: frames.boxed(),
            left: None,
            polls: Arc::default(),
        }
    }

    /// Says how long it is, and when it is at its end.
    pub fn with_length(mut self, length: usize) -> Self {
        self.left = Some(length as u64);
        self
    }

    /// How often it was polled.
    pub fn polls(&self) -> Arc<AtomicUsize> {
        self.polls.clone()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let polled = self.frames.poll_next_unpin(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(left)) = (&polled, &mut self.left) {
            *left -= frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
