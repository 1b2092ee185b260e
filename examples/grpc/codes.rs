//! The error codes of a server that has them in the messages of its statuses: `T-002: the token has expired`.

use ::http::{HeaderMap, StatusCode};
use tonic::{Code, Status};
use tower_token_refresh::{Classify, Verdict};

use crate::cli::options::Common;

/// Knows the codes of the command line, and abstains from everything else.
#[derive(Clone)]
pub struct StatusCodes {
    expired: Vec<String>,
    ended: Vec<String>,
}

impl StatusCodes {
    pub fn new(common: &Common) -> Self {
        Self {
            expired: common.expired_codes.clone(),
            ended: common.ended_codes.clone(),
        }
    }

    /// A call has its status in the head or in the trailers.
    fn judge(&self, headers: &HeaderMap) -> Verdict {
        match code(headers) {
            Some(code) if self.ended.contains(&code) => Verdict::EndSession,
            Some(code) if self.expired.contains(&code) => Verdict::Refresh,
            _ => Verdict::Abstain,
        }
    }
}

impl Classify for StatusCodes {
    fn classify(&self, _: StatusCode, headers: &HeaderMap) -> Verdict {
        self.judge(headers)
    }

    fn inspect_trailers(&self, trailers: &HeaderMap) -> Verdict {
        self.judge(trailers)
    }
}

/// The first word of the message of a call that failed.
fn code(headers: &HeaderMap) -> Option<String> {
    let status = Status::from_header_map(headers)?;
    let code = status.message().split([':', ',', ' ']).next()?;
    (status.code() != Code::Ok).then(|| code.to_owned())
}
