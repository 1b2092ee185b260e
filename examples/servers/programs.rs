//! Where the servers' programs are, and as whom they run.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// What is missing is said with the package that has it, and with what makes do without it.
pub fn find(name: &str, package: &str, variable: Option<&str>) -> Result<PathBuf> {
    on_path(name).with_context(|| missing(name, package, variable))
}

pub fn missing(name: &str, package: &str, variable: Option<&str>) -> String {
    let instead = variable.map(|variable| format!(", or set {variable}"));
    let instead = instead.unwrap_or_default();
    format!("`{name}` is not on the PATH: install it (Debian: {package}){instead}")
}

pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path);
    // Where Debian puts servers, and the PATH of most users does not lead.
    let mut all = folders.chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    all.find_map(|folder| Some(folder.join(name)).filter(|it| it.is_file()))
}

/// Somebody who may do nothing.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub id: u32,
    pub group: u32,
}

/// As whom a server runs that refuses to run as root; `None` where this is not root.
pub fn unprivileged() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("can't read /etc/passwd")?;
    let user = |name: &str| {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let mut all = users.lines().map(fields);
        let fields = all.find(|fields| fields.first().is_some_and(|it| it == name))?;
        Some(User {
            id: fields.get(2)?.parse().ok()?,
            group: fields.get(3)?.parse().ok()?,
        })
    };
    let found = user("postgres").or_else(|| user("nobody"));
    let found = found.context("root may not run it, and there is no user `nobody`")?;
    Ok(Some(found))
}

/// A program that runs as this user, in English and with no settings of whoever runs this one.
pub fn command(program: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    // Of the programs of PostgreSQL; PostgreSQL reads its name from PGHOST, its port from PGPORT and so on.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").current_dir("/");
    if let Some(user) = user {
        command.uid(user.id).gid(user.group);
    }
    command
}

/// Runs a program that ends by itself, and returns what it has said.
pub fn run(command: &mut Command, input: impl AsRef<[u8]>) -> Result<String> {
    use std::io::Write;

    let name = command.get_program().to_owned();
    let name = Path::new(&name).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let spawned = command.stderr(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("can't run {name}"))?;
    if let Some(mut pipe) = child.stdin.take()
        && let Err(error) = pipe.write_all(input.as_ref())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        bail!("{name} does not listen: {error}");
    }
    let output = child.wait_with_output()?;
    let [out, err] =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    ensure!(
        output.status.success(),
        "{name}: {}\n{out}{err}",
        output.status
    );
    Ok(out)
}
