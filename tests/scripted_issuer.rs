//! Proves what `ScriptedIssuer` says of itself: through the layer and each of the reissuers, in memory
//! and over sockets.

#[path = "support/server.rs"]
mod server;
mod support;
#[path = "support/upload.rs"]
mod upload;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use http::Request;
use http::StatusCode;
use http_body_util::Full;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use server::hyper_client;
use support::Answer;
use support::Client;
use support::poll_then_drop;
use support::post;
use support::settle_down;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio::time::advance;
use tokio::time::timeout;
use tower::Layer;
use tower::ServiceExt;
use tower_token_refresh::ClientCredentials;
use tower_token_refresh::CookieReissue;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::EndReason;
use tower_token_refresh::ErrorCodes;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::LostReply;
use tower_token_refresh::RefreshError;
use tower_token_refresh::RefreshGrant;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::test_util::Gate;
use tower_token_refresh::test_util::IssuerCounts;
use tower_token_refresh::test_util::Reply;
use tower_token_refresh::test_util::ScriptedIssuer;
use upload::Failed;
use upload::Step;
use upload::Upload;

/// Turns a hang into a failure.
const LONG: Duration = Duration::from_secs(30);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Json,
    JsonInBody,
    Cookie,
    RefreshGrant,
    ClientCredentials,
}

impl Style {
    const ALL: [Self; 5] = [
        Self::Json,
        Self::JsonInBody,
        Self::Cookie,
        Self::RefreshGrant,
        Self::ClientCredentials,
    ];

    fn builder(self, issuer: &ScriptedIssuer) -> SessionBuilder {
        let url = |path| format!("https://issuer.test{path}");
        let json = JsonReissue::post(url("/reissue/json"), issuer.client()).refused("refused");
        let oauth = url("/oauth/token");
        match self {
            Self::Json => Session::builder(json),
            Self::JsonInBody => Session::builder(json.refresh_token_in_body("refreshToken")),
            Self::Cookie => Session::builder(
                CookieReissue::post(url("/reissue/cookie"), issuer.client()).refused("refused"),
            ),
            Self::RefreshGrant => {
                Session::builder(RefreshGrant::post(oauth, issuer.client()).public_client("app"))
            }
            Self::ClientCredentials => Session::builder(
                ClientCredentials::post(oauth, issuer.client()).basic("app", "its secret"),
            ),
        }
    }

    /// A session with a token that is live, and its client. However it came by that, nothing has been
    /// asked of the issuer by a refresh token.
    async fn ready(self, issuer: &ScriptedIssuer) -> (Session, Client) {
        self.ready_with(issuer, self.builder(issuer)).await
    }

    async fn ready_with(
        self,
        issuer: &ScriptedIssuer,
        builder: SessionBuilder,
    ) -> (Session, Client) {
        let session = builder.build().unwrap();
        let client = client(issuer, &session);
        match self {
            // Used once, so that it is not too fresh to be replaced.
            Self::ClientCredentials => {
                let answer = client.get().await.unwrap();
                assert_eq!(answer.status, StatusCode::OK);
            }
            _ => session.login(issuer.login("u")).await.unwrap(),
        }
        (session, client)
    }
}

fn client(issuer: &ScriptedIssuer, session: &Session) -> Client {
    let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap();
    Client::new(layer.layer(issuer.clone()))
}

/// A client with a token that is not live any more.
async fn expired(style: Style, issuer: &ScriptedIssuer, policy: LostReply) -> (Session, Client) {
    let builder = style.builder(issuer).lost_reply(policy);
    let it = style.ready_with(issuer, builder).await;
    issuer.expire_access_tokens();
    it
}

/// To the API as it is, with this token.
async fn ask_api(issuer: &ScriptedIssuer, tokens: &TokenSet) -> Answer {
    let mut request = post("/echo", "hello");
    let bearer = format!("Bearer {}", tokens.access_token().expose());
    request
        .headers_mut()
        .insert("authorization", bearer.parse().unwrap());
    Client::new(issuer.clone()).send(request).await.unwrap()
}

