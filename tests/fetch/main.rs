//! Proves the contract of the `fetch` example: the program itself, over loopback, with its tokens in
//! a file. Each run is searched for tokens in what it prints.

#[path = "../../examples/backend/server/mod.rs"]
mod backend;
mod odd_server;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/style.rs"]
mod style;

use std::fs;
use std::time::Duration;

use backend::Config;
use backend::ReissueMode;
use futures::future::join_all;
use odd_server::OddServer;
use program::Ran;
use program::World;
use program::eventually;
use serde_json::Value;
use serde_json::json;
use style::Style;
#[cfg(unix)]
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::process::Child;

const PROGRAM: &str = "fetch";

const ME: &str = "/member/me";

impl World {
    /// The program with the file and this style.
    async fn fetch(&self, style: Style, arguments: &[&str]) -> Ran {
        self.run_as(style, arguments).await
    }
}

// shows B31, P1
#[tokio::test]
async fn with_every_style_an_expired_token_costs_one_reissue_and_no_request() {
    for style in Style::LOGGED_IN {
        let world = World::expired().await;
        let before = world.stored_tokens();
        let urls = [&*world.url(ME), &world.url("/items/7")];
        let ran = world
            .fetch(style, &["--json", "--parallel", "20", urls[0], urls[1]])
            .await;
        assert_eq!(ran.code, Some(0), "{style:?}: {}", ran.stderr);
        let expected = json!({
            "status": { "200": 40 }, "reissues": 1, "replays": ran.json()["replays"],
            "adopted": 0, "errors": 0, "hung": 0, "ended": 0,
        });
        assert_eq!(ran.counts(), expected, "{style:?}");
        let stats = world.backend.stats();
        assert_eq!((stats.reissues, stats.reissue_failures), (1, 0));
        assert_eq!(stats.requests[&200], 40);
        let rejected = stats.requests.get(&401).copied().unwrap_or_default();
        assert_eq!(ran.json()["replays"], rejected);
        // Both are new, and in the file.
        let after = world.stored_tokens();
        assert!(
            after
                .iter()
                .zip(&before)
                .all(|(new, old)| new.is_some() && new != old)
        );
    }
}

#[tokio::test]
async fn client_credentials_need_no_tokens_and_no_file() {
    let world = World::rotating().await;
    let arguments = Style::ClientCredentials.arguments(&world.backend);
    let me = world.url(ME);
    let arguments = arguments.iter().map(String::as_str);
    let ran = world
        .run(arguments.chain(["--json", "--parallel", "20", "--repeat", "2", &me]))
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.json()["status"], json!({ "200": 40 }));
    let stats = world.backend.stats();
    assert_eq!((stats.reissues, stats.requests[&200]), (1, 40));
    assert_eq!(stats.requests.get(&401), None);
}

