//! What is read, what is written, and what is refused: example by example.

use std::time::Duration;

use super::*;

/// When the files of these tests were written: 2001-09-09T01:46:40Z.
fn modified() -> SystemTime {
    after(1_000_000_000)
}

fn after(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn read(text: &str) -> Result<Record, Defect> {
    let document = Document::parse(text.as_bytes())?;
    document.id()?;
    document.record(modified())
}

#[track_caller]
fn logged_in(text: &str) -> TokenSet {
    match read(text) {
        Ok(record) if !record.foreign => record.tokens.expect("no tokens"),
        Ok(_) => panic!("of a newer version: {text}"),
        Err(defect) => panic!("{defect:?}: {text}"),
    }
}

fn record(turn: Turn, tokens: Option<&TokenSet>) -> Record {
    Record {
        version: 3,
        epoch: 2,
        reissues: 0,
        tokens: tokens.cloned(),
        turn,
        foreign: false,
    }
}

/// A login, or that it was logged out.
fn login(tokens: Option<&TokenSet>) -> Record {
    let turn = match tokens {
        Some(_) => Turn::Free,
        None => Turn::Ended(EndReason::LoggedOut),
    };
    record(turn, tokens)
}

fn refused(tokens: &TokenSet) -> String {
    let text = Document::default().with_record(&login(Some(tokens)), None, modified());
    text.unwrap_err().0.into_owned()
}

#[track_caller]
fn written(text: &str, tokens: Option<&TokenSet>) -> String {
    rewritten(text, &login(tokens))
}

#[track_caller]
fn rewritten(text: &str, record: &Record) -> String {
    let document = match text {
        "" => Document::default(),
        text => Document::parse(text.as_bytes()).unwrap(),
    };
    let text = document.with_record(record, Some(0xfed), modified());
    let text = text.unwrap();
    assert_eq!(text.len(), text.capacity(), "the buffer has grown");
    String::from_utf8(text.to_vec()).unwrap()
}

fn tokens() -> TokenSet {
    TokenSet::new("a2")
        .unwrap()
        .with_refresh_token("r2")
        .unwrap()
        .with_obtained_at(modified())
}

fn identity(tokens: &TokenSet) -> Value {
    json!(tokens.identity())
}

#[test]
fn a_file_of_either_naming_is_read() {
    for (access, refresh, at) in [
        ("access_token", "refresh_token", "expires_at"),
        ("accessToken", "refreshToken", "expiresAt"),
        ("accessToken", "refreshToken", "accessTokenExpiresAt"),
        ("accessToken", "refresh_token", "expires_at"),
    ] {
        let text = json!({access: "a", refresh: "r", at: "2001-09-09T01:46:41Z", "id": 7});
        let tokens = logged_in(&text.to_string());
        assert_eq!(tokens.access_token().expose(), "a");
        assert_eq!(tokens.refresh_token().unwrap().expose(), "r");
        assert_eq!(tokens.expires_at(), Some(after(1_000_000_001)));
        assert_eq!(tokens.obtained_at(), modified());
        assert_eq!(identity(&tokens), json!({"id": 7}));
    }
}

#[test]
fn both_namings_may_say_the_same() {
    let tokens = logged_in(
        r#"{"access_token":"a","accessToken":"\u0061","expires_at":10,"expiresAt":"1970-01-01T00:00:10Z"}"#,
    );
    assert_eq!(tokens.access_token().expose(), "a");
    assert_eq!(tokens.expires_at(), Some(after(10)));
}

#[test]
fn a_lifetime_counts_from_when_the_file_was_written() {
    let expires_at =
        |rest: &str| logged_in(&format!(r#"{{"accessToken":"a",{rest}}}"#)).expires_at();
    for lifetime in [
        r#""expires_in":60"#,
        r#""expires_in":"60""#,
        r#""expiresIn":60.0"#,
    ] {
        assert_eq!(
            expires_at(lifetime),
            Some(after(1_000_000_060)),
            "{lifetime}"
        );
    }
    let both = r#""expires_in":60,"expires_at":1000000005"#;
    assert_eq!(
        expires_at(both),
        Some(after(1_000_000_005)),
        "the time wins"
    );
    for nothing in [
        r#""expires_in":"soon""#,
        r#""expires_in":-1"#,
        r#""expires_in":null"#,
        r#""expires_at":"tomorrow""#,
        r#""expires_at":1e400"#,
        r#""expires_at":[]"#,
    ] {
        assert_eq!(expires_at(nothing), None, "{nothing}");
    }
}

#[test]
fn the_identity_keeps_its_json_type() {
    let text = r#"{"accessToken":"a","id":"7","email":null}"#;
    assert_eq!(identity(&logged_in(text)), json!({"id": "7"}));
    let text = r#"{"accessToken":"a","id":7,"email":"a@b.test","name":"x"}"#;
    let expected = json!({"id": 7, "email": "a@b.test"});
    assert_eq!(identity(&logged_in(text)), expected);
}

#[test]
fn a_null_is_nothing() {
    let text = r#"{"accessToken":"a","refreshToken":null,"expires_in":null,"id":null}"#;
    let tokens = logged_in(text);
    assert!(tokens.refresh_token().is_none() && tokens.identity().is_empty());
}

// The whole text: what is not ours stays in its place and as it was written.
#[test]
fn the_first_save_takes_the_file_over_and_keeps_the_rest_to_the_letter() {
    let text = r#"{"theme": {"dark" :true,"dark":1e2}, "access_token":"a1","n":12345678901234567890123,
        "refresh_token":"r1","expires_in":"3600","id":98765432109876543210987,"scope":"a b"}"#;
    let tokens = tokens().with_expires_in(Duration::from_secs(60));
    let Some(id) = logged_in(text).identity().get("id").cloned() else {
        panic!("no id")
    };
    let expected = r#"{
  "theme": {"dark" :true,"dark":1e2},
  "access_token": "a2",
  "n": 12345678901234567890123,
  "refresh_token": "r2",
  "expires_in": "60",
  "id": 98765432109876543210987,
  "scope": "a b",
  "format": 1,
  "version": 3,
  "epoch": 2,
  "record_id": "0000000000000fed",
  "expires_at": "2001-09-09T01:47:40Z",
  "obtained_at": "2001-09-09T01:46:40Z"
}
"#;
    assert_eq!(
        written(text, Some(&tokens.with_identity("id", id))),
        expected
    );
}

#[test]
fn a_file_in_camel_case_stays_so() {
    let text = r#"{"accessToken":"a1","accessTokenExpiresAt":"2001-01-01T00:00:00Z"}"#;
    let tokens = tokens().with_expires_in(Duration::from_secs(60));
    let expected = r#"{
  "accessToken": "a2",
  "accessTokenExpiresAt": "2001-09-09T01:47:40Z",
  "format": 1,
  "version": 3,
  "epoch": 2,
  "record_id": "0000000000000fed",
  "refreshToken": "r2",
  "obtained_at": "2001-09-09T01:46:40Z"
}
"#;
    assert_eq!(written(text, Some(&tokens)), expected);
    let new = written(r#"{"accessToken":"a1"}"#, Some(&tokens));
    assert!(
        new.contains("expiresAt") && !new.contains("expires_at"),
        "{new}"
    );
}

#[test]
fn a_member_with_two_names_is_written_under_both() {
    let text = written(
        r#"{"access_token":"a1","accessToken":"a1"}"#,
        Some(&tokens()),
    );
    assert_eq!(text.matches("\"a2\"").count(), 2, "{text}");
}

#[test]
fn what_is_unknown_now_does_not_stay_from_before() {
    let old = r#"{"access_token":"a1","refresh_token":"r1","expires_in":60,"expires_at":99,"expiresAt":99,
        "format":1,"in_doubt":{"since":"2001-09-09T01:46:40Z","tries":2}}"#;
    let tokens = TokenSet::new("a2").unwrap().with_obtained_at(modified());
    let expected = r#"{
  "access_token": "a2",
  "format": 1,
  "version": 3,
  "epoch": 2,
  "record_id": "0000000000000fed",
  "obtained_at": "2001-09-09T01:46:40Z"
}
"#;
    assert_eq!(written(old, Some(&tokens)), expected);
}

