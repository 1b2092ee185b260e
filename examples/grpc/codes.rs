//! The error codes of a server that has them in the messages of its statuses: `T-002: the token has expired`.

use ::http::{HeaderMap, StatusCode};
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
        let code = code(headers).unwrap_or_default();
        match code {
            code if self.ended.iter().any(|it| it == code) => Verdict::EndSession,
            code if self.expired.iter().any(|it| it == code) => Verdict::Refresh,
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

fn code(headers: &HeaderMap) -> Option<&str> {
    let message = headers.get("grpc-message")?.to_str().ok()?;
    message.split([':', ' ']).next()
}
