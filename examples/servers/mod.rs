//! Real servers of PostgreSQL, Redis and PgBouncer, each in a folder of its own and on a port of loopback,
//! which end when they are dropped, or when this process ends in whatever way.

// Each program that includes this module uses a part of it.
#![allow(dead_code, unused_imports)]

mod guarded;
mod log;
mod pgbouncer;
mod postgres;
mod programs;
mod redis;

use std::{env, sync::Mutex};

use anyhow::Result;

pub use self::{
    guarded::Guarded,
    pgbouncer::PgBouncer,
    postgres::Postgres,
    redis::{Redis, RedisOptions},
};

const POSTGRES_VARIABLE: &str = "TEST_POSTGRES_URL";
const REDIS_VARIABLE: &str = "TEST_REDIS_URL";

/// The server that `TEST_POSTGRES_URL` names, else one that is started at the first call and lives as
/// long as this process. Others use it too: it is for those who neither stop it nor count what is there.
pub fn postgres_url() -> Result<String> {
    static SHARED: Mutex<Option<Postgres>> = Mutex::new(None);
    shared(POSTGRES_VARIABLE, &SHARED, Postgres::start, Postgres::url)
}

/// The same for `TEST_REDIS_URL`.
pub fn redis_url() -> Result<String> {
    static SHARED: Mutex<Option<Redis>> = Mutex::new(None);
    shared(REDIS_VARIABLE, &SHARED, Redis::start, Redis::url)
}

fn shared<S>(
    variable: &str,
    server: &Mutex<Option<S>>,
    start: impl FnOnce() -> Result<S>,
    url: impl FnOnce(&S) -> String,
) -> Result<String> {
    if let Some(given) = env::var(variable).ok().filter(|given| !given.is_empty()) {
        return Ok(given);
    }
    let mut server = guarded::lock(server);
    let server = match &mut *server {
        Some(server) => server,
        none => none.insert(start()?),
    };
    Ok(url(server))
}
