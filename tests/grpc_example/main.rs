//! Proves the contract of the `grpc` example: the program itself, over loopback, with its tokens in a
//! file. Each run is searched for tokens in what it prints.

#[path = "../../examples/backend/server/mod.rs"]
mod backend;
#[path = "../support/program.rs"]
mod program;
mod scripted;
#[path = "../support/style.rs"]
mod style;

use std::time::Duration;

use backend::Config;
use backend::ReissueMode;
use program::Ran;
use program::World;
use program::eventually;
use scripted::Scripted;
use serde_json::Value;
use serde_json::json;
use style::Style;
use tokio::net::TcpListener;

const PROGRAM: &str = "grpc";

/// Logged in, with tokens that live long, until they are expired, and rotate.
async fn logged_in() -> World {
    let world = World::new(Config {
        access_ttl: Duration::from_secs(3600),
        rotate: true,
        grpc_port: Some(0),
        ..Config::default()
    })
    .await;
    world.log_in().await;
    world
}

/// The same, with a token that the server takes for expired.
async fn expired() -> World {
    let world = logged_in().await;
    world.backend.expire_access_tokens();
    world
}

impl World {
    /// The program against the back end's Greeter.
    async fn greet(&self, style: Style, arguments: &[&str]) -> Ran {
        let url = self.backend.grpc().expect("it serves gRPC");
        self.run_as(style, &[&["--url", &url], arguments].concat())
            .await
    }

    /// How many calls were refused, and how many were not.
    fn calls(&self) -> (u64, u64) {
        let requests = self.backend.stats().requests;
        let count = |status| requests.get(&status).copied().unwrap_or_default();
        (count(401), count(200))
    }
}

/// The line for programs, all but the time. What is not named here is 0.
fn counts(named: Value) -> Value {
    let mut all = json!({
        "ok": 0, "unauthenticated": 0, "other": 0, "hung": 0, "messages": 0, "reissues": 0,
        "replays": 0, "ended": 0,
    });
    for (name, count) in named.as_object().expect("an object") {
        *all.get_mut(name).expect("such a count") = count.clone();
    }
    all
}

// shows B28, B31, P1
#[tokio::test]
async fn with_every_style_an_expired_token_costs_one_reissue_and_no_call() {
    for style in Style::LOGGED_IN {
        let world = expired().await;
        let before = world.stored_tokens();
        let ran = world.greet(style, &["--json", "--parallel", "100"]).await;
        assert_eq!(ran.code, Some(0), "{style:?}: {}", ran.stderr);
        let (rejected, accepted) = world.calls();
        let expected = json!({ "ok": 100, "messages": 100, "reissues": 1, "replays": rejected });
        assert_eq!(ran.counts(), counts(expected), "{style:?}");
        assert!((1..=100).contains(&rejected));
        assert_eq!((accepted, world.backend.stats().reissues), (100, 1));
        // Both are new, and in the file.
        let after = world.stored_tokens();
        let mut pairs = after.iter().zip(&before);
        assert!(pairs.all(|(new, old)| new.is_some() && new != old));
    }
}

#[tokio::test]
async fn client_credentials_need_no_tokens_and_no_file() {
    let world = logged_in().await;
    let arguments = Style::ClientCredentials.arguments(&world.backend);
    let url = world.backend.grpc().unwrap();
    let arguments = arguments.iter().map(String::as_str);
    let ran = world
        .run(arguments.chain(["--json", "--parallel", "20", "--url", &url]))
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let expected = json!({ "ok": 20, "messages": 20, "reissues": 1 });
    assert_eq!(ran.counts(), counts(expected));
    assert_eq!(world.calls(), (0, 20));
}

// shows B28, P10
#[tokio::test]
async fn a_stream_of_replies_is_whole_after_a_refresh() {
    let world = expired().await;
    let stream = ["--call", "server-stream", "--count", "300"];
    let arguments = [&stream[..], &["--json", "--parallel", "10"]].concat();
    let ran = world.greet(Style::Member, &arguments).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (rejected, accepted) = world.calls();
    let expected = json!({ "ok": 10, "messages": 3000, "reissues": 1, "replays": rejected });
    assert_eq!(ran.counts(), counts(expected));
    assert_eq!(accepted, 10);
}

