//! Whatever an issuer answers: nothing panics, nothing grows, nothing that must not is shown.
//!
//! Half-broken documents are made out of good ones, so that they come far.

use std::cell::Cell;

use http::HeaderMap;
use http::HeaderValue;
use proptest::array::uniform3;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestRunner;

use super::*;
use crate::reissue::answer::Contract;
use crate::reissue::document::Document;
use crate::reissue::exchange::Answer;

/// What is put into good ones.
const PIECES: [&str; 28] = [
    "\"",
    ",",
    ":",
    "{",
    "}",
    "[",
    "]",
    "\\",
    " ",
    "\n",
    "\0",
    "\u{e9}",
    "7",
    "-1",
    "1e999",
    "null",
    "true",
    "\"CANARY\"",
    "\\u0061",
    "\\ud800",
    "\"error\":\"invalid_grant\",",
    "\"code\":\"T-003\",",
    "\"access_token\":\"CANARY\",",
    "\"accessToken\":null,",
    ";",
    "=",
    "Max-Age=0",
    "refreshToken=CANARY",
];

/// An edit is a number, as numbers are made fast, and zero is none: that is what they shrink to.
fn edit(text: &mut Vec<u8>, edit: u32) {
    let [kind, what, low, high] = edit.to_le_bytes();
    let at = usize::from(u16::from_le_bytes([low, high])) % (text.len() + 1);
    let what = usize::from(what);
    let reach = |length: usize| at..(at + length).min(text.len());
    match kind % 16 {
        0..9 => {}
        9..12 => drop(text.splice(at..at, PIECES[what % PIECES.len()].bytes())),
        12 => drop(text.drain(reach(1 + what % 20))),
        13 => drop(text.splice(reach(1), [edit.to_le_bytes()[1]])),
        14 => text.truncate(at),
        _ => text.extend_from_within(reach(1 + what % 60)),
    }
}

/// One in eight is noise, the others have up to three edits.
fn spoilt(good: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), uniform3(any::<u32>())).prop_map(move |(choice, edits)| {
        let choice = usize::from(choice);
        if choice % 8 == 7 {
            return edits.iter().flat_map(|edit| edit.to_le_bytes()).collect();
        }
        let mut text = good[choice / 8 % good.len()].as_bytes().to_vec();
        edits.into_iter().for_each(|number| edit(&mut text, number));
        text
    })
}

/// `check` tells whether it came to something worth it, as some thousands must: else it would have
/// shown nothing.
fn for_many<S: Strategy>(strategy: S, check: impl Fn(S::Value) -> bool) {
    let config = Config {
        cases: 100_000,
        failure_persistence: None,
        ..Config::default()
    };
    let deep = Cell::new(0);
    let outcome = TestRunner::new(config).run(&strategy, |value| {
        deep.set(deep.get() + u32::from(check(value)));
        Ok(())
    });
    outcome.unwrap();
    assert!(deep.get() > 5_000, "{}", deep.get());
}

fn contracts() -> [Contract; 2] {
    let mut home_made = Contract::home_made();
    home_made.refused_codes.push("T-003".to_owned());
    [home_made, Contract::oauth()]
}

/// P12, and that no message is as long as the issuer likes.
fn assert_discreet(error: &ReissueError) {
    let shown = format!("{error:?} {}", chain(error));
    let limit = 1024;
    assert!(!shown.contains("CANARY") && shown.len() < limit, "{shown}");
}

/// P6: another reader finds the code as well.
fn assert_refused_for_a_reason(error: &ReissueError, code: &Pointer, body: &[u8]) {
    if error.is_refused() {
        let document: Value = serde_json::from_slice(body).unwrap();
        let code = code.get(&document).and_then(Value::as_str);
        assert!(matches!(code, Some("T-003" | "invalid_grant")));
    }
}

// shows S6, S8, B130, P6, P12
#[test]
fn every_token_response_has_a_meaning_that_shows_no_secret() {
    const GOOD: [&str; 7] = [
        r#"{"access_token":"CANARY-a","token_type":"Bearer","expires_in":3600,"refresh_token":"CANARY-r"}"#,
        r#"{"access_token":"CANARY-a","token_type":"DPoP","scope":"a b"}"#,
        r#"{"accessToken":"CANARY-a","refreshToken":"CANARY-r","expiresIn":"900"}"#,
        r#"{"accessToken":"CANARY-a","accessTokenExpiresAt":"2100-01-01T00:00:00Z","user":{"id":7}}"#,
        r#"{"error":"invalid_grant","error_description":"CANARY","error_codes":[50196]}"#,
        r#"{"code":"T-003","message":"CANARY","data":null}"#,
        r#"[{"access_token":"CANARY-a"}]"#,
    ];
    let contracts = contracts();
    for_many(spoilt(&GOOD), |body| {
        let mut good = false;
        for (contract, pointer) in contracts.iter().zip(["/refreshToken", "/refresh_token"]) {
            let mut answer = Answer {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                document: Document::parse(&body),
            };
            let pointer = Pointer::new(pointer);
            let rotated = answer::refresh_token(&mut answer.document, &pointer);
            match contract.success(answer, rotated) {
                Ok(tokens) => {
                    assert!(tokens.access_token().expose().len() <= body.len());
                    assert!(!format!("{tokens:?}").contains("CANARY"));
                    good = true;
                }
                Err(error) => {
                    assert_discreet(&error);
                    assert_refused_for_a_reason(&error, &contract.code, &body);
                }
            }
        }
        good
    });
}