#[test]
fn a_lifetime_in_the_file_is_what_is_left_of_it() {
    let text = r#"{"access_token":"a1","expires_in":3600}"#;
    for (expires_at, left) in [(1_000_000_030, 30), (999_999_999, 0)] {
        let tokens = tokens().with_expires_at(after(expires_at));
        let text = written(text, Some(&tokens));
        assert!(text.contains(&format!("\"expires_in\": {left},")), "{text}");
    }
}

#[test]
fn a_doubt_is_kept() {
    let doubt = InDoubt::new(modified() + Duration::from_nanos(1), 3);
    let sent = doubt.with_sent_at(doubt.since - std::time::Duration::from_secs(7));
    for doubt in [doubt, sent] {
        let text = written("", Some(&tokens().with_in_doubt(doubt)));
        assert_eq!(logged_in(&text).in_doubt(), Some(doubt));
    }
    let text = written("", Some(&tokens().with_in_doubt(doubt)));
    assert!(text.contains("2001-09-09T01:46:40.000000001Z"), "{text}");
    assert_eq!(logged_in(&written(&text, Some(&tokens()))).in_doubt(), None);
}

#[test]
fn a_doubt_that_cannot_be_dated_is_not_lost() {
    let doubt = InDoubt::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60), 1);
    let tokens = tokens().with_in_doubt(doubt);
    assert!(refused(&tokens).contains("is no date"));
}

