//! Redis.

use std::{ops::Deref, path::PathBuf};

use anyhow::Result;

use super::{
    REDIS_VARIABLE,
    guarded::{Guarded, Place, Server},
    programs,
};

pub struct Redis {
    server: Guarded,
    password: Option<String>,
}

/// How it is set up. The default: no write is answered before it is on the disk.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Nothing is on the disk, and nothing left after it was killed.
    pub in_memory: bool,
    /// That every client must know.
    pub password: Option<String>,
    /// The port of another, on this machine and with the same password.
    pub replica_of: Option<u16>,
    /// More of `redis-server`'s own, such as `--min-replicas-to-write`, `1`.
    pub more: Vec<String>,
}

impl Redis {
    pub fn start() -> Result<Self> {
        Self::start_with(RedisOptions::default())
    }

    /// A replica is ready when it has all that its primary has.
    pub fn start_with(options: RedisOptions) -> Result<Self> {
        let program = programs::find("redis-server", "redis-server", Some(REDIS_VARIABLE))?;
        let place = Place::new(None)?;
        let server = Guarded::start(place, |folder, port| {
            Ok(options.server(program.clone(), folder.to_owned(), port))
        })?;
        Ok(Self {
            server,
            password: options.password,
        })
    }

    pub fn url(&self) -> String {
        let password = self.password.as_ref().map(|it| format!(":{it}@"));
        let password = password.unwrap_or_default();
        format!("redis://{password}127.0.0.1:{}/", self.port())
    }
}

impl Deref for Redis {
    type Target = Guarded;

    fn deref(&self) -> &Guarded {
        &self.server
    }
}

impl RedisOptions {
    fn server(&self, program: PathBuf, folder: PathBuf, port: u16) -> Server {
        let port = port.to_string();
        let appends = match self.in_memory {
            true => "no",
            false => "yes",
        };
        let mut arguments = Vec::<String>::new();
        let mut add = |them: &[&str]| arguments.extend(them.iter().map(|&it| it.to_owned()));
        add(&["--bind", "127.0.0.1", "--port", &port, "--daemonize", "no"]);
        add(&["--appendonly", appends, "--appendfsync", "always"]);
        // No copies of everything now and then. A replica gets its copy at once, and not 5 s later.
        add(&["--save", "", "--repl-diskless-sync-delay", "0"]);
        if let Some(password) = &self.password {
            add(&["--requirepass", password, "--masterauth", password]);
        }
        if let Some(primary) = self.replica_of {
            add(&["--replicaof", "127.0.0.1", &primary.to_string()]);
        }
        arguments.extend(self.more.iter().cloned());
        let mut arguments: Vec<_> = arguments.into_iter().map(Into::into).collect();
        arguments.extend(["--dir".into(), folder.into()]);
        Server {
            program,
            arguments,
            user: None,
            ready: match self.replica_of {
                Some(_) => "MASTER <-> REPLICA sync: Finished with success",
                None => "Ready to accept connections",
            },
            farewell: None,
        }
    }
}
