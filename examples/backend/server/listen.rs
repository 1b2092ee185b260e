//! The sockets: made for a thousand clients that connect in the same moment.

use std::{io, net::Ipv4Addr, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};

const BACKLOG: u32 = 4096;
const MAX_CONNECTIONS: usize = 8192;
/// A round holds the requests of one connection together, so all of them must be let in.
const MAX_STREAMS: u32 = 4096;
const PATIENCE: Duration = Duration::from_secs(2);

pub fn bind(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // On Windows this option would let two programs share the port.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(BACKLOG)
}

/// Serves until `stopped` resolves, then lets the answers under way finish. When this future is
/// dropped instead, the connections go with it.
pub async fn serve(listener: TcpListener, router: Router, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    let graceful = GracefulShutdown::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            stream = accept(&listener), if connections.len() < MAX_CONNECTIONS => {
                connections.spawn(converse(stream, router.clone(), &graceful));
            }
        }
    }
    drop(listener);
    // What is left after that is cut.
    let _ = timeout(PATIENCE, graceful.shutdown()).await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, most likely: they come back as connections close.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

fn converse(
    stream: TcpStream,
    router: Router,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static {
    // Without it small answers wait for the client's acknowledgement of the one before. A socket
    // that can't do it is closed already.
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(MAX_STREAMS);
    let service = TowerToHyperService::new(router);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    let watched = graceful.watch(connection);
    // A connection that breaks is the client's affair.
    async { drop(watched.await) }
}
