//! The slow path: what happens to a request that has to wait before it is sent, or that was
//! rejected.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::request::Parts;
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use crate::body::ResponseBody;
use crate::classify::Classify;
use crate::classify::Verdict;
use crate::coordinator::Address;
use crate::coordinator::Next;
use crate::coordinator::Ticket;
use crate::error::BoxError;
use crate::error::EndReason;
use crate::error::Kind;
use crate::error::NotReplayed;
use crate::error::RefreshError;
use crate::grpc;
use crate::options::Options;
use crate::replay::Kept;
use crate::replay::ReplayBody;
use crate::say::say;
use crate::seeded::seeded;
use crate::session::Session;
use crate::time::timeout;
use crate::token::Stamp;

/// A request extension: it does no harm to send this request twice, even if the server has
/// processed it.
///
/// Only asked for where the answer does not exclude that: an error code inside a successful
/// response ([`ErrorCodes::in_success`](crate::ErrorCodes::in_success)). A 401 does, and so does the
/// answer of a gRPC call that failed without a message.
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
    /// When it has to be over, where the caller has told the server.
    deadline: Option<Instant>,
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
    /// As that of a [`Call`].
    deadline: Option<Instant>,
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
            deadline: grpc::deadline(&head),
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
    C: Classify + Send + Sync + 'static,
    B: Body + 'static,
    ResBody: Body,
{
    let Held {
        mut inner,
        options,
        session,
        ticket,
        deadline,
        mut head,
        body,
    } = held;
    let epoch = ticket.epoch();
    session.hold(ticket.within(deadline)).await?;
    ready(&mut inner, deadline).await?;
    let (stamp, header) = session.current();
    if header.is_some() && stamp.epoch != epoch && !seeded!(NoEpochCheckWhenHeld) {
        // P8: it waited for the token of one login, and is not sent with that of another.
        return Err(RefreshError::ended(EndReason::Replaced).into());
    }
    if header.is_none() && options.require_token {
        return Err(session.absence_or_default().into());
    }
    if !is_in_time(&mut head, deadline) {
        return Err(RefreshError::new(Kind::WaitTimeout).into());
    }
    let sent = (stamp, header);
    let (future, call) = Call::send(&mut inner, options, session, sent, deadline, head, body);
    let response = future.await.map_err(Into::into)?;
    let response = response.map(ResponseBody::streaming);
    let verdict = call.judge(&response);
    let (response, verdict) = call.peek(response, verdict);
    match verdict {
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
    C: Classify + Send + Sync + 'static,
    B: Body + 'static,
    ResBody: Body,
{
    // A look at the body, where the classifier asks for one.
    let patience = call.patience();
    let time = patience.left();
    let (response, verdict) = call.options.inspect(response, verdict, time).await;
    let (rejection, verdict) = call.peek(response, verdict);
    if !is_rejection(verdict) {
        return Ok(rejection);
    }

    // The refresh starts, or is joined, before anything else is waited for.
    let address = call.sent().address();
    let is_final = verdict == Verdict::EndSession;
    let next = call.session.reject(call.stamp, is_final, address);
    if let Next::Fail(error) = next {
        return Ok(explain(rejection, error));
    }
    if let Some(why) = call.cannot_be_replayed(&rejection) {
        return Ok(explain(rejection, not_replayed(why)));
    }

    // Meanwhile the rejection is read to its end, so that its connection is free (P14).
    let (rejection, is_whole) = call.options.read(rejection, patience.left()).await;
    if !is_whole {
        return Ok(explain(
            rejection,
            not_replayed(NotReplayed::RejectionUnread),
        ));
    }
    if call.may_be_processed(&rejection) {
        let why = not_replayed(NotReplayed::MayBeProcessed);
        return Ok(explain(rejection, why));
    }
    let late = matches!(next, Next::Go);
    if let Next::Wait(ticket) = next
        && let Err(error) = ticket.within(call.deadline).wait().await
    {
        return Ok(explain(rejection, error));
    }
    // What still reads the body of the first send has as long to come to its end as the rejection had.
    let _: Option<()> = timeout(patience.left(), call.body.released()).await;

    // Once more, with what is there now. Attached when the service is ready, for a logout or a
    // login may come until then (P8).
    let body = match call.body.take() {
        Ok(body) => body,
        Err(why) => return Ok(explain(rejection, not_replayed(why))),
    };
    if let Err(error) = ready(&mut call.inner, call.deadline).await {
        let why = match error.downcast::<RefreshError>() {
            Ok(late) => *late,
            Err(error) => {
                RefreshError::with_source(Kind::NotReplayed(NotReplayed::NotReady), error)
            }
        };
        return Ok(explain(rejection, why));
    }
    let (stamp, header) = call.session.current();
    if stamp.epoch != call.stamp.epoch && !seeded!(NoEpochCheckOnReplay) {
        let replaced = || RefreshError::ended(EndReason::Replaced);
        let why = call.session.absence().unwrap_or_else(replaced);
        return Ok(explain(rejection, why));
    }
    if !is_in_time(&mut call.head, call.deadline) {
        return Ok(explain(rejection, RefreshError::new(Kind::WaitTimeout)));
    }
    drop(rejection);
    call.session.count_replay(late);
    call.session.attach(&mut call.head.headers, header);
    let uri = call.head.uri.clone();
    let request = Request::from_parts(call.head, body);
    let response = call.inner.call(request).await.map_err(Into::into)?;
    let response = response.map(ResponseBody::streaming);

    // Whatever it says, it is the answer (P9); a rejection counts against the address alone (P2).
    let verdict = call.options.judge(&response);
    let time = Patience::new(call.options.response_time, call.deadline).left();
    let (response, verdict) = call.options.inspect(response, verdict, time).await;
    let sent = Sent {
        options: &call.options,
        session: &call.session,
        stamp,
        uri: &uri,
        is_replay: true,
    };
    let (response, verdict) = sent.peek(response, verdict);
    if !is_rejection(verdict) {
        return Ok(response);
    }
    match verdict {
        // Nobody waits for it here: the answer is there.
        Verdict::EndSession => drop(call.session.reject(stamp, true, address)),
        _ => call.session.reject_replay(stamp, address),
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
        deadline: Option<Instant>,
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
        let (first, kept) = ReplayBody::keep(body, &options.replay_limits);
        let future = inner.call(Request::from_parts(head, first));
        let call = Self {
            inner: replay,
            options,
            session,
            stamp,
            bare,
            deadline,
            head: copy,
            body: kept,
        };
        (future, call)
    }

    /// Why waiting is of no use for this request, where that is known already.
    fn cannot_be_replayed<ResBody>(&self, rejection: &Response<ResBody>) -> Option<NotReplayed> {
        // Of an answer of gRPC more has to be read.
        if self.says_processed(rejection) && !grpc::is_grpc(rejection.headers()) {
            return Some(NotReplayed::MayBeProcessed);
        }
        self.body.lost()
    }

    /// As [`says_processed`](Self::says_processed), but for gRPC calls that failed without a message
    /// (B29).
    fn may_be_processed<ResBody: Body>(&self, rejection: &Response<ResponseBody<ResBody>>) -> bool {
        let body = rejection.body();
        let in_head = grpc::status(rejection.headers());
        let status = in_head.or_else(|| body.trailers().and_then(grpc::status));
        let has_failed = status.is_some_and(grpc::is_failure) && body.is_without_data();
        self.says_processed(rejection) && !has_failed
    }

    /// A success says that the request was processed, and gRPC has its status elsewhere.
    fn says_processed<ResBody>(&self, rejection: &Response<ResBody>) -> bool {
        let (status, headers) = (rejection.status(), rejection.headers());
        let is_answered = grpc::is_grpc(headers) && !status.is_client_error();
        let is_safe = self.head.extensions.get::<ReplaySafe>().is_some();
        (status.is_success() || is_answered) && !is_safe
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

    /// For looking at the answer.
    fn patience(&self) -> Patience {
        Patience::new(self.options.response_time, self.deadline)
    }

    pub(crate) fn peek<ResBody: Body>(
        &self,
        response: Response<ResponseBody<ResBody>>,
        verdict: Verdict,
    ) -> (Response<ResponseBody<ResBody>>, Verdict)
    where
        C: Send + Sync + 'static,
    {
        self.sent().peek(response, verdict)
    }

    /// The answer is no rejection, and only that has to be kept in mind.
    #[inline]
    pub(crate) fn accept<ResBody>(&self, response: &Response<ResBody>) {
        if response.status().is_success() && self.session.may_be_news(self.stamp) {
            self.sent().accept(response, None);
        }
    }

    fn sent(&self) -> Sent<'_, C> {
        Sent {
            options: &self.options,
            session: &self.session,
            stamp: self.stamp,
            uri: &self.head.uri,
            is_replay: false,
        }
    }
}

/// What was sent, and with which token: for those that look at the answer.
struct Sent<'a, C> {
    options: &'a Arc<Options<C>>,
    session: &'a Session,
    stamp: Stamp,
    uri: &'a Uri,
    is_replay: bool,
}

impl<C> Sent<'_, C> {
    fn address(&self) -> Address {
        let origin = self.options.origins.of(self.uri);
        self.session.address(origin, self.uri.path())
    }

    /// An answer that is no rejection, with the trailers where they decided. Whether the token was
    /// accepted is said by a success, and in gRPC by a success of the call: a proxy that cannot reach the
    /// server has not looked at the token.
    #[cold]
    fn accept<ResBody>(&self, response: &Response<ResBody>, trailers: Option<&HeaderMap>) {
        let headers = response.headers();
        let has_failed = grpc::is_grpc(headers) && {
            let said = grpc::status(headers).or_else(|| trailers.and_then(grpc::status));
            said.is_some_and(grpc::is_failure)
        };
        if response.status().is_success() && !has_failed && self.session.may_be_news(self.stamp) {
            self.session.accept(self.stamp, self.address());
        }
    }
}

