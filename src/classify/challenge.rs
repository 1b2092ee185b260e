//! What a `WWW-Authenticate` header says of the token (RFC 9110 section 11.6.1, RFC 6750 section 3).

use std::borrow::Cow;

use http::HeaderMap;
use http::HeaderValue;
use http::header;
use http_auth::ChallengeParser;
use http_auth::ParamValue;

use super::Verdict;

/// The schemes that carry an access token: RFC 6750, and RFC 9449 section 7.1.
const SCHEMES: [&str; 2] = ["Bearer", "DPoP"];

/// What the challenges of one answer say, taken together: `Refresh` where one of them says that the
/// token is no good, `Accept` where one says that it is something else, and otherwise `Abstain`.
///
/// Of a header that cannot be parsed, the challenges before the mistake count.
///
/// The time and the memory it takes grow with the length of the headers and not faster.
pub(super) fn verdict(headers: &HeaderMap) -> Verdict {
    let mut verdict = Verdict::Abstain;
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        let text = text(value);
        let text = without_token68(&text);
        for challenge in ChallengeParser::new(text.trim_ascii()).map_while(Result::ok) {
            if !is_one_of(challenge.scheme, &SCHEMES) {
                continue;
            }
            let errors = challenge.params.iter().filter(|(name, _)| is_error(name));
            for (_, error) in errors {
                match meaning(error) {
                    Verdict::Abstain => {}
                    Verdict::Refresh => return Verdict::Refresh,
                    known => verdict = known,
                }
            }
        }
    }
    verdict
}

/// The parser takes ASCII. Other bytes may stand in a quoted description, where each of them is as
/// good as any other; elsewhere they are a mistake, as the `?` in their place is.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    match value.to_str() {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let ascii = |byte: &u8| match byte.is_ascii() {
                true => char::from(*byte),
                false => '?',
            };
            Cow::Owned(value.as_bytes().iter().map(ascii).collect())
        }
    }
}

/// The parser knows no challenge with a `token68` (RFC 9110 section 11.2), such as
/// `Negotiate dG9rZW4=`. None of ours has one, so they are taken out before.
fn without_token68(text: &str) -> Cow<'_, str> {
    let (mut quoted, mut escaped) = (false, false);
    let ends_item = |c: char| {
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        c == ',' && !quoted
    };
    let items: Vec<_> = text.split(ends_item).collect();
    match items.iter().any(|item| is_token68(item)) {
        true => {
            let others = items.into_iter().filter(|item| !is_token68(item));
            Cow::Owned(others.collect::<Vec<_>>().join(","))
        }
        false => Cow::Borrowed(text),
    }
}

