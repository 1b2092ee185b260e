//! A [`Record`] as text, for the stores that write it down: text in, text out, no file system and no
//! clock.
//!
//! The members that are not ours are never taken apart: each goes out as the very text it came in.
//! Nor do the tokens pass through a document of `serde_json`: they are read from the store's buffer
//! and written into a new one, and both are wiped.

mod names;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::io;
use std::io::Write;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use serde::Serializer;
use serde::de::DeserializeOwned;
use serde::de::Deserializer;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::Claim;
use super::LARGEST;
use super::Record;
use super::Turn;
use crate::error::EndReason;
use crate::json;
use crate::say::say;
use crate::token::InDoubt;
use crate::token::InvalidToken;
use crate::token::RefreshToken;
use crate::token::TokenSet;
use names::ACCESS_TOKEN;
use names::ENDED;
use names::EPOCH;
use names::EXPIRES_AT;
use names::EXPIRES_IN;
use names::FORMAT;
use names::IDENTITY;
use names::IDENTITY_APART;
use names::IN_DOUBT;
use names::LOGGED_OUT;
use names::NO_TOKENS;
use names::Names;
use names::OBTAINED_AT;
use names::RECORD_ID;
use names::REFRESH_TOKEN;
use names::REISSUES;
use names::TURN;
use names::USUAL_IDENTITY;
use names::VERSION;
use names::is_own;

/// The largest text that is read or written, in bytes: many times what tokens take.
pub(super) const LIMIT: usize = 1 << 20;

/// How much of it the identity may be, names and values together: many times what an issuer asks for.
const IDENTITY_LIMIT: usize = 64 * 1024;

/// How deep a value of the identity may be nested: what is read stops at 127, and what could be written but
/// not read would be a login that is lost.
const DEEPEST: usize = 100;

/// What is wrong with the text, and what to do, in our own words: nothing of what it holds, not
/// even a name that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Defect(Cow<'static, str>);

impl Defect {
    #[cfg(feature = "file")]
    pub(super) fn into_text(self) -> Cow<'static, str> {
        self.0
    }

    /// Why nothing takes the place of such a record.
    pub(super) fn foreign() -> Self {
        Self::new(
            "a newer version of this crate has written it (its \"format\" is not 1), and this one \
             cannot: use the newer one",
        )
    }

    fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(what.into())
    }

    /// The parser's own words may quote what it read. Where it stopped does not.
    fn syntax(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Data => "holds JSON, but no object",
            serde_json::error::Category::Eof => "breaks off",
            _ => "is no JSON",
        };
        Self::new(format!(
            "it {what} (line {line}, column {column}): put it right or remove it"
        ))
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record cannot be used: {}", self.0)
    }
}

impl Error for Defect {}

impl From<InvalidToken> for Defect {
    fn from(error: InvalidToken) -> Self {
        Self::new(format!("{error}: put it right or log in again"))
    }
}

/// Who has written the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// This version.
    Current,
    /// A newer one.
    Foreign,
    /// Somebody else.
    Plain,
}

/// A JSON object whose members are still text.
#[derive(Default)]
pub(super) struct Document<'a> {
    members: Vec<(String, &'a RawValue)>,
    /// The places of the members, in the order of their names: a text may have any number of them.
    by_name: Vec<usize>,
}