#[tokio::test]
async fn client_credentials_keep_their_token_in_a_file_if_there_is_one() {
    let world = World::rotating().await;
    let me = world.url(ME);
    for reissues in [1, 1] {
        let ran = world.fetch(Style::ClientCredentials, &[&me]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(world.backend.stats().reissues, reissues);
    }
    world.backend.expire_access_tokens();
    let ran = world
        .fetch(
            Style::ClientCredentials,
            &["--json", "--parallel", "9", &me],
        )
        .await;
    assert_eq!((ran.code, &ran.json()["reissues"]), (Some(0), &json!(1)));
}

// shows P1, K: the file is the session's record, and a plain one is taken over at the first use.
#[tokio::test]
async fn programs_that_name_one_file_share_its_login() {
    for style in Style::LOGGED_IN {
        let world = World::expired().await;
        world.backend.set_reissue_delay(Duration::from_millis(300));
        let me = world.url(ME);
        let arguments = ["--json", "--parallel", "5", &me];
        let all = join_all((0..3).map(|_| world.fetch(style, &arguments))).await;
        let sum = |member: &str| {
            all.iter()
                .map(|ran| ran.json()[member].as_u64().unwrap())
                .sum::<u64>()
        };
        for ran in &all {
            assert_eq!(ran.code, Some(0), "{style:?}: {}", ran.stderr);
        }
        assert_eq!((sum("reissues"), sum("hung"), sum("ended")), (1, 0, 0));
        let stats = world.backend.stats();
        assert_eq!((stats.reissues, stats.reuse_detected), (1, 0));
        assert_eq!(stats.requests[&200], 15);
        assert!(is_free(&world.stored()));
    }
}

/// Nobody is presenting the refresh token, and there is no doubt about it.
fn is_free(record: &Value) -> bool {
    record["turn"].is_null() && record["in_doubt"].is_null()
}

// shows B56, P6, P7
#[tokio::test]
async fn a_refusal_ends_the_session_for_this_run_and_the_next() {
    for style in Style::LOGGED_IN {
        let world = World::expired().await;
        world.backend.set_reissue_mode(ReissueMode::Fail);
        let me = world.url(ME);
        let ran = world
            .fetch(style, &["--json", "--parallel", "9", "--repeat", "3", &me])
            .await;
        assert_eq!(ran.code, Some(1));
        let expected = json!({
            "status": { "401": 27 }, "reissues": 1, "replays": 0, "adopted": 0, "errors": 0,
            "hung": 0, "ended": 1,
        });
        assert_eq!(ran.counts(), expected, "{style:?}");
        ran.says("log in again, and replace what is in");
        ran.says("session.json");
        assert_eq!(world.stored_tokens(), [None, None]);
        // It is remembered, and nothing is sent any more.
        let before = world.backend.stats();
        let next = world.fetch(style, &["--json", &me]).await;
        assert_eq!((next.code, &next.json()["ended"]), (Some(1), &json!(1)));
        next.says("log in again");
        assert_eq!(world.backend.stats(), before);
        // A new login helps.
        world.backend.set_reissue_mode(ReissueMode::Ok);
        world.log_in().await;
        let again = world.fetch(style, &["--json", &me]).await;
        assert_eq!((again.code, &again.json()["ended"]), (Some(0), &json!(0)));
    }
}

// shows P6
#[tokio::test]
async fn an_api_that_declares_the_session_over_ends_it() {
    let world = World::rotating().await;
    world.log_in().await;
    world.backend.expire_access_tokens();
    let arguments = ["--ended-code", "T-002", &world.url(ME)];
    let ran = world.fetch(Style::OAuth2, &arguments).await;
    assert_eq!(ran.code, Some(1));
    ran.says("log in again");
    assert_eq!(world.backend.stats().reissues, 0);
}

#[tokio::test]
async fn a_refusal_that_was_not_named_ends_nothing_and_says_how_to_name_it() {
    let world = World::expired().await;
    world.backend.set_reissue_mode(ReissueMode::Fail);
    let before = world.stored_tokens();
    let file = world.file();
    for (style, path) in [
        ("member", "/member/token/refresh"),
        ("cookie", "/v1/api/auth/reissue"),
    ] {
        let (reissue, me) = (world.url(path), world.url(ME));
        let ran = world
            .run([
                "--json",
                "--style",
                style,
                "--tokens",
                file.to_str().unwrap(),
                "--reissue",
                &reissue,
                &me,
            ])
            .await;
        assert_eq!((ran.code, &ran.json()["ended"]), (Some(1), &json!(0)));
        ran.says("--ended-code");
        assert_eq!(world.stored_tokens(), before);
    }
    let me = world.url(ME);
    let ran = world
        .fetch(Style::ClientCredentials, &["--json", &me])
        .await;
    assert_eq!((ran.code, &ran.json()["ended"]), (Some(1), &json!(0)));
}

// shows B55, P6
#[tokio::test]
async fn an_issuer_in_trouble_costs_no_tokens() {
    for style in Style::LOGGED_IN {
        let world = World::expired().await;
        world.backend.set_reissue_mode(ReissueMode::Error);
        let (before, me) = (world.stored_tokens(), world.url(ME));
        let ran = world
            .fetch(style, &["--json", "--parallel", "5", &me])
            .await;
        assert_eq!(ran.code, Some(1));
        let counts = ran.counts();
        assert_eq!(counts["status"], json!({ "401": 5 }), "{style:?}");
        assert_eq!(
            (&counts["reissues"], &counts["ended"]),
            (&json!(1), &json!(0))
        );
        ran.says("500");
        assert_eq!(world.stored_tokens(), before);
    }
}

// shows B55
#[tokio::test]
async fn an_issuer_that_is_not_there_is_worth_another_try() {
    let world = World::expired().await;
    let (before, me) = (world.stored_tokens(), world.url(ME));
    let nobody = unused_address().await;
    let file = world.file();
    let run = async |reissue: &str| {
        let arguments = ["--style", "oauth2", "--tokens", file.to_str().unwrap()];
        world
            .run(arguments.into_iter().chain(["--reissue", reissue, &me]))
            .await
    };
    let ran = run(&format!("{nobody}/oauth/token")).await;
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr.matches("later").count(), 1, "{}", ran.stderr);
    assert_eq!(world.stored_tokens(), before);
    assert_eq!(run(&world.url("/oauth/token")).await.code, Some(0));
}

