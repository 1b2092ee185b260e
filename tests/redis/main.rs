//! Proves that a `RedisStore` is what several processes can share: it passes what every store must, and says
//! clearly what is wrong when the server, the way to it, or what it holds is (DESIGN section 7, S14, S20).

#![cfg(unix)]

#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../../examples/servers/mod.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/trouble.rs"]
mod trouble;

mod common;
mod connections;
mod contract;
mod failures;
mod late;
mod replicas;
mod secrets;
mod sessions;
mod wrong;