#[test]
fn a_logout_leaves_what_is_not_ours() {
    let text = r#"{"a":1,"accessToken":"a1","refreshToken":"r1","expiresIn":60,"id":7,"b":[ ]}"#;
    let text = written(text, None);
    let expected = r#"{
  "a": 1,
  "b": [ ],
  "format": 1,
  "version": 3,
  "epoch": 2,
  "record_id": "0000000000000fed",
  "logged_out": true,
  "ended": "logged_out"
}
"#;
    assert_eq!(text, expected);
    assert!(matches!(read(&text), Ok(record) if record.turn == Turn::Ended(EndReason::LoggedOut)));
    let text = written(&text, Some(&tokens()));
    assert!(
        !text.contains("logged_out") && text.contains("[ ]"),
        "{text}"
    );
    assert_eq!(logged_in(&text).access_token().expose(), "a2");
}

#[test]
fn another_login_takes_the_old_identity_away() {
    let old = tokens().with_identity("id", 7).with_identity("tenant", "x");
    let text = written(
        r#"{"access_token":"a1","email":"a@b.test","other":1}"#,
        Some(&old),
    );
    assert_eq!(identity(&logged_in(&text)), json!({"id": 7, "tenant": "x"}));
    let new = written(&text, Some(&tokens().with_identity("email", "c@d.test")));
    assert_eq!(identity(&logged_in(&new)), json!({"email": "c@d.test"}));
    assert!(
        !new.contains("tenant") && !new.contains("identity_members"),
        "{new}"
    );
    assert!(new.contains("\"other\": 1"));
    assert!(!written(&text, None).contains("tenant"));
}

#[test]
fn what_only_looks_like_the_identity_is_none_once_that_is_known() {
    // `id` is another's here, as the list says.
    let text = r#"{"access_token":"a1","id":1,"format":1,"identity_members":["uid"],"uid":7}"#;
    assert_eq!(identity(&logged_in(text)), json!({"uid": 7}));
    for (tokens, expected) in [
        (tokens(), json!({})),
        (tokens().with_identity("email", "x"), json!({"email": "x"})),
        (
            tokens().with_identity("uid", Value::Null),
            json!({"uid": null}),
        ),
    ] {
        let text = written(text, Some(&tokens));
        assert!(text.contains("\"id\": 1"), "{text}");
        assert_eq!(identity(&logged_in(&text)), expected);
    }
}

/// A login with everything that one can have.
fn full(tokens: TokenSet) -> Record {
    let tokens = tokens
        .with_expires_at(after(1_000_000_060))
        .with_in_doubt(InDoubt::new(modified(), 2).with_sent_at(modified()));
    let claim = Claim {
        owner: 1,
        fence: 2,
        sent_at: modified(),
        deadline: after(1_000_000_009),
    };
    Record {
        reissues: 5,
        ..record(Turn::Sent(claim), Some(&tokens))
    }
}

