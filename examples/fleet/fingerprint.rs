//! What is kept of a token here: enough to know it again.

use sha2::{Digest, Sha256};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    pub fn of(token: &str) -> Self {
        let hash = Sha256::digest(token);
        let first = hash.iter().take(8);
        Self(first.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The token of an `Authorization: Bearer` header.
    pub fn of_bearer(headers: &http::HeaderMap) -> Option<Self> {
        let value = headers.get(http::header::AUTHORIZATION)?;
        Some(Self::of(value.to_str().ok()?.strip_prefix("Bearer ")?))
    }
}
