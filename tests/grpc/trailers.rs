//! A status in the trailers, and when it is there.

use std::future::ready;

use tower_token_refresh::ErrorCodes;
use tower_token_refresh::classify_fn;

use super::*;

// shows B28
#[tokio::test]
async fn trailers_that_come_with_the_head_are_as_good_as_a_status_in_it() {
    for at in ["/trailers.At/Once", "/two.Frames/Once"] {
        let (world, session, _server, mut client) = scene().await;
        world.expire();
        assert_eq!(say(&mut client, at).await.unwrap(), "hello", "{at}");
        assert_eq!(world.tokens(), ["t0", "t1"], "{at}");
        assert_eq!(session.stats().replays, 1, "{at}");
    }
}

// shows B28, B29, P10: the head is there although the trailers are not.
#[tokio::test]
async fn trailers_that_come_later_are_passed_on_and_the_next_call_is_refreshed_first() {
    for messages in [0, 1, 3] {
        let (world, session, _server, mut client) = scene().await;
        world.expire();
        let mut heard = listen(&mut client, messages).await.unwrap().into_inner();
        for _ in 0..messages {
            assert_eq!(heard.message().await.unwrap(), Some(text("m")));
        }
        assert_eq!(world.reissues(), 0, "nothing is known yet");
        world.open();
        assert_eq!(
            heard.message().await.unwrap_err().code(),
            Code::Unauthenticated
        );
        assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
        assert_eq!(world.tokens(), ["t0", "t1"], "{messages} messages");
        assert_eq!(session.stats().replays, 0);
    }
}