// shows P10
#[tokio::test]
async fn the_names_of_a_client_stream_arrive_whole_and_in_order_after_a_refresh() {
    // The second is more than is kept of a body unless it is set.
    for count in [3_u32, 20_000] {
        let world = expired().await;
        let call = ["--call", "client-stream", "--count", &count.to_string()];
        let ran = world.greet(Style::Member, &call).await;
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
        let names: Vec<_> = (1..=count).map(|n| n.to_string()).collect();
        let shown = format!("{count} received: {}\n", names.join(", "));
        assert!(ran.stdout == shown, "{count}");
        assert_eq!(world.calls(), (1, 1));
        assert_eq!(world.backend.stats().reissues, 1);
    }
}

#[tokio::test]
async fn many_client_streams_are_sent_again_too() {
    let world = expired().await;
    let call = ["--call", "client-stream", "--count", "50", "--json"];
    let ran = world
        .greet(Style::Member, &[&call[..], &["--parallel", "50"]].concat())
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let replays = world.calls().0;
    let expected = json!({ "ok": 50, "messages": 50, "reissues": 1, "replays": replays });
    assert_eq!(ran.counts(), counts(expected));
}

#[tokio::test]
async fn a_single_call_shows_its_replies() {
    let world = expired().await;
    let ran = world.greet(Style::Member, &[]).await;
    let hello = "Hello, 1!\n";
    assert_eq!((ran.code, &*ran.stdout), (Some(0), hello));
    let stream = ["--call", "server-stream", "--count", "3"];
    let ran = world.greet(Style::Member, &stream).await;
    assert_eq!((ran.code, ran.stdout), (Some(0), hello.repeat(3)));
    let nothing = ["--call", "client-stream", "--count", "0"];
    let ran = world.greet(Style::Member, &nothing).await;
    assert_eq!((ran.code, &*ran.stdout), (Some(0), "0 received: \n"));
    // The first has left its tokens for the others.
    assert_eq!((world.calls(), world.backend.stats().reissues), ((1, 3), 1));
}

// shows B29
#[tokio::test]
async fn a_stream_that_fails_after_messages_is_not_sent_again() {
    let world = logged_in().await;
    let failing = ["--call", "server-stream", "--count", "5", "--fail-after"];
    let arguments = [&failing[..], &["2", "--json"]].concat();
    let ran = world.greet(Style::Member, &arguments).await;
    assert_eq!(ran.code, Some(1));
    let expected = json!({ "unauthenticated": 1, "messages": 2 });
    assert_eq!(ran.counts(), counts(expected));
    ran.says("Unauthenticated");
    assert_eq!(world.calls(), (0, 1));
    // Nor is one that was refreshed first: it has had its second try.
    world.backend.expire_access_tokens();
    let ran = world.greet(Style::Member, &arguments).await;
    let expected = json!({ "unauthenticated": 1, "messages": 2, "reissues": 1, "replays": 1 });
    assert_eq!(ran.counts(), counts(expected));
}

// shows B56, P6, P7
#[tokio::test]
async fn a_dead_refresh_token_ends_the_session_for_this_run_and_the_next() {
    for style in Style::LOGGED_IN {
        let world = expired().await;
        world.backend.set_reissue_mode(ReissueMode::Fail);
        let ran = world.greet(style, &["--json", "--parallel", "9"]).await;
        assert_eq!(ran.code, Some(1));
        let expected = json!({ "unauthenticated": 9, "reissues": 1, "ended": 1 });
        assert_eq!(ran.counts(), counts(expected), "{style:?}");
        ran.says("log in again, and replace what is in");
        assert_eq!(world.stored_tokens(), [None, None]);
        // It is remembered, and nothing is sent any more.
        let before = world.backend.stats();
        let next = world.greet(style, &["--json"]).await;
        assert_eq!(next.counts(), counts(json!({ "ended": 1 })));
        assert_eq!((next.code, world.backend.stats()), (Some(1), before));
    }
}

