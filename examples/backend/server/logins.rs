//! Which logins have live access tokens: the part of the state that every protected request asks for,
//! so it is in memory and bounded.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::store::Identity;

const CAPACITY: usize = 100_000;

/// One login, as far as access tokens are concerned.
struct Login {
    user: Arc<Identity>,
    /// Access tokens with a smaller serial number were superseded.
    first_live: u64,
}

/// The logins by their family. Past the capacity the oldest is forgotten: its access tokens then count
/// as superseded, and its refresh token brings it back.
#[derive(Default)]
pub struct Logins {
    by_family: HashMap<Arc<str>, Login>,
    order: VecDeque<Arc<str>>,
}

impl Logins {
    /// Makes sure that the token with this serial number is live in its family.
    pub fn admit(&mut self, family: &Arc<str>, user: &Arc<Identity>, serial: u64) {
        if self.by_family.contains_key(family) {
            return;
        }
        let login = Login {
            user: user.clone(),
            first_live: serial,
        };
        self.by_family.insert(family.clone(), login);
        self.order.push_back(family.clone());
        if self.order.len() > CAPACITY {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(family) = self.order.pop_front() {
            self.by_family.remove(&family);
        }
    }

    /// The tokens of this family before the one with this serial number are dead.
    pub fn supersede(&mut self, family: &str, serial: u64) {
        if let Some(login) = self.by_family.get_mut(family) {
            login.first_live = login.first_live.max(serial);
        }
    }

    pub fn end(&mut self, family: &str) {
        self.by_family.remove(family);
    }

    /// The user of a token, if that token is live.
    pub fn user(&self, family: &str, serial: u64) -> Option<Arc<Identity>> {
        let login = self.by_family.get(family)?;
        (serial >= login.first_live).then(|| login.user.clone())
    }
}
