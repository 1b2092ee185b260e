//! The HTTP client of a process: it says who it is, and stops at the stations of a reissue.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use ::http::{HeaderValue, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::Service;
use tower_token_refresh::{BoxError, ReplayBody};

use crate::{
    messages::{Moment, PROCESS, REISSUE_PATH},
    worker::Line,
};

pub type Body = ReplayBody<Full<Bytes>>;

#[derive(Clone)]
pub struct Http {
    inner: Client<HttpConnector, Body>,
    process: HeaderValue,
    line: Line,
}

impl Http {
    pub fn new(process: u64, line: Line) -> Self {
        let mut connector = HttpConnector::new();
        // Without it small requests wait for the acknowledgement of the one before.
        connector.set_nodelay(true);
        Self {
            inner: Client::builder(TokioExecutor::new()).build(connector),
            process: process.into(),
            line,
        }
    }
}

impl Service<Request<Body>> for Http {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(PROCESS, self.process.clone());
        let Self { inner, line, .. } = self.clone();
        Box::pin(async move {
            let is_reissue = request.uri().path() == REISSUE_PATH;
            if is_reissue {
                line.reach(Moment::Claimed).await;
            }
            let (head, body) = inner.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            if is_reissue {
                line.reach(Moment::Received).await;
            }
            Ok(Response::from_parts(head, Full::new(body)))
        })
    }
}
