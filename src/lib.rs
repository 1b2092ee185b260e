//! A tower layer that keeps an HTTP or gRPC client logged in.
//!
//! [`TokenRefreshLayer`] puts the access token of a [`Session`] on each request. When the server
//! rejects it, all requests that met a rejection wait for *one* reissue (the refresh token goes to
//! the issuer, new tokens come back) and are then sent again. When the issuer refuses the refresh
//! token, the session ends, for everybody and once.
//!
//! The [`guide`] has a page for each kind of issuer and of client, one on the order of layers, one for
//! those who come from an axios interceptor, and one that says what happens when.
//!
//! # Example
//!
//! An API and an issuer in memory: the first token is rejected, and the caller never sees it.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode, header::AUTHORIZATION};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_token_refresh::{
//!     BoxError, ReissueError, ReplayBody, Session, TokenRefreshLayer, TokenSet, reissue_fn,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! // It echoes what carries the second token, and answers everything else with 401.
//! let api = service_fn(async |request: Request<ReplayBody<Full<Bytes>>>| {
//!     let is_good = request.headers()[AUTHORIZATION] == "Bearer second";
//!     let body = request.into_body().collect().await?.to_bytes();
//!     let (status, body) = match is_good {
//!         true => (StatusCode::OK, body),
//!         false => (StatusCode::UNAUTHORIZED, Bytes::new()),
//!     };
//!     Ok::<_, BoxError>(Response::builder().status(status).body(Full::new(body))?)
//! });
//!
//! let session = Session::builder(reissue_fn(async |request| {
//!     assert_eq!(request.refresh_token().map(|token| token.expose()), Some("refresh"));
//!     TokenSet::new("second").map_err(ReissueError::unknown)
//! }))
//! .build()?;
//! session.login(TokenSet::new("first")?.with_refresh_token("refresh")?).await?;
//!
//! let client = ServiceBuilder::new()
//!     .layer(TokenRefreshLayer::new("https://api.example.com", session.clone())?)
//!     .service(api);
//! let request = Request::post("https://api.example.com/echo").body(Full::from("hello"))?;
//! let response = client.oneshot(request).await?;
//!
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
//! let stats = session.stats();
//! assert_eq!((stats.reissues, stats.replays), (1, 1));
//! # Ok(())
//! # }
//! ```
//!
//! # With a hyper client
//!
//! One client does both jobs: it is the service inside the layer, and its clone, without the layer,
//! talks to the issuer (P15). The inner service gets each request with a [`ReplayBody`] around the
//! caller's own body, so that is the type its requests have.
//!
//! ```no_run
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_token_refresh::{
//!     BoxError, DefaultClassifier, ErrorCodes, JsonReissue, RefreshError, ReplayBody, Session,
//!     TokenRefreshLayer, TokenSet,
//! };
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), BoxError> {
//! // Plain http is accepted for this machine. For https, give it a connector that speaks TLS.
//! let http = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Full<Bytes>>>();
//!
//! let issuer = JsonReissue::post("http://localhost:3000/member/token/refresh", http.clone())
//!     .refused("T-003"); // the issuer's code for "log in again"
//! let session = Session::builder(issuer).build()?;
//!
//! let layer = TokenRefreshLayer::new("http://localhost:3000", session.clone())?
//!     .classify(ErrorCodes::json("/code").expired("T-002").or(DefaultClassifier));
//! let mut client = ServiceBuilder::new().layer(layer).service(http);
//!
//! let tokens = TokenSet::new("the-access-token")?
//!     .with_refresh_token("the-refresh-token")?
//!     .with_identity("id", "7"); // goes into the body of each reissue
//! session.login(tokens).await?;
//!
//! let request = Request::get("http://localhost:3000/member/me").body(Full::default())?;
//! let response = client.ready().await?.call(request).await?;
//! if let Some(why) = response.extensions().get::<RefreshError>() {
//!     eprintln!("{}: {why}", response.status());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # With a tonic client
//!
//! The layer goes around the `Channel`, with one line that makes the body tonic's own again. The
//! issuer is asked through a client of its own.
//!
//! ```no_run
//! use http::Request;
//! use tonic::{body::Body, transport::Endpoint};
//! use tower::ServiceBuilder;
//! use tower_token_refresh::{BoxError, ReplayBody, Session, TokenRefreshLayer};
//!
//! # fn main() {}
//! # fn with(session: Session) -> Result<(), BoxError> {
//! let channel = ServiceBuilder::new()
//!     .layer(TokenRefreshLayer::new("http://localhost:50051", session.clone())?)
//!     .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
//!     .service(Endpoint::from_static("http://localhost:50051").connect_lazy());
//! // `GreeterClient::new(channel)`, or whatever else tonic has generated:
//! let client = tonic::client::Grpc::new(channel);
//! # let _ = client;
//! # Ok(())
//! # }
//! ```
//!
//! # What happens to a request
//!
//! ```text
//!  a request
//!    │
//!    ▼
//!  A named origin (P11), a session, and
//!  neither WithoutToken nor its own header?   ──no──►  sent as it is, the answer is not looked at
//!    │ yes
//!    ▼
//!  Is there a token that can be used?         ──no──►  wait until the store is read, the login is
//!    │ yes: no lock, no waiting                        saved or the token is replaced (P4)
//!    │◄──────────────────────────────────────────────────┘
//!    ▼
//!  The token is put on; head and body are kept; the inner service sends the request.
//!    │
//!    ▼
//!  What does the classifier say?              ──fine──►  the response, streaming, as it comes
//!    │ rejected
//!    ▼
//!  Another login, or none, by now (P8)?       ──yes──►  the server's answer, with a RefreshError
//!  A token that is too fresh (P2)?            ──yes──►  in its extensions that says why
//!  A pause, a limit (P5, P9)?                 ──yes──►
//!    │
//!    ├─ Is there a newer token already (P2)?  ──yes──►  no need to wait
//!    │                                                    │
//!    ▼                                                    │
//!  Join the refresh, or start it (P1).                    │
//!    │    ┌ one task that belongs to no request (P3) ──┐  │
//!    │    │ 1 read the store: newer tokens? adopt them │  │
//!    │    │ 2 else ask the issuer, with a deadline     │  │
//!    │    │ 3 save, then publish (P13)                 │  │
//!    │    │ 4 settle all who wait (P4)                 │  │
//!    │    └────────────────────────────────────────────┘  │
//!    │    meanwhile the rejection is read to its end,     │
//!    │    which gives its connection back (P14)           │
//!    │                                                    │
//!    ├─ it failed (P5), or no way to send again (P10) ────┼──►  the server's answer, and why
//!    │                                                    │
//!    ▼◄───────────────────────────────────────────────────┘
//!  Sent again, once, when the inner service is ready  ──►  the response, whatever it says
//! ```
//!
//! # Promises
//!
//! Code and tests refer to them by their numbers.
//!
//! - **P1 One reissue.** Any number of requests that are rejected with one token, together or one
//!   after another, lead to one answered reissue. This holds for a [`Session`] with all its clones
//!   and all layers they are in, and for all processes whose sessions have one
//!   [shared store](SessionBuilder::shared_store), as long as that [keeps what it has confirmed](#limits).
//! - **P2 No reissue in vain.** A rejection of a token that has been replaced in the meantime needs no
//!   reissue: the request is sent again with the current token. If that is rejected too, you get
//!   that answer, and the next request is sent as if nothing had happened. A token that was issued a
//!   moment ago, here or in another process, and that no request was accepted with (by a 2xx) yet, is *too
//!   fresh*: some servers learn of a token late, and to replace it would only start that anew. So
//!   for 5 s, and never for more than half of a stated lifetime, its rejection starts no reissue. A token
//!   that was accepted before and is rejected now has died, whatever its age, and is replaced at once.
//!   An *address*, that is an origin and a path without the query, that has rejected a token and the one
//!   after it as well is *not cured* until it accepts one: some addresses answer 401 for
//!   reasons of their own. While there is such a one, nobody waits for a reissue but those that were
//!   rejected themselves.
//! - **P3 The refresh outlives its caller.** Dropping a request, even the one that started the
//!   refresh, at whatever moment, neither stops the refresh, nor loses the new tokens, nor delays
//!   anybody else.
//! - **P4 Everybody settles.** Each wait for a refresh ends within 30 s
//!   ([`wait_timeout`](SessionBuilder::wait_timeout)), whatever happens to the refresh: it fails,
//!   panics or hangs, its runtime shuts down or is not driven any more, or there is none. One
//!   request waits twice at the most: before it is sent, and after it was rejected.
//! - **P5 An outcome belongs to its attempt.** Those who waited for a refresh share its outcome,
//!   with one [source](std::error::Error::source). A failure is followed by a pause: 0.5 to 1 s
//!   at first, at random, and twice as long each time, up to 30 to 60 s
//!   ([`cool_down`](SessionBuilder::cool_down)); as long as `Retry-After` asks, up to five minutes;
//!   at least a minute when the issuer does not take the reissue as it is configured; and where
//!   nobody can say whether it was processed, the refresh token is *in doubt*, and is left alone as
//!   [`LostReply`] says. Requests are sent during the pause, and those that are rejected
//!   return at once, with the server's answer and the last failure. The first rejection after it
//!   starts anew. There is no pause where nobody was asked: after a first look into the store that
//!   failed, at the limit of reissues, or without a runtime. An address that is not cured (P2) has
//!   a pause of its own, 1 s at first and doubled each time up to five minutes: its rejections return
//!   at once, and when the pause is over one reissue is tried for it. Neither counts for another
//!   address, nor when the token has lived out its stated lifetime.
//! - **P6 Only two things end a session,** apart from you: the issuer refuses the refresh token, or
//!   the classifier reads an answer to the current token as final ([`Verdict::EndSession`]). Even
//!   then the store is read again first, and newer tokens in it are adopted instead. Network
//!   errors, 5xx, 429, timeouts and lost answers end nothing, nor does a store that cannot be read.
//!   If the issuer refuses while the access token is still good (the refresh was ahead of expiry),
//!   that token goes on being used; the issuer is not asked again, and the session ends when the
//!   token is rejected or expires.
//! - **P7 The end is told once,** through [`Session::subscribe`], and remembered: later requests go
//!   out without a token and cause no call to the issuer. A [`logout`](Session::logout) is the last word:
//!   after it the session is logged out, also where an end came before. A new login makes everything
//!   new, pauses and limits included.
//! - **P8 Users are kept apart.** A login, a logout and an end are borders: no request is sent
//!   again across one, and no tokens fetched on one side are saved or used on the other. That holds
//!   for a request that went out without a token as well. One that still waits to be sent fails
//!   when somebody else logs in, and goes out without a token after a logout.
//! - **P9 Everything is bounded,** and each bound has an outcome with a name: one replay per
//!   request; 5 reissues in 30 s ([`reissue_limit`](SessionBuilder::reissue_limit)), where neither
//!   adoptions count nor a reissue that replaces a token which has lived out a stated lifetime of a
//!   second or more; no more than half of these for addresses that are not cured (P2), and 64 addresses
//!   remembered for ten minutes, beyond which all share one pause; 2^20 waiting requests; 64 KiB kept of a request's body
//!   ([`replay_limit`](TokenRefreshLayer::replay_limit)), and 64 MiB of those of one layer together
//!   ([`total_replay_limit`](TokenRefreshLayer::total_replay_limit)); 64 KiB and 1 s for reading a response
//!   ([`response_limit`](TokenRefreshLayer::response_limit)).
//! - **P10 Nothing of yours is lost.** A rejection that is not made good comes back whole. A body
//!   is sent again whole or not at all. What cannot be sent again still has the token refreshed,
//!   for the next request. Only when the second send itself fails do you get that error instead of
//!   the rejection.
//! - **P11 The token goes to the named origins only.** Scheme, host and port are compared for every
//!   request that passes the layer; what stands below it may carry the token on (see
//!   [below](#where-it-stands-in-a-stack)). Upper and lower case and a dot at the end make no difference; a
//!   URI with userinfo never matches. A URI without a host goes where the inner service is bound,
//!   and counts as the first named origin, unless its path begins with `//` or `/\`, which some take
//!   for a host. A `Host` header has to name the very origin that the URI leads to: a front end may
//!   go by the header. In doubt the request goes out without the token. Plain `http` is for loopback (`localhost`,
//!   `127.0.0.0/8`, `::1`) unless you say [otherwise](Origin::allow_plain_http).
//! - **P12 Secrets stay secret.** No token, nor a part of one, is in what this crate prints:
//!   `Debug`, errors, traces, panics. Header values with a token are marked as sensitive.
//! - **P13 Saved before used.** New tokens are in the store before anybody who waits gets them. If
//!   saving fails they are used from memory, saving goes on in the background, and
//!   [`SessionStatus::LoggedIn`] says so.
//! - **P14 Nothing is held while waiting:** no lock, no permit of the services below, no
//!   connection. A rejection is read to its end before its request waits.
//! - **P15 The reissue is not intercepted.** It never waits for itself and never carries the access
//!   token, even if the reissuer was given a client with the layer around it, or calls through one
//!   in its own task. (What it spawns in other tasks is taken for a request like any other, and
//!   waits.)
//!
//! # What the answers mean
//!
//! Where there is an answer of the server, you get it, as it is. A [`RefreshError`] is found
//!
//! | where | when |
//! |---|---|
//! | in the response: `response.extensions().get::<RefreshError>()` | the server rejected the request, and it was not made good |
//! | in the error of the service: `error.downcast_ref::<RefreshError>()` | nothing was sent: there is no token and one is [required](TokenRefreshLayer::require_token), or the wait for it came to nothing |
//! | as the error of [`Session`]'s methods | see there |
//!
//! Any other error of the service comes from the inner service. A response that the classifier does
//! not take for a rejection has no [`RefreshError`], whatever its status.
//!
//! | question | what it tells | what helps |
//! |---|---|---|
//! | [`is_session_ended`](RefreshError::is_session_ended) | the login is over, or there is none; [`end_reason`](RefreshError::end_reason) says how it ended | a login |
//! | [`is_transient`](RefreshError::is_transient) | there was no new token this time; [`is_outcome_unknown`](RefreshError::is_outcome_unknown), [`is_same_token`](RefreshError::is_same_token), [`is_store`](RefreshError::is_store), [`is_wait_timeout`](RefreshError::is_wait_timeout), [`is_waiter_limit`](RefreshError::is_waiter_limit) and [`is_reissue_limit`](RefreshError::is_reissue_limit) tell more; so does [`is_too_fresh`](RefreshError::is_too_fresh): the server may not know the new token yet | another try, later |
//! | [`is_not_replayed`](RefreshError::is_not_replayed) | the request was not sent again, or was and was rejected again; the message says why | another try, if doing it twice does no harm |
//! | [`is_not_cured`](RefreshError::is_not_cured) | a new token does not help at this address, which pauses (P5) | what the server's answer says |
//! | [`is_misconfigured`](RefreshError::is_misconfigured) | the issuer does not take the request, there is no refresh token, or no runtime | another configuration |
//! | [`is_refused`](RefreshError::is_refused) | the issuer refused the refresh token; if the session has not ended, the access token is still in use | a login, soon |
//! | [`is_not_saved`](RefreshError::is_not_saved) | [`Session::login`] or [`adopt`](Session::adopt) is done, but not saved yet | nothing need be done |
//!
//! # Where it stands in a stack
//!
//! - A `Timeout` above the layer spans both sends and the wait between them. One below limits each
//!   send by itself.
//! - `Buffer` and `ConcurrencyLimit` work on either side. Below, a request that waits holds no
//!   place in them, and asks for one again when it is sent again. Above, a place in the limit is
//!   held all the while.
//! - `FollowRedirect` and `Retry` go above: each hop is judged by its own origin (P11), and a
//!   [`ReplayBody`] cannot be cloned.
//!   With `FollowRedirect` below, the token goes where that takes it: tower-http's takes `Authorization`
//!   off at the first hop to another origin, and leaves any [other header](SessionBuilder::header) on.
//! - What rewrites addresses below the layer decides who sees the token.
//! - What sets the `Authorization` header goes nowhere in the same stack.
//!
//! The inner service must be `Clone`: the clone sends the request again. [Where in the
//! stack](guide::where_in_the_stack) has it layer by layer.
//!
//! # Watching it
//!
//! - Each attempt has a [`tracing`] span `token_refresh` with the fields `attempt`, `cause`,
//!   `outcome`, `waiters` and `elapsed_ms`. The cause is a reissue, the first look into the store,
//!   or the last one before the end.
//! - [`Session::stats`] counts reissues, replays, failures by kind, and who waits now.
//! - [`Session::subscribe`] follows the [`SessionStatus`]. It is a watch: a subscriber sees the
//!   newest status, and may miss an end that a login follows at once.
//!
//! # Cancel safety
//!
//! Every future of this crate may be dropped at any time. A refresh that it has started goes on
//! (P3). [`Session::login`], [`Session::logout`] and [`Session::adopt`] count from their first poll,
//! and their writing to the store goes on in a task of its own.
//!
//! # Runtimes
//!
//! Building a [`Session`] or a layer needs no runtime and spawns nothing. Refreshes, and the first
//! look into the store, run as tasks on tokio: on the runtime of the request that starts them, or
//! on the one given to [`SessionBuilder::runtime`]. The latter is for programs that shut runtimes
//! down, or that poll requests outside of tokio, which is fine: a wait has a timer of its own where
//! tokio has none. (That timer is a thread, which starts with the first refresh of the program. A
//! runtime that was built without timers is noticed by a panic that is caught: its message is
//! printed, and it needs `panic = "unwind"`. Enable timers.)
//!
//! # Features
//!
//! None is on by default. `file` brings a store in a file, `FileStore`, which several processes may share; `postgres` and `redis` bring
//! `PostgresStore` and `RedisStore`, for many machines. `hyper` tells by the errors of hyper,
//! hyper-util and reqwest whether the issuer can have seen a reissue, and is wanted with any of these
//! clients: see [`JsonReissue`](JsonReissue#when-there-is-no-answer). `test-util` is for tests: it brings
//! the module `test_util`, with the suites that a [`TokenStore`] or a [`SharedTokenStore`] of your own
//! should pass, and an issuer to try your client against.
//!
//! # Limits
//!
//! - A [`TokenStore`] is for one process: with it, two that share a login can present one refresh
//!   token at the same time. A [`SharedTokenStore`] is for several. Where it has no lock that dies
//!   with its holder, a process that is stopped for longer than its claim and the quarantine together,
//!   right before it sends or before it has stored the answer, can still lead to that; and so can a
//!   failover of a database that loses what was stored, if nobody is left who remembers it.
//! - A gRPC call that fails with `UNAUTHENTICATED` is made good where its status is in the head, or in
//!   trailers that are there with the head and without a message before them. The layer does not wait
//!   for trailers: those that come later are passed on, and the next request refreshes first. The
//!   trailers that gRPC-Web puts into the body are not read.
//! - A rejection inside a successful answer is sent again only if the request is marked
//!   [`ReplaySafe`], as the server may have processed it. A 401, or any other error that the
//!   classifier reads as a rejection, is taken to say that it has not, and so is the status of a
//!   gRPC call that failed without a message.
//! - The layer puts no limit on the time that the inner service takes: use a `Timeout`.
//! - Wiping covers the buffers of this crate. Copies that the HTTP client makes while it sends,
//!   what was left where you built a token, and memory that was swapped out are beyond it. What a
//!   reissuer or a store of your own says in its errors is passed on as their source.
//! - No client can exclude that the issuer's answer is lost on its way ([`LostReply`]). An issuer
//!   that takes each refresh token once, and has no grace window, will refuse it when it is
//!   presented again, and the session ends. A process that is killed between the answer and the
//!   save has lost its tokens likewise; only a shared store knows of the doubt when it is started
//!   again.

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
mod grpc;
#[cfg(any(doc, doctest))]
pub mod guide;
mod json;
mod layer;
mod options;
mod origin;
mod recover;
mod reissue;
mod replay;
mod say;
mod seeded;
mod service;
mod session;
mod store;
#[cfg(feature = "test-util")]
pub mod test_util;
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
pub use coordinator::LostReply;
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
pub use reissue::ClientCredentials;
pub use reissue::CookieReissue;
pub use reissue::DpopRequest;
pub use reissue::ErrorAnswer;
pub use reissue::JsonReissue;
pub use reissue::RefreshGrant;
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
#[cfg(feature = "file")]
pub use store::FileStore;
pub use store::MemoryStore;
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
pub use store::Record;
#[cfg(feature = "redis")]
pub use store::RedisStore;
pub use store::SharedTokenStore;
pub use store::StoreLock;
pub use store::Swap;
pub use store::TokenStore;
pub use token::AccessToken;
pub use token::InDoubt;
pub use token::InvalidToken;
pub use token::RefreshToken;
pub use token::TokenSet;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