impl<'a> Document<'a> {
    /// Any object, with each name once.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, Defect> {
        if text.len() > LIMIT {
            return Err(Defect::new(format!(
                "it is larger than {LIMIT} bytes: remove what is not needed"
            )));
        }
        if text.trim_ascii().is_empty() {
            return Err(Defect::new(
                "it is empty: remove it, or put the tokens into it",
            ));
        }
        let mut reader = serde_json::Deserializer::from_slice(text);
        let members = reader
            .deserialize_map(Members)
            .and_then(|members| reader.end().map(|()| members))
            .map_err(|error| Defect::syntax(&error))?;
        let name = |at: usize| &members[at].0;
        let mut by_name: Vec<_> = (0..members.len()).collect();
        by_name.sort_unstable_by_key(|at| name(*at));
        if by_name
            .windows(2)
            .any(|pair| name(pair[0]) == name(pair[1]))
        {
            return Err(Defect::new(
                "it gives a member twice, so that it has no certain meaning: remove one of them",
            ));
        }
        Ok(Self { members, by_name })
    }

    /// The record in it. `modified` is when the text was written: what a lifetime counts from. A text
    /// of somebody else is a login of version 0.
    pub(super) fn record(&self, modified: SystemTime) -> Result<Record, Defect> {
        match self.format() {
            Format::Plain => Ok(Record {
                tokens: Some(self.tokens(Format::Plain, modified)?),
                ..Record::empty()
            }),
            Format::Foreign => Ok(Record {
                version: self.get(VERSION).and_then(parse).unwrap_or_default(),
                epoch: self.get(EPOCH).and_then(parse).unwrap_or_default(),
                reissues: self.get(REISSUES).and_then(parse).unwrap_or_default(),
                tokens: Some(TokenSet::new(self.access_token()?)?),
                turn: Turn::Free,
                foreign: true,
            }),
            Format::Current => {
                let (turn, tokens) = if self.says(LOGGED_OUT)? {
                    (Turn::Ended(self.ended()?), None)
                } else if self.says(NO_TOKENS)? {
                    (self.turn()?, None)
                } else {
                    let tokens = self.tokens(Format::Current, modified)?;
                    (self.turn()?, Some(tokens))
                };
                Ok(Record {
                    version: self.serial(VERSION)?,
                    epoch: self.serial(EPOCH)?,
                    reissues: self.serial(REISSUES)?,
                    tokens,
                    turn,
                    foreign: false,
                })
            }
        }
    }

    /// Which session's record it is, where it says so.
    #[cfg(feature = "file")]
    pub(super) fn id(&self) -> Result<Option<u64>, Defect> {
        if self.format() != Format::Current {
            return Ok(None);
        }
        let text: Option<String> = self.own(RECORD_ID)?;
        text.map(|text| number(&text).ok_or_else(|| unreadable(RECORD_ID)))
            .transpose()
    }

    /// `true` under this name, with no token beside it.
    fn says(&self, names: Names) -> Result<bool, Defect> {
        if self.own(names)? != Some(true) {
            return Ok(false);
        }
        match self.text(ACCESS_TOKEN)?.is_none() && self.text(REFRESH_TOKEN)?.is_none() {
            true => Ok(true),
            false => Err(Defect::new(format!(
                "it says {:?} and has tokens all the same: remove one or the other",
                names.first()
            ))),
        }
    }

    fn access_token(&self) -> Result<String, Defect> {
        match self.text(ACCESS_TOKEN)? {
            Some(mut access_token) => Ok(std::mem::take(&mut *access_token)),
            None => Err(Defect::new(
                "it has no access token, neither as \"access_token\" nor as \"accessToken\": put \
                 one into it, or remove it to log in anew",
            )),
        }
    }

    fn tokens(&self, format: Format, modified: SystemTime) -> Result<TokenSet, Defect> {
        let mut tokens = TokenSet::new(self.access_token()?)?;
        if let Some(mut refresh_token) = self.text(REFRESH_TOKEN)? {
            let refresh_token = RefreshToken::new(std::mem::take(&mut *refresh_token))?;
            tokens = tokens.with_refresh_token(refresh_token)?;
        }
        let lifetime = self.time(EXPIRES_IN, json::seconds)?;
        let counted = lifetime.and_then(|lifetime| modified.checked_add(lifetime));
        if let Some(at) = self.time(EXPIRES_AT, json::moment)?.or(counted) {
            tokens = tokens.with_expires_at(at);
        }
        let names = self.identity_names(format)?;
        let apart = match format {
            Format::Current => self.get(IDENTITY_APART),
            _ => None,
        };
        let sizes = names.iter().map(|name| name.len() + self.size(name));
        check_size(apart.map_or(0, |raw| raw.get().len()) + sizes.sum::<usize>())?;
        for name in names {
            tokens = tokens.with_identity(name, self.identity(name)?);
        }
        if apart.is_some() {
            let apart: Option<BTreeMap<String, Value>> = self.own(IDENTITY_APART)?;
            for (name, value) in apart.into_iter().flatten() {
                tokens = tokens.with_identity(name, value);
            }
        }
        let mut obtained_at = None;
        if format == Format::Current {
            obtained_at = self.time(OBTAINED_AT, json::moment)?;
            if let Some(in_doubt) = self.in_doubt()? {
                tokens = tokens.with_in_doubt(in_doubt);
            }
        }
        Ok(tokens.with_obtained_at(obtained_at.unwrap_or(modified)))
    }

    /// The text with this record in place of what it held. `now` is when it will have been written.
    pub(super) fn with_record(
        &self,
        record: &Record,
        id: Option<u64>,
        now: SystemTime,
    ) -> Result<Zeroizing<Vec<u8>>, Defect> {
        if record.foreign {
            return Err(Defect::foreign());
        }
        let ended = match record.turn {
            Turn::Ended(reason) => Some(reason),
            _ => None,
        };
        let tokens = record.tokens.as_ref().filter(|_| ended.is_none());
        let flag = |is: bool| is.then_some(New::Plain(json!(true)));
        let mut changes = Changes::default();
        changes.one(FORMAT, Some(New::Plain(json!(1))));
        changes.one(VERSION, Some(New::Plain(json!(record.version))));
        changes.one(EPOCH, Some(New::Plain(json!(record.epoch))));
        let reissues = (record.reissues > 0).then(|| New::Plain(json!(record.reissues)));
        changes.one(REISSUES, reissues);
        changes.one(RECORD_ID, id.map(|id| New::Plain(json!(hex(id)))));
        changes.one(TURN, turn(record.turn)?.map(New::Plain));
        self.change_tokens(&mut changes, tokens);
        self.change_times(&mut changes, tokens, now)?;
        self.change_identity(&mut changes, tokens)?;
        changes.one(NO_TOKENS, flag(tokens.is_none() && ended.is_none()));
        changes.one(LOGGED_OUT, flag(ended.is_some()));
        changes.one(
            ENDED,
            ended.map(|reason| New::Plain(json!(reason_name(reason)))),
        );
        write(&self.changed(changes))
    }

    fn change_tokens<'b>(&self, changes: &mut Changes<'b>, tokens: Option<&'b TokenSet>) {
        let access_token = tokens.map(|tokens| tokens.access_token().expose());
        self.change(changes, ACCESS_TOKEN, access_token.map(New::Secret));
        let refresh_token = tokens.and_then(TokenSet::refresh_token);
        let refresh_token = refresh_token.map(RefreshToken::expose);
        self.change(changes, REFRESH_TOKEN, refresh_token.map(New::Secret));
    }

    fn change_times<'b>(
        &self,
        changes: &mut Changes<'b>,
        tokens: Option<&'b TokenSet>,
        now: SystemTime,
    ) -> Result<(), Defect> {
        let expires_at = tokens.and_then(TokenSet::expires_at);
        self.change(
            changes,
            EXPIRES_AT,
            expires_at.and_then(rfc3339).map(New::Plain),
        );
        // A lifetime is kept right where there is one: our own reading does not need it.
        for name in EXPIRES_IN.all() {
            if let Some(old) = self.raw(name) {
                let left = expires_at.map(|at| at.duration_since(now).unwrap_or_default());
                let left = left.map(|left| left.as_secs_f64().round() as u64);
                let left = left.map(|left| match old.get().starts_with('"') {
                    true => json!(left.to_string()),
                    false => json!(left),
                });
                changes.set(*name, left.map(New::Plain));
            }
        }
        let obtained_at = tokens.and_then(|tokens| rfc3339(tokens.obtained_at()));
        changes.one(OBTAINED_AT, obtained_at.map(New::Plain));
        let in_doubt = match tokens.and_then(TokenSet::in_doubt) {
            None => None,
            Some(in_doubt) => {
                let since = date(in_doubt.since)?;
                let sent_at = in_doubt.sent_at.and_then(rfc3339);
                let mut text = json!({"since": since, "tries": in_doubt.tries});
                if let Some(sent_at) = sent_at {
                    text["sent_at"] = sent_at;
                }
                Some(text)
            }
        };
        changes.one(IN_DOUBT, in_doubt.map(New::Plain));
        Ok(())
    }

    fn change_identity<'b>(
        &'b self,
        changes: &mut Changes<'b>,
        tokens: Option<&'b TokenSet>,
    ) -> Result<(), Defect> {
        let identity = tokens.map(TokenSet::identity).into_iter().flatten();
        check_identity(identity.clone())?;
        let (apart, members): (BTreeMap<_, _>, BTreeMap<_, _>) = identity
            .map(|(name, value)| (name.as_str(), value))
            .partition(|(name, _)| is_own(name));
        let old = self.identity_names(self.format())?;
        for name in &old {
            changes.set(*name, None);
        }
        for (name, value) in &members {
            changes.set(*name, Some(New::Identity(value)));
        }
        let is_plain = USUAL_IDENTITY.iter().all(|usual| match members.get(usual) {
            Some(value) => !value.is_null(),
            None => old.contains(usual) || self.present(usual).is_none(),
        }) && members.keys().all(|name| USUAL_IDENTITY.contains(name));
        let names = || New::Plain(json!(members.keys().collect::<Vec<_>>()));
        changes.one(IDENTITY, (!is_plain).then(names));
        let apart = (!apart.is_empty()).then(|| New::Plain(json!(apart)));
        changes.one(IDENTITY_APART, apart);
        Ok(())
    }

    /// Changes the member under each of its names that the file has. A new one gets the name that
    /// goes with the name of the access token.
    fn change<'b>(&self, changes: &mut Changes<'b>, names: Names, new: Option<New<'b>>) {
        let mut present = names
            .all()
            .iter()
            .filter(|name| self.raw(name).is_some())
            .peekable();
        if present.peek().is_none() {
            let [snake, camel] = [false, true].map(|camel| self.raw(ACCESS_TOKEN.cased(camel)));
            changes.set(names.cased(snake.is_none() && camel.is_some()), new);
        } else {
            present.for_each(|name| changes.set(*name, new.clone()));
        }
    }

    /// The members with the changes: what is there keeps its place, what is new comes last.
    fn changed<'b>(&'b self, changes: Changes<'b>) -> Vec<(Cow<'b, str>, New<'b>)> {
        let mut members = Vec::with_capacity(self.members.len() + changes.places.len());
        let mut new = changes.values;
        for (name, raw) in &self.members {
            match changes.places.get(name.as_str()) {
                None => members.push((Cow::from(name), New::Kept(raw))),
                Some(at) => members.extend(new[*at].1.take().map(|new| {
                    let new = if new.is(raw) { New::Kept(raw) } else { new };
                    (Cow::from(name), new)
                })),
            }
        }
        members.extend(new.into_iter().filter_map(|(name, new)| Some((name, new?))));
        members
    }

    pub(super) fn format(&self) -> Format {
        match self.get(FORMAT) {
            None => Format::Plain,
            Some(raw) if parse::<f64>(raw) == Some(1.0) => Format::Current,
            Some(_) => Format::Foreign,
        }
    }

    fn in_doubt(&self) -> Result<Option<InDoubt>, Defect> {
        let Some(value) = self.own::<Value>(IN_DOUBT)? else {
            return Ok(None);
        };
        let since = value.get("since").and_then(json::moment);
        let tries = value.get("tries").and_then(Value::as_u64);
        match (since, tries.map(u32::try_from)) {
            (Some(since), Some(Ok(tries))) => Ok(Some(InDoubt {
                sent_at: value.get("sent_at").and_then(json::moment),
                ..InDoubt::new(since, tries)
            })),
            _ => Err(unreadable(IN_DOUBT)),
        }
    }

    fn turn(&self) -> Result<Turn, Defect> {
        let Some(value) = self.own::<Value>(TURN)? else {
            return Ok(Turn::Free);
        };
        let text = |name| value.get(name).and_then(Value::as_str);
        let time = |name| value.get(name).and_then(json::moment);
        let sent = || {
            Some(Claim {
                owner: number(text("owner")?)?,
                fence: value.get("fence")?.as_u64().filter(|it| *it <= LARGEST)?,
                sent_at: time("sent_at")?,
                deadline: time("deadline")?,
            })
        };
        match text("state") {
            Some("refused") => Some(Turn::Refused),
            Some("sent") => sent().map(Turn::Sent),
            _ => None,
        }
        .ok_or_else(|| unreadable(TURN))
    }

    /// A reason that is not known here was one all the same.
    fn ended(&self) -> Result<EndReason, Defect> {
        let name: Option<String> = self.own(ENDED)?;
        Ok(match name.as_deref() {
            Some("refused") => EndReason::Refused,
            Some("rejected") => EndReason::Rejected,
            Some("replaced") => EndReason::Replaced,
            _ => EndReason::LoggedOut,
        })
    }

    fn identity_names(&self, format: Format) -> Result<Vec<&str>, Defect> {
        let listed: Option<Vec<String>> = match format {
            Format::Current => self.own(IDENTITY)?,
            _ => None,
        };
        let Some(listed) = listed else {
            let mut usual = USUAL_IDENTITY.to_vec();
            usual.retain(|name| self.present(name).is_some());
            return Ok(usual);
        };
        // The tokens are no identity, whatever the list says: that is shown by `Debug`.
        if listed.iter().any(|name| is_own(name)) {
            return Err(unreadable(IDENTITY));
        }
        let listed: HashSet<_> = listed.iter().map(String::as_str).collect();
        let names = self.members.iter().map(|(name, _)| name.as_str());
        Ok(names.filter(|name| listed.contains(name)).collect())
    }

    fn size(&self, name: &str) -> usize {
        self.raw(name).map_or(0, |raw| raw.get().len())
    }

    fn identity(&self, name: &str) -> Result<Value, Defect> {
        let value = self.raw(name).and_then(parse);
        value.ok_or_else(|| {
            Defect::new("a member of the identity cannot be read: put it right or log in again")
        })
    }

    /// A member as it is written here, or `None` where it is absent.
    fn own<T: DeserializeOwned>(&self, names: Names) -> Result<Option<T>, Defect> {
        let raw = self.get(names);
        raw.map(|raw| parse(raw).ok_or_else(|| unreadable(names)))
            .transpose()
    }

    fn serial(&self, names: Names) -> Result<u64, Defect> {
        let serial = self.own(names)?.unwrap_or_default();
        match serial <= LARGEST {
            true => Ok(serial),
            false => Err(unreadable(names)),
        }
    }

    fn text(&self, names: Names) -> Result<Option<Zeroizing<String>>, Defect> {
        self.one(names, |name, raw| match parse(raw).map(Zeroizing::new) {
            Some(text) => Ok(Some(text)),
            None => Err(Defect::new(format!(
                "its member {name:?} is no text: put it right or log in again"
            ))),
        })
    }

    /// A time is a convenience: without one the server decides.
    fn time<T: PartialEq>(
        &self,
        names: Names,
        read: fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Defect> {
        self.one(names, |name, raw| {
            let time = parse(raw).and_then(|value| read(&value));
            if time.is_none() {
                say(|| {
                    tracing::warn!(
                        member = name,
                        "a time beside the stored tokens cannot be read and is ignored"
                    )
                });
            }
            Ok(time)
        })
    }

    /// What the member says, under whichever of its names. Under two, it must say the same.
    fn one<T: PartialEq>(
        &self,
        names: Names,
        read: impl Fn(&str, &RawValue) -> Result<Option<T>, Defect>,
    ) -> Result<Option<T>, Defect> {
        let mut found: Option<(&str, T)> = None;
        for name in names.all() {
            let Some(raw) = self.present(name) else {
                continue;
            };
            let Some(new) = read(name, raw)? else {
                continue;
            };
            match &found {
                Some((other, old)) if *old != new => {
                    return Err(Defect::new(format!(
                        "its members {other:?} and {name:?} say different things: remove one of \
                         them"
                    )));
                }
                Some(_) => {}
                None => found = Some((name, new)),
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// The text of a member that has one name, unless it is absent or null.
    fn get(&self, names: Names) -> Option<&'a RawValue> {
        self.present(names.first())
    }

    fn present(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|raw| raw.get() != "null")
    }

    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let of = |at: &usize| self.members[*at].0.as_str();
        let found = self.by_name.binary_search_by(|at| of(at).cmp(name)).ok()?;
        Some(self.members[self.by_name[found]].1)
    }
}

