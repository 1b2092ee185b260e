//! For the tests of those who use this crate. Needs the feature `test-util`.
//!
//! [`check_token_store`] puts a [`TokenStore`](crate::TokenStore) of your own through what the crate
//! relies on: the suite that the stores of this crate pass.

mod store;

pub use store::StoreFault;
pub use store::check_token_store;