impl<C: Classify + Send + Sync + 'static> Sent<'_, C> {
    /// Judges the trailers, where the head said that they decide and they are there already. Those that
    /// come later are judged when they are read, for the next request's benefit (P10).
    fn peek<ResBody: Body>(
        &self,
        response: Response<ResponseBody<ResBody>>,
        verdict: Verdict,
    ) -> (Response<ResponseBody<ResBody>>, Verdict) {
        if verdict != Verdict::InspectTrailers {
            if is_no_rejection(verdict) {
                self.accept(&response, None);
            }
            return (response, verdict);
        }
        let (head, body) = response.into_parts();
        let mut read = body.peek();
        let is_whole = read.is_whole();
        let judged = match read.trailers() {
            Some(trailers) => Some(self.options.judge_trailers(trailers)),
            None => is_whole.then_some(Verdict::Abstain),
        };
        if judged.is_none() {
            let (options, session) = (self.options.clone(), self.session.clone());
            let (stamp, address, is_replay) = (self.stamp, self.address(), self.is_replay);
            let (is_success, is_grpc) = (head.status.is_success(), grpc::is_grpc(&head.headers));
            read.watch(Box::new(move |trailers| {
                let verdict = options.judge_trailers(trailers);
                let has_failed = is_grpc && grpc::status(trailers).is_some_and(grpc::is_failure);
                match verdict {
                    Verdict::EndSession => session.reject_later(stamp, true, address),
                    Verdict::Refresh if is_replay => session.reject_replay(stamp, address),
                    Verdict::Refresh => session.reject_later(stamp, false, address),
                    _ if is_success && !has_failed => session.accept(stamp, address),
                    _ => {}
                }
            }));
        }
        let response = Response::from_parts(head, ResponseBody::from(read));
        let verdict = judged.unwrap_or(Verdict::Abstain);
        if judged.is_some_and(is_no_rejection) {
            self.accept(&response, response.body().trailers());
        }
        (response, verdict)
    }
}

