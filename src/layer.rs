//! [`TokenRefreshLayer`]: the options of one client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use crate::classify::Classify;
use crate::classify::DefaultClassifier;
use crate::error::ConfigError;
use crate::options::Options;
use crate::origin::Origin;
use crate::replay::ReplayLimits;
use crate::service::TokenRefresh;
use crate::session::Session;

/// Keeps the client it wraps logged in. See the [crate's documentation](crate) for how.
///
/// It is generic over where the session comes from (`S`, a [`SelectSession`](crate::SelectSession))
/// and over how answers are read (`C`, a [`Classify`]).
#[derive(Clone)]
#[must_use]
pub struct TokenRefreshLayer<S = Session, C = DefaultClassifier> {
    select: S,
    options: Options<C>,
}

impl<S> TokenRefreshLayer<S> {
    /// A layer that puts the session's token on requests to this origin, and no other (P11).
    ///
    /// The origin is a scheme, a host and a port, as in `https://api.example.com` or
    /// `https://api.example.com:8443`. A request whose URI has no host goes where the inner service
    /// is bound, and counts as one to this origin. One whose `Host` header names another host goes out
    /// without the token.
    ///
    /// # Errors
    ///
    /// When it is no origin, or plain `http` to a host that is not loopback (see
    /// [`Origin::allow_plain_http`]).
    pub fn new<O>(origin: O, session: S) -> Result<Self, ConfigError>
    where
        O: TryInto<Origin, Error: Into<ConfigError>>,
    {
        let origin = origin.try_into().map_err(Into::into)?;
        Ok(Self {
            select: session,
            options: Options::new(origin),
        })
    }
}

impl<S, C> TokenRefreshLayer<S, C> {
    /// Names one more origin whose requests carry the token.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn also<O>(mut self, origin: O) -> Result<Self, ConfigError>
    where
        O: TryInto<Origin, Error: Into<ConfigError>>,
    {
        let origin = origin.try_into().map_err(Into::into)?;
        self.options.origins.push(origin);
        Ok(self)
    }

    /// How answers are read; [`DefaultClassifier`] unless set.
    ///
    /// # Panics
    ///
    /// When [`Classify::check`] says that it is not rightly configured.
    pub fn classify<D: Classify>(self, classifier: D) -> TokenRefreshLayer<S, D> {
        if let Err(error) = classifier.check() {
            panic!("{error}");
        }
        TokenRefreshLayer {
            select: self.select,
            options: self.options.with_classifier(classifier),
        }
    }

    /// Fails requests to the named origins that would have to go out without a token, with a
    /// [`RefreshError`](crate::RefreshError), instead of sending them.
    pub fn require_token(mut self) -> Self {
        self.options.require_token = true;
        self
    }

    /// How many bytes of a request's body are kept, so that it can be sent again; 64 KiB unless set.
    /// A larger body is sent all the same, and is only lost for a replay. Bodies that are whole in
    /// memory (`Full<Bytes>`, `Empty`, `String`) are shared and not counted.
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.options.replay_limits.each = bytes;
        self
    }

    /// How many bytes are kept of the bodies of all requests together; 64 MiB unless set. A request
    /// whose body finds no room is sent all the same, and is only lost for a replay.
    ///
    /// All services that are made by this layer, and by its clones, share them. What
    /// [`replay_limit`](Self::replay_limit) does not count is not counted here either.
    pub fn total_replay_limit(mut self, bytes: usize) -> Self {
        let each = self.options.replay_limits.each;
        self.options.replay_limits = ReplayLimits::new(each, bytes);
        self
    }

    /// How much of a response is read before the caller gets it, and for how long: where the
    /// classifier asks for the body, and of a rejection, so that its connection is free while the
    /// request waits; 64 KiB and 1 s unless set. A rejection beyond it goes to the caller, whole.
    ///
    /// As long as that, from the rejection on, a request body that is still being sent has to come to its
    /// end, if the refresh does not take longer.
    pub fn response_limit(mut self, bytes: usize, time: Duration) -> Self {
        self.options.response_limit = bytes;
        self.options.response_time = time;
        self
    }
}

impl<Inner, S, C> Layer<Inner> for TokenRefreshLayer<S, C>
where
    S: Clone,
    C: Clone,
{
    type Service = TokenRefresh<Inner, S, C>;

    fn layer(&self, inner: Inner) -> Self::Service {
        TokenRefresh::new(inner, self.select.clone(), Arc::new(self.options.clone()))
    }
}

impl<S, C> fmt::Debug for TokenRefreshLayer<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRefreshLayer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
