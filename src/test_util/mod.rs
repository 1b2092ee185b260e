//! For the tests of those who use this crate. Needs the feature `test-util`.
//!
//! [`check_token_store`] puts a [`TokenStore`](crate::TokenStore) of your own through what the crate
//! relies on, and [`check_shared_token_store`] a [`SharedTokenStore`](crate::SharedTokenStore): the
//! suites that the stores of this crate pass. [`check_unreadable_token_store`] and
//! [`check_unreadable_shared_token_store`] are for a storage that was broken. [`ScriptedIssuer`] is an
//! issuer and an API in memory, to try a client of your own against: it counts, rotates, and misbehaves
//! when it is told to.

mod issuer;
mod store;

pub use issuer::Gate;
pub use issuer::IssuerClient;
pub use issuer::IssuerCounts;
pub use issuer::Reply;
pub use issuer::ScriptedIssuer;
pub use store::StoreFault;
pub use store::check_shared_token_store;
pub use store::check_token_store;
pub use store::check_unreadable_shared_token_store;
pub use store::check_unreadable_token_store;