/// The names that are found in what is written, however the record stands and whoever has written
/// the text that it is written into.
fn names_that_are_written() -> Vec<String> {
    let others = r#"{"access_token":"a","expires_in":1,"refresh_token":"r","expires_at":1}"#;
    let camel = r#"{"accessToken":"a","expiresIn":1,"refreshToken":"r","expiresAt":1,
        "accessTokenExpiresAt":1}"#;
    let identity = tokens().with_identity("uid", 7).with_identity("format", 1);
    let full = full(identity);
    let texts = [
        rewritten("", &full),
        rewritten(others, &full),
        rewritten(camel, &full),
        rewritten("", &record(Turn::Free, None)),
        rewritten("", &login(None)),
    ];
    let members = texts.map(|text| serde_json::from_str::<serde_json::Map<_, _>>(&text).unwrap());
    let mut names: Vec<_> = members
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    names.sort();
    names.dedup();
    names
}

// The list of the record's own names once lacked `reissues`: a stored login with an identity of that
// name could not be read again, and with a number in it, its pair passed for another.
#[test]
fn the_identity_may_have_a_member_of_any_name() {
    let names = names_that_are_written();
    assert!(names.len() > 20, "{names:?}");
    let camel = r#"{"accessToken":"a","expiresIn":1,"id":3,"theme":"dark"}"#;
    for name in &names {
        for value in [
            json!(7),
            json!("x"),
            json!(true),
            json!({"a": [1]}),
            json!(null),
        ] {
            let record = full(tokens().with_identity(name, value).with_identity("id", 7));
            let read_again = [
                Record::from_json(&record.to_json().unwrap()).unwrap(),
                read(&rewritten(camel, &record)).unwrap(),
            ];
            for again in read_again {
                assert_eq!(again.reissues, 5, "{name}");
                assert_eq!(format!("{again:?}"), format!("{record:?}"), "{name}");
            }
        }
    }
}

#[test]
fn what_stands_apart_of_the_identity_goes_with_it() {
    let text = written("", Some(&tokens().with_identity("turn", "left")));
    assert!(
        text.contains("\"identity_apart\": {\n    \"turn\": \"left\"\n  }"),
        "{text}"
    );
    for text in [written(&text, Some(&tokens())), written(&text, None)] {
        assert!(!text.contains("identity_apart"), "{text}");
    }
    // In a file of somebody else, nobody knows what it means.
    let text = r#"{"access_token":"a","identity_apart":{"turn":"left"}}"#;
    assert!(logged_in(text).identity().is_empty());
    let text = r#"{"access_token":"a","format":1,"identity_apart":["turn"]}"#;
    assert!(read(text).unwrap_err().0.contains("identity_apart"));
}

// shows P12: the identity is shown by `Debug`, so the list cannot put a token into it.
#[test]
fn a_list_that_calls_a_token_identity_is_refused() {
    let text = r#"{"access_token":"s","format":1,"identity_members":["access_token"]}"#;
    assert!(read(text).is_err());
}

