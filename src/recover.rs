//! The slow path: what happens to a request that has to wait before it is sent, or that was
//! rejected.

use std::sync::Arc;

use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::request::Parts;
use http_body::Body;
use tower_service::Service;

use crate::body::ResponseBody;
use crate::classify::Classify;
use crate::classify::Verdict;
use crate::classify::is_refused_at_once;
use crate::coordinator::Next;
use crate::coordinator::Ticket;
use crate::error::BoxError;
use crate::error::EndReason;
use crate::error::Kind;
use crate::error::NotReplayed;
use crate::error::RefreshError;
use crate::options::Options;
use crate::replay::Kept;
use crate::replay::ReplayBody;
use crate::session::Session;
use crate::token::Stamp;

/// A request extension: it does no harm to send this request twice, even if the server has
/// processed it.
///
/// Only asked for where the answer does not exclude that: an error code inside a successful
/// response ([`ErrorCodes::in_success`](crate::ErrorCodes::in_success)). A 401 does, and so does the
/// answer of a gRPC call that failed before its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to add")]
pub struct ReplaySafe;

pub(crate) type Answer<ResBody> = Result<Response<ResponseBody<ResBody>>, BoxError>;

/// A request that was sent, and all that is needed to send it again.
pub(crate) struct Call<Inner, C, B> {
    /// Not ready yet.
    inner: Inner,
    options: Arc<Options<C>>,
    session: Session,
    /// What it carried when it was sent.
    stamp: Stamp,
    /// It carried no token, for there was none.
    bare: bool,
    head: Parts,
    body: Kept<B>,
}

/// A request that is not sent yet.
pub(crate) struct Held<Inner, C, B> {
    /// Not ready yet.
    inner: Inner,
    options: Arc<Options<C>>,
    session: Session,
    ticket: Ticket,
    head: Parts,
    body: B,
}

impl<Inner, C, B> Held<Inner, C, B> {
    pub(crate) fn new(
        inner: Inner,
        options: Arc<Options<C>>,
        session: Session,
        ticket: Ticket,
        head: Parts,
        body: B,
    ) -> Self {
        Self {
            inner,
            options,
            session,
            ticket,
            head,
            body,
        }
    }
}

/// Waits, then sends. Nothing was sent yet, so what fails here fails the request.
pub(crate) async fn hold<Inner, C, B, ResBody>(held: Held<Inner, C, B>) -> Answer<ResBody>
where
    Inner: Service<Request<ReplayBody<B>>, Response = Response<ResBody>> + Clone,
    Inner::Error: Into<BoxError>,
    C: Classify,
    B: Body + 'static,
    ResBody: Body,
{
    let Held {
        mut inner,
        options,
        session,
        ticket,
        head,
        body,
    } = held;
    let epoch = ticket.epoch();
    session.hold(ticket).await?;
    ready(&mut inner).await?;
    let (stamp, header) = session.current();
    if header.is_some() && stamp.epoch != epoch {
        // P8: it waited for the token of one login, and is not sent with that of another.
        return Err(RefreshError::ended(EndReason::Replaced).into());
    }
    if header.is_none() && options.require_token {
        return Err(session.absence_or_default().into());
    }
    let (future, call) = Call::send(&mut inner, options, session, (stamp, header), head, body);
    let response = future.await.map_err(Into::into)?;
    let response = response.map(ResponseBody::streaming);
    match call.judge(&response) {
        Verdict::Accept | Verdict::Abstain => Ok(response),
        verdict => recover(call, response, verdict).await,
    }
}

