//! Proves P10 for request bodies over real connections: a body is sent again whole or not at all,
//! whatever its shape and wherever the server stopped reading.

#[path = "support/server.rs"]
mod server;
#[path = "support/upload.rs"]
mod upload;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use server::Server;
use server::hyper_client;
use server::log_in_old;
use server::old_for_new;
use server::token;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tower::Layer;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower::service_fn;
use tower_token_refresh::BoxError;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ResponseBody;
use tower_token_refresh::Session;
use tower_token_refresh::SessionExtension;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;
use upload::Failed;
use upload::Step;
use upload::Upload;

/// Whatever still waits then, waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);

const WORDS: &str = "the server's own words";

/// A request as the server read it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    token: String,
    /// What it says of its length.
    length: Option<String>,
    /// `None`: it broke off.
    body: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// What becomes of the rest of a body of which the server has read a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It is read after the answer, and the connection stays.
    Read,
    /// The same, but the connection is closed then (HTTP/1).
    ReadAndClose,
    /// It is left alone: HTTP/1 is closed, HTTP/2 resets the stream with NO_ERROR.
    Left,
}

const RESTS: [(bool, Rest); 5] = [
    (false, Rest::Read),
    (false, Rest::ReadAndClose),
    (false, Rest::Left),
    (true, Rest::Read),
    (true, Rest::Left),
];

/// Takes the token `new` only. Before it rejects another, it has read as many bytes as the request's
/// header `x-read` says, or all.
struct Api {
    server: Server,
    log: Log,
}

impl Api {
    async fn start(rest: Rest) -> Self {
        let log = Log::default();
        let seen = log.clone();
        let server = Server::start(move |request| answer(request, rest, log.clone())).await;
        Self { server, log: seen }
    }

    /// What was seen since the last time.
    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

async fn answer(request: Request<Incoming>, rest: Rest, log: Log) -> Response<Full<Bytes>> {
    let mut seen = Seen {
        token: token(&request),
        length: length(request.headers()),
        body: None,
        trailers: None,
    };
    let (head, mut body) = request.into_parts();
    let part: Option<usize> = head
        .headers
        .get("x-read")
        .map(|value| value.to_str().unwrap().parse().unwrap());
    match part.filter(|_| seen.token != "new") {
        None => {
            if let Ok(body) = body.collect().await {
                seen.trailers = body.trailers().cloned();
                seen.body = Some(body.to_bytes());
            }
            log.lock().unwrap().push(seen.clone());
        }
        Some(part) => {
            log.lock().unwrap().push(seen.clone());
            let mut read = 0;
            while read < part
                && let Some(Ok(frame)) = body.frame().await
            {
                read += frame.data_ref().map_or(0, Bytes::len);
            }
            match rest {
                Rest::Left => drop(body),
                // The client may leave in the middle: that is its right.
                _ => drop(tokio::spawn(async move { drop(body.collect().await) })),
            }
        }
    }
    let answer = match seen.token == "new" {
        true => Response::builder().status(if seen.body.is_some() { 200 } else { 400 }),
        false if rest == Rest::ReadAndClose => Response::builder()
            .status(401)
            .header("connection", "close"),
        false => Response::builder().status(401),
    };
    answer.body(Full::from(WORDS)).unwrap()
}

fn length(headers: &HeaderMap) -> Option<String> {
    let name = ["content-length", "transfer-encoding"];
    let value = name.iter().find_map(|name| headers.get(*name))?;
    Some(value.to_str().unwrap().to_owned())
}

type Http = Client<HttpConnector, ReplayBody<Upload>>;

/// One request through the layer, and what can be told of it.
struct Sending {
    http: Http,
    limit: usize,
    /// Is told when there is an answer.
    answered: Arc<Notify>,
    /// For the rejection to be read, and for the first send to be done with the body.
    time: Duration,
}

impl Sending {
    fn new(http: &Http) -> Self {
        Self {
            http: http.clone(),
            limit: 1 << 20,
            answered: Arc::default(),
            time: PATIENCE,
        }
    }

    fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    fn time(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    fn answered(self, answered: &Arc<Notify>) -> Self {
        let answered = answered.clone();
        Self { answered, ..self }
    }

    async fn send(self, request: Request<Upload>) -> (Result<Got, BoxError>, Session) {
        let session = old_for_new().await;
        let got = self.send_with(&session, request).await;
        (got, session)
    }

    async fn send_with(self, session: &Session, request: Request<Upload>) -> Result<Got, BoxError> {
        let answered = self.answered;
        let base = format!("http://{}", request.uri().authority().unwrap());
        let layer = TokenRefreshLayer::new(&*base, session.clone()).unwrap();
        let service = ServiceBuilder::new()
            .layer(
                layer
                    .replay_limit(self.limit)
                    .response_limit(1 << 20, self.time),
            )
            .map_response(move |response| {
                answered.notify_one();
                response
            })
            .service(self.http);
        let response = timeout(PATIENCE, service.oneshot(request)).await??;
        Ok(Got::read(response).await)
    }
}

/// What the caller got.
#[derive(Debug)]
struct Got {
    status: StatusCode,
    body: Bytes,
    why: Option<RefreshError>,
}

impl Got {
    async fn read(response: Response<ResponseBody<Incoming>>) -> Self {
        let (head, body) = response.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.unwrap();
        Self {
            status: head.status,
            body: body.unwrap().to_bytes(),
            why: head.extensions.get().cloned(),
        }
    }

    /// The server's own answer, whole, and not for want of a token.
    #[track_caller]
    fn is_handed_on(&self, row: &str) {
        assert_eq!(self.status, StatusCode::UNAUTHORIZED, "{row}");
        assert_eq!(self.body, WORDS, "{row}");
        let why = self.why.as_ref().expect("a reason");
        assert!(why.is_not_replayed(), "{row}: {why}");
    }
}

fn post(base: &str, body: Upload) -> Request<Upload> {
    Request::post(base).body(body).unwrap()
}

fn partly_read(base: &str, part: usize, body: Upload) -> Request<Upload> {
    let request = Request::post(base).header("x-read", part);
    request.body(body).unwrap()
}

fn pieces(data: &Bytes, size: usize) -> Vec<Step> {
    let starts = (0..data.len()).step_by(size);
    let piece = |from| Step::Data(data.slice(from..data.len().min(from + size)));
    starts.map(piece).collect()
}

/// The next request carries the new token, and is taken.
async fn next_one_passes(session: &Session, http: &Http, api: &Api) {
    api.seen();
    let request = post(&api.server.base, Upload::of([]));
    let got = Sending::new(http).send_with(session, request);
    assert_eq!(got.await.unwrap().status, StatusCode::OK);
    let tokens: Vec<_> = api.seen().into_iter().map(|seen| seen.token).collect();
    assert_eq!(tokens, ["new"]);
    assert_eq!(session.stats().reissues, 1);
}

/// When the client has the part of the body that the server does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    /// From the beginning.
    AtOnce,
    /// When the answer is there, so that it comes while the body is going up.
    AfterTheAnswer,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    replayed: usize,
    handed_on: usize,
    failed: usize,
}

/// The server reads `part` bytes of the body and rejects. However that goes, a second request has the
/// identical body.
async fn reject_at(
    (api, http): (&Api, &Http),
    (data, size, part): (&Bytes, usize, usize),
    (feed, is_exact): (Feed, bool),
    tally: &mut Tally,
) {
    let answered = Arc::new(Notify::new());
    let mut steps = pieces(&data.slice(..part), size);
    if feed == Feed::AfterTheAnswer {
        steps.push(Step::Wait(answered.clone()));
    }
    steps.extend(pieces(&data.slice(part..), size));
    let upload = match is_exact {
        true => Upload::of(steps).with_length(data.len()),
        false => Upload::of(steps),
    };
    let request = partly_read(&api.server.base, part, upload);
    let sending = Sending::new(http).answered(&answered);
    let (got, _) = sending.send(request).await;
    let row = format!(
        "{part} of {}, {feed:?}, exact {is_exact}: {got:?}",
        data.len()
    );
    let seen = api.seen();
    assert_eq!(seen[0].token, "old", "{row}");
    for again in &seen[1..] {
        assert_eq!(again.token, "new", "{row}");
        assert_eq!(again.body.as_ref(), Some(data), "{row}");
        if is_exact && !data.is_empty() {
            assert_eq!(again.length, Some(data.len().to_string()), "{row}");
        }
    }
    match got {
        Ok(got) if got.status == StatusCode::OK => {
            assert_eq!(seen.len(), 2, "{row}");
            tally.replayed += 1;
        }
        Ok(got) => {
            got.is_handed_on(&row);
            assert_eq!(seen.len(), 1, "{row}");
            tally.handed_on += 1;
        }
        Err(_) => {
            assert_eq!(seen.len(), 1, "{row}");
            tally.failed += 1;
        }
    }
}

async fn explore(data: Bytes, size: usize, parts: impl Iterator<Item = usize> + Clone) {
    for (http2, rest) in RESTS {
        let api = Api::start(rest).await;
        for feed in [Feed::AtOnce, Feed::AfterTheAnswer] {
            let mut tally = Tally::default();
            for part in parts.clone() {
                for is_exact in [false, true] {
                    let (body, http) = ((&data, size, part), hyper_client(http2));
                    reject_at((&api, &http), body, (feed, is_exact), &mut tally).await;
                }
            }
            let row = format!("http2 {http2}, {rest:?}, {feed:?}: {tally:?}");
            // A body that goes up to its end, or of which hyper lets go, is sent again.
            assert!(tally.replayed > 0 && tally.handed_on == 0, "{row}");
            // Where data is left unread, TCP may throw the answer away, or the replay goes to the
            // connection that is being closed.
            let may_fail = !http2 && rest == Rest::Left;
            assert!(may_fail || tally.failed == 0, "{row}");
        }
    }
}

// shows B112, B114, S13, P10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_body_is_sent_again_whole_or_not_at_all_wherever_the_server_stopped_reading() {
    let data: Bytes = (0..64).collect();
    explore(data, 1, 0..=64).await;
}

