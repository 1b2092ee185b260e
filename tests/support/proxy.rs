//! A way to a server that a test can cut, or stop, in the middle of anything.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// More than anything takes that happens at all.
const HANG: Duration = Duration::from_secs(120);

/// What becomes of bytes that have arrived at the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// They wait for the test, and are passed on then.
    Held,
    /// They never arrive.
    Lost,
}

/// What becomes of both directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub requests: Fate,
    pub answers: Fate,
}

impl Way {
    pub const OPEN: Self = Self {
        requests: Fate::Pass,
        answers: Fate::Pass,
    };
    pub const REQUESTS_HELD: Self = Self {
        requests: Fate::Held,
        ..Self::OPEN
    };
    pub const REQUESTS_LOST: Self = Self {
        requests: Fate::Lost,
        ..Self::OPEN
    };
    pub const ANSWERS_HELD: Self = Self {
        answers: Fate::Held,
        ..Self::OPEN
    };
    pub const ANSWERS_LOST: Self = Self {
        answers: Fate::Lost,
        ..Self::OPEN
    };
    pub const ALL_LOST: Self = Self {
        requests: Fate::Lost,
        answers: Fate::Lost,
    };
}

pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: Mutex<SocketAddr>,
    connections: Mutex<Vec<Connection>>,
    /// Of connections that are still to come; `None` closes them at once.
    next: Mutex<Option<Way>>,
    /// How many there have been.
    count: watch::Sender<usize>,
    /// What has been kept back or lost so far, in bytes.
    requests: watch::Sender<usize>,
    answers: watch::Sender<usize>,
}

struct Connection {
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// To this port of loopback.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: Mutex::new(([127, 0, 0, 1], port).into()),
            connections: Mutex::default(),
            next: Mutex::new(Some(Way::OPEN)),
            count: watch::Sender::new(0),
            requests: watch::Sender::new(0),
            answers: watch::Sender::new(0),
        });
        let its = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                its.take(client);
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// From now on, connections lead to this port of loopback.
    pub fn lead_to(&self, port: u16) {
        *self.shared.server.lock().unwrap() = ([127, 0, 0, 1], port).into();
    }

    /// What becomes of the connections that there are.
    pub fn set(&self, way: Way) {
        for connection in &*self.shared.connections.lock().unwrap() {
            connection.way.send_replace(way);
        }
    }

    /// What becomes of one of them, in the order in which they were made.
    pub fn set_one(&self, n: usize, way: Way) {
        self.shared.connections.lock().unwrap()[n]
            .way
            .send_replace(way);
    }

    /// What becomes of those that are still to come; `None` closes them at once.
    pub fn set_next(&self, way: Option<Way>) {
        *self.shared.next.lock().unwrap() = way;
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            connection.task.abort();
        }
    }

    /// How many connections there have been.
    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    pub async fn until_connected(&self, n: usize) {
        let mut count = self.shared.count.subscribe();
        let connected = timeout(HANG, count.wait_for(|count| *count >= n)).await;
        connected.expect("it is connected").unwrap();
    }

    /// Waits until a request was held or lost.
    pub async fn until_requested(&self) {
        let mut requests = self.shared.requests.subscribe();
        let requested = timeout(HANG, requests.changed()).await;
        requested.expect("there is a request").unwrap();
    }

    /// Waits until an answer was held or lost: what was asked is done.
    pub async fn until_answered(&self) {
        let mut answers = self.shared.answers.subscribe();
        let answered = timeout(HANG, answers.changed()).await;
        answered.expect("there is an answer").unwrap();
    }

    /// Waits until something got as far as it can on this way.
    pub async fn until_stopped(&self, way: Way) {
        match way.requests {
            Fate::Pass => self.until_answered().await,
            Fate::Held | Fate::Lost => self.until_requested().await,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

impl Shared {
    fn take(self: &Arc<Self>, client: TcpStream) {
        self.count.send_modify(|count| *count += 1);
        let Some(way) = *self.next.lock().unwrap() else {
            return;
        };
        let server = *self.server.lock().unwrap();
        let (shared, way) = (self.clone(), watch::Sender::new(way));
        let [requests, answers] = [way.subscribe(), way.subscribe()];
        let task = tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let (client, server) = (client.into_split(), server.into_split());
            let to_server = shared.pump(client.0, server.1, requests, true);
            let to_client = shared.pump(server.0, client.1, answers, false);
            tokio::join!(to_server, to_client);
        });
        let mut connections = self.connections.lock().unwrap();
        connections.push(Connection { way, task });
    }

    /// Carries bytes until their sender has no more.
    async fn pump(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mut way: watch::Receiver<Way>,
        is_request: bool,
    ) {
        let fate = |way: &Way| match is_request {
            true => way.requests,
            false => way.answers,
        };
        let stopped = match is_request {
            true => &self.requests,
            false => &self.answers,
        };
        let mut bytes = [0; 1 << 14];
        while let Ok(n @ 1..) = from.read(&mut bytes).await {
            let its = fate(&way.borrow());
            if its != Fate::Pass {
                stopped.send_modify(|stopped| *stopped += n);
            }
            if its == Fate::Held && way.wait_for(|way| fate(way) != Fate::Held).await.is_err() {
                return;
            }
            if its == Fate::Lost {
                continue;
            }
            if to.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    }
}
