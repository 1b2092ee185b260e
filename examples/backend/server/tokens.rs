//! Access tokens: signed, so that no database is asked, and judged to the millisecond.

use std::{
    sync::{
        Arc, RwLock, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{logins::Logins, secrets, store::Identity};

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    /// The login's family.
    sid: String,
    iat: i64,
    exp: i64,
    /// `exp` has whole seconds only.
    exp_ms: i64,
    jti: String,
    serial: u64,
}

impl Claims {
    fn new(family: &str, user: &Identity, now: Timestamp, end: Timestamp, serial: u64) -> Self {
        Self {
            sub: user.id.clone(),
            sid: family.to_owned(),
            iat: now.as_second(),
            exp: end.as_second(),
            exp_ms: end.as_millisecond(),
            jti: secrets::random_hex::<16>(),
            serial,
        }
    }
}

/// A new access token.
pub struct Issued {
    pub token: String,
    pub expires_at: Timestamp,
    /// Zero for a token that is dead when it is issued.
    pub lifetime: Duration,
    serial: u64,
}

impl Issued {
    /// RFC 3339, always with milliseconds.
    pub fn expiry_text(&self) -> String {
        format!("{:.3}", self.expires_at)
    }
}

/// Who sent a protected request.
#[derive(Clone)]
pub struct Caller {
    pub user: Arc<Identity>,
    pub family: Arc<str>,
}

/// Why an access token is no good.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    Invalid,
    Expired,
}

pub struct AccessTokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    next_serial: AtomicU64,
    first_unexpired: AtomicU64,
    logins: RwLock<Logins>,
}

impl AccessTokens {
    /// With a signing key of its own: tokens of an earlier run are not valid.
    pub fn new() -> Self {
        let secret = secrets::random::<32>();
        let mut validation = Validation::new(Algorithm::HS256);
        // Judged here instead: the library knows seconds only.
        validation.validate_exp = false;
        Self {
            encoding: EncodingKey::from_secret(&secret),
            decoding: DecodingKey::from_secret(&secret),
            validation,
            next_serial: AtomicU64::new(0),
            first_unexpired: AtomicU64::new(0),
            logins: RwLock::default(),
        }
    }

    /// A token that lives for `ttl`, or that has expired already if there is none.
    pub fn issue(
        &self,
        family: &Arc<str>,
        user: &Arc<Identity>,
        ttl: Option<Duration>,
    ) -> anyhow::Result<Issued> {
        let serial = self.next_serial.fetch_add(1, Ordering::SeqCst);
        let now = Timestamp::now();
        let expires_at = expiry(now, ttl);
        let claims = Claims::new(family, user, now, expires_at, serial);
        let token = jsonwebtoken::encode(&Header::default(), &claims, &self.encoding)?;
        self.write().admit(family, user, serial);
        Ok(Issued {
            token,
            expires_at,
            lifetime: ttl.unwrap_or_default(),
            serial,
        })
    }

    /// The tokens of this family before `issued` are dead.
    pub fn supersede(&self, family: &str, issued: &Issued) {
        self.write().supersede(family, issued.serial);
    }

    /// All tokens of this family are dead.
    pub fn end(&self, family: &str) {
        self.write().end(family);
    }

    /// All tokens issued until now are dead.
    pub fn expire_all(&self) {
        let next = self.next_serial.load(Ordering::SeqCst);
        self.first_unexpired.fetch_max(next, Ordering::SeqCst);
    }

    pub fn judge(&self, token: &str) -> Result<Caller, Fault> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_| Fault::Invalid)?
            .claims;
        if self.has_expired(&claims) {
            return Err(Fault::Expired);
        }
        let logins = self.logins.read().unwrap_or_else(|e| e.into_inner());
        let user = logins.user(&claims.sid, claims.serial);
        Ok(Caller {
            user: user.ok_or(Fault::Expired)?,
            family: claims.sid.into(),
        })
    }

    fn has_expired(&self, claims: &Claims) -> bool {
        claims.exp_ms <= Timestamp::now().as_millisecond()
            || claims.serial < self.first_unexpired.load(Ordering::SeqCst)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Logins> {
        self.logins.write().unwrap_or_else(|e| e.into_inner())
    }
}

fn expiry(now: Timestamp, ttl: Option<Duration>) -> Timestamp {
    let Some(ttl) = ttl else {
        return now - Duration::from_secs(1);
    };
    now.checked_add(ttl).unwrap_or(Timestamp::MAX)
}