// shows B112, B114, S13, P10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_is_sent_again_whole_or_not_at_all_wherever_the_server_stopped_reading() {
    let data: Bytes = (0..300 * 1024).map(|n| (n % 251) as u8).collect();
    let parts = [
        0,
        1,
        1000,
        16 * 1024,
        65_535,
        65_536,
        200_000,
        300 * 1024 - 1,
        300 * 1024,
    ];
    explore(data, 4096, parts.into_iter()).await;
}

fn data(text: &'static str) -> Step {
    Step::Data(text.into())
}

fn trailers() -> HeaderMap {
    let trailer = ("x-sum".parse().unwrap(), "7".parse().unwrap());
    HeaderMap::from_iter([trailer])
}

/// The server reads all of it, both times.
async fn is_sent_again(http2: bool, name: &str, upload: Upload, expected: &str) -> [Seen; 2] {
    let row = format!("http2 {http2}, {name}");
    let (api, http) = (Api::start(Rest::Read).await, hyper_client(http2));
    let mut request = post(&api.server.base, upload);
    // Without it HTTP/1 sends no trailers.
    request
        .headers_mut()
        .insert("trailer", "x-sum".parse().unwrap());
    let (got, _) = Sending::new(&http).send(request).await;
    let got = got.unwrap_or_else(|error| panic!("{row}: {error:?}"));
    assert_eq!(got.status, StatusCode::OK, "{row}");
    let seen: [Seen; 2] = api.seen().try_into().unwrap();
    let tokens = [&*seen[0].token, &*seen[1].token];
    assert_eq!(tokens, ["old", "new"], "{row}");
    for seen in &seen {
        assert_eq!(seen.body.as_deref(), Some(expected.as_bytes()), "{row}");
    }
    seen
}

