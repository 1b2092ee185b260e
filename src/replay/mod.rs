//! A request body that can be sent a second time.
//!
//! A rejected request is sent again with a new token, and its body must then arrive whole: a body that
//! was half read, or that says it is empty, would lose what the caller sent without anybody noticing
//! (P10). So the body is kept while it goes up for the first time, up to a limit (P9). The contract:
//!
//! - **Nothing polls a body before the inner service does.** Whoever waits for `100 Continue` would be
//!   answered too early.
//! - **What is whole in memory is shared,** not kept: `Full<Bytes>`, `Full<&'static [u8]>`, `String`, and
//!   any body that is at its end to begin with. It costs no allocation and no limit applies.
//! - **Anything else is kept as it is read.** Over the limit, the first send goes on undisturbed, what was
//!   kept is freed at once, and only the replay is lost.
//! - **A body has one reader at a time.** While the first send still reads, there is no replay. When it
//!   lets go before the end, the replay is what was kept and then the rest, from the body itself.
//! - **Each reader answers for its own position**: `size_hint` and `is_end_stream` of a replay speak of
//!   what the replay has yet to yield, wherever the first send got to.
//!
//! The replay has the bytes and the trailers of the first send; where one data frame ends and the next
//! begins may differ.
//!
//! [`ReplayBody`] is what the inner service gets, [`Kept`] what the layer holds for the second send.

mod buffer;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;

use bytes::Buf;
use bytes::Bytes;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::Full;
use pin_project_lite::pin_project;

use self::buffer::Buffer;
use self::buffer::Handover;
pub(crate) use self::buffer::ReplayLimits;
use crate::error::NotReplayed;
use crate::seeded::seeded;

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

pin_project! {
    /// A request body as the inner service gets it: the caller's own, and kept while it is read, so
    /// that a rejected request can be sent again.
    ///
    /// It yields the caller's frames in the caller's order, with `Bytes` as its data: a conversion that
    /// copies nothing where the caller's data is `Bytes` already. Its error is the caller's.
    ///
    /// Inner services and reissuers may need to make one of their own: `From<Bytes>` gives a body that
    /// is whole in memory, and `Default` an empty one.
    ///
    /// # Limits
    ///
    /// A body that is whole in memory (`Full<Bytes>`, `Empty<Bytes>`, `String`) is shared between the two
    /// sends. Of any other as many data bytes are kept as the layer allows, and as long as the layer may
    /// need them; over that, the body is sent as if the layer were not there, and can't be sent again.
    /// Frames from 512 bytes up are kept without a copy, which also keeps the buffer that they are a
    /// part of. Trailers are kept and not counted.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. What a first send has not read by then is left for the second.
    pub struct ReplayBody<B> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<B> {
        // Whole in memory; empty when it has been read.
        Whole { data: Bytes },
        // The caller's body, and nothing else.
        Passed {
            #[pin]
            body: B,
        },
        // Reads the caller's body, and keeps what it has read.
        First { reader: First<B> },
        // Yields what was kept, then reads the rest. Boxed because it is large and rare.
        Second { reader: Box<Second<B>> },
    }
}

impl<B> ReplayBody<B> {
    fn whole(data: Bytes) -> Self {
        Self {
            state: State::Whole { data },
        }
    }
}

impl<B: Body + 'static> ReplayBody<B> {
    /// For a request that is sent once, whatever the answer: keeps nothing.
    pub(crate) fn pass(body: B) -> Self {
        Self {
            state: State::Passed { body },
        }
    }

    /// For the first send, with the handle for the second. What is kept stays within the limits, unless
    /// the body is whole in memory anyway.
    pub(crate) fn keep(mut body: B, limits: &ReplayLimits) -> (Self, Kept<B>) {
        if body.is_end_stream() {
            return Self::share(Bytes::new());
        }
        if let Some(data) = take_whole(&mut body) {
            return Self::share(data);
        }
        if body.size_hint().lower() > limits.each as u64 {
            return (Self::pass(body), Kept(Source::TooLong));
        }
        let handover = Arc::new(Handover::new(limits.clone()));
        let reader = First {
            rest: Rest(Some(Box::pin(body))),
            handover: Some(Arc::clone(&handover)),
            is_polling: false,
        };
        let state = State::First { reader };
        (Self { state }, Kept(Source::Shared(Handle(handover))))
    }

    fn share(data: Bytes) -> (Self, Kept<B>) {
        (Self::whole(data.clone()), Kept(Source::Whole(data)))
    }
}

/// The data of a body that is known to be whole in memory. Polling it is only the way to get it out:
/// nobody is at the other end.
fn take_whole(body: &mut dyn Any) -> Option<Bytes> {
    take_from::<Full<Bytes>>(body)
        .or_else(|| take_from::<String>(body))
        .or_else(|| take_from::<Full<&'static [u8]>>(body))
}

fn take_from<T>(body: &mut dyn Any) -> Option<Bytes>
where
    T: Body<Data: Into<Bytes>> + Unpin + 'static,
{
    let body = Pin::new(body.downcast_mut::<T>()?);
    match body.poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok().map(Into::into),
        _ => None,
    }
}

impl<B: Body> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Error> {
        match self.project().state.project() {
            StateProjection::Whole { data } if data.is_empty() => Poll::Ready(None),
            StateProjection::Whole { data } => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(data)))))
            }
            StateProjection::Passed { body } => poll_bytes(body, cx),
            StateProjection::First { reader } => reader.poll_frame(cx),
            StateProjection::Second { reader } => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Whole { data } => data.is_empty(),
            State::Passed { body } => body.is_end_stream(),
            State::First { reader } => reader.rest.is_end_stream(),
            State::Second { reader } => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Whole { data } => SizeHint::with_exact(data.len() as u64),
            State::Passed { body } => body.size_hint(),
            State::First { reader } => reader.rest.size_hint(),
            State::Second { reader } => reader.size_hint(),
        }
    }
}

