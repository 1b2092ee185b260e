//! A server that is started for one run, and ends with it, however that ends.

use crate::options::{Kind, Options};
#[cfg(unix)]
use crate::servers::{Postgres, Redis};

#[cfg(unix)]
pub enum Spawned {
    Postgres(Postgres),
    Redis(Redis),
}

#[cfg(unix)]
impl Spawned {
    pub fn start(kind: Kind, options: &Options) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Postgres => {
                // Each process has one connection for what it asks, and one to be told of changes.
                let connections = format!("max_connections={}", 3 * options.processes + 20);
                Self::Postgres(Postgres::start_with(&[&connections])?)
            }
            Kind::Redis => Self::Redis(Redis::start()?),
        })
    }

    pub fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.url(),
            Self::Redis(server) => server.url(),
        }
    }

    /// For people.
    pub fn name(&self) -> String {
        match self {
            Self::Postgres(server) => format!("PostgreSQL on port {}", server.port()),
            Self::Redis(server) => format!("Redis on port {}", server.port()),
        }
    }
}

/// Refused by the command line.
#[cfg(not(unix))]
pub enum Spawned {}

#[cfg(not(unix))]
impl Spawned {
    pub fn start(_: Kind, _: &Options) -> anyhow::Result<Self> {
        anyhow::bail!("no server can be started on this system")
    }

    pub fn url(&self) -> String {
        match *self {}
    }

    pub fn name(&self) -> String {
        match *self {}
    }
}