/// What is not to be read again is not written.
fn check_identity<'v>(
    identity: impl Iterator<Item = (&'v String, &'v Value)> + Clone,
) -> Result<(), Defect> {
    if identity.clone().any(|(_, value)| is_deeper(value, DEEPEST)) {
        return Err(Defect::new(format!(
            "a member of the identity is nested more than {DEEPEST} levels deep: make it flatter"
        )));
    }
    let mut size = Size(0);
    for (name, value) in identity {
        size.0 += name.len();
        let written = serde_json::to_writer(&mut size, value);
        written.map_err(|_| Defect::new("a member of the identity cannot be written as JSON"))?;
    }
    check_size(size.0)
}

fn check_size(identity: usize) -> Result<(), Defect> {
    match identity <= IDENTITY_LIMIT {
        true => Ok(()),
        false => Err(Defect::new(format!(
            "its identity is {identity} bytes long, and the limit is {IDENTITY_LIMIT}: keep what the \
             issuer asks for, and nothing else"
        ))),
    }
}

/// Looks no further than it has to.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else {
        return value.is_array() || value.is_object();
    };
    match value {
        Value::Array(values) => values.iter().any(|value| is_deeper(value, levels)),
        Value::Object(members) => members.values().any(|value| is_deeper(value, levels)),
        _ => false,
    }
}

