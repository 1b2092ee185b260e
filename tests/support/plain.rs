//! How a store in a database writes a record down without a secret, so that a test can put one of a future
//! version there.

use sha2::Digest;
use sha2::Sha256;

/// For the session with this key.
pub fn plain(key: &str, version: u64, json: &str) -> String {
    let hash = Sha256::new()
        .chain_update(b"tower-token-refresh record\0")
        .chain_update(key)
        .chain_update(version.to_be_bytes())
        .chain_update(json)
        .finalize();
    let hash: String = hash[..16].iter().map(|it| format!("{it:02x}")).collect();
    format!("plain1 {hash} {json}")
}
