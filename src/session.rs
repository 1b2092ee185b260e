//! [`Session`]: the handle on one login, and what puts a request with its session.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::request::Parts;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::attach::Attach;
use crate::coordinator::Address;
use crate::coordinator::Admitted;
use crate::coordinator::Coordinator;
use crate::coordinator::LostReply;
use crate::coordinator::Next;
use crate::coordinator::Rules;
use crate::coordinator::SessionStatus;
use crate::coordinator::Settings;
use crate::coordinator::Stats;
use crate::coordinator::Storage;
use crate::coordinator::Ticket;
use crate::coordinator::count;
use crate::error::ConfigError;
use crate::error::Kind;
use crate::error::RefreshError;
use crate::origin::Origin;
use crate::reissue::DynReissue;
use crate::reissue::Reissue;
use crate::store::OwnMemory;
use crate::store::SharedTokenStore;
use crate::store::TokenStore;
use crate::token::AccessToken;
use crate::token::Stamp;
use crate::token::TokenSet;

/// Longer than this is taken for a slip of the pen.
const MOST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const MOST_AHEAD: Duration = Duration::from_secs(365 * 24 * 3600);

/// One login: the tokens of one user or client, from login to its end.
///
/// Cloning is cheap, and all clones are the same session. Hand one to a
/// [`TokenRefreshLayer`](crate::TokenRefreshLayer) and keep one to log in and out with. Building it
/// spawns nothing and needs no runtime.
///
/// ```
/// use tower_token_refresh::{ReissueError, Session, TokenSet, reissue_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let session = Session::builder(reissue_fn(|request| async move {
///     // … ask the issuer …
/// #   let _ = request;
///     Ok(TokenSet::new("second").map_err(ReissueError::unknown)?)
/// }))
/// .build()?;
///
/// session.login(TokenSet::new("first")?.with_refresh_token("refresh")?).await?;
/// assert_eq!(session.token().await?.expose(), "first");
/// session.refresh().await?;
/// assert_eq!(session.token().await?.expose(), "second");
/// session.logout().await?;
/// assert!(session.token().await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    coordinator: Arc<Coordinator>,
}

impl Session {
    /// Starts to build a session whose tokens come from this issuer.
    pub fn builder(reissue: impl Reissue) -> SessionBuilder {
        SessionBuilder {
            check: reissue.check(),
            self_sufficient: !reissue.needs_refresh_token(),
            reissue: Box::new(reissue),
            store: Storage::Own(Box::new(OwnMemory::default())),
            header: None,
            refresh_ahead: None,
            reissue_timeout: Duration::from_secs(10),
            store_timeout: Duration::from_secs(3),
            wait_timeout: Duration::from_secs(30),
            waiter_limit: 1 << 20,
            reissue_limit: (5, Duration::from_secs(30)),
            cool_down: (Duration::from_secs(1), Duration::from_secs(60)),
            lost_reply: LostReply::strict(),
            runtime: None,
        }
    }

    /// Starts a new login with these tokens, in place of whatever there was.
    ///
    /// Requests of the login before are not sent again with the new tokens (P8): those that wait
    /// for its refresh are settled at once. Requests made from now on wait for the save and then
    /// carry the new token (P13). All limits and cool-downs start anew.
    ///
    /// # Errors
    ///
    /// [`is_not_saved`](RefreshError::is_not_saved) when the store failed: the login is done all
    /// the same, from memory, and saving goes on in the background.
    /// [`is_session_ended`](RefreshError::is_session_ended) when another login or a logout came
    /// before this one was saved.
    ///
    /// # Cancel safety
    ///
    /// The login counts from the first poll, and the save goes on when this is dropped.
    pub async fn login(&self, tokens: TokenSet) -> Result<(), RefreshError> {
        self.coordinator.login(tokens).await.map_err(not_saved)
    }

