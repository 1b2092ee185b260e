//! What really happened: the issuer's own records, and those of the oracle.
//!
//! Everything that a promise says of the issuer, the API and the store is checked here, at the moment at which it
//! happens. What is to hold when all is quiet is checked in [`world`](crate::world).

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tower_token_refresh::TokenSet;

use crate::names::Pair;
use crate::report::happened;
use crate::report::violated;
use crate::world::Kind;
use crate::world::World;
use crate::world::pause;

/// P9: so many reissues in so long a time, as the library has it unless it is set.
const WINDOW: (usize, Duration) = (5, Duration::from_secs(30));

/// Orders what happens.
pub type Moment = u64;

pub struct Book {
    world: &'static World,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    moment: Moment,
    logins: Vec<Login>,
    presented: Vec<Presented>,
    /// Access tokens that the API has rejected.
    rejected: BTreeSet<Pair>,
    /// Access tokens that the API takes no longer, although there are none after them.
    dead: BTreeSet<Pair>,
    /// Logins that the API calls over for good.
    finals: BTreeSet<usize>,
    /// Pairs that a store has held.
    saved: BTreeSet<Pair>,
    /// Calls of a store that failed, or had no answer: whose, and when.
    failures: Vec<(usize, Moment)>,
    /// Calls of [`Session::refresh`](tower_token_refresh::Session::refresh) that are not over, and when the last one
    /// was.
    refreshes: usize,
    refreshed: Moment,
    /// Who had the claim on the shared record last, and since when.
    claim: Option<(usize, Moment)>,
    acts: Vec<Act>,
    requests: BTreeMap<usize, Sent>,
    is_healthy: bool,
}

/// A family of tokens, as the issuer knows it.
struct Login {
    /// The pair that was handed out last, and when each was.
    newest: usize,
    minted: Vec<(Moment, Duration)>,
    is_revoked: bool,
    /// Somebody was told that it is over.
    is_refused: bool,
    /// An answer was lost on its way.
    has_lost: bool,
    /// Somebody outside has fetched the newest pair, and the one before may be presented meanwhile.
    is_shared_outside: bool,
    /// Its pair was adopted while somebody logged in or out, so that nobody can say which login it was adopted for.
    is_stray: bool,
}

struct Presented {
    session: usize,
    refresh: Pair,
    at: Duration,
    moment: Moment,
    end: End,
}

/// What became of a reissue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is under way.
    Open,
    /// An answer with a token has arrived.
    Answered,
    /// An answer has arrived that says no.
    Refused,
    /// An answer has arrived that says that nothing was done.
    NotProcessed,
    /// No answer has arrived, or none that says anything.
    Unknown,
}

/// A login or a logout.
#[derive(Clone, Copy)]
struct Act {
    session: usize,
    login: Option<usize>,
    began: Moment,
    /// Over, or given up.
    ended: Option<Moment>,
    /// It has said that it is done.
    is_done: bool,
}

/// A request, as often as it was sent.
struct Sent {
    session: usize,
    began: Moment,
    carried: Vec<Option<Pair>>,
}

/// What the API says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Yes,
    Expired,
    Over,
}

impl Book {
    pub fn new(world: &'static World) -> Self {
        Self {
            world,
            inner: Mutex::default(),
        }
    }

