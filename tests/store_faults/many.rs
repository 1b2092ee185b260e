//! Many sessions over one store handle, whose server fails while all of them commit.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::SharedTokenStore;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

use crate::faults::each;
use crate::kind::Real;
use crate::kind::Server;
use crate::scene::in_time;

const USERS: usize = 150;

/// Takes each refresh token once, and counts.
#[derive(Default)]
struct Issuer {
    used: HashSet<String>,
    reuses: Vec<String>,
    reissues: watch::Sender<usize>,
}

fn session(store: &Real, issuer: &Arc<Mutex<Issuer>>, n: usize) -> Session {
    let name = format!("user-{n}");
    let store = match store {
        Real::Postgres(store) => Real::Postgres(store.session(&name)),
        Real::Redis(store) => Real::Redis(store.session(&name)),
    };
    let issuer = issuer.clone();
    let reissue = reissue_fn(move |request| {
        let issuer = issuer.clone();
        async move {
            let refresh = request.refresh_token().unwrap().expose().to_owned();
            let mut issuer = issuer.lock().unwrap();
            issuer.reissues.send_modify(|reissues| *reissues += 1);
            let (user, serial) = refresh.split_once('/').unwrap();
            assert_eq!(user, n.to_string(), "another user's");
            if !issuer.used.insert(refresh.clone()) {
                issuer.reuses.push(refresh.clone());
                return Err(ReissueError::refused("used twice"));
            }
            Ok(tokens(n, serial.parse::<u64>().unwrap() + 1))
        }
    });
    Session::builder(reissue)
        .shared_store(store)
        .reissue_limit(u32::MAX, Duration::from_secs(1))
        .build()
        .unwrap()
}

fn tokens(n: usize, serial: u64) -> TokenSet {
    TokenSet::new(format!("{n}-{serial}"))
        .unwrap()
        .with_refresh_token(format!("{n}/{serial}"))
        .unwrap()
}

/// As soon as it can be. Asking the server takes its time, and that is what there is to be waited for.
async fn refreshed(session: &Session, store: &Real) {
    while let Err(error) = session.refresh().await {
        // A login may be stored only after its twin has looked for it.
        assert!(error.end_reason().is_none(), "{error:?}");
        let _ = store.read().await;
    }
}

// shows P1, P4, P8: and nobody gets the tokens of another user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_many_sessions_commit() {
    each(async |server: Server| {
        let issuer = Arc::<Mutex<Issuer>>::default();
        let mut reissues = issuer.lock().unwrap().reissues.subscribe();
        let stores = [0, 1].map(|_| server.store(server.port(), "any"));
        let sessions =
            |store: &Real| -> Vec<_> { (0..USERS).map(|n| session(store, &issuer, n)).collect() };
        let [all, twins] = [sessions(&stores[0]), sessions(&stores[1])];
        let logins = all.iter().enumerate();
        join_all(logins.map(|(n, it)| it.login(tokens(n, 1)))).await;
        for many in [1, USERS / 3, USERS] {
            let before = *reissues.borrow();
            let refreshes: Vec<_> = all
                .iter()
                .chain(&twins)
                .map(|it| {
                    let it = it.clone();
                    tokio::spawn(async move { it.refresh().await })
                })
                .collect();
            let until = reissues.wait_for(|reissues| *reissues >= before + many);
            drop(in_time(until).await.unwrap());
            server.kill().await;
            server.restart().await;
            for refresh in refreshes {
                let _ = in_time(refresh).await.unwrap();
            }
            let sessions = all.iter().chain(&twins);
            in_time(join_all(sessions.map(|it| refreshed(it, &stores[0])))).await;
            let reuses = &issuer.lock().unwrap().reuses;
            assert!(reuses.is_empty(), "killed after {many}: {reuses:?}");
        }
        for (n, it) in all.iter().chain(&twins).enumerate() {
            let token = in_time(it.token()).await.unwrap();
            assert!(token.expose().starts_with(&format!("{}-", n % USERS)));
        }
    })
    .await;
}
