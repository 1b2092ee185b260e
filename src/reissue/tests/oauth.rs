//! The grants of OAuth: what is sent, and what each answer means.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

const RETRY: HeaderName = header::RETRY_AFTER;

fn good() -> String {
    json_text(json!({
        "access_token": "CANARY-a2",
        "refresh_token": "CANARY-r2",
        "expires_in": 900,
        "token_type": "bearer",
    }))
}

fn refresh(reply: Reply) -> RefreshGrant {
    RefreshGrant::post(ADDRESS, issuer(reply).0).basic("client", "CANARY")
}

fn credentials(reply: Reply) -> ClientCredentials {
    ClientCredentials::post(ADDRESS, issuer(reply).0).basic("client", "CANARY")
}

fn coded(status: u16, code: &str) -> Reply {
    let body = json!({"error": code, "error_description": "CANARY"});
    reply(status, json_text(body))
}

async fn refresh_failure(reply: Reply) -> ReissueError {
    reissued(refresh(reply)).await.unwrap_err()
}

async fn credentials_failure(reply: Reply) -> ReissueError {
    reissued(credentials(reply)).await.unwrap_err()
}

fn header_of(sent: &Sent, row: usize, name: &str) -> Option<String> {
    let sent = sent.lock().unwrap();
    let value = sent[row].headers().get(name)?;
    assert!(value.is_sensitive(), "{name}");
    Some(value.to_str().unwrap().to_owned())
}

// ===== what is sent =====

#[tokio::test]
async fn the_refresh_token_goes_as_a_form() {
    let (client, sent) = issuer(reply(200, good()));
    let grant = RefreshGrant::post(ADDRESS, client)
        .scope("orders profile")
        .param("resource", "https://a.example/?x=1&y=2")
        .param("resource", "https://b.example")
        .header("X-Api-Key", "CANARY");
    reissued(grant).await.unwrap();
    assert_eq!(header_of(&sent, 0, "x-api-key").unwrap(), "CANARY");
    {
        let sent = sent.lock().unwrap();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].method(), http::Method::POST);
        let headers = sent[0].headers();
        let form = "application/x-www-form-urlencoded";
        assert_eq!(headers[header::CONTENT_TYPE], form);
        assert_eq!(headers[header::ACCEPT], "application/json");
        assert_eq!(headers[header::ACCEPT_ENCODING], "identity");
        assert!(!headers.contains_key(header::AUTHORIZATION));
        assert!(!headers.contains_key("dpop"));
        // shows P15
        assert!(sent[0].extensions().get::<WithoutToken>().is_some());
    }
    let length = sent.lock().unwrap()[0].headers()[header::CONTENT_LENGTH].clone();
    let body = body_of(&sent).await;
    assert_eq!(length, body.len().to_string());
    assert_eq!(
        body,
        "grant_type=refresh_token&refresh_token=CANARY-refresh&scope=orders+profile\
         &resource=https%3A%2F%2Fa.example%2F%3Fx%3D1%26y%3D2&resource=https%3A%2F%2Fb.example"
    );
}

#[tokio::test]
async fn basic_encodes_both_parts_before_it_joins_them() {
    let (client, sent) = issuer(reply(200, good()));
    let grant = RefreshGrant::post(ADDRESS, client).basic("a b:c", "p&=%/+~*");
    reissued(grant).await.unwrap();
    let value = header_of(&sent, 0, "authorization").unwrap();
    let text = STANDARD.decode(value.strip_prefix("Basic ").unwrap());
    let text = String::from_utf8(text.unwrap()).unwrap();
    assert_eq!(text, "a+b%3Ac:p%26%3D%25%2F%2B%7E*");
    let body = body_of(&sent).await;
    assert_eq!(
        body,
        "grant_type=refresh_token&refresh_token=CANARY-refresh"
    );
}