fn parse<T: DeserializeOwned>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn unreadable(names: Names) -> Defect {
    let name = names.first();
    Defect::new(format!(
        "its member {name:?} is not as this crate writes it: put it right, or remove it and log \
         in again"
    ))
}

/// Nothing for a time that RFC 3339 cannot write.
fn rfc3339(at: SystemTime) -> Option<Value> {
    let at = Timestamp::try_from(at).ok()?;
    Some(Value::String(at.to_string()))
}

/// For a time that must not be lost.
fn date(at: SystemTime) -> Result<Value, Defect> {
    rfc3339(at).ok_or_else(|| Defect::new("it cannot be written, as a time in it is no date"))
}

/// Nothing for one that is free, and after the end.
fn turn(turn: Turn) -> Result<Option<Value>, Defect> {
    Ok(match turn {
        Turn::Ended(_) | Turn::Free => None,
        Turn::Refused => Some(json!({"state": "refused"})),
        Turn::Sent(claim) => Some(json!({
            "state": "sent",
            "owner": hex(claim.owner),
            "fence": claim.fence,
            "sent_at": date(claim.sent_at)?,
            "deadline": date(claim.deadline)?,
        })),
    })
}

fn reason_name(reason: EndReason) -> &'static str {
    match reason {
        EndReason::LoggedOut => "logged_out",
        EndReason::Refused => "refused",
        EndReason::Rejected => "rejected",
        EndReason::Replaced => "replaced",
    }
}

