//! What is waited for before the program ends: a refresh under way, and the new tokens' way into the
//! file.

use std::time::Duration;

use tokio::time::timeout;
use tower_token_refresh::{Session, SessionStatus};

use crate::{client::Client, tokens::Tokens, under_way::UnderWay, words};

/// As long as a reissue with all that belongs to it may take.
const REFRESH_PATIENCE: Duration = Duration::from_secs(25);
/// Saving is tried again after a second, and then less and less often.
const SAVE_PATIENCE: Duration = Duration::from_secs(5);

pub struct Ending {
    /// Only a new login helps.
    pub is_over: bool,
    /// What the user has to know of the tokens.
    pub remarks: Vec<String>,
}

impl Ending {
    pub async fn wait(client: &Client, tokens: &Tokens, under_way: &UnderWay) -> Self {
        let settled = timeout(REFRESH_PATIENCE, under_way.settled()).await;
        let saved = timeout(SAVE_PATIENCE, saved(&client.session)).await;
        let is_over = matches!(client.session.status(), SessionStatus::Ended { .. });
        let mut remarks = Vec::new();
        if settled.is_err() {
            remarks.push(words::UNSETTLED.to_owned());
        }
        if is_over {
            remarks.push(tokens.log_in_again());
        } else if saved.is_err() {
            remarks.push(tokens.not_saved());
        } else if tokens.are_in_doubt().await {
            remarks.push(tokens.in_doubt());
        }
        Self { is_over, remarks }
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
