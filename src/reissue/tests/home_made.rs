//! Issuers with a contract of their own.

use super::*;

// ===== what is sent =====

#[tokio::test]
async fn the_refresh_token_goes_as_a_bearer_beside_the_identity() {
    let (client, sent) = issuer(reply(200, good()));
    let reissuer = JsonReissue::post(ADDRESS, client).header("X-Api-Key", "secret");
    reissued(reissuer).await.unwrap();
    {
        let sent = sent.lock().unwrap();
        let [request] = sent.as_slice() else {
            panic!("sent {} requests", sent.len());
        };
        assert_eq!(request.method(), http::Method::POST);
        assert_eq!(request.uri(), ADDRESS);
        let headers = request.headers();
        assert_eq!(headers[header::AUTHORIZATION], "Bearer CANARY-refresh");
        assert!(headers[header::AUTHORIZATION].is_sensitive());
        assert!(headers["x-api-key"].is_sensitive());
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(headers[header::ACCEPT], "application/json");
        assert_eq!(headers[header::ACCEPT_ENCODING], "identity");
        assert!(!headers.contains_key(header::COOKIE));
        // shows P15
        assert!(request.extensions().get::<WithoutToken>().is_some());
    }
    let body: Value = serde_json::from_slice(&body_of(&sent).await).unwrap();
    assert_eq!(body, json!({"id": "7", "email": "user@example.com"}));
}

#[tokio::test]
async fn the_refresh_token_can_go_in_the_body_instead() {
    let (client, sent) = issuer(reply(200, good()));
    let reissuer = JsonReissue::post(ADDRESS, client).refresh_token_in_body("id");
    reissued(reissuer).await.unwrap();
    let has_authorization = |request: &Request<_>| request.headers().contains_key("authorization");
    assert!(!sent.lock().unwrap().iter().any(has_authorization));
    let length = sent.lock().unwrap()[0].headers()[header::CONTENT_LENGTH].clone();
    let body = body_of(&sent).await;
    assert_eq!(length, body.len().to_string());
    let text = r#"{"email":"user@example.com","id":"CANARY-refresh"}"#;
    assert_eq!(
        body, text,
        "and takes the place of an identity of that name"
    );
}

#[tokio::test]
async fn without_an_identity_the_body_is_an_empty_object() {
    let (client, sent) = issuer(reply(200, good()));
    let reissuer = JsonReissue::post(ADDRESS, client);
    let tokens = TokenSet::new("a").unwrap().with_refresh_token("r").unwrap();
    let request = ReissueRequest::new(Some(tokens));
    Reissue::reissue(&reissuer, request).await.unwrap();
    assert_eq!(body_of(&sent).await, "{}");
}

#[tokio::test]
async fn a_cookie_reissue_sends_a_cookie_and_nothing_else() {
    let (client, sent) = issuer(reply(200, good()));
    reissued(CookieReissue::post(ADDRESS, client).cookie("rt"))
        .await
        .unwrap();
    {
        let sent = sent.lock().unwrap();
        let headers = sent[0].headers();
        assert_eq!(headers[header::COOKIE], "rt=CANARY-refresh");
        assert!(headers[header::COOKIE].is_sensitive());
        assert_eq!(headers[header::CONTENT_LENGTH], "0");
        assert!(!headers.contains_key(header::AUTHORIZATION));
        assert!(!headers.contains_key(header::CONTENT_TYPE));
        assert!(sent[0].extensions().get::<WithoutToken>().is_some());
    }
    assert_eq!(body_of(&sent).await, "");
}

#[tokio::test]
async fn a_refresh_token_that_cannot_stand_in_a_cookie_is_not_sent() {
    let (client, sent) = issuer(reply(200, good()));
    let tokens = TokenSet::new("a")
        .unwrap()
        .with_refresh_token("CANARY;x")
        .unwrap();
    let reissuer = CookieReissue::post(ADDRESS, client);
    let request = ReissueRequest::new(Some(tokens));
    let error = Reissue::reissue(&reissuer, request).await.unwrap_err();
    assert!(error.is_misconfigured());
    assert!(!format!("{error:?}").contains("CANARY"));
    assert!(sent.lock().unwrap().is_empty());
}

