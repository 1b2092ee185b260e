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
use super::blocking::on_blocking_thread;
use crate::error::BoxError;
use crate::error::ConfigError;

/// Shorter ones can be found by trying.
const SHORTEST_SECRET: usize = 16;

/// What a record begins with, and so how the rest is to be read.
const PLAIN: &str = "plain1 ";
const ENCRYPTED: &str = "sealed1 ";

/// What takes longer to read than a task should keep its thread. Writing needs no such care: what is written is
/// bounded, and nobody else has put it there.
const LARGE: usize = 32 * 1024;

/// More than any record takes that was written here: its limit, encrypted, in Base64.
const LARGEST_TEXT: usize = 2 << 20;

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

    /// The same as [`open`](Self::open), on another thread than that of the tasks where it takes long.
    pub(super) async fn open_aside(
        &self,
        version: u64,
        text: Zeroizing<String>,
    ) -> Result<Record, BoxError> {
        if text.len() <= LARGE {
            return self.open(version, &text);
        }
        let seal = self.clone();
        on_blocking_thread(move || seal.open(version, &text)).await
    }

    /// The record that was stored as this text, beside this version.
    pub(super) fn open(&self, version: u64, text: &str) -> Result<Record, BoxError> {
        if text.len() > LARGEST_TEXT {
            return Err("the record of the session is larger than any that is written".into());
        }
        let bound = self.bound(version);
        let mut record = if let Some(text) = text.strip_prefix(PLAIN) {
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
        if record.foreign {
            // Whatever a newer version of the crate calls it.
            record.version = version;
        }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::TokenSet;

    const SECRET: &[u8] = b"0123456789abcdef";

    fn sealed(session: &str) -> Seal {
        Seal::secret(SECRET, session).unwrap()
    }

    fn record(version: u64) -> Record {
        Record {
            version,
            epoch: 3,
            tokens: Some(TokenSet::new("canary-access").unwrap()),
            ..Record::empty()
        }
    }

    fn close(seal: &Seal, version: u64) -> String {
        seal.close(&record(version)).unwrap().to_string()
    }

    /// It is not opened, and what is said of it quotes nothing.
    #[track_caller]
    fn refused(seal: &Seal, version: u64, text: &str) -> String {
        let error = seal.open(version, text).expect_err(text);
        let said = format!("{error} {error:?}");
        assert!(!said.contains("canary"), "{said}");
        error.to_string()
    }

    // Made by another program. A later version of the crate has to find the rows of this one.
    #[test]
    fn the_names_stay_what_they_are() {
        let long: Vec<u8> = (0..100).collect();
        for (secret, session, key) in [
            (None, "session", "f1b2b29b6981f2446f9b608a025c1e07"),
            (None, "", "18a14a1b0c144175c3f9111de6008071"),
            (
                None,
                "Gr\u{fc}\u{df}e:user@example.com",
                "a683e21c443b6587788563d6b1e1283a",
            ),
            (Some(SECRET), "session", "73d218ba7274bef56a059328e7a57061"),
            (Some(SECRET), "", "4fd800c3fcb98b2f95f7890983efd00a"),
            (
                Some(&long[..]),
                "session",
                "2907294565f0858ff1c25ea8ecae37eb",
            ),
        ] {
            let seal = match secret {
                Some(secret) => Seal::secret(secret, "another").unwrap().session(session),
                None => Seal::new("another").session(session),
            };
            assert_eq!(seal.key(), key, "{session}");
        }
    }

    // Made by another program, as above.
    #[test]
    fn records_that_were_written_before_can_be_read() {
        const PLAIN_TEXT: &str = concat!(
            "plain1 5a196cd4fb0a686fd9bb5ad244fe6254 ",
            r#"{"format":1,"version":7,"epoch":3,"access_token":"a"}"#
        );
        const SEALED_TEXT: &str = concat!(
            "sealed1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXOKBUeO3yDBqiSWG/Wiyu9XgsWRcqc1b9MN9lgotG",
            "xIwF+lgrL0oD8kJnWIyBrJkVLr2M71RovKISuDKxnoSp5kIJjfXu"
        );
        for (seal, text) in [
            (Seal::new("session"), PLAIN_TEXT),
            (sealed("session"), SEALED_TEXT),
        ] {
            let record = seal.open(7, text).unwrap();
            assert_eq!((record.version, record.epoch), (7, 3));
            assert_eq!(record.tokens().unwrap().access_token().expose(), "a");
        }
    }

    #[test]
    fn what_was_closed_can_be_opened_and_is_never_closed_the_same_with_a_secret() {
        for (seal, is_encrypted) in [(Seal::new("session"), false), (sealed("session"), true)] {
            let record = record(7);
            let texts = [(); 2].map(|()| seal.close(&record).unwrap().to_string());
            for text in &texts {
                let opened = seal.open(7, text).unwrap();
                assert_eq!((opened.version, opened.epoch), (7, 3));
                let token = opened.tokens().unwrap().access_token();
                assert_eq!(token.expose(), "canary-access");
                assert_eq!(text.contains("canary"), !is_encrypted);
                let text = BASE64_STANDARD.decode(&text["sealed1 ".len()..]);
                let bytes = text.unwrap_or_default();
                assert!(!bytes.windows(6).any(|it| it == b"canary"));
            }
            // The nonce comes first.
            let heads = texts.each_ref().map(|text| &text[..ENCRYPTED.len() + 32]);
            assert_eq!(heads[0] != heads[1], is_encrypted);
        }
    }

    // shows S14
    #[test]
    fn the_record_of_another_session_or_version_is_refused() {
        for (ours, theirs) in [
            (Seal::new("session"), Seal::new("another")),
            (sealed("session"), sealed("another")),
        ] {
            let text = close(&theirs, 7);
            theirs.open(7, &text).unwrap();
            assert!(refused(&ours, 7, &text).contains("that of another session"));
            let text = close(&ours, 7);
            for version in [0, 6, 8, 7 + (1 << 32), u64::MAX] {
                assert!(refused(&ours, version, &text).contains("changed by hand"));
            }
        }
    }

    // Whoever can make the checksum is not kept from lying about the version within.
    #[test]
    fn a_record_that_says_another_version_than_the_one_beside_it_is_refused() {
        let seal = Seal::new("session");
        let json = String::from_utf8(record(6).to_json().unwrap().to_vec()).unwrap();
        let hash = checksum(&seal.bound(7), &json);
        assert!(refused(&seal, 7, &format!("{PLAIN}{hash} {json}")).contains("changed by hand"));
    }

    // shows S14
    #[test]
    fn no_byte_can_be_changed_taken_away_or_added() {
        for seal in [Seal::new("session"), sealed("session")] {
            let text = close(&seal, 7);
            for at in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1;
                refused(&seal, 7, std::str::from_utf8(&bytes).unwrap());
                refused(&seal, 7, &text[..at]);
            }
            refused(&seal, 7, &format!("{text} "));
            refused(&seal, 7, &format!("{text}AAAA"));
        }
        for text in [
            "",
            " ",
            "plain1",
            "sealed1",
            "plain1 \u{fc}",
            "sealed1 AAAA",
            "plain1  {}",
        ] {
            refused(&Seal::new("session"), 7, text);
            refused(&sealed("session"), 7, text);
        }
    }

    #[test]
    fn a_secret_is_needed_for_all_or_for_none_and_is_always_the_same() {
        let (plain, sealed) = (Seal::new("session"), sealed("session"));
        let other = Seal::secret(b"0123456789abcdeg", "session").unwrap();
        assert_ne!(sealed.key(), other.key());
        assert_ne!(sealed.key(), plain.key());
        let said = refused(&plain, 7, &close(&sealed, 7));
        assert!(
            said.contains("is encrypted, and no secret is set"),
            "{said}"
        );
        let said = refused(&sealed, 7, &close(&plain, 7));
        assert!(
            said.contains("is not encrypted, and a secret is set"),
            "{said}"
        );
        let said = refused(&other, 7, &close(&sealed, 7));
        assert!(said.contains("changed by hand"), "{said}");
    }

    #[test]
    fn a_way_of_writing_that_is_not_known_is_said_to_be_newer() {
        for seal in [Seal::new("session"), sealed("session")] {
            let text = close(&seal, 7);
            let newer = text.replacen('1', "2", 1);
            assert!(refused(&seal, 7, &newer).contains("a newer one has"));
        }
    }

    // Such a record is used, and never replaced.
    #[test]
    fn a_record_of_a_newer_format_is_opened_whatever_it_calls_its_version() {
        let seal = Seal::new("session");
        let json = json!({"format": 2, "revision": [7], "access_token": "a"}).to_string();
        let hash = checksum(&seal.bound(7), &json);
        let record = seal.open(7, &format!("{PLAIN}{hash} {json}")).unwrap();
        assert!(record.foreign);
        assert_eq!(record.version, 7);
        assert!(seal.close(&record).is_err());
    }

    #[test]
    fn a_secret_that_can_be_found_by_trying_is_refused() {
        let error = Seal::secret(&SECRET[1..], "session").err().unwrap();
        let said = format!("{error} {error:?}");
        assert!(said.contains("at least 16 bytes"), "{said}");
        assert!(!said.contains("123456789"), "{said}");
    }

    // Some hundred kilobytes were once read for seconds, and no other task of the thread went on.
    #[tokio::test(start_paused = true)]
    async fn a_large_record_is_read_on_another_thread_than_that_of_the_tasks() {
        let seal = Seal::secret(b"a secret of 16 bytes", "any").unwrap();
        for (size, is_aside) in [(1, false), (40_000, true)] {
            let tokens = TokenSet::new("access").unwrap();
            let tokens = tokens.with_identity("id", "x".repeat(size));
            let now = std::time::SystemTime::now();
            let record = Record::empty().with_login(tokens, now).unwrap();
            let text = seal.close(&record).unwrap();
            let mut opened = std::pin::pin!(seal.open_aside(1, text));
            assert_eq!(futures::poll!(&mut opened).is_pending(), is_aside, "{size}");
            if is_aside {
                assert_eq!(opened.await.unwrap().version(), 1);
            }
        }
    }

    #[test]
    fn a_large_record_is_read_without_a_runtime() {
        let seal = Seal::new("any");
        let tokens = TokenSet::new("access").unwrap();
        let tokens = tokens.with_identity("id", "x".repeat(40_000));
        let now = std::time::SystemTime::now();
        let record = Record::empty().with_login(tokens, now).unwrap();
        let text = seal.close(&record).unwrap();
        let opened = futures::executor::block_on(seal.open_aside(1, text));
        assert_eq!(opened.unwrap().version(), 1);
    }

    #[test]
    fn a_text_that_is_larger_than_any_that_was_written_is_not_looked_at() {
        let text = "x".repeat(LARGEST_TEXT + 1);
        let error = Seal::new("any").open(1, &text).unwrap_err();
        assert!(error.to_string().contains("larger than any"), "{error}");
    }
}
