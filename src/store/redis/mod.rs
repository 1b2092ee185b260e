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
use super::doubts::Doubts;
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

/// Keeps the record of a session in a key of Redis: one login for processes on many machines.
///
/// ```no_run
/// use tower_token_refresh::{BoxError, RedisStore, Session};
/// # use tower_token_refresh::{ReissueError, TokenSet, reissue_fn};
///
/// # fn set_up() -> Result<(), BoxError> {
/// # let reissue = reissue_fn(|_| async { TokenSet::new("second").map_err(ReissueError::unknown) });
/// # let secret = [0; 32];
/// let client = redis::Client::open("redis://gateway:password@redis.example.com/")?;
/// let store = RedisStore::new(client, "gateway").secret(secret)?;
/// let session = Session::builder(reissue)
///     .shared_store(store)
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// User, password, number of the database and TLS are those of the `Client`: `rediss://` takes a feature of the
/// crate `redis`, such as `tokio-rustls-comp`.
///
/// # Many sessions
///
/// [`session`](Self::session) gives the store of another session. All that come from one share two
/// connections, whatever their number: one for commands, and one on which changes are told; with
/// [`wait`](Self::wait) a third. They are made at the first use, on the runtime of whoever needs them first, and closed
/// when the last of these stores is gone.
///
/// # What is stored
///
/// One hash for each session, in the key `token-refresh:HASH` or with [another prefix](Self::prefix), with the fields
/// `version` and `record`. `HASH` is a hash of the session's name. The key never expires: one that is deleted is a
/// session that nobody has logged in to. Without a [secret](Self::secret) the tokens are in it as they are: whoever
/// can read the database, its files, its replicas or a `MONITOR` can use them. With one they are encrypted, and a record
/// that was copied from another session, or changed, is refused.
///
/// A read is one round trip, and a swap another one. Swaps are one script, so that of several with the same version one is
/// done. None is ever sent twice: one that is not answered is read back.
///
/// The user needs `+evalsha +script|load +hget +hmget +hset +hdel +hlen +time` and `~token-refresh:*`; to
/// tell and hear of changes `+publish +subscribe` and `&token-refresh:*`; for `wait` `+wait`; for another database than 0
/// `+select`.
///
/// # Changes
///
/// They are told on the channel `token-refresh:changed`, so that other processes see them within milliseconds. Whether that
/// works is tried every 5 s. Where it does not, each session in use looks at its key three times a second. Give all
/// processes the same rights: who may not publish is heard of late by those who only listen.
///
/// # What Redis can lose
///
/// An issuer that takes each refresh token once has to be presented the newest. Redis forgets that in more ways
/// than a database that was made for it, and all of these are settings of the server:
///
/// | setting | with it | without it |
/// |---|---|---|
/// | `appendonly yes` | a server that is started again has what the next line says | it has its last snapshot, or nothing |
/// | `appendfsync always` | nothing that was answered is lost in a crash of the server or of its machine | with `everysec` what it answered in the last second or two, if the machine crashes; with `no`, as the system likes |
/// | `maxmemory-policy noeviction` | writes are refused when there is no memory left, and a record stays | a key is evicted, and the login with it, or (`volatile-*`) not: the key has no expiry |
/// | `min-replicas-to-write 1`, `min-replicas-max-lag 10` | a primary that is cut off from its replicas takes no writes after 10 s | it takes them, and loses them when it finds its successor |
/// | [`wait`](Self::wait) | a write that fewer replicas have is not taken for done | it is done when the primary has it |
///
/// **Failover.** Redis answers a write before its replicas have it. If the primary fails in that moment, and a replica takes
/// its place that did not get the write, by Sentinel or by hand, this store shows the older record, or none, and no
/// error: it can't know. Each process that remembers the newer record writes it back when it finds out. If none does, or
/// a claim is lost in this way, a refresh token that was spent already may be presented once more. With `wait(1, …)` a
/// write that no replica has is not taken for done, and not shown to the session that made it, so that it sends nothing: a
/// failover to a replica that has confirmed loses nothing that was said to be done. Sentinel does not promise
/// to choose that one: wait for all that it may choose from.
///
/// Sentinel works behind an address that leads to the primary of the moment, of HAProxy say: the `Client` of
/// one address is all that this store takes. A replica that only reads is never read from: it is an
/// error, and the next call connects anew. One that was made writable (`replica-read-only no`) cannot be told from a primary.
///
/// Redis Cluster is not supported: the `Client` talks to one node, and its keys move. What a node answers then is an error
/// that says so. Tested with Redis 7.0; it needs version 6 or later.
///
/// # Failures
///
/// A call fails when nobody can say what the record is: the session goes on with a valid access token then and
/// reissues nothing. What the error says is what to do, with the code of the server, and nothing that the server quotes. A
/// connection that fails, or that leaves a call without an answer until its deadline, is given up, and the next
/// call makes a new one, at once. So a server that was stopped, cut off or replaced behind its
/// address is found again by the call after; a connection that was closed while nobody used it, by the same call. To connect
/// takes 2 s at most, many that need it wait for one, and its failure is told to all of them.
///
/// # Cancel safety
///
/// All calls may be dropped. A swap that was sent may be done all the same, once, and only if the version is still right by then.
#[derive(Clone)]
pub struct RedisStore {
    family: Arc<Family>,
    replicas: Option<Arc<Replicas>>,
    doubts: Arc<Doubts>,
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
    /// The store of the session with this name, which is never shown in Redis.
    ///
    /// It connects at the first use, so what is wrong with the `client` is said then.
    #[must_use]
    pub fn new(client: Client, session: &str) -> Self {
        Self::with(
            Family::new(client, PREFIX),
            None,
            Seal::new(session),
            session,
        )
    }

