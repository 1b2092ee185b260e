//! Proves what sessions do that share a login when the server of their store fails, PostgreSQL or Redis: at
//! whatever step of a refresh, a login or a logout it is killed, stopped or cut off, and whatever it has
//! lost (P1, P4, P6, P8, P13, B7, DESIGN section 7).

#![cfg(unix)]

#[path = "../support/plain.rs"]
mod plain;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../../examples/servers/mod.rs"]
mod servers;
#[path = "../support/shared.rs"]
mod shared;
#[path = "../support/mod.rs"]
mod support;

mod apart;
mod clocks;
mod faults;
mod kind;
mod logins;
mod losses;
mod many;
mod scene;
mod slow;
mod steps;
mod way;
mod wrong;
