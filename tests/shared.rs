//! Proves the promises for several processes that share a login (P1, P5 to P9 and P13 between them), with
//! one session for each process and a store in memory between them.

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use shared::Common;
use shared::Process;
use shared::expired;
use support::Script;
use support::World;
use tokio::time::Instant;
use tokio::time::advance;
use tower_token_refresh::EndReason;
use tower_token_refresh::LostReply;
use tower_token_refresh::Reissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReissueRequest;
use tower_token_refresh::Session;
use tower_token_refresh::SessionStatus;
use tower_token_refresh::TokenSet;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn stores() -> [Common; 2] {
    [Common::new(), Common::with_lock()]
}

// shows P1, B131, B132
#[tokio::test]
async fn any_number_of_processes_make_one_reissue() {
    for store in stores() {
        let world = World::new();
        let processes = expired(&world, &store, 8).await;
        world.hold_reissues();
        let all = join_all(processes.iter().map(|process| process.get()));
        let release = async {
            world.until(|counts| counts.reissues == 1).await;
            world.until(|counts| counts.rejections == 8).await;
            world.release_reissues();
        };
        let (answers, ()) = tokio::join!(all, release);
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
        let counts = world.counts();
        assert_eq!((counts.reissues, counts.reuses), (1, 0));
        assert_eq!(counts.requests, 8 + 2 * 8);
        let reissues: u64 = processes.iter().map(|it| it.session.stats().reissues).sum();
        let adopted: u64 = processes.iter().map(|it| it.session.stats().adopted).sum();
        assert_eq!((reissues, adopted), (1, 7));
    }
}

// shows P2: one that finds out later needs no reissue, and no request of it was lost on the old token.
#[tokio::test]
async fn what_one_process_fetches_is_adopted_by_the_others_before_they_need_it() {
    let (world, store) = (World::new(), Common::new());
    let processes = expired(&world, &store, 3).await;
    let rejections = world.counts().rejections;
    processes[0].is_ok().await;
    for other in &processes[1..] {
        other
            .until(|status| matches!(status, SessionStatus::LoggedIn { generation: 2, .. }))
            .await;
        other.is_ok().await;
    }
    assert_eq!(world.counts().rejections, rejections + 1);
    assert_eq!(world.counts().reissues, 1);
}

#[tokio::test]
async fn round_after_round_there_is_one_reissue() {
    for store in stores() {
        let world = World::new();
        let processes: Vec<_> = (0..4)
            .map(|_| Process::with(&world, &store, |it| it.reissue_limit(1000, seconds(1))))
            .collect();
        processes[0].session.login(world.tokens("u")).await.unwrap();
        for round in 1..=25 {
            world.expire();
            let answers = join_all(processes.iter().map(|process| process.get())).await;
            assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
            assert_eq!(world.counts().reissues, round);
        }
        assert_eq!(world.counts().reuses, 0);
    }
}

// shows P7, P8: a logout counts everywhere.
#[tokio::test]
async fn a_logout_in_one_process_is_one_in_all() {
    let (world, store) = (World::new(), Common::new());
    let processes = expired(&world, &store, 2).await;
    processes[0].session.logout().await.unwrap();
    let status = processes[1].until(|status| !status.is_logged_in()).await;
    assert_eq!(status, SessionStatus::LoggedOut);
    let answer = processes[1].get().await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.seen().last().unwrap().token, None, "it went out bare");
    assert_eq!(world.counts().reissues, 0);
}

