//! The course of a program, from the look at its tokens to its exit status.

use std::process::ExitCode;

use serde::Serialize;
use tokio::runtime::Runtime;
use tower_token_refresh::Session;

use super::{
    ending::Ending, options::Common, output, signals::Signals, tokens::Tokens, under_way::UnderWay,
    words,
};

/// What a program does while it is logged in.
pub trait Job {
    fn session(&self) -> &Session;
    /// Does it. A signal drops this, and a refresh that it may wait for goes on.
    async fn work(&mut self);
    /// Called when the work has ended, by itself or not.
    fn finish(&mut self);
    /// Tells people what it came to.
    fn tell(&self, interrupted: bool);
    /// What it came to, as the line for programs.
    fn outcome(&self, is_over: bool) -> impl Serialize;
    /// All of it was done, and well.
    fn is_good(&self) -> bool;
}

/// Runs the program. `job` is made when signals are watched already.
pub fn run<J: Job>(
    options: &Common,
    job: impl FnOnce(&Tokens) -> J,
    refuse: fn(std::io::Error) -> !,
) -> ExitCode {
    let runtime = Runtime::new().unwrap_or_else(|error| refuse(error));
    let status = runtime.block_on(run_on(options, job));
    // Nothing is waited for any more: whoever reads the output may have stopped for good.
    runtime.shutdown_background();
    output::end_line();
    status
}

async fn run_on<J: Job>(options: &Common, job: impl FnOnce(&Tokens) -> J) -> ExitCode {
    let mut signals = Signals::watch();
    let under_way = UnderWay::watch(options.verbose);
    let tokens = Tokens::new(options);
    let mut job = job(&tokens);
    let checked = tokio::select! {
        checked = tokens.check() => checked,
        status = signals.next() => return ExitCode::from(status),
    };
    match checked {
        Ok(()) => work(options, &mut job, &tokens, &under_way, &mut signals).await,
        Err(unusable) => {
            words::say(&unusable.to_string());
            report(options, &job, unusable.is_over());
            ExitCode::FAILURE
        }
    }
}

async fn work(
    options: &Common,
    job: &mut impl Job,
    tokens: &Tokens,
    under_way: &UnderWay,
    signals: &mut Signals,
) -> ExitCode {
    let mut signalled = tokio::select! {
        () = job.work() => None,
        status = signals.next() => Some(status),
    };
    let interrupted = signalled.is_some();
    job.finish();
    let session = job.session();
    let ending = Ending::wait_or_quit(session, tokens, under_way, signals, &mut signalled).await;
    let reported = match ending {
        Some(ending) => {
            job.tell(interrupted);
            ending.remarks.iter().for_each(|remark| words::say(remark));
            report(options, job, ending.is_over)
        }
        None => false,
    };
    match signalled {
        Some(status) => ExitCode::from(status),
        None if reported && job.is_good() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// The last line on standard output, if it is asked for. `false` when it can't be written.
fn report(options: &Common, job: &impl Job, is_over: bool) -> bool {
    if !options.json {
        return true;
    }
    let printed = output::print(&job.outcome(is_over));
    if let Err(error) = &printed {
        words::say(&words::unwritten(error));
    }
    printed.is_ok()
}
