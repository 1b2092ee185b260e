//! Proves what the issuer's answer means, row by row of section 3 of the catalogue, over HTTP/1 and
//! HTTP/2: what the caller sees, what becomes of the session and of the store, and how often the issuer
//! is asked.

#[path = "support/issuer.rs"]
mod issuer;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/raw_h2.rs"]
mod raw_h2;
#[path = "support/scene.rs"]
mod scene;
mod support;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::join_all;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::Full;
use issuer::Act;
use issuer::Issuer;
use raw::Raw;
use scene::Api;
use scene::GOOD;
use scene::Http;
use scene::Scene;
use scene::chain;
use scene::http;
use scene::tokens;
use support::Store;
use tokio::sync::Semaphore;
use tokio::time::advance;
use tower::service_fn;
use tower_token_refresh::ClientCredentials;
use tower_token_refresh::CookieReissue;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::RefreshError;
use tower_token_refresh::RefreshGrant;
use tower_token_refresh::Reissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;

const BOTH: [bool; 2] = [false, true];

fn json(uri: String, http: Http) -> JsonReissue {
    JsonReissue::post(uri, http).refused("T-003")
}

fn cookie(uri: String, http: Http) -> CookieReissue {
    CookieReissue::post(uri, http).refused("T-003")
}

fn grant(uri: String, http: Http) -> RefreshGrant {
    RefreshGrant::post(uri, http).basic("the-client", "CANARY-secret")
}