fn is_token68(item: &str) -> bool {
    let Some((scheme, text)) = item.trim_ascii().split_once(' ') else {
        return false;
    };
    // A parameter may have a blank after its '='.
    if scheme.contains('=') {
        return false;
    }
    let text = text.trim_ascii_start().trim_end_matches('=');
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

fn is_one_of(scheme: &str, known: &[&str]) -> bool {
    known.iter().any(|it| it.eq_ignore_ascii_case(scheme))
}

fn is_error(name: &str) -> bool {
    name.eq_ignore_ascii_case("error")
}

/// The codes that a resource server may give, as the registry of OAuth extension errors lists them.
fn meaning(error: &ParamValue<'_>) -> Verdict {
    match &*error.to_unescaped() {
        "invalid_token" => Verdict::Refresh,
        // RFC 6750 section 3.1: another token of the same login is no better.
        "insufficient_scope" | "invalid_request" => Verdict::Accept,
        // RFC 9470 section 3: the user has to log in again, or in another way. So it is with the claims
        // that Entra ID asks for, its "continuous access evaluation".
        "insufficient_user_authentication" | "insufficient_claims" => Verdict::Accept,
        // RFC 9449 sections 7.1 and 9: what goes with the token is wrong.
        "invalid_dpop_proof" | "use_dpop_nonce" => Verdict::Accept,
        _ => Verdict::Abstain,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let value = |bytes: &&[u8]| {
            let value = HeaderValue::from_bytes(bytes).unwrap();
            (header::WWW_AUTHENTICATE, value)
        };
        values.iter().map(value).collect()
    }

    fn say(values: &[&str]) -> Verdict {
        let bytes: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
        verdict(&headers(&bytes))
    }

    // shows B21
    #[test]
    fn each_registered_error_has_its_meaning() {
        let cases = [
            ("invalid_token", Verdict::Refresh),
            ("insufficient_scope", Verdict::Accept),
            ("invalid_request", Verdict::Accept),
            ("insufficient_user_authentication", Verdict::Accept),
            ("insufficient_claims", Verdict::Accept),
            ("invalid_dpop_proof", Verdict::Accept),
            ("use_dpop_nonce", Verdict::Accept),
            ("expired", Verdict::Abstain),
            ("INVALID_TOKEN", Verdict::Abstain),
            ("", Verdict::Abstain),
        ];
        for (error, verdict) in cases {
            for scheme in ["Bearer", "bearer", "BEARER", "DPoP", "dpop"] {
                for name in ["error", "Error", "ERROR"] {
                    let header = format!(r#"{scheme} realm="api", {name}="{error}", x=y"#);
                    assert_eq!(say(&[&header]), verdict, "{header}");
                }
            }
        }
    }

    #[test]
    fn the_form_of_a_challenge_makes_no_difference() {
        let forms = [
            "Bearer error=invalid_token",
            r#"Bearer error="invalid_token""#,
            r#"Bearer error="invalid\_token""#,
            r#"Bearer error="\i\n\v\a\l\i\d_token""#,
            r#"Bearer error = "invalid_token""#,
            "Bearer error= invalid_token",
            "Bearer realm=x, error= invalid_token",
            "Bearer realm=x, error =invalid_token, a= b",
            r#"Bearer realm="a \"b\", c=d", error="invalid_token""#,
            r#"Bearer error_description="expired, \\ or so",error="invalid_token""#,
            r#" , Bearer realm="x" ,, error="invalid_token" , "#,
            "Bearer realm=\"x\",\terror=\"invalid_token\"",
            "Bearer error_description=\"만료된 토큰\", error=\"invalid_token\"",
            "Bearer error=\"invalid_token\", error_description=\"abgelaufen für immer\"",
        ];
        for form in forms {
            assert_eq!(say(&[form]), Verdict::Refresh, "{form}");
        }
    }

    // shows B23
    #[test]
    fn several_challenges_in_one_header_or_in_several_all_count() {
        let (basic, bare) = (r#"Basic realm="x""#, "Bearer");
        let (expired, scope) = (
            r#"Bearer error="invalid_token""#,
            r#"Bearer scope="a b", error="insufficient_scope""#,
        );
        let cases: [(&[&str], Verdict); 8] = [
            (&[basic, expired], Verdict::Refresh),
            (&[basic, bare, "Negotiate", scope], Verdict::Accept),
            (&[scope, basic, expired], Verdict::Refresh),
            (&[expired, scope], Verdict::Refresh),
            (&[scope, bare, basic], Verdict::Accept),
            (&[bare, basic], Verdict::Abstain),
            (
                &["Newauth", r#"DPoP algs="ES256""#, expired],
                Verdict::Refresh,
            ),
            (&[], Verdict::Abstain),
        ];
        for (challenges, verdict) in cases {
            assert_eq!(say(challenges), verdict, "{challenges:?}");
            assert_eq!(say(&[&challenges.join(", ")]), verdict, "{challenges:?}");
        }
    }

    #[test]
    fn what_other_schemes_say_does_not_count() {
        for scheme in ["Basic", "Digest", "Bearers", "Bear", "X-Bearer"] {
            let header = format!(r#"{scheme} error="invalid_token""#);
            assert_eq!(say(&[&header]), Verdict::Abstain, "{header}");
        }
        let in_a_name = r#"Bearer error_uri="x", my_error="invalid_token""#;
        assert_eq!(say(&[in_a_name]), Verdict::Abstain);
    }

    // shows B22
    #[test]
    fn of_a_header_with_a_mistake_what_stands_before_it_counts() {
        let broken = [
            "",
            ",",
            "=",
            r#"error="invalid_token""#,
            r#"Bearer error="invalid_token"#,
            r#"Bearer error="invalid_token\"#,
            r#"Bearer error="invalid_token" error_description="x""#,
            r#"Bearer  error="invalid_token""#,
            r#"Bearer error=invalid_token, error_uri=https://example.com"#,
            "Bearer für, error=\"invalid_token\"",
        ];
        for header in broken {
            assert_eq!(say(&[header]), Verdict::Abstain, "{header}");
            let twice = [header, r#"Bearer error="insufficient_scope""#];
            assert_eq!(say(&twice), Verdict::Accept, "{header}, and one more");
        }
        let before = r#"Bearer error="invalid_token", Bearer error=""#;
        assert_eq!(say(&[before]), Verdict::Refresh);
    }

    // shows B23
    #[test]
    fn challenges_with_a_token68_are_skipped() {
        let scope = r#"Bearer realm="a, \"NTLM b\", c", error="insufficient_scope""#;
        for other in ["Negotiate dG9rZW4=", "NTLM  a-._~+/z==", "X a", "Negotiate"] {
            for header in [
                format!("{other}, {scope}"),
                format!("{scope},{other}"),
                format!("Basic realm=x, {other}, {scope} , {other}"),
            ] {
                assert_eq!(say(&[&header]), Verdict::Accept, "{header}");
            }
        }
    }

    /// Work that grew with the square of the length would not end here. Shows S7.
    #[test]
    fn a_mebibyte_is_read_to_its_end() {
        let fill = |pattern: &str| pattern.repeat((1 << 20) / pattern.len());
        let patterns = [
            "Bearer ",
            ",",
            "a,",
            "Bearer a=b, ",
            "\\",
            "\"",
            "a=\"\\\"\", ",
            " ",
            "=",
            "ä",
        ];
        for pattern in patterns {
            for start in ["", "Bearer ", "Bearer a=", "Bearer error=\""] {
                let long = format!("{start}{}", fill(pattern));
                assert_ne!(say(&[&long]), Verdict::Refresh, "{start}{pattern}");
            }
        }
        let last = format!(r#"{}Bearer error="invalid_token""#, fill("Basic a=b, "));
        assert_eq!(say(&[&last]), Verdict::Refresh);
        let escaped = format!(r#"Bearer error="{}""#, fill("\\x"));
        assert_eq!(say(&[&escaped]), Verdict::Abstain);
        let params = format!(r#"Bearer {}error="invalid_token""#, fill("error=x, "));
        assert_eq!(say(&[&params]), Verdict::Refresh);
    }

    /// Pieces of challenges.
    const PIECES: [&str; 18] = [
        "Bearer",
        "dpop",
        "Basic",
        " ",
        "\t",
        ",",
        ", ",
        "=",
        "\"",
        "\\",
        "error",
        "realm",
        "ä",
        "a=b",
        "invalid_token",
        "insufficient_scope",
        "\"x\\\"y\"",
        "dG9r==",
    ];

    const RIGHT: &str =
        r#"Basic realm="a, \"b\"", Bearer scope="x y", error="invalid_token", Newauth"#;

    /// Bytes, pieces of challenges in any order, or a challenge with one mistake. Grown from a seed: a
    /// strategy for each byte takes too long.
    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        any::<u64>().prop_map(|seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut byte = || loop {
                let byte = random.u8(..);
                if HeaderValue::from_bytes(&[byte]).is_ok() {
                    return byte;
                }
            };
            let (kind, at) = (byte(), usize::from(byte()));
            let mut bytes = RIGHT.as_bytes().to_vec();
            match kind % 5 {
                0 => bytes = (0..at % 64).map(|_| byte()).collect(),
                1 => {
                    let mut piece = || PIECES[usize::from(byte()) % PIECES.len()];
                    let pieces: String = (0..at % 12).map(|_| piece()).collect();
                    bytes = pieces.into_bytes();
                }
                2 => bytes[at % RIGHT.len()] = byte(),
                3 => bytes.insert(at % RIGHT.len(), byte()),
                _ => bytes.truncate(at % RIGHT.len()),
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        fn no_header_makes_it_panic_or_say_what_is_not_there(
            value in any_value(),
        ) {
            // Without the backslashes, which may stand before each character of a quoted value.
            let plain = value.iter().copied().filter(|byte| *byte != b'\\');
            let plain = String::from_utf8_lossy(&plain.collect::<Vec<_>>()).into_owned();
            match verdict(&headers(&[&value])) {
                Verdict::Refresh => prop_assert!(plain.contains("invalid_token")),
                Verdict::Accept => prop_assert!(plain.contains("insufficient_scope")),
                verdict => prop_assert_eq!(verdict, Verdict::Abstain),
            }
        }
    }
}
