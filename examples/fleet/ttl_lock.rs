//! For comparison, a process that does it as many do: a lock that runs out, and the tokens read again
//! once it is held. Nothing of this crate but the file is in it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::PathBuf,
    time::Duration,
};

use ::http::{Request, StatusCode, header::AUTHORIZATION};
use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;
use tower_token_refresh::{BoxError, FileStore, TokenSet, TokenStore};

use crate::{
    http::{Body, Http},
    lease::REISSUE_TIMEOUT,
    messages::{REISSUE_PATH, Setup},
    proxy::{Grant, now},
    worker::{Answer, Line},
};

const LIFETIME: Duration = Duration::from_secs(2);
/// Between two looks at a lock that somebody else holds.
const POLL: Duration = Duration::from_millis(50);
/// Then it is given up.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct TtlLock {
    base: String,
    http: Http,
    store: FileStore,
    lock: PathBuf,
    process: u64,
    tokens: Option<TokenSet>,
}

/// What has become of the tokens.
enum Refreshed {
    Newer,
    Refused,
}

impl TtlLock {
    pub fn new(setup: &Setup, line: Line) -> Self {
        Self {
            base: setup.base.clone(),
            http: Http::new(setup.process, line),
            store: FileStore::new(&setup.file),
            lock: setup.file.with_extension("lock"),
            process: setup.process,
            tokens: None,
        }
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
        self.release()?;
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
        self.store.save(&tokens).await.map_err(plain)?;
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
        self.store.load().await.map_err(plain)
    }

    async fn acquire(&self) -> anyhow::Result<()> {
        let patience = Instant::now() + PATIENCE;
        while !self.try_acquire()? {
            if Instant::now() > patience {
                bail!("somebody else holds the lock");
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// In one step, as a lock server would do it.
    fn try_acquire(&self) -> io::Result<bool> {
        self.in_one_step(|holder| {
            let is_free = holder.is_none_or(|(_, until)| until <= now());
            is_free.then(|| Some((self.process, now() + LIFETIME.as_millis() as u64)))
        })
    }

    /// Unless it has run out, and is somebody else's by now.
    fn release(&self) -> io::Result<()> {
        let is_ours = |holder: Option<(u64, u64)>| holder.is_some_and(|(it, _)| it == self.process);
        self.in_one_step(|holder| is_ours(holder).then_some(None))?;
        Ok(())
    }

    /// Sets who holds the lock, and until when, if `change` gives something for who holds it now.
    fn in_one_step(
        &self,
        change: impl FnOnce(Option<(u64, u64)>) -> Option<Option<(u64, u64)>>,
    ) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true);
        let mut file: File = options.truncate(false).open(&self.lock)?;
        // Held for no longer than this function, and not the lock that all this is about.
        file.lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let holder = serde_json::from_str(&text).unwrap_or_default();
        let Some(holder) = change(holder) else {
            return Ok(false);
        };
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", json!(holder))?;
        Ok(true)
    }
}

fn plain(error: BoxError) -> anyhow::Error {
    anyhow::Error::from_boxed(error)
}