/// Where nobody listens.
async fn unused_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

// shows P13
#[tokio::test]
async fn each_run_goes_on_with_the_tokens_of_the_one_before() {
    for style in Style::LOGGED_IN {
        let world = World::expired().await;
        let me = world.url(ME);
        let mut refresh_tokens = vec![world.stored_tokens()[1].clone()];
        for _ in 0..3 {
            let ran = world
                .fetch(style, &["--parallel", "4", "--repeat", "3", &me])
                .await;
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            ran.says("12");
            refresh_tokens.push(world.stored_tokens()[1].clone());
            world.backend.expire_access_tokens();
        }
        refresh_tokens.sort();
        refresh_tokens.dedup();
        assert_eq!(refresh_tokens.len(), 4);
        let stats = world.backend.stats();
        assert_eq!((stats.reissues, stats.reuse_detected), (3, 0));
    }
}

#[tokio::test]
async fn tokens_that_expire_between_rounds_are_replaced_and_the_newest_is_in_the_file() {
    let world = World::new(Config {
        access_ttl: Duration::from_secs(1),
        rotate: true,
        ..Config::default()
    })
    .await;
    world.log_in().await;
    let me = world.url(ME);
    let rounds = [
        "--json",
        "--parallel",
        "5",
        "--repeat",
        "3",
        "--every",
        "1100",
        &me,
    ];
    let ran = world.fetch(Style::Member, &rounds).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let stats = world.backend.stats();
    assert!(stats.reissues >= 2);
    assert_eq!(ran.json()["reissues"], stats.reissues);
    // A rotating back end would end the session if it were not the newest.
    world.backend.expire_access_tokens();
    let ran = world.fetch(Style::Cookie, &[&me]).await;
    assert_eq!(
        (ran.code, world.backend.stats().reuse_detected),
        (Some(0), 0)
    );
}

#[tokio::test]
async fn a_single_answer_goes_to_standard_output_as_it_is() {
    let world = World::expired().await;
    let me = world.fetch(Style::Member, &[&world.url(ME)]).await;
    let user = world.backend.user();
    let expected = json!({ "id": user.id, "email": user.email });
    assert_eq!(me.stdout, expected.to_string());
    assert_eq!((me.code, &*me.stderr), (Some(0), ""));
    let echo = [&*world.url("/echo"), "--data", "two\nlines"];
    let echo = world.fetch(Style::Member, &echo).await;
    assert_eq!((echo.code, &*echo.stdout), (Some(0), "two\nlines"));
    let nothing = world.fetch(Style::Member, &[&world.url("/nowhere")]).await;
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stdout.contains("B-003"));
    nothing.says("404");
}