    /// Forgets the tokens, here and in the store. Requests go out without a token from now on, and the
    /// status is [`LoggedOut`](SessionStatus::LoggedOut), also where the login had ended before. (What a shared
    /// store says of that end stays there.)
    ///
    /// It does not talk to the issuer: revoke the tokens there first, if it has a way to.
    /// Logging out twice does no harm.
    ///
    /// # Errors
    ///
    /// [`is_store`](RefreshError::is_store) when the store could not be cleared: that goes on in
    /// the background.
    ///
    /// # Cancel safety
    ///
    /// The logout counts from the first poll. Dropped before the store is cleared, that goes on in
    /// the background.
    pub async fn logout(&self) -> Result<(), RefreshError> {
        self.coordinator.logout().await
    }

    /// Takes over tokens that somebody else, another process say, has fetched *for the same login*.
    /// For tokens of a new login use [`login`](Self::login).
    ///
    /// Requests whose rejection is being recovered are sent again with them. Where a refresh that
    /// was under way has brought tokens of its own by then, those are kept instead; and tokens that
    /// this session has replaced itself are not taken back. Where nobody has logged in yet, this is
    /// the login, and a request that is under way without a token is sent again with it.
    ///
    /// # Errors
    ///
    /// [`is_session_ended`](RefreshError::is_session_ended) when this login is over, and
    /// [`is_not_saved`](RefreshError::is_not_saved) when the tokens are in use but not saved: that goes on in
    /// the background. Any other error says that they are not in use, as the store could not be read for the
    /// first time: they are kept in memory, and used by the next refresh after it was read.
    ///
    /// # Cancel safety
    ///
    /// The tokens are kept from the first poll on, also when this is dropped. They are adopted in a task of its
    /// own; where there is no runtime for it, by the next refresh.
    pub async fn adopt(&self, tokens: TokenSet) -> Result<(), RefreshError> {
        self.coordinator.adopt(tokens).await
    }

    /// Where the session stands now.
    #[must_use]
    pub fn status(&self) -> SessionStatus {
        *self.coordinator.status().borrow()
    }

    /// Follows where the session stands. The end of a login is told exactly once (P7).
    ///
    /// To follow is not to use: until the first request, [`token`](Self::token) or login, the store is
    /// not read, and what other processes do to a shared login is not heard of.
    ///
    /// ```
    /// # use tower_token_refresh::{ReissueError, Session, reissue_fn};
    /// # async fn show_the_login_page() {}
    /// # async fn watch(session: Session) {
    /// let mut status = session.subscribe();
    /// while status.changed().await.is_ok() {
    ///     let now = *status.borrow_and_update();
    ///     if now.end_reason().is_some() {
    ///         show_the_login_page().await;
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<SessionStatus> {
        self.coordinator.status().subscribe()
    }

    /// Refreshes the token now, or joins the refresh that is under way. Requests are sent with the
    /// old token meanwhile.
    ///
    /// # Errors
    ///
    /// Why there is no new token; the old one may still be good.
    ///
    /// # Cancel safety
    ///
    /// Dropping it does not stop the refresh (P3).
    pub async fn refresh(&self) -> Result<(), RefreshError> {
        self.load().await?;
        match self.coordinator.refresh() {
            Next::Go => Ok(()),
            Next::Wait(ticket) => ticket.wait().await,
            Next::Fail(error) => Err(error),
        }
    }

    /// The access token, for what is not sent through the layer (a WebSocket handshake, say). It
    /// waits for a refresh under way and refreshes an expired token first, as a request would; and
    /// as for a request, the token may be an old one where that has failed.
    ///
    /// # Errors
    ///
    /// When there is none: nobody is logged in, or the store or the issuer failed; and when the
    /// login changed meanwhile (P8).
    ///
    /// # Cancel safety
    ///
    /// Dropping it does not stop a refresh (P3).
    pub async fn token(&self) -> Result<AccessToken, RefreshError> {
        let (stamp, _) = self.current();
        self.admitted().await?;
        self.coordinator.access_token(stamp.epoch)
    }

