//! Passwords are slow to check on purpose, so they are checked off the async threads, a few at a time.

use std::sync::Arc;

use anyhow::anyhow;
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// Each check takes this much memory.
const KIBIBYTES: u32 = 8 * 1024;
const AT_A_TIME: usize = 4;

pub struct Passwords {
    turns: Arc<Semaphore>,
    /// Checked in place of a user who does not exist, so that this takes as long.
    decoy: String,
}

impl Passwords {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
            decoy: hash_now("decoy")?,
        })
    }

    pub async fn hash(&self, password: &str) -> anyhow::Result<String> {
        let password = password.to_owned();
        self.take_turn(move || hash_now(&password)).await?
    }

    /// Whether the password has this hash; never, when there is no hash.
    pub async fn check(&self, password: String, hash: Option<String>) -> anyhow::Result<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let matches = self
            .take_turn(move || matches_now(&password, &hash))
            .await?;
        Ok(matches && known)
    }

    async fn take_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let turn = self.turns.clone().acquire_owned().await?;
        let done = spawn_blocking(move || {
            // Kept until the work is done, even when nobody waits for it any more.
            let _turn = turn;
            work()
        });
        Ok(done.await?)
    }
}

fn hash_now(password: &str) -> anyhow::Result<String> {
    let params = Params::new(KIBIBYTES, 1, 1, None).map_err(|e| anyhow!("argon2: {e}"))?;
    let hash: PasswordHash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.as_bytes())
        .map_err(|e| anyhow!("argon2: {e}"))?;
    Ok(hash.to_string())
}

fn matches_now(password: &str, hash: &str) -> bool {
    // The parameters are those in the hash.
    Argon2::default()
        .verify_password(password.as_bytes(), hash)
        .is_ok()
}
