//! A process with a session of this crate, on the store that all of them share.

use std::time::Duration;

use ::http::Request;
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};
use tower_token_refresh::{
    BoxError, DefaultClassifier, ErrorCodes, JsonReissue, Or, RefreshError, Session, TokenRefresh,
    TokenRefreshLayer,
};

use crate::{
    http::Http,
    messages::{REISSUE_PATH, Setup},
    worker::{Answer, Line},
};

/// What has no answer by then was lost.
pub const REISSUE_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Lease {
    api: TokenRefresh<Http, Session, Or<ErrorCodes, DefaultClassifier>>,
    uri: String,
}

impl Lease {
    pub fn new(setup: &Setup, line: Line) -> anyhow::Result<Self> {
        let (base, http) = (&setup.base, Http::new(setup.process, line));
        let issuer = JsonReissue::post(format!("{base}{REISSUE_PATH}"), http.clone());
        let session = Session::builder(issuer.refused("T-003"))
            .shared_store(setup.place.store()?)
            .reissue_timeout(REISSUE_TIMEOUT)
            // A token that lives for a second has less than that left when it arrives, so that its reissue
            // counts for the limit. The fleet counts reissues itself.
            .reissue_limit(u32::MAX, Duration::from_secs(30))
            .build()?;
        let codes = ErrorCodes::json("/code").expired("T-002").ended("T-003");
        let layer = TokenRefreshLayer::new(base, session)?.classify(codes.or(DefaultClassifier));
        Ok(Self {
            api: layer.layer(http),
            uri: format!("{base}/member/me"),
        })
    }

    pub async fn ask(&mut self) -> anyhow::Result<Answer> {
        self.try_ask().await.map_err(anyhow::Error::from_boxed)
    }

    async fn try_ask(&mut self) -> Result<Answer, BoxError> {
        let request = Request::get(&self.uri).body(Full::default())?;
        let answer = self.api.ready().await?.call(request).await?;
        let why = answer.extensions().get::<RefreshError>();
        Ok(match why {
            _ if answer.status().is_success() => Answer::Good,
            Some(why) if why.is_session_ended() => Answer::Ended,
            Some(why) => return Err(why.clone().into()),
            _ => Answer::Refused,
        })
    }
}
