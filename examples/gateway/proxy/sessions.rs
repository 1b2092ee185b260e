//! Who is logged in: a cookie with a random id on the one side, a session on the other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::http::{HeaderMap, header::COOKIE};
use cookie::Cookie;
use tower_token_refresh::Session;

pub const COOKIE_NAME: &str = "gateway";

/// Random, and known to one browser only.
type Id = Arc<str>;

/// The sessions by the ids in the users' cookies. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Mutex<Seats>>);

struct Seats {
    most: usize,
    serial: u64,
    by_id: HashMap<Id, (u64, Session)>,
    by_age: BTreeMap<u64, Id>,
}

impl Sessions {
    /// For so many at the most: the oldest login makes room for the next.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Seats {
            most,
            serial: 0,
            by_id: HashMap::new(),
            by_age: BTreeMap::new(),
        })))
    }

    pub fn len(&self) -> usize {
        self.seats().by_id.len()
    }

    /// Takes a session in that is logged in. The value of `Set-Cookie` for its user.
    pub fn insert(&self, session: Session) -> String {
        let id: Id = random_id().into();
        let mut status = session.subscribe();
        self.seats().insert(id.clone(), session);
        let (sessions, leaving) = (self.clone(), id.clone());
        tokio::spawn(async move {
            // Until the login is over, by whomever; or the session was dropped with its last request.
            let _ = status.wait_for(|status| !status.is_logged_in()).await;
            sessions.seats().remove(&leaving);
        });
        // Served over https, it has to say `Secure` as well.
        format!("{COOKIE_NAME}={id}; Path=/; HttpOnly; SameSite=Lax")
    }

    /// The session of whoever sends these headers.
    pub fn find(&self, headers: &HeaderMap) -> Option<Session> {
        let seats = self.seats();
        let (_, session) = seats.by_id.get(id_in(headers)?.as_str())?;
        Some(session.clone())
    }

    pub fn remove(&self, headers: &HeaderMap) -> Option<Session> {
        self.seats().remove(&id_in(headers)?)
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Seats {
    fn insert(&mut self, id: Id, session: Session) {
        self.serial += 1;
        self.by_age.insert(self.serial, id.clone());
        self.by_id.insert(id, (self.serial, session));
        if self.by_id.len() > self.most
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_id.remove(&oldest);
        }
    }

    fn remove(&mut self, id: &str) -> Option<Session> {
        let (serial, session) = self.by_id.remove(id)?;
        self.by_age.remove(&serial);
        Some(session)
    }
}

/// The value of `Set-Cookie` that makes a browser forget its cookie.
pub fn no_cookie() -> String {
    format!("{COOKIE_NAME}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0")
}

fn id_in(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter();
    lines
        .map(|line| String::from_utf8_lossy(line.as_bytes()))
        .flat_map(Cookie::split_parse)
        .flatten()
        .find(|cookie| cookie.name() == COOKIE_NAME)
        .map(|cookie| cookie.value().to_owned())
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