    /// Hashes the names of sessions with this secret, and encrypts their records.
    ///
    /// All who share a session need the same. Sessions that were stored without it, or with another one, are not
    /// found any more: they have to log in again.
    ///
    /// # Errors
    ///
    /// When it is shorter than 16 bytes. Take 32 random ones.
    pub fn secret(self, secret: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let seal = Seal::secret(secret.as_ref(), &self.name)?;
        Ok(Self::with(self.family, self.replicas, seal, &self.name))
    }

    /// What the names of keys and channels begin with: `token-refresh` if left out.
    ///
    /// Sessions of different prefixes have nothing in common, and this one has connections of its own from
    /// then on. Channels are those of all databases of a server, whatever their number.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        let family = Family::new(self.family.client.clone(), prefix);
        Self::with(family, self.replicas, self.seal, &self.name)
    }

    /// Takes a write for done when so many replicas have it (`WAIT`), and for unknown when they don't within
    /// `limit`. Without it, a write is done when the primary has it.
    ///
    /// What is unknown is there all the same, and others may read it: it is new tokens, or a claim that they
    /// respect. The session that wrote it is not shown it until the replicas have it, so that it sends no refresh
    /// token that it could not claim; its reads fail until then, after `limit` each. Sessions that write at once wait
    /// together, on a connection for writes.
    ///
    /// A swap can take twice the `limit`, and all of it has to fit into
    /// [`SessionBuilder::store_timeout`](crate::SessionBuilder::store_timeout) (3 s unless set): 500 ms are plenty for
    /// replicas nearby. The limit is at least 1 ms. All who share a session should wait for as many.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tower_token_refresh::RedisStore;
    /// # fn store(client: redis::Client) {
    /// let store = RedisStore::new(client, "gateway").wait(1, Duration::from_millis(500));
    /// # }
    /// ```
    #[must_use]
    pub fn wait(self, replicas: u32, limit: Duration) -> Self {
        let client = self.family.client.clone();
        Self {
            replicas: (replicas > 0).then(|| Replicas::new(client, replicas, limit)),
            ..self
        }
    }

    /// The store of another session: over the same connections, with the same prefix, secret and replicas.
    ///
    /// ```no_run
    /// # use tower_token_refresh::RedisStore;
    /// # fn stores(store: RedisStore) {
    /// let alice = store.session("alice");
    /// let bob = store.session("bob");
    /// # }
    /// ```
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
            doubts: Arc::default(),
            family,
            replicas,
            seal,
        }
    }

    /// What was found, as a record.
    async fn record(&self, found: Found) -> Result<(Record, SystemTime), BoxError> {
        let (version, text, fields, seconds, micros) = found;
        let text = text.map(Zeroizing::new);
        let now = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros.into()));
        let now = SystemTime::UNIX_EPOCH.checked_add(now);
        let now = now.ok_or_else(|| Fault::new("the clock of Redis tells no time"))?;
        let record = match (version, text) {
            (None, None) if fields == 0 => Record::empty(),
            (Some(version), Some(text)) => {
                let number = version.parse().ok();
                let number = number.filter(|number: &u64| number.to_string() == version);
                let number = number.ok_or_else(not_ours)?;
                self.seal.open_aside(number, text).await?
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
        let (record, now) = self.record(found).await?;
        let Some(replicas) = &self.replicas else {
            return Ok((record, now));
        };
        if !self.doubts.has(record.version()) {
            return Ok((record, now));
        }
        let (found, link) = self.find(&replicas.line, &READ_TO_CONFIRM).await?;
        let (record, now) = self.record(found).await?;
        let version = record.version();
        if version > 0 {
            replicas.confirm(&link).await?;
            self.doubts.settle(version);
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
        self.doubts.begin(version);
        if !self.run::<bool>(&replicas.line, &link, swap).await? {
            self.doubts.give_up(version);
            return Ok(Swap::Conflict);
        }
        replicas.confirm(&link).await?;
        self.doubts.settle(record.version());
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
