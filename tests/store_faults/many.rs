//! Many sessions over one store handle, whose server fails while all of them commit.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tokio::time::timeout;
use tower_token_refresh::ReissueError;
use tower_token_refresh::Session;
use tower_token_refresh::TokenSet;
use tower_token_refresh::reissue_fn;

use crate::faults::each;
use crate::kind::Real;
use crate::kind::Server;

#[derive(Default)]
struct Issuer {
    used: HashSet<String>,
    reuses: Vec<String>,
    reissues: usize,
}

async fn pass(time: u64) {
    let _ = timeout(Duration::from_millis(time), pending::<()>()).await;
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
            issuer.reissues += 1;
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

// shows P1, P4, P8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_hundreds_of_sessions_commit() {
    each(async |server: Server| {
        let issuer = Arc::<Mutex<Issuer>>::default();
        let stores = [0, 1].map(|_| server.store(server.port(), "any"));
        let all: Vec<_> = (0..400).map(|n| session(&stores[0], &issuer, n)).collect();
        let twins: Vec<_> = (0..400).map(|n| session(&stores[1], &issuer, n)).collect();
        let logins = all
            .iter()
            .enumerate()
            .map(|(n, it)| it.login(tokens(n, 1)));
        let failed = join_all(logins).await.iter().filter(|it| it.is_err()).count();
        println!("{failed} logins are not saved at once");
        for wait in [20, 150, 400, 900] {
            let refreshes: Vec<_> = all
                .iter()
                .chain(&twins)
                .map(|it| {
                    let it = it.clone();
                    tokio::spawn(async move { it.refresh().await })
                })
                .collect();
            pass(wait).await;
            server.kill().await;
            pass(300).await;
            server.restart().await;
            let mut failed = 0;
            for refresh in refreshes {
                let told = timeout(Duration::from_secs(100), refresh).await;
                failed += usize::from(told.expect("it hangs").unwrap().is_err());
            }
            let began = Instant::now();
            // All of them go on.
            loop {
                let refreshes = all.iter().chain(&twins).map(Session::refresh);
                let told = join_all(refreshes).await;
                let bad = told.iter().filter(|it| it.is_err()).count();
                if bad == 0 {
                    break;
                }
                let why = told.into_iter().find_map(Result::err);
                assert!(began.elapsed() < Duration::from_secs(60), "{bad} fail: {why:?}");
                pass(500).await;
            }
            let issuer = issuer.lock().unwrap();
            println!(
                "{} killed after {wait} ms: {failed} refreshes failed, all well after {:?}; {} reissues",
                matches!(stores[0], Real::Redis(_)),
                began.elapsed(),
                issuer.reissues
            );
            assert!(issuer.reuses.is_empty(), "{:?}", issuer.reuses);
        }
        for (n, it) in all.iter().chain(&twins).enumerate() {
            let token = it.token().await.unwrap();
            assert!(token.expose().starts_with(&format!("{}-", n % 400)));
        }
    })
    .await;
}
