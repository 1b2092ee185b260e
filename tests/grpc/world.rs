//! An API of gRPC and an issuer, and what they have seen.

use super::*;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    pub text: String,
}

pub fn text(text: impl Into<String>) -> Text {
    Text { text: text.into() }
}

/// The API, the issuer and what they have seen. The tokens are t0, t1 and so on.
#[derive(Clone, Default)]
pub struct World {
    /// The number of the oldest token that is good.
    good: Arc<AtomicU64>,
    reissues: Arc<AtomicU64>,
    /// For each call: its token, its messages, the time it says it has.
    calls: Arc<Mutex<Vec<Call>>>,
    /// The second half of an answer takes one permit, where there are two.
    gate: Gate,
    /// Messages that have arrived.
    messages: Arc<watch::Sender<usize>>,
}

#[derive(Clone)]
struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Call {
    token: String,
    timeout: Option<String>,
}

/// A store that holds t0, whatever is put there.
struct Stored;

impl TokenStore for Stored {
    async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
        Ok(Some(first_tokens()))
    }

    async fn save(&self, _: &TokenSet) -> Result<(), BoxError> {
        Ok(())
    }

    async fn clear(&self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl World {
    pub fn expire(&self) {
        self.good.fetch_add(1, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.gate.0.add_permits(1);
    }

    async fn pass(&self) {
        self.gate.0.acquire().await.unwrap().forget();
    }

    pub fn reissues(&self) -> u64 {
        self.reissues.load(Ordering::SeqCst)
    }

    /// The tokens of the calls, in turn.
    pub fn tokens(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| call.token.clone()).collect()
    }

    pub fn timeouts(&self) -> Vec<Option<String>> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| call.timeout.clone()).collect()
    }

    fn builder(&self) -> SessionBuilder {
        let world = self.clone();
        Session::builder(reissue_fn(move |_| {
            let number = world.reissues.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(TokenSet::new(format!("t{number}")).unwrap()) }
        }))
    }

    /// A session that is logged in with t0.
    pub async fn session(&self) -> Session {
        let session = self.builder().build().unwrap();
        session.login(first_tokens()).await.unwrap();
        session
    }

    /// One that finds t0 in its store.
    pub async fn stored_session(&self) -> Session {
        self.builder().store(Stored).build().unwrap()
    }

    /// Notes the call, and says whether its token is good.
    pub fn admit<B>(&self, request: &Request<B>) -> bool {
        let timeout = request.headers().get("grpc-timeout");
        let call = Call {
            token: token(request),
            timeout: timeout.map(|it| it.to_str().unwrap().to_owned()),
        };
        let number = call.token.strip_prefix('t').and_then(|it| it.parse().ok());
        let good = number.is_some_and(|it: u64| it >= self.good.load(Ordering::SeqCst));
        self.calls.lock().unwrap().push(call);
        good
    }

    pub async fn serve(&self) -> Server {
        let world = self.clone();
        Server::start(move |request| {
            let world = world.clone();
            async move { world.answer(request).await }
        })
        .await
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let good = self.admit(&request);
        let path = request.uri().path().to_owned();
        match (path.as_str(), good) {
            // Those that judge the token by themselves.
            ("/late.Trailers/Stream", _) => return self.late_trailers(request, good).await,
            ("/late.Trailers/OfReplay", _) if token(&request) != "t0" => {
                return self.late_trailers(request, good).await;
            }
            ("/late.Trailers/Refused", _) => return self.late_trailers(request, false).await,
            ("/chat.Chat/Away", true) => return Status::unavailable("away").into_http(),
            ("/trailers.At/Once", false) => return trailers_at_once(),
            ("/two.Frames/Once", false) => return head_then_nothing(),
            (_, false) => return Status::unauthenticated("expired").into_http(),
            _ => {}
        }
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
        match path.as_str() {
            "/chat.Chat/Talk" => {
                let talk = |request: tonic::Request<Streaming<Text>>| self.clone().talk(request);
                grpc.streaming(service_fn(talk), request).await
            }
            "/chat.Chat/Tell" => {
                let tell = async |request: tonic::Request<Streaming<Text>>| {
                    let told: Vec<_> = request.into_inner().map(Result::unwrap).collect().await;
                    let told: Vec<_> = told.into_iter().map(|it| it.text).collect();
                    Ok::<_, Status>(tonic::Response::new(text(told.join(","))))
                };
                grpc.client_streaming(service_fn(tell), request).await
            }
            _ => {
                let say = async |request: tonic::Request<Text>| {
                    Ok::<_, Status>(tonic::Response::new(request.into_inner()))
                };
                grpc.unary(service_fn(say), request).await
            }
        }
    }

    /// Answers when the second message is there, and each message after that; before the last one it
    /// waits for a permit.
    async fn talk(
        self,
        request: tonic::Request<Streaming<Text>>,
    ) -> Result<tonic::Response<impl futures::Stream<Item = Result<Text, Status>>>, Status> {
        let mut heard = request.into_inner();
        let mut early = Vec::new();
        while early.len() < 2 {
            early.extend(heard.message().await?);
            self.messages.send_modify(|n| *n += 1);
        }
        let early = stream::iter(early.into_iter().map(Ok));
        let later = heard.then(move |message| {
            let world = self.clone();
            async move {
                world.pass().await;
                message
            }
        });
        Ok(tonic::Response::new(early.chain(later)))
    }

    /// A head, as many messages as the request says, and a status in the trailers that waits for a
    /// permit.
    async fn late_trailers(self, request: Request<Incoming>, good: bool) -> Response<Body> {
        let messages = request.headers().get("x-messages").map_or(0, |it| {
            it.to_str().unwrap().parse::<usize>().expect("a number")
        });
        let message = |_| Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x03\x0a\x01m")));
        let messages = stream::iter((0..messages).map(message));
        let trailers = stream::once(async move {
            self.pass().await;
            Ok::<_, Infallible>(Frame::trailers(status(if good { "0" } else { "16" })))
        });
        grpc_answer(StreamBody::new(messages.chain(trailers)))
    }
}

fn first_tokens() -> TokenSet {
    let tokens = TokenSet::new("t0").unwrap();
    tokens.with_refresh_token("refresh").unwrap()
}

pub fn status(number: &'static str) -> HeaderMap {
    let number = HeaderValue::from_static(number);
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), number)])
}

pub fn grpc_answer<B>(body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let body = body.map_err(|never| match never {});
    let answer = Response::builder().header("content-type", "application/grpc");
    answer.body(Body::new(body)).unwrap()
}

/// The status is in trailers, which go out with the head.
fn trailers_at_once() -> Response<Body> {
    grpc_answer(Empty::new().with_trailers(async { Some(Ok(status("16"))) }))
}

/// The status is in the head, and the end of the stream in a frame of its own.
fn head_then_nothing() -> Response<Body> {
    let nothing = stream::iter([Ok(Frame::data(Bytes::new()))]);
    let mut answer = grpc_answer(StreamBody::new(nothing));
    answer.headers_mut().extend(status("16"));
    answer
}
