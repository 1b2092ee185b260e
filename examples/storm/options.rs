//! The command line, and what each scenario is about.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind, value_parser};

use crate::{
    client::{Ask, MOST_SENDS},
    words::thousands,
};

/// Many requests at once meet a token that has expired: the main job of the crate, over loopback.
///
/// Exit status: 0 when every promise was kept, 1 when one was broken, 2 for wrong usage, and 128 + n when
/// signal n has ended it (130 for Ctrl-C).
#[derive(Clone, Debug, Parser)]
#[command(name = "storm")]
pub struct Options {
    /// How many requests each round sends in parallel.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub requests: u32,
    /// How many times; each round begins with a login.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// What happens to them.
    #[arg(long, value_enum, default_value_t)]
    pub scenario: Scenario,
    /// What has not settled by then, counted from the beginning of its round, is hung.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
    /// Where to draw the requests' lives of the last round. If left out, in a new file among the temporary
    /// ones, and not at all with --json.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Prints one line of JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Refresh tokens work any number of times. If left out, the issuer gives a new one with each reissue, and
    /// ends the login when a used one comes again.
    #[arg(long)]
    pub no_rotate: bool,
    /// Makes the random moments of `cancel` and `logout` repeatable.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

impl Options {
    /// Reads the command line. Whatever can't work ends the program here, before anything is sent.
    pub fn read() -> Self {
        let options = Self::parse();
        if let Some(what) = options.plot.as_deref().and_then(unwritable) {
            let mut command = Self::command();
            command.error(ErrorKind::ValueValidation, what).exit()
        }
        options
    }

    pub fn requests(&self) -> usize {
        self.requests as usize
    }

    /// What a caller asks for: in turns what shows whose answer it is, and what has a body to lose.
    pub fn ask(&self, item: u64) -> Ask {
        match self.scenario {
            Scenario::Logout => Ask::Item(item),
            _ if item.is_multiple_of(2) => Ask::Item(item),
            _ => Ask::Echo(item),
        }
    }
}

fn unwritable(plot: &Path) -> Option<String> {
    let directory = plot
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let missing = directory.is_some_and(|directory| !directory.is_dir());
    (missing || plot.is_dir()).then(|| format!("can't write the picture to {}", plot.display()))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// The token has expired when they arrive.
    #[default]
    Expired,
    /// So it has, and the answers come spread over 200 ms: many only after the reissue.
    Late,
    /// The issuer refuses the refresh token: the session ends, for everybody, once.
    Fails,
    /// The new tokens are refused too.
    Dead,
    /// A third of the callers, the first among them, drop their request at a random moment.
    Cancel,
    /// A logout and another user's login in the middle of it.
    Logout,
    /// The token is valid: there is nothing to do.
    Steady,
    /// The issuer fails twice before it is well again, and callers who are told so try again.
    Flaky,
}

impl Scenario {
    /// The situation, for a title.
    pub fn situation(self, requests: usize) -> String {
        let n = thousands(requests);
        let them = if requests == 1 { "request" } else { "requests" };
        match self {
            Self::Expired => format!("{n} {them} at once, and the token has expired"),
            Self::Late => {
                format!("{n} {them} with an expired token, and the answers come late")
            }
            Self::Fails => format!("{n} {them} at once, and the refresh token is dead too"),
            Self::Dead => format!("{n} {them} at once, and the new tokens are refused too"),
            Self::Cancel => format!("{n} {them} at once, and a third of the callers leave"),
            Self::Logout => format!("{n} {them}, and another user logs in amid them"),
            Self::Steady => format!("{n} {them} at once, and the token is valid"),
            Self::Flaky => format!("{n} {them} at once, and the issuer fails twice"),
        }
    }

    /// How many expiries a login is put through afterwards, where it goes on.
    pub fn later_expiries(self) -> u32 {
        match self {
            Self::Fails | Self::Dead => 0,
            // As many as it may have in half a minute.
            Self::Steady => 5,
            _ => 2,
        }
    }

    /// What may be on the wire in one round at the most: protected requests and reissues.
    pub fn most_on_the_wire(self, requests: u64) -> u64 {
        match self {
            Self::Expired | Self::Late | Self::Cancel | Self::Logout => 2 * requests + 1,
            Self::Fails => requests + 1,
            Self::Dead => 2 * requests + 5,
            Self::Steady => requests,
            Self::Flaky => MOST_SENDS * requests + 3,
        }
    }

    /// The same as a formula.
    pub fn formula(self) -> &'static str {
        match self {
            Self::Expired | Self::Late | Self::Cancel | Self::Logout => "2N + 1",
            Self::Fails => "N + 1",
            Self::Dead => "2N + 5",
            Self::Steady => "N",
            Self::Flaky => "6N + 3",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
