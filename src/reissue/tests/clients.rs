//! What becomes of a reissue when the client fails, and real clients.

use super::*;

// ===== no answer =====

fn failing(kind: io::ErrorKind) -> JsonReissue {
    let client = service_fn(move |_: Request<Full<Bytes>>| {
        std::future::ready(Err::<Response<Full<Bytes>>, _>(io::Error::from(kind)))
    });
    JsonReissue::post(ADDRESS, client)
}

#[tokio::test]
async fn only_a_refused_connection_is_certain_not_to_have_been_sent() {
    let error = reissued(failing(io::ErrorKind::ConnectionRefused))
        .await
        .unwrap_err();
    assert!(error.is_transient());
    for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
        assert!(
            reissued(failing(kind)).await.unwrap_err().is_unknown(),
            "{kind}"
        );
    }
}

/// Never becomes ready.
#[derive(Clone)]
struct Closed;

impl Service<Request<Full<Bytes>>> for Closed {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = std::future::Pending<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("closed".into()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        panic!("called without being ready");
    }
}

#[tokio::test]
async fn a_client_that_does_not_become_ready_has_sent_nothing() {
    let error = reissued(JsonReissue::post(ADDRESS, Closed))
        .await
        .unwrap_err();
    assert!(error.is_transient());
}

// ===== real clients =====

/// Any body that wraps another, as the layer's own does.
struct Wrapped(Full<Bytes>);

impl From<Bytes> for Wrapped {
    fn from(bytes: Bytes) -> Self {
        Self(bytes.into())
    }
}

impl Body for Wrapped {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }
}

fn hyper<B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static>()
-> Client<HttpConnector, B> {
    Client::builder(TokioExecutor::new()).build_http()
}

#[test]
fn the_bodies_of_a_real_client_are_inferred() {
    let plain: Client<HttpConnector, Full<Bytes>> = hyper();
    let wrapped: Client<HttpConnector, Wrapped> = hyper();
    assert!(JsonReissue::post(ADDRESS, plain.clone()).check().is_ok());
    assert!(
        JsonReissue::post(String::from(ADDRESS), wrapped.clone())
            .check()
            .is_ok()
    );
    assert!(CookieReissue::post(ADDRESS, plain).check().is_ok());
    assert!(CookieReissue::post(ADDRESS, wrapped).check().is_ok());
}

#[test]
fn a_client_that_is_not_sync_will_do() {
    let not_sync = std::cell::Cell::new(0);
    let client = service_fn(move |_: Request<Full<Bytes>>| {
        not_sync.set(not_sync.get() + 1);
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    });
    fn is_reissue(reissuer: impl Reissue) -> bool {
        Reissue::check(&reissuer).is_ok()
    }
    assert!(is_reissue(JsonReissue::post(ADDRESS, client)));
}

/// Answers one connection with these bytes, whatever it is asked, and closes it.
async fn server(answer: &'static str) -> String {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn a_real_client_reissues() {
    let uri = server("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"accessToken\":\"a2\"}").await;
    let tokens = reissued(JsonReissue::post(uri, hyper::<Wrapped>()))
        .await
        .unwrap();
    assert_eq!(tokens.access_token().expose(), "a2");
}

#[tokio::test]
async fn an_answer_cut_off_on_the_wire_is_of_unknown_outcome() {
    let uri = server("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"accessToken\":\"a2\"}").await;
    let outcome = reissued(CookieReissue::post(uri, hyper::<Full<Bytes>>())).await;
    assert!(outcome.unwrap_err().is_unknown());
    let closed = server("").await;
    let outcome = reissued(CookieReissue::post(closed, hyper::<Full<Bytes>>())).await;
    assert!(outcome.unwrap_err().is_unknown());
}

#[tokio::test]
async fn a_connection_refused_to_a_real_client_is_transient() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let outcome = reissued(JsonReissue::post(uri, hyper::<Full<Bytes>>())).await;
    assert!(outcome.unwrap_err().is_transient());
}