/// Sends `n` requests at once, all of which are rejected before the first is answered.
async fn storm(issuer: &ScriptedIssuer, client: &Client, url: &str, n: usize) -> Vec<Answer> {
    let gate = Gate::new();
    issuer.hold_api(&gate);
    let before = issuer.counts().rejected;
    let mut requests = JoinSet::new();
    for n in 0..n {
        let request = Request::post(url).body(Full::from(format!("body {n}")));
        requests.spawn(client.send(request.unwrap()));
    }
    issuer.until(|counts| counts.rejected == before + n).await;
    gate.open();
    let answers = requests.join_all().await;
    answers.into_iter().map(Result::unwrap).collect()
}

async fn rejected(client: &Client, row: &str) -> RefreshError {
    let answer = client.get().await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{row}");
    answer.why.unwrap_or_else(|| panic!("{row}: no reason"))
}

// shows B1, P1
#[tokio::test]
async fn a_hundred_rejected_requests_cost_one_reissue_with_each_reissuer() {
    for style in Style::ALL {
        let issuer = ScriptedIssuer::new();
        let (_session, client) = style.ready(&issuer).await;
        let before = issuer.counts();
        issuer.expire_access_tokens();
        let url = format!("{}/items", support::ORIGIN);
        let answers = timeout(LONG, storm(&issuer, &client, &url, 100)).await;
        let mut bodies = BTreeSet::new();
        for answer in answers.unwrap() {
            assert_eq!(answer.status, StatusCode::OK, "{style:?}");
            let user = match style {
                Style::ClientCredentials => "app",
                _ => "u",
            };
            assert_eq!(answer.user, user, "{style:?}");
            bodies.insert(answer.body);
        }
        assert_eq!(bodies.len(), 100, "{style:?}: each has its own body back");
        let counts = issuer.counts();
        assert_eq!(counts.reissues - before.reissues, 1, "{style:?}");
        assert_eq!(counts.rejected, 100, "{style:?}");
        assert_eq!(counts.accepted - before.accepted, 100, "{style:?}");
        assert_eq!(counts.most_reissues_in_flight, 1, "{style:?}");
        assert_eq!((counts.reuses, counts.families_ended), (0, 0), "{style:?}");
        let logins = usize::from(style != Style::ClientCredentials);
        assert_eq!(counts.logins, logins, "{style:?}");
    }
}

// shows P6: what each reply means to each reissuer.
#[tokio::test]
async fn each_reply_is_what_it_says_with_each_reissuer() {
    type Is = fn(&RefreshError) -> bool;
    let status = |number| Reply::status(StatusCode::from_u16(number).unwrap());
    let unknown: Is = RefreshError::is_outcome_unknown;
    let not_processed: Is = |why| why.is_transient() && !why.is_outcome_unknown();
    let rows: [(Reply, Is); 8] = [
        (Reply::lost(), unknown),
        (Reply::malformed(), unknown),
        (Reply::same_access_token(), RefreshError::is_same_token),
        (Reply::dead_access_token(), RefreshError::is_not_replayed),
        (status(500), unknown),
        (status(503), not_processed),
        (status(429).retry_after(seconds(9)), not_processed),
        (status(404), RefreshError::is_misconfigured),
    ];
    for style in Style::ALL {
        for (reply, is) in &rows {
            let row = format!("{style:?} {reply:?}");
            let (issuer, session, why) = play(style, reply, &row).await;
            assert!(is(&why), "{row}: {why}");
            assert!(session.status().is_logged_in(), "{row}");
            assert_eq!(issuer.counts().reuses, 0, "{row}");
        }
        let (_issuer, session, why) = play(style, &Reply::refused(), "refused").await;
        // Credentials cannot be refused.
        let ends = style != Style::ClientCredentials;
        assert_eq!(why.is_misconfigured(), !ends, "{style:?}: {why}");
        assert_eq!(why.end_reason().is_some(), ends, "{style:?}: {why}");
        assert_eq!(session.status().is_logged_in(), !ends, "{style:?}");
    }
}

/// One rejected request whose reissue gets this reply.
async fn play(style: Style, reply: &Reply, row: &str) -> (ScriptedIssuer, Session, RefreshError) {
    let issuer = ScriptedIssuer::new();
    let (session, client) = style.ready(&issuer).await;
    let before = issuer.counts().reissues;
    issuer.expire_access_tokens();
    issuer.script([reply.clone()]);
    let why = rejected(&client, row).await;
    let counts = issuer.counts();
    assert_eq!(counts.reissues - before, 1, "{row}");
    assert_eq!(counts.reissues_in_flight, 0, "{row}");
    (issuer, session, why)
}

