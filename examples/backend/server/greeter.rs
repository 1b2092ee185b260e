//! The gRPC service: greetings for whoever has a live access token.

use std::{pin::Pin, sync::Arc};

use axum::{Router, middleware::from_fn_with_state};
use futures::{Stream, StreamExt, TryStreamExt, future::ready, stream};
use tonic::{Request, Response, Status, Streaming, service::Routes};

use super::{
    app::App,
    greeter_v1::{
        HelloReply, HelloRequest, HelloSummary,
        greeter_server::{Greeter, GreeterServer},
    },
    guard,
    routes::BODY_LIMIT,
};

/// The guard stands before the service, and judges calls of methods that it does not have, too.
pub fn router(app: &Arc<App>) -> Router {
    Routes::new(GreeterServer::new(Service))
        .into_axum_router()
        .route_layer(from_fn_with_state(app.clone(), guard::protect_calls))
}

struct Service;

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for Service {
    type SayHelloStreamStream = Replies;

    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(reply(&request.into_inner().name, 1)))
    }

    async fn say_hello_stream(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<Replies>, Status> {
        let request = request.into_inner();
        Ok(Response::new(match request.fail_after {
            0 => replies(request.name, request.count).boxed(),
            // After so many, however many were asked for.
            k => replies(request.name, k)
                .chain(stream::once(ready(Err(failed_late()))))
                .boxed(),
        }))
    }

    async fn collect_hellos(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloSummary>, Status> {
        let names = names(request.into_inner()).await?;
        Ok(Response::new(HelloSummary {
            received: u32::try_from(names.len()).unwrap_or(u32::MAX),
            names,
        }))
    }
}

/// They are numbered from 1.
fn replies(name: String, count: u32) -> impl Stream<Item = Result<HelloReply, Status>> {
    stream::iter(1..=count).map(move |seq| Ok(reply(&name, seq)))
}

fn reply(name: &str, seq: u32) -> HelloReply {
    HelloReply {
        message: format!("Hello, {name}!"),
        seq,
    }
}

/// As if the token had expired in the middle of the answer.
fn failed_late() -> Status {
    Status::unauthenticated("the token was good for that many replies")
}

/// All of them, up to the size of a body.
async fn names(requests: Streaming<HelloRequest>) -> Result<Vec<String>, Status> {
    let collected = requests.try_fold((Vec::new(), 0), async |(mut names, size), request| {
        // A name without a letter takes its place, too.
        let size = size + size_of::<String>() + request.name.len();
        if size > BODY_LIMIT {
            return Err(Status::resource_exhausted("these are too many names"));
        }
        names.push(request.name);
        Ok((names, size))
    });
    Ok(collected.await?.0)
}