/// As RFC 6749 section 5.2 has it.
fn oauth(status: u16, code: &str) -> Act {
    let body = format!(r#"{{"error":"{code}","error_description":"CANARY"}}"#);
    Act::json(status, body)
}

// ===== a refusal =====

// shows section 3, row 1 (`invalid_grant`; Auth0 sends 403), B56, P6, P7.
#[tokio::test]
async fn invalid_grant_ends_the_session_unless_the_status_is_about_something_else() {
    for http2 in BOTH {
        for status in [302, 408, 429, 500, 502, 503] {
            let act = oauth(status, "invalid_grant");
            let scene = Scene::play(http2, [act], grant).await;
            scene.is_kept(&format!("{status}, http2 {http2}"));
        }
        for status in [200, 400, 401, 403, 404] {
            let row = format!("{status}, http2 {http2}");
            let scene = Scene::play(http2, [oauth(status, "invalid_grant")], grant).await;
            scene.is_over(&row);
            let again = scene.send().await;
            assert!(again.why.unwrap().is_session_ended(), "{row}");
            assert_eq!(scene.asked(), 1, "{row}");
        }
        // A home-made issuer's own codes are not those of OAuth.
        let act = Act::json(401, r#"{"code":"invalid_grant","error":"invalid_grant"}"#);
        let scene = Scene::play(http2, [act], json).await;
        scene.is_kept(&format!("not OAuth, http2 {http2}"));
    }
}

// shows section 3, row 2 (`invalid_grant` and a vendor's throttle sub-code, Entra AADSTS50196).
#[tokio::test]
async fn a_vendors_sub_code_makes_invalid_grant_transient() {
    let with_hook = |uri: String, http: Http| {
        grant(uri, http).on_error(|answer| {
            let codes = answer.member("/error_codes")?.as_array()?;
            let throttled = codes.contains(&50196.into());
            throttled.then(|| ReissueError::transient("the issuer slows us down"))
        })
    };
    for http2 in BOTH {
        let row = format!("http2 {http2}");
        let body = r#"{"error":"invalid_grant","error_codes":[50196],"suberror":"CANARY"}"#;
        let act = Act::json(400, body).header("retry-after", "120");
        let scene = Scene::play(http2, [act], with_hook).await;
        scene.is_kept(&row);
        assert!(scene.why().is_transient() && !scene.why().is_outcome_unknown());
        assert!(scene.send().await.why.unwrap().is_transient(), "{row}");
        assert_eq!(scene.asked(), 1, "{row}");
        let body = r#"{"error":"invalid_grant","error_codes":[70008]}"#;
        let scene = Scene::play(http2, [Act::json(400, body)], with_hook).await;
        scene.is_over(&row);
    }
}

// shows section 3, row 1 (`invalid_grant`, any status), B56, P6, P7: with the code that was named.
#[tokio::test]
async fn a_named_code_ends_the_session_whatever_the_status() {
    for http2 in BOTH {
        for status in [200, 400, 401, 403, 429, 500] {
            let row = format!("{status}, http2 {http2}");
            let act = Act::json(status, r#"{"code":"T-003","message":"CANARY"}"#);
            let scene = Scene::play(http2, [act.clone()], json).await;
            scene.is_over(&row);
            let again = scene.send().await;
            assert!(again.why.unwrap().is_session_ended(), "{row}");
            assert_eq!(scene.asked(), 1, "{row}");
            Scene::play(http2, [act], cookie).await.is_over(&row);
        }
    }
}

// shows section 3, row 1 (the refresh token in the store differs from the one sent), B136, P6: somebody
// else was faster.
#[tokio::test]
async fn a_refusal_while_the_store_holds_a_newer_pair_ends_nothing() {
    for http2 in BOTH {
        let gate = Arc::new(Semaphore::new(0));
        let act = Act::json(400, r#"{"code":"T-003"}"#).after(&gate);
        let (issuer, api) = (Issuer::scripted(http2, [act]).await, Api::start().await);
        let (store, http) = (Store::new(None), http(http2));
        let session = Session::builder(json(issuer.uri(), http.clone()))
            .store(store.clone())
            .build()
            .unwrap();
        session.login(tokens("old")).await.unwrap();
        let request = {
            let session = session.clone();
            tokio::spawn(async move { scene::send(&session, &api, &http).await })
        };
        // The issuer has read the request, and says nothing yet.
        issuer.asked(1).await;
        store.put(Some(tokens("other")));
        gate.add_permits(1);
        let answer = request.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "http2 {http2}");
        assert!(session.status().is_logged_in());
        assert_eq!(store.access_token().as_deref(), Some("other-access"));
        let stats = session.stats();
        assert_eq!((stats.adopted, stats.replays, stats.ends), (1, 1, 0));
        assert_eq!(issuer.requests().len(), 1);
    }
}

// ===== a mistake in the configuration =====

async fn is_misconfigured<R: Reissue>(act: Act, reissue: fn(String, Http) -> R, row: &str) {
    for http2 in BOTH {
        let row = format!("{row}, http2 {http2}");
        let scene = Scene::play(http2, [act.clone()], reissue).await;
        scene.is_kept(&row);
        assert!(scene.why().is_misconfigured(), "{row}: {:?}", scene.why());
        assert_eq!(scene.session.stats().failures.misconfigured, 1, "{row}");
        // The circuit is open: the next request does not ask.
        let again = scene.send().await;
        assert!(again.why.unwrap().is_misconfigured(), "{row}");
        assert_eq!(scene.asked(), 1, "{row}");
    }
}

// shows section 3, row 3 (`invalid_client` and the like): the refresh token is kept.
#[tokio::test]
async fn a_code_about_the_client_keeps_the_refresh_token() {
    for code in [
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "invalid_request",
        "invalid_dpop_proof",
        "CANARY",
    ] {
        for status in [400, 401] {
            let row = format!("{status} {code}");
            is_misconfigured(oauth(status, code), grant, &row).await;
        }
    }
}

// shows section 3, rows 1 and 3 for the grant of RFC 6749 section 4.4: there is no refresh token that
// could be dead.
#[tokio::test]
async fn client_credentials_that_are_refused_end_nothing() {
    let credentials =
        |uri: String, http: Http| ClientCredentials::post(uri, http).basic("the-client", "CANARY");
    for code in ["invalid_client", "invalid_grant", "unauthorized_client"] {
        is_misconfigured(oauth(401, code), credentials, code).await;
    }
}

// shows section 3, row 3: codes that nobody named.
#[tokio::test]
async fn a_code_that_nobody_named_keeps_the_refresh_token() {
    for status in [400, 401, 403] {
        let act = Act::json(status, r#"{"code":"CANARY"}"#);
        is_misconfigured(act, json, &status.to_string()).await;
    }
}

// shows section 3, row 8 (`3xx`), B87, S10: the server it points to is never connected to.
#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = Raw::start(raw::answer("200 OK", "application/json", GOOD), false).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("http://{}/token", elsewhere.address);
        let act = Act::json(status, GOOD).header("location", location);
        is_misconfigured(act, json, &status.to_string()).await;
    }
    assert_eq!(elsewhere.connections(), 0);
}

// shows section 3, row 9 (404 and other 4xx without a known code).
#[tokio::test]
async fn a_wrong_address_or_method_keeps_the_refresh_token() {
    for status in [
        402, 404, 405, 406, 409, 410, 411, 413, 415, 421, 422, 431, 451,
    ] {
        let act = Act::status(status)
            .header("content-type", "text/html")
            .body("<h1>T-003</h1>");
        is_misconfigured(act, json, &status.to_string()).await;
    }
}

// ===== a nonce for the proof =====

/// Signs with what it was given, in the place of a signature.
fn signing(uri: String, http: Http) -> RefreshGrant {
    let serial = AtomicUsize::new(0);
    grant(uri, http).dpop(move |request| {
        let id = serial.fetch_add(1, Ordering::Relaxed);
        Ok(format!(
            "id{id}.nonce-{}",
            request.nonce().unwrap_or("none")
        ))
    })
}

/// The proofs that the issuer has seen.
fn proofs(scene: &Scene) -> Vec<String> {
    let of = |request: &String| {
        let mut lines = request.lines();
        let proof = lines.find_map(|line| line.strip_prefix("dpop: "));
        proof.unwrap_or("none").to_owned()
    };
    scene.issuer.requests().iter().map(of).collect()
}

// shows section 3, row 4 (`use_dpop_nonce` and exactly one `DPoP-Nonce`): at once, with a new proof.
#[tokio::test]
async fn a_nonce_that_is_asked_for_is_given_at_once() {
    let taken = || Act::json(200, r#"{"access_token":"new-access","token_type":"DPoP"}"#);
    for http2 in BOTH {
        let row = format!("http2 {http2}");
        for status in [400, 401] {
            let asking = oauth(status, "use_dpop_nonce").header("dpop-nonce", "n1");
            let scene = Scene::play(http2, [asking, taken()], signing).await;
            scene.is_replayed(&row);
            assert_eq!(proofs(&scene), ["id0.nonce-none", "id1.nonce-n1"], "{row}");
            assert_eq!(scene.session.stats().reissues, 1, "{row}: one conversation");
        }
    }
}

// shows section 3, row 4 (at most 1 per attempt; exactly one nonce; a signer).
#[tokio::test]
async fn a_nonce_is_given_once_and_only_where_it_is_certain() {
    let asking = || oauth(400, "use_dpop_nonce");
    for http2 in BOTH {
        let row = format!("http2 {http2}");
        let for_ever = asking().header("dpop-nonce", "n1");
        let scene = Scene::play(http2, [for_ever.clone()], signing).await;
        assert_eq!(scene.asked(), 2, "{row}");
        scene.is_kept_after_all("old-refresh", &row);
        assert!(scene.why().is_misconfigured(), "{row}");
        let two = for_ever.clone().header("dpop-nonce", "n2");
        for act in [asking(), two] {
            let scene = Scene::play(http2, [act], signing).await;
            scene.is_kept(&row);
            assert!(scene.why().is_misconfigured(), "{row}");
        }
        let unsigned = Scene::play(http2, [for_ever], grant).await;
        unsigned.is_kept(&row);
        assert!(unsigned.why().is_misconfigured(), "{row}");
    }
}

// ===== not processed =====

// shows section 3, row 5 (`temporarily_unavailable`), B55, B60.
#[tokio::test]
async fn an_issuer_that_says_it_is_unavailable_is_left_in_peace() {
    for http2 in BOTH {
        for code in ["temporarily_unavailable", "slow_down"] {
            let row = format!("{code}, http2 {http2}");
            let act = oauth(400, code).header("retry-after", "120");
            let scene = Scene::play(http2, [act], grant).await;
            scene.is_kept(&row);
            assert!(scene.why().is_transient(), "{row}");
            assert!(!scene.why().is_outcome_unknown(), "{row}");
            assert!(scene.send().await.why.unwrap().is_transient(), "{row}");
            assert_eq!(scene.asked(), 1, "{row}");
        }
    }
}

// shows section 3, row 5 (`429`, `503`, with or without `Retry-After`), B55, B60.
#[tokio::test]
async fn a_busy_issuer_keeps_the_session_and_is_left_in_peace() {
    for http2 in BOTH {
        for status in [429, 503] {
            for retry_after in [None, Some("120"), Some("Fri, 01 Jan 2100 00:00:00 GMT")] {
                let row = format!("{status}, {retry_after:?}, http2 {http2}");
                let mut act = Act::json(status, "{}");
                if let Some(text) = retry_after {
                    act = act.header("retry-after", text);
                }
                let scene = Scene::play(http2, [act], json).await;
                scene.is_kept(&row);
                assert!(scene.why().is_transient(), "{row}");
                assert!(!scene.why().is_outcome_unknown(), "{row}");
                assert_eq!(scene.session.stats().failures.transient, 1, "{row}");
                if retry_after.is_some() {
                    assert!(scene.send().await.why.unwrap().is_transient(), "{row}");
                    assert_eq!(scene.asked(), 1, "{row}");
                }
            }
        }
    }
}

/// A session whose issuer answers 503 with this `Retry-After`, without any network, and how often it
/// was asked.
async fn put_off(retry_after: String) -> (Session, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let its = asked.clone();
    let client = service_fn(move |_: Request<Full<Bytes>>| {
        its.fetch_add(1, Ordering::Relaxed);
        let response = Response::builder()
            .status(503)
            .header("retry-after", &retry_after)
            .body(Full::<Bytes>::default());
        std::future::ready(response)
    });
    let reissue = JsonReissue::post("https://issuer.example/token", client);
    let session = Session::builder(reissue).build().unwrap();
    session.login(tokens("old")).await.unwrap();
    session.refresh().await.unwrap_err();
    (session, asked)
}

/// Whether the issuer is asked again by a refresh now.
async fn asks(session: &Session, asked: &AtomicUsize) -> bool {
    let before = asked.load(Ordering::Relaxed);
    assert!(session.refresh().await.unwrap_err().is_transient());
    asked.load(Ordering::Relaxed) > before
}

// shows section 3, row 5 (respect `Retry-After`, clamped), B60: in seconds, and as a date.
#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_up_to_five_minutes() {
    let at = |seconds| {
        let moment = SystemTime::now() + Duration::from_secs(seconds);
        httpdate::fmt_http_date(moment)
    };
    // What it says, after how many seconds it is not over, and after how many more it is.
    let rows = [
        ("120".to_owned(), 119, 1),
        ("300".to_owned(), 299, 1),
        ("301".to_owned(), 299, 1),
        ("86400".to_owned(), 299, 1),
        (u64::MAX.to_string(), 299, 1),
        // The wall clock is not paused: some seconds of grace.
        (at(120), 100, 21),
        (at(86_400), 299, 1),
    ];
    for (text, not_over, over) in rows {
        let (session, asked) = put_off(text.clone()).await;
        assert!(!asks(&session, &asked).await, "{text}");
        advance(Duration::from_secs(not_over)).await;
        assert!(!asks(&session, &asked).await, "{text}");
        advance(Duration::from_secs(over)).await;
        assert!(asks(&session, &asked).await, "{text}");
    }
    for nonsense in ["soon", "-1", "1.5", "", "99999999999999999999999"] {
        let (session, asked) = put_off(nonsense.to_owned()).await;
        advance(Duration::from_secs(60)).await;
        assert!(asks(&session, &asked).await, "{nonsense}");
    }
}

// ===== ambiguous: it may have rotated =====

async fn is_unknown(act: Act, row: &str) -> Vec<RefreshError> {
    let mut errors = Vec::new();
    for http2 in BOTH {
        let row = format!("{row}, http2 {http2}");
        let scene = Scene::play(http2, [act.clone()], json).await;
        scene.is_kept(&row);
        assert!(scene.why().is_outcome_unknown(), "{row}: {:?}", scene.why());
        assert!(scene.why().is_transient(), "{row}");
        assert_eq!(scene.session.stats().failures.unknown, 1, "{row}");
        errors.push(scene.why().clone());
        let other = Scene::play(http2, [act.clone()], cookie).await;
        other.is_kept(&row);
        assert!(other.why().is_outcome_unknown(), "{row}: cookie");
    }
    errors
}

// shows section 3, row 7 (reset), B55: after the request was read, with nothing said.
#[tokio::test]
async fn no_answer_ends_nothing() {
    is_unknown(Act::close(), "closed").await;
    is_unknown(Act::reset(), "reset").await;
}

// shows section 3, row 7 (timeout after sending), B61: each with a deadline of its own.
#[tokio::test]
async fn silence_ends_nothing() {
    let half = Act::json(200, &GOOD[..GOOD.len() / 2]);
    let acts = [
        ("nothing", Act::hang()),
        ("a head", Act::json(200, "").then_hang()),
        ("half an answer", half.then_hang()),
        (
            "half a refusal",
            Act::json(401, r#"{"code":"T-0"#).then_hang(),
        ),
    ];
    // All at once: each takes its time, in which it has to be asked.
    let scenes = BOTH.into_iter().flat_map(|http2| {
        acts.iter().map(move |(row, act)| async move {
            let (row, limit) = (format!("{row}, http2 {http2}"), Duration::from_secs(3));
            let scene = Scene::play_within(limit, http2, [act.clone()], json).await;
            scene.is_kept(&row);
            assert!(scene.why().is_outcome_unknown(), "{row}");
        })
    });
    join_all(scenes).await;
}

// shows section 3, row 7 (truncated): the connection is closed or reset in the middle.
#[tokio::test]
async fn half_an_answer_ends_nothing() {
    for length in [0, 1, GOOD.len() / 2, GOOD.len() - 1, GOOD.len()] {
        let row = format!("{length} bytes");
        let half = || Act::json(200, &GOOD[..length]);
        is_unknown(half().then_close(), &row).await;
        is_unknown(half().then_reset(), &row).await;
        // Whole on the wire, and no JSON.
        if length < GOOD.len() {
            is_unknown(half(), &row).await;
        }
    }
}

// shows section 3, row 7 (half a refusal): a code is believed only in an answer that is whole.
#[tokio::test]
async fn half_a_refusal_ends_nothing() {
    for http2 in BOTH {
        let refusal = || Act::json(401, r#"{"code":"T-003"}"#);
        for act in [refusal().then_close(), refusal().then_reset()] {
            let scene = Scene::play(http2, [act], json).await;
            scene.is_kept(&format!("http2 {http2}"));
            assert!(!scene.why().is_session_ended(), "http2 {http2}");
        }
    }
}

// shows section 3, row 7 (broken JSON), S8.
#[tokio::test]
async fn a_success_that_cannot_be_read_ends_nothing() {
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies = [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        r#""CANARY""#.to_owned(),
        r#"{"accessToken":"CANARY""#.to_owned(),
        r#"{'accessToken':'CANARY'}"#.to_owned(),
        r#"{"accessToken":"CANARY"}{}"#.to_owned(),
        r#"{"accessToken":"CANARY","accessToken":"CANARY2"}"#.to_owned(),
        r#"{"accessToken":"CANARY\r\nx: y"}"#.to_owned(),
        r#"{"accessToken":["CANARY"]}"#.to_owned(),
        format!(r#"{{"accessToken":"CANARY","x":{nested}}}"#),
        "\u{feff}{}".to_owned(),
    ];
    for body in bodies {
        let row = format!("{body:.40}");
        is_unknown(Act::json(200, body), &row).await;
    }
    let html = Act::status(200)
        .header("content-type", "text/html")
        .body("<html>CANARY: log in</html>");
    is_unknown(html, "HTML").await;
    is_unknown(Act::status(204), "204").await;
    let utf16 = [0xff, 0xfe, b'{', 0, b'}', 0];
    is_unknown(Act::json(200, "").body(utf16), "UTF-16").await;
}

// shows section 3, row 7 (`200` without `access_token`).
#[tokio::test]
async fn a_success_without_an_access_token_ends_nothing() {
    for body in [
        "{}",
        r#"{"accessToken":null}"#,
        r#"{"accessToken":""}"#,
        r#"{"access_token":"CANARY"}"#,
        r#"{"code":"CANARY"}"#,
    ] {
        is_unknown(Act::json(200, body), body).await;
    }
}

// shows section 3, row 7 (a refresh token can still be read from a defective 200: persist it), B122.
#[tokio::test]
async fn a_new_refresh_token_in_a_defective_success_is_in_the_store() {
    for http2 in BOTH {
        for body in [
            r#"{"refreshToken":"new-refresh"}"#,
            r#"{"refreshToken":"new-refresh","accessToken":""}"#,
            r#"{"refreshToken":"new-refresh","accessToken":7}"#,
            r#"{"refreshToken":"new-refresh","accessToken":"a","accessToken":"b"}"#,
        ] {
            let row = format!("{body}, http2 {http2}");
            let scene = Scene::play(http2, [Act::json(200, body)], json).await;
            scene.is_kept_with("new-refresh", &row);
            assert!(scene.why().is_outcome_unknown(), "{row}");
        }
        let set = |act: Act| act.header("set-cookie", "refreshToken=new-refresh; HttpOnly");
        let acts = [
            set(Act::status(200).body("<html>")),
            set(Act::status(204)),
            set(Act::json(200, "{}")),
            set(Act::json(200, &GOOD[..9]).then_close()),
        ];
        for act in acts {
            let scene = Scene::play(http2, [act], cookie).await;
            scene.is_kept_with("new-refresh", &format!("cookie, http2 {http2}"));
        }
    }
}

// shows section 3, row 7 (oversized), S7: announced, and not announced.
#[tokio::test]
async fn an_oversized_success_ends_nothing() {
    let large = format!(r#"{{"accessToken":"{}"}}"#, "x".repeat(1 << 20));
    let announced = Act::json(200, large.clone()).announcing(large.len());
    for act in [announced, Act::json(200, large)] {
        for error in is_unknown(act, "over 1 MiB").await {
            assert!(chain(&error).contains("larger than 1 MiB"), "{error:?}");
        }
    }
    // Said to be large, it is not waited for.
    let only_announced = Act::json(200, "").announcing(1 << 40).then_hang();
    for error in is_unknown(only_announced, "1 TiB").await {
        assert!(chain(&error).contains("larger than 1 MiB"), "{error:?}");
    }
}

// shows section 3, row 7 and S7: what is compressed is refused unread, as it was asked not to be.
#[tokio::test]
async fn a_compressed_success_is_refused_unread() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..10 {
        bomb.write_all(&zeros).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    for encoding in ["gzip", "br", "deflate", "identity, gzip", "unheard-of"] {
        let act = Act::json(200, "").header("content-encoding", encoding);
        // More is announced than is ever sent: whoever reads it waits.
        let act = act.body(bomb.clone()).then_hang();
        for error in is_unknown(act, encoding).await {
            assert!(chain(&error).contains("compressed"), "{error:?}");
        }
    }
    let scene = Scene::play(false, [Act::json(200, GOOD)], json).await;
    let request = scene.issuer.requests().remove(0).to_ascii_lowercase();
    assert!(request.contains("accept-encoding: identity"), "{request}");
}

// shows section 3, row 7 (`500`/`502`/`504`), B55: and what else may come from somebody on the way.
#[tokio::test]
async fn a_failing_issuer_ends_nothing() {
    for status in [408, 500, 501, 502, 504, 505, 507, 520, 599] {
        for body in [r#"{"code":"CANARY"}"#, "<html>CANARY</html>", ""] {
            is_unknown(Act::json(status, body), &status.to_string()).await;
        }
    }
}

// shows section 3, row 7 for OAuth: `server_error`, statuses without a code, and a defective success.
#[tokio::test]
async fn what_is_ambiguous_in_oauth_ends_nothing() {
    for http2 in BOTH {
        let html = |status| Act::status(status).body("<html>invalid_grant</html>");
        let acts = [
            oauth(400, "server_error"),
            html(500),
            html(502),
            html(504),
            html(200),
            Act::json(200, "{}"),
            Act::json(200, r#"{"access_token":""}"#),
            Act::json(200, r#"{"access_token":"CANARY","access_token":"CANARY2"}"#),
            Act::json(400, r#"{"error":"invalid_grant"}"#).then_close(),
            Act::close(),
            Act::reset(),
        ];
        for (n, act) in acts.into_iter().enumerate() {
            let row = format!("{n}, http2 {http2}");
            let scene = Scene::play(http2, [act], grant).await;
            scene.is_kept(&row);
            // Half a refusal is no more than its status.
            let unknown = scene.why().is_outcome_unknown();
            assert_eq!(unknown, n != 8, "{row}: {:?}", scene.why());
        }
        let act = Act::json(200, r#"{"refresh_token":"new-refresh"}"#);
        let scene = Scene::play(http2, [act], grant).await;
        scene.is_kept_with("new-refresh", &format!("http2 {http2}"));
        assert!(scene.why().is_outcome_unknown());
    }
}

// shows section 3, row 7 (no HTTP): what speaks another protocol has perhaps read everything.
#[tokio::test]
async fn an_issuer_that_does_not_speak_http_ends_nothing() {
    let api = Api::start().await;
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"HTTP/1.1 999\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\0",
    ] {
        let row = String::from_utf8_lossy(bytes);
        let raw = Raw::start(bytes.to_vec(), false).await;
        let (store, http) = (Store::new(None), http(false));
        let uri = format!("http://{}/token", raw.address);
        let session = Session::builder(json(uri, http.clone()))
            .store(store.clone())
            .build()
            .unwrap();
        session.login(tokens("old")).await.unwrap();
        let why = scene::send(&session, &api, &http).await.why.unwrap();
        // A status of 999 is one, of no class.
        assert!(why.is_outcome_unknown(), "{row}: {why:?}");
        assert!(session.status().is_logged_in(), "{row}");
        assert_eq!(store.access_token().as_deref(), Some("old-access"), "{row}");
        assert_eq!(raw.requests().len(), 1, "{row}");
    }
}

// ===== good answers, however they come =====

// shows section 3's other side: what is whole is taken, and saved before it is used (P13).
#[tokio::test]
async fn a_good_answer_is_taken_however_it_comes() {
    for http2 in BOTH {
        let acts = [
            ("plain", Act::json(200, GOOD)),
            ("dripping", Act::json(200, GOOD).dripping()),
            ("201", Act::json(201, GOOD)),
            ("without a type", Act::status(200).body(GOOD)),
            (
                "identity",
                Act::json(200, GOOD).header("content-encoding", "identity"),
            ),
        ];
        for (row, act) in acts {
            let row = format!("{row}, http2 {http2}");
            let scene = Scene::play(http2, [act], json).await;
            scene.is_replayed(&row);
            let stored = scene.stored();
            let new = ("new-access".to_owned(), "new-refresh".to_owned());
            assert_eq!(stored, Some(new), "{row}");
            assert_eq!(scene.asked(), 1, "{row}");
        }
    }
}
