//! A server that can't be left behind: a shell that outlives this process ends it, and removes its folder.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    log::{Heard, Log},
    programs::{self, User},
};

/// No server takes as long to do what it is told.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Then it is killed.
const FAREWELL: Duration = Duration::from_secs(10);
/// For ports that somebody else takes at the same moment.
const TRIES: usize = 20;
/// None of these is given to a connection that goes out. With one of those, a client that asks a server
/// that is down could be connected to itself, and would keep the server from coming back.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// It ends the process that it was told of last, with all its children, when the other end of its standard
/// input is closed. PostgreSQL, when it was killed, leaves a piece of shared memory as well.
const GUARD: &str = r#"
process=
while read -r line; do process=$line; done
if [ -n "$process" ]; then
    kill -STOP "$process"
    kill -KILL $(cat "/proc/$process/task/$process/children") "$process"
fi
[ -f "$1/data/postmaster.pid" ] && ipcrm -m "$(sed -n '7s/.* //p' "$1/data/postmaster.pid")"
for _ in 1 2 3 4 5; do rm -rf "$1" && break; done
"#;

/// The server begins when somebody guards it.
const LAUNCH: &str = r#"read -r _ && exec "$0" "$@" </dev/null 2>&1"#;

/// What is run, and how it is known that it can be used.
pub struct Server {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub user: Option<User>,
    /// In a line of its log.
    pub ready: &'static str,
    /// How it is asked to end. It is killed otherwise.
    pub farewell: Option<Signal>,
}

pub struct Guarded {
    port: u16,
    server: Server,
    running: Mutex<Option<Running>>,
    // Last: it removes the folder.
    guard: Mutex<Guard>,
}

struct Running {
    child: Child,
    log: Arc<Log>,
}

struct Guard {
    child: Child,
    told: Option<ChildStdin>,
}

/// A folder for a server, and whoever removes it.
pub struct Place {
    pub folder: PathBuf,
    guard: Guard,
}

impl Place {
    /// That this user may use.
    pub fn new(user: Option<User>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("server").tempdir()?.keep();
        let guard = Guard::new(&folder).inspect_err(|_| {
            let _ = fs::remove_dir(&folder);
        })?;
        let place = Self { folder, guard };
        if let Some(user) = user {
            chown(&place.folder, Some(user.id), Some(user.group))?;
        }
        Ok(place)
    }
}

impl Guard {
    fn new(folder: &Path) -> Result<Self> {
        let mut shell = Command::new("/bin/sh");
        // Ctrl-C is not meant for it.
        let shell = shell.args(["-c", GUARD, "sh"]).arg(folder).process_group(0);
        shell.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let shell = shell.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = shell.stdin(Stdio::piped()).spawn().context("no shell")?;
        let told = child.stdin.take();
        Ok(Self { child, told })
    }

    /// The last one that it was told of is ended.
    fn tell(&mut self, process: Option<u32>) -> io::Result<()> {
        let text = process.map(|it| it.to_string()).unwrap_or_default();
        let pipe = self.told.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(pipe, "{text}")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.told = None;
        let _ = self.child.wait();
    }
}