// shows S7, S8, B130, P6, P12
#[test]
fn every_error_response_has_a_meaning_that_shows_no_secret() {
    const GOOD: [&str; 5] = [
        r#"{"error":"invalid_grant","error_description":"CANARY"}"#,
        r#"{"error":"temporarily_unavailable","error_uri":"https://CANARY"}"#,
        r#"{"code":"T-003","message":"CANARY"}"#,
        r#"{"code":40103,"CANARY":[{"CANARY":{}}]}"#,
        "<html>CANARY</html>",
    ];
    let contracts = contracts();
    for_many((spoilt(&GOOD), 300..600_u16), |(body, status)| {
        let mut refused = false;
        for contract in &contracts {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                document: Document::parse(&body),
            };
            let error = contract.failure(&answer);
            assert_discreet(&error);
            assert_refused_for_a_reason(&error, &contract.code, &body);
            let is_oauth = !contract.codes.is_empty();
            let may_refuse = (400..500).contains(&status) && ![408, 429].contains(&status);
            assert!(!error.is_refused() || !is_oauth || may_refuse, "{status}");
            assert!(error.rotated.is_none() && error.retry_after.is_none());
            refused |= error.is_refused();
        }
        refused
    });
}

// shows B60
#[test]
fn every_retry_after_is_a_delay_or_none() {
    const GOOD: [&str; 5] = [
        "120",
        "0",
        "18446744073709551615",
        "Fri, 01 Jan 2100 00:00:00 GMT",
        "Friday, 01-Jan-99 00:00:00 GMT",
    ];
    let contract = Contract::oauth();
    let name = header::RETRY_AFTER;
    for_many(spoilt(&GOOD), |value| {
        let Ok(value) = HeaderValue::from_bytes(&value) else {
            return false;
        };
        let answer = Answer {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: HeaderMap::from_iter([(name.clone(), value.clone())]),
            document: Err("its body was not read".into()),
        };
        let error = contract.failure(&answer);
        assert!(error.is_transient());
        let digits = value.to_str().map(str::trim).unwrap_or_default();
        match digits.parse::<u64>() {
            // `parse` takes a sign, which is none of a delay's.
            Ok(seconds) if !digits.starts_with('+') => {
                assert_eq!(error.retry_after, Some(Duration::from_secs(seconds)));
            }
            _ => {
                // Then it is a date, of which the last is at the end of the year 9999.
                let last = Duration::from_secs(253_402_300_800);
                assert!(error.retry_after.is_none_or(|delay| delay < last));
            }
        }
        error.retry_after.is_some()
    });
}

// shows S6, B130, P12
#[test]
fn every_set_cookie_is_a_refresh_token_or_none() {
    const GOOD: [&str; 6] = [
        "refreshToken=CANARY-r; Path=/; HttpOnly; Secure; SameSite=Strict",
        "refreshToken=CANARY-r; Max-Age=3600; Expires=Fri, 01 Jan 2100 00:00:00 GMT",
        "refreshToken=\"CANARY\"",
        "refreshToken=; Max-Age=0",
        "refreshTokens=CANARY",
        "a=CANARY; Domain=example.com",
    ];
    let now = SystemTime::now();
    for_many((spoilt(&GOOD), spoilt(&GOOD)), |values| {
        let values = [values.0, values.1];
        let length = values.iter().map(Vec::len).max().unwrap_or_default();
        let lines = values.into_iter().filter_map(|value| {
            let value = HeaderValue::from_maybe_shared(Bytes::from(value)).ok()?;
            Some((header::SET_COOKIE, value))
        });
        match cookie::rotated(&lines.collect(), "refreshToken", now) {
            Ok(Some(token)) => {
                assert!(token.expose().len() <= length);
                assert!(token.expose().bytes().all(|byte| byte.is_ascii_graphic()));
                true
            }
            Ok(None) => false,
            Err(error) => {
                assert_discreet(&ReissueError::unknown(error));
                true
            }
        }
    });
}
