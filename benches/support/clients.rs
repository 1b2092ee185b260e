//! The clients that are compared on the hot path, and the ways in which they are used.

use std::fmt;
use std::fmt::Debug;
use std::hint::black_box;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use bytes::Bytes;
use futures::FutureExt;
use http::HeaderValue;
use http::Request;
use http_body_util::Full;
use tower::Layer;
use tower::Service;
use tower::retry::Retry;
use tower_http::auth::AddAuthorizationLayer;
use tower_token_refresh::BoxError;

use super::Api;
use super::TOKEN;
use super::hand_made::AddToken;
use super::hand_made::Once;
use super::hand_made::Tokens;
use super::layer;

pub type Requests = Vec<Request<Full<Bytes>>>;

/// Sends requests, one after the other.
pub type Sender = Box<dyn FnMut(Requests) + Send>;

/// How a client's service is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One service for all requests.
    Reused,
    /// A clone of it for each request.
    Cloned,
}

/// One of those that are compared.
pub struct Client {
    pub name: &'static str,
    sender: Box<dyn Fn(Way) -> Sender>,
}

impl Client {
    fn new<S>(name: &'static str, service: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Error: Debug> + Clone + Send + 'static,
    {
        let sender = move |way| -> Sender {
            let mut service = service.clone();
            match way {
                Way::Reused => Box::new(move |requests| send_all(&mut service, requests)),
                Way::Cloned => Box::new(move |requests| send_all_cloned(&service, requests)),
            }
        };
        Self {
            name,
            sender: Box::new(sender),
        }
    }

    pub fn sender(&self, way: Way) -> Sender {
        (self.sender)(way)
    }
}

impl Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.name).finish()
    }
}

/// The name of the one that the others are measured against.
pub const BARE: &str = "bare";
pub const HAND_MADE: &str = "hand-made";
pub const OURS: &str = "ours";

/// All that are compared, from the least to the most that is done.
pub fn all() -> Result<Vec<Client>, BoxError> {
    let header = HeaderValue::try_from(format!("Bearer {TOKEN}"))?;
    let fixed = AddAuthorizationLayer::bearer(TOKEN).layer(Api);
    let changing = AddToken::new(Api, Tokens::new(header));
    Ok(vec![
        Client::new(BARE, Api),
        // A token that cannot change, and no second try.
        Client::new("add-authorization", fixed.clone()),
        Client::new("add-authorization+retry", Retry::new(Once::new(), fixed)),
        Client::new(HAND_MADE, Retry::new(Once::new(), changing)),
        Client::new(OURS, layer()?.layer(Api)),
    ])
}

fn send_all<S>(service: &mut S, requests: Requests)
where
    S: Service<Request<Full<Bytes>>, Error: Debug>,
{
    for request in requests {
        send(service, request);
    }
}

fn send_all_cloned<S>(service: &S, requests: Requests)
where
    S: Service<Request<Full<Bytes>>, Error: Debug> + Clone,
{
    for request in requests {
        send(&mut service.clone(), request);
    }
}

/// Sends a request to a service that is ready and answers at once.
pub fn send<S, R>(service: &mut S, request: R)
where
    S: Service<R, Error: Debug>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    let answer = service.call(request).now_or_never();
    assert!(matches!(black_box(&answer), Some(Ok(_))));
}
