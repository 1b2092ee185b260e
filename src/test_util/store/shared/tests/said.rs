//! What the suite says of each fault.

use super::CONFLICT;
use super::fault::Fault;

const TAKEN: &str = "it says that it is done, though the record has another version";
const SILENCE: &str = "there was no answer within 30 s";
const TWICE: &str = "two have it at once";
const FIRST: &str = "after the first swap, with version 0, a read through the first handle";
const SECOND: &str = "after the first swap, with version 0, a read through the second handle";
const RACE: &str = "several swaps at once with the same version";

/// In which step each fault shows, and in which words: as many of them as do not hang on the time of day.
pub(super) const SAID: [(Fault, &str, &str); 76] = [
    (
        Fault::IgnoresVersion,
        "a swap with version 1 of the empty storage",
        TAKEN,
    ),
    (
        Fault::TakesOlder,
        "a second swap with version 0, through the first handle",
        TAKEN,
    ),
    (
        Fault::TakesNewer,
        "a swap with version 1 of the empty storage",
        TAKEN,
    ),
    (Fault::TakesZero, "a second swap with version 0", TAKEN),
    (
        Fault::ComparesTheNewOne,
        "a swap with the version before",
        TAKEN,
    ),
    (Fault::LosesSome, "after a swap", "the version is"),
    (
        Fault::WritesOnConflict,
        "a swap with version 1 of the empty storage, a read",
        "the version is 2 in place of 0",
    ),
    (Fault::ConflictsSometimes, "a swap", CONFLICT),
    (
        Fault::IsNotOneStep,
        RACE,
        "8 of 8 were done in place of one",
    ),
    (Fault::AllAreDone, RACE, "8 of 8 were done in place of one"),
    (Fault::NoneIsDone, RACE, "0 of 8 were done in place of one"),
    (
        Fault::LoserIsStored,
        "after several swaps at once with the same version, of which one was done",
        "the epoch is",
    ),
    (
        Fault::ConflictsInARace,
        "swaps by several at once",
        "more conflicts than others have swapped",
    ),
    (
        Fault::ReadersSeeHalf,
        "while others swap",
        "the refresh token is",
    ),
    (
        Fault::ReadersSeeNothing,
        "while others swap",
        "the version is 0, where a swap to",
    ),
    (
        Fault::DropMixes,
        "after a swap that was dropped",
        "the new one (the refresh token is claimed, where it is free)",
    ),
    (
        Fault::DropForgets,
        "after a swap that was dropped",
        "neither the old record (the version is 0",
    ),
    (
        Fault::DropWritesLate,
        "a swap after one that was dropped, and some turns later",
        "the epoch is 6 in place of 7",
    ),
    (
        Fault::DropIsSeenByOne,
        "after a swap that was dropped, a read through the second handle",
        "the epoch is 5 in place of 6",
    ),
    (
        Fault::DroppedReadForgets,
        "after a read that was dropped",
        "the version is 0",
    ),
    (Fault::LagsByOne, SECOND, "the version is 0 in place of 1"),
    (
        Fault::LagsInARace,
        "a read while others swap",
        "has returned already",
    ),
    (Fault::Caches, SECOND, "the version is 0 in place of 1"),
    (
        Fault::EachHandleItsOwn,
        SECOND,
        "the version is 0 in place of 1",
    ),
    (
        Fault::KeptWhileOpen,
        "a read through a handle that was opened anew",
        "the version is 0 in place of 1",
    ),
    (
        Fault::BeginsWithALogin,
        "at first, while nothing was stored",
        "the version is 1 in place of 0",
    ),
    (Fault::LosesEpoch, FIRST, "the epoch is 0 in place of 5"),
    (Fault::VersionAsEpoch, FIRST, "the epoch is 1 in place of 5"),
    (
        Fault::VersionIn32Bits,
        "large numbers",
        "the version is 4294967295 in place of",
    ),
    (
        Fault::EpochAsFloat,
        "large numbers",
        "the epoch is 9007199254740992 in place of 9007199254740991",
    ),
    (
        Fault::LosesTurn,
        FIRST,
        "the refresh token is free, where it is claimed",
    ),
    (
        Fault::LosesRefusal,
        "after a swap",
        "the refresh token is free, where it was refused",
    ),
    (
        Fault::LosesReason,
        "an end, as the issuer refused the refresh token",
        "it ended as it was logged out, where",
    ),
    (Fault::LosesOwner, FIRST, "the claim's owner is another"),
    (Fault::OwnerIn63Bits, FIRST, "the claim's owner is another"),
    (
        Fault::LosesFence,
        FIRST,
        "the claim's fence is 0 in place of 1",
    ),
    (
        Fault::SentToTheSecond,
        FIRST,
        "when the claim was sent is 987 ms too early",
    ),
    (
        Fault::DeadlineToTheSecond,
        FIRST,
        "the claim's deadline is 332 ms too early",
    ),
    (Fault::LosesDoubt, FIRST, "the doubt is missing"),
    (
        Fault::LosesRefreshToken,
        FIRST,
        "the refresh token is missing",
    ),
    (
        Fault::LosesIdentity,
        FIRST,
        "the identity's member \"email\" is missing",
    ),
    (
        Fault::ExpiryDrifts,
        "after a swap that writes what was read",
        "the expiry is 1 s too early",
    ),
    (
        Fault::KeepsOldTokens,
        "an end, as it was logged out",
        "there are tokens",
    ),
    (
        Fault::KeepsOldTurn,
        "after a swap",
        "the refresh token is claimed, where it was refused",
    ),
    (Fault::SkipsSameTokens, "after a swap", "the epoch is"),
    (
        Fault::EndsAreEmpty,
        "an end, as it was logged out",
        "the version is 0 in place of",
    ),
    (
        Fault::NoTokensAreEmpty,
        "no tokens, and no claim",
        "the version is 0 in place of",
    ),
    (
        Fault::Foreign,
        FIRST,
        "a newer version of this crate is said to have written it",
    ),
    (
        Fault::NeverTells,
        "a wait for another than the version before",
        SILENCE,
    ),
    (
        Fault::TellsOfLaterOnes,
        "a wait for another than the version before",
        SILENCE,
    ),
    (
        Fault::TellsOfItsOwn,
        "a wait for a change, through the second handle",
        SILENCE,
    ),
    (Fault::MissesOne, "a wait for a change, through", SILENCE),
    (
        Fault::DroppedWaitIsTheLast,
        "a wait for another than the version before",
        SILENCE,
    ),
    (
        Fault::DroppedWaitForgets,
        "after a wait for a change that was dropped",
        "the version is 0 in place of",
    ),
    (
        Fault::ClockStands,
        "reads of the store's clock, through the first handle",
        "it stands still for 2 s",
    ),
    (
        Fault::ClockOfOpening,
        "reads of the store's clock, through the first handle",
        "it stands still for 2 s",
    ),
    (
        Fault::ClockGoesBack,
        "a read",
        "the store's clock went back by 3",
    ),
    (
        Fault::ClocksDiffer,
        "at first, while nothing was stored, a read through the second handle",
        "the store's clock went back by",
    ),
    (
        Fault::LockForAll,
        "a lock that is held already, through the same handle",
        TWICE,
    ),
    (
        Fault::LockOfEachHandle,
        "a lock that is held already, through another handle",
        TWICE,
    ),
    (
        Fault::LockOfTheProcess,
        "a lock that is held already, through the same handle",
        TWICE,
    ),
    (
        Fault::LockOfTheSecond,
        "a lock that nobody holds",
        "the second handle has one, and the first has none",
    ),
    (
        Fault::LockNoneIfHeld,
        "a lock that is held already",
        "there is none, while another has it",
    ),
    (
        Fault::LockInTwoSteps,
        "a lock that several want at once",
        TWICE,
    ),
    (
        Fault::LockIsNeverFreed,
        "a lock that was dropped",
        "it failed: it is held",
    ),
    (
        Fault::LockIgnoresLimit,
        "a lock that is held already",
        SILENCE,
    ),
    (
        Fault::LockBlocksSwaps,
        "a swap while the lock is held",
        SILENCE,
    ),
    (
        Fault::LockBlocksReads,
        "a read while the lock is held",
        SILENCE,
    ),
    (
        Fault::LockFails,
        "a lock that nobody holds",
        "it failed: no such lock",
    ),
    (
        Fault::DroppedLockHolds,
        "a lock after one whose call was dropped",
        "it failed: it is held",
    ),
    (
        Fault::DroppedWaitHolds,
        "a lock after a wait for it was dropped",
        "it failed: it is held",
    ),
    (
        Fault::SwapFails,
        "a swap with version 1 of the empty storage",
        "it failed: the shelf is full",
    ),
    (
        Fault::ReadFailsSometimes,
        "a read",
        "it failed: the shelf is broken",
    ),
    (
        Fault::QuotesTokens,
        "a swap with version 1 of the empty storage",
        "it failed, and its error quotes a token",
    ),
    (
        Fault::LockQuotesTokens,
        "a lock that is held already",
        "it failed, and its error quotes a token",
    ),
    (Fault::Hangs, "at first, while nothing was stored", SILENCE),
];