    fn with<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.lock();
        inner.moment += 1;
        change(&mut inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nobody takes it for longer than one step, so that no task waits for another here.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, everybody answers.
    pub fn heal(&self) {
        self.with(|inner| inner.is_healthy = true);
    }

    pub fn is_healthy(&self) -> bool {
        self.lock().is_healthy
    }

    /// Until something has come to the issuer, or to the API, or back.
    pub async fn on_the_wire(&self) {
        if !self.is_healthy() {
            pause(&self.world.wire).await;
        }
    }

    /// The first pair of a new login.
    pub fn log_in(&self) -> Pair {
        self.with(|inner| {
            let minted = (inner.moment, tokio::model::elapsed());
            inner.logins.push(Login {
                newest: 0,
                minted: vec![minted],
                is_revoked: false,
                is_refused: false,
                has_lost: false,
                is_shared_outside: false,
                is_stray: false,
            });
            Pair {
                login: inner.logins.len() - 1,
                nth: 0,
            }
        })
    }

    /// Somebody outside makes a reissue with the newest refresh token: the pair that he has got. The one before it is
    /// answered with the same pair from now on, for he cannot know who presents it meanwhile.
    pub fn reissue_outside(&self, login: usize) -> Option<Pair> {
        self.with(|inner| {
            let moment = inner.moment;
            let known = &mut inner.logins[login];
            if known.is_revoked || known.is_shared_outside {
                return None;
            }
            known.is_shared_outside = true;
            Some(known.mint(login, moment))
        })
    }

    /// A refresh token is on its way.
    pub fn present(&self, session: usize, access: Pair, refresh: Pair) -> usize {
        happened(|| format!("session {session} presents {refresh:?} for {access:?}"));
        let now = tokio::model::elapsed();
        self.with(|inner| {
            let is_outside = inner.logins[refresh.login].is_shared_outside;
            for before in inner.presented.iter().filter(|it| it.refresh == refresh) {
                let apart = now - before.at;
                let in_time = apart >= self.world.quarantine
                    || self.world.grace.is_some_and(|grace| apart <= grace);
                // Whoever has heard from the issuer could not store it, or was late to.
                let has_failed = |(session, moment): &(usize, Moment)| {
                    *session == before.session && *moment > before.moment
                };
                let is_away =
                    self.world.store == Kind::Shared && inner.failures.iter().any(has_failed);
                let is_excused = in_time && (self.world.is_late || is_away);
                let may = match before.end {
                    End::NotProcessed => true,
                    End::Unknown => in_time,
                    End::Open => is_excused,
                    End::Answered => is_excused || is_outside,
                    // P6: where the store could not be read again, it is tried once more.
                    End::Refused => is_excused || !inner.failures.is_empty(),
                };
                if !may {
                    violated(
                        "P1",
                        &format!(
                            "session {session} presents {refresh:?}, which session {} has presented {apart:?} \
                             before: {:?}",
                            before.session, before.end
                        ),
                    );
                }
            }
            self.check_reason(inner, access);
            self.check_window(inner, session, refresh.login, now);
            inner.presented.push(Presented {
                session,
                refresh,
                at: now,
                moment: inner.moment,
                end: End::Open,
            });
            inner.presented.len() - 1
        })
    }

    /// P1, P2: nobody asks for another token before somebody has said that this one is no good.
    fn check_reason(&self, inner: &Inner, access: Pair) {
        let (moment, minted) = inner.logins[access.login].minted[access.nth];
        let is_rejected = inner.rejected.contains(&access);
        let is_asked_for = inner.refreshes > 0 || inner.refreshed > moment;
        // It is renewed ahead of its end, by half of it at the most.
        let age = tokio::model::elapsed() - minted;
        let is_old = self.world.lifetime.is_some_and(|whole| age >= whole / 2);
        if !(is_rejected || is_asked_for || is_old) {
            violated(
                "P2",
                &format!("{access:?} is replaced, and nobody has rejected it"),
            );
        }
    }

    fn check_window(&self, inner: &Inner, session: usize, login: usize, now: Duration) {
        // Where timers are late, it may have been counted long before it was sent.
        if self.world.is_late || self.world.lifetime.is_some() {
            return;
        }
        let (most, window) = WINDOW;
        let same = |it: &&Presented| it.session == session && it.refresh.login == login;
        let recent = inner.presented.iter().filter(same);
        if recent.filter(|it| now - it.at < window).count() >= most {
            violated("P9", &format!("session {session} makes too many reissues"));
        }
    }

    /// The issuer has the refresh token: the new pair, unless it refuses.
    pub fn process(&self, refresh: Pair) -> Option<Pair> {
        self.with(|inner| {
            let moment = inner.moment;
            let login = &mut inner.logins[refresh.login];
            let next = Pair {
                nth: login.newest,
                ..refresh
            };
            if login.is_revoked {
                return None;
            }
            if refresh.nth == login.newest {
                return Some(login.mint(refresh.login, moment));
            }
            let was_newest = refresh.nth + 1 == login.newest;
            let since = tokio::model::elapsed() - login.minted[login.newest].1;
            let in_grace = self.world.grace.is_some_and(|grace| since <= grace);
            if was_newest && (in_grace || login.is_shared_outside) {
                return Some(next);
            }
            // Somebody has stolen it, for all that the issuer knows.
            login.is_revoked = true;
            None
        })
    }

    pub fn revoke(&self, login: usize) {
        self.with(|inner| inner.logins[login].is_revoked = true);
    }

    /// A reissue is over.
    pub fn end(&self, presented: usize, end: End) {
        self.with(|inner| {
            let it = &mut inner.presented[presented];
            it.end = end;
            let login = it.refresh.login;
            happened(|| format!("the reissue of session {} is over: {end:?}", it.session));
            inner.logins[login].is_refused |= end == End::Refused;
        });
    }

    /// An answer with a new refresh token does not arrive.
    pub fn lose(&self, login: usize) {
        self.with(|inner| inner.logins[login].has_lost = true);
    }

    /// This session has a claim from now on.
    pub fn claim_begins(&self, session: usize) {
        self.with(|inner| inner.claim = Some((session, inner.moment)));
    }

    /// Nobody has a claim on this refresh token any more, by the word of this session, which says whether it is in
    /// doubt since.
    pub fn claim_ends(&self, session: usize, refresh: Pair, is_in_doubt: bool) {
        self.with(|inner| {
            let Some((claimant, since)) = inner.claim else {
                return;
            };
            let is_out = |it: &&Presented| {
                let is_under_it = it.session == claimant && it.moment > since;
                it.refresh == refresh && it.end == End::Open && is_under_it
            };
            let Some(out) = inner.presented.iter().find(is_out) else {
                return;
            };
            let has_failed =
                |(whose, moment): &(usize, Moment)| *whose == out.session && *moment > out.moment;
            let is_away = self.world.is_late || inner.failures.iter().any(has_failed);
            let what = match is_in_doubt {
                false => "given back",
                true if !is_away => "taken away from a session that is alive",
                true => return,
            };
            violated(
                "P1",
                &format!(
                    "session {session}: the claim on {refresh:?} is {what}, and session {} has it under way",
                    out.session
                ),
            );
        });
    }

    /// A store holds these.
    pub fn stored(&self, tokens: Option<&TokenSet>) {
        self.with(|inner| inner.saved.extend(tokens.map(Pair::of)));
    }

    /// A call of the store of this session has failed, or was given up.
    pub fn store_fails(&self, session: usize) {
        self.with(|inner| inner.failures.push((session, inner.moment)));
    }

    pub fn refresh_begins(&self) {
        self.with(|inner| inner.refreshes += 1);
    }

    pub fn refresh_ends(&self) {
        self.with(|inner| {
            inner.refreshes -= 1;
            inner.refreshed = inner.moment;
        });
    }

    /// A login, or a logout, begins: its number.
    pub fn act_begins(&self, session: usize, login: Option<usize>) -> usize {
        happened(|| match login {
            Some(login) => format!("session {session} is logged in: login {login}"),
            None => format!("session {session} is logged out"),
        });
        self.with(|inner| {
            let began = inner.moment;
            inner.acts.push(Act {
                session,
                login,
                began,
                ended: None,
                is_done: false,
            });
            inner.acts.len() - 1
        })
    }

    pub fn act_ends(&self, act: usize, is_done: bool) {
        self.with(|inner| {
            inner.acts[act].ended = Some(inner.moment);
            inner.acts[act].is_done = is_done;
        });
    }

    /// The logins, or logouts, that no other of this session has begun after, and whether they are all over.
    pub fn latest(&self, session: usize) -> Vec<Option<usize>> {
        let inner = self.lock();
        let acts = || inner.acts.iter().filter(|act| act.session == session);
        let is_latest = |act: &&Act| !acts().any(|other| act.is_before(other));
        acts().filter(is_latest).map(|act| act.login).collect()
    }

    /// The same of all sessions. One that was given up before it was done comes about at any time after that.
    pub fn latest_of_all(&self) -> Vec<Option<usize>> {
        let inner = self.lock();
        let is_before = |act: &Act, other: &Act| act.is_before(other) && act.is_done;
        let acts = inner.acts.iter();
        let is_latest = |act: &&Act| !inner.acts.iter().any(|other| is_before(act, other));
        acts.filter(is_latest).map(|act| act.login).collect()
    }

    /// Somebody hands a pair of this login to a session, and has polled the future once when this is dropped.
    pub fn adopting(&self, session: usize, login: usize) -> Adopting<'_> {
        Adopting {
            book: self,
            session,
            login,
            began: self.with(|inner| inner.moment),
        }
    }

