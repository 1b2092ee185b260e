//! The names of a record's own members: the one table of them.
//!
//! A list beside the members once lacked the newest of them, and a login whose identity had a member of
//! that name could not be read again. So a [`Names`] can be made in the table below and nowhere else, and
//! nothing is read or written as the record's own without one.

/// The names that a member of the record may have. The first is the one in snake case, the second in
/// camel case.
#[derive(Clone, Copy)]
pub(super) struct Names(&'static [&'static str]);

impl Names {
    pub(super) fn all(self) -> &'static [&'static str] {
        self.0
    }

    pub(super) fn first(self) -> &'static str {
        self.0[0]
    }

    /// The name of a new one in a text that writes its names so.
    pub(super) fn cased(self, camel: bool) -> &'static str {
        self.0[usize::from(camel && self.0.len() > 1)]
    }
}

macro_rules! table {
    ($($(#[$doc:meta])* $member:ident: $first:literal $(or $other:literal)*;)+) => {
        $($(#[$doc])* pub(super) const $member: Names = Names(&[$first $(, $other)*]);)+

        const TABLE: &[Names] = &[$($member),+];
    };
}

table! {
    ACCESS_TOKEN: "access_token" or "accessToken";
    REFRESH_TOKEN: "refresh_token" or "refreshToken";
    EXPIRES_IN: "expires_in" or "expiresIn";
    EXPIRES_AT: "expires_at" or "expiresAt" or "accessTokenExpiresAt";
    FORMAT: "format";
    OBTAINED_AT: "obtained_at";
    IN_DOUBT: "in_doubt";
    VERSION: "version";
    EPOCH: "epoch";
    REISSUES: "reissues";
    /// Which session's record it is: a file that takes the place of another's is told by it.
    RECORD_ID: "record_id";
    TURN: "turn";
    NO_TOKENS: "no_tokens";
    LOGGED_OUT: "logged_out";
    ENDED: "ended";
    /// Which of the other members are the identity, where that is not plain from [`USUAL_IDENTITY`].
    IDENTITY: "identity_members";
    /// The members of the identity that stand here, as their names are in this table.
    IDENTITY_APART: "identity_apart";
}

/// What is taken for the user's identity in a text that does not say which members are.
pub(super) const USUAL_IDENTITY: [&str; 2] = ["id", "email"];

/// Whether the record has a member of this name for something of its own.
pub(super) fn is_own(name: &str) -> bool {
    TABLE.iter().any(|names| names.all().contains(&name))
}
