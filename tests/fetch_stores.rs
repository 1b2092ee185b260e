//! Proves the part of `fetch`'s contract that is about stores in databases: the program itself, against real
//! servers. Each run is searched for tokens in what it prints.

#![cfg(unix)]

#[path = "../examples/backend/server/mod.rs"]
mod backend;
#[path = "support/program.rs"]
mod program;
#[path = "../examples/servers/mod.rs"]
mod servers;
#[path = "support/style.rs"]
mod style;

use std::fs;
use std::time::Duration;

use backend::ReissueMode;
use futures::future::join_all;
use program::Ran;
use program::World;
use redis::AsyncTypedCommands;
use serde_json::Value;
use serde_json::json;
use servers::Postgres;
use servers::Redis;
use servers::RedisOptions;
use style::Style;
use tokio::net::TcpListener;

const PROGRAM: &str = "fetch";

const ME: &str = "/member/me";

/// The servers that these tests share, as `--store` names them.
fn stores() -> [String; 2] {
    let postgres = servers::postgres_url().expect("PostgreSQL");
    let redis = servers::redis_url().expect("Redis");
    [format!("postgres:{postgres}"), format!("redis:{redis}")]
}

/// A session that nobody else has.
fn name(of: &str) -> String {
    format!("{of} {} {}", std::process::id(), fastrand::u64(..))
}

struct Site {
    world: World,
    store: String,
    session: String,
}

