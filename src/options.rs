//! What one layer was told, shared by all its services.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::time::Duration;

use http::HeaderMap;
use http::Response;
use http_body::Body;

use crate::body::ResponseBody;
use crate::classify::Classify;
use crate::classify::DefaultClassifier;
use crate::classify::Verdict;
use crate::origin::Origin;
use crate::origin::Origins;
use crate::replay::ReplayLimits;
use crate::say::say;

#[derive(Clone)]
pub(crate) struct Options<C> {
    pub(crate) origins: Origins,
    classifier: C,
    pub(crate) require_token: bool,
    pub(crate) replay_limits: ReplayLimits,
    pub(crate) response_limit: usize,
    pub(crate) response_time: Duration,
}

impl Options<DefaultClassifier> {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            origins: Origins::new(origin),
            classifier: DefaultClassifier,
            require_token: false,
            replay_limits: ReplayLimits::new(64 * 1024, 64 * 1024 * 1024),
            response_limit: 64 * 1024,
            response_time: Duration::from_secs(1),
        }
    }
}

impl<C> Options<C> {
    pub(crate) fn with_classifier<D>(self, classifier: D) -> Options<D> {
        Options {
            origins: self.origins,
            classifier,
            require_token: self.require_token,
            replay_limits: self.replay_limits,
            response_limit: self.response_limit,
            response_time: self.response_time,
        }
    }
}

impl<C: Classify> Options<C> {
    /// What the head of this response says.
    pub(crate) fn judge<ResBody>(&self, response: &Response<ResBody>) -> Verdict {
        guarded(|| {
            self.classifier
                .classify(response.status(), response.headers())
        })
    }

    /// What its trailers say.
    pub(crate) fn judge_trailers(&self, trailers: &HeaderMap) -> Verdict {
        guarded(|| self.classifier.inspect_trailers(trailers))
    }

    /// What its body says, where the classifier asked for a look at it. The response is given back
    /// whole.
    pub(crate) async fn inspect<ResBody: Body>(
        &self,
        response: Response<ResponseBody<ResBody>>,
        verdict: Verdict,
        time: Duration,
    ) -> (Response<ResponseBody<ResBody>>, Verdict) {
        if verdict != Verdict::Inspect {
            return (response, verdict);
        }
        let (head, body) = response.into_parts();
        let read = body.read(self.response_limit, time).await;
        let inspect = || {
            self.classifier
                .inspect(head.status, &head.headers, read.whole())
        };
        let verdict = guarded(inspect);
        (Response::from_parts(head, read.into()), verdict)
    }

    /// Reads a response to its end, within the limits. `false` where that was not reached.
    pub(crate) async fn read<ResBody: Body>(
        &self,
        response: Response<ResponseBody<ResBody>>,
        time: Duration,
    ) -> (Response<ResponseBody<ResBody>>, bool) {
        let (head, body) = response.into_parts();
        let read = body.read(self.response_limit, time).await;
        let is_whole = read.is_whole();
        (Response::from_parts(head, read.into()), is_whole)
    }
}

/// A classifier that panics harms its own request only, and that not much (B20).
fn guarded(judge: impl FnOnce() -> Verdict) -> Verdict {
    catch_unwind(AssertUnwindSafe(judge)).unwrap_or_else(|_| {
        say(|| tracing::error!("the classifier panicked: the response is taken as it is"));
        Verdict::Accept
    })
}

impl<C> fmt::Debug for Options<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("origins", &self.origins)
            .field("require_token", &self.require_token)
            .field("replay_limits", &self.replay_limits)
            .field("response_limit", &self.response_limit)
            .field("response_time", &self.response_time)
            .finish_non_exhaustive()
    }
}