#[tokio::test]
async fn a_client_can_be_named_in_the_body() {
    let (client, sent) = issuer(reply(200, good()));
    let post = || RefreshGrant::post(ADDRESS, client.clone());
    reissued(post().client_in_body("a b", "s&t")).await.unwrap();
    reissued(post().public_client("app")).await.unwrap();
    // The last one counts.
    let last = post().basic("x\n", "y").client_in_body("x", "y");
    reissued(last.public_client("app")).await.unwrap();
    for client in [
        "client_id=a+b&client_secret=s%26t",
        "client_id=app",
        "client_id=app",
    ] {
        let start = "grant_type=refresh_token&refresh_token=CANARY-refresh";
        assert!(
            !sent.lock().unwrap()[0]
                .headers()
                .contains_key("authorization")
        );
        assert_eq!(body_of(&sent).await, format!("{start}&{client}"));
    }
}

#[tokio::test]
async fn client_credentials_need_no_tokens_and_send_none() {
    let (client, sent) = issuer(reply(200, good()));
    let grant = ClientCredentials::post(ADDRESS, client)
        .client_in_body("app", "secret")
        .scope("orders");
    assert!(!grant.needs_refresh_token());
    let tokens = Reissue::reissue(&grant, ReissueRequest::new(None)).await;
    let tokens = tokens.unwrap();
    assert_eq!(tokens.access_token().expose(), "CANARY-a2");
    assert!(tokens.expires_at().is_some());
    assert!(tokens.refresh_token().is_none(), "section 4.4.3");
    reissued(grant).await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            body_of(&sent).await,
            "grant_type=client_credentials&scope=orders&client_id=app&client_secret=secret"
        );
    }
}

#[tokio::test]
async fn a_refresh_grant_without_a_refresh_token_sends_nothing() {
    let (client, sent) = issuer(reply(200, good()));
    let grant = RefreshGrant::post(ADDRESS, client);
    let outcome = Reissue::reissue(&grant, ReissueRequest::new(None)).await;
    assert!(outcome.unwrap_err().is_misconfigured());
    assert!(sent.lock().unwrap().is_empty());
}

// ===== successes =====

#[tokio::test]
async fn the_tokens_of_a_token_response_are_read() {
    let tokens = reissued(refresh(reply(200, good()))).await.unwrap();
    assert_eq!(tokens.access_token().expose(), "CANARY-a2");
    assert_eq!(tokens.refresh_token().unwrap().expose(), "CANARY-r2");
    let left = tokens.expires_at().unwrap();
    let left = left.duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(890));
}

// shows B122
#[tokio::test]
async fn an_absent_refresh_token_is_left_to_the_session() {
    for answer in [
        r#"{"access_token":"a2"}"#,
        r#"{"access_token":"a2","refresh_token":null}"#,
        r#"{"access_token":"a2","refresh_token":""}"#,
    ] {
        let tokens = reissued(refresh(reply(200, answer))).await.unwrap();
        assert!(tokens.refresh_token().is_none(), "{answer}");
        assert_eq!(tokens.expires_at(), None);
    }
}

#[tokio::test]
async fn a_token_of_a_type_that_is_not_understood_is_not_used() {
    let typed = |token_type: Value| {
        let mut answer = json!({"access_token": "CANARY-a2", "refresh_token": "CANARY-r2"});
        answer["token_type"] = token_type;
        reply(200, json_text(answer))
    };
    for known in ["Bearer", "bearer", "BEARER", "DPoP", "dpop", ""] {
        assert!(reissued(refresh(typed(json!(known)))).await.is_ok());
        assert!(reissued(credentials(typed(json!(known)))).await.is_ok());
    }
    assert!(reissued(refresh(typed(Value::Null))).await.is_ok());
    for unknown in [json!("mac"), json!("CANARY"), json!("Bearer "), json!(7)] {
        let error = refresh_failure(typed(unknown.clone())).await;
        assert!(error.is_misconfigured(), "{unknown}");
        assert_eq!(error.rotated.unwrap().expose(), "CANARY-r2");
        let error = credentials_failure(typed(unknown)).await;
        assert!(error.is_misconfigured() && error.rotated.is_none());
    }
    let grant = refresh(typed(json!("Bot"))).token_type("bot");
    assert!(reissued(grant).await.is_ok());
}