/// A random number. As a number, other programs would round it.
fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn number(hex: &str) -> Option<u64> {
    let is_ours = hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours.then(|| u64::from_str_radix(hex, 16).ok()).flatten()
}

/// What becomes of the members that are named: a new value, or none.
#[derive(Default)]
struct Changes<'a> {
    values: Vec<(Cow<'a, str>, Option<New<'a>>)>,
    places: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Changes<'a> {
    fn one(&mut self, names: Names, new: Option<New<'a>>) {
        self.set(names.first(), new);
    }

    fn set(&mut self, name: impl Into<Cow<'a, str>>, new: Option<New<'a>>) {
        let name = name.into();
        match self.places.get(&name) {
            Some(at) => self.values[*at].1 = new,
            None => {
                self.places.insert(name.clone(), self.values.len());
                self.values.push((name, new));
            }
        }
    }
}

/// A member's value in the new text.
#[derive(Clone)]
enum New<'a> {
    Identity(&'a Value),
    /// As it stands in the old text.
    Kept(&'a RawValue),
    Plain(Value),
    Secret(&'a str),
}

impl New<'_> {
    /// Does the old text say this already?
    fn is(&self, raw: &RawValue) -> bool {
        match self {
            Self::Identity(value) => parse::<Value>(raw).is_some_and(|old| old == **value),
            _ => false,
        }
    }
}

impl Serialize for New<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Identity(value) => value.serialize(serializer),
            Self::Kept(raw) => raw.serialize(serializer),
            Self::Plain(value) => value.serialize(serializer),
            Self::Secret(text) => serializer.serialize_str(text),
        }
    }
}

/// Written twice, to nowhere first: so the buffer never grows, and leaves no copy behind.
fn write(members: &[(Cow<'_, str>, New<'_>)]) -> Result<Zeroizing<Vec<u8>>, Defect> {
    let into = |writer: &mut dyn Write| {
        let mut serializer = serde_json::Serializer::pretty(writer);
        let members = members.iter().map(|(name, new)| (name, new));
        let written = serializer.collect_map(members);
        written.map_err(|_| Defect::new("its new text cannot be written as JSON"))
    };
    let mut size = Size(0);
    into(&mut size)?;
    let size = size.0 + 1;
    if size > LIMIT {
        return Err(Defect::new(format!(
            "it would be {size} bytes long, and the limit is {LIMIT}: remove what is not needed"
        )));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(size));
    into(&mut *text)?;
    text.push(b'\n');
    Ok(text)
}

struct Size(usize);

impl Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Collects the members of an object, their values unread.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;
