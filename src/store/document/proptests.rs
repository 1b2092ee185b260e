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

fn written(text: &str, record: &Record, id: u64) -> String {
    let document = Document::parse(text.as_bytes()).unwrap();
    let text = document.with_record(record, Some(id), written_at());
    String::from_utf8(text.unwrap().to_vec()).unwrap()
}

fn read(text: &str) -> (Record, Option<u64>) {
    let document = Document::parse(text.as_bytes()).unwrap();
    let record = document.record(written_at()).unwrap();
    (record, document.id().unwrap())
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
    prop_oneof![
        "id|email|uid|name|identity_members|reissues|turn|access_token|expiresIn",
        any::<String>()
    ]
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

fn any_turn() -> impl Strategy<Value = Turn> {
    let claim = (any::<u64>(), 0..=LARGEST, time(), time()).prop_map(
        |(owner, fence, sent_at, deadline)| {
            Turn::Sent(Claim {
                owner,
                fence,
                sent_at,
                deadline,
            })
        },
    );
    let reasons = [
        EndReason::LoggedOut,
        EndReason::Refused,
        EndReason::Rejected,
        EndReason::Replaced,
    ];
    let ended = proptest::sample::select(reasons.to_vec()).prop_map(Turn::Ended);
    prop_oneof![Just(Turn::Free), Just(Turn::Refused), claim, ended]
}

prop_compose! {
    fn any_record()(
        version in 0..=LARGEST,
        epoch in 0..=LARGEST,
        reissues in 0..=LARGEST,
        turn in any_turn(),
        tokens in proptest::option::weighted(0.9, any_tokens()),
    ) -> Record {
        let tokens = tokens.filter(|_| !matches!(turn, Turn::Ended(_)));
        Record { version, epoch, reissues, tokens, turn, foreign: false }
    }
}

/// Files of somebody else: tokens, perhaps with an expiry, among other members.
fn any_file() -> impl Strategy<Value = serde_json::Map<String, Value>> {
    let others = name().prop_filter("it is ours", |name| !is_own(name));
    let others = proptest::collection::btree_map(others, value(), 0..5);
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

fn same(ours: &Record, theirs: &Record) -> bool {
    let heads = [ours, theirs].map(|record| {
        let Record {
            version,
            epoch,
            reissues,
            tokens: _,
            turn,
            foreign,
        } = *record;
        (version, epoch, reissues, turn, foreign)
    });
    heads[0] == heads[1]
        && match (&ours.tokens, &theirs.tokens) {
            (Some(ours), Some(theirs)) => same_set(ours, theirs),
            (None, None) => true,
            _ => false,
        }
}

fn same_set(ours: &TokenSet, theirs: &TokenSet) -> bool {
    ours.same_tokens(theirs)
        && ours.identity() == theirs.identity()
        && ours.expires_at() == theirs.expires_at()
        && ours.in_doubt() == theirs.in_doubt()
        && ours.obtained_at() == theirs.obtained_at()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_is_written_is_read(
        file in any_file(),
        records in proptest::collection::vec(any_record(), 1..4),
        id in any::<u64>(),
    ) {
        let mut text = json!(file).to_string();
        let mut identities = vec!["id".to_owned(), "email".to_owned()];
        for record in &records {
            text = written(&text, record, id);
            let (loaded, read_id) = read(&text);
            prop_assert!(same(&loaded, record), "{} {:?}", text, record);
            prop_assert_eq!(read_id, Some(id));
            let again = Record::from_json(&record.to_json().unwrap()).unwrap();
            prop_assert!(same(&again, record), "{:?}", record);
            let identity = record.tokens.iter().flat_map(|tokens| tokens.identity().keys());
            identities.extend(identity.cloned());
        }
        let end = Record { turn: Turn::Ended(EndReason::LoggedOut), ..Record::empty() };
        text = written(&text, &end, id);
        prop_assert!(same(&read(&text).0, &end));
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
        "version":3,"epoch":2,"record_id":"0123456789abcdef","turn":{"state":"sent",
        "owner":"fedcba9876543210","fence":3,"sent_at":4,"deadline":5},
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
        b"\"no_tokens\":true",
        b"\"state\":\"refused\"",
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
    let document = Document::parse(text)?;
    let (record, id) = (document.record(written_at())?, document.id()?);
    if record.foreign {
        return Ok(());
    }
    let text = document.with_record(&record, id, written_at())?;
    let document = Document::parse(&text)?;
    let again = document.record(written_at());
    assert!(matches!(again, Ok(again) if same(&again, &record)));
    assert_eq!(document.id(), Ok(id));
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
