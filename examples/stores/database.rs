//! A database as the command line names it.

use std::{fmt, net::IpAddr};

use redis::{Client, ConnectionAddr};
use tokio_postgres::config::{Config, Host, SslMode};

const POSTGRES: [&str; 2] = ["postgres", "postgresql"];
const REDIS: [&str; 3] = ["redis", "rediss", "redis+unix"];

/// What has no password in it may be shown: this does, as what it is and where.
#[derive(Clone)]
pub enum Database {
    Postgres(Box<Config>),
    Redis(Client),
}

impl Database {
    /// `None` where the text means something else. Both `redis:URL` and a URL alone will do.
    ///
    /// # Errors
    ///
    /// They quote nothing: there may be a password in it.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let (kind, rest) = text.split_once(':')?;
        let is_postgres = POSTGRES.contains(&kind);
        if !is_postgres && !REDIS.contains(&kind) {
            return None;
        }
        let url = match rest.starts_with("//") {
            true => text,
            false => rest,
        };
        Some(match is_postgres {
            true => postgres(url),
            false => redis(url),
        })
    }
}

impl Database {
    /// Nobody but this machine sees what is sent there.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Postgres(config) => {
                let is_local = |host: &Host| match host {
                    Host::Tcp(host) => is_loopback(host),
                    #[cfg(unix)]
                    Host::Unix(_) => true,
                };
                match config.get_hostaddrs() {
                    [] => config.get_hosts().iter().all(is_local),
                    addresses => addresses.iter().all(IpAddr::is_loopback),
                }
            }
            Self::Redis(client) => match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(host, _) => is_loopback(host),
                ConnectionAddr::Unix(_) => true,
                _ => false,
            },
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn postgres(url: &str) -> Result<Database, String> {
    let wrong = "no URL of PostgreSQL, as postgres://USER:PASSWORD@HOST:PORT/DATABASE";
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if !scheme.is_some_and(|scheme| POSTGRES.contains(&scheme)) {
        return Err(wrong.to_owned());
    }
    let config: Config = url.parse().map_err(|_| wrong.to_owned())?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(format!("{wrong}: the host is missing"));
    }
    if config.get_user().is_none() {
        return Err(format!("{wrong}: the user is missing"));
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err("this build speaks no TLS to PostgreSQL: leave sslmode out".to_owned());
    }
    Ok(Database::Postgres(Box::new(config)))
}

fn redis(url: &str) -> Result<Database, String> {
    let wrong = "no URL of Redis, as redis://:PASSWORD@HOST:PORT/";
    if url.starts_with("rediss:") {
        return Err("this build speaks no TLS to Redis: use redis://".to_owned());
    }
    let client = Client::open(url).map_err(|_| wrong.to_owned())?;
    Ok(Database::Redis(client))
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(config) => {
                let host = match config.get_hosts().first() {
                    Some(Host::Tcp(host)) => host.clone(),
                    #[cfg(unix)]
                    Some(Host::Unix(path)) => path.display().to_string(),
                    None => {
                        let address = config.get_hostaddrs().first();
                        address.map(ToString::to_string).unwrap_or_default()
                    }
                };
                let port = config.get_ports().first().unwrap_or(&5432);
                write!(f, "PostgreSQL at {host}:{port}")
            }
            Self::Redis(client) => match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(host, port) => write!(f, "Redis at {host}:{port}"),
                ConnectionAddr::Unix(path) => write!(f, "Redis at {}", path.display()),
                _ => f.write_str("Redis"),
            },
        }
    }
}