    /// Does nobody log this session in or out at the moment?
    pub fn is_idle(&self, session: usize) -> bool {
        let inner = self.lock();
        let mut its = inner.acts.iter().filter(|act| act.session == session);
        its.all(|act| act.ended.is_some())
    }

    pub fn is_stray(&self, login: usize) -> bool {
        self.lock().logins[login].is_stray
    }

    /// A request of this session begins: its number.
    pub fn request_begins(&self, session: usize) -> usize {
        self.with(|inner| {
            let number = inner.requests.len();
            let sent = Sent {
                session,
                began: inner.moment,
                carried: Vec::new(),
            };
            inner.requests.insert(number, sent);
            number
        })
    }

    /// A request has arrived at the API, with this token.
    pub fn arrives(&self, request: usize, carried: Option<Pair>) -> Said {
        let said = self.with(|inner| {
            if let Some(pair) = carried {
                self.check_saved(inner, pair);
                self.check_login(inner, request, pair);
            }
            if let Some(sent) = inner.requests.get_mut(&request) {
                match sent.carried[..] {
                    [] => {}
                    [first] if first.map(|it| it.login) == carried.map(|it| it.login) => {}
                    [first] => violated(
                        "P8",
                        &format!("a request is sent with {first:?}, and again with {carried:?}"),
                    ),
                    _ => violated("P9", "a request is sent a third time"),
                }
                sent.carried.push(carried);
            }
            let Some(pair) = carried else {
                return Said::Expired;
            };
            let login = &inner.logins[pair.login];
            let age = tokio::model::elapsed() - login.minted[pair.nth].1;
            let is_old = self.world.lifetime.is_some_and(|whole| age >= whole);
            let is_good = pair.nth == login.newest
                && !login.is_revoked
                && !inner.dead.contains(&pair)
                && !is_old;
            match is_good {
                _ if inner.finals.contains(&pair.login) => Said::Over,
                true => Said::Yes,
                false => {
                    inner.rejected.insert(pair);
                    Said::Expired
                }
            }
        });
        happened(|| format!("request {request} arrives with {carried:?}: {said:?}"));
        said
    }

