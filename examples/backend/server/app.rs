//! What the back end does, without a word of HTTP: logins, reissues, logouts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::Context;
use tokio::task::spawn_blocking;

use super::{
    Config, DEMO_EMAIL, ReissueMode, User,
    pace::Pace,
    passwords::Passwords,
    refusal::Refusal,
    secrets,
    stats::Counters,
    store::{Held, Identity, Store},
    tokens::{AccessTokens, Caller, Fault, Issued},
};

pub struct App {
    pub tokens: AccessTokens,
    pub counters: Counters,
    pub pace: Pace,
    passwords: Passwords,
    /// Locked while a login changes, so that the database and the live access tokens agree.
    store: Mutex<Store>,
    config: Mutex<Config>,
    /// How the next reissues fail.
    failures: Mutex<VecDeque<Refusal>>,
    expired_code: Arc<str>,
}

/// Who the client of a reissue says it is.
pub struct Sender {
    pub id: String,
    pub email: String,
}

/// Which reissue is asked for.
pub enum Reissue {
    /// By a member who says who they are; earlier access tokens live on.
    Member(Sender),
    /// By a browser's cookie; earlier access tokens of the login are dead at once.
    Cookie,
    /// By whoever holds the refresh token; earlier access tokens live on.
    OAuth,
}

/// What a login or a reissue gives.
pub struct Grant {
    pub user: Arc<Identity>,
    pub access: Issued,
    /// Only if there is a new one.
    pub refresh: Option<String>,
}

