//! Shows a reqwest client behind the layer, put there by tower and reqwest alone: bodies stream both
//! ways, and the same client serves the issuer.

#[path = "../examples/backend/server/mod.rs"]
mod backend;
#[path = "support/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use backend::Backend;
use backend::Config;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::StreamBody;
use reqwest::redirect::Policy;
use serde_json::Value;
use serde_json::json;
use server::Server;
use server::old_for_new;
use server::token;
use tokio::sync::Notify;
use tokio::time::timeout;
use tower::Layer;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tower_token_refresh::BoxError;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::Or;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefresh;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;

/// Whatever still waits then, waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// The client as a tower service. The type is erased here so that it has a name.
type Http = BoxCloneSyncService<Request<ReplayBody<reqwest::Body>>, Answered, BoxError>;
type Answered = Response<reqwest::Body>;
type Layered = TokenRefresh<Http, Session, Or<ErrorCodes, DefaultClassifier>>;

fn reqwest(http2: bool) -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy();
    let builder = match http2 {
        true => builder.http2_prior_knowledge(),
        false => builder,
    };
    builder.build().unwrap()
}

fn http(client: reqwest::Client) -> Http {
    let service = ServiceBuilder::new()
        .filter(|request: Request<ReplayBody<reqwest::Body>>| {
            reqwest::Request::try_from(request.map(reqwest::Body::wrap))
        })
        .map_response(Response::<reqwest::Body>::from)
        .service(client);
    BoxCloneSyncService::new(service)
}

fn layered(base: &str, session: &Session, http: Http) -> Layered {
    let codes = ErrorCodes::json("/code").expired("T-002").ended("T-003");
    let layer = TokenRefreshLayer::new(base, session.clone()).unwrap();
    layer.classify(codes.or(DefaultClassifier)).layer(http)
}

/// Sends what reqwest has built, and gives back what reqwest can read.
async fn send(client: &Layered, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
    let request = request.build()?.try_into()?;
    let sent = timeout(PATIENCE, client.clone().oneshot(request)).await?;
    let response = sent.map_err(anyhow::Error::from_boxed)?;
    Ok(response.map(reqwest::Body::wrap).into())
}

fn why(response: &reqwest::Response) -> &RefreshError {
    response.extensions().get().expect("a reason")
}

async fn log_in(reqwest: &reqwest::Client, backend: &Backend) -> Result<TokenSet> {
    let user = backend.user();
    let credentials = json!({ "email": user.email, "password": user.password });
    let request = reqwest
        .post(format!("{}/member/login", backend.base()))
        .header("content-type", "application/json")
        .body(credentials.to_string());
    let answer: Value = serde_json::from_slice(&request.send().await?.bytes().await?)?;
    let text = |name: &str| answer[name].as_str().context("no such member");
    Ok(TokenSet::new(text("accessToken")?)?
        .with_refresh_token(text("refreshToken")?)?
        .with_identity("id", text("id")?)
        .with_identity("email", text("email")?))
}

// shows B31, P1, P15: one client for the API and for the issuer, over HTTP/1 and HTTP/2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_expired_requests_cost_one_reissue() -> Result<()> {
    for http2 in [false, true] {
        let backend = Backend::start(Config {
            rotate: true,
            ..Config::default()
        })
        .await?;
        backend.set_access_ttl(Duration::from_secs(60));
        let (base, reqwest) = (backend.base(), reqwest(http2));
        let url = format!("{base}/member/token/refresh");
        let issuer = JsonReissue::post(url, http(reqwest.clone())).refused("T-003");
        let session = Session::builder(issuer).build()?;
        session.login(log_in(&reqwest, &backend).await?).await?;
        let client = layered(&base, &session, http(reqwest.clone()));
        backend.expire_access_tokens();
        let get = |n| send(&client, reqwest.get(format!("{base}/items/{n}")));
        for response in join_all((0..50).map(get)).await {
            assert_eq!(response?.status(), StatusCode::OK);
        }
        let stats = backend.stats();
        assert_eq!((stats.reissues, stats.reuse_detected), (1, 0));
        // And one whose token expires, with a body from memory.
        backend.expire_access_tokens();
        let text = "0123456789".repeat(2_000);
        let post = reqwest.post(format!("{base}/echo")).body(text.clone());
        let response = send(&client, post).await?;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.text().await? == text);
        assert_eq!(backend.stats().reissues, 2);
    }
    Ok(())
}

