//! A fault in the middle of each step of a refresh.

use futures::future::join_all;
use http::StatusCode;

use crate::kind::Kind;
use crate::kind::Server;
use crate::proxy;
use crate::proxy::Fate;
use crate::scene::Scene;
use crate::scene::get;
use crate::scene::in_time;
use crate::scene::is_served;
use crate::scene::is_told_why;
use crate::way::Side;
use crate::way::Step;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    Stopped,
    /// The one that refreshes can't reach the server any more.
    CutOff,
    /// What it sends never arrives.
    Unheard,
    /// What it sends arrives, and no answer comes back.
    Unanswered,
}

impl Fault {
    async fn begin(self, scene: &Scene) {
        let way = |requests, answers| proxy::Way { requests, answers };
        let first = &scene.proxies[0];
        match self {
            Self::Killed => scene.server.kill().await,
            Self::Stopped => scene.server.stop().await,
            Self::CutOff => {
                first.set_next(None);
                first.cut();
            }
            Self::Unheard | Self::Unanswered => {
                let way = match self {
                    Self::Unheard => way(Fate::Lost, Fate::Pass),
                    _ => way(Fate::Pass, Fate::Lost),
                };
                first.set_next(Some(way));
                first.set(way);
            }
        }
    }

    async fn end(self, scene: &Scene) {
        let first = &scene.proxies[0];
        match self {
            Self::Killed => scene.server.restart().await,
            Self::Stopped => scene.server.resume().await,
            Self::CutOff | Self::Unheard | Self::Unanswered => {
                first.set_next(Some(proxy::Way::OPEN));
                first.cut();
            }
        }
    }
}

const STEPS: [(Step, Side); 6] = [
    (Step::Read, Side::Before),
    (Step::Read, Side::After),
    (Step::Claim, Side::Before),
    (Step::Claim, Side::After),
    (Step::Commit, Side::Before),
    (Step::Commit, Side::After),
];

async fn each_step(kind: Kind, fault: Fault) {
    let server = Server::start(kind).await;
    for (step, side) in STEPS {
        let began = std::time::Instant::now();
        eprintln!("{kind:?} {fault:?} {side:?} {step:?}");
        let scene = Scene::new(&server, 2).await;
        let [first, second] = &scene.processes[..] else {
            unreachable!()
        };
        first.store.stop_at(step, side);
        let refresh = first.refresh();
        in_time(first.store.until_stopped()).await;
        fault.begin(&scene).await;
        first.store.go_on();
        // Meanwhile the token is good, and used.
        is_served(first).await;
        is_served(second).await;
        let refreshed = in_time(refresh).await.unwrap();
        let asked = scene.world.counts().reissues;
        assert!(asked <= 1);
        eprintln!(
            "   {kind:?} {refreshed:?}, asked {asked} {:?}",
            began.elapsed()
        );
        assert_eq!(refreshed.is_ok(), asked == 1, "{refreshed:?}");
        is_served(first).await;
        is_served(second).await;
        // And when it is no longer good, the answers are the server's.
        scene.world.expire();
        let others = second.send();
        let answer = get(first).await;
        eprintln!(
            "   {kind:?} first {} {:?} {:?}",
            answer.status,
            answer.why,
            began.elapsed()
        );
        fault.end(&scene).await;
        let answer = in_time(others).await.unwrap();
        eprintln!(
            "   {kind:?} second {} {:?} {:?}",
            answer.status,
            answer.why,
            began.elapsed()
        );
        if answer.status != StatusCode::OK {
            is_told_why(&answer);
        }
        scene.goes_on().await;
        eprintln!(
            "   {kind:?} went on {:?} {:?}",
            began.elapsed(),
            scene.world.counts()
        );
        scene.has_reissued(asked + 1);
        scene.one_more_round().await;
        scene.has_reissued(asked + 2);
    }
}

async fn both(fault: Fault) {
    join_all(Kind::ALL.map(|kind| each_step(kind, fault))).await;
}

#[tokio::test]
async fn a_server_that_is_killed_at_any_step() {
    both(Fault::Killed).await;
}

#[tokio::test]
async fn a_server_that_is_stopped_at_any_step() {
    both(Fault::Stopped).await;
}

#[tokio::test]
async fn cut_off() {
    both(Fault::CutOff).await;
}

#[tokio::test]
async fn unheard() {
    both(Fault::Unheard).await;
}

#[tokio::test]
async fn unanswered() {
    both(Fault::Unanswered).await;
}
