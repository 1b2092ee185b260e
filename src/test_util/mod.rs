//! Counterparts to try a client of your own against (feature `test-util`).

mod issuer;

pub use issuer::Gate;
pub use issuer::IssuerClient;
pub use issuer::IssuerCounts;
pub use issuer::Reply;
pub use issuer::ScriptedIssuer;
