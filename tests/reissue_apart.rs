//! Proves P15: the reissue is never intercepted by the layer it serves, and a reissuer that calls
//! through it all the same neither hangs nor carries the access token.

mod support;

use std::sync::Arc;
use std::sync::OnceLock;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::Full;
use support::World;
use support::get;
use tower::Layer;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tower_token_refresh::BoxError;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::ResponseBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

type Sent = Request<ReplayBody<Full<Bytes>>>;
type Layered = BoxCloneSyncService<Sent, Response<Full<Bytes>>, BoxError>;

// shows B46: a reissue that is there at once deadlocks nothing.
#[tokio::test]
async fn a_reissue_that_completes_at_once_is_taken() {
    let world = World::new();
    let tokens = world.tokens("u");
    let session = Session::builder(reissue_fn(move |_| std::future::ready(Ok(tokens.clone()))));
    let session = session.build().unwrap();
    session
        .login(
            TokenSet::new("stale")
                .unwrap()
                .with_refresh_token("r")
                .unwrap(),
        )
        .await
        .unwrap();
    assert_eq!(
        world.client(&session).get().await.unwrap().status,
        StatusCode::OK
    );
}

// shows B88, B89, B90
#[tokio::test(start_paused = true)]
async fn a_reissuer_that_calls_through_the_layer_is_not_intercepted() {
    let world = World::new();
    let client = Arc::new(OnceLock::<support::Client>::new());
    let session = {
        let client = client.clone();
        Session::builder(reissue_fn(move |_| {
            let client = client.clone();
            async move {
                let answer = client.get().unwrap().send(get("/reissue")).await;
                let answer = answer.map_err(ReissueError::unknown)?;
                assert!(answer.why.is_none(), "nobody looked at it");
                Err(ReissueError::transient(format!("{}", answer.status)))
            }
        }))
        .build()
        .unwrap()
    };
    session.login(world.tokens("u")).await.unwrap();
    assert!(client.set(world.client(&session)).is_ok());
    world.expire();
    let begun = tokio::time::Instant::now();
    let answer = client.get().unwrap().get().await.unwrap();
    assert!(answer.why.unwrap().is_transient());
    assert!(begun.elapsed().is_zero(), "refused at once");
    // By hand, while the token is good and nothing is held back.
    session.login(world.tokens("u")).await.unwrap();
    assert!(session.refresh().await.unwrap_err().is_transient());
    let reissues: Vec<_> = world
        .seen()
        .into_iter()
        .filter(|seen| seen.uri.path() == "/reissue")
        .collect();
    assert_eq!(reissues.len(), 2);
    assert!(
        reissues.iter().all(|seen| seen.token.is_none()),
        "no access token"
    );
}

// shows P15 for the ready-made reissuers, whatever client they are given.
#[tokio::test]
async fn a_ready_made_reissuer_passes_through_a_layered_client_untouched() {
    let world = World::new();
    let other = world.logged_in("other").await;
    let layered = TokenRefreshLayer::new(support::ORIGIN, other.clone())
        .unwrap()
        .layer(world.api());
    let answer = |response: Response<_>| response.map(|_: ResponseBody<_>| Full::default());
    let layered: Layered =
        BoxCloneSyncService::new(ServiceExt::<Sent>::map_response(layered, answer));
    let url = format!("{}/member/token/refresh", support::ORIGIN);
    let session = Session::builder(JsonReissue::post(url, layered))
        .build()
        .unwrap();
    session.login(world.tokens("u")).await.unwrap();
    let error = session.refresh().await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert_eq!(
        world.seen()[0].token.as_deref(),
        Some("r-u-2"),
        "the refresh token, as it should"
    );
    assert_eq!(other.stats().reissues, 0);
}
