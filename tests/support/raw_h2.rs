//! A server over HTTP/2 that answers, resets and breaks off as the test wants, frame by frame.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use h2::Ping;
use h2::PingPong;
use h2::Reason;
use h2::RecvStream;
use h2::server::SendResponse;
use http::HeaderMap;
use http::Request;
use http::Response;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::raw::Book;

/// What it does with one request, when it has read it whole.
#[derive(Clone)]
pub struct Act {
    /// Waits for a permit before it says anything.
    pub gate: Option<Arc<Semaphore>>,
    /// HEADERS with a 1xx, so often.
    pub informational: usize,
    /// HEADERS, if anything is said at all.
    pub head: Option<Response<()>>,
    /// DATA.
    pub body: Bytes,
    /// A frame for each byte.
    pub drip: bool,
    /// HEADERS at the end.
    pub trailers: Option<HeaderMap>,
    pub then: Then,
}

/// How it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// END_STREAM.
    Done,
    /// RST_STREAM.
    Reset(Reason),
    /// GOAWAY, with this stream as the last that was processed, and the connection is closed.
    GoAway,
    /// The connection is closed.
    Close,
    /// Nothing.
    Hang,
}

impl Act {
    pub fn just(then: Then) -> Self {
        Self {
            gate: None,
            informational: 0,
            head: None,
            body: Bytes::new(),
            drip: false,
            trailers: None,
            then,
        }
    }
}

pub struct RawH2 {
    pub address: SocketAddr,
    book: Arc<Book<Act>>,
    task: JoinHandle<()>,
}

impl RawH2 {
    /// Does one act for each request, in turn; the last one for all that follow.
    pub async fn scripted(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::listen(Book::of(acts), serve).await
    }

    /// Answers the first HEADERS on each connection with a GOAWAY that names this stream as the last
    /// that was processed, and closes when the client does.
    pub async fn going_away(last: u32) -> Self {
        Self::listen(Arc::default(), move |stream, book| async move {
            // The client may leave in the middle: that is its right.
            drop(go_away(stream, &book, last).await);
        })
        .await
    }

    async fn listen<F>(
        book: Arc<Book<Act>>,
        serve: impl Fn(TcpStream, Arc<Book<Act>>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let its = book.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                its.connected();
                tokio::spawn(serve(stream, its.clone()));
            }
        });
        Self {
            address,
            book,
            task,
        }
    }
}

/// Of a request: method and path, then a line for each header, then the body.
impl Deref for RawH2 {
    type Target = Book<Act>;

    fn deref(&self) -> &Book<Act> {
        &self.book
    }
}

impl Drop for RawH2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a request's task reaches its connection.
struct Handle {
    pings: tokio::sync::Mutex<PingPong>,
    close: Notify,
    go_away: Notify,
}

async fn serve(stream: TcpStream, book: Arc<Book<Act>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let handle = Arc::new(Handle {
        pings: tokio::sync::Mutex::new(connection.ping_pong().unwrap()),
        close: Notify::new(),
        go_away: Notify::new(),
    });
    loop {
        tokio::select! {
            request = connection.accept() => match request {
                Some(Ok((request, respond))) => {
                    tokio::spawn(answer(request, respond, book.clone(), handle.clone()));
                }
                _ => return,
            },
            () = handle.close.notified() => return,
            () = handle.go_away.notified() => connection.abrupt_shutdown(Reason::NO_ERROR),
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    book: Arc<Book<Act>>,
    connection: Arc<Handle>,
) {
    let Some(request) = read(request).await else {
        return;
    };
    book.read(request);
    let act = book.next(true).expect("a scripted server has an act");
    if let Some(gate) = &act.gate {
        gate.acquire().await.unwrap().forget();
    }
    let whole = act.then == Then::Done && act.trailers.is_none();
    let mut stream = None;
    for _ in 0..act.informational {
        let early = Response::builder().status(103).body(()).unwrap();
        drop(respond.send_informational(early));
    }
    if let Some(head) = act.head {
        let Ok(mut data) = respond.send_response(head, whole && act.body.is_empty()) else {
            return;
        };
        if !act.body.is_empty() {
            let pieces = if act.drip { 1 } else { act.body.len() };
            let count = act.body.len().div_ceil(pieces);
            for (n, piece) in act.body.chunks(pieces).enumerate() {
                let piece = Bytes::copy_from_slice(piece);
                // The client may leave in the middle: that is its right.
                drop(data.send_data(piece, whole && n + 1 == count));
            }
        }
        if let Some(trailers) = act.trailers {
            drop(data.send_trailers(trailers));
        }
        stream = Some(data);
    }
    match act.then {
        Then::Done => {}
        Then::Reset(reason) => {
            until_flushed(&connection).await;
            match &mut stream {
                Some(stream) => stream.send_reset(reason),
                None => respond.send_reset(reason),
            }
        }
        Then::GoAway => {
            until_flushed(&connection).await;
            connection.go_away.notify_one();
            std::future::pending().await
        }
        Then::Close => {
            until_flushed(&connection).await;
            connection.close.notify_one();
        }
        Then::Hang => std::future::pending().await,
    }
}

/// What was sent before an answered ping has arrived.
async fn until_flushed(connection: &Handle) {
    let mut pings = connection.pings.lock().await;
    drop(pings.ping(Ping::opaque()).await);
}

async fn read(request: Request<RecvStream>) -> Option<String> {
    let (head, mut body) = request.into_parts();
    let mut text = format!("{} {}\r\n", head.method, head.uri.path());
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    text.push_str("\r\n");
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        body.flow_control().release_capacity(data.len()).ok()?;
        text.push_str(&String::from_utf8_lossy(&data));
    }
    Some(text)
}

/// The frames by hand (RFC 9113 section 4.1): the crate's server cannot say that it has not processed
/// a stream that it has read.
async fn go_away(mut stream: TcpStream, book: &Book<Act>, last: u32) -> std::io::Result<()> {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const ACK: u8 = 1;

    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    stream.write_all(&frame(SETTINGS, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await?;
        match (head[3], head[4]) {
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, ACK, &[])).await?,
            (HEADERS, _) => {
                book.read(String::new());
                let mut payload = last.to_be_bytes().to_vec();
                payload.extend(u32::from(Reason::NO_ERROR).to_be_bytes());
                stream.write_all(&frame(GOAWAY, 0, &payload)).await?;
                if last > 0 {
                    return stream.shutdown().await;
                }
            }
            _ => {}
        }
    }
}

/// A frame of the connection itself: stream 0.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}
