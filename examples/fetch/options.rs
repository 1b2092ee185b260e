//! The command line. Whatever can't work ends the program here, before anything is sent.

use std::time::Duration;

use ::http::Uri;
use clap::{Parser, value_parser};

use crate::cli::options::{self, Common, LastLine, SessionLine, deadline, endpoint};

const USAGE: &str = "fetch [OPTIONS] --tokens <FILE> --reissue <URL> <URL>...
       fetch [OPTIONS] --style client-credentials --client-id <ID> --reissue <URL> <URL>...";

/// Sends requests, and keeps itself logged in: when the server says that the access token has
/// expired, it gets a new one, saves it, and sends them again.
///
/// The body of a single answer goes to standard output. Exit status: 0 when every request got a 2xx,
/// 1 when not, 2 for wrong usage, and 128 + n when signal n has ended it (130 for Ctrl-C): a refresh of
/// the tokens is finished before that.
#[derive(Parser)]
#[command(name = "fetch", max_term_width = 100, override_usage = USAGE)]
struct CommandLine {
    /// Where to send requests to. The access token goes to their servers, and to no others.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    #[command(flatten)]
    session: SessionLine,
    /// How many requests a round sends to each URL at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=100_000))]
    parallel: u32,
    /// How many rounds.
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    repeat: u32,
    /// From the beginning of a round to that of the next, in milliseconds or as 2s; each waits for
    /// the one before it.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    every: Duration,
    /// Sends this text, with POST.
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// What has not settled by then, counted from the beginning of its round, is hung.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = deadline)]
    deadline: Duration,
    #[command(flatten)]
    last: LastLine,
}

/// What is to be done.
pub struct Options {
    pub common: Common,
    pub urls: Vec<Uri>,
    pub parallel: u32,
    pub repeat: u32,
    pub every: Duration,
    pub data: Option<String>,
    pub deadline: Duration,
}

impl Options {
    /// Reads the command line.
    pub fn read() -> Self {
        Self::try_from(CommandLine::parse()).unwrap_or_else(|what| refuse(what))
    }

    /// All of them, in all rounds.
    pub fn requests(&self) -> u64 {
        self.urls.len() as u64 * u64::from(self.parallel) * u64::from(self.repeat)
    }

    /// A single request is made for its answer.
    pub fn shows_body(&self) -> bool {
        self.requests() == 1 && !self.common.json
    }
}

/// Wrong usage: exit status 2.
pub fn refuse(what: impl ToString) -> ! {
    options::refuse::<CommandLine>(what)
}

impl TryFrom<CommandLine> for Options {
    type Error = String;

    fn try_from(line: CommandLine) -> Result<Self, String> {
        let common = Common::new(line.session, line.last, line.deadline)?;
        let urls = line.urls.iter().map(|text| endpoint(text));
        Ok(Self {
            common,
            urls: urls.collect::<Result<_, _>>()?,
            parallel: line.parallel,
            repeat: line.repeat,
            every: line.every,
            data: line.data,
            deadline: line.deadline,
        })
    }
}

fn milliseconds(text: &str) -> Result<Duration, humantime::DurationError> {
    let plain = text.parse().map(Duration::from_millis);
    plain.or_else(|_| humantime::parse_duration(text))
}