// shows B111, B112, P10
#[tokio::test]
async fn a_body_of_any_shape_is_sent_again_whole() {
    for http2 in [false, true] {
        let many: Vec<_> = std::iter::repeat_n(data("0123456789"), 1000).collect();
        let empty = [data(""), data("a"), data(""), data("b"), data("")];
        let long = "0123456789".repeat(1000);
        let shapes = [
            ("nothing", Upload::of([]), ""),
            ("one frame", Upload::of([data("one")]), "one"),
            ("empty frames", Upload::of(empty), "ab"),
            ("only empty frames", Upload::of([data(""), data("")]), ""),
            ("many frames", Upload::of(many), &*long),
        ];
        for (name, upload, expected) in shapes {
            is_sent_again(http2, name, upload, expected).await;
        }
        for (steps, length) in [(vec![data("abc"), data("de")], "5"), (vec![], "0")] {
            let expected = &"abcde"[..length.parse().unwrap()];
            let upload = Upload::of(steps).with_length(expected.len());
            let seen = is_sent_again(http2, length, upload, expected).await;
            let told = seen.map(|seen| seen.length);
            assert_eq!(told[0], told[1], "http2 {http2}");
            assert!(
                told[0].as_deref().is_none_or(|told| told == length),
                "{told:?}"
            );
        }
    }
}

// shows B112, P10: trailers are a part of the body, also where nothing else is.
#[tokio::test]
async fn trailers_are_sent_again() {
    for http2 in [false, true] {
        for text in ["", "some data"] {
            let upload = Upload::of([data(text), Step::Trailers(trailers())]);
            for seen in is_sent_again(http2, text, upload, text).await {
                let row = format!("http2 {http2}, {text:?}, {}", seen.token);
                assert_eq!(seen.trailers, Some(trailers()), "{row}");
            }
        }
    }
}

// shows P10, P9: exactly the limit is sent again, one byte more is not, in the first frame or the last.
#[tokio::test]
async fn a_body_over_the_limit_is_sent_once_and_the_answer_handed_on() {
    for http2 in [false, true] {
        let whole = "abcdefgh";
        for (steps, is_kept) in [
            (vec![data("abcdefgh")], true),
            (vec![data("abcd"), data("efgh")], true),
            (vec![data("abcdefghi")], false),
            (vec![data("abcdefgh"), data("i")], false),
            (vec![data("abcdefghi"), data("j")], false),
        ] {
            let (api, http) = (Api::start(Rest::Read).await, hyper_client(http2));
            let request = post(&api.server.base, Upload::of(steps));
            let sending = Sending::new(&http).limit(whole.len());
            let (got, session) = sending.send(request).await;
            let (got, seen) = (got.unwrap(), api.seen());
            assert!(seen[0].body.as_ref().unwrap().starts_with(whole.as_bytes()));
            if is_kept {
                assert_eq!(got.status, StatusCode::OK);
                assert_eq!(seen[1].body, seen[0].body);
                continue;
            }
            got.is_handed_on("over the limit");
            assert_eq!(seen.len(), 1);
            assert!(
                seen[0].body.as_ref().unwrap().len() > whole.len(),
                "sent whole"
            );
            next_one_passes(&session, &http, &api).await;
        }
    }
}

// shows P9, S9: what one request keeps, another finds no room for, until it is done.
#[tokio::test]
async fn the_bodies_of_all_requests_of_a_layer_share_one_limit() {
    for http2 in [false, true] {
        let (api, http) = (Api::start(Rest::Read).await, hyper_client(http2));
        let (answered, ends) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let told = answered.clone();
        let layer = TokenRefreshLayer::new(&*api.server.base, SessionExtension).unwrap();
        let service = ServiceBuilder::new()
            .layer(
                layer
                    .total_replay_limit(8)
                    .response_limit(1 << 10, PATIENCE),
            )
            .map_response(move |response| {
                told.notify_one();
                response
            })
            .service::<Http>(http);
        let send = |session: &Session, upload| {
            let mut request = partly_read(&api.server.base, 8, upload);
            request.extensions_mut().insert(session.clone());
            let answer = timeout(PATIENCE, service.clone().oneshot(request));
            async { Got::read(answer.await.unwrap().unwrap()).await }
        };
        let (one, other) = (old_for_new().await, old_for_new().await);
        let slow = Upload::of([data("abcdefgh"), Step::Wait(ends.clone())]);
        let first = tokio::spawn(send(&one, slow));
        timeout(PATIENCE, answered.notified()).await.unwrap();
        let second = send(&other, Upload::of([data("x")])).await;
        second.is_handed_on("no room");
        let why = second.why.unwrap().to_string();
        assert!(why.contains("bodies of all requests"), "{why}");
        ends.notify_one();
        assert_eq!(first.await.unwrap().status, StatusCode::OK);
        let accepted = send(&one, Upload::of([data("abcdefgh")])).await;
        assert_eq!(accepted.status, StatusCode::OK);
        let third = old_for_new().await;
        let third = send(&third, Upload::of([data("abcdefgh")])).await;
        assert_eq!(third.status, StatusCode::OK, "there is room again");
    }
}

