//! A session that is in use while something is wrong with the store it shares, and calls that are given up.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::fmt::Debug;
use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;
use tower_token_refresh::RefreshError;
use tower_token_refresh::Session;
use tower_token_refresh::SessionBuilder;
use tower_token_refresh::SharedTokenStore;

use crate::support::Client;
use crate::support::World;

/// Far more than anything here takes.
const HANG: Duration = Duration::from_secs(60);

/// Waits for this, which comes before the call's answer. The call is dropped then, as a session does it at its
/// deadline; one that is lent can go on.
pub async fn unanswered<T: Debug>(call: impl Future<Output = T>, until: impl Future<Output = ()>) {
    let either = async {
        tokio::select! {
            answer = call => panic!("{answer:?}"),
            () = until => {}
        }
    };
    timeout(HANG, either).await.expect("it hangs");
}

/// A session that is logged in.
pub struct InUse {
    pub world: World,
    pub session: Session,
    pub client: Client,
}

impl InUse {
    pub async fn new(store: impl SharedTokenStore) -> Self {
        let world = World::new();
        let session = builder(&world, store).build().unwrap();
        Self::of(world, session).await
    }

    /// Its own deadline is the one that counts, and not the store's.
    pub async fn impatient(store: impl SharedTokenStore) -> Self {
        let world = World::new();
        let limit = Duration::from_millis(500);
        let builder = builder(&world, store).store_timeout(limit);
        let session = builder.build().unwrap();
        Self::of(world, session).await
    }

    /// It logs in, and has reissued once then.
    pub async fn of(world: World, session: Session) -> Self {
        session.login(world.tokens("u")).await.unwrap();
        let client = world.client(&session);
        let this = Self {
            world,
            session,
            client,
        };
        this.world.expire();
        this.is_ok().await;
        this
    }

    async fn status(&self) -> (StatusCode, Option<RefreshError>) {
        let answer = timeout(HANG, self.client.get()).await;
        let answer = answer.expect("it hangs").unwrap();
        (answer.status, answer.why)
    }

    pub async fn is_ok(&self) {
        let (status, why) = self.status().await;
        assert_eq!(status, StatusCode::OK, "{why:?}");
    }

    pub async fn until_ok(&self) {
        let ok = async {
            while self.status().await.0 != StatusCode::OK {
                tokio::task::yield_now().await;
            }
        };
        timeout(HANG, ok).await.expect("it hangs");
    }

    /// Its access token is used while it is valid. After that nothing is reissued, the server's answer comes
    /// with a reason that has these words, and the login is kept.
    pub async fn bears_it(&self, words: &str) {
        let reissues = self.world.counts().reissues;
        self.is_ok().await;
        self.world.expire();
        let (status, why) = self.status().await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let why = why.unwrap();
        assert!(why.is_store() && why.is_transient(), "{why:?}");
        assert!(format!("{why:?}").contains(words), "{why:?}");
        assert_eq!(self.world.counts().reissues, reissues);
        assert!(self.session.status().is_logged_in());
    }

    /// It was put right: there is one reissue, with the refresh token that was not used before.
    pub async fn goes_on(&self) {
        let reissues = self.world.counts().reissues;
        self.until_ok().await;
        let counts = self.world.counts();
        assert_eq!((counts.reissues, counts.reuses), (reissues + 1, 0));
    }

    /// Others that share the login of this one make one reissue for each expiry.
    pub async fn shares<S: SharedTokenStore>(&self, others: impl IntoIterator<Item = S>) {
        let others = others.into_iter().map(|store| {
            let session = builder(&self.world, store).build().unwrap();
            self.world.client(&session)
        });
        let clients: Vec<_> = others.collect();
        let before = self.world.counts().reissues;
        for round in 1..5 {
            self.world.expire();
            let gets = clients
                .iter()
                .flat_map(|client| [client.get(), client.get()]);
            let answers = timeout(HANG, futures::future::join_all(gets)).await;
            for answer in answers.expect("it hangs") {
                let answer = answer.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.why);
            }
            let counts = self.world.counts();
            assert_eq!((counts.reissues, counts.reuses), (before + round, 0));
        }
    }
}

/// One that tries again at once.
fn builder(world: &World, store: impl SharedTokenStore) -> SessionBuilder {
    let moment = Duration::from_millis(1);
    world
        .builder()
        .shared_store(store)
        .cool_down(moment, moment)
}