// RFC 6265 section 5.4: a browser would send it as well.
#[tokio::test]
async fn what_a_cookie_brought_goes_back_as_it_came() {
    for value in ["R2,other=1", "R\"2", "R\\2", "\"R2\"", "\"", "a=b=="] {
        let line = format!("refreshToken={value}; Path=/").leak();
        let answer = reply(200, good()).with(header::SET_COOKIE, line);
        let tokens = reissued(cookie_reissue(answer)).await.unwrap();
        assert_eq!(tokens.refresh_token().unwrap().expose(), value);
        let (client, sent) = issuer(reply(200, good()));
        let reissuer = CookieReissue::post(ADDRESS, client);
        let request = ReissueRequest::new(Some(tokens));
        Reissue::reissue(&reissuer, request).await.unwrap();
        let expected = format!("refreshToken={value}");
        assert_eq!(sent.lock().unwrap()[0].headers()[header::COOKIE], expected);
    }
}

#[tokio::test]
async fn without_a_refresh_token_nothing_is_sent() {
    let (client, sent) = issuer(reply(200, good()));
    let json = JsonReissue::post(ADDRESS, client.clone());
    let cookie = CookieReissue::post(ADDRESS, client);
    let request = ReissueRequest::new(None);
    let outcome = Reissue::reissue(&json, request.clone()).await;
    assert!(outcome.unwrap_err().is_misconfigured());
    let outcome = Reissue::reissue(&cookie, request).await;
    assert!(outcome.unwrap_err().is_misconfigured());
    assert!(sent.lock().unwrap().is_empty());
}

// ===== successes =====

#[tokio::test]
async fn the_tokens_of_a_json_answer_are_read() {
    let tokens = reissued(json_reissue(reply(200, good()))).await.unwrap();
    assert_eq!(tokens.access_token().expose(), "CANARY-a2");
    assert_eq!(tokens.refresh_token().unwrap().expose(), "CANARY-r2");
    let left = tokens
        .expires_at()
        .unwrap()
        .duration_since(SystemTime::now());
    assert!(left.unwrap() > Duration::from_secs(890));
}

#[tokio::test]
async fn an_absent_null_or_empty_refresh_token_keeps_the_old_one() {
    for refresh_token in [
        json!({}),
        json!({"refreshToken": null}),
        json!({"refreshToken": ""}),
    ] {
        let mut answer = refresh_token;
        answer["accessToken"] = json!("a2");
        let tokens = reissued(json_reissue(reply(200, json_text(answer))))
            .await
            .unwrap();
        assert!(tokens.refresh_token().is_none());
    }
}

#[tokio::test]
async fn an_answer_of_another_shape_is_described_by_pointers() {
    let answer = json!({"data": [{"token": "a2", "more": {"rt": "r2"}}], "at": 4_000_000_000_u64});
    let reissuer = json_reissue(reply(201, json_text(answer)))
        .access_token_at("/data/0/token")
        .refresh_token_at("/data/0/more/rt")
        .expiry_at("/at");
    let tokens = reissued(reissuer).await.unwrap();
    assert_eq!(tokens.access_token().expose(), "a2");
    assert_eq!(tokens.refresh_token().unwrap().expose(), "r2");
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    assert_eq!(tokens.expires_at(), Some(at));
}

#[tokio::test]
async fn an_expiry_that_cannot_be_read_is_ignored() {
    for expiry in [json!("soon"), json!(true), json!([]), json!(-1)] {
        let answer =
            json!({"accessToken": "a2", "expiresIn": expiry, "accessTokenExpiresAt": expiry});
        let tokens = reissued(json_reissue(reply(200, json_text(answer))))
            .await
            .unwrap();
        assert_eq!(tokens.expires_at(), None);
    }
}

#[tokio::test]
async fn a_cookie_rotates_the_refresh_token_and_the_body_does_not() {
    let answer = reply(200, good()).with(header::SET_COOKIE, "refreshToken=CANARY-r3; Path=/");
    let tokens = reissued(cookie_reissue(answer)).await.unwrap();
    assert_eq!(tokens.access_token().expose(), "CANARY-a2");
    assert_eq!(tokens.refresh_token().unwrap().expose(), "CANARY-r3");
    let tokens = reissued(cookie_reissue(reply(200, good()))).await.unwrap();
    assert!(tokens.refresh_token().is_none());
}

#[tokio::test]
async fn the_media_type_of_a_success_does_not_matter() {
    let answer = reply(200, good()).with(header::CONTENT_TYPE, "text/plain");
    assert!(reissued(json_reissue(answer)).await.is_ok());
}