// shows B25: there is no answer, and so no rejection.
#[tokio::test]
async fn a_body_that_fails_before_the_answer_fails_the_request() {
    for http2 in [false, true] {
        let (api, http) = (Api::start(Rest::Read).await, hyper_client(http2));
        let request = post(&api.server.base, Upload::of([data("abc"), Step::Fail]));
        let (got, session) = Sending::new(&http).send(request).await;
        let error = got.unwrap_err();
        // Over HTTP/2 hyper says no more than that the stream was reset.
        let is_told = chain(&*error).contains(&Failed.to_string());
        assert!(is_told || http2, "{error:?}");
        assert_eq!((session.stats().reissues, session.stats().replays), (0, 0));
        let request = post(&api.server.base, Upload::of([data("abc")]));
        let got = Sending::new(&http).send_with(&session, request).await;
        assert_eq!(got.unwrap().status, StatusCode::OK, "the client is of use");
    }
}

// shows P10: nothing after an error is to be trusted.
#[tokio::test]
async fn a_body_that_fails_after_the_answer_is_not_sent_again() {
    let (api, http) = (Api::start(Rest::Read).await, hyper_client(true));
    let answered = Arc::new(Notify::new());
    let steps = [data("abc"), Step::Wait(answered.clone()), Step::Fail];
    let request = partly_read(&api.server.base, 3, Upload::of(steps));
    let sending = Sending::new(&http).answered(&answered);
    let (got, session) = sending.send(request).await;
    got.unwrap().is_handed_on("failed");
    assert_eq!(api.seen().len(), 1);
    next_one_passes(&session, &http, &api).await;
}