    /// What the session has done since it was built.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.coordinator.counters.read()
    }

    pub(crate) fn admit(&self) -> Admitted {
        self.coordinator.admit()
    }

    /// Waits as [`Admitted::Hold`] says. What was loaded from the store is judged once more: it may
    /// have expired since it was stored.
    pub(crate) async fn hold(&self, ticket: Ticket) -> Result<(), RefreshError> {
        let (is_load, epoch, deadline) = (ticket.is_load(), ticket.epoch(), ticket.deadline());
        self.wait(ticket).await?;
        if !is_load {
            return Ok(());
        }
        match self.admit() {
            Admitted::Hold(next) if next.epoch() == epoch => {
                self.wait(next.no_later_than(deadline)).await
            }
            Admitted::Refuse(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// An attempt that failed is no reason not to send: there may be a token, and the server
    /// decides. But "cannot say" is never taken for "no token".
    async fn wait(&self, ticket: Ticket) -> Result<(), RefreshError> {
        let Err(error) = ticket.wait().await else {
            return Ok(());
        };
        let unknown = self
            .absence()
            .is_some_and(|absence| absence.kind() == Kind::NotLoggedIn);
        if unknown || matches!(error.kind(), Kind::WaitTimeout | Kind::WaiterLimit) {
            return Err(error);
        }
        Ok(())
    }

    pub(crate) fn current(&self) -> (Stamp, Option<HeaderValue>) {
        self.coordinator.current()
    }

    pub(crate) fn address(&self, origin: &Origin, path: &str) -> Address {
        self.coordinator.address(origin, path)
    }

    pub(crate) fn reject(&self, stamp: Stamp, is_final: bool, address: Address) -> Next {
        self.coordinator.reject(stamp, is_final, address)
    }

    /// For the next request's benefit.
    pub(crate) fn reject_later(&self, stamp: Stamp, is_final: bool, address: Address) {
        self.coordinator.reject_later(stamp, is_final, address);
    }

    pub(crate) fn reject_replay(&self, stamp: Stamp, address: Address) {
        self.coordinator.reject_replay(stamp, address);
    }

    #[inline]
    pub(crate) fn may_be_news(&self, stamp: Stamp) -> bool {
        self.coordinator.may_be_news(stamp)
    }

    pub(crate) fn accept(&self, stamp: Stamp, address: Address) {
        self.coordinator.accept(stamp, address);
    }

    pub(crate) fn absence(&self) -> Option<RefreshError> {
        self.coordinator.absence()
    }

    /// Why there was no token a moment ago.
    pub(crate) fn absence_or_default(&self) -> RefreshError {
        self.absence()
            .unwrap_or_else(|| RefreshError::new(Kind::NotLoggedIn))
    }

    /// The caller has put a token of its own on the request, and it wins.
    pub(crate) fn is_attached(&self, headers: &HeaderMap) -> bool {
        self.coordinator.settings().attach.is_present(headers)
    }

    pub(crate) fn attach(&self, headers: &mut HeaderMap, value: Option<HeaderValue>) {
        if let Some(value) = value {
            self.coordinator.settings().attach.put(headers, value);
        }
    }

    pub(crate) fn count_replay(&self, late: bool) {
        count(&self.coordinator.counters.replays);
        if late {
            count(&self.coordinator.counters.late_rejections);
        }
    }

    /// Reads the store, if that was not done yet.
    async fn load(&self) -> Result<(), RefreshError> {
        match self.status() {
            SessionStatus::Unloaded => self.admitted().await,
            _ => Ok(()),
        }
    }

    /// Waits for whatever a request would wait for.
    async fn admitted(&self) -> Result<(), RefreshError> {
        match self.admit() {
            Admitted::Go(..) => Ok(()),
            Admitted::Hold(ticket) => self.hold(ticket).await,
            Admitted::Pass => Err(RefreshError::new(Kind::WithinReissue)),
            Admitted::Refuse(error) => Err(error),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// Builds a [`Session`]. See [`Session::builder`].
#[must_use]
pub struct SessionBuilder {
    check: Result<(), ConfigError>,
    self_sufficient: bool,
    reissue: Box<dyn DynReissue>,
    store: Storage,
    header: Option<(String, String)>,
    refresh_ahead: Option<Duration>,
    reissue_timeout: Duration,
    store_timeout: Duration,
    wait_timeout: Duration,
    waiter_limit: usize,
    reissue_limit: (u32, Duration),
    cool_down: (Duration, Duration),
    lost_reply: LostReply,
    runtime: Option<Handle>,
}

impl SessionBuilder {
    /// Where the tokens are kept, for this session alone; in memory unless set.
    ///
    /// For a login that several processes share, or several sessions of one, it takes a
    /// [`shared_store`](Self::shared_store), and each of the stores that this crate brings is one.
    pub fn store(mut self, store: impl TokenStore) -> Self {
        self.store = Storage::Own(Box::new(store));
        self
    }

    /// Where the tokens are kept that this process shares with others: there is one reissue for all of
    /// them, and what one of them fetches, the others adopt. A login, logout or end counts for all.
    ///
    /// Once the session is in use, it follows the store in the background, on the runtime of whoever
    /// uses it first.
    pub fn shared_store(mut self, store: impl SharedTokenStore) -> Self {
        self.store = Storage::Shared(Arc::new(store));
        self
    }

    /// The header that carries the token, and the scheme before it; `Authorization` and `Bearer`
    /// unless set. An empty scheme leaves the token alone in the header.
    ///
    /// The same care is taken of any header (P11, P12). But what stands outside of this crate may know
    /// `Authorization` only: whatever follows redirects *below* the layer, tower-http's
    /// `FollowRedirect` for one, carries a header of another name to whichever server it is sent to.
    /// [Above the layer](crate#where-it-stands-in-a-stack) it has no token to carry.
    pub fn header(mut self, name: impl Into<String>, scheme: impl Into<String>) -> Self {
        self.header = Some((name.into(), scheme.into()));
        self
    }

    /// Refreshes this long before a known expiry, in the background, while requests go on with the
    /// old token; requests that find it expired wait. Never more than half the lifetime.
    ///
    /// Unless set, the server decides: a token is used until it is rejected.
    pub fn refresh_ahead(mut self, window: Duration) -> Self {
        self.refresh_ahead = Some(window);
        self
    }

    /// The longest a reissue may take; 10 s unless set, and as long once more where the process or the
    /// machine stood still meanwhile. Past it the outcome is unknown: see
    /// [`lost_reply`](Self::lost_reply), also for when there is more than one try.
    pub fn reissue_timeout(mut self, limit: Duration) -> Self {
        self.reissue_timeout = limit;
        self
    }

    /// The longest one call of the store may take; 3 s unless set. In a shared store without a lock, a
    /// claim on the refresh token that is not renewed runs out after four times as long.
    pub fn store_timeout(mut self, limit: Duration) -> Self {
        self.store_timeout = limit;
        self
    }

    /// The longest one request waits for a refresh; 30 s unless set.
    pub fn wait_timeout(mut self, limit: Duration) -> Self {
        self.wait_timeout = limit;
        self
    }

    /// How many requests may wait at once; 2^20 unless set. Those above it get an error at once.
    pub fn waiter_limit(mut self, limit: usize) -> Self {
        self.waiter_limit = limit;
        self
    }

    /// At most so many reissues in so long a time; 5 in 30 s unless set. A reissue that replaces a
    /// token which has lived out a stated lifetime of a second or more is not counted, nor are
    /// tokens that were adopted. With 0, no token is ever reissued before its stated lifetime is
    /// over.
    pub fn reissue_limit(mut self, most: u32, window: Duration) -> Self {
        self.reissue_limit = (most, window);
        self
    }

    /// The pause after a reissue that failed for the time being: the first, and the longest; 1 s and
    /// 60 s unless set. It doubles with each failure. Each is shortened at random, to no less than half
    /// of it, so that many sessions do not come back together: the first takes 0.5 to 1 s. Rejections in
    /// it get the server's answer with the last failure, at once.
    pub fn cool_down(mut self, first: Duration, longest: Duration) -> Self {
        self.cool_down = (first, longest);
        self
    }

    /// What to do when the refresh token was sent and no answer came that could be used;
    /// [`LostReply::strict`] unless set.
    pub fn lost_reply(mut self, policy: LostReply) -> Self {
        self.lost_reply = policy;
        self
    }

    /// The runtime that refreshes run on; the one of whoever starts it unless set.
    ///
    /// For programs that shut down runtimes which have used the session, or that poll requests
    /// outside of any.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Builds the session. Nothing is read, sent or spawned yet.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in the configuration, the reissuer's included.
    pub fn build(self) -> Result<Session, ConfigError> {
        self.check.clone()?;
        self.check_durations()?;
        let attach = match &self.header {
            Some((name, scheme)) => Attach::new(name, scheme)?,
            None => Attach::default(),
        };
        let (settings, rules) = (self.settings(attach), self.rules());
        let coordinator = Coordinator::new(settings, rules, self.store, self.reissue);
        Ok(Session { coordinator })
    }

    fn settings(&self, attach: Attach) -> Settings {
        Settings {
            attach,
            others: self.others(),
            attempt: self.attempt(),
            lease: self.lease(),
            lost_reply: self.lost_reply.or_quarantine(self.reissue_timeout),
            refresh_ahead: self.refresh_ahead,
            reissue_timeout: self.reissue_timeout,
            runtime: self.runtime.clone(),
            self_sufficient: self.self_sufficient,
            store_timeout: self.store_timeout,
            wait_timeout: self.wait_timeout,
            waiter_limit: self.waiter_limit,
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            attempt: self.attempt(),
            abandoned: self.reissue_timeout,
            cool_down: self.cool_down,
            window: self.reissue_limit,
            self_sufficient: self.self_sufficient,
        }
    }

    /// The longest an attempt can take that is driven: two calls of the store by others before it,
    /// two to read, one to write, and the reissue, whose tries take no more than three together; and
    /// in between, another process may do the same.
    fn attempt(&self) -> Duration {
        self.store_timeout * 5 + self.reissues() + self.others()
    }

    /// To claim, and to renew a claim, is to read and to write: half of it is left when the store is so slow that
    /// both take all of their time, and that is enough for the next one. None is needed for a reissue that is
    /// shorter.
    fn lease(&self) -> Duration {
        let whole = self.reissue_timeout + self.store_timeout;
        whole.min(self.store_timeout * 4)
    }

    fn reissues(&self) -> Duration {
        let tries = if self.lost_reply.tries_again() { 3 } else { 1 };
        self.reissue_timeout * tries
    }

    /// The longest wait for another process that is reissuing, and has its own turn at the store.
    fn others(&self) -> Duration {
        match self.store {
            Storage::Own(_) => Duration::ZERO,
            Storage::Shared(_) => self.store_timeout * 5 + self.reissues(),
        }
    }

    fn check_durations(&self) -> Result<(), ConfigError> {
        let (first, longest) = self.cool_down;
        check_duration("reissue_timeout", self.reissue_timeout, MOST_TIMEOUT)?;
        check_duration("store_timeout", self.store_timeout, MOST_TIMEOUT)?;
        check_duration("wait_timeout", self.wait_timeout, MOST_TIMEOUT)?;
        check_duration(
            "the window of reissue_limit",
            self.reissue_limit.1,
            MOST_TIMEOUT,
        )?;
        check_duration("the first cool_down", first, MOST_TIMEOUT)?;
        check_duration("the longest cool_down", longest, MOST_TIMEOUT)?;
        if let Some(window) = self.refresh_ahead {
            check_duration("refresh_ahead", window, MOST_AHEAD)?;
        }
        for (what, duration) in self.lost_reply.durations() {
            check_duration(what, duration, MOST_AHEAD)?;
        }
        if first > longest {
            let message = "the first cool_down is longer than the longest";
            return Err(ConfigError::new(message));
        }
        if self.waiter_limit == 0 {
            let message = "a waiter_limit of 0 would let nobody wait for a refresh";
            return Err(ConfigError::new(message));
        }
        Ok(())
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBuilder").finish_non_exhaustive()
    }
}

/// The tokens are in use, and it is only the store that does not have them.
fn not_saved(error: RefreshError) -> RefreshError {
    match error.kind() {
        Kind::Store => error.renamed(Kind::NotSaved),
        _ => error,
    }
}

fn check_duration(what: &str, duration: Duration, most: Duration) -> Result<(), ConfigError> {
    if duration.is_zero() {
        return Err(ConfigError::new(format!("{what} is zero")));
    }
    if duration > most {
        let message = format!("{what} is {duration:?}, and {most:?} is the most there can be");
        return Err(ConfigError::new(message));
    }
    Ok(())
}

/// Says which session a request belongs to.
///
/// It sees the head of each request, so that it can be used with any type of body. A [`Session`]
/// selects itself; [`SessionExtension`] and [`select_fn`] are for gateways, which hold one per user.
pub trait SelectSession {
    /// The session of this request; `None` sends it as it is, unless the layer
    /// [requires a token](crate::TokenRefreshLayer::require_token).
    fn select(&self, head: &Parts) -> Option<Session>;
}

impl SelectSession for Session {
    fn select(&self, _: &Parts) -> Option<Session> {
        Some(self.clone())
    }
}

/// Selects the [`Session`] that stands in the request's extensions.
///
/// ```
/// # use tower_token_refresh::{ReissueError, Session, reissue_fn};
/// # let users_own = Session::builder(reissue_fn(|_| async { Err(ReissueError::refused("no")) })).build()?;
/// let request = http::Request::builder()
///     .uri("https://api.example.com/")
///     .extension(users_own.clone())
///     .body(())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to add")]
pub struct SessionExtension;

impl SelectSession for SessionExtension {
    fn select(&self, head: &Parts) -> Option<Session> {
        head.extensions.get().cloned()
    }
}

/// Selects a session by a closure.
///
/// ```
/// # use std::collections::HashMap;
/// # use tower_token_refresh::{Session, TokenRefreshLayer, select_fn};
/// # fn layer(sessions: HashMap<String, Session>) -> Result<(), Box<dyn std::error::Error>> {
/// let by_tenant = select_fn(move |head| {
///     let tenant = head.headers.get("x-tenant")?.to_str().ok()?;
///     sessions.get(tenant).cloned()
/// });
/// let layer = TokenRefreshLayer::new("https://api.example.com", by_tenant)?;
/// # Ok(()) }
/// ```
pub fn select_fn<F>(function: F) -> SelectFn<F>
where
    F: Fn(&Parts) -> Option<Session>,
{
    SelectFn { function }
}

/// See [`select_fn`].
#[derive(Clone)]
pub struct SelectFn<F> {
    function: F,
}

impl<F> SelectSession for SelectFn<F>
where
    F: Fn(&Parts) -> Option<Session>,
{
    fn select(&self, head: &Parts) -> Option<Session> {
        (self.function)(head)
    }
}

impl<F> fmt::Debug for SelectFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectFn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reissue::reissue_fn;

    // shows S9, P9: through the door that requests come by, and without polling a million of them.
    #[tokio::test]
    async fn a_million_may_wait_and_the_next_one_is_told_at_once() {
        let session = Session::builder(reissue_fn(|_| std::future::pending()));
        let session = session.build().unwrap();
        // All wait for the first look into the store.
        let wait = || match session.admit() {
            Admitted::Hold(ticket) => Ok(ticket),
            Admitted::Refuse(error) => Err(error),
            other => panic!("there is no token yet: {other:?}"),
        };
        let waiting: Result<Vec<_>, _> = (0..1024 * 1024).map(|_| wait()).collect();
        let mut waiting = waiting.unwrap();
        assert!(wait().unwrap_err().is_waiter_limit());
        assert!(wait().unwrap_err().is_waiter_limit(), "that one left");
        drop(waiting.pop());
        waiting.push(wait().unwrap());
        assert!(wait().unwrap_err().is_waiter_limit());
    }
}
