//! What becomes of a session whose own swap arrives late.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use redis::Client;
use tokio::time::timeout;
use tower_token_refresh::BoxError;
use tower_token_refresh::Record;
use tower_token_refresh::RedisStore;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::Swap;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

use crate::common::HANG;
use crate::common::Place;
use crate::common::client;
use crate::common::read;
use crate::proxy::Fate;
use crate::proxy::Proxy;
use crate::proxy::Way;

/// The next swap is held on its way.
#[derive(Clone)]
struct Held {
    store: RedisStore,
    proxy: Arc<Proxy>,
    next: Arc<AtomicBool>,
}

impl SharedTokenStore for Held {
    async fn read(&self) -> Result<(Record, SystemTime), BoxError> {
        self.store.read().await
    }

    async fn swap(&self, version: u64, record: &Record) -> Result<Swap, BoxError> {
        if self.next.swap(false, Ordering::Relaxed) {
            self.proxy.set(Way {
                requests: Fate::Held,
                answers: Fate::Pass,
            });
        }
        self.store.swap(version, record).await
    }

    async fn changed(&self, version: u64) {
        self.store.changed(version).await;
    }

    fn can_lose(&self) -> bool {
        self.store.can_lose()
    }
}

// shows P7, P8
#[tokio::test]
async fn a_logout_is_not_undone_by_the_login_before_it_that_arrives_late() {
    let place = Place::new();
    let direct = place.store();
    let port = match Client::open(&*place.url)
        .unwrap()
        .get_connection_info()
        .addr()
    {
        redis::ConnectionAddr::Tcp(_, port) => *port,
        other => panic!("{other}"),
    };
    let proxy = Arc::new(Proxy::to(port).await);
    let url = format!("redis://{}", proxy.address);
    let store = Held {
        store: RedisStore::new(client(&url), "session").prefix(&place.prefix),
        proxy: proxy.clone(),
        next: Arc::new(AtomicBool::new(true)),
    };
    let reissue = reissue_fn(|_| async { Err(ReissueError::transient("none")) });
    let session = Session::builder(reissue)
        .shared_store(store.clone())
        .store_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let tokens = TokenSet::new("access").unwrap();
    let tokens = tokens.with_refresh_token("refresh").unwrap();
    let told = timeout(HANG, session.login(tokens)).await.unwrap();
    assert!(told.unwrap_err().is_not_saved());
    timeout(HANG, session.logout()).await.unwrap().unwrap();
    assert!(!session.status().is_logged_in());
    let arrives = proxy.until_answered();
    proxy.set_one(
        0,
        Way {
            requests: Fate::Pass,
            answers: Fate::Lost,
        },
    );
    timeout(HANG, arrives).await.expect("it arrives");
    let (found, _) = read(&direct).await.unwrap();
    assert!(
        found.tokens().is_none(),
        "after a logout that was told to be done: {found:?}"
    );
}
