//! Calls of each kind, over a real connection.

use super::*;

// shows B28, P1
#[tokio::test]
async fn calls_that_were_refused_cost_one_reissue_and_all_succeed() {
    let (world, _session, _server, client) = scene().await;
    world.expire();
    let calls = (0..50).map(|_| {
        let mut client = client.clone();
        async move { say(&mut client, SAY).await }
    });
    for said in join_all(calls).await {
        assert_eq!(said.unwrap(), "hello");
    }
    assert_eq!(world.reissues(), 1);
    let tokens = world.tokens();
    let with = |token| tokens.iter().filter(|it| *it == token).count();
    assert_eq!(with("t1"), 50);
    assert_eq!(with("t0") + with("t1"), tokens.len());
}

/// Sends all of these, and gets them back in one.
async fn tell(client: &mut Layered, texts: Vec<String>) -> Result<String, Status> {
    client.ready().await.unwrap();
    let request = tonic::Request::new(stream::iter(texts).map(text));
    let codec = ProstCodec::<Text, Text>::default();
    let told = client.client_streaming(request, path("/chat.Chat/Tell"), codec);
    let told: Text = told.await?.into_inner();
    Ok(told.text)
}

// shows B111, P10
#[tokio::test]
async fn a_client_stream_that_was_kept_is_sent_again_whole() {
    let (world, session, _server, mut client) = scene().await;
    world.expire();
    let names: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let told = tell(&mut client, names.clone()).await;
    assert_eq!(told.unwrap(), names.join(","));
    assert_eq!(world.tokens(), ["t0", "t1"]);
    assert_eq!(session.stats().replays, 1);
}

// shows B113, P10
#[tokio::test]
async fn a_client_stream_that_was_not_kept_whole_is_not_sent_again() {
    let world = World::default();
    let (session, server) = (world.session().await, world.serve().await);
    let layer = layer(&session, &server.base).replay_limit(100);
    let mut client = client(layer, channel(&server));
    world.expire();
    let names = (0..100).map(|n| n.to_string()).collect();
    let told = tell(&mut client, names).await;
    assert_eq!(told.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
    assert_eq!(
        world.tokens(),
        ["t0", "t1"],
        "the next call is refreshed already"
    );
    assert_eq!(session.stats().replays, 0);
}

#[tokio::test]
async fn a_server_that_answers_after_the_second_message_is_waited_for() {
    let (world, _session, _server, mut client) = scene().await;
    let (speak, answer) = talk(&mut client).await.unwrap();
    let mut heard = answer.into_inner();
    assert_eq!(heard.message().await.unwrap(), Some(text("one")));
    assert_eq!(heard.message().await.unwrap(), Some(text("two")));
    speak.unbounded_send(text("three")).unwrap();
    world.open();
    assert_eq!(heard.message().await.unwrap(), Some(text("three")));
    drop(speak);
    assert_eq!(heard.message().await.unwrap(), None);
    assert_eq!(world.tokens(), ["t0"]);
}

// shows B111: what the first send has read is kept, and the rest is read from the caller's stream.
#[tokio::test]
async fn a_conversation_that_was_refused_starts_again_from_its_first_message() {
    let (world, session, _server, mut client) = scene().await;
    world.expire();
    let (speak, answer) = talk(&mut client).await.unwrap();
    let mut heard = answer.into_inner();
    assert_eq!(heard.message().await.unwrap(), Some(text("one")));
    assert_eq!(heard.message().await.unwrap(), Some(text("two")));
    speak.unbounded_send(text("three")).unwrap();
    world.open();
    assert_eq!(heard.message().await.unwrap(), Some(text("three")));
    assert_eq!(world.tokens(), ["t0", "t1"]);
    assert_eq!(session.stats().replays, 1);
}

// shows B118: what stands above sees one call, what stands below each attempt.
#[tokio::test]
async fn interceptors_stand_above_and_below() {
    let world = World::default();
    let (session, server) = (world.session().await, world.serve().await);
    let counted = |count: &Arc<AtomicU64>| {
        let count = count.clone();
        move |request: tonic::Request<()>| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(request)
        }
    };
    let (above, below) = (Arc::default(), Arc::default());
    let service = ServiceBuilder::new()
        .layer(layer(&session, &server.base))
        .map_request(into_tonic)
        .service(InterceptedService::new(channel(&server), counted(&below)));
    let service = InterceptedService::new(service, counted(&above));
    let mut client = tonic::client::Grpc::new(service);
    world.expire();
    let request = tonic::Request::new(text("hello"));
    assert_eq!(say_to(&mut client, SAY, request).await.unwrap(), "hello");
    assert_eq!(world.tokens(), ["t0", "t1"]);
    assert_eq!(above.load(Ordering::SeqCst), 1);
    assert_eq!(below.load(Ordering::SeqCst), 2);
}
