//! A fault in the middle of each step of a refresh.

use http::StatusCode;

use crate::faults::Case;
use crate::faults::Fault;
use crate::faults::each;
use crate::kind::Server;
use crate::scene::Process;
use crate::scene::Scene;
use crate::scene::get;
use crate::scene::in_time;
use crate::scene::is_served;
use crate::scene::is_told_why;
use crate::support::Script;
use crate::support::World;
use crate::way::Side;
use crate::way::Step;

/// Where the one that refreshes is when the fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    At(Step, Side),
    /// The issuer has got the refresh token, and has not answered.
    Waits,
}

const MOMENTS: [Moment; 11] = [
    Moment::At(Step::Read, Side::Before),
    Moment::At(Step::Read, Side::After),
    Moment::At(Step::Claim, Side::Before),
    Moment::At(Step::Claim, Side::After),
    Moment::Waits,
    Moment::At(Step::Renewal, Side::Before),
    Moment::At(Step::Renewal, Side::After),
    Moment::At(Step::Commit, Side::Before),
    Moment::At(Step::Commit, Side::After),
    Moment::At(Step::Release, Side::Before),
    Moment::At(Step::Release, Side::After),
];

impl Moment {
    /// The issuer is busy, or has nothing to give.
    fn prepare(self, world: &World) {
        match self {
            Self::Waits | Self::At(Step::Renewal, _) => world.hold_reissues(),
            Self::At(Step::Release, _) => world.script(Script::Transient),
            Self::At(..) => {}
        }
    }

    fn let_go(self, world: &World) {
        if matches!(self, Self::Waits | Self::At(Step::Renewal, _)) {
            world.release_reissues();
        }
    }

    async fn reach(self, process: &Process, world: &World) {
        match self {
            Self::Waits => in_time(world.until(|counts| counts.reissues == 1)).await,
            Self::At(..) => in_time(process.store.until_stopped()).await,
        }
    }
}

async fn at_each_moment(server: Server, fault: Fault) {
    for moment in MOMENTS {
        let _case = Case::new(&server, (fault, moment));
        let scene = Scene::new(&server, 2).await;
        let [first, second] = scene.two();
        moment.prepare(&scene.world);
        if let Moment::At(step, side) = moment {
            first.store.stop_at(step, side);
        }
        let refresh = first.refresh();
        moment.reach(first, &scene.world).await;
        fault.begin(&scene).await;
        first.store.go_on();
        // The token is good, and used.
        is_served(first).await;
        is_served(second).await;
        moment.let_go(&scene.world);
        let refreshed = in_time(refresh).await.unwrap();
        let asked = scene.world.counts().reissues;
        let has_answered = asked == 1 && !matches!(moment, Moment::At(Step::Release, _));
        assert_eq!(refreshed.is_ok(), has_answered, "{refreshed:?}");
        is_served(first).await;
        is_served(second).await;
        // Now it is not good any more, and the answers are the server's.
        scene.world.expire();
        let others = second.send();
        is_told_why(&get(first).await);
        fault.end(&scene).await;
        let answer = in_time(others).await.unwrap();
        if answer.status != StatusCode::OK {
            is_told_why(&answer);
        }
        scene.goes_on().await;
        scene.has_reissued(asked + 1);
        scene.one_more_round().await;
        scene.has_reissued(asked + 2);
    }
}

// shows P1, P4, P13, B7, B137
#[tokio::test]
async fn a_server_that_is_killed_at_any_step_of_a_refresh() {
    each(|server| at_each_moment(server, Fault::Killed)).await;
}

#[tokio::test]
async fn a_server_that_stands_still_at_any_step_of_a_refresh() {
    each(|server| at_each_moment(server, Fault::Stopped)).await;
}

#[tokio::test]
async fn a_process_that_is_cut_off_at_any_step_of_a_refresh() {
    each(|server| at_each_moment(server, Fault::CutOff)).await;
}

#[tokio::test]
async fn a_process_that_is_not_heard_at_any_step_of_a_refresh() {
    each(|server| at_each_moment(server, Fault::Unheard)).await;
}

#[tokio::test]
async fn a_process_that_is_not_answered_at_any_step_of_a_refresh() {
    each(|server| at_each_moment(server, Fault::Unanswered)).await;
}
