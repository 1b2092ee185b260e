//! What a call to Redis has failed with, in words of our own.
//!
//! What the server and its client say is not passed on: it may quote names of users, addresses and what
//! was sent (P12). Its code is.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use redis::ErrorKind;
use redis::RedisError;
use redis::ServerErrorKind;

/// What a server says, by its code or by words of it, and what it means. `true` where another connection
/// may lead to another server, or to one that knows us.
const KNOWN: &[(&str, bool, &str)] = &[
    (
        "READONLY",
        true,
        "this Redis is a read-only replica, and the record is never read from one: give the address of \
         the primary; after a failover, that of the new one",
    ),
    (
        "LOADING",
        false,
        "Redis is still loading its data: it answers when it has them",
    ),
    (
        "NOAUTH",
        true,
        "Redis wants a password: put one into the URL of the client",
    ),
    (
        "WRONGPASS",
        true,
        "Redis refuses the user or the password in the URL of the client",
    ),
    (
        "NOPERM",
        true,
        "the user lacks a right in Redis: the page of `RedisStore` lists what it needs",
    ),
    (
        "OOM",
        false,
        "Redis has used up its memory and takes no writes: raise `maxmemory`, or remove what nobody needs",
    ),
    (
        "MISCONF",
        false,
        "Redis takes no writes, as it can't write to its disk: its log says why",
    ),
    (
        "BUSY",
        false,
        "Redis is busy with a script of somebody else's, and answers nothing else",
    ),
    (
        "MASTERDOWN",
        true,
        "this Redis is a replica that has lost its primary: give the address of the primary",
    ),
    (
        "NOREPLICAS",
        false,
        "Redis takes no writes, as fewer replicas than `min-replicas-to-write` are in touch with it",
    ),
    (
        "WRONGTYPE",
        false,
        "the key of the session's record holds something else: remove it, or take another prefix",
    ),
    (
        "NOSCRIPT",
        false,
        "Redis has lost the script while it was called: the next call sends it again",
    ),
    (
        "UNBLOCKED",
        true,
        "Redis has become a replica while it waited for its replicas",
    ),
    (
        "DENIED",
        true,
        "Redis is in protected mode and takes connections from its own host alone: set a password for it",
    ),
    ("MOVED", true, CLUSTER),
    ("CLUSTERDOWN", true, CLUSTER),
    ("CROSSSLOT", true, CLUSTER),
    ("TRYAGAIN", true, CLUSTER),
    ("ASK", true, CLUSTER),
];

const CLUSTER: &str = "this Redis is a node of a cluster, which a `RedisStore` can't use: give it a \
                       server of its own, with replicas if need be";

/// What is said, without a code, of a right that a command within a script lacks.
const NO_RIGHT: [&str; 2] = [
    "The user executing the script can't",
    "ACL failure in script",
];

/// A call that has failed.
#[derive(Clone)]
pub(super) struct Fault {
    words: Cow<'static, str>,
    /// The connection is not to be used any more.
    pub(super) is_broken: bool,
    /// The connection was lost before there was an answer.
    pub(super) is_lost: bool,
}

impl Fault {
    pub(super) fn new(words: impl Into<Cow<'static, str>>) -> Self {
        Self {
            words: words.into(),
            is_broken: false,
            is_lost: false,
        }
    }

    fn broken(words: impl Into<Cow<'static, str>>) -> Self {
        Self {
            is_broken: true,
            ..Self::new(words)
        }
    }

    /// There is no answer in time.
    pub(super) fn late() -> Self {
        Self::broken("Redis has taken the request, and does not answer")
    }

    /// There is no connection in time.
    pub(super) fn no_connection() -> Self {
        Self::broken("Redis does not answer: the host can't be reached, or the server stands still")
    }

    /// Of an answer that is an error, or of none.
    pub(super) fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io => Self {
                is_lost: true,
                ..Self::broken(format!(
                    "the connection to Redis is lost ({}): what was asked may be done or not",
                    io_words(error)
                ))
            },
            kind => Self::server(error).unwrap_or_else(|| Self::other(kind)),
        }
    }

    /// Of a connection that was not made.
    pub(super) fn connecting(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io if is_closed(error) => Self::broken(
                "Redis, or what is in its place, has closed the connection at once: it takes no more \
                 clients (`maxclients`), none from this host (protected mode), or wants TLS (a URL with \
                 rediss://)",
            ),
            ErrorKind::Io => Self::broken(format!("can't connect to Redis: {}", io_words(error))),
            // The client does not tell what it was.
            ErrorKind::AuthenticationFailed => {
                Self::known("WRONGPASS").unwrap_or_else(Self::no_connection)
            }
            ErrorKind::Server(ServerErrorKind::ResponseError) => {
                Self::in_detail(error).unwrap_or_else(|| {
                    Self::broken(
                        "Redis refuses the database in the URL of the client (SELECT): it has none of \
                         this number, or the user may not use it",
                    )
                })
            }
            kind => Self::server(error).unwrap_or_else(|| Self::other(kind)),
        }
    }

    fn server(error: &RedisError) -> Option<Self> {
        let code = error.code()?;
        if let Some(fault) = Self::known(code).or_else(|| Self::in_detail(error)) {
            return Some(fault);
        }
        // It may be anything, but it is a word: not what somebody has stored.
        let is_word = code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        let code = if is_word { code } else { "no code" };
        Some(Self::broken(format!(
            "Redis refuses what it was asked ({code}): it has to be of version 6 or later, and its \
             log may say more"
        )))
    }

    fn known(code: &str) -> Option<Self> {
        let it = |(known, ..): &&(&str, bool, &str)| *known == code;
        let (code, is_broken, words) = KNOWN.iter().find(it)?;
        Some(Self {
            is_broken: *is_broken,
            ..Self::new(format!("{words} ({code})"))
        })
    }

    /// Older servers wrap the error of a script's command into another.
    fn in_detail(error: &RedisError) -> Option<Self> {
        let detail = error.detail()?;
        if NO_RIGHT.iter().any(|words| detail.contains(words)) {
            return Self::known("NOPERM");
        }
        let it = |(known, ..): &&(&str, bool, &str)| detail.contains(known);
        Self::known(KNOWN.iter().find(it)?.0)
    }

    fn other(kind: ErrorKind) -> Self {
        Self::broken(match kind {
            ErrorKind::InvalidClientConfig => {
                "the client can't connect in this way: TLS takes a feature of the crate `redis`, such as \
                 `tokio-rustls-comp`"
            }
            ErrorKind::RESP3NotSupported => {
                "this Redis does not know RESP3: leave `protocol` out of the URL of the client"
            }
            _ => {
                "what answers is no Redis, or wants TLS (a URL with rediss://), or the answer was \
                  damaged on its way"
            }
        })
    }
}

/// What the system says, which names neither hosts nor users.
fn io_words(error: &RedisError) -> String {
    match io_error(error) {
        Some(error) => error.kind().to_string(),
        None => "no reason is given".to_owned(),
    }
}

fn is_closed(error: &RedisError) -> bool {
    use io::ErrorKind::*;

    let kind = io_error(error).map(io::Error::kind);
    matches!(
        kind,
        Some(BrokenPipe | ConnectionReset | ConnectionAborted | UnexpectedEof)
    )
}

fn io_error(error: &RedisError) -> Option<&io::Error> {
    let source = error.source()?;
    match source.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        Some(shared) => shared.downcast_ref(),
        None => source.downcast_ref(),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Fault {}
