//! A tower layer that keeps any HTTP or gRPC client logged in.

#![warn(
    missing_debug_implementations,
    missing_docs,
    unnameable_types,
    unreachable_pub
)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::unwrap_used))]

mod attach;
mod body;
mod classify;
mod coordinator;
mod error;
mod future;
mod json;
mod layer;
mod options;
mod origin;
mod recover;
mod reissue;
mod replay;
mod service;
mod session;
mod store;
mod time;
mod token;

pub use attach::WithoutToken;
pub use body::ResponseBody;
pub use classify::Classify;
pub use classify::ClassifyFn;
pub use classify::DefaultClassifier;
pub use classify::ErrorCodes;
pub use classify::Or;
pub use classify::Verdict;
pub use classify::classify_fn;
pub use coordinator::FailureStats;
pub use coordinator::SessionStatus;
pub use coordinator::Stats;
pub use error::BoxError;
pub use error::ConfigError;
pub use error::EndReason;
pub use error::RefreshError;
pub use future::ResponseFuture;
pub use layer::TokenRefreshLayer;
pub use origin::Origin;
pub use recover::ReplaySafe;
pub use reissue::CookieReissue;
pub use reissue::JsonReissue;
pub use reissue::Reissue;
pub use reissue::ReissueError;
pub use reissue::ReissueFn;
pub use reissue::ReissueRequest;
pub use reissue::reissue_fn;
pub use replay::ReplayBody;
pub use service::TokenRefresh;
pub use session::SelectFn;
pub use session::SelectSession;
pub use session::Session;
pub use session::SessionBuilder;
pub use session::SessionExtension;
pub use session::select_fn;
pub use store::MemoryStore;
pub use store::TokenStore;
pub use token::AccessToken;
pub use token::InvalidToken;
pub use token::RefreshToken;
pub use token::TokenSet;
