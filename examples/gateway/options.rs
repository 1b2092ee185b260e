//! The command line.

use clap::{Parser, value_parser};

/// A gateway that holds each user's own session, before the reference back end.
///
/// Without --serve it is tried out: users log in, send requests, and check that each answer is their
/// own, while all tokens expire at random moments. Exit status: 0 when every promise was kept, 1 when one
/// was broken, 2 for wrong usage, and 128 + n when signal n has ended it (130 for Ctrl-C).
#[derive(Clone, Debug, Parser)]
#[command(name = "gateway")]
pub struct Options {
    /// How many users.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=1_000))]
    pub users: u32,
    /// How many requests each of them sends.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=100_000))]
    pub requests: u32,
    /// How many of them at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(1..=64))]
    pub parallel: u32,
    /// How often all access tokens expire. The layer takes no more than five in half a minute for
    /// good luck.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(0..=5))]
    pub expiries: u32,
    /// Prints one line of JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Only serves, until standard input closes or it is interrupted; prints one line of JSON with the
    /// address and a user who can log in.
    #[arg(long, conflicts_with_all = ["users", "requests", "parallel", "expiries", "json"])]
    pub serve: bool,
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
}