impl Site {
    /// Logged in, with a token that the server takes for expired, and which is in the file only.
    async fn expired(store: &str, test: &str) -> Self {
        Self {
            world: World::expired().await,
            store: store.to_owned(),
            session: name(test),
        }
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<String> {
        let issuer = Style::Member.arguments(&self.world.backend);
        let ours = ["--store", &self.store, "--session", &self.session, "--json"];
        let me = self.world.url(ME);
        let all = ours.iter().chain(more).copied().chain([me.as_str()]);
        issuer.into_iter().chain(all.map(str::to_owned)).collect()
    }

    /// The program, with the store and without the file.
    async fn fetch(&self, more: &[&str]) -> Ran {
        self.world.run(self.arguments(more)).await
    }

    async fn fetch_with_file(&self, more: &[&str]) -> Ran {
        let file = self.world.file();
        let file = ["--tokens", file.to_str().expect("a readable path")];
        self.fetch(&[&file[..], more].concat()).await
    }

    fn text(&self) -> String {
        fs::read_to_string(self.world.file()).expect("a file")
    }

    /// Reissues, and those that presented a refresh token a second time.
    fn reissues(&self) -> (u64, u64) {
        let stats = self.world.backend.stats();
        (stats.reissues, stats.reuse_detected)
    }
}

// shows P1, P13
#[tokio::test]
async fn a_file_begins_a_session_in_a_store_and_is_never_written() {
    for store in stores() {
        let site = Site::expired(&store, "begins").await;
        let before = site.text();
        let ran = site.fetch_with_file(&["--parallel", "9"]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(ran.json()["status"], json!({ "200": 9 }));
        ran.says("begins with the tokens in");
        assert_eq!((site.reissues(), site.text()), ((1, 0), before.clone()));
        // The file holds a spent refresh token by now, and the store knows better, with it and without it.
        for more in [true, false] {
            site.world.backend.expire_access_tokens();
            let ran = match more {
                true => site.fetch_with_file(&[]).await,
                false => site.fetch(&[]).await,
            };
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            assert!(!ran.stderr.contains("begins with"), "{}", ran.stderr);
        }
        assert_eq!((site.reissues(), site.text()), ((3, 0), before));
        // The user is known there too: an issuer with the style `member` wants to know who it is.
        assert_eq!(site.world.backend.stats().reissue_failures, 0);
    }
}

// shows P1
#[tokio::test]
async fn programs_that_name_one_session_share_its_login() {
    for store in stores() {
        let site = Site::expired(&store, "shares").await;
        site.world
            .backend
            .set_reissue_delay(Duration::from_millis(300));
        // All of them bring the first tokens, and one of them comes first.
        let all = (0..3).map(|_| site.fetch_with_file(&["--parallel", "5"]));
        let all = join_all(all).await;
        let sum = |member: &str| -> u64 {
            let counts = all.iter().map(|ran| ran.json()[member].as_u64());
            counts.map(|it| it.expect("a number")).sum()
        };
        for ran in &all {
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        }
        assert_eq!((sum("reissues"), sum("hung"), sum("ended")), (1, 0, 0));
        let beginners = all.iter().filter(|ran| ran.stderr.contains("begins with"));
        assert_eq!(beginners.count(), 1);
        assert_eq!(site.reissues(), (1, 0));
        // Another session in the same place is another login.
        let other = Site {
            world: World::rotating().await,
            store: store.clone(),
            session: name("other"),
        };
        let ran = other.fetch(&[]).await;
        assert_eq!(ran.code, Some(1));
        ran.says("holds no tokens yet");
        assert_eq!(other.reissues(), (0, 0));
    }
}

// shows P6, P7
#[tokio::test]
async fn a_session_that_has_ended_is_not_begun_anew_by_an_old_file() {
    for store in stores() {
        let site = Site::expired(&store, "ends").await;
        site.world.backend.set_reissue_mode(ReissueMode::Fail);
        let ran = site.fetch_with_file(&[]).await;
        assert_eq!((ran.code, &ran.json()["ended"]), (Some(1), &json!(1)));
        ran.says("--new-login");
        site.world.backend.set_reissue_mode(ReissueMode::Ok);
        let before = site.world.backend.stats();
        let next = site.fetch_with_file(&[]).await;
        assert_eq!((next.code, &next.json()["ended"]), (Some(1), &json!(1)));
        next.says("--new-login");
        assert_eq!(site.world.backend.stats(), before);
        // The user says that these are new ones.
        site.world.log_in().await;
        site.world.backend.expire_access_tokens();
        let again = site.fetch_with_file(&["--new-login"]).await;
        assert_eq!(again.code, Some(0), "{}", again.stderr);
        site.world.backend.expire_access_tokens();
        let after = site.fetch(&[]).await;
        assert_eq!((after.code, site.reissues().1), (Some(0), 0));
    }
}

/// Redis with the secret, and what is there: everything as one text.
async fn everything(url: &str) -> String {
    let client = redis::Client::open(url).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("Redis");
    let mut all = String::new();
    for key in connection.keys("*").await.expect("keys") {
        let fields = connection.hgetall(&key).await.expect("a record");
        all += &format!("{key}: {fields:?}\n");
    }
    all
}

// shows P12
#[tokio::test]
async fn with_a_secret_a_database_knows_neither_the_session_nor_the_tokens() {
    let server = Redis::start().expect("Redis");
    let site = Site::expired(&server.url(), "secret").await;
    let file = site.world.file();
    let file = file.to_str().expect("a readable path");
    let run = async |secret: &str, more: &[&str]| {
        let script = format!("export SESSION_SECRET='{secret}'");
        let child = site.world.start_after(&script, site.arguments(more));
        site.world.wait(child).await
    };
    let short = run("short", &["--tokens", file]).await;
    assert_eq!(short.code, Some(2), "{}", short.stderr);
    short.says("SESSION_SECRET");
    let secret = "a secret of more than sixteen bytes";
    let ran = run(secret, &["--tokens", file]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let there = everything(&server.url()).await;
    let token = site.world.stored_tokens()[1].clone().expect("a token");
    let head = token.split('.').next().expect("a part");
    for hidden in [head, &site.session, "demo@example.com"] {
        assert!(!there.contains(hidden), "{hidden} is in {there}");
    }
    site.world.backend.expire_access_tokens();
    let again = run(secret, &[]).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    // Whoever lacks it finds nothing.
    let other = run("", &[]).await;
    assert_eq!(other.code, Some(1));
    other.says("holds no tokens yet");
    // Without one they are there to be read.
    let open = Site::expired(&server.url(), "open").await;
    let ran = open.fetch_with_file(&[]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let there = everything(&server.url()).await;
    assert!(there.contains("demo@example.com"), "{there}");
}

/// It says so in words, sends nothing, and shows no password.
async fn fails_at_once(store: &str, words: &str) {
    let site = Site::expired(store, "fails").await;
    let before = site.world.backend.stats();
    let ran = site.fetch_with_file(&["--deadline", "10s"]).await;
    assert_eq!(ran.code, Some(1), "{store}: {}", ran.stderr);
    ran.says(words);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    assert_eq!(ran.json()["ended"], 0);
    assert_eq!(site.world.backend.stats(), before);
}

#[tokio::test]
async fn a_database_that_can_not_be_used_is_told_in_words() {
    let postgres = Postgres::start().expect("PostgreSQL");
    postgres.require_password("right").expect("set");
    let redis = Redis::start_with(RedisOptions {
        password: Some("right".to_owned()),
        ..RedisOptions::default()
    });
    let redis = redis.expect("Redis");
    let wrong = |url: String| url.replace(":right@", ":s3cret@");
    fails_at_once(&wrong(postgres.url()), "refuses the user or the password").await;
    fails_at_once(&wrong(redis.url()), "WRONGPASS").await;
    // Nobody is there.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let [first, second] = [
        format!("postgres:postgres://me:s3cret@{address}/it"),
        format!("redis:redis://:s3cret@{address}/"),
    ];
    fails_at_once(&first, &format!("PostgreSQL at {address}: ")).await;
    fails_at_once(&second, &format!("Redis at {address}: ")).await;
}

// shows P4
#[tokio::test]
async fn a_database_that_does_not_answer_is_given_up_at_the_deadline() {
    // The system takes connections, and nobody reads what they bring.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    for store in [
        format!("postgres://me@{address}/it"),
        format!("redis://{address}/"),
    ] {
        let site = Site::expired(&store, "silent").await;
        let ran = site.fetch_with_file(&["--deadline", "200ms"]).await;
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        ran.says("there was no answer before the deadline");
        assert_eq!(site.reissues(), (0, 0));
    }
}

#[tokio::test]
async fn what_can_not_be_a_store_is_refused_at_once_and_no_password_is_shown() {
    let world = World::expired().await;
    let issuer = Style::Member.arguments(&world.backend);
    let (file, me) = (world.file(), world.url(ME));
    let file = file.to_str().expect("a readable path");
    let named = ["--session", "it", "--tokens", file];
    let wrong: [(&str, &[&str], &str); 14] = [
        ("postgres:", &named, "no URL of PostgreSQL"),
        (
            "postgres:mysql://me:s3cret@host/it",
            &named,
            "no URL of PostgreSQL",
        ),
        (
            "postgres:host=here password=s3cret",
            &named,
            "no URL of PostgreSQL",
        ),
        (
            "postgres://me:s3cret@host:port/it",
            &named,
            "no URL of PostgreSQL",
        ),
        ("postgres://me:s3cret@/it", &named, "the host is missing"),
        (
            "postgres://me:s3cret@host/it?sslmode=require",
            &named,
            "no TLS",
        ),
        ("redis:s3cret@host", &named, "no URL of Redis"),
        ("rediss://:s3cret@host", &named, "no TLS"),
        // What is not encrypted stays on this machine.
        ("redis://:s3cret@host", &named, "SESSION_SECRET"),
        (
            "postgres://me:s3cret@127.0.0.1,host/it",
            &named,
            "SESSION_SECRET",
        ),
        (
            "mysql://me:s3cret@host/it",
            &named,
            "it is `file`, `postgres:URL` or `redis:URL`",
        ),
        (
            "redis://:s3cret@host",
            &["--tokens", file],
            "needs --session NAME",
        ),
        (
            "redis://:s3cret@host",
            &["--session", "it", "--new-login"],
            "--tokens FILE",
        ),
        ("file", &["--new-login", "--tokens", file], "--new-login"),
    ];
    for (store, more, words) in wrong {
        let all = issuer.iter().map(String::as_str).chain(["--store", store]);
        let ran = world
            .run(all.chain(more.iter().copied()).chain([&*me]))
            .await;
        assert_eq!(ran.code, Some(2), "{store}: {}", ran.stderr);
        ran.says(words);
        assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

// Both ways of writing it down mean the same.
#[tokio::test]
async fn a_url_alone_names_a_store_as_well() {
    let [long, short] = [
        stores(),
        stores().map(|it| {
            it.split_once(':')
                .map(|it| it.1.to_owned())
                .expect("two parts")
        }),
    ];
    for (long, short) in long.iter().zip(&short) {
        let mut site = Site::expired(long, "url").await;
        let ran = site.fetch_with_file(&[]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        site.store.clone_from(short);
        let ran = site.fetch(&[]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(ran.json()["reissues"], Value::from(0));
    }
}