// shows P11
#[tokio::test]
async fn the_token_goes_to_every_server_that_was_named() {
    let world = World::expired().await;
    let other = OddServer::start(String::new()).await;
    let seen = format!("{}/seen", other.base);
    let ran = world.fetch(Style::Member, &[&world.url(ME), &seen]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let sent = other.authorizations();
    let is_ours = |value: &String| {
        let token = value.strip_prefix("Bearer ");
        token.is_some_and(|token| world.has_held(token))
    };
    assert!(!sent.is_empty() && sent.iter().all(is_ours));
}

// shows P2, P5: it was two reissues in each round, up to the limit of five.
#[tokio::test]
async fn a_url_that_rejects_every_token_costs_few_reissues_and_no_request_to_another() {
    let world = World::rotating().await;
    world.log_in().await;
    let odd = OddServer::start(String::new()).await;
    let (me, bad) = (world.url(ME), format!("{}/unauthorized", odd.base));
    let ran = world
        .fetch(Style::Member, &["--json", "--repeat", "20", &me, &bad])
        .await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let json = ran.json();
    assert_eq!(json["status"], json!({ "200": 20, "401": 20 }));
    // Half of what the window allows, however long it takes.
    let reissues = json["reissues"].as_u64().unwrap();
    assert!((1..=3).contains(&reissues), "{json}");
    assert_eq!((&json["hung"], &json["ended"]), (&json!(0), &json!(0)));
    ran.says("a new token did not help at this address");
    assert_eq!(world.backend.stats().reissues, reissues);
}

#[tokio::test]
async fn an_issuer_that_answers_oddly_is_explained_and_costs_no_tokens() {
    let world = World::expired().await;
    let odd = OddServer::start(world.url("/member/token/refresh")).await;
    let (me, file) = (world.url(ME), world.file());
    let text = fs::read(&file).unwrap();
    let cases = [
        (world.url("/nowhere"), "404", true),
        (world.url("/stats"), "405", true),
        (format!("{}/redirect", odd.base), "redirect", true),
        (format!("{}/html", odd.base), "JSON", false),
        (format!("{}/bomb", odd.base), "compressed", false),
        (format!("{}/large", odd.base), "1 MiB", false),
    ];
    for style in ["member", "cookie", "oauth2"] {
        for (reissue, words, is_certain) in &cases {
            fs::write(&file, &text).unwrap();
            let tokens = world.stored_tokens();
            let arguments = ["--style", style, "--tokens", file.to_str().unwrap()];
            let ran = world
                .run(arguments.into_iter().chain(["--reissue", reissue, &me]))
                .await;
            assert_eq!(ran.code, Some(1), "{style} {reissue}");
            ran.says(words);
            assert_eq!(world.stored_tokens(), tokens);
            match is_certain {
                true => assert!(is_free(&world.stored()), "{reissue}"),
                // It may have been processed: that is noted, and told.
                false => {
                    assert_eq!(world.stored()["in_doubt"]["tries"], 1, "{reissue}");
                    ran.says("not presented again for another");
                }
            }
        }
    }
    assert_eq!(
        world.backend.stats().reissues,
        0,
        "no redirect was followed"
    );
}

#[tokio::test]
async fn a_tokens_file_that_cannot_be_used_is_explained_and_left_alone() {
    let world = World::rotating().await;
    world.log_in().await;
    let (me, good) = (world.url(ME), world.stored());
    let without = |name: &str| {
        let mut all = good.clone();
        all.as_object_mut().unwrap().remove(name);
        all.to_string()
    };
    for (text, words) in [
        (String::new(), "empty"),
        ("access_token=a".to_owned(), "JSON"),
        ("[]".to_owned(), "object"),
        (without("accessToken"), "access"),
        (without("refreshToken"), "refresh"),
        (
            r#"{"access_token":1,"refresh_token":"CANARY"}"#.to_owned(),
            "no text",
        ),
        (
            r#"{"access_token":"CANARY 1","refresh_token":"CANARY"}"#.to_owned(),
            "space",
        ),
    ] {
        fs::write(world.file(), &text).unwrap();
        let ran = world.fetch(Style::Member, &["--json", &me]).await;
        assert_eq!(ran.code, Some(1), "{words}");
        assert_eq!(ran.counts(), nothing_done(), "{words}");
        ran.says("session.json");
        ran.says(words);
        assert_eq!(fs::read_to_string(world.file()).unwrap(), text);
    }
    let stats = world.backend.stats();
    assert_eq!((stats.requests.len(), stats.reissues), (0, 0));
}

/// The line of a run that could not start.
fn nothing_done() -> Value {
    json!({
        "status": {}, "reissues": 0, "replays": 0, "adopted": 0, "errors": 0, "hung": 0,
        "ended": 0,
    })
}

#[tokio::test]
async fn a_tokens_file_that_is_no_file_or_not_there_is_explained() {
    let world = World::rotating().await;
    world.log_in().await;
    let reissue = world.url("/member/token/refresh");
    let me = world.url(ME);
    fs::create_dir(world.path("folder")).unwrap();
    for (name, words) in [
        ("missing.json", "does not exist"),
        ("missing/session.json", "folder is missing"),
        ("folder", "folder"),
        ("session.json/session.json", "session.json"),
    ] {
        let path = world.path(name);
        let arguments = [
            "--tokens",
            path.to_str().unwrap(),
            "--reissue",
            &reissue,
            "--json",
            &me,
        ];
        let ran = world.run(arguments).await;
        assert_eq!(ran.code, Some(1), "{name}");
        assert_eq!(ran.counts(), nothing_done(), "{name}");
        ran.says(words);
        ran.says(name);
    }
    assert!(!world.path("missing.json").exists());
    assert!(world.backend.stats().requests.is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn a_tokens_file_that_cannot_be_replaced_is_refused_before_anything_is_sent() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;

    let world = World::expired().await;
    let me = world.url(ME);
    let text = fs::read(world.file()).unwrap();
    fs::set_permissions(world.file(), fs::Permissions::from_mode(0o400)).unwrap();
    let ran = world.fetch(Style::Member, &[&me]).await;
    assert_eq!(ran.code, Some(1));
    ran.says("write-protected");
    assert_eq!(fs::read(world.file()).unwrap(), text);
    fs::set_permissions(world.file(), fs::Permissions::from_mode(0o600)).unwrap();
    let (link, reissue) = (world.path("link.json"), world.url("/member/token/refresh"));
    symlink(world.file(), &link).unwrap();
    let arguments = [
        "--tokens",
        link.to_str().unwrap(),
        "--reissue",
        &reissue,
        &me,
    ];
    let ran = world.run(arguments).await;
    assert_eq!(ran.code, Some(1));
    ran.says("link");
    assert_eq!(fs::read(world.file()).unwrap(), text);
    let stats = world.backend.stats();
    assert_eq!((stats.requests.len(), stats.reissues), (0, 0));
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    let world = World::rotating().await;
    world.log_in().await;
    let text = fs::read(world.file()).unwrap();
    let (me, file) = (world.url(ME), world.file());
    let file = file.to_str().unwrap();
    let good = ["--tokens", file, "--reissue", "http://localhost:1/x"];
    let cases: [(&[&str], &str); 20] = [
        (&["/items/1"], "no URL with a host"),
        (&["items"], "no URL with a host"),
        (&["localhost:3000/items"], "https://"),
        (&["ftp://localhost/items"], "https://"),
        (&["http://user:CANARY@localhost/"], "user name"),
        (&["http://api.example.com/items"], "everybody on the way"),
        (&["http://:80/"], "URL"),
        (&[], "<URL>"),
        (&[&me, "--store", "redis://localhost"], "--store"),
        (&[&me, "--store", "postgres://localhost"], "--store"),
        (&[&me, "--session", "a"], "--session"),
        (&[&me, "--style", "odd"], "--style"),
        (&[&me, "--parallel", "0"], "--parallel"),
        (&[&me, "--every", "soon"], "--every"),
        (&[&me, "--deadline", "0s"], "--deadline"),
        (&[&me, "--client-id", "demo"], "--client-id"),
        (&[&me, "--client-secret", "x"], "--client-id"),
        (&[&me, "--style", "client-credentials"], "CLIENT_SECRET"),
        (&[&me, "--expired-code", "A", "--ended-code", "A"], "\"A\""),
        (&[&me, "--odd"], "--odd"),
    ];
    for (arguments, words) in cases {
        let ran = world.run(good.iter().chain(arguments)).await;
        assert_eq!((ran.code, &*ran.stdout), (Some(2), ""), "{arguments:?}");
        ran.says(words);
        assert!(!ran.stderr.contains("CANARY"));
    }
    for (reissue, words) in [
        ("/member/token/refresh", "no URL with a host"),
        ("http://api.example.com/token", "everybody on the way"),
    ] {
        let ran = world
            .run(["--tokens", file, "--reissue", reissue, &me])
            .await;
        assert_eq!(ran.code, Some(2), "{reissue}");
        ran.says(words);
        ran.says("--reissue");
    }
    let ran = world.run(["--reissue", "http://localhost:1/x", &me]).await;
    assert_eq!(ran.code, Some(2));
    ran.says("--tokens");
    assert_eq!(fs::read(file).unwrap(), text);
    assert!(world.backend.stats().requests.is_empty());
}

#[tokio::test]
async fn what_has_no_answer_is_an_error_and_what_does_not_settle_is_hung() {
    let world = World::rotating().await;
    world.log_in().await;
    let nobody = unused_address().await;
    // It takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let (me, text) = (world.url(ME), world.stored());
    let arguments = ["--json", "--parallel", "3", "--deadline", "2s"];
    let arguments = [&arguments[..], &[&me, &nobody, &silent]].concat();
    let ran = world.fetch(Style::Member, &arguments).await;
    assert_eq!(ran.code, Some(1));
    let expected = json!({
        "status": { "200": 3 }, "reissues": 0, "replays": 0, "adopted": 0, "errors": 3,
        "hung": 3, "ended": 0,
    });
    assert_eq!(ran.counts(), expected);
    ran.says(&format!("{nobody}/: no answer"));
    ran.says(&format!(
        "{silent}/: there was no answer before the deadline"
    ));
    ran.says("--deadline");
    assert_eq!(world.stored(), text);
    let ran = world
        .fetch(Style::Member, &["--deadline", "100ms", &silent])
        .await;
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""));
    ran.says("--deadline");
}