#[tokio::test]
async fn a_new_refresh_token_in_a_defective_token_response_is_kept() {
    for answer in [
        r#"{"refresh_token":"CANARY-r2"}"#,
        r#"{"refresh_token":"CANARY-r2","error":"invalid_grant"}"#,
        r#"{"refresh_token":"CANARY-r2","access_token":"a b"}"#,
        r#"{"refresh_token":"CANARY-r2","access_token":"a","access_token":"b"}"#,
        r#"{"refresh_token":"CANARY-r2","access_token":"a","token_type":"x","token_type":"y"}"#,
    ] {
        let error = refresh_failure(reply(200, answer)).await;
        assert!(error.is_unknown(), "{answer}: {error:?}");
        assert_eq!(error.rotated.unwrap().expose(), "CANARY-r2", "{answer}");
    }
    let spoilt = r#"{"refresh_token":"CANARY x","access_token":"a","token_type":"mac"}"#;
    assert!(refresh_failure(reply(200, spoilt)).await.is_unknown());
}

// ===== failures =====

// shows B55, B56, P6
#[tokio::test]
async fn the_error_code_decides_whatever_the_status() {
    for status in [200, 302, 400, 401, 403, 404, 408, 429, 500, 503] {
        for (code, kind) in answer::OAUTH_CODES {
            if kind == ReissueErrorKind::Refused && ![200, 400, 401, 403, 404].contains(&status) {
                continue;
            }
            let error = refresh_failure(coded(status, code)).await;
            assert_eq!(error.kind, kind, "{status} {code}");
            assert!(chain(&error).contains(code), "{status} {code}");
            let error = credentials_failure(coded(status, code)).await;
            let kind = match kind {
                ReissueErrorKind::Refused => ReissueErrorKind::Misconfigured,
                kind => kind,
            };
            assert_eq!(error.kind, kind, "{status} {code}");
        }
    }
}

// shows P6
#[tokio::test]
async fn an_issuer_in_trouble_refuses_nothing() {
    use ReissueErrorKind::*;
    for (status, kind) in [
        (302, Misconfigured),
        (408, Unknown),
        (429, Transient),
        (500, Unknown),
        (502, Unknown),
        (503, Transient),
    ] {
        let refusal = || coded(status, "invalid_grant").with(RETRY, "7");
        let error = refresh_failure(refusal()).await;
        assert_eq!(error.kind, kind, "{status}");
        assert_eq!(error.retry_after.is_some(), kind == Transient, "{status}");
        assert_eq!(credentials_failure(refusal()).await.kind, kind, "{status}");
        // What the user says counts.
        let told =
            |answer: &ErrorAnswer<'_>| Some(ReissueError::refused(answer.status().to_string()));
        let error = reissued(refresh(refusal()).on_error(told)).await;
        assert!(error.unwrap_err().is_refused(), "{status}");
    }
}

#[tokio::test]
async fn the_codes_mean_what_the_standards_say() {
    let refused: Vec<_> = answer::OAUTH_CODES
        .iter()
        .filter(|(_, kind)| *kind == ReissueErrorKind::Refused)
        .collect();
    assert_eq!(refused, [&("invalid_grant", ReissueErrorKind::Refused)]);
    for code in [
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "invalid_request",
        "invalid_dpop_proof",
        "use_dpop_nonce",
    ] {
        assert!(refresh_failure(coded(400, code)).await.is_misconfigured());
    }
    for code in ["temporarily_unavailable", "slow_down"] {
        assert!(refresh_failure(coded(400, code)).await.is_transient());
    }
    assert!(
        refresh_failure(coded(400, "server_error"))
            .await
            .is_unknown()
    );
}

#[tokio::test]
async fn without_a_known_code_the_status_decides() {
    use ReissueErrorKind::*;
    let kind = |status| match status {
        429 | 503 => Transient,
        408 | 500.. => Unknown,
        200..300 => Unknown,
        _ => Misconfigured,
    };
    for status in [
        200, 204, 301, 307, 400, 401, 403, 404, 408, 429, 500, 502, 503, 504,
    ] {
        for body in [
            r#"{"error":"CANARY"}"#,
            r#"{"error":["invalid_grant"]}"#,
            "<html>",
            "",
        ] {
            let error = refresh_failure(reply(status, body)).await;
            assert_eq!(error.kind, kind(status), "{status} {body}");
            let error = credentials_failure(reply(status, body)).await;
            assert_eq!(error.kind, kind(status), "{status} {body}");
        }
    }
    let message = chain(&refresh_failure(reply(401, "CANARY")).await);
    assert!(message.contains("on_error"), "{message}");
}

