//! The command line. Whatever can't work ends the program here, before anything is sent.

use std::{env, path::PathBuf, time::Duration};

use ::http::Uri;
use clap::{ArgAction, CommandFactory, Parser, ValueEnum, error::ErrorKind, value_parser};
use tower_token_refresh::Origin;
use url::Url;

/// What is read where the secret is not on the command line, which others may see.
const SECRET_VARIABLE: &str = "CLIENT_SECRET";

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
    /// JSON with the tokens: access_token or accessToken, refresh_token or refreshToken, and where
    /// it is known expires_in (seconds), id, email. New tokens are saved there. Required, except with
    /// --style client-credentials.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Where new tokens come from.
    #[arg(long, value_name = "URL")]
    reissue: String,
    /// How the issuer is asked for them.
    #[arg(long, value_enum, default_value_t)]
    style: Style,
    /// Who asks, with the styles oauth2 and client-credentials.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The client's secret; the environment variable CLIENT_SECRET if left out.
    #[arg(long, value_name = "SECRET", requires = "client_id")]
    client_secret: Option<String>,
    /// The error code of the API for an access token that has expired. Without it, and for errors
    /// without a code that is named here, a 401 means that. Can be given several times.
    #[arg(long, value_name = "CODE")]
    expired_code: Vec<String>,
    /// The error code, of the API or of the issuer, that says that the session is over. Can be given
    /// several times.
    #[arg(long, value_name = "CODE")]
    ended_code: Vec<String>,
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
    /// Where the tokens are kept. `file` is FILE itself.
    #[arg(long, value_name = "STORE", default_value = "file")]
    store: String,
    #[arg(long, value_name = "NAME", hide = true)]
    session: Option<String>,
    /// Prints one line of JSON about what happened, in place of a body.
    #[arg(long)]
    json: bool,
    /// Tells what the session does, on standard error; twice for more.
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Style {
    /// The refresh token as a bearer, and a JSON body with what is known of the user (id, email).
    #[default]
    Member,
    /// The refresh token as a cookie named refreshToken.
    Cookie,
    /// OAuth 2.0 with a refresh token (RFC 6749 section 6).
    #[value(name = "oauth2")]
    OAuth2,
    /// OAuth 2.0 for the client itself, without a refresh token (RFC 6749 section 4.4).
    ClientCredentials,
}

/// What is to be done.
pub struct Options {
    pub urls: Vec<Uri>,
    pub tokens: Option<PathBuf>,
    pub reissue: Uri,
    pub issuer: Issuer,
    pub expired_codes: Vec<String>,
    pub ended_codes: Vec<String>,
    pub parallel: u32,
    pub repeat: u32,
    pub every: Duration,
    pub data: Option<String>,
    pub deadline: Duration,
    pub json: bool,
    pub verbose: u8,
}

/// Who hands out new tokens, and what that takes.
pub enum Issuer {
    Member,
    Cookie,
    OAuth2(Option<Credentials>),
    ClientCredentials { id: String, secret: String },
}

/// A client of OAuth. Without a secret it is a public one.
pub struct Credentials {
    pub id: String,
    pub secret: Option<String>,
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
        self.requests() == 1 && !self.json
    }
}

/// Wrong usage: exit status 2.
pub fn refuse(what: impl ToString) -> ! {
    let mut command = CommandLine::command();
    let what = what.to_string();
    command.error(ErrorKind::ValueValidation, what).exit()
}

impl TryFrom<CommandLine> for Options {
    type Error = String;

    fn try_from(line: CommandLine) -> Result<Self, String> {
        check_store(&line)?;
        let issuer = issuer(&line)?;
        if line.tokens.is_none() && !issuer.needs_no_login() {
            return Err("--tokens FILE is missing: the JSON file with the tokens".to_owned());
        }
        let urls = line.urls.iter().map(|text| endpoint(text));
        Ok(Self {
            urls: urls.collect::<Result<_, _>>()?,
            reissue: endpoint(&line.reissue).map_err(|what| format!("--reissue: {what}"))?,
            issuer,
            tokens: line.tokens,
            expired_codes: line.expired_code,
            ended_codes: line.ended_code,
            parallel: line.parallel,
            repeat: line.repeat,
            every: line.every,
            data: line.data,
            deadline: line.deadline,
            json: line.json,
            verbose: line.verbose,
        })
    }
}

impl Issuer {
    /// The first token comes from the issuer as well.
    pub fn needs_no_login(&self) -> bool {
        matches!(self, Self::ClientCredentials { .. })
    }
}

fn check_store(line: &CommandLine) -> Result<(), String> {
    if line.store != "file" {
        return Err("--store: the only store there is yet is `file`".to_owned());
    }
    match line.session {
        Some(_) => Err("--session: there is one session to a file".to_owned()),
        None => Ok(()),
    }
}

fn issuer(line: &CommandLine) -> Result<Issuer, String> {
    let id = line.client_id.clone();
    let secret = || {
        let variable = env::var(SECRET_VARIABLE).ok();
        let given = line.client_secret.clone().or(variable);
        given.filter(|secret| !secret.is_empty())
    };
    match (line.style, id) {
        (Style::Member | Style::Cookie, Some(_)) => {
            Err("--client-id goes with --style oauth2 or client-credentials".to_owned())
        }
        (Style::Member, None) => Ok(Issuer::Member),
        (Style::Cookie, None) => Ok(Issuer::Cookie),
        (Style::OAuth2, id) => Ok(Issuer::OAuth2(id.map(|id| Credentials {
            id,
            secret: secret(),
        }))),
        (Style::ClientCredentials, id) => id
            .zip(secret())
            .map(|(id, secret)| Issuer::ClientCredentials { id, secret })
            .ok_or_else(|| {
                format!(
                    "--style client-credentials needs --client-id, and --client-secret or the \
                     environment variable {SECRET_VARIABLE}"
                )
            }),
    }
}

/// Where tokens may be sent to: an `http` or `https` URL with a host.
fn endpoint(text: &str) -> Result<Uri, String> {
    let no_url = |why: &str| format!("{} {why}", shown(text));
    let mut url = Url::parse(text).map_err(|error| {
        no_url(&format!(
            "is no URL with a host, as https://HOST/PATH: {error}"
        ))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(no_url("has to begin with https:// (or http://)"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(no_url(
            "has a user name in it, which is not sent: leave it out",
        ));
    }
    url.set_fragment(None);
    let origin = url.origin().ascii_serialization();
    if Origin::try_from(&origin).is_err() && Origin::allow_plain_http(&origin).is_ok() {
        return Err(no_url(
            "is plain http to another machine, where everybody on the way could read the tokens: \
             use https",
        ));
    }
    let uri = url.as_str().parse();
    uri.map_err(|error| no_url(&format!("can't be used: {error}")))
}

/// As much of it as holds no secret.
fn shown(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    match &text[..end] {
        text if text.contains('@') => "the URL".to_owned(),
        text => format!("{text:?}"),
    }
}

fn deadline(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("nothing can settle in no time".to_owned()),
        Ok(deadline) => Ok(deadline),
        Err(error) => Err(error.to_string()),
    }
}

fn milliseconds(text: &str) -> Result<Duration, humantime::DurationError> {
    let plain = text.parse().map(Duration::from_millis);
    plain.or_else(|_| humantime::parse_duration(text))
}