#[tokio::test]
async fn a_refresh_token_in_doubt_is_left_alone_by_the_next_run_which_says_so() {
    let world = World::expired().await;
    let odd = OddServer::start(String::new()).await;
    let (me, file) = (world.url(ME), world.file());
    let html = format!("{}/html", odd.base);
    let arguments = ["--style", "oauth2", "--tokens", file.to_str().unwrap()];
    let ran = world
        .run(arguments.into_iter().chain(["--reissue", &html, &me]))
        .await;
    assert_eq!(ran.code, Some(1));
    ran.says("not presented again for another");
    // The sixth time in a row it is five minutes.
    let mut record = world.stored();
    record["in_doubt"]["tries"] = json!(6);
    fs::write(&file, record.to_string()).unwrap();
    let ran = world.fetch(Style::OAuth2, &["--json", &me]).await;
    assert_eq!((ran.code, &ran.json()["reissues"]), (Some(1), &json!(0)));
    assert_eq!(ran.json()["status"], json!({ "401": 1 }));
    let (_, left) = ran
        .stderr
        .split_once("not presented again for another ")
        .unwrap();
    let left = left.split(' ').next().unwrap().parse::<u32>().unwrap();
    assert!((100..=300).contains(&left), "{left}");
    assert!(!ran.stderr.contains("later"), "{}", ran.stderr);
    // And when that is over, it is.
    record["in_doubt"]["since"] = json!("2001-09-09T01:46:40Z");
    fs::write(&file, record.to_string()).unwrap();
    let ran = world.fetch(Style::OAuth2, &[&me]).await;
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
}

