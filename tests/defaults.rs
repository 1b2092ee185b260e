//! Proves that what is promised "unless set otherwise" is so for those who set nothing: each bound of P5 and P9
//! is met, and then passed by one.

mod support;
#[path = "support/upload.rs"]
mod upload;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use support::Answer;
use support::Script;
use support::World;
use tokio::sync::Notify;
use tokio::time::advance;
use tokio::time::timeout;
use tower::Layer;
use tower::ServiceExt;
use tower::service_fn;
use tower::util::BoxCloneSyncService;
use tower_token_refresh::BoxError;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;
use upload::Step;
use upload::Upload;

const KIB: usize = 1024;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

// shows B81, P9: five in thirty seconds.
#[tokio::test(start_paused = true)]
async fn the_sixth_reissue_is_refused_until_thirty_seconds_after_the_first() {
    let world = World::new();
    let session = world.logged_in("u").await;
    session.refresh().await.unwrap();
    advance(seconds(10)).await;
    for _ in 0..4 {
        session.refresh().await.unwrap();
    }
    for pause in [0, 19_999] {
        advance(millis(pause)).await;
        assert!(session.refresh().await.unwrap_err().is_reissue_limit());
    }
    advance(millis(1)).await;
    session.refresh().await.unwrap();
    let more = session.refresh().await.unwrap_err();
    assert!(more.is_reissue_limit(), "the other four still count");
    world.has_reissued(6);
}

/// How long the issuer is left alone after one more failure, in steps of this.
async fn pause(world: &World, session: &Session, step: Duration) -> Duration {
    let asked = world.counts().reissues;
    let mut paused = Duration::ZERO;
    session.refresh().await.unwrap_err();
    while world.counts().reissues == asked {
        advance(step).await;
        paused += step;
        session.refresh().await.unwrap_err();
    }
    paused
}

// shows B60, P5: from half a second to a whole one at first, then twice as long each time, up to a minute.
#[tokio::test(start_paused = true)]
async fn the_pause_after_a_failure_is_a_second_at_first_and_a_minute_at_last() {
    let world = World::new();
    // Else it is the other limit that refuses the sixth.
    let builder = world.builder().reissue_limit(100, seconds(30));
    let session = builder.build().unwrap();
    session.login(world.tokens("u")).await.unwrap();
    (0..100).for_each(|_| world.script(Script::Transient));
    session.refresh().await.unwrap_err();
    let mut longest = seconds(1);
    for _ in 0..12 {
        let step = longest / 100;
        let paused = pause(&world, &session, step).await;
        let expected = longest / 2..=longest + step;
        assert!(expected.contains(&paused), "{paused:?} of {longest:?}");
        longest = (longest * 2).min(seconds(60));
    }
    assert_eq!(longest, seconds(60));
}

// shows B109: many that fail together do not come back together.
#[tokio::test(start_paused = true)]
async fn the_pauses_of_many_sessions_are_spread() {
    const MANY: usize = 64;
    let world = World::new();
    let mut paused = Vec::new();
    for n in 0..MANY {
        let session = world.logged_in(&format!("u{n}")).await;
        world.script(Script::Transient);
        session.refresh().await.unwrap_err();
        paused.push(session);
    }
    let mut back = Vec::new();
    for _ in 0..10 {
        advance(millis(100)).await;
        let mut left = Vec::new();
        for session in paused.drain(..) {
            if session.refresh().await.is_err() {
                left.push(session);
            }
        }
        paused = left;
        back.push(MANY - paused.len());
    }
    assert_eq!(back[3], 0, "before half a second: {back:?}");
    assert_eq!(back[9], MANY, "after a whole one: {back:?}");
    let at_once = back.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(at_once.max() < Some(MANY * 2 / 3), "{back:?}");
}

// shows B54, P5: one that succeeds is no longer counted among the failures.
#[tokio::test(start_paused = true)]
async fn after_a_success_the_pauses_begin_anew() {
    let world = World::new();
    let session = world.logged_in("u").await;
    for _ in 0..4 {
        world.script(Script::Transient);
        session.refresh().await.unwrap_err();
        advance(seconds(8)).await;
    }
    session.refresh().await.unwrap();
    advance(seconds(30)).await;
    world.script(Script::Transient);
    session.refresh().await.unwrap_err();
    advance(seconds(1)).await;
    session.refresh().await.unwrap();
    world.has_reissued(7);
}

// shows P5: an issuer that does not take the request as it is made is left alone for a minute.
#[tokio::test(start_paused = true)]
async fn a_misconfiguration_is_followed_by_a_minutes_pause() {
    let world = World::new();
    let session = world.logged_in("u").await;
    world.script(Script::Misconfigured);
    session.refresh().await.unwrap_err();
    for pause in [0, 59_999] {
        advance(millis(pause)).await;
        assert!(session.refresh().await.unwrap_err().is_misconfigured());
    }
    world.has_reissued(1);
    advance(millis(1)).await;
    session.refresh().await.unwrap();
}

/// The layer of a session that is logged in with "old", and whose issuer has "new".
async fn old_for_new() -> TokenRefreshLayer {
    let new = || TokenSet::new("new").map_err(ReissueError::unknown);
    let session = Session::builder(reissue_fn(move |_| std::future::ready(new())));
    let session = session.build().unwrap();
    let tokens = TokenSet::new("old").unwrap().with_refresh_token("refresh");
    session.login(tokens.unwrap()).await.unwrap();
    TokenRefreshLayer::new(support::ORIGIN, session).unwrap()
}

