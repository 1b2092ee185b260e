//! [`ResponseBody`]: the server's body as it comes, or what was read of it before, and then the rest.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use futures_util::FutureExt;
use http::HeaderMap;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::BodyExt;
use pin_project_lite::pin_project;

use crate::time::timeout;

pin_project! {
    /// The body of a response that came through the layer.
    ///
    /// It streams what the server sends, as it comes. Where the layer had to look at it first, what
    /// was read comes first, then the rest: nothing is lost, an error at its end included (P10).
    pub struct ResponseBody<B: Body> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B: Body> {
        Streaming { #[pin] body: B },
        Read { read: Box<Read<B>> },
    }
}

/// So many are read in one go.
const FRAMES_AT_ONCE: usize = 64;

/// Is told of the trailers when they are read.
pub(crate) type Watch = Box<dyn FnOnce(&HeaderMap) + Send + Sync>;

/// What was read of a body, and its rest.
pub(crate) struct Read<B: Body> {
    data: Bytes,
    /// The piece that went over the limit.
    over: Bytes,
    trailers: Option<HeaderMap>,
    error: Option<B::Error>,
    rest: Option<Pin<Box<B>>>,
    /// For trailers in the rest.
    watch: Option<Watch>,
}

impl<B: Body> ResponseBody<B> {
    pub(crate) fn streaming(body: B) -> Self {
        Self {
            state: State::Streaming { body },
        }
    }

    /// Reads on until the end, the limit, or the end of the time, whichever comes first.
    pub(crate) async fn read(self, limit: usize, time: Duration) -> Box<Read<B>> {
        let mut read = self.into_read();
        read.fill(limit, time).await;
        read
    }

    /// Reads what is there already, up to the first byte of data.
    pub(crate) fn peek(self) -> Box<Read<B>> {
        let mut read = self.into_read();
        // Nobody waits here: whoever reads on is woken.
        let _: Option<()> = read.pull(&mut BytesMut::new(), 0).now_or_never();
        read
    }

    /// It was read to a good end, and there was no data in it.
    pub(crate) fn is_without_data(&self) -> bool {
        match &self.state {
            State::Streaming { body } => body.is_end_stream(),
            State::Read { read } => read.whole().is_some_and(<[u8]>::is_empty),
        }
    }

    /// What was read of its trailers.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        match &self.state {
            State::Streaming { .. } => None,
            State::Read { read } => read.trailers(),
        }
    }

    fn into_read(self) -> Box<Read<B>> {
        match self.state {
            State::Streaming { body } => Box::new(Read::new(body)),
            State::Read { read } => read,
        }
    }
}

impl<B: Body> Read<B> {
    fn new(body: B) -> Self {
        Self {
            data: Bytes::new(),
            over: Bytes::new(),
            trailers: None,
            error: None,
            rest: (!body.is_end_stream()).then(|| Box::pin(body)),
            watch: None,
        }
    }

    /// All of it, if it was read to its end.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        self.is_whole().then_some(&self.data)
    }

    /// It was read to its end, which was a good one.
    pub(crate) fn is_whole(&self) -> bool {
        self.rest.is_none() && self.error.is_none()
    }

    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// Has this told of trailers that are yet to come.
    pub(crate) fn watch(&mut self, watch: Watch) {
        self.watch = Some(watch);
    }

    async fn fill(&mut self, limit: usize, time: Duration) {
        let mut data = BytesMut::from(&self.data[..]);
        // Whatever was read when the time was up is kept: it is in `data`, not in the future.
        let _: Option<()> = timeout(time, self.pull(&mut data, limit)).await;
        self.data = data.freeze();
    }

    async fn pull(&mut self, data: &mut BytesMut, limit: usize) {
        let mut frames = 0;
        while let Some(rest) = &mut self.rest
            && self.over.is_empty()
        {
            frames += 1;
            if frames % FRAMES_AT_ONCE == 0 {
                // A body that is always ready would not let the time run out.
                yield_now().await;
            }
            match rest.frame().await {
                None => self.rest = None,
                Some(Err(error)) => {
                    self.error = Some(error);
                    self.rest = None;
                }
                Some(Ok(frame)) => match into_bytes(frame).into_data() {
                    Ok(piece) if piece.len() > limit.saturating_sub(data.len()) => {
                        self.over = piece
                    }
                    Ok(piece) => data.extend_from_slice(&piece),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        for piece in [&mut self.data, &mut self.over] {
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(mem::take(piece)))));
            }
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let frame = ready!(poll_frame(rest.as_mut(), cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(watch) = self.watch.take()
        {
            watch(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty()
            && self.over.is_empty()
            && self.trailers.is_none()
            && self.error.is_none()
            && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let read = (self.data.len() + self.over.len()) as u64;
        let mut hint = match (&self.rest, &self.error) {
            (Some(rest), _) => rest.size_hint(),
            (None, None) => SizeHint::with_exact(0),
            (None, Some(_)) => SizeHint::default(),
        };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        if self.trailers.is_some() {
            // A length that is known keeps HTTP/1 from passing trailers on.
            hint = SizeHint::default();
        }
        hint.set_lower(hint.lower().saturating_add(read));
        hint
    }
}

impl<B: Body> From<Box<Read<B>>> for ResponseBody<B> {
    fn from(read: Box<Read<B>>) -> Self {
        Self {
            state: State::Read { read },
        }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().state.project() {
            StateProj::Streaming { body } => poll_frame(body, cx),
            StateProj::Read { read } => read.next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Streaming { body } => body.is_end_stream(),
            State::Read { read } => read.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Streaming { body } => body.size_hint(),
            State::Read { read } => read.size_hint(),
        }
    }
}

impl<B: Body + Default> Default for ResponseBody<B> {
    /// The default of the server's body: an empty one, mostly. What makes answers of its own, as an
    /// interceptor of tonic does, needs it.
    fn default() -> Self {
        Self::streaming(B::default())
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

/// Lets others run.
async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| match mem::replace(&mut has_yielded, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

fn poll_frame<B: Body>(
    body: Pin<&mut B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
    let frame = ready!(body.poll_frame(cx));
    Poll::Ready(frame.map(|frame| frame.map(into_bytes)))
}

fn into_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}
