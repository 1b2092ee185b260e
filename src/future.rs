//! [`ResponseFuture`]: polled by hand while the request is under way, handed to
//! [`recover`](crate::recover) where there is more to do.

use std::fmt;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use http::Request;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::ResponseBody;
use crate::classify::Classify;
use crate::classify::Verdict;
use crate::error::BoxError;
use crate::error::RefreshError;
use crate::recover::Answer;
use crate::recover::Call;
use crate::recover::Held;
use crate::recover::hold;
use crate::recover::recover;
use crate::replay::ReplayBody;

pin_project! {
    /// The future of [`TokenRefresh`](crate::TokenRefresh).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the request; a refresh that it has started goes on (P3).
    pub struct ResponseFuture<Inner, C, B, ResBody>
    where
        Inner: Service<Request<ReplayBody<B>>>,
        ResBody: Body,
    {
        #[pin]
        state: State<Inner, C, B, ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<Inner, C, B, ResBody>
    where
        Inner: Service<Request<ReplayBody<B>>>,
        ResBody: Body,
    {
        /// Nothing was sent.
        Failed { error: Option<RefreshError> },
        /// Sent as it came: not ours to judge.
        Passing { #[pin] future: Inner::Future },
        /// Sent, and not answered yet.
        Sending { #[pin] future: Inner::Future, call: Option<Call<Inner, C, B>> },
        /// Held back, or rejected: the slow path.
        Recovering { future: Pin<Box<dyn Future<Output = Answer<ResBody>> + Send>> },
    }
}

impl<Inner, C, B, ResBody> ResponseFuture<Inner, C, B, ResBody>
where
    Inner: Service<Request<ReplayBody<B>>>,
    ResBody: Body,
{
    pub(crate) fn failed(error: RefreshError) -> Self {
        let error = Some(error);
        Self {
            state: State::Failed { error },
        }
    }

    pub(crate) fn passing(future: Inner::Future) -> Self {
        Self {
            state: State::Passing { future },
        }
    }

    /// Inlined, as [`Call::send`] is.
    #[inline(always)]
    pub(crate) fn sending(future: Inner::Future, call: Call<Inner, C, B>) -> Self {
        let call = Some(call);
        Self {
            state: State::Sending { future, call },
        }
    }
}

impl<Inner, C, B, ResBody> ResponseFuture<Inner, C, B, ResBody>
where
    Inner: Service<Request<ReplayBody<B>>, Response = Response<ResBody>> + Clone + Send + 'static,
    Inner::Error: Into<BoxError>,
    Inner::Future: Send,
    C: Classify + Send + Sync + 'static,
    B: Body + Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Error: Send,
{
    pub(crate) fn held(held: Held<Inner, C, B>) -> Self {
        let future = Box::pin(hold(held));
        Self {
            state: State::Recovering { future },
        }
    }
}

impl<Inner, C, B, ResBody> Future for ResponseFuture<Inner, C, B, ResBody>
where
    Inner: Service<Request<ReplayBody<B>>, Response = Response<ResBody>> + Clone + Send + 'static,
    Inner::Error: Into<BoxError>,
    Inner::Future: Send,
    C: Classify + Send + Sync + 'static,
    B: Body + Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Error: Send,
{
    type Output = Answer<ResBody>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let (call, response, verdict) = match state.as_mut().project() {
                StateProj::Failed { error } => {
                    let error = error.take().map_or_else(already_done, Into::into);
                    return Poll::Ready(Err(error));
                }
                StateProj::Passing { future } => {
                    let response = ready!(future.poll(cx)).map_err(Into::into)?;
                    return Poll::Ready(Ok(response.map(ResponseBody::streaming)));
                }
                StateProj::Recovering { future } => return future.as_mut().poll(cx),
                StateProj::Sending { future, call } => {
                    let answer = ready!(future.poll(cx));
                    // Judged where it is: it is large, and most requests end here.
                    let judged = match (&answer, call.as_ref()) {
                        (Ok(response), Some(call)) => Some(call.judge(response)),
                        _ => None,
                    };
                    let Some(verdict) = judged.filter(is_doubtful) else {
                        if let (Ok(response), Some(call)) = (&answer, call.as_ref()) {
                            call.accept(response);
                        }
                        // What was kept for a replay is not kept any longer.
                        *call = None;
                        let answer = answer.map_err(Into::into);
                        return Poll::Ready(Ok(answer?.map(ResponseBody::streaming)));
                    };
                    let response = answer.map_err(Into::into)?.map(ResponseBody::streaming);
                    let Some(call) = call.take() else {
                        return Poll::Ready(Err(already_done()));
                    };
                    let (response, verdict) = call.peek(response, verdict);
                    if !is_doubtful(&verdict) {
                        return Poll::Ready(Ok(response));
                    }
                    (call, response, verdict)
                }
            };
            let future = Box::pin(recover(call, response, verdict));
            state.set(State::Recovering { future });
        }
    }
}

/// Is there more to do than to pass the answer on?
fn is_doubtful(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Accept | Verdict::Abstain)
}

fn already_done() -> BoxError {
    "the future was polled after it was done".into()
}

impl<Inner, C, B, ResBody> fmt::Debug for ResponseFuture<Inner, C, B, ResBody>
where
    Inner: Service<Request<ReplayBody<B>>>,
    ResBody: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
