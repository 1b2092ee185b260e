//! Where the processes keep their tokens.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::time::timeout;
use tower_token_refresh::FileStore;

use crate::{
    lock::Lock,
    options::{Options, Protocol, Wanted},
    rounds::PATIENCE,
    signals::Living,
    spawned::Spawned,
    stores::{Database, Store},
};

/// As each process is told it.
#[derive(Clone, Serialize, Deserialize)]
pub enum Place {
    File(PathBuf),
    Database {
        url: String,
        /// No two runs have the same.
        session: String,
    },
}

impl Place {
    pub fn store(&self) -> anyhow::Result<Store> {
        match self {
            Self::File(path) => Ok(Store::File(FileStore::new(path))),
            Self::Database { url, session } => Ok(Store::open(database(url)?, session, None)?),
        }
    }

    /// The lock that runs out.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        match self {
            Self::File(path) => Ok(Lock::file(path.with_extension("lock"))),
            Self::Database { url, session } => Ok(Lock::database(database(url)?, session)),
        }
    }
}

fn database(url: &str) -> anyhow::Result<Database> {
    let parsed = Database::parse(url).context("no database")?;
    parsed.map_err(|what| anyhow!(what))
}

/// What is there for as long as the processes are. Nobody writes anything there while it is removed.
pub struct Ground {
    pub place: Place,
    living: Arc<Living>,
    _folder: Option<TempDir>,
    _server: Option<Spawned>,
}

impl Ground {
    pub async fn new(options: &Options, living: Arc<Living>) -> anyhow::Result<Self> {
        let wanted = options.wanted().map_err(|what| anyhow!(what))?;
        let (place, folder, server) = match wanted {
            Wanted::File => {
                let folder = tempfile::tempdir()?;
                let file = folder.path().join("session.json");
                (Place::File(file), Some(folder), None)
            }
            Wanted::Database(url) => (Self::in_database(url), None, None),
            Wanted::Spawned(kind) => {
                let server = Spawned::start(kind, options)?;
                eprintln!("{} was started for this run", server.name());
                (Self::in_database(server.url()), None, Some(server))
            }
        };
        let ground = Self {
            place,
            living,
            _folder: folder,
            _server: server,
        };
        let prepared = timeout(PATIENCE, ground.prepare(options.protocol)).await;
        prepared.context("the store does not answer")??;
        Ok(ground)
    }

    fn in_database(url: String) -> Place {
        Place::Database {
            url,
            session: format!("fleet-{:016x}", fastrand::u64(..)),
        }
    }

    /// Before any of them comes.
    async fn prepare(&self, protocol: Protocol) -> anyhow::Result<()> {
        let prepared = self.place.store()?.prepare().await;
        prepared.map_err(anyhow::Error::from_boxed)?;
        match protocol {
            Protocol::Lease => Ok(()),
            Protocol::TtlLock => self.place.lock()?.prepare().await,
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.living.end_all();
    }
}
