//! Signals to the processes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What can be done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Kill,
    Stop,
    Resume,
}

/// The processes that live, by their number, with the system's number for each.
#[derive(Default)]
pub struct Living(Mutex<HashMap<u64, u32>>);

impl Living {
    pub fn add(&self, process: u64, id: u32) {
        self.lock().insert(process, id);
    }

    /// To be called before the system is asked how it ended, which sets its number free for another.
    pub fn remove(&self, process: u64) {
        self.lock().remove(&process);
    }

    /// `false` where there was nobody to send it to.
    pub fn signal(&self, process: u64, signal: Signal) -> bool {
        // Locked meanwhile, so that the number still means this process.
        let living = self.lock();
        living.get(&process).is_some_and(|id| send(*id, signal))
    }

    /// Kills all of them, and waits until they do nothing any more.
    pub fn end_all(&self) {
        let living = self.lock();
        living.values().for_each(|id| {
            send(*id, Signal::Kill);
        });
        living.values().for_each(|id| await_end(*id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(unix)]
fn send(id: u32, signal: Signal) -> bool {
    use rustix::process::{Pid, Signal as Number, kill_process};

    let number = match signal {
        Signal::Kill => Number::KILL,
        Signal::Stop => Number::STOP,
        Signal::Resume => Number::CONT,
    };
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    id.is_some_and(|id| kill_process(id, number).is_ok())
}

/// How it ended is left for whoever asks next.
#[cfg(unix)]
fn await_end(id: u32) {
    use rustix::{
        io::Errno,
        process::{Pid, WaitId, WaitIdOptions, waitid},
    };

    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    if let Some(id) = id {
        while waitid(WaitId::Pid(id), options).is_err_and(|error| error == Errno::INTR) {}
    }
}

#[cfg(not(unix))]
fn await_end(_: u32) {}

#[cfg(not(unix))]
fn send(id: u32, signal: Signal) -> bool {
    let mut command = std::process::Command::new("taskkill");
    command.args(["/F", "/PID", &id.to_string()]);
    let quiet = command.stdout(std::process::Stdio::null());
    signal == Signal::Kill && quiet.status().is_ok_and(|status| status.success())
}

/// A process that is stopped does not notice that the one who would wake it is gone.
#[cfg(target_os = "linux")]
pub fn die_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

#[cfg(not(target_os = "linux"))]
pub fn die_with_parent() {}
