//! The client: a tonic channel, the layer around it, and the calls of the Greeter.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ::http::{Request, Response};
use futures::stream;
use tonic::{
    Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{ServiceBuilder, util::BoxCloneSyncService};
use tower_token_refresh::{
    BoxError, Classify, DefaultClassifier, RefreshError, ReplayBody, ResponseBody, Session,
    TokenRefreshLayer,
};

use crate::{
    cli::{Reasons, http, issuer, options::origin, output, tokens::Tokens, words::explain},
    codes::StatusCodes,
    greeter::{HelloRequest, greeter_client::GreeterClient},
    options::{Call, Options},
};

type Api = BoxCloneSyncService<Request<Body>, Response<ResponseBody<Body>>, Status>;

/// So much of a client-stream is kept for a replay: some hundred thousand messages.
const REPLAY_LIMIT: usize = 4 * 1024 * 1024;

/// One client for everything; its clones share the connection and the session.
#[derive(Clone)]
pub struct Client {
    options: Arc<Options>,
    greeter: GreeterClient<Api>,
    pub session: Session,
    pub seen: Arc<Seen>,
}

/// What there was to see in all calls.
#[derive(Default)]
pub struct Seen {
    messages: AtomicU64,
    /// Why rejected calls were not made good.
    reasons: Mutex<Reasons>,
}

/// How a call ended.
pub enum End {
    Ok,
    Failed(Status),
    /// With a reply that could not be shown.
    Unwritten(io::Error),
}

impl Client {
    pub fn new(options: &Arc<Options>, tokens: &Tokens) -> Result<Self, BoxError> {
        // The issuer's client is another one: it speaks HTTP as it comes, and TLS.
        let http = http::client([&options.common.reissue], 1);
        let session = issuer::session(&options.common, http);
        let session = tokens.keep(session).build()?;
        let seen = Arc::default();
        let api = api(options, &session, &seen)?;
        Ok(Self {
            options: options.clone(),
            greeter: GreeterClient::new(api),
            session,
            seen,
        })
    }

    /// Makes the call with this number.
    pub async fn call(mut self, number: u32) -> End {
        let ended = match self.options.call {
            Call::Unary => self.say_hello(number).await,
            Call::ServerStream => self.say_hello_stream(number).await,
            Call::ClientStream => self.collect_hellos().await,
        };
        ended.unwrap_or_else(|end| end)
    }

    async fn say_hello(&mut self, number: u32) -> Result<End, End> {
        let request = self.request(self.hello(number));
        let reply = self.greeter.say_hello(request).await?;
        self.show(&reply.get_ref().message).await
    }

    async fn say_hello_stream(&mut self, number: u32) -> Result<End, End> {
        let request = self.request(self.hello(number));
        let mut replies = self.greeter.say_hello_stream(request).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            self.show(&reply.message).await?;
        }
        Ok(End::Ok)
    }

    async fn collect_hellos(&mut self) -> Result<End, End> {
        let messages: Vec<_> = (1..=self.options.count).map(|n| self.hello(n)).collect();
        let request = self.request(stream::iter(messages));
        let summary = self.greeter.collect_hellos(request).await?.into_inner();
        let names = summary.names.join(", ");
        self.show(&format!("{} received: {names}", summary.received))
            .await
    }

    fn hello(&self, number: u32) -> HelloRequest {
        HelloRequest {
            name: number.to_string(),
            count: self.options.count,
            fail_after: self.options.fail_after,
        }
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        for metadata in &self.options.metadata {
            metadata.add_to(request.metadata_mut());
        }
        request
    }

    /// Counts a reply, and shows it if it is to be shown.
    async fn show(&self, reply: &str) -> Result<End, End> {
        self.seen.messages.fetch_add(1, Relaxed);
        if self.options.shows_replies() {
            // Nobody may be reading any more, which is no reason to end the call.
            let written = output::write(format!("{reply}\n").as_bytes()).await;
            written.map_err(End::Unwritten)?;
        }
        Ok(End::Ok)
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

fn api(options: &Options, session: &Session, seen: &Arc<Seen>) -> Result<Api, BoxError> {
    let channel = Endpoint::from(options.url.clone())
        .user_agent("tower-token-refresh/grpc")?
        .connect_lazy();
    let layer = TokenRefreshLayer::new(origin(&options.url)?, session.clone())?;
    let layer = layer.replay_limit(REPLAY_LIMIT);
    // In the message of a status, or, from what stands before the server, in JSON.
    Ok(match options.common.codes()? {
        Some(codes) => {
            let codes = StatusCodes::new(&options.common).or(codes);
            logged_in(layer.classify(codes.or(DefaultClassifier)), channel, seen)
        }
        None => logged_in(layer, channel, seen),
    })
}

/// The channel with the layer on it, and above both a note of what the layer could not do.
fn logged_in<C>(layer: TokenRefreshLayer<Session, C>, channel: Channel, seen: &Arc<Seen>) -> Api
where
    C: Classify + Clone + Send + Sync + 'static,
{
    let seen = seen.clone();
    let api = ServiceBuilder::new()
        // An error that has a type: of a box that may fail with anything, the compiler can't tell that
        // calls through it may be spawned.
        .map_err(Status::from_error)
        .map_response(move |response| seen.note(response))
        .layer(layer)
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel);
    BoxCloneSyncService::new(api)
}

impl Seen {
    pub fn messages(&self) -> u64 {
        self.messages.load(Relaxed)
    }

    pub fn reasons(&self) -> MutexGuard<'_, Reasons> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<B>(&self, response: Response<B>) -> Response<B> {
        if let Some(why) = response.extensions().get::<RefreshError>() {
            self.reasons().add(explain(why));
        }
        response
    }
}
