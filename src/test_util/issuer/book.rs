//! What the issuer knows: which tokens it has issued, to whom, and which of them are good. It
//! counts nothing.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

/// The settings of an issuer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Policy {
    pub(super) lifetime: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) keeps_refresh_tokens: bool,
}

/// The tokens of one answer.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) access: String,
    pub(super) lifetime: Option<Duration>,
    /// Where there is a new one.
    pub(super) refresh: Option<String>,
}

/// Which access token a reissue brings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Live,
    Same,
    Dead,
}

/// Why there are no tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) is_reuse: bool,
    pub(super) ends_family: bool,
}

/// What became of an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    Live { user: String },
    Expired,
    Unknown,
}

#[derive(Default)]
pub(super) struct Book {
    pub(super) policy: Policy,
    families: Vec<Family>,
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    /// The family of each client that comes with its own credentials.
    clients: HashMap<String, usize>,
}

/// The tokens that stem from one login.
struct Family {
    user: String,
    newest_access: String,
    has_ended: bool,
}

struct Access {
    family: usize,
    is_live: bool,
    until: Option<Instant>,
}

struct Refresh {
    family: usize,
    used: Option<Used>,
}

struct Used {
    at: Instant,
    successor: Issued,
}

impl Book {
    /// A new family: an access token, and a refresh token.
    pub(super) fn login(&mut self, user: &str) -> Issued {
        let family = self.family(user);
        let issued = self.issue(family, Kind::Live);
        let refresh = self.refresh_token(family);
        Issued {
            refresh: Some(refresh),
            ..issued
        }
    }

    /// New tokens for a refresh token.
    pub(super) fn exchange(&mut self, presented: &str, kind: Kind) -> Result<Issued, Refusal> {
        let token = self.refresh.get(presented).ok_or_else(Refusal::default)?;
        let family = token.family;
        if let Some(used) = &token.used {
            return match self.is_in_grace(used) {
                true => Ok(used.successor.clone()),
                false => Err(self.end(family)),
            };
        }
        if self.families[family].has_ended {
            return Err(Refusal::default());
        }
        let mut issued = self.issue(family, kind);
        if !self.policy.keeps_refresh_tokens {
            issued.refresh = Some(self.refresh_token(family));
            let used = Used {
                at: Instant::now(),
                successor: issued.clone(),
            };
            self.refresh
                .entry(presented.to_owned())
                .and_modify(|token| token.used = Some(used));
        }
        Ok(issued)
    }

    /// An access token for the client itself.
    pub(super) fn client_token(&mut self, client: &str, kind: Kind) -> Issued {
        let family = match self.clients.get(client) {
            Some(family) => *family,
            None => {
                let family = self.family(client);
                self.clients.insert(client.to_owned(), family);
                family
            }
        };
        // There is no same token before the first.
        let kind = match self.families[family].newest_access.is_empty() {
            true if kind == Kind::Same => Kind::Live,
            _ => kind,
        };
        self.issue(family, kind)
    }

    pub(super) fn expire_access_tokens(&mut self) {
        self.access
            .values_mut()
            .for_each(|token| token.is_live = false);
    }

    pub(super) fn judge(&self, access: &str) -> Judged {
        let Some(token) = self.access.get(access) else {
            return Judged::Unknown;
        };
        let family = &self.families[token.family];
        let is_past = token.until.is_some_and(|until| until <= Instant::now());
        if family.has_ended || !token.is_live || is_past {
            return Judged::Expired;
        }
        Judged::Live {
            user: family.user.clone(),
        }
    }

    fn family(&mut self, user: &str) -> usize {
        self.families.push(Family {
            user: user.to_owned(),
            newest_access: String::new(),
            has_ended: false,
        });
        self.families.len() - 1
    }

    fn issue(&mut self, family: usize, kind: Kind) -> Issued {
        let lifetime = self.policy.lifetime;
        if kind == Kind::Same {
            let access = self.families[family].newest_access.clone();
            return Issued {
                access,
                lifetime,
                refresh: None,
            };
        }
        let access = unique("access");
        let token = Access {
            family,
            is_live: kind == Kind::Live,
            until: lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime)),
        };
        self.access.insert(access.clone(), token);
        self.families[family].newest_access.clone_from(&access);
        Issued {
            access,
            lifetime,
            refresh: None,
        }
    }

    fn refresh_token(&mut self, family: usize) -> String {
        let refresh = unique("refresh");
        let token = Refresh { family, used: None };
        self.refresh.insert(refresh.clone(), token);
        refresh
    }

    /// The window is closed early by the use of the successor: its owner has the answer then.
    fn is_in_grace(&self, used: &Used) -> bool {
        let successor = used.successor.refresh.as_ref();
        let successor = successor.and_then(|refresh| self.refresh.get(refresh));
        let is_unused = successor
            .is_some_and(|token| token.used.is_none() && !self.families[token.family].has_ended);
        is_unused && used.at.elapsed() < self.policy.grace
    }

    fn end(&mut self, family: usize) -> Refusal {
        let had_ended = std::mem::replace(&mut self.families[family].has_ended, true);
        Refusal {
            is_reuse: true,
            ends_family: !had_ended,
        }
    }
}

/// A token that no other issuer of this process has issued either.
fn unique(what: &str) -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    format!("{what}-{}", SERIAL.fetch_add(1, Ordering::Relaxed))
}