#[tokio::test]
async fn what_is_wrong_with_the_issuer_is_said_in_words_of_the_command_line() {
    let world = World::expired().await;
    let odd = OddServer::start(String::new()).await;
    let (me, file) = (world.url(ME), world.file());
    let (token, nowhere) = (world.url("/oauth/token"), world.url("/nowhere"));
    let mac = format!("{}/mac", odd.base);
    let client = |style, reissue| {
        let by_hand = ["--client-id", "demo", "--client-secret", "wrong"];
        [&["--style", style, "--reissue", reissue][..], &by_hand].concat()
    };
    for (arguments, words) in [
        (
            client("oauth2", &token),
            "check --client-id and --client-secret",
        ),
        (
            client("client-credentials", &token),
            "check --client-id and --client-secret",
        ),
        (client("oauth2", &nowhere), "check --reissue and --style"),
        (
            client("client-credentials", &nowhere),
            "check --reissue and --style",
        ),
        (client("oauth2", &mac), "check --reissue and --style"),
    ] {
        let tokens = ["--tokens", file.to_str().unwrap(), &me];
        let ran = world.run(arguments.iter().chain(&tokens)).await;
        assert_eq!(ran.code, Some(1), "{arguments:?}");
        ran.says(words);
    }
    world.backend.set_reissue_mode(ReissueMode::Dead);
    let ran = world.fetch(Style::OAuth2, &[&me]).await;
    assert_eq!(ran.code, Some(1));
    ran.says("the new access token is rejected as well");
}

#[tokio::test]
async fn however_long_the_rounds_would_take_the_program_starts() {
    let world = World::rotating().await;
    world.log_in().await;
    let (file, reissue) = (world.file(), world.url("/oauth/token"));
    let arguments = ["--tokens", file.to_str().unwrap(), "--reissue", &reissue];
    let rounds = ["--every", "300000000000y", "--repeat", "3"];
    let me = world.url(ME);
    let _child = world.start(arguments.into_iter().chain(rounds).chain([&*me]));
    eventually(|| world.backend.stats().requests.get(&200) == Some(&1)).await;
}

#[cfg(unix)]
fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = child.id().expect("it runs");
    let id = rustix::process::Pid::from_raw(id as i32).expect("an id");
    rustix::process::kill_process(id, signal).expect("signalled");
}

#[cfg(unix)]
const SIGNALS: [(rustix::process::Signal, i32); 3] = [
    (rustix::process::Signal::INT, 130),
    (rustix::process::Signal::TERM, 143),
    (rustix::process::Signal::HUP, 129),
];

/// Whoever runs the tests may have a hangup ignored, and then the program has it ignored too.
#[cfg(unix)]
fn is_heard((signal, _): &(rustix::process::Signal, i32)) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let hangup = rustix::process::Signal::HUP;
    *signal != hangup || ignored.is_none_or(|mask| mask >> (hangup.as_raw() - 1) & 1 == 0)
}

