//! For comparison, a process that does it as many do: a lock that runs out, and the tokens read again
//! once it is held. Nothing of this crate but the store is in it.

use std::time::Duration;

use ::http::{Request, StatusCode, header::AUTHORIZATION};
use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;
use tower_token_refresh::{BoxError, TokenSet};

use crate::{
    http::{Body, Http},
    lease::REISSUE_TIMEOUT,
    lock::Lock,
    messages::{REISSUE_PATH, Setup},
    proxy::Grant,
    stores::Store,
    worker::{Answer, Line},
};

/// Between two looks at a lock that somebody else holds.
const POLL: Duration = Duration::from_millis(50);
/// Then it is given up.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct TtlLock {
    base: String,
    http: Http,
    store: Store,
    lock: Lock,
    process: u64,
    tokens: Option<TokenSet>,
}

/// What has become of the tokens.
enum Refreshed {
    Newer,
    Refused,
}

impl TtlLock {
    pub fn new(setup: &Setup, line: Line) -> anyhow::Result<Self> {
        Ok(Self {
            base: setup.base.clone(),
            http: Http::new(setup.process, line),
            store: setup.place.store()?,
            lock: setup.place.lock()?,
            process: setup.process,
            tokens: None,
        })
    }

    pub async fn ask(&mut self) -> anyhow::Result<Answer> {
        if self.tokens.is_none() {
            self.tokens = self.read().await?;
        }
        if self.me().await? == StatusCode::OK {
            return Ok(Answer::Good);
        }
        Ok(match self.refresh().await? {
            Refreshed::Refused => Answer::Ended,
            Refreshed::Newer if self.me().await? == StatusCode::OK => Answer::Good,
            Refreshed::Newer => Answer::Refused,
        })
    }

    /// With the lock. It is set free whatever comes of it.
    async fn refresh(&mut self) -> anyhow::Result<Refreshed> {
        self.acquire().await?;
        let refreshed = self.refresh_locked().await;
        self.lock.release(self.process).await?;
        refreshed
    }

    async fn refresh_locked(&mut self) -> anyhow::Result<Refreshed> {
        let stored = self.read().await?.context("no tokens")?;
        let text = |tokens: &TokenSet| tokens.access_token().expose().to_owned();
        if self.tokens.as_ref().map(text) != Some(text(&stored)) {
            self.tokens = Some(stored);
            return Ok(Refreshed::Newer);
        }
        let reissue = timeout(REISSUE_TIMEOUT, self.reissue(&stored)).await;
        let Some(tokens) = reissue?? else {
            return Ok(Refreshed::Refused);
        };
        self.store.log_in(&tokens).await.map_err(plain)?;
        self.tokens = Some(tokens);
        Ok(Refreshed::Newer)
    }

    /// `None` where the issuer refuses.
    async fn reissue(&self, stored: &TokenSet) -> anyhow::Result<Option<TokenSet>> {
        let refresh = stored.refresh_token().context("no refresh token")?;
        let request = Request::post(format!("{}{REISSUE_PATH}", self.base))
            .header(AUTHORIZATION, format!("Bearer {}", refresh.expose()))
            .body(Body::from(Bytes::from(
                json!(stored.identity()).to_string(),
            )))?;
        let answer = self.http.clone().oneshot(request).await.map_err(plain)?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => return Ok(None),
            status if !status.is_success() => bail!("{status}"),
            _ => {}
        }
        let grant: Grant = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
        let mut tokens = grant.tokens()?;
        for (name, value) in stored.identity() {
            tokens = tokens.with_identity(name, value.clone());
        }
        Ok(Some(tokens))
    }

    async fn me(&self) -> anyhow::Result<StatusCode> {
        let mut request = Request::get(format!("{}/member/me", self.base));
        if let Some(tokens) = &self.tokens {
            let token = tokens.access_token().expose();
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::from(Bytes::new()))?;
        let answer = self.http.clone().oneshot(request).await.map_err(plain)?;
        Ok(answer.status())
    }

    async fn read(&self) -> anyhow::Result<Option<TokenSet>> {
        self.store.tokens().await.map_err(plain)
    }

    async fn acquire(&mut self) -> anyhow::Result<()> {
        let patience = Instant::now() + PATIENCE;
        while !self.lock.try_acquire(self.process).await? {
            if Instant::now() > patience {
                bail!("somebody else holds the lock");
            }
            sleep(POLL).await;
        }
        Ok(())
    }
}

fn plain(error: BoxError) -> anyhow::Error {
    anyhow::Error::from_boxed(error)
}
