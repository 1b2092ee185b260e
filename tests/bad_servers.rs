//! Shows that a server which breaks the rules of HTTP harms its own request and no other: a clear error
//! or its own answer, no hang, no token in an error, and the session stays of use.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/raw_h2.rs"]
mod raw_h2;
#[path = "support/server.rs"]
mod server;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use raw::Raw;
use raw::Then;
use raw_h2::RawH2;
use server::hyper_client;
use tokio::time::timeout;
use tower::Layer;
use tower::ServiceExt;
use tower_token_refresh::DefaultClassifier;
use tower_token_refresh::RefreshError;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefresh;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

/// Whatever still waits then, waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

const MIB: usize = 1 << 20;

type Http = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// What the caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// An error in place of an answer.
    Fails,
    /// The answer of a replay.
    MadeGood,
    /// The rejection, whole.
    HandedOn,
    /// The head of the rejection, what came of its body, and its error.
    HandedOnBroken,
    /// A success, whole.
    Passed,
    /// The head of a success, and an error.
    PassedBroken,
}

use Outcome::Fails;
use Outcome::HandedOn;
use Outcome::HandedOnBroken;
use Outcome::MadeGood;
use Outcome::Passed;
use Outcome::PassedBroken;

/// The client and its session. Its tokens are told by their name.
struct Caller {
    url: String,
    session: Session,
    service: TokenRefresh<Http, Session, DefaultClassifier>,
}

impl Caller {
    async fn new(address: SocketAddr, http2: bool) -> Self {
        let url = format!("http://{address}");
        let reissue =
            reissue_fn(async |_| TokenSet::new("CANARY-2").map_err(ReissueError::unknown));
        let session = Session::builder(reissue).build().unwrap();
        let tokens = TokenSet::new("CANARY-1").unwrap();
        let tokens = tokens.with_refresh_token("CANARY-3").unwrap();
        session.login(tokens).await.unwrap();
        let layer = TokenRefreshLayer::new(&*url, session.clone()).unwrap();
        let service = layer
            .response_limit(64 * 1024, PATIENCE)
            .layer(hyper_client(http2));
        Self {
            url,
            session,
            service,
        }
    }

    async fn send(&self, row: &str) -> Outcome {
        let request = Request::get(&self.url).body(Full::default()).unwrap();
        let answer = timeout(PATIENCE, self.service.clone().oneshot(request));
        let answer = match answer.await.unwrap_or_else(|_| panic!("{row}: hangs")) {
            Ok(answer) => answer,
            Err(error) => {
                has_no_secret(&*error, row);
                return Fails;
            }
        };
        let (head, body) = answer.into_parts();
        let why: Option<&RefreshError> = head.extensions.get();
        if let Some(why) = why {
            assert!(why.is_not_replayed(), "{row}: {why:?}");
            has_no_secret(why, row);
        }
        assert_eq!(why.is_some(), head.status == 401, "{row}: {why:?}");
        let body = timeout(PATIENCE, body.collect()).await;
        let body = body.unwrap_or_else(|_| panic!("{row}: its body hangs"));
        if let Err(error) = &body {
            has_no_secret(error, row);
        }
        match (why.is_some(), body.is_ok()) {
            (true, true) => HandedOn,
            (true, false) => HandedOnBroken,
            (false, true) if self.session.stats().replays > 0 => MadeGood,
            (false, true) => Passed,
            (false, false) => PassedBroken,
        }
    }

    /// The first request, and then one to a server that has come to its senses.
    async fn gets(self, expected: Outcome, row: &str) {
        assert_eq!(self.send(row).await, expected, "{row}");
        let replays = self.session.stats().replays;
        assert_eq!(replays, u64::from(expected == MadeGood), "{row}");
        let next = self.send(row).await;
        assert!(matches!(next, Passed | MadeGood), "{row}: {next:?}");
        assert_eq!(self.session.stats().replays, replays, "{row}");
        let is_rejected = matches!(expected, MadeGood | HandedOn | HandedOnBroken);
        let stats = self.session.stats();
        assert_eq!(stats.reissues, u64::from(is_rejected), "{row}");
        assert!(self.session.status().is_logged_in(), "{row}");
    }
}