// ===== successes that cannot be read =====

/// A JSON answer that is padded to a number of bytes.
fn padded(length: usize) -> String {
    let mut text = good();
    text.push_str(&" ".repeat(length - text.len()));
    text
}

#[tokio::test]
async fn a_success_that_cannot_be_read_is_of_unknown_outcome() {
    let deep = format!(r#"{{"accessToken":"CANARY","x":{}"#, "[".repeat(10_000));
    let html = "<html>CANARY</html>";
    let defective = [
        reply(200, html).with(header::CONTENT_TYPE, "text/html"),
        reply(200, ""),
        reply(204, ""),
        reply(200, " \n"),
        reply(200, r#"{"accessToken":"CANARY"#),
        reply(200, r#"{"accessToken":"CANARY"} CANARY"#),
        reply(200, "{\"accessToken\":\"CAN\nARY\"}"),
        reply(200, b"{\"accessToken\":\"CANARY\xff\"}".as_slice()),
        reply(200, deep),
        reply(200, good()).breaking_off(),
        reply(200, "").breaking_off(),
        reply(200, padded(2 << 20)),
        reply(200, good()).with(header::CONTENT_LENGTH, "1048577"),
        reply(200, good()).with(header::CONTENT_ENCODING, "gzip"),
        reply(200, "[]"),
        reply(200, r#""CANARY""#),
        reply(200, r#"{"refreshToken":null}"#),
        reply(200, r#"{"accessToken":null}"#),
        reply(200, r#"{"accessToken":7}"#),
        reply(200, r#"{"accessToken":""}"#),
        reply(200, r#"{"accessToken":"CANARY\r\nx: y"}"#),
        reply(200, r#"{"accessToken":"CANARY\u0000"}"#),
        reply(200, r#"{"accessToken":"CANARY","accessToken":"CANARY"}"#),
        reply(
            200,
            r#"{"accessToken":"CANARY","x":[{"CANARY":1,"CANARY":1}]}"#,
        ),
    ];
    for reply in defective {
        let shown = format!("{:?} {:.60?}", reply.headers, reply.body.chunks);
        let error = failure(reply).await;
        assert!(error.is_unknown(), "{shown}: {error:?}");
        assert!(error.rotated.is_none(), "{shown}");
    }
}

#[tokio::test]
async fn an_answer_of_just_the_limit_is_read() {
    assert!(
        reissued(json_reissue(reply(200, padded(1 << 20))))
            .await
            .is_ok()
    );
    assert!(
        failure(reply(200, padded((1 << 20) + 1)))
            .await
            .is_unknown()
    );
}

// shows S7
#[tokio::test]
async fn an_endless_answer_is_read_to_the_limit_only() {
    let endless = reply(200, vec![b' '; 4096]).endless();
    let read = Arc::clone(&endless.body.read);
    assert!(
        reissued(json_reissue(endless))
            .await
            .unwrap_err()
            .is_unknown()
    );
    let read = *read.lock().unwrap();
    assert!(read <= (1 << 20) + 4096, "{read}");
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_not_read_at_all() {
    let large = reply(200, good()).with(header::CONTENT_LENGTH, "1048577");
    let read = Arc::clone(&large.body.read);
    assert!(
        reissued(json_reissue(large))
            .await
            .unwrap_err()
            .is_unknown()
    );
    assert_eq!(*read.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_new_refresh_token_in_a_defective_success_is_kept() {
    let answers = [
        r#"{"refreshToken":"CANARY-r2"}"#,
        r#"{"refreshToken":"CANARY-r2","accessToken":7}"#,
        r#"{"refreshToken":"CANARY-r2","accessToken":"a b"}"#,
        r#"{"refreshToken":"CANARY-r2","accessToken":"a","accessToken":"b"}"#,
        r#"{"refreshToken":"CANARY-r2","accessToken":"a","x":{"y":1,"y":2}}"#,
    ];
    for answer in answers {
        let error = reissued(json_reissue(reply(200, answer)))
            .await
            .unwrap_err();
        assert!(error.is_unknown(), "{answer}");
        let rotated = error.rotated.as_ref().map(RefreshToken::expose);
        assert_eq!(rotated, Some("CANARY-r2"), "{answer}");
    }
}

#[tokio::test]
async fn a_new_refresh_token_in_a_cookie_survives_every_body() {
    let html = "<html>CANARY</html>";
    for body in [
        reply(200, html),
        reply(200, ""),
        reply(200, good()).breaking_off(),
    ] {
        let body = body.with(header::SET_COOKIE, "refreshToken=CANARY-r2");
        let error = reissued(cookie_reissue(body)).await.unwrap_err();
        assert!(error.is_unknown());
        assert_eq!(error.rotated.unwrap().expose(), "CANARY-r2");
    }
}

#[tokio::test]
async fn a_new_refresh_token_that_is_none_makes_the_outcome_unknown() {
    let answers = [
        r#"{"accessToken":"a2","refreshToken":"CANARY x"}"#,
        r#"{"accessToken":"a2","refreshToken":["CANARY"]}"#,
        r#"{"accessToken":"a2","refreshToken":"CANARY","refreshToken":"CANARY-r2"}"#,
    ];
    for answer in answers {
        let error = reissued(json_reissue(reply(200, answer)))
            .await
            .unwrap_err();
        assert!(error.is_unknown(), "{answer}");
        assert!(error.rotated.is_none(), "{answer}");
    }
    let cookie = reply(200, good()).with(header::SET_COOKIE, "refreshToken=CANARY x");
    assert!(
        reissued(cookie_reissue(cookie))
            .await
            .unwrap_err()
            .is_unknown()
    );
}

// ===== failures =====

// shows B55, B56, P6
#[tokio::test]
async fn a_refusal_is_known_by_its_code_whatever_the_status() {
    for status in [400, 401, 403, 404, 408, 429, 500, 503, 302] {
        for code in [json!("T-003"), json!(40103)] {
            let body = json_text(json!({"code": code, "message": "CANARY"}));
            let error = failure(reply(status, body.clone())).await;
            assert!(error.is_refused(), "{status} {body}: {error:?}");
        }
    }
    let error = failure(reply(401, r#"{"code":"T-003"}"#)).await;
    assert!(
        format!("{error:?}").contains("T-003"),
        "the user's own word is named"
    );
}

#[tokio::test]
async fn without_a_named_code_the_status_decides_and_nothing_is_refused() {
    use ReissueErrorKind::*;
    let kind = |status| match status {
        408 => Unknown,
        429 | 503 => Transient,
        300..500 => Misconfigured,
        _ => Unknown,
    };
    let bodies = [
        r#"{"code":"CANARY"}"#,
        "<html>T-003</html>",
        "",
        r#"{"code":null}"#,
    ];
    for status in (300..600).chain([101]) {
        for body in bodies {
            let error = failure(reply(status, body)).await;
            assert_eq!(error.kind, kind(status), "{status} {body}");
        }
    }
}

#[tokio::test]
async fn a_code_is_not_read_out_of_what_is_not_certain() {
    let refusal = || reply(401, r#"{"code":"T-003"}"#);
    let uncertain = [
        refusal().with(header::CONTENT_TYPE, "text/html"),
        refusal().with(header::CONTENT_ENCODING, "gzip"),
        refusal().with(header::CONTENT_LENGTH, "1048577"),
        refusal().breaking_off(),
        reply(401, r#"{"code":"CANARY","code":"T-003"}"#),
        reply(401, r#"{"x":{"y":1,"y":1},"code":"T-003"}"#),
        reply(
            401,
            format!("{{\"code\":\"T-003\"}}{}", " ".repeat(1 << 20)),
        ),
    ];
    for reply in uncertain {
        let shown = format!("{:?} {:.60?}", reply.headers, reply.body.chunks);
        assert!(failure(reply).await.is_misconfigured(), "{shown}");
    }
}

#[tokio::test]
async fn an_error_without_a_media_type_may_hold_a_code() {
    let mut refusal = reply(401, r#"{"code":"T-003"}"#);
    refusal.headers.clear();
    assert!(failure(refusal).await.is_refused());
}

#[tokio::test]
async fn a_status_can_be_named_a_refusal() {
    let reissuer = json_reissue(reply(401, "")).refused_status(StatusCode::UNAUTHORIZED);
    assert!(reissued(reissuer).await.unwrap_err().is_refused());
    let reissuer = cookie_reissue(reply(403, "")).refused_status(StatusCode::UNAUTHORIZED);
    assert!(reissued(reissuer).await.unwrap_err().is_misconfigured());
}

#[tokio::test]
async fn the_place_of_the_code_can_be_set() {
    let refusal = reply(400, r#"{"error":{"code":"T-003"},"code":"x"}"#);
    let reissuer = json_reissue(refusal).code_at("/error/code");
    assert!(reissued(reissuer).await.unwrap_err().is_refused());
}

#[tokio::test]
async fn a_client_error_without_a_known_code_says_what_to_name() {
    let error = failure(reply(401, "CANARY")).await;
    let message = chain(&error);
    assert!(
        message.contains("401") && message.contains("refused(…)"),
        "{message}"
    );
}

#[tokio::test]
async fn bodies_of_failures_are_read_only_where_a_code_was_named() {
    let endless = reply(500, vec![b'x'; 4096]).endless();
    let read = Arc::clone(&endless.body.read);
    let reissuer = JsonReissue::post(ADDRESS, issuer(endless).0);
    assert!(reissued(reissuer).await.unwrap_err().is_unknown());
    assert_eq!(*read.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_busy_issuer_says_when_to_come_back() {
    for status in [429, 503] {
        let busy = |text| failure(reply(status, "").with(header::RETRY_AFTER, text));
        assert_eq!(busy("7").await.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(busy("soon").await.retry_after, None);
        assert_eq!(
            busy("Sun, 06 Nov 1994 08:49:37 GMT").await.retry_after,
            None
        );
        let date = busy("Fri, 01 Jan 2100 00:00:00 GMT").await.retry_after;
        assert!(date.unwrap() > Duration::from_secs(86_400));
    }
    let down = failure(reply(500, "").with(header::RETRY_AFTER, "7")).await;
    assert_eq!(down.retry_after, None);
}

// shows S10
#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = "https://evil.example/CANARY";
        let (client, sent) = issuer(reply(status, "").with(header::LOCATION, elsewhere));
        let error = reissued(JsonReissue::post(ADDRESS, client))
            .await
            .unwrap_err();
        assert!(error.is_misconfigured(), "{status}");
        assert!(chain(&error).contains("redirects are not followed"));
        assert_eq!(sent.lock().unwrap().len(), 1, "{status}");
    }
}

// shows P6: what OAuth has fixed ends nobody else's session.
#[tokio::test]
async fn the_codes_of_oauth_mean_nothing_to_a_home_made_contract() {
    for (code, _) in answer::OAUTH_CODES {
        let body = json_text(json!({"code": code, "error": code}));
        assert!(failure(reply(400, body.clone())).await.is_misconfigured());
        assert!(failure(reply(500, body)).await.is_unknown());
    }
}

#[tokio::test]
async fn a_code_in_place_of_the_tokens_of_a_success_counts() {
    let refusal = reply(200, r#"{"code":"T-003","data":null}"#);
    assert!(failure(refusal).await.is_refused());
    let other = reply(200, r#"{"code":"T-007","data":null}"#);
    assert!(failure(other).await.is_unknown());
    let fine = reply(200, r#"{"code":"T-003","accessToken":"a2"}"#);
    assert!(reissued(json_reissue(fine.clone())).await.is_ok());
    assert!(reissued(cookie_reissue(fine)).await.is_ok());
    let uncertain = reply(200, r#"{"code":"T-003","x":1,"x":2}"#);
    assert!(failure(uncertain).await.is_unknown());
    // Who hands out a new refresh token refuses none.
    let rotated = reply(200, r#"{"code":"T-003","refreshToken":"CANARY-r2"}"#);
    let error = reissued(json_reissue(rotated)).await.unwrap_err();
    assert!(error.is_unknown());
    assert_eq!(error.rotated.unwrap().expose(), "CANARY-r2");
}

// ===== configuration =====

// shows B141
#[test]
fn what_cannot_work_is_told_when_the_session_is_built() {
    let json = || json_reissue(reply(200, ""));
    let cookie = || cookie_reissue(reply(200, ""));
    let at = |uri: &str| JsonReissue::post(uri, issuer(reply(200, "")).0);
    let wrong: Vec<Box<dyn Fn() -> Result<(), ConfigError>>> = vec![
        Box::new(|| at("not a uri ?CANARY").check()),
        Box::new(|| at("https://CANARY@issuer.example/#x").check()),
        Box::new(|| at("http://issuer.example/?key=CANARY").check()),
        Box::new(|| at("https://user:CANARY@issuer.example/").check()),
        Box::new(|| json().access_token_at("accessToken").check()),
        Box::new(|| json().refresh_token_at("refreshToken").check()),
        Box::new(|| json().lifetime_at("x").check()),
        Box::new(|| json().expiry_at("x").check()),
        Box::new(|| cookie().code_at("code").check()),
        Box::new(|| json().refused_status(StatusCode::OK).check()),
        Box::new(|| {
            cookie()
                .refused_status(StatusCode::SERVICE_UNAVAILABLE)
                .check()
        }),
        Box::new(|| json().header("x y", "CANARY").header("a", "b").check()),
        Box::new(|| json().header("x", "CANARY\n").check()),
        Box::new(|| json().header("Authorization", "Basic CANARY").check()),
        Box::new(|| json().header("Content-Type", "text/plain").check()),
        Box::new(|| cookie().header("cookie", "a=CANARY").check()),
        Box::new(|| cookie().cookie("a b").check()),
    ];
    for (row, check) in wrong.iter().enumerate() {
        let error = check().expect_err(&format!("row {row}"));
        assert!(
            !format!("{error} {error:?}").contains("CANARY"),
            "row {row}: {error}"
        );
    }
    assert_eq!(json().check(), Ok(()));
    assert_eq!(cookie().check(), Ok(()));
    assert_eq!(
        at("http://issuer.example/").allow_plain_http().check(),
        Ok(())
    );
    let basic = json().refresh_token_in_body("refreshToken");
    assert_eq!(basic.header("authorization", "Basic x").check(), Ok(()));
    let cookie = cookie().header("authorization", "Basic x");
    assert_eq!(cookie.header("accept", "text/json").check(), Ok(()));
}

#[test]
fn a_wrong_address_is_shown_and_what_to_do() {
    let wrong = |uri: &str| {
        let reissuer = JsonReissue::post(uri, issuer(reply(200, "")).0);
        reissuer.check().unwrap_err().to_string()
    };
    for uri in [
        "issuer.example /token",
        "/member/token/refresh",
        "http://issuer.example/token",
    ] {
        assert!(wrong(uri).contains(&format!("{uri:?}")), "{}", wrong(uri));
    }
    // P12
    for secret in [
        "https://CANARY@a.test/",
        "https://a.test/#CANARY",
        "ftp://a.test/?CANARY",
    ] {
        assert!(!wrong(secret).contains("CANARY"), "{}", wrong(secret));
    }
    assert!(wrong("http://issuer.example/").contains("allow_plain_http"));
}

// shows B141
#[test]
fn headers_of_the_connection_cannot_be_given() {
    for name in [
        "Connection",
        "expect",
        "Keep-Alive",
        "proxy-connection",
        "te",
        "trailer",
        "Transfer-Encoding",
        "upgrade",
    ] {
        let json = json_reissue(reply(200, "")).header(name, "CANARY").check();
        let cookie = cookie_reissue(reply(200, "")).header(name, "CANARY");
        let message = json.unwrap_err().to_string();
        assert!(message.contains(&name.to_ascii_lowercase()), "{message}");
        assert!(!message.contains("CANARY"), "{message}");
        assert!(cookie.check().is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_success_without_an_access_token_says_how_to_name_its_place() {
    for defective in [
        r#"{"data":{"token":"CANARY"}}"#,
        r#"{"accessToken":{"value":"CANARY"}}"#,
    ] {
        let message = chain(&failure(reply(200, defective)).await);
        assert!(message.contains("access_token_at(…)"), "{message}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_sends_nothing() {
    let (client, sent) = issuer(reply(200, good()));
    let reissuer = JsonReissue::post("http://issuer.example/", client.clone());
    assert!(reissued(reissuer).await.unwrap_err().is_misconfigured());
    let reissuer = CookieReissue::post(ADDRESS, client).code_at("code");
    assert!(reissued(reissuer).await.unwrap_err().is_misconfigured());
    assert!(sent.lock().unwrap().is_empty());
}

#[test]
fn debug_shows_nothing_of_the_address_or_the_headers() {
    let reissuer = json_reissue(reply(200, "")).header("x-key", "CANARY");
    assert_eq!(format!("{reissuer:?}"), "JsonReissue { .. }");
    let reissuer = cookie_reissue(reply(200, "")).header("x-key", "CANARY");
    assert_eq!(format!("{reissuer:?}"), "CookieReissue { .. }");
}
