//! A server that says exactly what the test wants, byte for byte, and closes when it wants.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// More than anything takes that happens at all.
const HANG: Duration = Duration::from_secs(120);

/// What it does with one request.
#[derive(Clone, Default)]
pub struct Act {
    /// Waits for a permit before it says anything.
    pub gate: Option<Arc<Semaphore>>,
    pub bytes: Vec<u8>,
    /// Byte by byte, each in a packet of its own.
    pub drip: bool,
    /// Does all this when the head of the request is there; its body is never read.
    pub body_unread: bool,
    pub then: Then,
}

/// What becomes of the connection afterwards.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Then {
    /// It waits for the next request.
    Keep,
    /// FIN.
    #[default]
    Close,
    /// RST.
    Reset,
    /// Nothing is read or written until the client leaves.
    Hang,
}

/// What the acts of all connections share, and what was seen of the requests.
pub struct Book<A> {
    acts: Mutex<VecDeque<A>>,
    requests: watch::Sender<Vec<String>>,
    connections: AtomicUsize,
}

impl<A> Default for Book<A> {
    fn default() -> Self {
        Self {
            acts: Mutex::default(),
            requests: watch::Sender::default(),
            connections: AtomicUsize::default(),
        }
    }
}

impl<A: Clone> Book<A> {
    pub fn of(acts: impl IntoIterator<Item = A>) -> Arc<Self> {
        let book = Self::default();
        book.acts.lock().unwrap().extend(acts);
        Arc::new(book)
    }

    /// What is to be done next, if anything is. The last act is repeated for ever.
    pub fn next(&self, take: bool) -> Option<A> {
        let mut acts = self.acts.lock().unwrap();
        match acts.len() > 1 && take {
            true => acts.pop_front(),
            false => acts.front().cloned(),
        }
    }

    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn read(&self, request: String) {
        self.requests.send_modify(|requests| requests.push(request));
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    /// Waits until so many were read.
    pub async fn asked(&self, n: usize) {
        let mut requests = self.requests.subscribe();
        let enough = |requests: &Vec<String>| requests.len() >= n;
        let asked = timeout(HANG, requests.wait_for(enough)).await;
        asked.expect("it is asked").unwrap();
    }
}

pub struct Raw {
    pub address: SocketAddr,
    book: Arc<Book<Act>>,
    task: JoinHandle<()>,
}

impl Raw {
    /// Answers each request with these bytes and closes, unless `open`.
    pub async fn start(answer: Vec<u8>, open: bool) -> Self {
        let then = if open { Then::Hang } else { Then::Close };
        Self::scripted([Act::say(answer, then)]).await
    }

    /// Does one act for each request, in turn; the last one for all that follow.
    pub async fn scripted(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let book = Book::of(acts);
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

    /// Listens, so that a client can connect and send, and accepts nothing.
    pub async fn never_accepting() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let _listener = listener;
            std::future::pending().await
        });
        Self {
            address,
            book: Arc::default(),
            task,
        }
    }
}

impl Deref for Raw {
    type Target = Book<Act>;

    fn deref(&self) -> &Book<Act> {
        &self.book
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Act {
    pub fn say(bytes: Vec<u8>, then: Then) -> Self {
        Self {
            bytes,
            then,
            ..Self::default()
        }
    }
}

async fn serve(mut stream: TcpStream, book: Arc<Book<Act>>) {
    stream.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut stream, &book).await {
        book.read(request);
        let act = book.next(true).unwrap_or_default();
        if let Some(gate) = &act.gate {
            gate.acquire().await.unwrap().forget();
        }
        // The client may leave in the middle: that is its right.
        let pieces = if act.drip { 1 } else { act.bytes.len().max(1) };
        for piece in act.bytes.chunks(pieces) {
            drop(stream.write_all(piece).await);
            tokio::task::yield_now().await;
        }
        match act.then {
            Then::Keep => continue,
            Then::Close => return,
            Then::Reset => return stream.set_zero_linger().unwrap(),
            // Until the client closes.
            Then::Hang => return drop(stream.read(&mut [0; 1]).await),
        }
    }
}

/// A head, and as much body as it announces, if that is wanted.
async fn read_request(stream: &mut TcpStream, book: &Book<Act>) -> Option<String> {
    let mut bytes = Vec::new();
    let mut wanted = None;
    while wanted.is_none_or(|wanted| bytes.len() < wanted) {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
        if wanted.is_none() {
            wanted = length(&bytes, !book.next(false).unwrap_or_default().body_unread);
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// How long a request is, with its body or without, once its head is there.
fn length(bytes: &[u8], with_body: bool) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes);
    let head = text.find("\r\n\r\n")? + 4;
    let body = text[..head].lines().find_map(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length:")?.trim().parse().ok()
    });
    Some(head + body.filter(|_| with_body).unwrap_or(0))
}

/// An answer with a length.
pub fn answer(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}
