//! Tokens that are hard to keep.

use std::time::Duration;
use std::time::SystemTime;

use serde_json::json;

use crate::token::InDoubt;
use crate::token::InvalidToken;
use crate::token::TokenSet;

/// Is in each token here that is long enough to be told from other words.
pub(super) const MARK: &str = "c0nf1dent1al";

/// The length of a long token.
const LONG: usize = 16 << 10;

/// 2112-08-06: seconds since 1970 that 32 bits do not hold.
const FAR: Duration = Duration::from_secs(4_500_000_000);

pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) tokens: TokenSet,
}

pub(super) struct Samples {
    /// To be saved one after another: each differs from the one before it in one way.
    pub(super) in_turn: Vec<Sample>,
    /// Three that differ in everything, so that a mix of them shows.
    pub(super) old: TokenSet,
    pub(super) new: TokenSet,
    pub(super) next: TokenSet,
}

impl Samples {
    pub(super) fn new() -> Result<Self, InvalidToken> {
        let (full, alone, long, login) = (full()?, alone()?, long()?, login()?);
        let in_doubt = InDoubt::new(ago(60), 1);
        let in_turn = [
            ("a set that has everything", full.clone()),
            ("an access token alone", alone.clone()),
            ("tokens of 16 KiB", long.clone()),
            ("a new login", login.clone()),
            (
                "the same tokens, now in doubt",
                login.clone().with_in_doubt(in_doubt),
            ),
            ("the same tokens, no more in doubt", login.clone()),
            (
                "the same access token with another refresh token",
                login
                    .clone()
                    .with_refresh_token(format!("rotated-{MARK}"))?,
            ),
            (
                "the same tokens of another user",
                login.clone().with_identity("id", "8"),
            ),
            (
                "the same tokens with another expiry",
                login.with_expires_in(Duration::from_secs(7200)),
            ),
            (
                "tokens in which only upper and lower case are new",
                login_as(&format!("Login-Access-{MARK}"))?,
            ),
        ];
        let in_turn = in_turn.map(|(name, tokens)| Sample { name, tokens });
        Ok(Self {
            in_turn: in_turn.into(),
            old: full,
            new: long,
            next: alone,
        })
    }
}

/// It has lived out its lifetime, so that a store which lets that begin anew is found out.
fn full() -> Result<TokenSet, InvalidToken> {
    let visible: String = ('!'..='~').collect();
    let in_doubt = InDoubt::new(ago(1800), 3).with_sent_at(ago(1860));
    Ok(TokenSet::new(format!("{visible}{MARK}"))?
        .with_refresh_token(format!("{MARK}{visible}"))?
        .with_expires_in(Duration::from_secs(900))
        .with_obtained_at(ago(3600))
        .with_in_doubt(in_doubt)
        .with_identity("id", 9_007_199_254_740_993_u64)
        .with_identity("email", "jos\u{e9}@\u{4f8b}\u{3048}.test")
        .with_identity(
            "e\u{301} \u{1f511}\"\\'",
            "\u{1f469}\u{200d}\u{1f680}\n\t\"\\%_'; --",
        )
        .with_identity("is_admin", true)
        .with_identity("balance", -1.5)
        .with_identity("nickname", json!(null))
        .with_identity("nothing", "")
        .with_identity("roles", json!(["reader", [], {}, null, 0, false]))
        .with_identity(
            "home",
            json!({ "a": { "b": { "c": [{ "\u{e4}": -7 }] } }, "": "" }),
        ))
}

/// Looks like something else to a store that guesses types.
fn alone() -> Result<TokenSet, InvalidToken> {
    Ok(TokenSet::new("null")?.with_obtained_at(ago(2 * 24 * 3600)))
}

fn long() -> Result<TokenSet, InvalidToken> {
    let filler = MARK.repeat(LONG / MARK.len() + 1);
    let token = |end: &str| format!("{}{end}", &filler[..LONG - end.len()]);
    Ok(TokenSet::new(token("access"))?
        .with_refresh_token(token("refresh"))?
        .with_expires_at(SystemTime::UNIX_EPOCH + FAR)
        .with_obtained_at(ago(5 * 24 * 3600))
        .with_in_doubt(InDoubt::new(ago(7), 300))
        .with_identity("id", 7))
}

fn login() -> Result<TokenSet, InvalidToken> {
    login_as(&format!("login-access-{MARK}"))
}

fn login_as(access_token: &str) -> Result<TokenSet, InvalidToken> {
    Ok(TokenSet::new(access_token)?
        .with_refresh_token(format!("login-refresh-{MARK}"))?
        .with_expires_in(Duration::from_secs(3600))
        .with_identity("id", "7"))
}

fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}
