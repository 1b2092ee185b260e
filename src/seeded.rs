//! Faults that are put in on purpose, to see that the explorer and the programs notice them.
//!
//! `seeded!(Name)` stands at the place where a fault has its effect. It is `false`, and nothing is
//! left of it, unless the crate is built with `--cfg seeded_faults`: then it is true for the one fault
//! that the environment variable `SEEDED_FAULT` names.
//!
//! What is seeded is the effect that a mistake would have ("published before saved"), not the text of
//! some old mistake: so a fault outlives a rebuild of the code around it.

#[cfg(seeded_faults)]
macro_rules! seeded {
    ($fault:ident) => {
        $crate::seeded::is_seeded($crate::seeded::Fault::$fault)
    };
}

#[cfg(not(seeded_faults))]
macro_rules! seeded {
    ($fault:ident) => {
        false
    };
}

pub(crate) use seeded;

#[cfg(seeded_faults)]
macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident,)*) => {
        /// What can be seeded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Fault {
            $($(#[$doc])* $fault,)*
        }

        impl Fault {
            const ALL: &[Self] = &[$(Self::$fault,)*];
        }
    };
}

#[cfg(seeded_faults)]
faults! {
    /// Attempts to get a token do not look whether somebody else has fetched one meanwhile.
    NoSecondLook,
    /// New tokens are used before the store has them.
    PublishedBeforeSaved,
    /// A reissue that has timed out makes room for the next one, as if nothing were under way.
    GateFreedOnTimeout,
    /// After a failure, nobody tries again for this token.
    FailureKept,
    /// Tokens of one login are installed in the next.
    EpochUnchecked,
    /// Those who wait are told nothing when the reissuer panics.
    PanicUnsettled,
    /// An attempt of the login before ends the one that has taken its place.
    StragglerEnds,
    /// A rejection of an older token is held against the newer one.
    LateRejectionCounts,
    /// An attempt gives back the claim of another.
    ClaimOfAnother,
    /// The claim of an attempt that is under way is forgotten, and not renewed any more.
    ClaimForgotten,
    /// Found by the programs: see docs/seeded-faults.md.
    BodyReplayedEmpty,
    DoubleReissue,
    EndToldTwice,
    FailureEnds,
    FailureSettlesNobody,
    LateRejectionReissues,
    NoCoolDown,
    NoEpochCheckOnReplay,
    NoEpochCheckWhenHeld,
    NoReissueLimit,
    NoTurn,
    RotatedTokenLost,
    SameTokenForAllUsers,
}

/// Does the environment name this fault? One that it names and nobody knows ends the process: a run
/// that seeds nothing would pass for one that found nothing.
#[cfg(seeded_faults)]
pub(crate) fn is_seeded(fault: Fault) -> bool {
    use std::sync::OnceLock;

    static SEEDED: OnceLock<Option<Fault>> = OnceLock::new();
    let seeded = SEEDED.get_or_init(|| {
        let name = std::env::var("SEEDED_FAULT").ok();
        let name = name.filter(|name| !name.is_empty())?;
        let named = |fault: &&Fault| format!("{fault:?}") == name;
        let known = Fault::ALL.iter().find(named).copied();
        if known.is_none() {
            eprintln!(
                "SEEDED_FAULT is {name:?}, and the faults are {:?}",
                Fault::ALL
            );
            std::process::exit(2);
        }
        known
    });
    *seeded == Some(fault)
}

/// The first token that anybody was given, for everybody.
#[cfg(seeded_faults)]
pub(crate) fn first(header: Option<http::HeaderValue>) -> Option<http::HeaderValue> {
    use std::sync::OnceLock;

    static FIRST: OnceLock<http::HeaderValue> = OnceLock::new();
    header.map(|header| FIRST.get_or_init(|| header).clone())
}