type Reply = UnsyncBoxBody<Bytes, BoxError>;

type Api = BoxCloneSyncService<Request<ReplayBody<Upload>>, Response<Reply>, BoxError>;

/// An API that reads the whole request, takes "new", and rejects everything else with this body.
fn api(rejection: impl Fn() -> Reply + Clone + Send + Sync + 'static) -> Api {
    let answer = move |request: Request<ReplayBody<Upload>>| {
        let rejection = rejection.clone();
        async move {
            let (head, body) = request.into_parts();
            body.collect().await?;
            let token = head.headers.get(AUTHORIZATION);
            let (status, body) = match token.is_some_and(|token| token == "Bearer new") {
                true => (StatusCode::OK, whole(0)),
                false => (StatusCode::UNAUTHORIZED, rejection()),
            };
            Ok(Response::builder().status(status).body(body)?)
        }
    };
    Api::new(service_fn(answer))
}

fn post(upload: Upload) -> Request<Upload> {
    let request = Request::post(format!("{}/items", support::ORIGIN));
    request.body(upload).unwrap()
}

fn zeros(n: usize) -> Bytes {
    vec![0; n].into()
}

/// So many bytes, at once.
fn whole(n: usize) -> Reply {
    Full::from(zeros(n))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Nothing for so long, and then a word.
fn slow(pause: Duration) -> Reply {
    let frame = async move {
        let _ = timeout(pause, std::future::pending::<()>()).await;
        Ok(Frame::data(Bytes::from_static(b"expired")))
    };
    StreamBody::new(futures::stream::once(frame)).boxed_unsync()
}

/// Sends this to an API that rejects it with that.
async fn sent(
    layer: &TokenRefreshLayer,
    upload: Upload,
    rejection: impl Fn() -> Reply + Clone + Send + Sync + 'static,
) -> Answer {
    let client = layer.clone().layer(api(rejection));
    let response = client.oneshot(post(upload)).await.unwrap();
    support::read(response).await.unwrap()
}

/// The same, for the answer that a layer of its own gives.
async fn rejected_with(reply: impl Fn() -> Reply + Clone + Send + Sync + 'static) -> Answer {
    sent(&old_for_new().await, Upload::of([]), reply).await
}

fn is_not_replayed(answer: &Answer) -> bool {
    let why = answer.why.as_ref();
    answer.status == StatusCode::UNAUTHORIZED && why.is_some_and(|why| why.is_not_replayed())
}

// shows B115, P9: 64 KiB of a body are kept.
#[tokio::test(start_paused = true)]
async fn a_body_of_64_kib_is_sent_again_and_a_longer_one_is_not() {
    let half = Step::Data(zeros(32 * KIB));
    let upload = Upload::of([half.clone(), half.clone()]);
    let answer = sent(&old_for_new().await, upload, || whole(0)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let upload = Upload::of([half.clone(), half, Step::Data(zeros(1))]);
    let answer = sent(&old_for_new().await, upload, || whole(0)).await;
    assert!(is_not_replayed(&answer), "{answer:?}");
}

// shows P9, S9: 64 MiB of all bodies together are kept, by all clones of a layer.
#[tokio::test(start_paused = true)]
async fn bodies_of_64_mib_together_are_kept_and_not_a_byte_more() {
    let (layer, each) = (old_for_new().await, zeros(64 * KIB));
    let (ends, read) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let full = (0..KIB).map(|_| {
        let steps = [Step::Data(each.clone()), Step::Wait(ends.clone())];
        let read = read.clone();
        let last = move |step: &Step| {
            read.fetch_add(
                usize::from(matches!(step, Step::Wait(_))),
                Ordering::Relaxed,
            );
        };
        sent(&layer, Upload::of(steps.into_iter().inspect(last)), || {
            whole(0)
        })
    });
    let one_more = async {
        while read.load(Ordering::Relaxed) < KIB {
            tokio::task::yield_now().await;
        }
        let answer = sent(&layer, Upload::of([Step::Data(zeros(1))]), || whole(0)).await;
        ends.notify_waiters();
        answer
    };
    let (full, one_more) = tokio::join!(join_all(full), one_more);
    assert!(is_not_replayed(&one_more), "{one_more:?}");
    let why = one_more.why.unwrap().to_string();
    assert!(why.contains("bodies of all requests"), "{why}");
    for answer in full {
        assert_eq!(answer.status, StatusCode::OK, "there was room for it");
    }
}

// shows P9, P14: 64 KiB of a rejection are read to have its connection free.
#[tokio::test(start_paused = true)]
async fn a_rejection_of_64_kib_is_made_good_and_a_longer_one_goes_to_the_caller_whole() {
    let answer = rejected_with(|| whole(64 * KIB)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = rejected_with(|| whole(64 * KIB + 1)).await;
    assert!(is_not_replayed(&answer), "{:?}", answer.why);
    assert_eq!(answer.body.len(), 64 * KIB + 1);
}

// shows P9, P14: a second is what it may take.
#[tokio::test(start_paused = true)]
async fn a_rejection_that_is_there_within_a_second_is_made_good_and_a_later_one_is_handed_on() {
    let answer = rejected_with(|| slow(millis(999))).await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = rejected_with(|| slow(millis(1_001))).await;
    assert!(is_not_replayed(&answer), "{:?}", answer.why);
    assert_eq!(answer.body, "expired");
}
