//! What the programs have in common that stay logged in with their tokens in a file or a database: the
//! options for that, the session, and how they end.

// Each program that includes this module uses a part of it.
#![allow(dead_code)]

mod ending;
pub mod http;
pub mod issuer;
mod job;
pub mod options;
pub mod output;
mod progress;
mod reasons;
mod shared;
mod signals;
#[path = "../stores/mod.rs"]
mod stores;
#[path = "../terminal/mod.rs"]
mod terminal;
pub mod tokens;
mod turn;
mod under_way;
pub mod words;

pub use job::{Job, run};
pub use progress::progress_bar;
pub use reasons::Reasons;