#[tokio::test]
async fn a_code_is_not_read_out_of_what_is_not_certain() {
    let refusal = || coded(400, "invalid_grant");
    for uncertain in [
        refusal().with(header::CONTENT_TYPE, "text/html"),
        refusal().with(header::CONTENT_ENCODING, "gzip"),
        refusal().breaking_off(),
        reply(400, r#"{"error":"invalid_grant","error":"invalid_grant"}"#),
    ] {
        assert!(refresh_failure(uncertain).await.is_misconfigured());
    }
}

#[tokio::test]
async fn a_code_for_later_comes_with_its_delay() {
    for status in [200, 400, 429, 503] {
        for code in ["temporarily_unavailable", "slow_down"] {
            let error = refresh_failure(coded(status, code).with(RETRY, "7")).await;
            assert_eq!(error.retry_after, Some(Duration::from_secs(7)), "{status}");
        }
        let error = refresh_failure(coded(status, "server_error").with(RETRY, "7")).await;
        assert_eq!(error.retry_after, None);
    }
}

#[tokio::test]
async fn an_error_beside_an_access_token_is_none() {
    let answer = r#"{"access_token":"a2","error":"invalid_grant"}"#;
    assert!(reissued(refresh(reply(200, answer))).await.is_ok());
}

// ===== on_error =====

fn throttled(answer: &ErrorAnswer<'_>) -> Option<ReissueError> {
    let codes = answer.member("/error_codes")?.as_array()?;
    let throttled = codes.contains(&50196.into());
    throttled.then(|| ReissueError::transient("slowed down"))
}

#[tokio::test]
async fn the_users_word_goes_before_the_rules() {
    let answer = |number: u32| {
        let body = json!({"error": "invalid_grant", "code": "T-003", "error_codes": [7, number]});
        reply(400, json_text(body)).with(RETRY, "7")
    };
    let outcomes = async |reply: Reply| {
        [
            reissued(refresh(reply.clone()).on_error(throttled)).await,
            reissued(json_reissue(reply.clone()).on_error(throttled)).await,
            reissued(cookie_reissue(reply.clone()).on_error(throttled)).await,
            reissued(credentials(reply).on_error(throttled)).await,
        ]
        .map(Result::unwrap_err)
    };
    for error in outcomes(answer(50196)).await {
        assert!(error.is_transient());
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    }
    let [refresh, json, cookie, credentials] = outcomes(answer(50197)).await;
    assert!(refresh.is_refused() && json.is_refused() && cookie.is_refused());
    assert!(credentials.is_misconfigured());
}

#[tokio::test]
async fn the_body_is_read_for_the_user_though_no_code_is_named() {
    let hook = |answer: &ErrorAnswer<'_>| {
        let own = answer.member("/error")?.get("why")? == "gone";
        own.then(|| ReissueError::refused("gone"))
    };
    let (client, _) = issuer(reply(410, r#"{"error":{"why":"gone"}}"#));
    let reissuer = JsonReissue::post(ADDRESS, client).on_error(hook);
    assert!(reissued(reissuer).await.unwrap_err().is_refused());
}

#[tokio::test]
async fn the_user_sees_the_status_the_headers_the_code_and_the_members() {
    let hook = |answer: &ErrorAnswer<'_>| {
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.headers()["retry-after"], "7");
        assert_eq!(answer.code(), Some("40103"));
        assert_eq!(answer.member("/error"), Some(&json!(40103)));
        assert_eq!(answer.member("/none"), None);
        assert_eq!(answer.member("/null"), None);
        assert_eq!(
            answer.member("").and_then(Value::as_object).unwrap().len(),
            2
        );
        assert_eq!(format!("{answer:?}"), "ErrorAnswer { status: 418, .. }");
        let delay = Duration::from_secs(60);
        Some(ReissueError::transient("tea").with_retry_after(delay))
    };
    let body = reply(418, r#"{"error":40103,"null":null}"#).with(RETRY, "7");
    let error = reissued(refresh(body).on_error(hook)).await.unwrap_err();
    let delay = Some(Duration::from_secs(60));
    assert_eq!(error.retry_after, delay, "its own delay counts");
}

#[tokio::test]
async fn the_user_is_asked_about_answers_without_tokens_only() {
    let asked = Arc::new(AtomicUsize::new(0));
    let hook = || {
        let asked = Arc::clone(&asked);
        move |answer: &ErrorAnswer<'_>| {
            asked.fetch_add(1, Ordering::Relaxed);
            assert_eq!(answer.member("/refresh_token"), None);
            None
        }
    };
    for (answer, times) in [
        (reply(200, good()), 0),
        (reply(200, r#"{"access_token":"a","error":"x"}"#), 0),
        (reply(200, r#"{"refresh_token":"CANARY","error":"x"}"#), 0),
        (reply(200, r#"{"x":"y"}"#), 0),
        (reply(200, r#"{"error":"x"}"#), 1),
        (reply(204, ""), 0),
        (reply(302, ""), 1),
        (
            reply(400, "<html>").with(header::CONTENT_TYPE, "text/html"),
            1,
        ),
        (reply(500, "").breaking_off(), 1),
    ] {
        asked.store(0, Ordering::Relaxed);
        let shown = format!("{:?}", answer.body.chunks);
        let _ = reissued(refresh(answer).on_error(hook())).await;
        assert_eq!(asked.load(Ordering::Relaxed), times, "{shown}");
    }
}

// ===== DPoP =====

/// What a test's signer was asked for, as its "proof".
fn proof(request: DpopRequest<'_>) -> Result<String, BoxError> {
    assert_eq!(format!("{request:?}"), "DpopRequest { method: POST, .. }");
    let (method, uri) = (request.method(), request.uri());
    Ok(format!("{method}|{uri}|{}", request.nonce().unwrap_or("-")))
}

fn wants_nonce() -> Reply {
    coded(400, "use_dpop_nonce")
}

fn nonce_header() -> HeaderName {
    HeaderName::from_static("dpop-nonce")
}

const SIGNED: &str = "POST|https://issuer.example/reissue";

#[tokio::test]
async fn a_nonce_is_used_at_once_and_the_newest_is_remembered() {
    let (client, sent) = scripted([
        wants_nonce().and(nonce_header(), "n1"),
        reply(200, good()).and(nonce_header(), "n2"),
        reply(200, good()),
    ]);
    let grant = RefreshGrant::post(ADDRESS, client).public_client("app");
    let grant = Arc::new(grant.dpop(proof));
    for _ in 0..3 {
        reissued(Arc::clone(&grant)).await.unwrap();
    }
    for (row, nonce) in ["-", "n1", "n2", "n2"].into_iter().enumerate() {
        let expected = format!("{SIGNED}|{nonce}");
        assert_eq!(header_of(&sent, row, "dpop").unwrap(), expected);
    }
    let first = body_of(&sent).await;
    assert_eq!(first, body_of(&sent).await, "nothing else has changed");
    assert_eq!(sent.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn client_credentials_are_proved_too() {
    let (client, sent) = scripted([wants_nonce().and(nonce_header(), "n1"), reply(200, good())]);
    let grant = ClientCredentials::post(ADDRESS, client).public_client("app");
    reissued(grant.dpop(proof)).await.unwrap();
    let expected = format!("{SIGNED}|n1");
    assert_eq!(header_of(&sent, 1, "dpop").unwrap(), expected);
}

#[tokio::test]
async fn a_nonce_is_asked_for_once_in_a_reissue() {
    let (client, sent) = issuer(wants_nonce().and(nonce_header(), "n1"));
    let grant = RefreshGrant::post(ADDRESS, client).dpop(proof);
    assert!(reissued(grant).await.unwrap_err().is_misconfigured());
    assert_eq!(sent.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn without_one_nonce_or_without_a_signer_it_is_not_tried_again() {
    let one = || wants_nonce().and(nonce_header(), "n1");
    let no_nonce = [
        wants_nonce(),
        one().and(nonce_header(), "n2"),
        wants_nonce().and(nonce_header(), ""),
        wants_nonce().and(nonce_header(), "a b"),
    ];
    for answer in no_nonce {
        let (client, sent) = scripted([answer, reply(200, good())]);
        let grant = RefreshGrant::post(ADDRESS, client).dpop(proof);
        assert!(reissued(grant).await.unwrap_err().is_misconfigured());
        assert_eq!(sent.lock().unwrap().len(), 1);
    }
    let (client, sent) = scripted([one(), reply(200, good())]);
    let grant = RefreshGrant::post(ADDRESS, client);
    assert!(reissued(grant).await.unwrap_err().is_misconfigured());
    // Any other error with a nonce is what it says.
    let other = coded(400, "invalid_dpop_proof").and(nonce_header(), "n1");
    let (client, also_sent) = scripted([other, reply(200, good())]);
    let grant = RefreshGrant::post(ADDRESS, client).dpop(proof);
    assert!(reissued(grant).await.unwrap_err().is_misconfigured());
    assert_eq!(sent.lock().unwrap().len(), 1);
    assert_eq!(also_sent.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_signer_that_fails_sends_nothing() {
    let (client, sent) = issuer(reply(200, good()));
    let grant = || RefreshGrant::post(ADDRESS, client.clone());
    let failing = grant().dpop(|_| Err("the key is away".into()));
    assert!(reissued(failing).await.unwrap_err().is_transient());
    let spoilt = grant().dpop(|_| Ok("CANARY\r\nx: y".to_owned()));
    assert!(reissued(spoilt).await.unwrap_err().is_misconfigured());
    assert!(sent.lock().unwrap().is_empty());
}

// ===== configuration =====

// shows B141
#[test]
fn a_grant_that_cannot_work_is_told_when_the_session_is_built() {
    let plain = || RefreshGrant::post(ADDRESS, issuer(reply(200, "")).0);
    let bare = || ClientCredentials::post(ADDRESS, issuer(reply(200, "")).0);
    let named = || plain().public_client("app");
    let wrong: Vec<Result<(), ConfigError>> = vec![
        plain().basic("", "CANARY").check(),
        plain().basic("CANARY\u{e9}", "x").check(),
        plain().basic("app", "CANARY\0").check(),
        plain().basic("app", "CANARY\u{e9}").check(),
        plain().client_in_body("", "CANARY").check(),
        plain().client_in_body("app", "").check(),
        plain().client_in_body("app", "CANARY\n").check(),
        plain().public_client("").check(),
        named().scope("").check(),
        named().scope("a  b").check(),
        named().scope(" a").check(),
        named().scope("a \"CANARY\"").check(),
        named().param("", "CANARY").check(),
        named().param("grant_type", "CANARY").check(),
        named().param("refresh_token", "CANARY").check(),
        named().param("scope", "CANARY").check(),
        named().param("client_id", "CANARY").check(),
        named().param("client_secret", "CANARY").check(),
        named().header("content-type", "text/plain").check(),
        named().header("dpop", "CANARY").dpop(proof).check(),
        plain()
            .basic("app", "x")
            .header("authorization", "CANARY")
            .check(),
        bare().check(),
        bare().header("authorization", "Basic CANARY").check(),
        bare().basic("app", "CANARY\0").check(),
        RefreshGrant::post("http://issuer.example/", issuer(reply(200, "")).0).check(),
    ];
    for (row, checked) in wrong.into_iter().enumerate() {
        let error = checked.expect_err(&format!("row {row}"));
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("CANARY"), "row {row}: {error}");
    }
    assert_eq!(plain().check(), Ok(()));
    assert_eq!(plain().basic("a:b c", "").check(), Ok(()));
    assert_eq!(plain().client_in_body("app", "x y").check(), Ok(()));
    assert_eq!(named().header("authorization", "x").check(), Ok(()));
    assert_eq!(named().scope("a:b/c https://d.example/e").check(), Ok(()));
    assert_eq!(bare().public_client("app").check(), Ok(()));
    let remote = RefreshGrant::post("http://issuer.example/", issuer(reply(200, "")).0);
    assert_eq!(remote.allow_plain_http().check(), Ok(()));
}

#[test]
fn debug_shows_nothing_of_the_client() {
    let shown = format!("{:?}", refresh(reply(200, "")).param("a", "CANARY"));
    assert_eq!(shown, "RefreshGrant { .. }");
    let shown = format!("{:?}", credentials(reply(200, "")));
    assert_eq!(shown, "ClientCredentials { .. }");
}