    /// P13, where no store has failed so far, and nobody has waited for one in vain.
    fn check_saved(&self, inner: &Inner, pair: Pair) {
        let is_excused = self.world.is_late || !inner.failures.is_empty();
        if !is_excused && !inner.saved.contains(&pair) {
            violated("P13", &format!("{pair:?} is used before it is saved"));
        }
    }

    /// P8: whoever begins after a login or a logout has come about does not get the token of an earlier one.
    fn check_login(&self, inner: &Inner, request: usize, pair: Pair) {
        let Some(sent) = inner.requests.get(&request) else {
            return;
        };
        // What others who share the store have done comes at its own time, and more so where that fails.
        let is_shared = self.world.store == Kind::Shared;
        let is_certain = !is_shared || (!self.world.is_late && inner.failures.is_empty());
        if inner.logins[pair.login].is_stray || !is_certain {
            return;
        }
        let of_it = |act: &&Act| act.session == sent.session;
        let its = inner.acts.iter().filter(of_it);
        let Some(its_own) = its.clone().find(|act| act.login == Some(pair.login)) else {
            return;
        };
        let is_over = |act: &&Act| {
            its_own.is_before(act) && act.ended.is_some_and(|ended| ended < sent.began)
        };
        if let Some(act) = its.clone().find(is_over) {
            violated(
                "P8",
                &format!(
                    "a request carries {pair:?}, and began after {} had come about",
                    match act.login {
                        Some(login) => format!("login {login}"),
                        None => "a logout".to_owned(),
                    }
                ),
            );
        }
    }

    /// The API takes no token any more that was handed out so far.
    pub fn expire(&self) {
        self.with(|inner| {
            let newest = inner.logins.iter().enumerate();
            let newest = newest.map(|(login, it)| Pair {
                login,
                nth: it.newest,
            });
            let newest: Vec<Pair> = newest.collect();
            inner.dead.extend(newest);
        });
    }

    /// The API calls the newest login over for good.
    pub fn declare_over(&self) {
        self.with(|inner| inner.finals.insert(inner.logins.len().saturating_sub(1)));
    }

    /// Would the issuer and the API go on with this login?
    pub fn is_sound(&self, login: usize) -> bool {
        let inner = self.lock();
        let it = &inner.logins[login];
        !it.is_revoked && !it.has_lost && !inner.finals.contains(&login)
    }

    /// May a session have ended that was in this login?
    pub fn may_be_over(&self, login: usize) -> bool {
        let inner = self.lock();
        inner.logins[login].is_refused || inner.finals.contains(&login)
    }

    pub fn newest(&self, login: usize) -> Pair {
        Pair {
            login,
            nth: self.lock().logins[login].newest,
        }
    }

    /// How often a store has failed.
    pub fn failures(&self) -> usize {
        self.lock().failures.len()
    }
}

impl Login {
    fn mint(&mut self, login: usize, moment: Moment) -> Pair {
        self.newest += 1;
        self.minted.push((moment, tokio::model::elapsed()));
        Pair {
            login,
            nth: self.newest,
        }
    }
}

/// See [`Book::adopting`].
pub struct Adopting<'a> {
    book: &'a Book,
    session: usize,
    login: usize,
    began: Moment,
}

impl Drop for Adopting<'_> {
    fn drop(&mut self) {
        let (session, began) = (self.session, self.began);
        self.book.with(|inner| {
            let is_between = |act: &Act| act.session == session && act.began > began;
            let is_stray = inner.acts.iter().any(is_between);
            inner.logins[self.login].is_stray |= is_stray;
        });
    }
}

impl Act {
    fn is_before(&self, other: &Self) -> bool {
        self.ended.is_some_and(|ended| ended < other.began)
    }
}