/// A request as the server read it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    token: String,
    length: Option<String>,
    body: Bytes,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// Takes the token `new` only, and reads each body to its end before it answers.
async fn strict_server() -> (Server, Log) {
    let log = Log::default();
    let seen = log.clone();
    let server = Server::start(move |request| {
        let log = log.clone();
        async move {
            let token = token(&request);
            let length = length(request.headers());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut response = Response::new(Full::from("the server's own words"));
            if token != "new" {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            let seen = Seen {
                token,
                length,
                body,
            };
            log.lock().unwrap().push(seen);
            response
        }
    })
    .await;
    (server, seen)
}

fn length(headers: &HeaderMap) -> Option<String> {
    let name = ["content-length", "transfer-encoding"];
    let value = name.iter().find_map(|name| headers.get(*name))?;
    Some(value.to_str().unwrap().to_owned())
}

/// Pieces that come one by one, of a length that nobody knows.
fn streamed(pieces: &[Bytes]) -> reqwest::Body {
    let pieces: Vec<_> = pieces.iter().cloned().map(Ok::<_, BoxError>).collect();
    reqwest::Body::wrap_stream(stream::iter(pieces))
}

// shows B112, P10
#[tokio::test]
async fn a_body_within_the_limit_is_sent_again_whole() -> Result<()> {
    let pieces = ["a", "b", "c"].map(|letter| Bytes::from(letter.repeat(10_000)));
    let whole = Bytes::from(pieces.concat());
    // With a length where it is known, and the second time it always is.
    let bodies = [
        ([None, None], None, Bytes::new()),
        (
            [Some("30000"); 2],
            Some(whole.clone().into()),
            whole.clone(),
        ),
        (
            [Some("chunked"), Some("30000")],
            Some(streamed(&pieces)),
            whole,
        ),
    ];
    for (lengths, body, expected) in bodies {
        let (server, seen) = strict_server().await;
        let session = old_for_new().await;
        let reqwest = reqwest(false);
        let client = layered(&server.base, &session, http(reqwest.clone()));
        let request = match body {
            Some(body) => reqwest.post(&server.base).body(body),
            None => reqwest.get(&server.base),
        };
        assert_eq!(send(&client, request).await?.status(), StatusCode::OK);
        let sent = ["old", "new"].into_iter().zip(lengths);
        let sent: Vec<_> = sent
            .map(|(token, length)| Seen {
                token: token.to_owned(),
                length: length.map(str::to_owned),
                body: expected.clone(),
            })
            .collect();
        assert!(*seen.lock().unwrap() == sent, "{lengths:?}");
        assert_eq!(session.stats().reissues, 1);
    }
    Ok(())
}

// shows P9, P10: the token is refreshed for the next request.
#[tokio::test]
async fn a_streamed_body_over_the_limit_is_sent_once_and_the_answer_handed_on() -> Result<()> {
    let (server, seen) = strict_server().await;
    let session = old_for_new().await;
    let reqwest = reqwest(false);
    let client = layered(&server.base, &session, http(reqwest.clone()));
    let pieces = vec![Bytes::from("x".repeat(10_000)); 20];
    let upload = reqwest.post(&server.base).body(streamed(&pieces));
    let response = send(&client, upload).await?;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(why(&response).is_not_replayed());
    assert_eq!(response.text().await?, "the server's own words");
    let next = send(&client, reqwest.get(&server.base)).await?;
    assert_eq!(next.status(), StatusCode::OK);
    let seen = seen.lock().unwrap();
    let seen: Vec<_> = seen.iter().map(|it| (&*it.token, it.body.len())).collect();
    assert_eq!(seen[..1], [("old", 200_000)], "once, and whole");
    assert_eq!(seen.last(), Some(&("new", 0)));
    assert_eq!(session.stats().reissues, 1);
    Ok(())
}

// shows B26: the second piece of either body is not there before the first has arrived.
#[tokio::test]
async fn bodies_stream_both_ways() -> Result<()> {
    for http2 in [false, true] {
        let (up, down) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (arrived, read) = (up.clone(), down.clone());
        let server = Server::start(move |request| {
            let (arrived, read) = (arrived.clone(), read.clone());
            async move {
                let mut body = request.into_body();
                assert_eq!(next(&mut body).await, "1");
                arrived.notify_one();
                assert_eq!(next(&mut body).await, "2");
                let pieces = pieces("3", read, "4");
                Response::new(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))))
            }
        })
        .await;
        let session = old_for_new().await;
        let reqwest = reqwest(http2);
        let client = layered(&server.base, &session, http(reqwest.clone()));
        let upload = reqwest::Body::wrap_stream(pieces("1", up, "2"));
        let response = send(&client, reqwest.post(&server.base).body(upload)).await?;
        let mut body: reqwest::Body = response.into();
        assert_eq!(timeout(PATIENCE, next(&mut body)).await?, "3");
        down.notify_one();
        assert_eq!(timeout(PATIENCE, next(&mut body)).await?, "4");
    }
    Ok(())
}

