//! The reference back end: what clients meet in production, on loopback and steerable.
//!
//! `cargo run --release --example backend -- --access-ttl 2s --rotate`

mod input;
mod server;

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use serde_json::json;
use server::{Backend, Config, ReissueMode};

/// A back end with logins, short-lived access tokens and refresh tokens, on loopback.
///
/// It prints one line of JSON when it listens, and serves until standard input closes (when that is a
/// pipe) or it is interrupted.
#[derive(Parser)]
#[command(name = "backend")]
struct Options {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Port on 127.0.0.1 where the Greeter of greeter.proto is served; 0 takes a free one. Off if left
    /// out.
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<u16>,
    /// File of the database; in memory if left out.
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,
    /// How long an access token lives.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    access_ttl: Duration,
    /// How long a refresh token lives.
    #[arg(long, default_value = "14d", value_parser = humantime::parse_duration)]
    refresh_ttl: Duration,
    /// How long the answer of a reissue is kept back.
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    reissue_delay: Duration,
    /// How reissues end.
    #[arg(long, value_enum, default_value_t)]
    reissue_mode: ReissueMode,
    /// The error code for an access token that has expired or was superseded.
    #[arg(long, default_value = "T-002", value_name = "CODE")]
    expired_code: String,
    /// Each refresh token works once; using it again ends its family.
    #[arg(long)]
    rotate: bool,
}

impl From<Options> for Config {
    fn from(options: Options) -> Self {
        Self {
            port: options.port,
            grpc_port: options.grpc_port,
            db: options.db,
            access_ttl: options.access_ttl,
            refresh_ttl: options.refresh_ttl,
            reissue_delay: options.reissue_delay,
            reissue_mode: options.reissue_mode,
            expired_code: options.expired_code,
            rotate: options.rotate,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let backend = Backend::start(options.into()).await?;
    announce(&backend).context("can't write to standard output")?;
    eprintln!("serving; GET {}/stats counts what arrives", backend.base());
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        () = input::closed() => {}
    }
    backend.shutdown().await;
    Ok(())
}

fn announce(backend: &Backend) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", first_line(backend))?;
    stdout.flush()
}

fn first_line(backend: &Backend) -> serde_json::Value {
    let mut line =
        json!({ "base": backend.base(), "user": backend.user(), "client": backend.client() });
    if let Some(grpc) = backend.grpc() {
        line["grpc"] = json!(grpc);
    }
    line
}
