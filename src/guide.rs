//! Pages for those who read before they write: one for each kind of issuer and of client, one
//! on the order of layers, and the answers to "what happens when".
//!
//! They are documentation only: there is nothing in these modules.

#[cfg(all(feature = "file", feature = "postgres", feature = "redis"))]
#[doc = include_str!("../docs/choosing-a-store.md")]
pub mod choosing_a_store {}

#[doc = include_str!("../docs/issuers/client-credentials.md")]
pub mod client_credentials {}

#[doc = include_str!("../docs/coming-from-axios.md")]
pub mod coming_from_axios {}

#[doc = include_str!("../docs/issuers/cookie.md")]
pub mod cookie {}

#[doc = include_str!("../docs/clients/gateway.md")]
pub mod gateway {}

#[doc = include_str!("../docs/issuers/json.md")]
pub mod home_made_codes {}

#[doc = include_str!("../docs/clients/hyper.md")]
pub mod hyper {}

#[doc = include_str!("../docs/issuers/oauth2.md")]
pub mod oauth2 {}

#[cfg(feature = "file")]
#[doc = include_str!("../docs/several-processes.md")]
pub mod one_login_several_processes {}

#[doc = include_str!("../docs/clients/reqwest.md")]
pub mod reqwest {}

#[doc = include_str!("../docs/clients/tonic.md")]
pub mod tonic {}

#[doc = include_str!("../docs/what-happens-when.md")]
pub mod what_happens_when {}

#[doc = include_str!("../docs/stack.md")]
pub mod where_in_the_stack {}