// shows that an answer of no use brings a new refresh token where the reply says so.
#[tokio::test(start_paused = true)]
async fn an_answer_of_no_use_has_a_refresh_token_or_has_none() {
    let rows = [
        (Style::Json, Reply::same_access_token(), true),
        (Style::Cookie, Reply::same_access_token(), true),
        (Style::RefreshGrant, Reply::same_access_token(), true),
        (Style::Cookie, Reply::dead_access_token(), true),
        (Style::Cookie, Reply::malformed(), true),
        (Style::Json, Reply::malformed(), false),
        (Style::RefreshGrant, Reply::malformed(), false),
        (Style::Cookie, Reply::lost(), false),
    ];
    for (style, reply, has_one) in rows {
        let row = format!("{style:?} {reply:?}");
        let issuer = ScriptedIssuer::new();
        let strict = LostReply::strict().quarantine(seconds(30));
        let (_session, client) = expired(style, &issuer, strict).await;
        issuer.script([reply]);
        rejected(&client, &row).await;
        advance(seconds(60)).await;
        let answer = client.get().await.unwrap();
        assert_eq!(answer.status == StatusCode::OK, has_one, "{row}");
        let counts = issuer.counts();
        assert_eq!(counts.reissues, 2, "{row}");
        assert_eq!(counts.reuses, usize::from(!has_one), "{row}: it was used");
    }
}

#[tokio::test]
async fn an_answer_may_have_json_of_its_own() {
    let issuer = ScriptedIssuer::new();
    let grant = RefreshGrant::post("https://issuer.test/oauth/token", issuer.client());
    let grant = grant.public_client("app").on_error(|answer| {
        let slowed_down = answer
            .member("/error_codes")?
            .as_array()?
            .contains(&50196.into());
        slowed_down.then(|| ReissueError::transient("slowed down"))
    });
    let session = Session::builder(grant).build().unwrap();
    session.login(issuer.login("u")).await.unwrap();
    let codes = r#"{"error":"invalid_grant","error_codes":[50196]}"#;
    issuer.script([Reply::refused().json(codes)]);
    let why = session.refresh().await.unwrap_err();
    assert!(why.is_transient() && !why.is_outcome_unknown(), "{why}");
}

#[tokio::test(start_paused = true)]
async fn replies_are_given_in_turn_and_then_come_tokens() {
    let issuer = ScriptedIssuer::new();
    let (_session, client) = expired(Style::Json, &issuer, LostReply::strict()).await;
    let busy = Reply::status(StatusCode::TOO_MANY_REQUESTS);
    issuer.script([
        busy.clone().retry_after(Duration::from_millis(59_001)),
        busy,
    ]);
    assert!(rejected(&client, "the first").await.is_transient());
    advance(seconds(59)).await;
    assert!(rejected(&client, "too early").await.is_transient());
    assert_eq!(issuer.counts().reissues, 1, "60 s were asked for");
    advance(seconds(1)).await;
    assert!(rejected(&client, "the second").await.is_transient());
    assert_eq!(issuer.counts().reissues, 2);
    advance(seconds(60)).await;
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    assert_eq!(issuer.counts().reissues, 3);
}

#[tokio::test]
async fn what_is_not_processed_leaves_the_refresh_token_as_it_was() {
    let rows = [
        (Reply::refused(), false),
        (Reply::status(StatusCode::BAD_GATEWAY), false),
        (Reply::tokens(), true),
    ];
    for (reply, is_processed) in rows {
        let issuer = ScriptedIssuer::new();
        let tokens = issuer.login("u");
        issuer.script([reply]);
        // Two programs that know nothing of each other.
        for program in ["first", "second"] {
            let session = Style::Json.builder(&issuer).build().unwrap();
            session.login(tokens.clone()).await.unwrap();
            let outcome = session.refresh().await;
            let expected = is_processed == (program == "first");
            assert_eq!(outcome.is_ok(), expected, "{program}");
        }
        let reuses = usize::from(is_processed);
        assert_eq!(issuer.counts().reuses, reuses);
    }
}