impl Guarded {
    /// Starts a server on a port that is free, and gives that port to `server`.
    pub fn start(
        place: Place,
        mut server: impl FnMut(&Path, u16) -> Result<Server>,
    ) -> Result<Self> {
        let Place { folder, mut guard } = place;
        for _ in 0..TRIES {
            let port = free_port()?;
            let server = server(&folder, port)?;
            match Running::begin(&server, &mut guard) {
                Ok(running) => {
                    return Ok(Self {
                        port,
                        server,
                        running: Mutex::new(Some(running)),
                        guard: Mutex::new(guard),
                    });
                }
                Err(error) if format!("{error:#}").contains("Address already in use") => {}
                Err(error) => return Err(error),
            }
        }
        bail!("all ports are taken")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of its first process.
    pub fn pid(&self) -> Option<u32> {
        Some(lock(&self.running).as_ref()?.child.id())
    }

    /// All of its processes at once, so that nothing is written any more: the next start of PostgreSQL begins
    /// with crash recovery.
    pub fn kill(&self) -> Result<()> {
        let running = lock(&self.running).take().context("it does not run")?;
        running.kill(&mut lock(&self.guard))
    }

    /// After it was killed: on the same port, with what is in its folder.
    pub fn restart(&self) -> Result<()> {
        let mut running = lock(&self.running);
        ensure!(running.is_none(), "it runs still");
        let again = Running::begin(&self.server, &mut lock(&self.guard))?;
        *running = Some(again);
        Ok(())
    }

    /// None of its processes does anything until [`Self::resume`].
    pub fn stop(&self) -> Result<()> {
        let running = lock(&self.running);
        running.as_ref().context("it does not run")?.stop()
    }

    pub fn resume(&self) -> Result<()> {
        let running = lock(&self.running);
        running.as_ref().context("it does not run")?.resume()
    }

    pub fn signal(&self, number: Signal) -> Result<()> {
        let running = lock(&self.running);
        let id = running.as_ref().context("it does not run")?.child.id();
        ensure!(send(id, number), "it has ended");
        Ok(())
    }

    /// How many lines its log has since it was started last: see [`Self::wait_for_line`].
    pub fn lines(&self) -> usize {
        let running = lock(&self.running);
        running.as_ref().map_or(0, |running| running.log.len())
    }

    /// Waits until it says this, in a line of its log from this number on.
    pub fn wait_for_line(&self, from: usize, what: &str) -> Result<String> {
        let log = lock(&self.running).as_ref().map(|it| it.log.clone());
        let log = log.context("it does not run")?;
        match log.wait_for(from, |line| line.contains(what), PATIENCE) {
            Heard::Line(line) => Ok(line),
            Heard::Over | Heard::Late => bail!("it does not say {what:?}:\n{}", log.last()),
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let Some(running) = lock(&self.running).take() else {
            return;
        };
        if let Some(signal) = self.server.farewell {
            // One that is stopped hears nothing.
            let _ = running.resume();
            if send(running.child.id(), signal) {
                running.log.wait_for_end(FAREWELL);
            }
        }
        let _ = running.kill(&mut lock(&self.guard));
    }
}

impl Running {
    /// When it can be used.
    fn begin(server: &Server, guard: &mut Guard) -> Result<Self> {
        let name = server.program.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let mut shell = programs::command(Path::new("/bin/sh"), server.user);
        let shell = shell.args(["-c", LAUNCH]).arg(&server.program);
        let shell = shell.args(&server.arguments).process_group(0);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = shell.stderr(Stdio::null()).spawn();
        let mut child = started.with_context(|| format!("can't start {name}"))?;
        let (go, output) = (child.stdin.take(), child.stdout.take());
        let (mut go, output) = go.zip(output).context("no pipes")?;
        let running = Self {
            log: Log::follow(output),
            child,
        };
        let begun = guard.tell(Some(running.child.id()));
        let begun = begun.and_then(|()| writeln!(go));
        drop(go);
        let heard = match &begun {
            Ok(()) => running.wait_until_ready(server.ready),
            Err(_) => Heard::Over,
        };
        let what = match heard {
            Heard::Line(_) => return Ok(running),
            Heard::Over => "has ended at once",
            Heard::Late => "does not get ready",
        };
        let log = running.log.clone();
        running.kill(guard)?;
        begun.with_context(|| format!("nobody guards {name}"))?;
        bail!("{name} {what}:\n{}", log.last())
    }

    fn wait_until_ready(&self, ready: &str) -> Heard {
        self.log.wait_for(0, |line| line.contains(ready), PATIENCE)
    }

    fn kill(mut self, guard: &mut Guard) -> Result<()> {
        let id = self.child.id();
        // So that no child is born while they are counted. One that has ended has none.
        send(id, Signal::STOP);
        await_state(id, &['T', 'Z'])?;
        let children = children(id);
        for process in children.iter().chain([&id]) {
            send(*process, Signal::KILL);
        }
        // Its number is free for another once it was asked how it ended.
        let _ = guard.tell(None);
        self.child.wait()?;
        children.iter().try_for_each(|it| await_state(*it, &['Z']))
    }

    fn stop(&self) -> Result<()> {
        let id = self.child.id();
        send(id, Signal::STOP);
        await_state(id, &['T'])?;
        let children = children(id);
        children.iter().for_each(|child| {
            send(*child, Signal::STOP);
        });
        children
            .iter()
            .try_for_each(|it| await_state(*it, &['T', 'Z']))
    }

    fn resume(&self) -> Result<()> {
        let id = self.child.id();
        // Counted while it is stopped.
        let children = children(id);
        for process in children.iter().chain([&id]) {
            send(*process, Signal::CONT);
        }
        Ok(())
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn free_port() -> Result<u16> {
    for _ in 0..TRIES * 10 {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("there is no free port on loopback")
}

fn send(process: u32, signal: Signal) -> bool {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw);
    id.is_some_and(|id| kill_process(id, signal).is_ok())
}

/// Where the system does not tell it, there are none: they end with the first process.
fn children(of: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    let list = list.unwrap_or_default();
    let all = list.split_whitespace();
    all.filter_map(|id| id.parse().ok()).collect()
}

/// Waits until it is gone, or in one of these states; the system is asked again and again, as it tells
/// nobody but the parent.
fn await_state(process: u32, states: &[char]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Some(state) = state(process)
        && !states.contains(&state)
    {
        ensure!(Instant::now() < deadline, "process {process} goes on");
        thread::yield_now();
    }
    Ok(())
}

fn state(process: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    status.rsplit(')').next()?.trim_start().chars().next()
}
