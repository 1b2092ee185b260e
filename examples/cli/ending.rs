//! What is waited for before the program ends: a refresh under way, and the new tokens' way into the
//! file.

use std::{pin::pin, time::Duration};

use tokio::time::{sleep, timeout};
use tower_token_refresh::{Session, SessionStatus};

use super::{signals::Signals, tokens::Tokens, under_way::UnderWay, words};

/// As long as a reissue with all that belongs to it may take.
const REFRESH_PATIENCE: Duration = Duration::from_secs(25);
/// Saving is tried again after a second, and then less and less often.
const SAVE_PATIENCE: Duration = Duration::from_secs(5);
/// After so long a silence it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(2);

pub struct Ending {
    /// Only a new login helps.
    pub is_over: bool,
    /// What the user has to know of the tokens.
    pub remarks: Vec<String>,
}

impl Ending {
    /// Waits. The first signal changes nothing but `status`, the exit status; whoever sends another
    /// means it, and ends the wait without a result.
    pub async fn wait_or_quit(
        session: &Session,
        tokens: &Tokens,
        under_way: &UnderWay,
        signals: &mut Signals,
        status: &mut Option<u8>,
    ) -> Option<Self> {
        let mut told = None;
        let mut tell = |is_signalled| {
            let Some(what) = waits_for(session, tokens, under_way) else {
                return;
            };
            let text = match is_signalled {
                true => format!("{what}; again to quit at once"),
                false => what.to_owned(),
            };
            if told.as_ref() != Some(&text) {
                words::say(&text);
                told = Some(text);
            }
        };
        if status.is_some() {
            tell(true);
        }
        let mut ending = pin!(Self::wait(session, tokens, under_way));
        let mut silence = pin!(sleep(SILENCE));
        loop {
            tokio::select! {
                ending = &mut ending => return Some(ending),
                number = signals.next() => {
                    if status.replace(number).is_some() {
                        if waits_for(session, tokens, under_way).is_some() {
                            words::say(words::UNFINISHED);
                        }
                        return None;
                    }
                    tell(true);
                }
                () = &mut silence, if !silence.is_elapsed() => tell(status.is_some()),
            }
        }
    }

    async fn wait(session: &Session, tokens: &Tokens, under_way: &UnderWay) -> Self {
        let settled = tokio::select! {
            settled = timeout(REFRESH_PATIENCE, under_way.settled()) => settled.map_err(|_| words::UNSETTLED.to_owned()),
            () = tokens.give_up_turn() => Err(tokens.others_turn()),
        };
        let saved = timeout(SAVE_PATIENCE, saved(session)).await;
        let is_over = matches!(session.status(), SessionStatus::Ended { .. });
        let mut remarks = Vec::new();
        remarks.extend(settled.err());
        if is_over {
            remarks.push(tokens.log_in_again());
        } else if saved.is_err() {
            remarks.push(tokens.not_saved());
        } else if let Some(doubt) = tokens.doubt().await {
            remarks.push(tokens.in_doubt(&doubt));
        }
        Self { is_over, remarks }
    }
}

fn waits_for(session: &Session, tokens: &Tokens, under_way: &UnderWay) -> Option<&'static str> {
    let is_saved = !matches!(
        session.status(),
        SessionStatus::LoggedIn { saved: false, .. }
    );
    // One that waits for its turn has nothing to finish.
    match under_way.is_any() && !tokens.is_waiting() {
        true => Some(words::FINISHING),
        false => (!is_saved).then_some(words::SAVING),
    }
}

/// Resolves when nothing is left to be saved.
async fn saved(session: &Session) {
    let mut status = session.subscribe();
    let is_saved =
        |status: &SessionStatus| !matches!(status, SessionStatus::LoggedIn { saved: false, .. });
    // An error is a session that is gone.
    let _ = status.wait_for(is_saved).await;
}