// shows B27, P6: the code of a status is what its message begins with.
#[tokio::test]
async fn the_codes_of_the_command_line_decide_what_a_status_means() {
    let world = expired().await;
    let ended = ["--json", "--ended-code", "T-002"];
    let ran = world.greet(Style::OAuth2Unnamed, &ended).await;
    let expected = json!({ "unauthenticated": 1, "ended": 1 });
    assert_eq!((ran.code, ran.counts()), (Some(1), counts(expected)));
    let world = expired().await;
    let other = ["--json", "--expired-code", "T-002", "--ended-code", "T-00"];
    let ran = world.greet(Style::OAuth2Unnamed, &other).await;
    let expected = json!({ "ok": 1, "messages": 1, "reissues": 1, "replays": 1 });
    assert_eq!((ran.code, ran.counts()), (Some(0), counts(expected)));
}

// shows B55, P6
#[tokio::test]
async fn an_issuer_in_trouble_costs_no_tokens_and_is_told() {
    let world = expired().await;
    world.backend.set_reissue_mode(ReissueMode::Error);
    let before = world.stored_tokens();
    let ran = world
        .greet(Style::Member, &["--json", "--parallel", "5"])
        .await;
    assert_eq!(ran.code, Some(1));
    let expected = json!({ "unauthenticated": 5, "reissues": 1 });
    assert_eq!(ran.counts(), counts(expected));
    ran.says("500");
    ran.says("Unauthenticated: T-002");
    assert_eq!(world.stored_tokens(), before);
}

#[tokio::test]
async fn metadata_goes_with_each_call_beside_the_token() {
    let world = logged_in().await;
    let greeter = Scripted::start();
    let words = ["--metadata", "tenant=a b=c", "--metadata", "tenant=d"];
    let bytes = ["--metadata", "trace-bin=AAH/", "--metadata", "Odd-BIN=AA"];
    let url = ["--url", &greeter.url, "--parallel", "2", "--json"];
    let ran = world
        .run_as(Style::Member, &[&words[..], &bytes, &url].concat())
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let seen = greeter.metadata();
    assert_eq!(seen.len(), 2);
    let token = world.stored_tokens()[0].clone().expect("a token");
    for headers in seen {
        let values = |name| -> Vec<_> { headers.get_all(name).iter().collect() };
        assert_eq!(values("tenant"), ["a b=c", "d"]);
        assert_eq!(values("trace-bin"), ["AAH/"]);
        assert_eq!(values("odd-bin"), ["AA"]);
        assert_eq!(values("authorization"), [&format!("Bearer {token}")]);
    }
}

#[tokio::test]
async fn a_call_that_fails_otherwise_is_told_without_what_would_steer_a_terminal() {
    let world = logged_in().await;
    let greeter = Scripted::start();
    let arguments = ["--call", "server-stream", "--url", &greeter.url];
    let ran = world.run_as(Style::Member, &arguments).await;
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""));
    assert_eq!(ran.stderr, "grpc: PermissionDenied: not for [31m you\n");
    let arguments = [&arguments[..], &["--json", "--parallel", "2"]].concat();
    let ran = world.run_as(Style::Member, &arguments).await;
    assert_eq!(ran.counts(), counts(json!({ "other": 2 })));
}

#[tokio::test]
async fn where_nobody_listens_calls_fail_and_nothing_hangs() {
    let world = logged_in().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for call in ["unary", "server-stream", "client-stream"] {
        let arguments = ["--json", "--parallel", "3", "--url", &nobody, "--call"];
        let ran = world
            .run_as(Style::Member, &[&arguments[..], &[call]].concat())
            .await;
        assert_eq!(ran.code, Some(1));
        assert_eq!(ran.counts(), counts(json!({ "other": 3 })), "{call}");
        ran.says("Unavailable: ");
        ran.says("refused");
    }
}