/// Has the request's time not passed? What is left of it is put into its head.
fn is_in_time(head: &mut Parts, deadline: Option<Instant>) -> bool {
    deadline.is_none_or(|deadline| grpc::shorten(&mut head.headers, deadline))
}

fn is_rejection(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Refresh | Verdict::EndSession)
}

fn is_no_rejection(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Accept | Verdict::Abstain)
}

/// The server's own answer, and why it was not made good.
fn explain<ResBody>(mut response: Response<ResBody>, why: RefreshError) -> Response<ResBody> {
    say(|| tracing::debug!(%why, status = %response.status(), "a rejection is returned"));
    response.extensions_mut().insert(why);
    response
}

fn not_replayed(why: NotReplayed) -> RefreshError {
    RefreshError::new(Kind::NotReplayed(why))
}

/// Where the deadline comes first, it is the error.
async fn ready<Inner, Request>(inner: &mut Inner, deadline: Option<Instant>) -> Result<(), BoxError>
where
    Inner: Service<Request, Error: Into<BoxError>>,
{
    let ready = poll_fn(|cx| inner.poll_ready(cx));
    let Some(deadline) = deadline else {
        return ready.await.map_err(Into::into);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    match timeout(left, ready).await {
        Some(ready) => ready.map_err(Into::into),
        None => Err(RefreshError::new(Kind::WaitTimeout).into()),
    }
}

/// For how long an answer is looked at, and the first send of a body waited for.
struct Patience {
    since: Instant,
    most: Duration,
}

impl Patience {
    fn new(most: Duration, deadline: Option<Instant>) -> Self {
        let since = Instant::now();
        let until_deadline = |deadline: Instant| deadline.saturating_duration_since(since);
        let most = deadline.map_or(most, |deadline| most.min(until_deadline(deadline)));
        Self { since, most }
    }

    fn left(&self) -> Duration {
        self.most.saturating_sub(self.since.elapsed())
    }
}
