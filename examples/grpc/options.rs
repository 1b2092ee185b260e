//! The command line. Whatever can't work ends the program here, before anything is sent.

use std::time::Duration;

use ::http::Uri;
use clap::{Parser, ValueEnum, value_parser};

use crate::{
    cli::options::{self, Common, LastLine, SessionLine, deadline, endpoint},
    metadata::Metadata,
};

const USAGE: &str = "grpc [OPTIONS] --tokens <FILE> --reissue <URL> --url <URL>
       grpc [OPTIONS] --style client-credentials --client-id <ID> --reissue <URL> --url <URL>";

/// Calls a Greeter (examples/greeter.proto), and keeps itself logged in: when the server says that the
/// access token has expired, it gets a new one, saves it, and makes the calls again. The code of an error is
/// what its message begins with, as in "T-002: the token has expired".
///
/// The replies of a single call go to standard output. Exit status: 0 when every call has ended with
/// the status OK, 1 when not, 2 for wrong usage, and 128 + n when signal n has ended it (130 for
/// Ctrl-C): a refresh of the tokens is finished before that.
#[derive(Parser)]
#[command(name = "grpc", max_term_width = 100, override_usage = USAGE)]
struct CommandLine {
    /// The server, as http://HOST:PORT on this machine. The access token goes there, and nowhere else.
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    session: SessionLine,
    /// Which method is called.
    #[arg(long, value_enum, default_value_t)]
    call: Call,
    /// How many calls there are, all at once and over one connection; a server may refuse thousands.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=100_000))]
    parallel: u32,
    /// How many replies a server-stream asks for, or how many messages a client-stream sends.
    #[arg(long, value_name = "K", default_value_t = 1)]
    count: u32,
    /// Asks the server to fail a server-stream with UNAUTHENTICATED, after so many replies.
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    fail_after: u32,
    /// Sent with each call. What grpc-timeout says is the time of the whole call. The value of a key that ends in -bin is base64. Can be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// What has not settled by then, counted from the beginning, is hung.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = deadline)]
    deadline: Duration,
    #[command(flatten)]
    last: LastLine,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Call {
    /// SayHello: one message, one reply.
    #[default]
    Unary,
    /// SayHelloStream: one message, --count replies.
    ServerStream,
    /// CollectHellos: --count messages, one reply.
    ClientStream,
}

/// What is to be done.
pub struct Options {
    pub common: Common,
    pub url: Uri,
    pub call: Call,
    pub parallel: u32,
    pub count: u32,
    pub fail_after: u32,
    pub metadata: Vec<Metadata>,
    pub deadline: Duration,
}

impl Options {
    /// Reads the command line.
    pub fn read() -> Self {
        Self::try_from(CommandLine::parse()).unwrap_or_else(|what| refuse(what))
    }

    /// A single call is made for its replies.
    pub fn shows_replies(&self) -> bool {
        self.parallel == 1 && !self.common.json
    }
}

/// Wrong usage: exit status 2.
pub fn refuse(what: impl ToString) -> ! {
    options::refuse::<CommandLine>(what)
}

impl TryFrom<CommandLine> for Options {
    type Error = String;

    fn try_from(line: CommandLine) -> Result<Self, String> {
        let metadata = line.metadata.iter().map(|text| text.parse());
        Ok(Self {
            common: Common::new(line.session, line.last, line.deadline)?,
            url: server(&line.url).map_err(|what| format!("--url: {what}"))?,
            call: line.call,
            parallel: line.parallel,
            count: line.count,
            fail_after: line.fail_after,
            metadata: metadata
                .collect::<Result<_, _>>()
                .map_err(|what: String| format!("--metadata: {what}"))?,
            deadline: line.deadline,
        })
    }
}

/// Where calls may be sent to.
fn server(text: &str) -> Result<Uri, String> {
    let uri = endpoint(text)?;
    if uri.scheme_str() != Some("http") {
        let what = "https is not supported by this build: call the server through a tunnel that \
                    ends on this machine, as http://localhost:PORT";
        return Err(what.to_owned());
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err("it has a path, and gRPC takes none: leave it out".to_owned());
    }
    Ok(uri)
}