impl<B> Default for ReplayBody<B> {
    /// An empty body.
    fn default() -> Self {
        Self::whole(Bytes::new())
    }
}

impl<B> From<Bytes> for ReplayBody<B> {
    fn from(data: Bytes) -> Self {
        Self::whole(data)
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Whole { .. } => "whole",
            State::Passed { .. } => "passed",
            State::First { .. } => "first",
            State::Second { .. } => "second",
        };
        f.debug_tuple("ReplayBody")
            .field(&format_args!("{state}"))
            .finish()
    }
}

/// What is left of the caller's body; nothing once it is at its end.
struct Rest<B>(Option<Pin<Box<B>>>);

impl<B: Body> Rest<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled<B::Error> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let next = ready!(poll_bytes(body.as_mut(), cx));
        let is_over = match &next {
            Some(Ok(frame)) => frame.is_trailers() || body.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if is_over {
            self.0 = None;
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}

fn poll_bytes<B: Body>(body: Pin<&mut B>, cx: &mut Context<'_>) -> Polled<B::Error> {
    body.poll_frame(cx)
        .map_ok(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
}

/// The first send: passes on what it reads, and keeps it for the second.
struct First<B> {
    rest: Rest<B>,
    /// Where to keep it; `None` once there is nothing more to keep, or nobody to keep it for.
    handover: Option<Arc<Handover<B>>>,
    /// Stays set when the body panics: what such a body has lost can't be known.
    is_polling: bool,
}

impl<B: Body> First<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled<B::Error> {
        self.is_polling = true;
        let polled = self.rest.poll_frame(cx);
        self.is_polling = false;
        if let Poll::Ready(next) = &polled {
            self.record(next.as_ref());
        }
        polled
    }

    fn record(&mut self, next: Option<&Result<Frame<Bytes>, B::Error>>) {
        let Some(handover) = &self.handover else {
            return;
        };
        let is_kept = match next {
            Some(Ok(frame)) => handover.keep(frame),
            Some(Err(_)) => handover.fail(),
            None => true,
        };
        if is_kept && self.rest.0.is_none() {
            handover.release(None);
        }
        if !is_kept || self.rest.0.is_none() {
            self.handover = None;
        }
    }
}

impl<B> Drop for First<B> {
    fn drop(&mut self) {
        let Some(handover) = self.handover.take() else {
            return;
        };
        if self.is_polling {
            handover.fail();
        } else {
            handover.release(self.rest.0.take());
        }
    }
}

/// The second send: what was kept, then the rest.
struct Second<B> {
    kept: Buffer,
    rest: Rest<B>,
}

impl<B: Body> Second<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled<B::Error> {
        match self.kept.next_frame() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.rest.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.data_len() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        let upper = rest.upper().and_then(|upper| upper.checked_add(kept));
        // A length that is known keeps HTTP/1 from sending trailers.
        if let Some(upper) = upper.filter(|_| !self.kept.has_trailers()) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// The handle for the second send. To drop it says that there will be none: what was kept is freed at
/// once, and the first send stops keeping.
pub(crate) struct Kept<B>(Source<B>);

enum Source<B> {
    /// Whole in memory: the first send doesn't matter.
    Whole(Bytes),
    /// Being read by the first send.
    Shared(Handle<B>),
    /// Said at once that it is over the limit.
    TooLong,
}

impl<B> Kept<B> {
    /// Why there can be no replay, if that is certain already: the body went over the limit, or failed.
    /// `None` says no more than that the first send may yet let go of it.
    pub(crate) fn lost(&self) -> Option<NotReplayed> {
        match &self.0 {
            Source::Whole(_) => None,
            Source::Shared(handle) => handle.0.lost(),
            Source::TooLong => Some(NotReplayed::BodyOverLimit),
        }
    }

    /// Waits until the first send is at the end of the body, or has let go of it.
    pub(crate) async fn released(&self) {
        if let Source::Shared(handle) = &self.0 {
            poll_fn(|cx| handle.0.poll_released(cx)).await;
        }
    }

    /// The body for the second send.
    ///
    /// # Errors
    ///
    /// Why there is none. [`NotReplayed::BodyStillSending`] is as final as the others: the first send keeps
    /// nothing from then on.
    pub(crate) fn take(self) -> Result<ReplayBody<B>, NotReplayed> {
        match self.0 {
            _ if seeded!(BodyReplayedEmpty) => Ok(ReplayBody::whole(Bytes::new())),
            Source::Whole(data) => Ok(ReplayBody::whole(data)),
            Source::Shared(handle) => {
                let (kept, rest) = handle.0.take()?;
                let rest = Rest(rest);
                let reader = Box::new(Second { kept, rest });
                let state = State::Second { reader };
                Ok(ReplayBody { state })
            }
            Source::TooLong => Err(NotReplayed::BodyOverLimit),
        }
    }
}

impl<B> fmt::Debug for Kept<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.0 {
            Source::Whole(_) => "whole",
            Source::Shared(_) => "shared",
            Source::TooLong => "too long",
        };
        f.debug_tuple("Kept")
            .field(&format_args!("{source}"))
            .finish()
    }
}

struct Handle<B>(Arc<Handover<B>>);

impl<B> Drop for Handle<B> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
