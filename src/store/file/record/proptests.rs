//! What holds for every login and every text.

use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;

/// When the files of these tests were written: 2001-09-09T01:46:40Z.
fn written_at() -> SystemTime {
    after(1_000_000_000)
}

fn after(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn written(text: &str, tokens: Option<&TokenSet>) -> String {
    let record = Record::parse(text.as_bytes()).unwrap();
    let text = record.with_login(tokens, written_at()).unwrap();
    String::from_utf8(text.to_vec()).unwrap()
}

fn login(text: &str) -> Login {
    let record = Record::parse(text.as_bytes()).unwrap();
    record.login(written_at()).unwrap()
}

fn token() -> impl Strategy<Value = String> {
    "[!-~]{1,40}"
}

fn time() -> impl Strategy<Value = SystemTime> {
    // From 1970 to the year 9999.
    (0..253_000_000_000_u64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    let name = prop_oneof!["id|email|uid|name", any::<String>()];
    name.prop_filter("it is ours", |name| !is_own(name))
}

prop_compose! {
    fn any_tokens()(
        access in token(),
        refresh in proptest::option::of(token()),
        expires_at in proptest::option::of(time()),
        identity in proptest::collection::btree_map(name(), value(), 0..4),
        doubt in proptest::option::of((time(), 1..u32::MAX)),
        obtained_at in (0..1_700_000_000_u64).prop_map(after),
    ) -> TokenSet {
        let mut tokens = TokenSet::new(access).unwrap().with_obtained_at(obtained_at);
        if let Some(refresh) = refresh {
            tokens = tokens.with_refresh_token(refresh).unwrap();
        }
        if let Some(at) = expires_at {
            tokens = tokens.with_expires_at(at);
        }
        if let Some((since, tries)) = doubt {
            tokens = tokens.with_in_doubt(InDoubt::new(since, tries));
        }
        identity.into_iter().fold(tokens, |tokens, (name, value)| tokens.with_identity(name, value))
    }
}

/// Files of somebody else: tokens, perhaps with an expiry, among other members.
fn any_file() -> impl Strategy<Value = serde_json::Map<String, Value>> {
    let others = proptest::collection::btree_map(name(), value(), 0..5);
    let own = prop_oneof![
        token().prop_map(|token| json!({"access_token": token, "expires_in": 5})),
        token().prop_map(|token| json!({"accessToken": token, "refreshToken": "r"})),
        token().prop_map(|token| json!({"accessToken": token, "accessTokenExpiresAt": 5})),
    ];
    (others, own).prop_map(|(others, own)| {
        let own = own.as_object().unwrap().clone();
        others.into_iter().chain(own).collect()
    })
}

fn same(ours: &TokenSet, theirs: &TokenSet) -> bool {
    ours.same_tokens(theirs)
        && ours.identity() == theirs.identity()
        && ours.expires_at() == theirs.expires_at()
        && ours.in_doubt() == theirs.in_doubt()
        && ours.obtained_at() == theirs.obtained_at()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_is_saved_is_loaded(file in any_file(), first in any_tokens(), second in any_tokens()) {
        let mut text = json!(file).to_string();
        let mut identities = vec!["id".to_owned(), "email".to_owned()];
        for tokens in [&first, &second, &first] {
            text = written(&text, Some(tokens));
            let Login::LoggedIn(loaded) = login(&text) else {
                panic!("not logged in: {text}");
            };
            prop_assert!(same(&loaded, tokens), "{}", text);
            identities.extend(tokens.identity().keys().cloned());
        }
        text = written(&text, None);
        prop_assert!(matches!(login(&text), Login::LoggedOut));
        let left: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        let others = |name: &&String| !is_own(name) && !identities.contains(name);
        for name in file.keys().filter(others) {
            prop_assert_eq!(left.get(name), file.get(name));
        }
        prop_assert!(left.keys().filter(others).all(|name| file.contains_key(name)));
    }
}

/// A record in which something was replaced, or a heap of its pieces.
fn any_text(random: &mut Rng) -> Vec<u8> {
    const WHOLE: &[u8] = br#"{"access_token":"CANARY-a","refreshToken":"CANARY-r","id":7,
        "expires_in":"60","expires_at":"2001-09-09T01:46:40Z","format":1,
        "in_doubt":{"since":1,"tries":2},"identity_members":["CANARY","id"],
        "CANARY":{"CANARY":[1,null]},"logged_out":false}"#;
    const PIECES: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"\"",
        b"\\",
        b"\\u00",
        b"\xff",
        b"\0",
        b"-",
        b"1e999",
        b"null",
        b"true",
        b"CANARY",
        b"\"accessToken\":",
        b"\"access_token\":\"CANARY\"",
        b"\"format\":2",
        b"\"logged_out\":true",
    ];
    let mut text = match random.u8(..4) {
        0 => Vec::new(),
        _ => WHOLE.to_vec(),
    };
    let changes = if text.is_empty() { 12 } else { 3 };
    for _ in 0..random.usize(..=changes) {
        let from = random.usize(..=text.len());
        let to = text.len().min(from + random.usize(..20));
        let piece = random.choice(PIECES).copied().unwrap_or_default();
        text.splice(from..to, piece.iter().copied());
    }
    text
}

fn read_and_write(text: &[u8]) -> Result<(), Defect> {
    let record = Record::parse(text)?;
    let tokens = match record.login(written_at())? {
        Login::LoggedIn(tokens) => tokens,
        Login::Foreign(_) | Login::LoggedOut => return Ok(()),
    };
    let text = record.with_login(Some(&tokens), written_at())?;
    let again = Record::parse(&text)?.login(written_at());
    assert!(matches!(again, Ok(Login::LoggedIn(again)) if same(&again, &tokens)));
    Ok(())
}

// shows P12, S6, S8
#[test]
fn no_text_makes_the_reader_panic_or_quote_it() {
    let (mut read, mut refused) = (0, 0);
    for seed in 0..100_000 {
        let text = any_text(&mut Rng::with_seed(seed));
        match read_and_write(&text) {
            Ok(()) => read += 1,
            Err(defect) => {
                refused += 1;
                let said = format!("{defect:?} {}", defect.0);
                assert!(!said.contains("CANARY"), "seed {seed}: {said}");
            }
        }
    }
    assert!(read > 10_000 && refused > 10_000, "{read}, {refused}");
}