#[test]
fn a_newer_format_gives_the_access_token_alone() {
    for format in [
        "2",
        "0",
        "-1",
        "1.5",
        "\"1\"",
        "true",
        "18446744073709551616",
    ] {
        let text = format!(
            r#"{{"accessToken":"a","refreshToken":{{}},"id":1,"expires_at":5,"format":{format}}}"#
        );
        let record = read(&text).unwrap();
        assert!(record.foreign, "{format} is known");
        let tokens = record.tokens().unwrap();
        assert_eq!(tokens.access_token().expose(), "a");
        assert!(tokens.refresh_token().is_none() && tokens.expires_at().is_none());
    }
    assert!(read(r#"{"format":2,"logged_out":true}"#).is_err());
    // As far as it is known what they mean there.
    let record = read(r#"{"format":2,"access_token":"a","version":7,"epoch":"x"}"#).unwrap();
    assert_eq!((record.version, record.epoch), (7, 0));
    assert!(record.to_json().is_err());
}

#[test]
fn a_format_of_null_is_none_and_one_is_one_however_it_is_written() {
    let tokens = |format| {
        logged_in(&format!(
            r#"{{"access_token":"a","refresh_token":"r","format":{format},"uid":7,"identity_members":["uid"]}}"#
        ))
    };
    for format in ["null", "1", "1.0", "1e0"] {
        let tokens = tokens(format);
        assert_eq!(tokens.refresh_token().unwrap().expose(), "r", "{format}");
        let is_record = tokens.identity().contains_key("uid");
        assert_eq!(is_record, format != "null", "{format}");
    }
}

#[test]
fn a_file_of_somebody_else_may_have_the_names_of_a_record() {
    let text = r#"{"access_token":"a","in_doubt":"never","logged_out":true,"identity_members":1,"obtained_at":[]}"#;
    let tokens = logged_in(text);
    assert_eq!(
        (tokens.in_doubt(), tokens.obtained_at()),
        (None, modified())
    );
}

const BROKEN: &[(&str, &str)] = &[
    ("", "empty"),
    (" \n", "empty"),
    ("{", "breaks off (line 1"),
    (r#"{"access_token":"CANARY"#, "breaks off"),
    (r#"{"access_token":CANARY}"#, "no JSON (line 1, column"),
    ("CANARY", "no JSON"),
    (r#"{"access_token":"CANARY"} CANARY"#, "no JSON"),
    (r#"{"access_token":"CANARY",}"#, "no JSON"),
    ("\u{feff}{\"access_token\":\"CANARY\"}", "no JSON"),
    (r#"["CANARY"]"#, "no object"),
    (r#""CANARY""#, "no object"),
    ("null", "no object"),
    ("{}", "no access token"),
    (r#"{"refresh_token":"CANARY"}"#, "no access token"),
    (
        r#"{"access_token":null,"accessToken":null}"#,
        "no access token",
    ),
    (r#"{"logged_out":true}"#, "no access token"),
    (r#"{"format":1,"logged_out":false}"#, "no access token"),
    (
        r#"{"format":1,"logged_out":"CANARY"}"#,
        "\"logged_out\" is not as",
    ),
    (
        r#"{"format":1,"logged_out":true,"access_token":"CANARY"}"#,
        "all the same",
    ),
    (
        r#"{"format":1,"logged_out":true,"refreshToken":"CANARY"}"#,
        "all the same",
    ),
    (r#"{"access_token":7}"#, "\"access_token\" is no text"),
    (
        r#"{"accessToken":["CANARY"]}"#,
        "\"accessToken\" is no text",
    ),
    (
        r#"{"accessToken":"\ud800CANARY"}"#,
        "\"accessToken\" is no text",
    ),
    (
        r#"{"accessToken":"a","refresh_token":true}"#,
        "\"refresh_token\" is no text",
    ),
    (r#"{"access_token":""}"#, "access token is empty"),
    (
        r#"{"access_token":"CANARY CANARY"}"#,
        "access token contains a space",
    ),
    (
        r#"{"access_token":"CANARY\n"}"#,
        "access token contains a control",
    ),
    (
        r#"{"access_token":"a","refresh_token":"CANARYö"}"#,
        "refresh token contains",
    ),
    (
        r#"{"access_token":"a","refresh_token":""}"#,
        "refresh token is empty",
    ),
    (
        r#"{"access_token":"CANARY","accessToken":"a"}"#,
        "say different things",
    ),
    (
        r#"{"access_token":"a","refresh_token":"b","refreshToken":"CANARY"}"#,
        "say different",
    ),
    (
        r#"{"access_token":"a","expires_at":1,"expiresAt":2}"#,
        "say different things",
    ),
    (
        r#"{"access_token":"a","access_token":"CANARY"}"#,
        "a member twice",
    ),
    (
        r#"{"access_token":"a","CANARY":1,"\u0043ANARY":2}"#,
        "a member twice",
    ),
    (
        r#"{"access_token":"a","format":1,"in_doubt":{"since":"CANARY","tries":1}}"#,
        "in_doubt",
    ),
    (
        r#"{"access_token":"a","format":1,"in_doubt":{"since":1,"tries":-1}}"#,
        "in_doubt",
    ),
    (
        r#"{"access_token":"a","format":1,"in_doubt":true}"#,
        "in_doubt",
    ),
    (
        r#"{"access_token":"a","format":1,"identity_members":"CANARY"}"#,
        "identity_members",
    ),
    (r#"{"format":1,"version":4,"epoch":1}"#, "no access token"),
    (
        r#"{"format":1,"no_tokens":true,"access_token":"CANARY"}"#,
        "\"no_tokens\" and has tokens all the same",
    ),
    (r#"{"format":1,"access_token":"a","version":-1}"#, "version"),
    (
        r#"{"format":1,"access_token":"a","version":9007199254740993}"#,
        "version",
    ),
    (
        r#"{"format":1,"logged_out":true,"epoch":18446744073709551615}"#,
        "epoch",
    ),
    (
        r#"{"format":1,"access_token":"a","turn":{"state":"sent","owner":"0000000000000001",
            "fence":9007199254740993,"sent_at":1,"deadline":2}}"#,
        "turn",
    ),
    (
        r#"{"format":1,"access_token":"a","epoch":"CANARY"}"#,
        "epoch",
    ),
    (
        r#"{"format":1,"access_token":"a","record_id":"CANARY0123456789"}"#,
        "record_id",
    ),
    (
        r#"{"format":1,"access_token":"a","record_id":"fed"}"#,
        "record_id",
    ),
    (
        r#"{"format":1,"access_token":"a","ended":7,"logged_out":true}"#,
        "\"logged_out\" and has tokens",
    ),
    (
        r#"{"format":1,"ended":7,"logged_out":true}"#,
        "\"ended\" is not as",
    ),
    (r#"{"format":1,"access_token":"a","turn":"CANARY"}"#, "turn"),
    (
        r#"{"format":1,"access_token":"a","turn":{"state":"CANARY"}}"#,
        "turn",
    ),
    (
        r#"{"format":1,"access_token":"a","turn":{"state":"sent","owner":"0000000000000001",
            "fence":1,"sent_at":1}}"#,
        "turn",
    ),
    (
        r#"{"access_token":"a","id":1e999}"#,
        "member of the identity",
    ),
];

// shows P12, S8
#[test]
fn each_broken_file_is_told_from_the_others_and_quoted_by_none() {
    for (text, what) in BROKEN {
        let Err(defect) = read(text) else {
            panic!("{text} is read")
        };
        let said = defect.0.to_string();
        assert!(said.contains(what) && said.contains(": "), "{text}: {said}");
        assert!(!format!("{said} {defect:?}").contains("CANARY"), "{said}");
    }
}

// shows S8
#[test]
fn deep_nesting_neither_crashes_nor_is_lost() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let text = format!(r#"{{"access_token":"a","deep":{deep}}}"#);
    assert!(written(&text, Some(&tokens())).contains(&deep));
    assert!(read(&format!(r#"{{"access_token":"a","id":{deep}}}"#)).is_err());
    assert!(read(&"{\"a\":".repeat(100_000)).is_err());
}

/// Every member, as other programs would look for it.
#[test]
fn a_claim_says_who_has_sent_the_refresh_token_and_until_when() {
    let claim = Claim {
        owner: 0xabc,
        fence: LARGEST,
        sent_at: modified() + Duration::from_millis(1),
        deadline: modified() + Duration::from_millis(10_001),
    };
    let text = rewritten("", &record(Turn::Sent(claim), None));
    let expected = r#"{
  "format": 1,
  "version": 3,
  "epoch": 2,
  "record_id": "0000000000000fed",
  "turn": {
    "deadline": "2001-09-09T01:46:50.001Z",
    "fence": 9007199254740992,
    "owner": "0000000000000abc",
    "sent_at": "2001-09-09T01:46:40.001Z",
    "state": "sent"
  },
  "no_tokens": true
}
"#;
    assert_eq!(text, expected);
    assert_eq!(read(&text).unwrap().turn, Turn::Sent(claim));
    let far = Claim {
        deadline: SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60),
        ..claim
    };
    assert!(record(Turn::Sent(far), None).to_json().is_err());
}

#[test]
fn after_the_end_there_is_no_token_and_a_reason() {
    for (reason, name) in [
        (EndReason::LoggedOut, "logged_out"),
        (EndReason::Refused, "refused"),
        (EndReason::Rejected, "rejected"),
        (EndReason::Replaced, "replaced"),
    ] {
        let text = rewritten("", &record(Turn::Ended(reason), Some(&tokens())));
        assert!(text.contains(&format!("\"ended\": \"{name}\"")), "{text}");
        assert!(!text.contains("token"), "{text}");
        let read = read(&text).unwrap();
        assert!(read.turn == Turn::Ended(reason) && read.tokens.is_none());
    }
    for why in ["", r#","ended":"moved""#, r#","ended":null"#] {
        let record = read(&format!(r#"{{"format":1,"logged_out":true{why}}}"#)).unwrap();
        assert_eq!(record.turn, Turn::Ended(EndReason::LoggedOut), "{why}");
    }
}

#[test]
fn a_record_from_before_versions_were_written_has_version_0() {
    let record = read(r#"{"format":1,"access_token":"a"}"#).unwrap();
    assert_eq!((record.version, record.epoch), (0, 0));
    assert_eq!(record.turn, Turn::Free);
}

#[test]
fn the_text_of_a_record_belongs_to_no_file() {
    let text = record(Turn::Refused, Some(&tokens())).to_json().unwrap();
    let said = String::from_utf8(text.to_vec()).unwrap();
    assert!(!said.contains("record_id"), "{said}");
    let record = Record::from_json(&text).unwrap();
    assert_eq!(
        (record.version, record.epoch, record.turn),
        (3, 2, Turn::Refused)
    );
    assert_eq!(record.tokens().unwrap().access_token().expose(), "a2");
    let error = Record::from_json(&text[..text.len() / 2]).unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("the record cannot be used: it breaks off"),
        "{said}"
    );
}

#[test]
fn a_record_that_would_be_too_large_to_be_read_is_not_written() {
    let large = tokens().with_identity("id", "x".repeat(LIMIT));
    assert!(refused(&large).contains("bytes long"));
}

/// So many members of an identity, each with a name and a number, and the list of them.
fn with_members(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|i| format!("member-{i:06}")).collect();
    let members: String = names.iter().map(|name| format!(",\"{name}\":1")).collect();
    let list = json!(names);
    format!(r#"{{"format":1,"access_token":"a","identity_members":{list}{members}}}"#)
}

// Each of them was looked for among all the others: 600 kB took 20 s.
#[test]
fn an_identity_is_read_and_written_up_to_its_limit() {
    let text = with_members(4_000);
    let tokens = logged_in(&text);
    assert_eq!(tokens.identity().len(), 4_000);
    let again = logged_in(&written(&text, Some(&tokens)));
    assert_eq!(identity(&again), identity(&tokens));

    for count in [5_000, 30_000] {
        let text = with_members(count);
        assert!(text.len() < LIMIT);
        let said = read(&text).err().map(|defect| defect.0);
        let said = said.unwrap_or_else(|| panic!("{count} are read"));
        assert!(said.starts_with("its identity is"), "{said}");
    }
    let apart =
        json!({"format": 1, "access_token": "a", "identity_apart": {"turn": "x".repeat(70_000)}});
    let said = read(&apart.to_string()).unwrap_err().0;
    assert!(said.starts_with("its identity is"), "{said}");
    for name in ["uid", "turn"] {
        let at_most = tokens_with(name, IDENTITY_LIMIT - name.len() - 2);
        assert!(login(Some(&at_most)).to_json().is_ok(), "{name}");
        let said = refused(&tokens_with(name, IDENTITY_LIMIT));
        assert!(said.starts_with("its identity is"), "{said}");
    }
}

fn tokens_with(name: &str, size: usize) -> TokenSet {
    tokens().with_identity(name, "x".repeat(size))
}

// A login that is written and cannot be read is lost.
#[test]
fn what_is_nested_too_deep_to_be_read_is_not_written() {
    let nested = |levels| (0..levels).fold(json!(1), |value, _| json!([value]));
    for name in ["uid", "turn"] {
        let tokens = |levels| tokens().with_identity(name, nested(levels));
        let text = login(Some(&tokens(DEEPEST))).to_json().unwrap();
        let again = Record::from_json(&text).unwrap();
        assert_eq!(again.tokens().unwrap().identity()[name], nested(DEEPEST));
        for levels in [DEEPEST + 1, 200] {
            assert!(refused(&tokens(levels)).contains("levels deep"));
        }
    }
}

// As a database may hold more than anybody has written there.
#[test]
fn a_text_over_the_limit_is_not_read() {
    let text = format!(r#"{{"access_token":"a"{}}}"#, " ".repeat(LIMIT));
    assert!(read(&text).unwrap_err().0.contains("larger than"));
    let text = format!(r#"{{"access_token":"a"{}}}"#, " ".repeat(LIMIT - 20));
    assert_eq!(text.len(), LIMIT);
    assert!(read(&text).is_ok());
}