// shows P8: so does a login, and nothing of the old one is sent again with its token.
#[tokio::test]
async fn a_login_in_one_process_is_one_in_all() {
    for store in stores() {
        let world = World::new();
        let processes = expired(&world, &store, 2).await;
        world.hold_reissues();
        let mut waiting = pin!(processes[1].get());
        poll_fn(|context| {
            assert!(waiting.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        let ((), answer) = tokio::join!(
            async {
                world.until(|counts| counts.reissues == 1).await;
                processes[0].session.login(world.tokens("v")).await.unwrap();
            },
            waiting
        );
        // The reissue has had no answer yet, and nobody waits for that.
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.why.unwrap().end_reason(), Some(EndReason::Replaced));
        assert_eq!(processes[1].session.stats().failures.refused, 0);
        world.release_reissues();
        assert_eq!(processes[1].get().await.user, "v");
        assert_eq!(processes[0].get().await.user, "v");
        assert!(store.access().await.starts_with("a-v"));
    }
}

// shows P6, P7: one refusal, and the end is told once to each.
#[tokio::test]
async fn a_refusal_ends_the_session_in_all_processes_and_the_issuer_is_asked_once() {
    for store in stores() {
        let world = World::new();
        let processes = expired(&world, &store, 4).await;
        world.script(Script::Refuse);
        let answers = join_all(processes.iter().map(|process| process.get())).await;
        for (answer, process) in answers.iter().zip(&processes) {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            let why = answer.why.as_ref().unwrap();
            assert_eq!(why.end_reason(), Some(EndReason::Refused), "{why:?}");
            assert_eq!(process.session.stats().ends, 1);
        }
        assert_eq!(world.counts().reissues, 1);
        // One that is started afterwards knows, and a new login is one for all.
        let late = Process::new(&world, &store);
        assert_eq!(late.get().await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(late.session.status().end_reason(), Some(EndReason::Refused));
        late.session.login(world.tokens("u")).await.unwrap();
        for process in &processes {
            process.until(SessionStatus::is_logged_in).await;
            process.is_ok().await;
        }
    }
}

// shows P6, B136: the refusal is not the end where another process has stored a newer pair.
#[tokio::test]
async fn a_refusal_is_not_the_end_where_the_store_has_a_newer_pair() {
    let (world, store) = (World::new(), Common::new());
    let processes = expired(&world, &store, 2).await;
    // The one that is in the middle of its reissue is taken for dead, and comes too late.
    processes[1].is_ok().await;
    // The other has seen the new token accepted: a rejection of one that is too fresh starts nothing.
    processes[0].is_ok().await;
    world.expire();
    world.script(Script::Refuse);
    world.hold_reissues();
    let old = store.record().await;
    let ((), answer) = tokio::join!(
        async {
            world.until(|counts| counts.reissues == 2).await;
            // A third process has committed a successor in the meantime.
            let third = Process::new(&world, &store);
            third.session.adopt(world.tokens("u")).await.unwrap();
            world.release_reissues();
        },
        processes[0].get()
    );
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.why);
    assert!(store.record().await.version() > old.version());
    assert!(processes[0].session.status().is_logged_in());
}

// shows P6: a refresh ahead that was refused is not tried by each process anew.
#[tokio::test(start_paused = true)]
async fn a_refused_refresh_ahead_is_known_to_the_others() {
    let (world, store) = (World::new(), Common::new());
    let ahead = || Process::with(&world, &store, |it| it.refresh_ahead(seconds(30)));
    let (one, other) = (ahead(), ahead());
    let tokens = world.tokens("u").with_expires_in(seconds(100));
    one.session.login(tokens).await.unwrap();
    other.is_ok().await;
    advance(seconds(80)).await;
    world.script(Script::Refuse);
    let error = one.session.refresh().await.unwrap_err();
    assert!(error.is_refused() && !error.is_session_ended());
    let error = other.session.refresh().await.unwrap_err();
    assert!(error.is_refused() && !error.is_session_ended());
    assert_eq!(world.counts().reissues, 1);
    other.is_ok().await;
    world.expire();
    let why = other.get().await.why.unwrap();
    assert_eq!(why.end_reason(), Some(EndReason::Refused));
    one.until(|status| status.end_reason() == Some(EndReason::Refused))
        .await;
    assert_eq!(world.counts().reissues, 1);
}

// shows section 4 between processes: nobody presents what may be spent, until the quarantine is over.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_in_one_process_is_a_doubt_in_all() {
    for store in stores() {
        let world = World::new();
        let processes = expired(&world, &store, 3).await;
        world.script(Script::Unknown);
        let why = processes[0].get().await.why.unwrap();
        assert!(why.is_outcome_unknown());
        for process in &processes {
            let why = process.get().await.why.unwrap();
            assert!(why.is_outcome_unknown(), "{why:?}");
            assert!(process.session.status().is_in_doubt());
        }
        assert_eq!(world.counts().reissues, 1);
        advance(seconds(10)).await;
        let answers = join_all(processes.iter().map(|process| process.get())).await;
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
        world.has_reissued(2);
        assert_eq!(store.tokens().await.unwrap().in_doubt(), None);
    }
}

// shows section 4: with a grace window another process tries again at once.
#[tokio::test(start_paused = true)]
async fn within_a_grace_window_another_process_tries_again() {
    let (world, store) = (World::new(), Common::new());
    world.grace(seconds(30));
    let okta = || Process::with(&world, &store, |it| it.lost_reply(LostReply::OKTA));
    let (one, other) = (okta(), okta());
    one.session.login(world.tokens("u")).await.unwrap();
    other.is_ok().await;
    world.expire();
    world.script(Script::Lost);
    world.script(Script::Unknown);
    world.script(Script::Unknown);
    assert!(one.get().await.why.unwrap().is_outcome_unknown());
    other.is_ok().await;
    world.has_reissued(4);
}

/// A process that dies in the middle of a reissue: with its runtime.
fn die_while_reissuing(world: &World, store: &Common) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    world.script(Script::Hang);
    let before = world.counts().reissues;
    runtime.block_on(async {
        let dying = Process::new(world, store);
        let mut request = Box::pin(async move { dying.get().await });
        tokio::select! {
            _ = &mut request => panic!("it was answered"),
            () = world.until(|counts| counts.reissues > before) => {}
        }
        // A process that is killed runs no destructor.
        std::mem::forget(request);
    });
    std::mem::forget(runtime);
}