impl App {
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        let db = config.db.clone();
        let store = spawn_blocking(move || Store::open(db.as_deref()))
            .await?
            .context("can't open the database")?;
        Ok(Self {
            tokens: AccessTokens::new(),
            counters: Counters::default(),
            pace: Pace::default(),
            passwords: Passwords::new()?,
            store: Mutex::new(store),
            failures: Mutex::default(),
            expired_code: config.expired_code.as_str().into(),
            config: Mutex::new(config),
        })
    }

    /// Before any after them is good again. Takes the place of those that have not come yet.
    pub fn fail_next(&self, failures: impl IntoIterator<Item = Refusal>) {
        *self.failures.lock().unwrap_or_else(|e| e.into_inner()) = failures.into_iter().collect();
    }

    fn next_failure(&self) -> Option<Refusal> {
        let failures = self.failures.lock();
        failures.unwrap_or_else(|e| e.into_inner()).pop_front()
    }

    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config.lock().unwrap_or_else(|e| e.into_inner()));
    }

    pub fn config(&self) -> Config {
        let config = self.config.lock();
        config.unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub async fn put_user(self: &Arc<Self>, email: &str, password: &str) -> anyhow::Result<User> {
        let hash = self.passwords.hash(password).await?;
        let (app, address) = (self.clone(), email.to_owned());
        let user = spawn_blocking(move || app.store().put_user(&address, &hash)).await??;
        Ok(User {
            id: user.id,
            email: user.email,
            password: password.to_owned(),
        })
    }

    /// Who may use a protected route.
    pub fn judge(&self, access_token: &str) -> Result<Caller, Refusal> {
        self.tokens
            .judge(access_token)
            .map_err(|fault| match fault {
                Fault::Invalid => Refusal::InvalidToken,
                Fault::Expired => Refusal::ExpiredToken(self.expired_code.clone()),
            })
    }

    pub async fn login(
        self: &Arc<Self>,
        email: String,
        password: String,
    ) -> Result<Grant, Refusal> {
        let found = self
            .off_thread(move |app| Ok(app.store().user(&email)?))
            .await?;
        let (user, hash) = found.unzip();
        let matches = self.passwords.check(password, hash).await?;
        let user = user.filter(|_| matches).ok_or(Refusal::LoginFailed)?;
        self.off_thread(move |app| app.begin_login(user.into()))
            .await
    }

    fn begin_login(&self, user: Arc<Identity>) -> Result<Grant, Refusal> {
        let config = self.config();
        let family: Arc<str> = secrets::random_hex::<16>().into();
        let store = self.store();
        let refresh = store.add_token(&user, &family, config.refresh_ttl)?;
        let access = self.tokens.issue(&family, &user, Some(config.access_ttl))?;
        self.counters.login();
        Ok(Grant {
            user,
            access,
            refresh: Some(refresh),
        })
    }

    pub async fn reissue(
        self: &Arc<Self>,
        refresh_token: String,
        kind: Reissue,
    ) -> Result<Grant, Refusal> {
        self.off_thread(move |app| app.reissue_now(&refresh_token, &kind))
            .await
    }

    fn reissue_now(&self, refresh_token: &str, kind: &Reissue) -> Result<Grant, Refusal> {
        if let Some(failure) = self.next_failure() {
            return Err(failure);
        }
        let config = self.config();
        let access_ttl = lifetime_of_reissued(&config)?;
        let store = self.store();
        let held = self.find_usable(&store, refresh_token, kind)?;
        let refresh = config
            .rotate
            .then(|| store.rotate(refresh_token, &held, config.refresh_ttl))
            .transpose()?;
        let access = self.tokens.issue(&held.family, &held.user, access_ttl)?;
        if matches!(kind, Reissue::Cookie) {
            self.tokens.supersede(&held.family, &access);
        }
        Ok(Grant {
            user: held.user,
            access,
            refresh,
        })
    }

    /// A token for the demonstration user, in a login of its own that has no refresh token.
    pub async fn client_credentials(self: &Arc<Self>) -> Result<Grant, Refusal> {
        self.off_thread(Self::client_credentials_now).await
    }

    fn client_credentials_now(&self) -> Result<Grant, Refusal> {
        let access_ttl = lifetime_of_reissued(&self.config())?;
        let (user, _) = self.store().user(DEMO_EMAIL)?.ok_or(Refusal::Broken)?;
        let (user, family) = (Arc::new(user), secrets::random_hex::<16>().into());
        let access = self.tokens.issue(&family, &user, access_ttl)?;
        Ok(Grant {
            user,
            access,
            refresh: None,
        })
    }

    fn find_usable(&self, store: &Store, token: &str, kind: &Reissue) -> Result<Held, Refusal> {
        let held = store.find(token)?.ok_or(Refusal::InvalidToken)?;
        if !kind.fits(&held.user) {
            return Err(Refusal::OtherUser);
        }
        if held.used && !held.revoked {
            self.end_reused(store, &held.family)?;
        }
        if held.used || held.revoked || held.expired {
            return Err(Refusal::DeadRefreshToken);
        }
        Ok(held)
    }

    /// Two clients have the same refresh token, and nobody can tell which one is the thief.
    fn end_reused(&self, store: &Store, family: &str) -> Result<(), Refusal> {
        self.counters.reuse_detected();
        self.end_family(store, family)
    }

    pub async fn logout(self: &Arc<Self>, family: Arc<str>) -> Result<(), Refusal> {
        self.off_thread(move |app| app.end_family(&app.store(), &family))
            .await
    }

    fn end_family(&self, store: &Store, family: &str) -> Result<(), Refusal> {
        store.revoke_family(family)?;
        self.tokens.end(family);
        Ok(())
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Runs work on the database where it may block. It goes on to its end when nobody waits any more.
    async fn off_thread<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let app = self.clone();
        let done = spawn_blocking(move || work(&app)).await;
        done.unwrap_or(Err(Refusal::Broken))
    }
}

impl Reissue {
    fn fits(&self, user: &Identity) -> bool {
        match self {
            Self::Member(sender) => sender.id == user.id && sender.email == user.email,
            Self::Cookie | Self::OAuth => true,
        }
    }
}

/// `None` for a token that is dead when it is issued.
fn lifetime_of_reissued(config: &Config) -> Result<Option<Duration>, Refusal> {
    match config.reissue_mode {
        ReissueMode::Ok => Ok(Some(config.access_ttl)),
        ReissueMode::Dead => Ok(None),
        ReissueMode::Fail => Err(Refusal::DeadRefreshToken),
        ReissueMode::Error => Err(Refusal::Broken),
    }
}