/// Recovers from an answer that may be a rejection.
pub(crate) async fn recover<Inner, C, B, ResBody>(
    mut call: Call<Inner, C, B>,
    response: Response<ResponseBody<ResBody>>,
    verdict: Verdict,
) -> Answer<ResBody>
where
    Inner: Service<Request<ReplayBody<B>>, Response = Response<ResBody>>,
    Inner::Error: Into<BoxError>,
    C: Classify,
    B: Body + 'static,
    ResBody: Body,
{
    // A look at the body, where the classifier asks for one.
    let (rejection, verdict) = call.options.settle_verdict(response, verdict).await;
    if !is_rejection(verdict) {
        return Ok(rejection);
    }

    // The refresh starts, or is joined, before anything else is waited for.
    let next = call
        .session
        .reject(call.stamp, verdict == Verdict::EndSession);
    if let Next::Fail(error) = next {
        return Ok(explain(rejection, error));
    }
    if let Some(why) = call.cannot_be_replayed(&rejection) {
        return Ok(explain(rejection, why));
    }

    // Meanwhile the rejection is read to its end, so that its connection is free (P14).
    let (rejection, is_whole) = call.options.read(rejection).await;
    if !is_whole {
        return Ok(explain(
            rejection,
            not_replayed(NotReplayed::RejectionUnread),
        ));
    }
    let late = matches!(next, Next::Go);
    if let Next::Wait(ticket) = next
        && let Err(error) = ticket.wait().await
    {
        return Ok(explain(rejection, error));
    }

    // Once more, with what is there now. Attached when the service is ready, for a logout or a
    // login may come until then (P8).
    let body = match call.body.take() {
        Ok(body) => body,
        Err(why) => return Ok(explain(rejection, not_replayed(why))),
    };
    if let Err(error) = ready(&mut call.inner).await {
        let why = Kind::NotReplayed(NotReplayed::NotReady);
        return Ok(explain(rejection, RefreshError::with_source(why, error)));
    }
    let (stamp, header) = call.session.current();
    if stamp.epoch != call.stamp.epoch {
        let replaced = || RefreshError::ended(EndReason::Replaced);
        let why = call.session.absence().unwrap_or_else(replaced);
        return Ok(explain(rejection, why));
    }
    drop(rejection);
    call.session.count_replay(late);
    call.session.attach(&mut call.head.headers, header);
    let request = Request::from_parts(call.head, body);
    let response = call.inner.call(request).await.map_err(Into::into)?;

    // Whatever it says, it is the answer; a rejection counts for the next request (P2, P9).
    let response = response.map(ResponseBody::streaming);
    let verdict = call.options.judge(&response);
    let (response, verdict) = call.options.settle_verdict(response, verdict).await;
    if !is_rejection(verdict) {
        return Ok(response);
    }
    match verdict {
        // Nobody waits for it here: the answer is there.
        Verdict::EndSession => drop(call.session.reject(stamp, true)),
        _ => call.session.mark_rejected(stamp),
    }
    Ok(explain(response, not_replayed(NotReplayed::RejectedAgain)))
}

impl<Inner, C, B> Call<Inner, C, B>
where
    C: Classify,
    B: Body + 'static,
{
    /// Sends a request with the token on it, and keeps what is needed to send it again.
    ///
    /// Inlined, and the call made last: it is large, and is then made where it stays.
    #[inline(always)]
    pub(crate) fn send(
        inner: &mut Inner,
        options: Arc<Options<C>>,
        session: Session,
        (stamp, header): (Stamp, Option<HeaderValue>),
        mut head: Parts,
        body: B,
    ) -> (Inner::Future, Self)
    where
        Inner: Service<Request<ReplayBody<B>>> + Clone,
    {
        // The clone is for the replay, and made ready then: it holds no permit (P14).
        let replay = inner.clone();
        let copy = head.clone();
        let bare = header.is_none();
        session.attach(&mut head.headers, header);
        let (first, kept) = ReplayBody::keep(body, options.replay_limit);
        let future = inner.call(Request::from_parts(head, first));
        let call = Self {
            inner: replay,
            options,
            session,
            stamp,
            bare,
            head: copy,
            body: kept,
        };
        (future, call)
    }

    /// Why waiting is of no use for this request, where that is known already.
    fn cannot_be_replayed<ResBody: Body>(
        &self,
        rejection: &Response<ResBody>,
    ) -> Option<RefreshError> {
        // Of gRPC: with a status in the head and nothing after it, there was no message.
        let is_refused =
            is_refused_at_once(rejection.headers()) && rejection.body().is_end_stream();
        let processed = rejection.status().is_success() && !is_refused;
        if processed && self.head.extensions.get::<ReplaySafe>().is_none() {
            return Some(not_replayed(NotReplayed::MayBeProcessed));
        }
        self.body.lost().map(not_replayed)
    }
}

impl<Inner, C: Classify, B> Call<Inner, C, B> {
    pub(crate) fn judge<ResBody>(&self, response: &Response<ResBody>) -> Verdict {
        // To have no token is reason enough: no classifier need know the code for it.
        match self.bare && response.status() == StatusCode::UNAUTHORIZED {
            true => Verdict::Refresh,
            false => self.options.judge(response),
        }
    }
}

fn is_rejection(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Refresh | Verdict::EndSession)
}

/// The server's own answer, and why it was not made good.
fn explain<ResBody>(mut response: Response<ResBody>, why: RefreshError) -> Response<ResBody> {
    tracing::debug!(%why, status = %response.status(), "a rejection is returned");
    response.extensions_mut().insert(why);
    response
}

fn not_replayed(why: NotReplayed) -> RefreshError {
    RefreshError::new(Kind::NotReplayed(why))
}

async fn ready<Inner, Request>(inner: &mut Inner) -> Result<(), BoxError>
where
    Inner: Service<Request, Error: Into<BoxError>>,
{
    std::future::poll_fn(|cx| inner.poll_ready(cx))
        .await
        .map_err(Into::into)
}