// shows B134, section 4: what the dead may have sent is in doubt, and then it goes on. Where the store has
// a lock, its death is known at once; else the claim runs out first.
#[tokio::test(start_paused = true)]
async fn what_a_dead_process_has_claimed_is_left_alone_until_nothing_of_it_can_be_on_its_way() {
    for (store, claimed) in [(Common::new as fn() -> _, 12), (Common::with_lock, 0)] {
        let (world, store) = (World::new(), store());
        let living = expired(&world, &store, 1).await.remove(0);
        let (world2, store2) = (world.clone(), store.clone());
        let dying = std::thread::spawn(move || die_while_reissuing(&world2, &store2));
        dying.join().unwrap();
        store.kill_holder();
        let began = Instant::now();
        let why = living.get().await.why.unwrap();
        assert!(why.is_outcome_unknown(), "{why:?}");
        let waited = began.elapsed().as_secs();
        assert!(waited.abs_diff(claimed) <= 1, "{waited} s");
        assert!(living.session.status().is_in_doubt());
        advance(seconds(8)).await;
        assert!(living.get().await.why.unwrap().is_outcome_unknown());
        assert_eq!(world.counts().reissues, 1);
        advance(seconds(3)).await;
        living.is_ok().await;
        world.has_reissued(2);
    }
}

// shows P4: one that is stopped, and holds the lock, costs the others an error and no reuse.
#[tokio::test(start_paused = true)]
async fn a_holder_that_does_nothing_is_waited_for_and_never_overtaken() {
    let (world, store) = (World::new(), Common::with_lock());
    let living = expired(&world, &store, 1).await.remove(0);
    let (world2, store2) = (world.clone(), store.clone());
    let stopped = std::thread::spawn(move || die_while_reissuing(&world2, &store2));
    stopped.join().unwrap();
    for _ in 0..5 {
        let why = living.get().await.why.unwrap();
        assert!(why.is_store() && why.is_transient(), "{why:?}");
        advance(seconds(100)).await;
    }
    assert_eq!(world.counts().reissues, 1);
    assert!(living.session.status().is_logged_in());
}

// shows client credentials between processes: one token for all, and an end is none for ever.
#[tokio::test]
async fn a_session_that_needs_no_login_shares_its_token_too() {
    for store in stores() {
        let asked = Arc::new(AtomicUsize::new(0));
        let session = || {
            let asked = asked.clone();
            let issuer = NoLogin(asked);
            Session::builder(issuer)
                .shared_store(store.other())
                .build()
                .unwrap()
        };
        let sessions: Vec<_> = (0..4).map(|_| session()).collect();
        let tokens = join_all(sessions.iter().map(Session::token)).await;
        let tokens: Vec<_> = tokens
            .iter()
            .map(|token| token.as_ref().unwrap().expose())
            .collect();
        assert_eq!(tokens, ["t1"; 4]);
        sessions[1].refresh().await.unwrap();
        assert_eq!(session().token().await.unwrap().expose(), "t2");
        sessions[2].logout().await.unwrap();
        assert_eq!(session().token().await.unwrap().expose(), "t3");
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }
}

/// An issuer of client credentials.
struct NoLogin(Arc<AtomicUsize>);

impl Reissue for NoLogin {
    async fn reissue(&self, _: ReissueRequest) -> Result<TokenSet, ReissueError> {
        let n = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        TokenSet::new(format!("t{n}")).map_err(ReissueError::unknown)
    }

    fn needs_refresh_token(&self) -> bool {
        false
    }
}

// shows DESIGN section 7: a valid token goes on being used while the store is away, and nothing is
// reissued.
#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_nothing_is_reissued_and_a_valid_token_goes_on() {
    let (world, store) = (World::new(), Common::new());
    let processes = expired(&world, &store, 2).await;
    processes[0].store.set_away(true);
    let why = processes[0].get().await.why.unwrap();
    assert!(why.is_store() && why.is_transient());
    assert_eq!(world.counts().reissues, 0);
    // The other one can, and the first goes on as soon as it can.
    processes[1].is_ok().await;
    processes[0].store.set_away(false);
    advance(seconds(2)).await;
    processes[0].is_ok().await;
    assert_eq!(world.counts().reissues, 1);
    processes[0].store.set_away(true);
    processes[0].is_ok().await;
}