#[track_caller]
fn has_no_secret(error: &(dyn std::error::Error + 'static), row: &str) {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let told: String = causes.map(|error| format!("{error} {error:?}\n")).collect();
    assert!(!told.contains("CANARY"), "{row}: {told}");
}

/// A head with these lines, and what follows it.
fn message(status: &str, lines: &str, rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{lines}\r\n{rest}").into_bytes()
}

async fn http1(row: &str, bytes: Vec<u8>, then: Then, expected: Outcome) {
    let good = raw::answer("200 OK", "text/plain", "welcome");
    let acts = [raw::Act::say(bytes, then), raw::Act::say(good, Then::Keep)];
    let raw = Raw::scripted(acts).await;
    let caller = Caller::new(raw.address, false).await;
    caller.gets(expected, row).await;
    let token = |request: &String| request.contains("CANARY-");
    assert!(raw.requests().iter().all(token), "{row}");
}

async fn http2(row: &str, act: raw_h2::Act, expected: Outcome) {
    let raw = RawH2::scripted([act, says(200, "welcome")]).await;
    let caller = Caller::new(raw.address, true).await;
    caller.gets(expected, row).await;
}

fn says(status: u16, body: &'static str) -> raw_h2::Act {
    let head = Response::builder().status(status).body(()).unwrap();
    raw_h2::Act {
        head: Some(head),
        body: Bytes::from_static(body.as_bytes()),
        ..raw_h2::Act::just(raw_h2::Then::Done)
    }
}

const EMPTY: &str = "content-length: 0\r\n";

fn header(name: &str, length: usize) -> String {
    format!("{name}: {}\r\n", "x".repeat(length))
}

// shows S7: what hyper takes is answered, and what it does not take is an error.
#[tokio::test]
async fn a_head_that_is_too_large_is_an_error_and_one_that_is_not_is_a_rejection() {
    for status in ["401 Unauthorized", "200 OK"] {
        let good = if status.starts_with('4') {
            MadeGood
        } else {
            Passed
        };
        let many = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect();
        let cases: [(&str, String, Outcome); 5] = [
            ("10 MiB", header("x-large", 10 * MIB), Fails),
            ("400,000 bytes", header("x-large", 400_000), good),
            ("100,000 headers", many(100_000), Fails),
            ("99 headers", many(99), good),
            (
                "10,000 times the same",
                "set-cookie: a=b\r\n".repeat(10_000),
                Fails,
            ),
        ];
        for (row, lines, expected) in cases {
            let bytes = message(status, &(lines + EMPTY), "");
            http1(&format!("{status}, {row}"), bytes, Then::Keep, expected).await;
        }
    }
}

#[tokio::test]
async fn a_large_head_over_http2_is_an_error_and_one_that_is_not_is_a_rejection() {
    for (count, length, expected) in [
        (1, 15_000, MadeGood),
        (150, 1, MadeGood),
        (1, 17_000, Fails),
        (10, MIB, Fails),
        (20_000, 1, Fails),
    ] {
        let act = raw_h2::Act {
            head: Some(with_headers(says(401, "").head.unwrap(), count, length)),
            ..says(401, "words")
        };
        http2(&format!("{count} of {length}"), act, expected).await;
    }
}

fn with_headers(mut head: Response<()>, count: usize, length: usize) -> Response<()> {
    head.headers_mut().extend(headers(count, length));
    head
}

fn headers(count: usize, length: usize) -> HeaderMap {
    let value = HeaderValue::try_from("x".repeat(length)).unwrap();
    let name = |n| HeaderName::try_from(format!("x-{n}")).unwrap();
    (0..count).map(|n| (name(n), value.clone())).collect()
}

// shows B20, S7: whatever it says, a 401 is a rejection.
#[tokio::test]
async fn a_challenge_of_any_size_and_form_is_read_in_time() {
    let long = "x".repeat(300_000);
    for (row, challenge) in [
        ("a long realm", format!(r#"Bearer realm="{long}""#)),
        ("no end of a string", format!(r#"Bearer realm="{long}"#)),
        (
            "backslashes",
            format!(r#"Bearer realm="{}"#, r"\".repeat(300_000)),
        ),
        (
            "many challenges",
            "Bearer error=\"no_such\", ".repeat(15_000),
        ),
        (
            "many parameters",
            format!("Bearer {}", "a=b, ".repeat(60_000)),
        ),
        ("commas", ",".repeat(300_000)),
        ("no challenge", long.clone()),
        ("not ASCII", "Bearer realm=\"\u{fc}\"".repeat(1000)),
    ] {
        let lines = format!("www-authenticate: {challenge}\r\n{EMPTY}");
        let bytes = message("401 Unauthorized", &lines, "");
        http1(row, bytes, Then::Keep, MadeGood).await;
    }
}

// shows P10, S7: rejections and successes whose body is not what the head says.
#[tokio::test]
async fn a_body_that_lies_about_its_size_is_an_error_of_its_own_request() {
    let chunked = "transfer-encoding: chunked\r\n";
    let long_trailers = format!("1\r\nx\r\n0\r\n{}\r\n", header("x-sum", MIB));
    let many_trailers = format!("1\r\nx\r\n0\r\n{}\r\n", "x-sum: 1\r\n".repeat(50_000));
    let cases = [
        ("too short", "content-length: 10\r\n", "words", false),
        (
            "too long",
            "content-length: 5\r\n",
            "words CANARY-1\r\n",
            true,
        ),
        (
            "another answer after it",
            "content-length: 0\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            true,
        ),
        ("no size", chunked, "CANARY-1\r\nwords\r\n", false),
        (
            "a size of 80 bits",
            chunked,
            "ffffffffffffffffffff\r\nwords",
            false,
        ),
        ("a size below zero", chunked, "-1\r\nwords\r\n", false),
        (
            "no end of a chunk",
            chunked,
            "5\r\nwordsCANARY-1\r\n0\r\n\r\n",
            false,
        ),
        ("no last chunk", chunked, "5\r\nwords\r\n", false),
        ("half a chunk", chunked, "5\r\nwor", false),
        (
            "trailers that are none",
            chunked,
            "5\r\nwords\r\n0\r\nCANARY-1\r\n\r\n",
            false,
        ),
        ("a trailer of 1 MiB", chunked, &long_trailers, false),
        ("50,000 trailers", chunked, &many_trailers, false),
    ];
    for (row, lines, body, is_whole) in cases {
        for (status, whole, broken) in [
            ("401 Unauthorized", MadeGood, HandedOnBroken),
            ("200 OK", Passed, PassedBroken),
        ] {
            let expected = if is_whole { whole } else { broken };
            let bytes = message(status, lines, body);
            http1(&format!("{status}, {row}"), bytes, Then::Close, expected).await;
        }
    }
}

#[tokio::test]
async fn a_body_that_lies_about_its_size_over_http2_is_an_error_of_its_own_request() {
    for (status, whole, broken) in [(401, MadeGood, HandedOnBroken), (200, Passed, PassedBroken)] {
        for (length, expected) in [("4", broken), ("5", whole), ("6", broken)] {
            let mut act = says(status, "words");
            let head = act.head.as_mut().unwrap().headers_mut();
            head.insert("content-length", length.parse().unwrap());
            http2(&format!("{status}, {length}"), act, expected).await;
        }
        for (count, length, expected) in
            [(1, 15_000, whole), (10, MIB, broken), (20_000, 1, broken)]
        {
            let act = raw_h2::Act {
                trailers: Some(headers(count, length)),
                ..says(status, "words")
            };
            let row = format!("{status}, {count} trailers of {length}");
            http2(&row, act, expected).await;
        }
    }
}

// shows that the first answer is not the last.
#[tokio::test]
async fn informational_answers_before_a_rejection_are_not_its_answer() {
    for (early, count) in [
        ("100 Continue", 1),
        ("102 Processing", 1),
        ("103 Early Hints", 1),
        ("103 Early Hints", 1000),
        ("199 None", 3),
    ] {
        let mut bytes = message(early, "x-early: CANARY-1\r\n", "").repeat(count);
        bytes.extend(message("401 Unauthorized", EMPTY, ""));
        http1(early, bytes, Then::Keep, MadeGood).await;
    }
    for informational in [1, 100] {
        let act = raw_h2::Act {
            informational,
            ..says(401, "words")
        };
        http2("early hints", act, MadeGood).await;
    }
}

// shows B25: without a head there is no rejection.
#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let rejection = "401 Unauthorized";
    let cases = [
        ("nothing", vec![]),
        ("no HTTP", b"CANARY-1 CANARY-2\r\n\r\n".to_vec()),
        ("another version", b"HTTP/9.9 401 CANARY-1\r\n\r\n".to_vec()),
        ("another protocol", b"SSH-2.0-CANARY-1\r\n".to_vec()),
        (
            "half a head",
            b"HTTP/1.1 401 Unauthorized\r\nx-a: CANARY-1".to_vec(),
        ),
        ("no status", message("CANARY-1", EMPTY, "")),
        ("a status of four digits", message("4011", EMPTY, "")),
        ("no name", message(rejection, ": CANARY-1\r\n", "")),
        ("no colon", message(rejection, "CANARY-1\r\n", "")),
        ("a zero byte", message(rejection, "x-a: CANARY-1\0\r\n", "")),
        (
            "two lengths",
            message(
                rejection,
                "content-length: 1\r\ncontent-length: 2\r\n",
                "xx",
            ),
        ),
        (
            "a length of letters",
            message(rejection, "content-length: CANARY-1\r\n", "xx"),
        ),
        (
            "a length of 80 bits",
            message(
                rejection,
                "content-length: 1208925819614629174706176\r\n",
                "",
            ),
        ),
    ];
    for (row, bytes) in cases {
        for then in [Then::Close, Then::Reset] {
            http1(row, bytes.clone(), then, Fails).await;
        }
    }
    let refused = Reason::REFUSED_STREAM;
    for reason in [
        Reason::CANCEL,
        Reason::INTERNAL_ERROR,
        Reason::PROTOCOL_ERROR,
        refused,
    ] {
        http2(
            "reset",
            raw_h2::Act::just(raw_h2::Then::Reset(reason)),
            Fails,
        )
        .await;
    }
    http2("closed", raw_h2::Act::just(raw_h2::Then::Close), Fails).await;
    http2("goes away", raw_h2::Act::just(raw_h2::Then::GoAway), Fails).await;
}

// shows P10: it is refreshed for the next request's benefit.
#[tokio::test]
async fn a_rejection_that_breaks_off_over_http2_is_handed_on_with_its_error() {
    for then in [
        raw_h2::Then::Reset(Reason::CANCEL),
        raw_h2::Then::Reset(Reason::INTERNAL_ERROR),
        raw_h2::Then::GoAway,
        raw_h2::Then::Close,
    ] {
        let act = raw_h2::Act {
            then,
            ..says(401, "words")
        };
        http2("breaks off", act, HandedOnBroken).await;
    }
}

// shows B25: neither ends a session, nor asks the issuer for anything.
#[tokio::test]
async fn a_server_that_breaks_off_each_time_fails_each_request_and_nothing_else() {
    let cancel = raw_h2::Then::Reset(Reason::CANCEL);
    let resets = RawH2::scripted([raw_h2::Act::just(cancel)]).await;
    let closes = Raw::scripted([raw::Act::say(vec![], Then::Close)]).await;
    for (address, http2) in [(resets.address, true), (closes.address, false)] {
        let caller = Caller::new(address, http2).await;
        for _ in 0..100 {
            assert_eq!(caller.send("each time").await, Fails, "http2 {http2}");
        }
        let stats = caller.session.stats();
        assert_eq!((stats.reissues, stats.replays), (0, 0), "http2 {http2}");
        assert!(caller.session.status().is_logged_in(), "http2 {http2}");
    }
    assert_eq!(resets.requests().len(), 100);
    assert_eq!(resets.connections(), 1, "a stream is not a connection");
    assert_eq!(closes.requests().len(), 100);
}

// shows P10: each rejection comes whole or with its error, though no connection lives for two answers.
#[tokio::test]
async fn a_server_that_closes_after_each_rejection_is_asked_again_on_another_connection() {
    let rejection = raw::answer("401 Unauthorized", "text/plain", "words");
    let closes = Raw::scripted([raw::Act::say(rejection, Then::Close)]).await;
    let caller = Caller::new(closes.address, false).await;
    assert_eq!(caller.send("first").await, HandedOn);
    assert_eq!(caller.session.stats().replays, 1);
    assert_eq!(closes.connections(), 2);
}