/// One piece, and when it is said to have arrived, the other.
fn pieces(
    first: &'static str,
    arrived: Arc<Notify>,
    second: &'static str,
) -> impl stream::Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
    let first = stream::once(async move { Ok(first.into()) });
    first.chain(stream::once(async move {
        arrived.notified().await;
        Ok(second.into())
    }))
}

async fn next<B>(body: &mut B) -> Bytes
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

// shows P11: a redirect reaches whoever follows redirects above the layer.
#[tokio::test]
async fn a_redirect_is_not_followed_below_the_layer() -> Result<()> {
    let (other, seen) = strict_server().await;
    let target = other.base.clone();
    let server = Server::start(move |_| {
        let redirect = Response::builder().status(307).header("location", &target);
        let redirect = redirect.body(Full::<Bytes>::default()).unwrap();
        async move { redirect }
    })
    .await;
    let session = old_for_new().await;
    let reqwest = reqwest(false);
    let client = layered(&server.base, &session, http(reqwest.clone()));
    let response = send(&client, reqwest.get(&server.base)).await?;
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(seen.lock().unwrap().len(), 0);
    Ok(())
}

// shows B55: what reqwest says of a connection that was refused is understood.
#[tokio::test]
async fn an_issuer_that_cannot_be_reached_was_not_asked() -> Result<()> {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let issuer = JsonReissue::post(format!("http://{closed}/"), http(reqwest(false)));
    let session = Session::builder(issuer).build()?;
    let tokens = TokenSet::new("old")?.with_refresh_token("refresh")?;
    session.login(tokens).await?;
    let error = session.refresh().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(!error.is_outcome_unknown(), "{error:?}");
    Ok(())
}

// shows P10: the caller finds the client's own error, and its own settings obeyed.
#[tokio::test]
async fn errors_and_settings_of_reqwest_pass_the_layer() -> Result<()> {
    let session = old_for_new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", silent.local_addr()?);
    let reqwest = reqwest(false);
    let client = layered(&base, &session, http(reqwest.clone()));
    let request = reqwest.get(&base).timeout(Duration::from_millis(50));
    let request = request.build()?.try_into()?;
    let error = timeout(PATIENCE, client.oneshot(request))
        .await?
        .unwrap_err();
    let known = error.downcast_ref().map(reqwest::Error::is_timeout);
    assert_eq!(known, Some(true), "{error:?}");
    Ok(())
}

// shows B112: bodies that are all in memory may be of a type that says so.
#[tokio::test]
async fn a_body_in_memory_has_no_limit_where_its_type_says_so() -> Result<()> {
    let (server, seen) = strict_server().await;
    let session = old_for_new().await;
    let http = ServiceBuilder::new()
        .filter(|request: Request<ReplayBody<Full<Bytes>>>| {
            reqwest::Request::try_from(request.map(reqwest::Body::wrap))
        })
        .map_response(Response::<reqwest::Body>::from)
        .service(reqwest(false));
    let client = TokenRefreshLayer::new(&*server.base, session.clone())?.layer(http);
    let whole = Bytes::from("x".repeat(200_000));
    let request = Request::post(&server.base).body(Full::new(whole.clone()))?;
    let response = client.oneshot(request).await;
    assert_eq!(
        response.map_err(anyhow::Error::from_boxed)?.status(),
        StatusCode::OK
    );
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 2 && seen.iter().all(|it| it.body == whole));
    Ok(())
}