#[tokio::test]
async fn what_has_not_settled_at_the_deadline_is_hung() {
    let world = logged_in().await;
    let greeter = Scripted::start();
    // It takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let deadline = ["--json", "--parallel", "3", "--deadline", "500ms"];
    for (url, call) in [(&silent, "unary"), (&greeter.url, "client-stream")] {
        let call = ["--url", url, "--call", call];
        let arguments = [&deadline[..], &call].concat();
        let ran = world.run_as(Style::Member, &arguments).await;
        assert_eq!(ran.code, Some(1));
        assert_eq!(ran.counts(), counts(json!({ "hung": 3 })), "{url}");
        ran.says("--deadline");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_signal_ends_it_when_the_refresh_is_finished() {
    let world = expired().await;
    world.backend.set_reissue_delay(Duration::from_secs(2));
    let before = world.stored_tokens();
    let (url, file) = (world.backend.grpc().unwrap(), world.file());
    let style = Style::Member.arguments(&world.backend);
    let own = ["--url", &url, "--tokens", file.to_str().unwrap(), "--json"];
    let child = world.start(style.iter().map(String::as_str).chain(own));
    eventually(|| world.backend.stats().reissues == 1).await;
    let id = rustix::process::Pid::from_raw(child.id().expect("it runs") as i32);
    rustix::process::kill_process(id.expect("an id"), rustix::process::Signal::TERM).unwrap();
    let ran = world.wait(child).await;
    assert_eq!(ran.code, Some(143), "{}", ran.stderr);
    assert_eq!(ran.counts(), counts(json!({ "reissues": 1 })));
    assert_ne!(world.stored_tokens(), before);
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    let world = logged_in().await;
    let text = world.stored();
    let (url, file) = (world.backend.grpc().unwrap(), world.file());
    let file = file.to_str().unwrap();
    let good = ["--tokens", file, "--reissue", "http://localhost:1/x"];
    let url = ["--url", &*url];
    let metadata = |what| [url[0], url[1], "--metadata", what];
    let cases: [(&[&str], &str); 26] = [
        (&[], "--url"),
        (&["--url", "localhost:50051"], "--url"),
        (
            &["--url", "https://localhost:50051"],
            "not supported by this build",
        ),
        (&["--url", "http://api.example.com"], "everybody on the way"),
        (&["--url", "http://localhost:1/CANARY?a=CANARY"], "path"),
        (&["--url", "http://user:CANARY@localhost:1"], "user name"),
        (&[url[0], url[1], "an argument"], "an argument"),
        (&[url[0], url[1], "--call", "bidi"], "--call"),
        (&[url[0], url[1], "--parallel", "0"], "--parallel"),
        (&[url[0], url[1], "--count", "-1"], "-1"),
        (&[url[0], url[1], "--fail-after", "x"], "--fail-after"),
        (&[url[0], url[1], "--deadline", "0s"], "--deadline"),
        (&[url[0], url[1], "--store", "redis://localhost"], "--store"),
        (&[url[0], url[1], "--session", "a"], "--session"),
        (&[url[0], url[1], "--client-id", "demo"], "--client-id"),
        (&[url[0], url[1], "--repeat", "2"], "--repeat"),
        (&metadata("CANARY"), "KEY=VALUE"),
        (&metadata("=CANARY"), "can't be a key"),
        (&metadata("a key=CANARY"), "can't be a key"),
        (&metadata("a key-bin=AAAA"), "can't be a key"),
        (&metadata("authorization=Bearer CANARY"), "session"),
        (&metadata("Authorization=Bearer CANARY"), "session"),
        (&metadata("grpc-status=CANARY"), "protocol"),
        (&metadata("tenant=CANÄRY"), "-bin"),
        (&metadata("tenant=CANARY\n"), "-bin"),
        (&metadata("trace-bin=CANARY!"), "base64"),
    ];
    for (arguments, words) in cases {
        let ran = world.run(good.iter().chain(arguments)).await;
        assert_eq!((ran.code, &*ran.stdout), (Some(2), ""), "{arguments:?}");
        ran.says(words);
        assert!(!ran.stderr.contains("CANARY"), "{}", ran.stderr);
    }
    let ran = world.run(["--reissue", "http://localhost:1/x", url[0], url[1]]);
    let ran = ran.await;
    assert_eq!(ran.code, Some(2));
    ran.says("--tokens");
    assert_eq!(world.stored(), text);
    assert_eq!(world.calls(), (0, 0));
}

// shows P12
#[tokio::test]
async fn what_is_told_about_the_session_holds_no_token() {
    let world = expired().await;
    let ran = world
        .greet(Style::OAuth2, &["-vv", "--parallel", "2"])
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.says("token_refresh");
    ran.says("2 calls in ");
    assert!(!ran.stderr.contains("demo-secret"));
}
