//! How a connection is made: over the caller's TLS, whose type is erased here.

use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio_postgres::AsyncMessage;
use tokio_postgres::CancelToken;
use tokio_postgres::Client;
use tokio_postgres::Config;
use tokio_postgres::Connection;
use tokio_postgres::Error;
use tokio_postgres::Socket;
use tokio_postgres::config::Host;
use tokio_postgres::config::LoadBalanceHosts;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::tls::TlsConnect;

use super::failure::Failure;
use super::failure::Then;
use crate::store::BoxFuture;
use crate::time::timeout;

/// Unless the user has named another one.
const APPLICATION: &str = "tower-token-refresh";

/// For an address to be reached, where the user has set nothing: a session waits 3 s for an answer, and
/// the next server shall have its turn in that time.
const CONNECT: Duration = Duration::from_millis(1_500);

/// For TLS and the login, after that.
const LOG_IN: Duration = Duration::from_secs(1);

/// What was sent and is not acknowledged for so long is not going to arrive.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// The driver's default. No network keeps an idle connection for so long.
const NEVER_KEPT: Duration = Duration::from_secs(2 * 60 * 60);

/// Idle for so long, the other end is asked whether it is there, so often at most.
const IDLE: Duration = Duration::from_secs(30);
const PROBES: (Duration, u32) = (Duration::from_secs(10), 3);

/// Drives a connection: what it is told meanwhile, until it is over.
pub(super) trait Driver: Send {
    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, Error>>>;
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Driver for Connection<Socket, T> {
    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, Error>>> {
        Self::poll_message(self, context)
    }
}

pub(super) type Connected = (Client, Box<dyn Driver>);

/// Drives it past what it is told, to its end.
pub(super) fn poll_over(driver: &mut dyn Driver, context: &mut Context<'_>) -> Poll<()> {
    while let Poll::Ready(message) = driver.poll_message(context) {
        if !matches!(message, Some(Ok(_))) {
            return Poll::Ready(());
        }
    }
    Poll::Pending
}

/// A way to connect with these servers.
pub(super) trait Dial: Send + Sync {
    fn dial<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, Result<Connected, Error>>;

    /// Asks the server to give up what it does for a connection.
    fn cancel(&self, token: CancelToken) -> BoxFuture<'_, Result<(), Error>>;
}

/// Over this TLS.
pub(super) struct Over<T>(pub(super) T);

impl<T> Dial for Over<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn dial<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, Result<Connected, Error>> {
        let tls = self.0.clone();
        Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            Ok((client, Box::new(connection) as Box<dyn Driver>))
        })
    }

    fn cancel(&self, token: CancelToken) -> BoxFuture<'_, Result<(), Error>> {
        let tls = self.0.clone();
        Box::pin(async move { token.cancel_query(tls).await })
    }
}

/// Where the servers are, and the way there.
pub(super) struct Servers {
    /// One of each, in the order in which they are tried.
    configs: Vec<Config>,
    is_shuffled: bool,
    /// For each of them.
    limit: Duration,
    dial: Box<dyn Dial>,
}

impl Servers {
    pub(super) fn new(config: Config, dial: Box<dyn Dial>) -> Self {
        let config = completed(config);
        let reach = config.get_connect_timeout().copied().unwrap_or(CONNECT);
        Self {
            limit: reach.saturating_add(LOG_IN),
            is_shuffled: config.get_load_balance_hosts() == LoadBalanceHosts::Random,
            configs: one_by_one(config),
            dial,
        }
    }

    /// The longest that [`Self::connect`] takes.
    pub(super) fn limit(&self) -> Duration {
        self.limit
            .saturating_mul(u32::try_from(self.configs.len()).unwrap_or(u32::MAX))
    }

    /// With the first one that answers and takes writes.
    pub(super) async fn connect(&self) -> Result<Connected, Failure> {
        let mut configs: Vec<_> = self.configs.iter().collect();
        if self.is_shuffled {
            fastrand::shuffle(&mut configs);
        }
        let mut failure = None;
        for config in configs {
            let error = match timeout(self.limit, self.dial.dial(config)).await {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => Failure::of_connection(&error),
                None => {
                    let what = format!(
                        "PostgreSQL does not let the store in within {} ms (connect_timeout, and 1 s)",
                        self.limit.as_millis()
                    );
                    Failure::new(what, Then::Lost)
                }
            };
            failure = Some(error);
        }
        // To try again at once is to ask the same servers.
        Err(Failure {
            then: Then::Nothing,
            ..failure
                .unwrap_or_else(|| Failure::new("no PostgreSQL server is named", Then::Nothing))
        })
    }

    pub(super) async fn cancel(&self, token: CancelToken) {
        // There is nothing to do about it when nobody listens.
        let _ = timeout(self.limit, self.dial.cancel(token)).await;
    }
}

/// With what the user has left open. The primary is what is needed, whatever is asked for.
fn completed(mut config: Config) -> Config {
    if config.get_application_name().is_none() {
        config.application_name(APPLICATION);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNACKNOWLEDGED);
    }
    if config.get_keepalives_idle() == NEVER_KEPT {
        config.keepalives_idle(IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(PROBES.0);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(PROBES.1);
    }
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    config
}

/// One of several that takes the connection and says nothing would keep the driver from the next one: each
/// has a configuration, and a limit, of its own. One that contradicts itself is left to the driver.
fn one_by_one(config: Config) -> Vec<Config> {
    let hosts = config.get_hosts();
    let addresses = config.get_hostaddrs();
    let ports = config.get_ports();
    let servers = hosts.len().max(addresses.len());
    let is_even = |len: usize| len == 0 || len == servers;
    if servers < 2
        || !is_even(hosts.len())
        || !is_even(addresses.len())
        || !(is_even(ports.len()) || ports.len() == 1)
    {
        return vec![config];
    }
    let one = |i: usize| {
        let mut one = without_servers(&config);
        match hosts.get(i) {
            Some(Host::Tcp(host)) => {
                one.host(host);
            }
            #[cfg(unix)]
            Some(Host::Unix(path)) => {
                one.host_path(path);
            }
            None => {}
        }
        if let Some(address) = addresses.get(i) {
            one.hostaddr(*address);
        }
        if let Some(port) = ports.get(i).or_else(|| ports.first()) {
            one.port(*port);
        }
        one
    };
    (0..servers).map(one).collect()
}

fn without_servers(config: &Config) -> Config {
    let mut one = Config::new();
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(database) = config.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    if let Some(limit) = config.get_connect_timeout() {
        one.connect_timeout(*limit);
    }
    if let Some(limit) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*limit);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    one
}
