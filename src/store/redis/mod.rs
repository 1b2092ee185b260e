//! A session's record in a key of Redis.

mod channel;
mod fault;
mod line;
mod replicas;

use std::fmt;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;
use std::time::SystemTime;

use redis::Client;
use redis::Script;
use redis::aio::MultiplexedConnection;
use zeroize::Zeroizing;

use self::channel::Channel;
use self::fault::Fault;
use self::line::Line;
use self::line::Link;
use self::replicas::Replicas;
use super::Record;
use super::SharedTokenStore;
use super::Swap;
use super::notices::Notices;
use super::notices::Subject;
use super::notices::notice;
use super::seal::Seal;
use crate::error::BoxError;
use crate::error::ConfigError;

const PREFIX: &str = "token-refresh";

/// The record, and what time it is. A replica that only reads is found out by a write that changes
/// nothing; it may be refused for other reasons, and the record be read all the same.
static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local tried = redis.pcall('HDEL', KEYS[1], '')
if type(tried) == 'table' and tried.err and string.find(tried.err, 'READONLY', 1, true) then
    return tried
end
local kept = redis.call('HMGET', KEYS[1], 'version', 'record')
local now = redis.call('TIME')
return {kept[1], kept[2], redis.call('HLEN', KEYS[1]), now[1], now[2]}
",
    )
});

/// The same after a write that changes nothing and is sent to the replicas: `WAIT` on this connection is
/// for all that was written up to it.
static READ_TO_CONFIRM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local kept = redis.call('HMGET', KEYS[1], 'version', 'record')
if kept[1] then
    local done = redis.pcall('HSET', KEYS[1], 'version', kept[1])
    if type(done) == 'table' and done.err then
        return done
    end
end
local now = redis.call('TIME')
return {kept[1], kept[2], redis.call('HLEN', KEYS[1]), now[1], now[2]}
",
    )
});

/// Versions are compared as texts: as numbers, a script would round them. Who may not tell of the change
/// may make it: others find out by looking.
static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if ARGV[1] == '0' then
    if redis.call('HLEN', KEYS[1]) > 0 then
        return 0
    end
elseif redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
    return 0
end
local done = redis.pcall('HSET', KEYS[1], 'version', ARGV[2], 'record', ARGV[3])
if type(done) == 'table' and done.err then
    return done
end
redis.pcall('PUBLISH', ARGV[4], ARGV[5])
return 1
",
    )
});

/// Keeps the record of a session in a key of Redis.
#[derive(Clone)]
pub struct RedisStore {
    family: Arc<Family>,
    replicas: Option<Arc<Replicas>>,
    seal: Seal,
    name: String,
    /// What the record is called in Redis.
    key: String,
    subject: Subject,
}

/// What all sessions of a store share.
struct Family {
    client: Client,
    prefix: String,
    /// Where changes are told.
    channel: String,
    line: Line,
    notices: Arc<Notices>,
}

/// What a script says of a key.
type Found = (Option<String>, Option<String>, u64, u64, u32);

impl RedisStore {
    /// The store of the session with this name. It connects when it is first used.
    #[must_use]
    pub fn new(client: Client, session: &str) -> Self {
        Self::with(
            Family::new(client, PREFIX),
            None,
            Seal::new(session),
            session,
        )
    }

    /// Names are hashed with this secret, and records encrypted.
    ///
    /// # Errors
    ///
    /// When it is shorter than 16 bytes.
    pub fn secret(self, secret: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let seal = Seal::secret(secret.as_ref(), &self.name)?;
        Ok(Self::with(self.family, self.replicas, seal, &self.name))
    }

