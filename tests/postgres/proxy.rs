//! Something between a store and its server that holds back what either says, or cuts them off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::scene::in_time;

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// Where new connections lead to.
    to: Mutex<SocketAddr>,
    /// How new connections begin.
    first: Mutex<Held>,
    connections: watch::Sender<Vec<Connection>>,
    /// So many pieces have come and are held back.
    held: watch::Sender<usize>,
}

type Connection = Arc<watch::Sender<Held>>;

/// What does not get through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Held {
    #[default]
    Nothing,
    Requests,
    Answers,
    /// The connection is cut.
    Cut,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            to: Mutex::new(to),
            first: Mutex::default(),
            connections: watch::Sender::default(),
            held: watch::Sender::default(),
        });
        let proxy = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = Arc::new(watch::Sender::new(*proxy.first.lock().unwrap()));
                let kept = connection.clone();
                proxy.connections.send_modify(|all| all.push(kept));
                tokio::spawn(carry(stream, proxy.clone(), connection));
            }
        });
        Self { port, shared }
    }

    /// The URL by which the same is found through here.
    pub fn url(&self, url: &str) -> String {
        let (start, rest) = url.split_once("@127.0.0.1:").unwrap();
        let (_, database) = rest.split_once('/').unwrap();
        format!("{start}@127.0.0.1:{}/{database}", self.port)
    }

    /// So many were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.borrow().len()
    }

    /// From now on, on those that are there.
    pub fn hold(&self, held: Held) {
        for connection in &*self.shared.connections.borrow() {
            if *connection.borrow() != Held::Cut {
                connection.send_replace(held);
            }
        }
    }

    /// From now on, on those that are made.
    pub fn hold_new(&self, held: Held) {
        *self.shared.first.lock().unwrap() = held;
    }

    /// New connections lead to this one.
    pub fn lead_to(&self, to: SocketAddr) {
        *self.shared.to.lock().unwrap() = to;
    }

    /// So many pieces were held back.
    pub fn held(&self) -> usize {
        *self.shared.held.borrow()
    }

    pub async fn until_held(&self, pieces: usize) {
        let mut held = self.shared.held.subscribe();
        in_time(held.wait_for(|held| *held >= pieces))
            .await
            .unwrap();
    }
}

async fn carry(stream: TcpStream, shared: Arc<Shared>, connection: Connection) {
    let to = *shared.to.lock().unwrap();
    let Ok(server) = TcpStream::connect(to).await else {
        return;
    };
    let (requests, answers) = stream.into_split();
    let (from_server, to_server) = server.into_split();
    let mut held = connection.subscribe();
    tokio::select! {
        () = pass(requests, to_server, &shared, &connection, Held::Requests) => {}
        () = pass(from_server, answers, &shared, &connection, Held::Answers) => {}
        _ = held.wait_for(|held| *held == Held::Cut) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    connection: &Connection,
    which: Held,
) {
    let mut piece = vec![0; 1 << 16];
    let mut held = connection.subscribe();
    while let Ok(n @ 1..) = from.read(&mut piece).await {
        if *held.borrow() == which {
            shared.held.send_modify(|held| *held += 1);
        }
        match held.wait_for(|held| *held != which).await.as_deref() {
            Ok(Held::Cut) | Err(_) => return,
            Ok(_) => {}
        }
        if to.write_all(&piece[..n]).await.is_err() {
            return;
        }
    }
}
