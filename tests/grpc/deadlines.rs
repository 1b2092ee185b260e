//! The time of a call, which it tells in `grpc-timeout`.

use super::*;

/// Of a call with 5 s: the number of a `grpc-timeout`, in seconds.
fn seconds(timeout: &Option<String>) -> f64 {
    let text = timeout.as_deref().expect("a time");
    let (number, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "S" => 1.0,
        _ => panic!("{text}"),
    };
    number.parse::<f64>().unwrap() * unit
}

// shows B99
#[tokio::test]
async fn a_replay_says_what_is_left_of_the_time() {
    let (world, _session, _server, mut client) = scene().await;
    world.expire();
    let mut request = tonic::Request::new(text("hello"));
    request.set_timeout(Duration::from_secs(100));
    assert_eq!(say_to(&mut client, SAY, request).await.unwrap(), "hello");
    let timeouts = world.timeouts();
    assert_eq!(
        seconds(&timeouts[0]),
        100.0,
        "the first send is as the caller made it"
    );
    let left = seconds(&timeouts[1]);
    assert!(left < 100.0, "{timeouts:?}");
}

fn refusal() -> Response<Body> {
    Status::unauthenticated("expired").into_http()
}

// shows B99
#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_spans_both_sends_and_the_wait_between_them() {
    let (_session, mut below, service, gate) = still_world().await;
    let call = tokio::spawn(service.oneshot(with_5_seconds()));
    let (first, respond) = below.next_request().await.unwrap();
    assert_eq!(first.headers()["grpc-timeout"], "5S");
    tokio::time::advance(Duration::from_millis(500)).await;
    respond.send_response(refusal());
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_millis(1500)).await;
    gate.add_permits(1);
    let (second, respond) = below.next_request().await.unwrap();
    assert_eq!(
        seconds(&Some(
            second.headers()["grpc-timeout"]
                .to_str()
                .unwrap()
                .to_owned()
        )),
        3.0
    );
    respond.send_response(Response::new(Body::default()));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

// shows B99
#[tokio::test(start_paused = true)]
async fn a_call_whose_time_is_over_while_it_waits_gets_its_refusal() {
    let (_session, mut below, service, _gate) = still_world().await;
    let started = tokio::time::Instant::now();
    let call = tokio::spawn(service.oneshot(with_5_seconds()));
    let (_, respond) = below.next_request().await.unwrap();
    respond.send_response(refusal());
    let answer = call.await.unwrap().unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    assert_eq!(answer.headers()["grpc-status"], "16");
    assert!(
        answer
            .extensions()
            .get::<RefreshError>()
            .unwrap()
            .is_wait_timeout()
    );
}

// shows B99: a request that waits before it is sent.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_that_is_held_runs_on() {
    for in_time in [true, false] {
        let (session, mut below, mut service, gate) = still_world().await;
        let started = tokio::time::Instant::now();
        let first = tokio::spawn(service.clone().oneshot(with_5_seconds()));
        let (_, respond) = below.next_request().await.unwrap();
        respond.send_response(refusal());
        while session.stats().waiters == 0 {
            tokio::task::yield_now().await;
        }
        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let held = tokio::spawn(service.call(with_5_seconds()));
        if !in_time {
            let error = held.await.unwrap().unwrap_err();
            let error = error.downcast_ref::<RefreshError>().unwrap();
            assert!(error.is_wait_timeout(), "{error}");
            assert_eq!(started.elapsed(), Duration::from_secs(5));
            continue;
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        gate.add_permits(1);
        for _ in 0..2 {
            let (sent, respond) = below.next_request().await.unwrap();
            let left = sent.headers()["grpc-timeout"].to_str().unwrap().to_owned();
            assert_eq!(seconds(&Some(left)), 3.0);
            respond.send_response(Response::new(Body::default()));
        }
        assert!(first.await.unwrap().is_ok() && held.await.unwrap().is_ok());
    }
}

/// An answer that is refused in its head, and does not come to its end.
fn endless(refused: Response<Body>) -> Response<Body> {
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let body = Body::new(body.map_err(|never| match never {}));
    refused.map(|_: Body| body)
}

// shows B99: the second of a rejection is a part of the time.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_ends_the_reading_of_its_refusal() {
    let (_session, mut below, service, gate) = still_world().await;
    gate.add_permits(1);
    let started = tokio::time::Instant::now();
    let mut request = with_5_seconds();
    request
        .headers_mut()
        .insert("grpc-timeout", "100m".parse().unwrap());
    let call = tokio::spawn(service.oneshot(request));
    let (_, respond) = below.next_request().await.unwrap();
    respond.send_response(endless(refusal()));
    let answer = call.await.unwrap().unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(100));
    assert_eq!(answer.headers()["grpc-status"], "16");
}

// shows B99, P10: the service below has no place for the second send, or for one that was held.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_ends_its_wait_for_the_service_below() {
    let (session, mut below, service, gate) = still_world().await;
    let started = tokio::time::Instant::now();
    let rejected = tokio::spawn(service.clone().oneshot(with_5_seconds()));
    let (_, respond) = below.next_request().await.unwrap();
    respond.send_response(refusal());
    while session.stats().waiters == 0 {
        tokio::task::yield_now().await;
    }
    let held = tokio::spawn(service.oneshot(with_5_seconds()));
    while session.stats().waiters == 1 {
        tokio::task::yield_now().await;
    }
    below.allow(0);
    gate.add_permits(1);
    let answer = rejected.await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "16");
    let why = answer.extensions().get::<RefreshError>().unwrap();
    assert!(why.is_wait_timeout(), "{why}");
    let error = held.await.unwrap().unwrap_err();
    assert!(
        error
            .downcast_ref::<RefreshError>()
            .unwrap()
            .is_wait_timeout()
    );
    assert_eq!(started.elapsed(), Duration::from_secs(5));
}
