//! The API that the requests go to.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::Full;
use tower_service::Service;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Verdict;

use crate::book::Book;
use crate::book::Said;
use crate::names::Pair;

/// Where one request goes, as often as it is sent.
#[derive(Clone)]
pub struct Api {
    pub book: Arc<Book>,
    pub request: usize,
}

impl Service<Request<ReplayBody<Full<Bytes>>>> for Api {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReplayBody<Full<Bytes>>>) -> Self::Future {
        let token = request.headers().get(AUTHORIZATION);
        let token = token.and_then(|it| it.to_str().ok());
        let carried = token.map(Pair::parse);
        let this = self.clone();
        Box::pin(async move {
            this.book.on_the_wire().await;
            let status = match this.book.arrives(this.request, carried) {
                Said::Yes => StatusCode::OK,
                Said::Expired => StatusCode::UNAUTHORIZED,
                Said::Over => StatusCode::GONE,
            };
            this.book.on_the_wire().await;
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = status;
            drop(request);
            Ok(response)
        })
    }
}

/// How its answers are read.
pub fn classify(status: StatusCode, _: &HeaderMap) -> Verdict {
    match status {
        StatusCode::UNAUTHORIZED => Verdict::Refresh,
        StatusCode::GONE => Verdict::EndSession,
        _ => Verdict::Accept,
    }
}
