//! A Greeter that takes every token, keeps what it was sent along with the calls, and refuses to stream.

use std::sync::Arc;
use std::sync::Mutex;

use futures::stream;
use http::HeaderMap;
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::backend::greeter_v1::HelloReply;
use crate::backend::greeter_v1::HelloRequest;
use crate::backend::greeter_v1::HelloSummary;
use crate::backend::greeter_v1::greeter_server::Greeter;
use crate::backend::greeter_v1::greeter_server::GreeterServer;

type Seen = Arc<Mutex<Vec<HeaderMap>>>;

pub struct Scripted {
    pub url: String,
    seen: Seen,
    server: JoinHandle<()>,
}

struct Service(Seen);

impl Scripted {
    pub fn start() -> Self {
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let url = format!("http://{}", incoming.local_addr().expect("an address"));
        let seen = Seen::default();
        let service = GreeterServer::new(Service(seen.clone()));
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming);
        let server = tokio::spawn(async { serving.await.expect("it serves") });
        Self { url, seen, server }
    }

    /// The metadata of the calls until now.
    pub fn metadata(&self) -> Vec<HeaderMap> {
        self.seen.lock().expect("unpoisoned").clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Service {
    fn note<T>(&self, request: Request<T>) -> T {
        let (metadata, _, message) = request.into_parts();
        let mut seen = self.0.lock().expect("unpoisoned");
        seen.push(metadata.into_headers());
        message
    }
}

#[tonic::async_trait]
impl Greeter for Service {
    type SayHelloStreamStream = stream::Empty<Result<HelloReply, Status>>;

    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let message = self.note(request).name;
        Ok(Response::new(HelloReply { message, seq: 1 }))
    }

    async fn say_hello_stream(
        &self,
        _: Request<HelloRequest>,
    ) -> Result<Response<Self::SayHelloStreamStream>, Status> {
        Err(Status::permission_denied("not for\u{1b}[31m you"))
    }

    async fn collect_hellos(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloSummary>, Status> {
        drop(self.note(request));
        // It never answers.
        std::future::pending().await
    }
}