#[cfg(unix)]
#[tokio::test]
async fn a_signal_waits_for_the_refresh_and_its_save() {
    for (number, code) in SIGNALS.into_iter().filter(is_heard) {
        let world = World::expired().await;
        world.backend.set_reissue_delay(Duration::from_secs(2));
        let before = world.stored_tokens();
        let child = world.start(refreshing(&world));
        eventually(|| world.backend.stats().reissues == 1).await;
        signal(&child, number);
        let ran = world.wait(child).await;
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        ran.says("finishing the refresh of the tokens; again to quit at once");
        let after = world.stored_tokens();
        assert!(
            after
                .iter()
                .zip(&before)
                .all(|(new, old)| new.is_some() && new != old)
        );
        assert_eq!(world.backend.stats().requests.get(&200), None);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_quits_at_once_and_says_what_may_be_lost() {
    for (number, code) in SIGNALS.into_iter().filter(is_heard) {
        let world = World::expired().await;
        world.backend.set_reissue_delay(Duration::from_secs(9));
        let before = world.stored_tokens();
        let mut child = world.start(refreshing(&world));
        eventually(|| world.backend.stats().reissues == 1).await;
        signal(&child, number);
        said_before(&mut child, "again to quit at once").await;
        signal(&child, number);
        let ran = world.wait(child).await;
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        ran.says("they may be lost");
        assert_eq!(world.stored_tokens(), before);
        // So that nobody presents it too soon.
        assert_eq!(world.stored()["turn"]["state"], "sent");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_signal_that_is_to_be_ignored_is() {
    let world = World::expired().await;
    world.backend.set_reissue_delay(Duration::from_secs(2));
    let child = world.start_after("trap '' HUP", refreshing(&world));
    eventually(|| world.backend.stats().reissues == 1).await;
    signal(&child, rustix::process::Signal::HUP);
    let ran = world.wait(child).await;
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_reader_that_has_stopped_does_not_hold_up_a_signal() {
    let world = World::rotating().await;
    world.log_in().await;
    let (echo, data) = (world.url("/echo"), "a".repeat(100_000));
    let (file, reissue) = (world.file(), world.url("/oauth/token"));
    let arguments = ["--tokens", file.to_str().unwrap(), "--reissue", &reissue];
    let mut child = world.start(arguments.into_iter().chain(["--data", &data, &echo]));
    let output = child.stdout.take().expect("it is there");
    // The pipe is full.
    eventually(|| rustix::io::ioctl_fionread(&output).is_ok_and(|n| n > 60_000)).await;
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(world.wait(child).await.code, Some(143));
    drop(output);
}

/// A command line whose request costs a refresh.
#[cfg(unix)]
fn refreshing(world: &World) -> Vec<String> {
    let (file, reissue) = (world.file(), world.url("/member/token/refresh"));
    let file = file.to_str().expect("a readable path");
    let (me, code) = (world.url(ME), "T-002");
    let arguments = ["--tokens", file, "--reissue", &reissue, "--expired-code"];
    let arguments = arguments.into_iter().chain([code, &me]);
    arguments.map(str::to_owned).collect()
}

/// Reads what it says, up to and including the line with this.
#[cfg(unix)]
async fn said_before(child: &mut Child, what: &str) -> String {
    let mut said = String::new();
    let stderr = child.stderr.as_mut().expect("it is read");
    while !said.lines().any(|line| line.contains(what)) || !said.ends_with('\n') {
        let byte = stderr.read_u8().await;
        said.push(char::from(
            byte.unwrap_or_else(|_| panic!("{what:?} in {said:?}")),
        ));
    }
    said
}

#[cfg(unix)]
#[tokio::test]
async fn an_interruption_tells_how_many_requests_there_were() {
    let world = World::rotating().await;
    world.log_in().await;
    let (file, reissue) = (world.file(), world.url("/oauth/token"));
    let arguments = ["--tokens", file.to_str().unwrap(), "--reissue", &reissue];
    let rounds = ["--json", "--parallel", "10", "--repeat", "10", "--every"];
    let me = world.url(ME);
    let child = world.start(arguments.into_iter().chain(rounds).chain(["1h", &me]));
    eventually(|| world.backend.stats().requests.get(&200) == Some(&10)).await;
    signal(&child, rustix::process::Signal::TERM);
    let ran = world.wait(child).await;
    assert_eq!(ran.code, Some(143));
    ran.says("interrupted: 10 of 100 requests");
}

#[cfg(unix)]
#[tokio::test]
async fn requests_that_an_interruption_drops_are_told() {
    let world = World::rotating().await;
    world.log_in().await;
    let (file, reissue) = (world.file(), world.url("/oauth/token"));
    let arguments = ["--tokens", file.to_str().unwrap(), "--reissue", &reissue];
    for (rounds, words) in [
        (["--parallel", "3"], "interrupted: 3 of 3 requests"),
        (["--parallel", "1"], "interrupted before the whole answer"),
    ] {
        // It takes connections, and says nothing.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("http://{}", listener.local_addr().unwrap());
        let child = world.start(arguments.into_iter().chain(rounds).chain([&*silent]));
        let connection = listener.accept().await.unwrap();
        signal(&child, rustix::process::Signal::INT);
        let ran = world.wait(child).await;
        assert_eq!(ran.code, Some(130));
        ran.says(words);
        drop(connection);
    }
}

#[tokio::test]
async fn a_refresh_that_outlives_the_deadline_is_waited_for_aloud() {
    let world = World::expired().await;
    world.backend.set_reissue_delay(Duration::from_secs(4));
    let before = world.stored_tokens();
    let ran = world
        .fetch(Style::Member, &["--deadline", "500ms", &world.url(ME)])
        .await;
    assert_eq!(ran.code, Some(1));
    ran.says("finishing the refresh of the tokens\n");
    ran.says("--deadline");
    assert_ne!(world.stored_tokens(), before);
}

#[tokio::test]
async fn a_store_that_says_what_helps_is_not_to_be_tried_later() {
    let world = World::expired().await;
    fs::create_dir(world.path("session.json.lock")).unwrap();
    let ran = world.fetch(Style::Member, &[&world.url(ME)]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    ran.says("move the folder away");
    ran.says("; the tokens are kept\n");
    assert_eq!(world.backend.stats().reissues, 0);
}

// It has sent nothing, and can lose nothing.
#[cfg(unix)]
#[tokio::test]
async fn a_refresh_that_another_process_stands_still_with_is_not_waited_for() {
    let world = World::expired().await;
    world.backend.set_reissue_delay(Duration::from_secs(9));
    let other = world.start(refreshing(&world));
    eventually(|| world.backend.stats().reissues == 1).await;
    signal(&other, rustix::process::Signal::STOP);
    let ran = world
        .run(
            refreshing(&world)
                .into_iter()
                .chain(["--deadline".to_owned(), "500ms".to_owned()]),
        )
        .await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    ran.says("another process is refreshing the tokens, and does not end: it holds ");
    ran.says("session.json.lock; if it is stopped");
    for what in ["finishing", "lost:", "may be lost"] {
        assert!(!ran.stderr.contains(what), "{what}: {}", ran.stderr);
    }
    assert_eq!(world.backend.stats().reissues, 1);
    // It goes on all the same.
    signal(&other, rustix::process::Signal::CONT);
    assert_eq!(world.wait(other).await.code, Some(0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn output_that_cannot_be_written_is_a_failure() {
    let world = World::expired().await;
    for json in [&["--json"][..], &[]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let json = json.iter().map(|&text| text.to_owned());
        let child = world.start_into(full, refreshing(&world).into_iter().chain(json));
        let ran = world.wait(child).await;
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        ran.says("can't write to standard output: No space left");
    }
}

#[tokio::test]
async fn tokens_that_cannot_be_saved_are_told() {
    let world = World::expired().await;
    world.backend.set_reissue_delay(Duration::from_secs(2));
    let (file, me) = (world.file(), world.url(ME));
    let reissue = world.url("/oauth/token");
    let arguments = ["--tokens", file.to_str().unwrap(), "--style", "oauth2"];
    let child = world.start(arguments.into_iter().chain(["--reissue", &reissue, &me]));
    eventually(|| world.backend.stats().reissues == 1).await;
    fs::rename(&file, world.path("old.json")).unwrap();
    fs::create_dir(&file).unwrap();
    let ran = world.wait(child).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.says("could not be saved");
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_nothing() {
    let world = World::expired().await;
    let (file, echo) = (world.file(), world.url("/echo"));
    let (reissue, data) = (world.url("/oauth/token"), "a".repeat(100_000));
    let arguments = ["--tokens", file.to_str().unwrap(), "--style", "oauth2"];
    let more = ["--reissue", &reissue, "--data", &data, &echo];
    let mut child = world.start(arguments.into_iter().chain(more));
    drop(child.stdout.take());
    let ran = world.wait(child).await;
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
    let mut child = world.start(arguments.into_iter().chain(more).chain(["--json"]));
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(world.wait(child).await.code, Some(0));
}

// shows P12
#[tokio::test]
async fn what_is_told_about_the_session_holds_no_token() {
    let world = World::expired().await;
    for style in Style::LOGGED_IN {
        world.backend.expire_access_tokens();
        let ran = world.fetch(style, &["-vv", &world.url(ME)]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.says("token_refresh");
        assert!(!ran.stderr.contains("demo-secret"));
    }
}
