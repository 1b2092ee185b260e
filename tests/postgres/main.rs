//! Proves that `PostgresStore` keeps a session's record as the promises need it, on real servers of
//! PostgreSQL and PgBouncer, also when these fail (P1, P8, P12, B7, S14, S20).

#![cfg(unix)]

#[path = "../support/plain.rs"]
mod plain;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../../examples/servers/mod.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/trouble.rs"]
mod trouble;

mod contract;
mod errors;
mod faults;
mod names;
mod scene;
mod sessions;
mod standby;
mod together;
