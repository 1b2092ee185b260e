//! A fault at a login, at a logout, and when a process starts.

use http::StatusCode;
use tower_token_refresh::EndReason;
use tower_token_refresh::SessionStatus;

use crate::faults::Case;
use crate::faults::Fault;
use crate::faults::each;
use crate::kind::Server;
use crate::scene::Scene;
use crate::scene::access;
use crate::scene::end_of;
use crate::scene::get;
use crate::scene::in_time;
use crate::scene::is_of;
use crate::scene::is_served;
use crate::scene::ok;
use crate::support::log_in;
use crate::support::refresh_error;
use crate::way::Side;
use crate::way::Step;

// shows P8, P13: a login counts at once, from memory, and for the others as soon as the store has it.
#[tokio::test]
async fn a_login_counts_whatever_becomes_of_the_server() {
    each(async |server: Server| {
        for fault in Fault::ALL {
            for side in [Side::Before, Side::After] {
                let _case = Case::new(&server, (fault, side));
                let scene = Scene::new(&server, 2).await;
                let [first, second] = scene.two();
                first.store.stop_at(Step::Login, side);
                let login = log_in(&first.session, scene.world.tokens("v"));
                in_time(first.store.until_stopped()).await;
                fault.begin(&scene).await;
                first.store.go_on();
                let told = in_time(login).await.unwrap();
                assert!(
                    told.as_ref().err().is_none_or(|why| why.is_not_saved()),
                    "{told:?}"
                );
                if fault.is_of_all() {
                    assert_eq!(told.is_ok(), side == Side::After);
                }
                is_served(first).await;
                assert_eq!(get(first).await.user, "v");
                assert_eq!(get(second).await.status, StatusCode::OK);
                fault.end(&scene).await;
                is_of(second, "v").await;
                scene.goes_on().await;
                scene.has_reissued(0);
                scene.one_more_round().await;
                assert_eq!(get(second).await.user, "v");
                scene.has_reissued(1);
            }
        }
    })
    .await;
}

// shows P7, P8
#[tokio::test]
async fn a_logout_counts_whatever_becomes_of_the_server() {
    each(async |server: Server| {
        for fault in Fault::ALL {
            for side in [Side::Before, Side::After] {
                let _case = Case::new(&server, (fault, side));
                let mut scene = Scene::new(&server, 2).await;
                let [first, second] = scene.two();
                first.store.stop_at(Step::Logout, side);
                let session = first.session.clone();
                let logout = tokio::spawn(async move { session.logout().await });
                in_time(first.store.until_stopped()).await;
                fault.begin(&scene).await;
                first.store.go_on();
                let told = in_time(logout).await.unwrap();
                assert!(
                    told.as_ref().err().is_none_or(|why| why.is_store()),
                    "{told:?}"
                );
                let why = get(first).await.why.unwrap();
                assert_eq!(why.end_reason(), Some(EndReason::LoggedOut));
                if fault.is_of_all() {
                    assert_eq!(told.is_ok(), side == Side::After);
                }
                if fault.is_of_all() && side == Side::Before {
                    // It can't have heard of it.
                    is_served(second).await;
                }
                fault.end(&scene).await;
                let is_out = |status: &SessionStatus| !status.is_logged_in();
                in_time(second.until(is_out)).await;
                scene
                    .until(|it| it.version() > 0 && access(it).is_none())
                    .await;
                let fresh = scene.start().await;
                assert_eq!(end_of(fresh).await, Some(EndReason::LoggedOut));
                scene.has_reissued(0);
            }
        }
    })
    .await;
}

// shows B7: "cannot say" is never "nobody is logged in".
#[tokio::test]
async fn a_process_that_starts_while_the_store_cannot_be_read_does_not_take_that_for_nobody_is_logged_in()
 {
    each(async |server: Server| {
        for fault in Fault::ALL {
            let _case = Case::new(&server, fault);
            let scene = Scene::new(&server, 2).await;
            let user = scene.access().await;
            let mut fresh = Scene::of(&scene);
            fresh.start().await;
            fault.begin(&fresh).await;
            let process = &fresh.processes[0];
            for _ in 0..2 {
                let error = in_time(process.client.get()).await.unwrap_err();
                let why = refresh_error(&error);
                assert!(why.is_store() && why.is_transient(), "{why:?}");
            }
            assert_eq!(process.session.status(), SessionStatus::Unloaded);
            assert!(in_time(process.session.refresh()).await.is_err());
            fault.end(&fresh).await;
            ok(process).await;
            assert_eq!(fresh.access().await, user);
            scene.has_reissued(0);
        }
    })
    .await;
}
