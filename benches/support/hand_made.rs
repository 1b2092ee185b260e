//! What one composes by hand today: a layer that reads a token which can change, under a retry that
//! keeps a copy of the request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::task::Context;
use std::task::Poll;

use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use tower::Service;
use tower::retry::Policy;

/// The token, rendered when it is set.
#[derive(Debug, Clone)]
pub struct Tokens(Arc<RwLock<HeaderValue>>);

impl Tokens {
    pub fn new(header: HeaderValue) -> Self {
        Self(Arc::new(RwLock::new(header)))
    }

    fn header(&self) -> HeaderValue {
        let header = self.0.read().unwrap_or_else(PoisonError::into_inner);
        header.clone()
    }
}

/// Puts the token of the moment on each request.
#[derive(Debug, Clone)]
pub struct AddToken<S> {
    inner: S,
    tokens: Tokens,
}

impl<S> AddToken<S> {
    pub fn new(inner: S, tokens: Tokens) -> Self {
        Self { inner, tokens }
    }
}

impl<S, B> Service<Request<B>> for AddToken<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let header = self.tokens.header();
        request.headers_mut().insert(AUTHORIZATION, header);
        self.inner.call(request)
    }
}

/// Sends a rejected request once more.
#[derive(Debug, Clone)]
pub struct Once {
    is_spent: bool,
}

impl Once {
    pub fn new() -> Self {
        Self { is_spent: false }
    }
}

impl<B, R, E> Policy<Request<B>, Response<R>, E> for Once
where
    B: Clone,
{
    /// Where the refresh would be.
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Self::Future> {
        let status = result.as_ref().map(Response::status);
        let is_rejected = status.is_ok_and(|status| status == StatusCode::UNAUTHORIZED);
        if !is_rejected || std::mem::replace(&mut self.is_spent, true) {
            return None;
        }
        Some(Box::pin(std::future::ready(())))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}