#[tokio::test]
async fn a_reuse_ends_the_family_and_no_other() {
    for style in Style::ALL {
        if style == Style::ClientCredentials {
            continue;
        }
        let issuer = ScriptedIssuer::new();
        let (tokens, bystander) = (issuer.login("u"), issuer.login("u"));
        let first = style.builder(&issuer).build().unwrap();
        first.login(tokens.clone()).await.unwrap();
        first.refresh().await.unwrap();
        let its = client(&issuer, &first);
        assert_eq!(its.get().await.unwrap().status, StatusCode::OK);
        let thief = style.builder(&issuer).build().unwrap();
        thief.login(tokens.clone()).await.unwrap();
        assert!(thief.refresh().await.unwrap_err().is_refused(), "{style:?}");
        let counts = issuer.counts();
        assert_eq!((counts.reuses, counts.families_ended), (1, 1), "{style:?}");

        let why = rejected(&its, "first").await;
        assert_eq!(why.end_reason(), Some(EndReason::Refused), "{style:?}");
        let counts = issuer.counts();
        assert_eq!(
            (counts.reissues, counts.reuses, counts.families_ended),
            (3, 1, 1),
            "{style:?}: its refresh token is unused, and refused"
        );
        let again = style.builder(&issuer).build().unwrap();
        again.login(tokens).await.unwrap();
        again.refresh().await.unwrap_err();
        let counts = issuer.counts();
        assert_eq!((counts.reuses, counts.families_ended), (2, 1), "{style:?}");

        assert_eq!(ask_api(&issuer, &bystander).await.status, StatusCode::OK);
        let other = style.builder(&issuer).build().unwrap();
        other.login(bystander).await.unwrap();
        other.refresh().await.unwrap();
    }
}

// shows what the page of `LostReply` says of an issuer without a grace window.
#[tokio::test(start_paused = true)]
async fn a_strict_session_presents_a_token_in_doubt_after_the_quarantine_and_is_refused() {
    let issuer = ScriptedIssuer::new();
    let strict = LostReply::strict().quarantine(seconds(30));
    let (session, client) = expired(Style::RefreshGrant, &issuer, strict).await;
    issuer.script([Reply::lost()]);
    assert!(rejected(&client, "lost").await.is_outcome_unknown());
    assert!(rejected(&client, "in doubt").await.is_outcome_unknown());
    assert_eq!(issuer.counts().reissues, 1, "left alone");
    assert!(session.status().is_logged_in());
    advance(seconds(31)).await;
    let why = rejected(&client, "presented again").await;
    assert_eq!(why.end_reason(), Some(EndReason::Refused));
    let counts = issuer.counts();
    assert_eq!((counts.reissues, counts.reuses), (2, 1));
    assert_eq!(counts.families_ended, 1);
}

#[tokio::test(start_paused = true)]
async fn within_the_grace_window_a_lost_reply_costs_nothing() {
    for style in [Style::Json, Style::Cookie, Style::RefreshGrant] {
        let issuer = ScriptedIssuer::new().grace(seconds(20));
        let grace = LostReply::grace(seconds(20));
        let (_session, client) = expired(style, &issuer, grace).await;
        issuer.script([Reply::lost()]);
        let answer = client.get().await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{style:?}");
        let counts = issuer.counts();
        assert_eq!((counts.reissues, counts.reuses), (2, 0), "{style:?}");
        issuer.expire_access_tokens();
        let answer = client.get().await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{style:?}: the family lives");
    }
}

#[tokio::test(start_paused = true)]
async fn the_grace_window_is_over_with_its_time_and_with_the_use_of_the_new_token() {
    for is_late in [true, false] {
        let issuer = ScriptedIssuer::new().grace(seconds(20));
        let tokens = issuer.login("u");
        let present = async |tokens: &TokenSet| {
            let session = Style::Json.builder(&issuer).build().unwrap();
            session.login(tokens.clone()).await.unwrap();
            session.refresh().await.map(|()| session)
        };
        let first = present(&tokens).await.unwrap();
        advance(seconds(19)).await;
        let second = present(&tokens).await.unwrap();
        let (a, b) = (first.token().await.unwrap(), second.token().await.unwrap());
        assert_eq!(a.expose(), b.expose(), "the same tokens again");
        assert_eq!(issuer.counts().reuses, 0);
        match is_late {
            true => advance(seconds(1)).await,
            false => first.refresh().await.unwrap(),
        }
        assert!(present(&tokens).await.unwrap_err().is_refused());
        assert_eq!(issuer.counts().reuses, 1);
    }
}