// shows P13: the new pair is used from memory, the others wait, and it is stored when that can be.
#[tokio::test(start_paused = true)]
async fn a_pair_that_cannot_be_stored_is_used_and_never_lost_to_the_others() {
    for store in stores() {
        let world = World::new();
        let processes = expired(&world, &store, 2).await;
        world.hold_reissues();
        let (answer, ()) = tokio::join!(processes[0].get(), async {
            world.until(|counts| counts.reissues == 1).await;
            processes[0].store.set_away(true);
            world.release_reissues();
        });
        assert_eq!(answer.status, StatusCode::OK);
        let unsaved =
            |status: &SessionStatus| matches!(status, SessionStatus::LoggedIn { saved: false, .. });
        assert!(unsaved(&processes[0].session.status()));
        let (answer, ()) = tokio::join!(processes[1].get(), async {
            processes[0].store.set_away(false);
            processes[0].until(|status| !unsaved(status)).await;
        });
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.why);
        world.has_reissued(1);
    }
}

// shows section 7: "unknown is read back".
#[tokio::test]
async fn a_swap_without_an_answer_is_read_back() {
    let (world, store) = (World::new(), Common::new());
    let processes = expired(&world, &store, 2).await;
    store.answer_unknown(2);
    processes[0].is_ok().await;
    processes[1].is_ok().await;
    world.has_reissued(1);
    assert!(processes[0].session.stats().failures == Default::default());
}

#[tokio::test(start_paused = true)]
async fn without_a_claim_that_is_stored_nothing_is_sent() {
    let (world, store) = (World::new(), Common::new());
    let processes = expired(&world, &store, 1).await;
    store.lose(1);
    assert!(processes[0].get().await.why.unwrap().is_store());
    assert_eq!(world.counts().reissues, 0);
    advance(seconds(2)).await;
    processes[0].is_ok().await;
    assert_eq!(world.counts().reissues, 1);
}

// shows S14: what is older than what was seen is refused, and nothing is presented from it.
#[tokio::test(start_paused = true)]
async fn an_older_record_is_refused() {
    let (world, store) = (World::new(), Common::new());
    let processes = expired(&world, &store, 2).await;
    let backup = store.record().await;
    processes[0].is_ok().await;
    processes[1].is_ok().await;
    store.show(Some(backup));
    world.expire();
    let why = processes[1].get().await.why.unwrap();
    assert!(why.is_store(), "{why:?}");
    assert_eq!(world.counts().reissues, 1);
    assert!(processes[1].session.status().is_logged_in());
    store.show(None);
    advance(seconds(2)).await;
    processes[1].is_ok().await;
}

// shows P5: the issuer did not process it, so the next process tries at once.
#[tokio::test]
async fn a_reissue_that_was_not_processed_gives_the_turn_to_the_next() {
    for store in stores() {
        let world = World::new();
        let processes = expired(&world, &store, 2).await;
        world.script(Script::Transient);
        assert!(processes[0].get().await.why.unwrap().is_transient());
        processes[1].is_ok().await;
        world.has_reissued(2);
    }
}

// shows P3 between processes: a caller that leaves takes nothing with it.
#[tokio::test]
async fn a_request_that_is_dropped_leaves_no_claim_behind() {
    for store in stores() {
        let world = World::new();
        let processes = expired(&world, &store, 2).await;
        world.hold_reissues();
        {
            let mut request = pin!(processes[0].get());
            poll_fn(|context| {
                assert!(request.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            tokio::select! {
                _ = &mut request => panic!("it was answered"),
                () = world.until(|counts| counts.reissues == 1) => {}
            }
        }
        let (answer, ()) = tokio::join!(processes[1].get(), async { world.release_reissues() });
        assert_eq!(answer.status, StatusCode::OK);
        world.has_reissued(1);
    }
}

// shows P8: an unwritten login of here does not overwrite what another process has done since.
#[tokio::test(start_paused = true)]
async fn a_logout_that_comes_late_does_not_undo_a_newer_login() {
    let (world, store) = (World::new(), Common::new());
    let processes = expired(&world, &store, 2).await;
    // Read before the store goes away: this is the login that it is about.
    processes[0].store.lose(1);
    assert!(processes[0].session.logout().await.is_err());
    store.log_in(&world.tokens("v")).await;
    processes[0].until(SessionStatus::is_logged_in).await;
    assert_eq!(processes[0].get().await.user, "v");
    assert!(store.access().await.starts_with("a-v"));
}
