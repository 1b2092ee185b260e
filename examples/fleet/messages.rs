//! What the fleet and its processes tell each other, a line of JSON each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{options::Protocol, place::Place};

/// The header with which a process says which one it is.
pub const PROCESS: &str = "x-worker";
/// Where reissues go.
pub const REISSUE_PATH: &str = "/member/token/refresh";

/// The first line that a process gets.
#[derive(Serialize, Deserialize)]
pub struct Setup {
    /// No two processes of a run have the same, not even one that takes the place of another.
    pub process: u64,
    /// Of the proxy.
    pub base: String,
    pub place: Place,
    pub protocol: Protocol,
}

#[derive(Serialize, Deserialize)]
pub enum Order {
    /// Go on until the server accepts a request.
    Begin {
        /// Something is to happen at one of the moments: say so when they are reached, and wait.
        halts: bool,
    },
    /// To one that waits at a moment.
    Go,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// It can be hit from now on, and ends with the fleet.
    Ready,
    At(Moment),
    /// The login is over: somebody has to log in.
    Ended,
    /// A request has, and not with what the one before it had failed with.
    Failed {
        why: String,
    },
    /// The server has accepted a request, at this time (µs since 1970).
    Recovered {
        at: u64,
    },
}

/// The stations of a reissue at which its process can be hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// The right to do it is claimed, and nothing is sent.
    Claimed,
    /// It is sent, and has not reached the issuer.
    Sent,
    /// The issuer has answered, and the answer is on its way.
    Answered,
    /// The answer is there, and not stored.
    Received,
}

impl Moment {
    pub const ALL: [Self; 4] = [Self::Claimed, Self::Sent, Self::Answered, Self::Received];
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claimed => "before it sent its reissue",
            Self::Sent => "while its reissue was on the way",
            Self::Answered => "while the answer was on the way",
            Self::Received => "before it stored the answer",
        })
    }
}
