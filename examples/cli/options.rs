//! The options that the programs share. Whatever can't work ends the program here, before anything is
//! sent.

use std::{env, path::PathBuf, time::Duration};

use ::http::Uri;
use clap::{ArgAction, Args, CommandFactory, ValueEnum, error::ErrorKind};
use tower_token_refresh::{Classify, ConfigError, ErrorCodes, Origin};
use url::Url;

use super::{
    shared::Shared,
    stores::{Database, Store},
};

/// What is read where the secret is not on the command line, which others may see.
const SECRET_VARIABLE: &str = "CLIENT_SECRET";
/// What others who can read the database don't know.
const SESSION_VARIABLE: &str = "SESSION_SECRET";

// What the command line says of the session. (What `///` says here would be shown to the user.)
#[derive(Args)]
pub struct SessionLine {
    /// JSON with the tokens: access_token or accessToken, refresh_token or refreshToken, and where
    /// it is known expires_in (seconds), id, email. New tokens are saved there, unless --store says where
    /// else. Required, except with --style client-credentials, and where the store has tokens already.
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
}

// What it says in the end.
#[derive(Args)]
pub struct LastLine {
    /// Where the tokens are kept. `file` is FILE itself. `postgres:URL` and `redis:URL` are for a login
    /// that several machines share: FILE brings the first tokens only, and is never written. The
    /// environment variable SESSION_SECRET, if it is set, encrypts what is there.
    #[arg(long, value_name = "STORE", default_value = "file")]
    store: String,
    /// The name of the login in the database. There is none unless it is given: two users of one
    /// database would use each other's login by mistake.
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// What is in FILE is a new login, and takes the place of what is in the database: to be given once,
    /// after the session there has ended.
    #[arg(long)]
    new_login: bool,
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

/// What the programs share, as it is to be done.
pub struct Common {
    pub place: Place,
    pub reissue: Uri,
    pub issuer: Issuer,
    pub expired_codes: Vec<String>,
    pub ended_codes: Vec<String>,
    pub json: bool,
    pub verbose: u8,
}

/// Where the tokens are.
pub enum Place {
    /// Only here, and only for now.
    Memory,
    File(PathBuf),
    Shared(Box<Shared>),
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

impl Common {
    pub fn new(session: SessionLine, last: LastLine, deadline: Duration) -> Result<Self, String> {
        let issuer = issuer(&session)?;
        let place = place(session.tokens, &last, deadline)?;
        if matches!(place, Place::Memory) && !issuer.needs_no_login() {
            return Err("--tokens FILE is missing: the JSON file with the tokens".to_owned());
        }
        Ok(Self {
            place,
            reissue: endpoint(&session.reissue).map_err(|what| format!("--reissue: {what}"))?,
            issuer,
            expired_codes: session.expired_code,
            ended_codes: session.ended_code,
            json: last.json,
            verbose: last.verbose,
        })
    }

    /// The error codes of the API, where some are named.
    pub fn codes(&self) -> Result<Option<ErrorCodes>, ConfigError> {
        if self.expired_codes.is_empty() && self.ended_codes.is_empty() {
            return Ok(None);
        }
        let expired = self.expired_codes.iter();
        let codes = expired.fold(ErrorCodes::json("/code"), ErrorCodes::expired);
        let codes = self.ended_codes.iter().fold(codes, ErrorCodes::ended);
        codes.check()?;
        Ok(Some(codes))
    }
}

/// Wrong usage: exit status 2.
pub fn refuse<C: CommandFactory>(what: impl ToString) -> ! {
    let mut command = C::command();
    let what = what.to_string();
    command.error(ErrorKind::ValueValidation, what).exit()
}

/// The server of this URL.
pub fn origin(uri: &Uri) -> Result<Origin, ConfigError> {
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    Origin::try_from(format!("{scheme}://{authority}"))
}

impl Issuer {
    /// The first token comes from the issuer as well.
    pub fn needs_no_login(&self) -> bool {
        matches!(self, Self::ClientCredentials { .. })
    }
}

fn place(tokens: Option<PathBuf>, line: &LastLine, deadline: Duration) -> Result<Place, String> {
    let store = match line.store.as_str() {
        "file" => None,
        text => match Database::parse(text) {
            Some(database) => Some(database.map_err(|what| format!("--store: {what}"))?),
            None => return Err("--store: it is `file`, `postgres:URL` or `redis:URL`".to_owned()),
        },
    };
    let named = line.session.as_deref();
    match (store, named) {
        (None, Some(_)) => Err("--session: there is one session to a file".to_owned()),
        (None, None) if line.new_login => {
            Err("--new-login: what is put into FILE is a new login anyway".to_owned())
        }
        (None, None) => Ok(tokens.map_or(Place::Memory, Place::File)),
        (Some(_), None | Some("")) => Err(
            "--store: a database needs --session NAME, what the login is called there, as nobody else's"
                .to_owned(),
        ),
        (Some(_), Some(_)) if line.new_login && tokens.is_none() => {
            Err("--new-login takes the tokens from --tokens FILE, which is missing".to_owned())
        }
        (Some(database), Some(session)) => {
            let name = format!("the session {session:?} in {database}");
            let secret = env::var(SESSION_VARIABLE).ok();
            let secret = secret.filter(|secret| !secret.is_empty());
            if secret.is_none() && !database.is_local() {
                return Err(format!(
                    "--store: without TLS, everybody on the way to {database} could read the tokens: set \
                     the environment variable {SESSION_VARIABLE}, which encrypts them"
                ));
            }
            let store = Store::open(database, session, secret.as_deref());
            Ok(Place::Shared(Box::new(Shared {
                store: store.map_err(|error| format!("{SESSION_VARIABLE}: {error}"))?,
                name,
                seed: tokens,
                is_new_login: line.new_login,
                deadline,
            })))
        }
    }
}

fn issuer(line: &SessionLine) -> Result<Issuer, String> {
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
pub fn endpoint(text: &str) -> Result<Uri, String> {
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

pub fn deadline(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("nothing can settle in no time".to_owned()),
        Ok(deadline) => Ok(deadline),
        Err(error) => Err(error.to_string()),
    }
}
