//! What happens to a server, or to the way to it.

use std::fmt::Debug;
use std::future::Future;

use futures::future::join_all;

use crate::kind::Kind;
use crate::kind::Server;
use crate::proxy::Way;
use crate::scene::Scene;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Killed,
    /// It does nothing, and comes to nobody's mind to be dead.
    Stopped,
    /// The first process can't reach it any more.
    CutOff,
    /// What the first process sends never arrives.
    Unheard,
    /// What it sends arrives, and no answer comes back.
    Unanswered,
}

impl Fault {
    pub const ALL: [Self; 5] = [
        Self::Killed,
        Self::Stopped,
        Self::CutOff,
        Self::Unheard,
        Self::Unanswered,
    ];

    pub async fn begin(self, scene: &Scene) {
        let first = &scene.proxies[0];
        let lose = |way| {
            first.set_next(Some(way));
            first.set(way);
        };
        match self {
            Self::Killed => scene.server.kill().await,
            Self::Stopped => scene.server.stop().await,
            Self::CutOff => {
                first.set_next(None);
                first.cut();
            }
            Self::Unheard => lose(Way::REQUESTS_LOST),
            Self::Unanswered => lose(Way::ANSWERS_LOST),
        }
    }

    pub async fn end(self, scene: &Scene) {
        match self {
            Self::Killed => scene.server.restart().await,
            Self::Stopped => scene.server.resume().await,
            Self::CutOff | Self::Unheard | Self::Unanswered => {
                scene.proxies[0].set_next(Some(Way::OPEN));
                scene.proxies[0].cut();
            }
        }
    }

    /// For the second process as well.
    pub fn is_of_all(self) -> bool {
        matches!(self, Self::Killed | Self::Stopped)
    }
}

/// Both kinds of server at once.
pub async fn both<F: Future<Output = ()>>(case: impl Fn(Kind) -> F) {
    join_all(Kind::ALL.map(case)).await;
}

/// Both kinds, with a server of the test's own.
pub async fn each<F: Future<Output = ()>>(case: impl Fn(Server) -> F) {
    both(async |kind| case(Server::start(kind).await).await).await;
}

/// Where a test is, for who wants to know what has failed there.
pub struct Case(String);

impl Case {
    pub fn new(server: &Server, what: impl Debug) -> Self {
        let kind = match server {
            Server::Postgres(_) => Kind::Postgres,
            Server::Redis(_) => Kind::Redis,
        };
        Self(format!("{kind:?} {what:?}"))
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {}", self.0);
        }
    }
}
