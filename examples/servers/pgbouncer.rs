//! PgBouncer.

use std::{fs, ops::Deref};

use anyhow::Result;
use rustix::process::Signal;

use super::{
    guarded::{Guarded, Place, Server},
    postgres::Postgres,
    programs,
};

/// In front of a PostgreSQL: each transaction of a client may go over another connection. Whoever is on this
/// machine can log in.
pub struct PgBouncer {
    server: Guarded,
}

impl PgBouncer {
    pub fn start(of: &Postgres) -> Result<Self> {
        let program = programs::find("pgbouncer", "pgbouncer", None)?;
        // It refuses to run as root.
        let user = programs::unprivileged()?;
        let server = Guarded::start(Place::new(user)?, |folder, port| {
            let file = folder.join("pgbouncer.ini");
            // What is wrong with the server behind it is tried again soon.
            let text = format!(
                "[databases]\n\
                 * = host=127.0.0.1 port={} user=postgres\n\
                 [pgbouncer]\n\
                 listen_addr = 127.0.0.1\n\
                 listen_port = {port}\n\
                 unix_socket_dir =\n\
                 auth_type = any\n\
                 pool_mode = transaction\n\
                 max_client_conn = 500\n\
                 default_pool_size = 10\n\
                 server_login_retry = 1\n\
                 ignore_startup_parameters = extra_float_digits\n",
                of.port()
            );
            fs::write(&file, text)?;
            Ok(Server {
                program: program.clone(),
                arguments: vec![file.into()],
                user,
                ready: "process up",
                farewell: Some(Signal::INT),
            })
        })?;
        Ok(Self { server })
    }

    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port())
    }
}

impl Deref for PgBouncer {
    type Target = Guarded;

    fn deref(&self) -> &Guarded {
        &self.server
    }
}
