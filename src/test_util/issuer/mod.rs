//! An issuer and an API in memory that behave badly on purpose.

mod book;
mod counts;
mod reply;
mod wire;

pub use counts::IssuerCounts;
pub use reply::Gate;
pub use reply::Reply;

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::Request;
use http::Response;
use http::header;
use http::request::Parts;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::Full;
use tower_service::Service;

use self::book::Book;
use self::book::Issued;
use self::book::Judged;
use self::book::Kind;
use self::counts::Counter;
use self::reply::Act;
use self::wire::Answer;
use self::wire::Credentials;
use self::wire::Denial;
use self::wire::Presented;
use self::wire::Style;
use crate::error::BoxError;
use crate::token::TokenSet;

type Answering = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

/// An issuer, and an API that takes its tokens, in memory. It does to your client what real ones do on bad
/// days, when the test says so, and counts what the client does.
///
/// It is a tower service for requests with any body, and stands where your HTTP client stands: under the
/// layer as it is, and as its [`client`](Self::client) in a reissuer. Clones are the same issuer.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, StatusCode};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_token_refresh::{
///     BoxError, JsonReissue, Session, TokenRefreshLayer,
///     test_util::{Gate, ScriptedIssuer},
/// };
///
/// # async fn example() -> Result<(), BoxError> {
/// // #[tokio::test]
/// // async fn a_hundred_requests_cost_one_reissue() -> Result<(), BoxError> {
/// let issuer = ScriptedIssuer::new();
/// let reissue = JsonReissue::post("https://issuer.test/reissue/json", issuer.client())
///     .refused("refused");
/// let session = Session::builder(reissue).build()?;
/// session.login(issuer.login("user-7")).await?;
/// let client = ServiceBuilder::new()
///     .layer(TokenRefreshLayer::new("https://api.test", session)?)
///     .service(issuer.clone());
///
/// // The API rejects all of them before it answers any.
/// issuer.expire_access_tokens();
/// let gate = Gate::new();
/// issuer.hold_api(&gate);
/// let mut requests = tokio::task::JoinSet::new();
/// for n in 0..100 {
///     let request = Request::get(format!("https://api.test/items/{n}"));
///     requests.spawn(client.clone().oneshot(request.body(Full::<Bytes>::default())?));
/// }
/// issuer.until(|counts| counts.rejected == 100).await;
/// gate.open();
///
/// for response in requests.join_all().await {
///     assert_eq!(response?.status(), StatusCode::OK);
/// }
/// let counts = issuer.counts();
/// assert_eq!((counts.reissues, counts.rejected, counts.accepted), (1, 100, 100));
/// # Ok(())
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> { example().await }
/// ```
///
/// # What it speaks
///
/// The path of a request decides, not its host.
///
/// | request | for | refresh token | new tokens | a refusal |
/// |---|---|---|---|---|
/// | `POST /reissue/json` | [`JsonReissue`](crate::JsonReissue) | `Authorization: Bearer`, or the member `refreshToken` | `accessToken`, `refreshToken`, `expiresIn` | 401, `{"code":"refused"}` |
/// | `POST /reissue/cookie` | [`CookieReissue`](crate::CookieReissue) | the cookie `refreshToken` | `accessToken`, `expiresIn`, and a cookie | 401, `{"code":"refused"}` |
/// | `POST /oauth/token` | [`RefreshGrant`](crate::RefreshGrant), [`ClientCredentials`](crate::ClientCredentials) | a form (RFC 6749) | as section 5.1 | 400, `invalid_grant` |
/// | any other | the API | | | |
///
/// The API answers a request that has a live access token as `Authorization: Bearer` with 200, the
/// request's own body, and the user's name in `x-user` (if it can stand in a header). Any other gets a 401 with a challenge (RFC 6750)
/// and a code: `{"code":"expired"}` for a token that was live once, or issued dead, `{"code":"unknown"}`
/// for one that this issuer never issued, and `{"code":"missing"}`. The token is judged when the request
/// arrives.
///
/// # How it treats tokens
///
/// The tokens that stem from one login are a *family*. A reissue uses its refresh token up and brings a
/// new one. One that comes again is a *reuse*, which ends the family: its refresh tokens are refused, its
/// access tokens rejected. Access tokens live until they [expire](Self::expire_access_tokens), also
/// when they have been replaced. No two issuers of one process issue the same token.
///
/// # Over sockets
///
/// It can be served by hyper: `TowerToHyperService::new(issuer.clone())` of hyper-util, in the feature
/// `service`. An answer that is lost is then a connection that closes.
#[derive(Clone)]
pub struct ScriptedIssuer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    counter: Counter,
}

