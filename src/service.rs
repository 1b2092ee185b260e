//! [`TokenRefresh`]: what happens to a request before it is sent.

use std::fmt;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use http::Request;
use http::Response;
use http::request::Parts;
use http_body::Body;
use tower_service::Service;

use crate::attach::WithoutToken;
use crate::body::ResponseBody;
use crate::classify::Classify;
use crate::coordinator::Admitted;
use crate::error::BoxError;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::future::ResponseFuture;
use crate::grpc;
use crate::options::Options;
use crate::recover::Call;
use crate::recover::Held;
use crate::replay::ReplayBody;
use crate::session::SelectSession;
use crate::session::Session;

/// The service that [`TokenRefreshLayer`](crate::TokenRefreshLayer) makes. See the [crate's
/// documentation](crate) for how it works.
pub struct TokenRefresh<Inner, S, C> {
    inner: Inner,
    select: S,
    options: Arc<Options<C>>,
}

impl<Inner, S, C> TokenRefresh<Inner, S, C> {
    pub(crate) fn new(inner: Inner, select: S, options: Arc<Options<C>>) -> Self {
        Self {
            inner,
            select,
            options,
        }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &Inner {
        &self.inner
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }

    /// Takes the service out.
    pub fn into_inner(self) -> Inner {
        self.inner
    }
}

impl<Inner, S: SelectSession, C> TokenRefresh<Inner, S, C> {
    /// The session whose token this request is to carry. `None`: it is sent as it is.
    fn session_for(&self, head: &Parts) -> Result<Option<Session>, RefreshError> {
        let origins = &self.options.origins;
        if head.extensions.get::<WithoutToken>().is_some()
            || !origins.allow(&head.uri, &head.headers)
        {
            return Ok(None);
        }
        match self.select.select(head) {
            Some(session) => Ok(Some(session).filter(|it| !it.is_attached(&head.headers))),
            None if self.options.require_token => Err(RefreshError::new(Kind::NotLoggedIn)),
            None => Ok(None),
        }
    }
}

impl<Inner, S, C, B, ResBody> Service<Request<B>> for TokenRefresh<Inner, S, C>
where
    Inner: Service<Request<ReplayBody<B>>, Response = Response<ResBody>> + Clone + Send + 'static,
    Inner::Error: Into<BoxError>,
    Inner::Future: Send,
    S: SelectSession,
    C: Classify + Send + Sync + 'static,
    B: Body + Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Error: Send,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = BoxError;
    type Future = ResponseFuture<Inner, C, B, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let session = match self.session_for(&head) {
            Ok(Some(session)) => session,
            Ok(None) => return self.pass(head, body),
            Err(error) => return self.fail(error),
        };
        match session.admit() {
            Admitted::Go(_, None) if self.options.require_token => {
                self.fail(session.absence_or_default())
            }
            Admitted::Go(stamp, header) => {
                let options = self.options.clone();
                let sent = (stamp, header);
                let deadline = grpc::deadline(&head);
                let (future, call) = Call::send(
                    &mut self.inner,
                    options,
                    session,
                    sent,
                    deadline,
                    head,
                    body,
                );
                ResponseFuture::sending(future, call)
            }
            Admitted::Hold(ticket) => {
                let (fresh, options) = (self.give_way(), self.options.clone());
                ResponseFuture::held(Held::new(fresh, options, session, ticket, head, body))
            }
            Admitted::Pass => self.pass(head, body),
            Admitted::Refuse(error) => self.fail(error),
        }
    }
}

impl<Inner: Clone, S, C> TokenRefresh<Inner, S, C> {
    /// Gives back the place that readiness has reserved, as nothing is sent now (P14): the ready
    /// service is replaced by one that is not, and another such is returned.
    fn give_way(&mut self) -> Inner {
        let fresh = self.inner.clone();
        self.inner = fresh.clone();
        fresh
    }

    fn fail<B, ResBody>(&mut self, error: RefreshError) -> ResponseFuture<Inner, C, B, ResBody>
    where
        Inner: Service<Request<ReplayBody<B>>>,
        ResBody: Body,
    {
        drop(self.give_way());
        ResponseFuture::failed(error)
    }
}

impl<Inner, S, C> TokenRefresh<Inner, S, C> {
    fn pass<B, ResBody>(&mut self, head: Parts, body: B) -> ResponseFuture<Inner, C, B, ResBody>
    where
        Inner: Service<Request<ReplayBody<B>>, Response = Response<ResBody>>,
        B: Body + 'static,
        ResBody: Body,
    {
        let request = Request::from_parts(head, ReplayBody::pass(body));
        ResponseFuture::passing(self.inner.call(request))
    }
}

impl<Inner: Clone, S: Clone, C> Clone for TokenRefresh<Inner, S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            select: self.select.clone(),
            options: self.options.clone(),
        }
    }
}

impl<Inner: fmt::Debug, S, C> fmt::Debug for TokenRefresh<Inner, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRefresh")
            .field("inner", &self.inner)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