// shows B29: everything is there at once, a message as well.
#[tokio::test]
async fn a_call_that_has_had_a_message_is_not_made_again() {
    let (world, session, _server, mut client) = scene().await;
    world.expire();
    world.open();
    let mut heard = listen(&mut client, 1).await.unwrap().into_inner();
    assert_eq!(heard.message().await.unwrap(), Some(text("m")));
    assert_eq!(
        heard.message().await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(session.stats().replays, 0);
    world.open();
    assert!(
        listen(&mut client, 0)
            .await
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(world.tokens(), ["t0", "t1"]);
}

// shows P2
#[tokio::test]
async fn late_trailers_of_a_token_that_was_replaced_cost_nothing() {
    let (world, _session, _server, mut client) = scene().await;
    world.expire();
    let mut late = listen(&mut client, 1).await.unwrap().into_inner();
    assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
    world.open();
    assert_eq!(late.message().await.unwrap(), Some(text("m")));
    assert_eq!(
        late.message().await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
    assert_eq!(world.tokens(), ["t0", "t0", "t1", "t1"]);
    assert_eq!(world.reissues(), 1);
}

/// Takes the status 16 for the end of the session, wherever it is.
#[derive(Clone)]
struct Final;

impl Classify for Final {
    fn classify(&self, status: http::StatusCode, headers: &HeaderMap) -> Verdict {
        DefaultClassifier.classify(status, headers)
    }

    fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        match DefaultClassifier.inspect_trailers(trailers) {
            Verdict::Refresh => Verdict::EndSession,
            verdict => verdict,
        }
    }
}

// shows P6, P7
#[tokio::test]
async fn trailers_that_are_final_end_the_session() {
    for at_once in [true, false] {
        let world = World::default();
        let (session, server) = (world.session().await, world.serve().await);
        let mut client = client(
            layer(&session, &server.base).classify(Final),
            channel(&server),
        );
        world.expire();
        let refused = match at_once {
            true => say(&mut client, "/trailers.At/Once").await.unwrap_err(),
            false => {
                let mut heard = listen(&mut client, 0).await.unwrap().into_inner();
                world.open();
                heard.message().await.unwrap_err()
            }
        };
        assert_eq!(refused.code(), Code::Unauthenticated);
        // The next call is the one that finds out, where nobody has waited.
        assert_eq!(
            say(&mut client, SAY).await.unwrap_err().code(),
            Code::Unauthenticated
        );
        assert_eq!(
            session.status().end_reason(),
            Some(EndReason::Rejected),
            "{at_once}"
        );
        assert_eq!(session.stats().ends, 1);
        assert_eq!(world.tokens(), ["t0", ""], "{at_once}");
        assert_eq!(world.reissues(), 0);
    }
}

// shows P2: the answer to the second send is the answer, and no reason to refresh once more.
#[tokio::test]
async fn a_replay_that_is_refused_in_its_trailers_means_nothing_for_the_next_call() {
    let (world, session, _server, mut client) = scene().await;
    world.expire();
    world.expire();
    let refused = say(&mut client, "/trailers.At/Once").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    say(&mut client, SAY).await.unwrap_err();
    assert_eq!(world.tokens(), ["t0", "t1", "t1"], "it is too fresh");
    assert_eq!((session.stats().replays, world.reissues()), (1, 1));
}

// shows P2
#[tokio::test]
async fn late_trailers_of_a_replay_mean_nothing_for_the_next_call() {
    let (world, session, _server, mut client) = scene().await;
    world.expire();
    world.expire();
    let at = "/late.Trailers/OfReplay";
    let mut heard = listen_at(&mut client, at, 1).await.unwrap().into_inner();
    assert_eq!(heard.message().await.unwrap(), Some(text("m")));
    world.open();
    let refused = heard.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    say(&mut client, SAY).await.unwrap_err();
    assert_eq!(world.tokens(), ["t0", "t1", "t1"], "it is too fresh");
    assert_eq!((session.stats().replays, world.reissues()), (1, 1));
}

// shows P2: a call is accepted when its trailers say so, and then its token can die.
#[tokio::test]
async fn trailers_that_come_later_and_say_ok_are_an_acceptance() {
    let (world, session, _server, mut client) = scene().await;
    session.refresh().await.unwrap();
    let mut heard = listen(&mut client, 0).await.unwrap().into_inner();
    world.open();
    assert_eq!(heard.message().await.unwrap(), None);
    world.expire();
    world.expire();
    assert_eq!(say(&mut client, SAY).await.unwrap(), "hello", "it has died");
    assert_eq!(world.tokens(), ["t1", "t1", "t2"]);
}

// shows P2: a call that has failed for another reason says nothing of its token.
#[tokio::test]
async fn a_call_that_fails_is_no_acceptance() {
    let (world, session, _server, mut client) = scene().await;
    session.refresh().await.unwrap();
    let failed = say(&mut client, "/chat.Chat/Away").await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    world.expire();
    world.expire();
    say(&mut client, SAY).await.unwrap_err();
    assert_eq!(world.tokens(), ["t1", "t1"], "it is too fresh");
}

// shows P2, P10: late trailers have the token refreshed, unless that was in vain before.
#[tokio::test]
async fn late_trailers_of_a_bad_method_cost_one_reissue() {
    let (world, session, _server, mut client) = scene().await;
    for _ in 0..10 {
        let at = "/late.Trailers/Refused";
        let mut heard = listen_at(&mut client, at, 0).await.unwrap().into_inner();
        world.open();
        let refused = heard.message().await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(say(&mut client, SAY).await.unwrap(), "hello");
    }
    // However long it takes, no more than half of what the window allows.
    assert!(session.stats().reissues <= 3, "{:?}", session.stats());
}

// shows B28: of a call that had to wait before it was sent.
#[tokio::test]
async fn a_call_that_was_held_is_made_good_as_well() {
    let world = World::default();
    let server = world.serve().await;
    let session = world.stored_session().await;
    let mut client = client(layer(&session, &server.base), channel(&server));
    world.expire();
    let said = say(&mut client, "/trailers.At/Once").await;
    assert_eq!(said.unwrap(), "hello", "held until the store was read");
    assert_eq!(world.tokens(), ["t0", "t1"]);
    assert_eq!(session.stats().replays, 1);
}

/// An answer whose frames are there at once.
fn ready_answer(frames: Vec<Frame<Bytes>>) -> Response<Body> {
    let frames = stream::iter(frames.into_iter().map(Ok));
    grpc_answer(StreamBody::new(frames))
}

// shows B29, B119
#[tokio::test]
async fn what_stands_before_the_trailers_decides_on_the_replay() {
    let empty = || Frame::data(Bytes::new());
    let message = || Frame::data(Bytes::from_static(b"\0\0\0\0\0"));
    let end = || Frame::trailers(status("16"));
    let cases = [
        (vec![end()], false, true),
        (vec![empty(), empty(), end()], false, true),
        (vec![message(), end()], false, false),
        (vec![empty(), message(), end()], false, false),
        // A caller that doesn't mind is no reason to hold messages back.
        (vec![message(), end()], true, false),
    ];
    for (n, (frames, is_safe, replayed)) in cases.into_iter().enumerate() {
        let (session, mut below, service, gate) = still_world().await;
        gate.add_permits(1);
        let mut request = with_5_seconds();
        if is_safe {
            request.extensions_mut().insert(ReplaySafe);
        }
        let call = tokio::spawn(service.oneshot(request));
        let (_, respond) = below.next_request().await.unwrap();
        let whole: usize = frames
            .iter()
            .filter_map(Frame::data_ref)
            .map(Bytes::len)
            .sum();
        respond.send_response(ready_answer(frames));
        if replayed {
            let (_, respond) = below.next_request().await.unwrap();
            respond.send_response(ready_answer(vec![Frame::trailers(status("0"))]));
        }
        let answer = call.await.unwrap().unwrap().into_body();
        assert!(!answer.is_end_stream(), "case {n}");
        let answer = answer.collect().await.unwrap();
        let trailers = answer.trailers().unwrap().clone();
        assert_eq!(
            trailers["grpc-status"],
            if replayed { "0" } else { "16" },
            "case {n}"
        );
        assert_eq!(
            answer.to_bytes().len(),
            if replayed { 0 } else { whole },
            "case {n}"
        );
        assert_eq!(session.stats().replays, u64::from(replayed), "case {n}");
    }
}

/// Wants to see every body, and has nothing to say about it.
#[derive(Clone)]
struct Curious;

impl Classify for Curious {
    fn classify(&self, _: http::StatusCode, _: &HeaderMap) -> Verdict {
        Verdict::Inspect
    }
}

// shows B28: the trailers are judged where the body was looked at first, and said nothing.
#[tokio::test]
async fn a_classifier_that_looks_at_bodies_does_not_hide_the_trailers() {
    let codes = || ErrorCodes::json("/code").expired("T-002").in_success();
    assert!(is_made_good(codes().or(DefaultClassifier), "application/grpc+json").await);
    assert!(is_made_good(DefaultClassifier.or(codes()), "application/grpc+json").await);
    assert!(is_made_good(Curious.or(DefaultClassifier), "application/grpc").await);
    assert!(is_made_good(DefaultClassifier.or(Curious), "application/grpc").await);
    let accepts = classify_fn(|_, _| Verdict::Accept);
    assert!(is_made_good(DefaultClassifier.or(accepts), "application/grpc").await);
    // Trailers of something else, whatever their name.
    assert!(!is_made_good(codes().or(DefaultClassifier), "application/json").await);
    assert!(!is_made_good(Curious.or(DefaultClassifier), "application/json").await);
}

// shows B29: gRPC has its status elsewhere, and that of HTTP says nothing about messages.
#[tokio::test]
async fn messages_are_messages_under_any_status_of_http() {
    for number in [200, 302, 500, 503] {
        let world = World::default();
        world.expire();
        let session = world.session().await;
        let its = world.clone();
        let server = service_fn(move |request: Request<ReplayBody<Body>>| {
            its.admit(&request);
            let message = Frame::data(Bytes::from_static(b"\0\0\0\0\0"));
            let mut answer = ready_answer(vec![message, Frame::trailers(status("16"))]);
            *answer.status_mut() = number.try_into().unwrap();
            ready(Ok::<_, Infallible>(answer))
        });
        let layer = layer(&session, "http://localhost");
        let service = layer.classify(Curious.or(DefaultClassifier)).layer(server);
        service.oneshot(with_5_seconds()).await.unwrap();
        assert_eq!(world.tokens(), ["t0"], "{number}");
    }
}

/// Whether a call is made good that is refused in trailers, which are there with the head.
async fn is_made_good<C>(classifier: C, content_type: &'static str) -> bool
where
    C: Classify + Clone + Send + Sync + 'static,
{
    let world = World::default();
    world.expire();
    let session = world.session().await;
    let its = world.clone();
    let server = service_fn(move |request: Request<ReplayBody<Body>>| {
        let number = if its.admit(&request) { "0" } else { "16" };
        let mut answer = ready_answer(vec![Frame::trailers(status(number))]);
        let content_type = HeaderValue::from_static(content_type);
        answer.headers_mut().insert("content-type", content_type);
        ready(Ok::<_, Infallible>(answer))
    });
    let layer = layer(&session, "http://localhost").classify(classifier);
    let answer = layer.layer(server).oneshot(with_5_seconds()).await.unwrap();
    let answer = answer.into_body().collect().await.unwrap();
    answer.trailers().unwrap()["grpc-status"] == "0" && world.tokens() == ["t0", "t1"]
}
