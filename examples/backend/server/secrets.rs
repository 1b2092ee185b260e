//! Randomness that nobody can guess, for keys, names and refresh tokens.

use std::fmt::Write;

use sha2::{Digest, Sha256};

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

pub fn random_hex<const N: usize>() -> String {
    random::<N>().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// What is kept of a refresh token. It is random enough to need no salt.
pub fn fingerprint(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
