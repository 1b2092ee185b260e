//! The worlds that are explored.

use std::time::Duration;

use crate::issuer::Answer;
use crate::store::Call;
use crate::world::Act;
use crate::world::Begins;
use crate::world::Kind;
use crate::world::Pause;
use crate::world::World;

/// Whatever the others do not say otherwise.
const PLAIN: World = World {
    name: "plain",
    sessions: 1,
    store: Kind::Own,
    has_lock: false,
    is_late: false,
    tasks: 2..=16,
    more: 2,
    acts: &[
        Act::Request,
        Act::Request,
        Act::Request,
        Act::Dropped,
        Act::Timed,
        Act::Token,
        Act::Expire,
    ],
    begins: Begins::Expired,
    answers: &[Answer::Give],
    calls: &[Call::Fast, Call::Slow],
    wire: Pause::Mixed(1..2000),
    disk: Pause::Mixed(1..1400),
    cool_down: Duration::from_secs(1),
    reissue_timeout: Duration::from_secs(10),
    store_timeout: Duration::from_secs(3),
    quarantine: Duration::from_secs(20),
    grace: None,
    lifetime: None,
};

const SHARED: World = World {
    name: "shared",
    sessions: 2,
    store: Kind::Shared,
    tasks: 2..=8,
    ..PLAIN
};

const ALL_ACTS: &[Act] = &[
    Act::Request,
    Act::Request,
    Act::Request,
    Act::Dropped,
    Act::Timed,
    Act::Token,
    Act::Refresh,
    Act::Login,
    Act::Logout,
    Act::Expire,
    Act::Expire,
    Act::Wait,
];

const SLOW_ACTS: &[Act] = &[
    Act::Request,
    Act::Request,
    Act::Request,
    Act::Refresh,
    Act::Wait,
    Act::Expire,
];

const ALL_ANSWERS: &[Answer] = &[
    Answer::Give,
    Answer::Give,
    Answer::Give,
    Answer::Give,
    Answer::Fail,
    Answer::Misconfigure,
    Answer::Refuse,
    Answer::Lose,
    Answer::Hang,
    Answer::Panic,
    Answer::Half,
];

const ALL_CALLS: &[Call] = &[
    Call::Fast,
    Call::Fast,
    Call::Fast,
    Call::Slow,
    Call::Slow,
    Call::Late,
    Call::Fail,
    Call::Hang,
    Call::Panic,
];

/// All of them but [`PAIR`], which is explored to its end.
pub const WORLDS: &[World] = &[
    // One session: rejections, early and late ones, dropped and timed out.
    World {
        name: "own",
        ..PLAIN
    },
    // The same, and all that an issuer can do.
    World {
        name: "own-issuer",
        answers: ALL_ANSWERS,
        ..PLAIN
    },
    // All that the user can do.
    World {
        name: "own-acts",
        acts: ALL_ACTS,
        answers: &[Answer::Give, Answer::Give, Answer::Give, Answer::Refuse],
        begins: Begins::Stored,
        ..PLAIN
    },
    // All of it.
    World {
        name: "own-all",
        acts: ALL_ACTS,
        answers: ALL_ANSWERS,
        calls: ALL_CALLS,
        ..PLAIN
    },
    // And at any speed.
    World {
        name: "own-late",
        acts: ALL_ACTS,
        answers: ALL_ANSWERS,
        calls: ALL_CALLS,
        is_late: true,
        begins: Begins::LoggedIn,
        ..PLAIN
    },
    // Tokens that say how long they live.
    World {
        name: "own-ahead",
        acts: &[
            Act::Request,
            Act::Request,
            Act::Wait,
            Act::Token,
            Act::Final,
        ],
        answers: &[Answer::Give, Answer::Give, Answer::Fail, Answer::Refuse],
        lifetime: Some(Duration::from_secs(20)),
        ..PLAIN
    },
    // Somebody outside refreshes as well.
    World {
        name: "own-adopt",
        acts: &[
            Act::Request,
            Act::Dropped,
            Act::Adopt,
            Act::Adopt,
            Act::Expire,
            Act::Login,
        ],
        begins: Begins::Stored,
        tasks: 2..=6,
        ..PLAIN
    },
    // An issuer that takes a refresh token once more for a while.
    World {
        name: "own-grace",
        answers: &[Answer::Give, Answer::Lose, Answer::Hang, Answer::Panic],
        grace: Some(Duration::from_secs(30)),
        ..PLAIN
    },
    World {
        name: "shared-2",
        ..SHARED
    },
    World {
        name: "shared-3",
        sessions: 3,
        begins: Begins::Stored,
        acts: ALL_ACTS,
        ..SHARED
    },
    World {
        name: "shared-lock",
        has_lock: true,
        answers: &[Answer::Give, Answer::Give, Answer::Fail, Answer::Panic],
        ..SHARED
    },
    // Each call of the store takes seconds, and what is in doubt is left alone for a short time only.
    World {
        name: "shared-slow",
        acts: SLOW_ACTS,
        begins: Begins::Stored,
        calls: &[Call::Slow],
        wire: Pause::Millis(1..20_000),
        disk: Pause::Millis(1..620),
        cool_down: Duration::from_millis(10),
        reissue_timeout: Duration::from_secs(50),
        store_timeout: Duration::from_secs(1),
        quarantine: Duration::from_secs(2),
        answers: &[Answer::Give, Answer::Give, Answer::Fail, Answer::Fail],
        ..SHARED
    },
    World {
        name: "shared-all",
        acts: ALL_ACTS,
        answers: ALL_ANSWERS,
        calls: ALL_CALLS,
        ..SHARED
    },
    World {
        name: "shared-late",
        acts: &[Act::Request, Act::Request, Act::Refresh, Act::Expire],
        begins: Begins::Stored,
        answers: &[Answer::Give, Answer::Fail, Answer::Fail],
        calls: &[Call::Fast, Call::Slow],
        wire: Pause::Steps(6),
        disk: Pause::Steps(6),
        cool_down: Duration::from_millis(10),
        quarantine: Duration::from_secs(120),
        is_late: true,
        ..SHARED
    },
    // And all that the users do.
    World {
        name: "shared-late-acts",
        acts: ALL_ACTS,
        calls: &[Call::Slow],
        quarantine: Duration::from_secs(120),
        is_late: true,
        ..SHARED
    },
];

/// Two tasks and nothing left to chance.
pub const PAIR: &World = &World {
    name: "pair",
    tasks: 2..=2,
    more: 0,
    acts: &[Act::Request],
    begins: Begins::StoredExpired,
    calls: &[Call::Fast],
    wire: Pause::Steps(0),
    ..PLAIN
};

/// By the name on the command line.
pub fn named(name: &str) -> Option<&'static World> {
    let all = WORLDS.iter().chain([PAIR]);
    all.into_iter().find(|world| world.name == name)
}