#[derive(Default)]
struct State {
    book: Book,
    script: VecDeque<Reply>,
    api_gate: Option<Gate>,
    client: Option<Credentials>,
}

impl ScriptedIssuer {
    /// An issuer that has issued nothing yet. Its access tokens have no lifetime, there is no grace
    /// window, and refresh tokens are replaced at each use.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a `Default` would say nothing")]
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
        }
    }

    /// Gives access tokens that are issued from now on a lifetime, which answers tell and the API keeps
    /// to, by tokio's clock.
    #[must_use]
    pub fn lifetime(self, lifetime: Duration) -> Self {
        self.state().book.policy.lifetime = Some(lifetime);
        self
    }

    /// Gives the issuer a grace window: for so long after its use, a refresh token that is presented again
    /// gets the same tokens again, unless the new refresh token has been used.
    #[must_use]
    pub fn grace(self, window: Duration) -> Self {
        self.state().book.policy.grace = window;
        self
    }

    /// Keeps refresh tokens: a reissue brings an access token only, and there are no reuses.
    #[must_use]
    pub fn without_rotation(self) -> Self {
        self.state().book.policy.keeps_refresh_tokens = true;
        self
    }

    /// Takes OAuth requests of this client only, authenticated by Basic or in the body; any other gets a
    /// 401 with `invalid_client`. Without it every client is taken.
    #[must_use]
    pub fn oauth_client(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.state().client = Some((id.into(), secret.into()));
        self
    }

    /// Logs this user in: tokens that are good, of a new family. Other logins of the same user stay.
    #[must_use]
    pub fn login(&self, user: &str) -> TokenSet {
        let issued = self.state().book.login(user);
        self.shared.counter.count(|counts| counts.logins += 1);
        token_set(issued)
    }

    /// From now on no access token issued so far is live.
    pub fn expire_access_tokens(&self) {
        self.state().book.expire_access_tokens();
    }

    /// What happens to the reissues to come, in the order in which they are received. Adds to what is
    /// scripted already; a reissue without a script gets [`Reply::tokens`].
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        // The iterator is foreign code, and may ask this issuer for something.
        let replies: Vec<_> = replies.into_iter().collect();
        self.state().script.extend(replies);
    }

    /// From now on answers of the API wait at this gate. Their tokens are judged, and the requests
    /// counted, before that.
    pub fn hold_api(&self, gate: &Gate) {
        self.state().api_gate = Some(gate.clone());
    }

    /// This issuer as the client of a ready-made reissuer, which has to know of what type its requests'
    /// bodies are. Here it is `Full<Bytes>`.
    #[must_use]
    pub fn client(&self) -> IssuerClient {
        IssuerClient {
            issuer: self.clone(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> IssuerCounts {
        self.shared.counter.counts()
    }

    /// Waits until the counts are as the test wants them, and returns them. The condition is asked at
    /// once, and again after each change; of several changes at a time it may see the last one only.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing: counts are kept, not handed out.
    pub async fn until(&self, condition: impl FnMut(&IssuerCounts) -> bool) -> IssuerCounts {
        self.shared.counter.until(condition).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Answer, BoxError>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        match Style::of(&head) {
            Some(style) => self.answer_reissue(style, &head, body).await,
            None => self.answer_of_api(&head, body).await,
        }
    }

    async fn answer_reissue<B>(
        &self,
        style: Style,
        head: &Parts,
        body: B,
    ) -> Result<Answer, BoxError>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let reply = self.state().script.pop_front();
        let reply = reply.unwrap_or_else(Reply::tokens);
        let _in_flight = self.counter.reissue();
        let body = body.collect().await.map_err(Into::into)?.to_bytes();
        if let Some(gate) = &reply.gate {
            gate.pass().await;
        }
        let mut answer = match reply.act {
            Act::Refuse => style.deny(Denial::Refused),
            Act::Status(status) => {
                let mut answer = Answer::default();
                *answer.status_mut() = status;
                answer
            }
            act => self.process(style, head, &body, act),
        };
        if let Some(delay) = reply.retry_after {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            wire::insert(&mut answer, header::RETRY_AFTER, &seconds.to_string());
        }
        if let Some(json) = reply.json {
            wire::replace(&mut answer, json);
        }
        match reply.act {
            Act::Lose => Err("the scripted issuer's answer is lost".into()),
            Act::Hang => pending().await,
            _ => Ok(answer),
        }
    }

    fn process(&self, style: Style, head: &Parts, body: &Bytes, act: Act) -> Answer {
        let kind = match act {
            Act::SameAccessToken => Kind::Same,
            Act::DeadAccessToken => Kind::Dead,
            _ => Kind::Live,
        };
        let mut state = self.state();
        let exchanged = match style.read(head, body, state.client.as_ref()) {
            Err(denial) => return style.deny(denial),
            Ok(Presented::Client(id)) => Ok(state.book.client_token(&id, kind)),
            Ok(Presented::RefreshToken(token)) => state.book.exchange(&token, kind),
        };
        drop(state);
        match exchanged {
            Ok(issued) if act == Act::Malformed => style.answer_cut_off(&issued),
            Ok(issued) => style.answer(&issued),
            Err(refusal) => {
                self.counter.count(|counts| {
                    counts.reuses += usize::from(refusal.is_reuse);
                    counts.families_ended += usize::from(refusal.ends_family);
                });
                style.deny(Denial::Refused)
            }
        }
    }

    async fn answer_of_api<B>(&self, head: &Parts, body: B) -> Result<Answer, BoxError>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let token = wire::bearer(head);
        let (judged, gate) = {
            let state = self.state();
            let judged = token.map(|token| state.book.judge(&token));
            (judged, state.api_gate.clone())
        };
        self.counter.count(|counts| match &judged {
            Some(Judged::Live { .. }) => counts.accepted += 1,
            _ => counts.rejected += 1,
        });
        let body = body.collect().await.map_err(Into::into)?.to_bytes();
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let invalid = r#"Bearer error="invalid_token""#;
        Ok(match judged {
            Some(Judged::Live { user }) => {
                let mut answer = Response::new(Full::new(body));
                wire::insert(&mut answer, HeaderName::from_static("x-user"), &user);
                answer
            }
            Some(Judged::Expired) => wire::rejection("expired", invalid),
            Some(Judged::Unknown) => wire::rejection("unknown", invalid),
            None => wire::rejection("missing", "Bearer"),
        })
    }
}

impl<B> Service<Request<B>> for ScriptedIssuer
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let shared = self.shared.clone();
        Box::pin(async move { shared.answer(request).await })
    }
}

impl fmt::Debug for ScriptedIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedIssuer")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// A [`ScriptedIssuer`] as the client of a ready-made reissuer.
#[derive(Clone)]
pub struct IssuerClient {
    issuer: ScriptedIssuer,
}

impl Service<Request<Full<Bytes>>> for IssuerClient {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Answering {
        self.issuer.call(request)
    }
}

impl fmt::Debug for IssuerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerClient")
            .field("issuer", &self.issuer)
            .finish()
    }
}

#[allow(clippy::expect_used, reason = "the text is ours, and is a token")]
fn token_set(issued: Issued) -> TokenSet {
    let mut tokens = TokenSet::new(issued.access).expect("a token");
    if let Some(lifetime) = issued.lifetime {
        tokens = tokens.with_expires_in(lifetime);
    }
    match issued.refresh {
        Some(refresh) => tokens.with_refresh_token(refresh).expect("a token"),
        None => tokens,
    }
}
