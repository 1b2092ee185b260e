//! What a session is called in a database that holds many, and how its record is written down there.
//!
//! Whoever can list the keys of a database learns no session's name from them: they are hashes, and
//! with a secret keyed ones. The record is bound to its session and version, so that one that was
//! copied from another session, or changed by hand, is refused; with a secret it is encrypted as well.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::KeyInit;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::Aead;
use chacha20poly1305::aead::Generate;
use chacha20poly1305::aead::Payload;
use hmac::Hmac;
use hmac::Mac;
use sha2::Digest;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Record;
use crate::error::BoxError;
use crate::error::ConfigError;

/// Shorter ones can be found by trying.
const SHORTEST_SECRET: usize = 16;

/// What a record begins with, and so how the rest is to be read.
const PLAIN: &str = "plain1 ";
const ENCRYPTED: &str = "sealed1 ";

const LENGTH_OF_NONCE: usize = 24;

/// Of a hash, in hexadecimal digits: 128 bits.
const LENGTH_OF_HASH: usize = 32;

/// How one session's record is named and written.
#[derive(Clone)]
pub(super) struct Seal {
    secret: Option<Zeroizing<Vec<u8>>>,
    key: String,
    /// Encrypts this session's records, with a secret.
    cipher: Option<XChaCha20Poly1305>,
}

impl Seal {
    pub(super) fn new(session: &str) -> Self {
        Self::with(None, session)
    }

    /// The same secret, for another session.
    pub(super) fn session(&self, session: &str) -> Self {
        Self::with(self.secret.clone(), session)
    }

    /// For the session of this name.
    pub(super) fn secret(secret: &[u8], session: &str) -> Result<Self, ConfigError> {
        if secret.len() < SHORTEST_SECRET {
            return Err(ConfigError::new(format!(
                "a store's secret has to be at least {SHORTEST_SECRET} bytes long: take random ones"
            )));
        }
        Ok(Self::with(Some(Zeroizing::new(secret.to_vec())), session))
    }

    fn with(secret: Option<Zeroizing<Vec<u8>>>, session: &str) -> Self {
        let key = match &secret {
            Some(secret) => keyed_hash(secret, b"name", session),
            None => Sha256::new()
                .chain_update(b"tower-token-refresh name\0")
                .chain_update(session)
                .finalize()
                .into(),
        };
        let cipher = secret
            .as_ref()
            .map(|secret| XChaCha20Poly1305::new(&keyed_hash(secret, b"record", session).into()));
        Self {
            secret,
            key: hex(&key),
            cipher,
        }
    }

    /// What the session is called in the database, and in notifications: 32 hexadecimal digits.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The text that is to be stored for this record.
    pub(super) fn close(&self, record: &Record) -> Result<Zeroizing<String>, BoxError> {
        let json = record.to_json()?;
        let bound = self.bound(record.version());
        let Some(cipher) = &self.cipher else {
            let json = std::str::from_utf8(&json)?;
            let hash = checksum(&bound, json);
            return Ok(Zeroizing::new(format!("{PLAIN}{hash} {json}")));
        };
        let nonce = XNonce::try_generate().map_err(|_| "the system has no random numbers")?;
        let payload = Payload {
            msg: &json,
            aad: &bound,
        };
        let closed = cipher.encrypt(&nonce, payload);
        let mut text = nonce.to_vec();
        text.extend(closed.map_err(|_| "the record of the session can't be encrypted")?);
        let text = BASE64_STANDARD.encode(text);
        Ok(Zeroizing::new(format!("{ENCRYPTED}{text}")))
    }

    /// The record that was stored as this text, beside this version.
    pub(super) fn open(&self, version: u64, text: &str) -> Result<Record, BoxError> {
        let bound = self.bound(version);
        let record = if let Some(text) = text.strip_prefix(PLAIN) {
            if self.cipher.is_some() {
                return Err(
                    "the record of the session is not encrypted, and a secret is set".into(),
                );
            }
            let (hash, json) = text.split_at_checked(LENGTH_OF_HASH).ok_or_else(not_ours)?;
            let json = json.strip_prefix(' ').ok_or_else(not_ours)?;
            if hash != checksum(&bound, json) {
                return Err(not_ours());
            }
            Record::from_json(json.as_bytes())?
        } else if let Some(text) = text.strip_prefix(ENCRYPTED) {
            let Some(cipher) = &self.cipher else {
                return Err("the record of the session is encrypted, and no secret is set".into());
            };
            let text = BASE64_STANDARD.decode(text).map_err(|_| not_ours())?;
            let (nonce, closed) = text
                .split_first_chunk::<LENGTH_OF_NONCE>()
                .ok_or_else(not_ours)?;
            let payload = Payload {
                msg: closed,
                aad: &bound,
            };
            let json = cipher.decrypt(&XNonce::from(*nonce), payload);
            Record::from_json(&Zeroizing::new(json.map_err(|_| not_ours())?))?
        } else {
            return Err(
                "the record of the session is none that this version of the crate has written: a \
                 newer one has, or it was changed by hand"
                    .into(),
            );
        };
        match record.version() == version {
            true => Ok(record),
            false => Err(not_ours()),
        }
    }

    /// What a record must be stored with.
    fn bound(&self, version: u64) -> Vec<u8> {
        [self.key.as_bytes(), &version.to_be_bytes()].concat()
    }
}

fn not_ours() -> BoxError {
    "the record is that of another session, or was changed by hand: log in again once it is removed"
        .into()
}

/// Tells a record that was copied or changed from one that was written here. It is no proof against
/// somebody who means it: that is what a secret is for.
fn checksum(bound: &[u8], json: &str) -> String {
    let hash = Sha256::new()
        .chain_update(b"tower-token-refresh record\0")
        .chain_update(bound)
        .chain_update(json);
    hex(&hash.finalize())
}

fn keyed_hash(secret: &[u8], purpose: &[u8], session: &str) -> [u8; 32] {
    // It takes a key of any length.
    let Ok(hash) = Hmac::<Sha256>::new_from_slice(secret) else {
        unreachable!("HMAC takes any key")
    };
    let hash = hash
        .chain_update(b"tower-token-refresh ")
        .chain_update(purpose)
        .chain_update(b"\0")
        .chain_update(session);
    hash.finalize().into_bytes().into()
}

fn hex(hash: &[u8]) -> String {
    let bytes = &hash[..LENGTH_OF_HASH / 2];
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Into a text, it can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