    /// What the names of keys and channels begin with.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        let family = Family::new(self.family.client.clone(), prefix);
        Self::with(family, self.replicas, self.seal, &self.name)
    }

    /// A write counts when so many replicas have it, or is unknown after so long.
    #[must_use]
    pub fn wait(self, replicas: u32, limit: Duration) -> Self {
        let client = self.family.client.clone();
        Self {
            replicas: (replicas > 0).then(|| Replicas::new(client, replicas, limit)),
            ..self
        }
    }

    /// The store of another session, over the same connections.
    #[must_use]
    pub fn session(&self, session: &str) -> Self {
        let (family, replicas) = (self.family.clone(), self.replicas.clone());
        Self::with(family, replicas, self.seal.session(session), session)
    }

    fn with(
        family: Arc<Family>,
        replicas: Option<Arc<Replicas>>,
        seal: Seal,
        session: &str,
    ) -> Self {
        Self {
            key: format!("{}:{}", family.prefix, seal.key()),
            subject: family.notices.subject(seal.key()),
            name: session.to_owned(),
            family,
            replicas,
            seal,
        }
    }

    /// What was found, as a record.
    fn record(&self, found: Found) -> Result<(Record, SystemTime), BoxError> {
        let (version, text, fields, seconds, micros) = found;
        let text = text.map(Zeroizing::new);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let now = now + Duration::from_micros(micros.into());
        let record = match (version, text) {
            (None, None) if fields == 0 => Record::empty(),
            (Some(version), Some(text)) => {
                let number = version.parse().ok();
                let number = number.filter(|number: &u64| number.to_string() == version);
                self.seal.open(number.ok_or_else(not_ours)?, &text)?
            }
            _ => return Err(not_ours().into()),
        };
        Ok((record, now))
    }

    async fn run<T>(&self, line: &Line, link: &Link, call: Call<'_>) -> Result<T, Fault>
    where
        T: redis::FromRedisValue,
    {
        let (script, arguments) = call;
        let mut invocation = script.key(&self.key);
        for argument in arguments {
            invocation.arg(*argument);
        }
        let invocation = &invocation;
        line.ask(
            link,
            Duration::ZERO,
            async move |mut connection: MultiplexedConnection| {
                invocation.invoke_async(&mut connection).await
            },
        )
        .await
    }

    /// Reads, and once more on a new connection where one from before turns out to be lost: the server may
    /// have closed it for lack of use, or have been started anew.
    async fn find(&self, line: &Line, script: &Script) -> Result<(Found, Link), Fault> {
        let mut link = line.link().await?;
        let mut found = self.run(line, &link, (script, &[])).await;
        if found.as_ref().is_err_and(|fault| fault.is_lost) && !link.is_new {
            link = line.link().await?;
            found = self.run(line, &link, (script, &[])).await;
        }
        Ok((found?, link))
    }
}

type Call<'a> = (&'a Script, &'a [&'a str]);

impl Family {
    fn new(client: Client, prefix: &str) -> Arc<Self> {
        Arc::new(Self {
            line: Line::new(client.clone()),
            client,
            prefix: prefix.to_owned(),
            channel: format!("{prefix}:changed"),
            notices: Notices::new(),
        })
    }
}

fn not_ours() -> Fault {
    Fault::new(
        "the key of the session's record holds something else, or was changed by hand: remove it, or \
         take another prefix",
    )
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl SharedTokenStore for RedisStore {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        let (found, _) = self.find(&self.family.line, &READ).await?;
        let (record, now) = self.record(found)?;
        let Some(replicas) = &self.replicas else {
            return Ok((record, now));
        };
        if !replicas.is_in_doubt(&self.key, record.version()) {
            return Ok((record, now));
        }
        let (found, link) = self.find(&replicas.line, &READ_TO_CONFIRM).await?;
        let (record, now) = self.record(found)?;
        let version = record.version();
        if version > 0 {
            replicas.confirm(&link, &self.key, version).await?;
        }
        Ok((record, now))
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        let text = self.seal.close(record)?;
        let (old, new) = (version.to_string(), record.version().to_string());
        let told = notice(self.seal.key(), record.version());
        let arguments: &[&str] = &[&old, &new, &text, &self.family.channel, &told];
        let swap: Call<'_> = (&SWAP, arguments);
        let Some(replicas) = &self.replicas else {
            let line = &self.family.line;
            let done: bool = self.run(line, &line.live_link().await?, swap).await?;
            return Ok(if done { Swap::Done } else { Swap::Conflict });
        };
        let link = replicas.line.live_link().await?;
        replicas.begin(&self.key, version);
        if !self.run::<bool>(&replicas.line, &link, swap).await? {
            replicas.give_up(&self.key, version);
            return Ok(Swap::Conflict);
        }
        replicas.confirm(&link, &self.key, record.version()).await?;
        Ok(Swap::Done)
    }

    async fn changed(&self, version: u64) {
        let wire = || Arc::new(Channel::new(&self.family)) as Arc<_>;
        self.subject.changed(version, wire).await;
    }

    /// A failover, a restart without the last seconds, or an eviction.
    fn can_lose(&self) -> bool {
        true
    }
}