// shows P4 for an answer that never comes.
#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_processed_all_the_same() {
    let issuer = ScriptedIssuer::new().grace(seconds(3600));
    let strict = LostReply::strict().quarantine(seconds(30));
    let (_session, client) = expired(Style::Json, &issuer, strict).await;
    issuer.script([Reply::never()]);
    let waiting = tokio::spawn(client.get());
    let counts = issuer.until(|counts| counts.reissues == 1).await;
    assert_eq!(counts.reissues_in_flight, 1);
    let answer = waiting.await.unwrap().unwrap();
    assert!(answer.why.unwrap().is_outcome_unknown());
    assert_eq!(issuer.counts().reissues_in_flight, 0, "it was given up");
    advance(seconds(60)).await;
    // Only a token that was used can be in its grace window: the first reissue was processed.
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    assert_eq!(issuer.counts().reissues, 2);
    let stranger = ScriptedIssuer::new();
    let (_session, client) = expired(Style::Json, &stranger, strict).await;
    stranger.script([Reply::never()]);
    assert!(rejected(&client, "never").await.is_outcome_unknown());
    advance(seconds(60)).await;
    assert!(rejected(&client, "used").await.is_session_ended());
    assert_eq!(stranger.counts().reuses, 1);
}

#[tokio::test]
async fn a_reissue_waits_at_its_gate_and_others_pass() {
    let issuer = ScriptedIssuer::new();
    let (first, _) = Style::Json.ready(&issuer).await;
    let (second, _) = Style::Cookie.ready(&issuer).await;
    let gate = Gate::new();
    issuer.script([
        Reply::tokens().held_by(&gate),
        Reply::tokens().held_by(&gate),
    ]);
    let sessions = [first.clone(), second.clone()];
    let refreshes = sessions.map(|session| tokio::spawn(async move { session.refresh().await }));
    let counts = issuer.until(|counts| counts.reissues == 2).await;
    assert_eq!(counts.reissues_in_flight, 2);
    let (third, _) = Style::RefreshGrant.ready(&issuer).await;
    third.refresh().await.unwrap();
    assert_eq!(issuer.counts().most_reissues_in_flight, 3);
    assert!(refreshes.iter().all(|refresh| !refresh.is_finished()));
    gate.open();
    for refresh in refreshes {
        refresh.await.unwrap().unwrap();
    }
    let counts = issuer.counts();
    assert_eq!((counts.reissues, counts.reissues_in_flight), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reissue_that_was_given_up_at_its_gate_is_not_processed() {
    let issuer = ScriptedIssuer::new();
    let strict = LostReply::strict().quarantine(seconds(30));
    let (_session, client) = expired(Style::Json, &issuer, strict).await;
    let gate = Gate::new();
    issuer.script([Reply::tokens().held_by(&gate)]);
    assert!(rejected(&client, "held").await.is_outcome_unknown());
    assert_eq!(issuer.counts().reissues_in_flight, 0);
    gate.open();
    advance(seconds(60)).await;
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    assert_eq!(issuer.counts().reuses, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_is_told_and_kept_to() {
    for (style, millis) in Style::ALL.into_iter().flat_map(|it| [(it, 0), (it, 500)]) {
        // A lifetime that lost its fraction would have it refreshed by then.
        let short = Duration::from_millis(1_200);
        let lifetime = seconds(600) + Duration::from_millis(millis);
        let issuer = ScriptedIssuer::new().lifetime(lifetime);
        // Without a window the server decides.
        let builder = style.builder(&issuer).refresh_ahead(seconds(1));
        let (_session, client) = style.ready_with(&issuer, builder).await;
        let plain = issuer.login("v");
        let before = issuer.counts();
        for round in 1..=2 {
            advance(lifetime - short).await;
            assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
            settle_down().await;
            let counts = issuer.counts();
            assert_eq!(counts.reissues - before.reissues, round - 1, "{style:?}");
            advance(short).await;
            assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
            let counts = issuer.counts();
            assert_eq!(counts.reissues - before.reissues, round, "{style:?}");
        }
        let told = "it was told, so that nothing was rejected";
        assert_eq!(issuer.counts().rejected, 0, "{style:?}: {told}");
        let answer = ask_api(&issuer, &plain).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{style:?}");
    }
}

#[tokio::test]
async fn the_api_judges_a_token_by_what_has_become_of_it() {
    let issuer = ScriptedIssuer::new();
    let tokens = issuer.login("user 7");
    let answer = ask_api(&issuer, &tokens).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!((&*answer.user, &*answer.body), ("user 7", "hello"));
    issuer.expire_access_tokens();
    let answer = ask_api(&issuer, &tokens).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.body, r#"{"code":"expired"}"#);
    let after = issuer.login("user 8");
    assert_eq!(ask_api(&issuer, &after).await.user, "user 8");
    let foreign = ScriptedIssuer::new().login("user 7");
    let answer = ask_api(&issuer, &foreign).await;
    assert_eq!(answer.body, r#"{"code":"unknown"}"#);
    let none = Client::new(issuer.clone()).get().await.unwrap();
    assert_eq!(none.status, StatusCode::UNAUTHORIZED);
    assert_eq!(none.body, r#"{"code":"missing"}"#);
    let counts = issuer.counts();
    assert_eq!((counts.accepted, counts.rejected), (2, 3));
    assert_eq!(counts.logins, 2);
}

#[tokio::test]
async fn the_codes_of_the_api_are_of_use_to_a_classifier() {
    let issuer = ScriptedIssuer::new();
    let (session, _) = Style::Json.ready(&issuer).await;
    let codes = ErrorCodes::json("/code")
        .expired("expired")
        .ended("unknown");
    let layer = TokenRefreshLayer::new(support::ORIGIN, session.clone()).unwrap();
    let layer = layer.classify(codes.or(DefaultClassifier));
    let client = Client::new(layer.layer(issuer.clone()));
    issuer.expire_access_tokens();
    assert_eq!(client.get().await.unwrap().status, StatusCode::OK);
    let stranger = ScriptedIssuer::new().login("u");
    session.login(stranger).await.unwrap();
    let why = rejected(&client, "unknown").await;
    assert!(why.is_session_ended(), "{why}");
    assert_eq!(issuer.counts().reissues, 1, "nobody was asked");
}

#[tokio::test]
async fn without_rotation_a_refresh_token_is_good_for_any_number_of_reissues() {
    for style in [Style::Json, Style::Cookie, Style::RefreshGrant] {
        let issuer = ScriptedIssuer::new().without_rotation();
        let tokens = issuer.login("u");
        for _ in 0..2 {
            let session = style.builder(&issuer).build().unwrap();
            session.login(tokens.clone()).await.unwrap();
            for _ in 0..2 {
                session.refresh().await.unwrap();
            }
        }
        let counts = issuer.counts();
        assert_eq!((counts.reissues, counts.reuses), (4, 0), "{style:?}");
    }
}

#[tokio::test]
async fn an_oauth_client_that_is_not_the_one_it_knows_is_turned_away() {
    let issuer = ScriptedIssuer::new().oauth_client("app", "a secret: 100%");
    let tokens = issuer.login("u");
    let grant = || RefreshGrant::post("https://issuer.test/oauth/token", issuer.client());
    let rows = [
        (grant(), false),
        (grant().public_client("app"), false),
        (grant().basic("app", "wrong"), false),
        (grant().basic("ap", "a secret: 100%"), false),
        (grant().client_in_body("app", "wrong"), false),
        (grant().basic("app", "a secret: 100%"), true),
    ];
    for (grant, is_taken) in rows {
        let session = Session::builder(grant).build().unwrap();
        session.login(tokens.clone()).await.unwrap();
        match session.refresh().await {
            Ok(()) => assert!(is_taken),
            Err(why) => assert!(!is_taken && why.is_misconfigured(), "{why}"),
        }
    }
    let in_body = grant().client_in_body("app", "a secret: 100%");
    let session = Session::builder(in_body).build().unwrap();
    session.login(issuer.login("u")).await.unwrap();
    session.refresh().await.unwrap();
    assert_eq!(issuer.counts().reuses, 0);
}

// shows that a wait which is dropped takes nothing with it.
#[tokio::test]
async fn a_wait_for_counts_may_be_dropped() {
    let issuer = ScriptedIssuer::new();
    let dropped = poll_then_drop(issuer.until(|counts| counts.logins == 1), 3).await;
    assert_eq!(dropped, None);
    let waiting = tokio::spawn({
        let issuer = issuer.clone();
        async move { issuer.until(|counts| counts.logins == 1).await }
    });
    let _tokens = issuer.login("u");
    let counts = timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(counts.logins, 1);
    issuer.until(|counts| counts.logins == 1).await;
}

/// On a thread of its own: were the counts locked meanwhile, it would block.
#[tokio::test]
async fn a_condition_may_use_the_issuer_itself() {
    let issuer = ScriptedIssuer::new();
    let (told, is_done) = oneshot::channel();
    let its = issuer.clone();
    thread::spawn(move || {
        let logs_in = |_: &IssuerCounts| {
            let _tokens = its.login("u");
            its.counts().logins == 2
        };
        told.send(block_on(its.until(logs_in))).unwrap();
    });
    timeout(LONG, is_done).await.unwrap().unwrap();
    assert_eq!(issuer.counts().logins, 2);
}

/// The issuer behind hyper, on loopback.
struct Served {
    base: String,
    task: JoinHandle<()>,
}

impl Served {
    async fn start(issuer: &ScriptedIssuer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let service = TowerToHyperService::new(issuer.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let service = service.clone();
                connections.spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let stream = TokioIo::new(stream);
                    // A lost answer is an error here.
                    drop(builder.serve_connection(stream, service).await);
                });
            }
        });
        Self { base, task }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn served_by_hyper_it_does_the_same() {
    for http2 in [false, true] {
        let issuer = ScriptedIssuer::new().grace(seconds(300));
        let served = Served::start(&issuer).await;
        let base = &served.base;
        let http = hyper_client::<ReplayBody<Full<Bytes>>>(http2);
        let reissue = JsonReissue::post(format!("{base}/reissue/json"), http.clone());
        let session = Session::builder(reissue.refused("refused"))
            .lost_reply(LostReply::grace(seconds(300)))
            .build()
            .unwrap();
        session.login(issuer.login("u")).await.unwrap();
        issuer.expire_access_tokens();
        let layer = TokenRefreshLayer::new(&**base, session.clone()).unwrap();
        let client = Client::new(layer.layer(http));
        issuer.script([Reply::lost()]);
        let url = format!("{base}/items");
        let answers = timeout(LONG, storm(&issuer, &client, &url, 100)).await;
        for answer in answers.unwrap() {
            assert_eq!(answer.status, StatusCode::OK);
            assert!(answer.body.starts_with("body "), "{}", answer.body);
        }
        let counts = issuer.counts();
        assert_eq!((counts.reissues, counts.reuses), (2, 0), "one was lost");
        assert_eq!((counts.rejected, counts.accepted), (100, 100));
        issuer.expire_access_tokens();
        issuer.script([Reply::refused()]);
        let request = Request::get(&url).body(Full::default()).unwrap();
        let answer = timeout(LONG, client.send(request)).await.unwrap().unwrap();
        assert!(answer.why.unwrap().is_session_ended());
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_of_the_service() {
    for path in ["/items", "/reissue/json"] {
        let issuer = ScriptedIssuer::new();
        let body = Upload::of([Step::Data(Bytes::from("half")), Step::Fail]);
        let request = Request::post(path).body(body).unwrap();
        let error = issuer.clone().oneshot(request).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Failed), "{path}");
        assert_eq!(issuer.counts().reissues_in_flight, 0);
    }
}

#[tokio::test]
async fn the_api_judges_a_token_when_the_request_arrives() {
    let issuer = ScriptedIssuer::new();
    let tokens = issuer.login("u");
    let gate = Gate::new();
    issuer.hold_api(&gate);
    let held = tokio::spawn({
        let (issuer, tokens) = (issuer.clone(), tokens.clone());
        async move { ask_api(&issuer, &tokens).await }
    });
    issuer.until(|counts| counts.accepted == 1).await;
    issuer.expire_access_tokens();
    gate.open();
    assert_eq!(held.await.unwrap().status, StatusCode::OK);
    let late = ask_api(&issuer, &tokens).await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
}
