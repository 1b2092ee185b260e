//! PostgreSQL.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{
    POSTGRES_VARIABLE,
    guarded::{Guarded, Place, Server, lock},
    programs::{self, User},
};

const USER: &str = "postgres";

/// A server that keeps what it says it has kept (`fsync` is on). Whoever is on this machine can log in,
/// unless a password is demanded.
pub struct Postgres {
    server: Guarded,
    tools: Tools,
    data: PathBuf,
    password: Mutex<Option<String>>,
}

/// The programs that come with it.
struct Tools {
    folder: PathBuf,
    user: Option<User>,
}

impl Postgres {
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// With settings, such as `max_connections=20`.
    pub fn start_with(settings: &[&str]) -> Result<Self> {
        Self::start_on(settings, |tools, data| tools.make_cluster(data))
    }

    /// A standby of the one on this port of this machine. It follows what that commits, without having it wait;
    /// it can be read, and written to once it is promoted.
    pub fn standby_of(port: u16) -> Result<Self> {
        Self::start_on(&[], |tools, data| tools.copy_cluster(port, data))
    }

    fn start_on(settings: &[&str], make: impl FnOnce(&Tools, &Path) -> Result<()>) -> Result<Self> {
        let tools = Tools::find()?;
        let place = Place::new(tools.user)?;
        let data = place.folder.join("data");
        make(&tools, &data)?;
        let server = Guarded::start(place, |_, port| {
            let port = format!("port={port}");
            // Shared memory in files of its own goes with the folder.
            let ours = [
                &port,
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "dynamic_shared_memory_type=mmap",
            ];
            let all = ours.into_iter().chain(settings.iter().copied());
            let settings = all.flat_map(|setting| ["-c".into(), setting.into()]);
            Ok(Server {
                program: tools.folder.join("postgres"),
                arguments: ["-D".into(), data.clone().into()]
                    .into_iter()
                    .chain(settings)
                    .collect(),
                user: tools.user,
                // A standby goes on: "read-only connections".
                ready: "database system is ready to accept",
                // An immediate shutdown.
                farewell: Some(Signal::QUIT),
            })
        })?;
        Ok(Self {
            server,
            tools,
            data,
            password: Mutex::default(),
        })
    }

    /// Of the database `postgres`, with the password if one is demanded.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    pub fn url_of(&self, database: &str) -> String {
        let password = lock(&self.password);
        let password = password.as_ref().map(|it| format!(":{it}"));
        let password = password.unwrap_or_default();
        format!(
            "postgres://{USER}{password}@127.0.0.1:{}/{database}",
            self.port()
        )
    }

    /// Where its data are.
    pub fn folder(&self) -> &Path {
        &self.data
    }

    /// Makes another database, and returns its URL.
    pub fn create_database(&self, name: &str) -> Result<String> {
        self.sql(&format!("CREATE DATABASE \"{name}\""))?;
        Ok(self.url_of(name))
    }

    /// From now on nobody is let in without this password (letters and digits). Connections that are there stay.
    pub fn require_password(&self, password: &str) -> Result<()> {
        let is_plain = password.chars().all(|it| it.is_ascii_alphanumeric());
        ensure!(is_plain && !password.is_empty(), "letters and digits only");
        self.sql(&format!("ALTER ROLE {USER} PASSWORD '{password}'"))?;
        let rules = "host all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(self.data.join("pg_hba.conf"), rules)?;
        let before = self.lines();
        self.signal(Signal::HUP)?;
        // It lets nobody in between this line and the new rules.
        self.wait_for_line(before, "received SIGHUP")?;
        *lock(&self.password) = Some(password.to_owned());
        Ok(())
    }

    /// Runs this as a user of the database would, in `psql`, and returns its output.
    pub fn sql(&self, text: &str) -> Result<String> {
        let mut psql = self.tools.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"]);
        programs::run(psql.arg(self.url()), text)
    }

    /// Makes a standby the primary: it takes writes when this returns.
    pub fn promote(&self) -> Result<()> {
        let done = self.sql("SELECT pg_promote()")?;
        ensure!(done.trim() == "t", "it is not promoted");
        Ok(())
    }
}

impl Deref for Postgres {
    type Target = Guarded;

    fn deref(&self) -> &Guarded {
        &self.server
    }
}

impl Tools {
    fn find() -> Result<Self> {
        let folder = folder().with_context(|| {
            programs::missing("postgres", "postgresql", Some(POSTGRES_VARIABLE))
        })?;
        Ok(Self {
            folder,
            user: programs::unprivileged()?,
        })
    }

    fn command(&self, program: &str) -> Command {
        programs::command(&self.folder.join(program), self.user)
    }

    fn make_cluster(&self, data: &Path) -> Result<()> {
        let mut initdb = self.command("initdb");
        // What it writes now is new, and would be made anew after a crash of the machine.
        initdb.args(["--no-sync", "--no-instructions", "--auth=trust"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--username", USER]);
        programs::run(initdb.arg("-D").arg(data), [])?;
        Ok(())
    }

    /// Of the server on this port, which the copy follows then.
    fn copy_cluster(&self, port: u16, data: &Path) -> Result<()> {
        let mut copy = self.command("pg_basebackup");
        let server = format!("postgres://{USER}@127.0.0.1:{port}/postgres");
        copy.args([
            "--no-sync",
            "--checkpoint=fast",
            "--write-recovery-conf",
            "-d",
            &server,
        ]);
        programs::run(copy.arg("-D").arg(data), [])?;
        Ok(())
    }
}

/// Where its programs are: Debian has them in a folder that no PATH leads to.
fn folder() -> Option<PathBuf> {
    let has_all = |folder: &PathBuf| {
        let names = ["postgres", "initdb", "psql"];
        names.iter().all(|name| folder.join(name).is_file())
    };
    let on_path = || {
        let program = fs::canonicalize(programs::on_path("postgres")?).ok()?;
        Some(program.parent()?.to_owned())
    };
    let told = || {
        let mut command = Command::new("pg_config");
        let said = programs::run(command.arg("--bindir"), []).ok()?;
        Some(PathBuf::from(said.trim()))
    };
    let newest = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        let newest = versions.map(|it| it.path()).max_by_key(number)?;
        Some(newest.join("bin"))
    };
    on_path()
        .filter(has_all)
        .or_else(|| told().filter(has_all))
        .or_else(|| newest().filter(has_all))
}
