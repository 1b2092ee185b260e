//! What a scripted issuer does with a reissue, and the gate it waits at.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::watch;

/// What a [`ScriptedIssuer`](super::ScriptedIssuer) does with one reissue.
///
/// *Processed* means that the refresh token is used up and new tokens are issued, as far as it is good:
/// a dead one, or one that is used again, gets a refusal where this says "tokens".
#[derive(Clone)]
pub struct Reply {
    pub(super) act: Act,
    pub(super) retry_after: Option<Duration>,
    pub(super) json: Option<Bytes>,
    pub(super) gate: Option<Gate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Issue,
    SameAccessToken,
    DeadAccessToken,
    Malformed,
    Lose,
    Hang,
    Refuse,
    Status(StatusCode),
}

impl Reply {
    /// Processed, and answered with tokens: what every reissue gets that has nothing scripted.
    #[must_use]
    pub fn tokens() -> Self {
        Self::new(Act::Issue)
    }

    /// Processed, and answered with the access token that the login has already, along with a new
    /// refresh token.
    #[must_use]
    pub fn same_access_token() -> Self {
        Self::new(Act::SameAccessToken)
    }

    /// Processed, and answered with tokens of which the API does not take the access token.
    #[must_use]
    pub fn dead_access_token() -> Self {
        Self::new(Act::DeadAccessToken)
    }

    /// Processed, and answered with a 200 whose JSON is cut off in the middle. A cookie is set all the
    /// same.
    #[must_use]
    pub fn malformed() -> Self {
        Self::new(Act::Malformed)
    }

    /// Processed, and the answer is lost: the client gets an error. Behind a hyper server the connection
    /// is closed.
    #[must_use]
    pub fn lost() -> Self {
        Self::new(Act::Lose)
    }

    /// Processed, and there is never an answer.
    #[must_use]
    pub fn never() -> Self {
        Self::new(Act::Hang)
    }

    /// Not processed, and refused: a 401 with the code `refused`, or at the token endpoint of OAuth a
    /// 400 with `invalid_grant`. The refresh token stays as good as it was.
    #[must_use]
    pub fn refused() -> Self {
        Self::new(Act::Refuse)
    }

    /// Not processed, and answered with this status and an empty body.
    #[must_use]
    pub fn status(status: StatusCode) -> Self {
        Self::new(Act::Status(status))
    }

    /// The answer carries `Retry-After`, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The answer has this JSON in place of its own, such as an error code that only your issuer has.
    #[must_use]
    pub fn json(mut self, text: impl Into<String>) -> Self {
        self.json = Some(Bytes::from(text.into()));
        self
    }

    /// The reissue is received and counted, and nothing happens to it until the gate is open. If the
    /// client gives it up meanwhile, it is not processed.
    #[must_use]
    pub fn held_by(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    fn new(act: Act) -> Self {
        Self {
            act,
            retry_after: None,
            json: None,
            gate: None,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("act", &self.act)
            .field("retry_after", &self.retry_after)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

/// Holds answers until the test opens it. Clones are the same gate. Once open it stays open.
#[derive(Clone)]
pub struct Gate {
    is_open: Arc<watch::Sender<bool>>,
}

impl Gate {
    /// A gate that is closed.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a `Default` would say nothing")]
    pub fn new() -> Self {
        Self {
            is_open: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Lets everybody through, those who wait and those who come.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    pub(super) async fn pass(&self) {
        let mut is_open = self.is_open.subscribe();
        // It fails where the gate is gone, and that is ours.
        drop(is_open.wait_for(|is_open| *is_open).await);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("is_open", &*self.is_open.borrow())
            .finish()
    }
}