// shows B113, P10: fed by a channel whose sender stays, a body is never at its end.
#[tokio::test]
async fn a_body_that_never_ends_is_not_sent_again_and_the_answer_is_handed_on() {
    for http2 in [false, true] {
        let (api, http) = (Api::start(Rest::Read).await, hyper_client(http2));
        let never = Arc::new(Notify::new());
        let steps = [data("abc"), Step::Wait(never.clone())];
        let request = partly_read(&api.server.base, 3, Upload::of(steps));
        let sending = Sending::new(&http).time(Duration::from_millis(1));
        let (got, session) = sending.send(request).await;
        got.unwrap().is_handed_on("never ends");
        assert_eq!(api.seen().len(), 1);
        next_one_passes(&session, &http, &api).await;
        never.notify_one();
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(|error| format!("{error}\n")).collect()
}

// shows B111: a body of tonic's is made empty where it says that it is at its end.
#[tokio::test]
async fn a_replay_in_a_body_of_tonics_is_whole() {
    let text = "0123456789";
    for part in 0..=text.len() {
        let api = Api::start(Rest::Left).await;
        let http = hyper_client::<tonic::body::Body>(true);
        let session = old_for_new().await;
        let layer = TokenRefreshLayer::new(&*api.server.base, session).unwrap();
        let service = ServiceBuilder::new()
            .layer(layer.response_limit(1 << 10, PATIENCE))
            .map_request(|request: Request<ReplayBody<Upload>>| request.map(tonic::body::Body::new))
            .service(http);
        let upload = Upload::of(pieces(&Bytes::from(text), 1)).with_length(text.len());
        let request = partly_read(&api.server.base, part, upload);
        let response = timeout(PATIENCE, service.oneshot(request)).await.unwrap();
        assert_eq!(response.unwrap().status(), StatusCode::OK, "{part}");
        assert_eq!(
            api.seen()[1].body.as_deref(),
            Some(text.as_bytes()),
            "{part}"
        );
    }
}

/// A client over HTTP/1 that sends no body before it is asked for it.
async fn expecting(
    request: Request<ReplayBody<Upload>>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let (head, body) = request.into_parts();
    let mut stream = TcpStream::connect(head.uri.authority().unwrap().as_str()).await?;
    let mut text = String::from("POST / HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        text += &format!("{name}: {}\r\n", value.to_str()?);
    }
    stream.write_all((text + "\r\n").as_bytes()).await?;
    if read_head(&mut stream).await?.starts_with("HTTP/1.1 100") {
        stream.write_all(&body.collect().await?.to_bytes()).await?;
        if read_head(&mut stream).await?.starts_with("HTTP/1.1 200") {
            return Ok(Response::new(Full::default()));
        }
    }
    Ok(Response::builder().status(401).body(Full::from(WORDS))?)
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Rejects the token `old` before it asks for the body. The heads, and the bodies.
async fn asking_server(length: usize) -> (String, Arc<Mutex<Vec<(String, Vec<u8>)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = log.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = read_head(&mut stream).await.unwrap();
            let mut body = Vec::new();
            let answer: &[u8] = match head.contains("Bearer new") {
                true => {
                    stream
                        .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                        .await
                        .unwrap();
                    body.resize(length, 0);
                    stream.read_exact(&mut body).await.unwrap();
                    b"HTTP/1.1 200 OK\r\n\r\n"
                }
                false => b"HTTP/1.1 401 Unauthorized\r\n\r\n",
            };
            log.lock().unwrap().push((head, body));
            stream.write_all(answer).await.unwrap();
        }
    });
    (base, seen)
}

// shows "nothing polls a body before the inner service does", P10
#[tokio::test]
async fn a_body_that_was_not_asked_for_is_not_polled_and_the_replay_has_it_whole() {
    let (base, seen) = asking_server(10).await;
    let upload = Upload::of([data("01234"), data("56789")]).with_length(10);
    let polls = upload.polls();
    let before_the_replay = Arc::new(AtomicUsize::new(usize::MAX));
    let (counted, noted) = (polls.clone(), before_the_replay.clone());
    let reissue = reissue_fn(move |_| {
        noted.store(counted.load(Ordering::Relaxed), Ordering::Relaxed);
        async { TokenSet::new("new").map_err(ReissueError::unknown) }
    });
    let session = Session::builder(reissue).build().unwrap();
    log_in_old(&session).await;
    let layer = TokenRefreshLayer::new(&*base, session).unwrap();
    let request = Request::post(&base)
        .header("expect", "100-continue")
        .header("content-length", "10");
    let service = layer.layer(service_fn(expecting));
    let sending = service.oneshot(request.body(upload).unwrap());
    let response = timeout(PATIENCE, sending).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(before_the_replay.load(Ordering::Relaxed), 0);
    assert!(polls.load(Ordering::Relaxed) > 0);
    let seen = seen.lock().unwrap();
    let [(first, _), (second, body)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert!(first.contains("expect: 100-continue"), "{first}");
    assert_eq!(second.replace("new", "old"), *first);
    assert_eq!(body, b"0123456789");
}

// shows B111: hyper's client does not wait to be asked. The answer may be there before the body is.
#[tokio::test]
async fn a_request_that_expects_to_be_asked_is_sent_again_by_a_client_that_does_not_wait() {
    for part in [0, 5, 10] {
        let (api, http) = (Api::start(Rest::Read).await, hyper_client(false));
        let upload = Upload::of([data("01234"), data("56789")]).with_length(10);
        let mut request = partly_read(&api.server.base, part, upload);
        let expect = "100-continue".parse().unwrap();
        request.headers_mut().insert("expect", expect);
        let (got, _) = Sending::new(&http).send(request).await;
        assert_eq!(got.unwrap().status, StatusCode::OK);
        assert_eq!(api.seen()[1].body.as_deref(), Some(&b"0123456789"[..]));
    }
}
