//! The issuer, as a session meets it: it answers, fails, refuses, loses its answers, panics, and hangs.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tower_token_refresh::Reissue;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReissueRequest;
use tower_token_refresh::TokenSet;

use crate::book::Book;
use crate::book::End;
use crate::names::Pair;
use crate::report::violated;
use crate::world::World;

/// What it does with a reissue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Answers, soon or in some seconds.
    Give,
    /// Is overloaded, and has done nothing.
    Fail,
    /// Takes nothing of what it gets.
    Misconfigure,
    /// Has had enough of this login.
    Refuse,
    /// Hands out a new pair, and the answer is lost.
    Lose,
    /// Says nothing any more: the request may have arrived or not.
    Hang,
    /// The reissuer panics before, or after, the bytes have left.
    Panic,
    /// The answer has a new refresh token and no new access token.
    Half,
}

/// The way from one session to the issuer.
pub struct Issuer {
    pub book: Arc<Book>,
    pub world: &'static World,
    pub session: usize,
}

impl Reissue for Issuer {
    async fn reissue(&self, request: ReissueRequest) -> Result<TokenSet, ReissueError> {
        let (Some(access), Some(refresh)) = (request.access_token(), request.refresh_token())
        else {
            violated("P1", "a reissue without tokens");
        };
        let (access, refresh) = (Pair::parse(access.expose()), Pair::parse(refresh.expose()));
        let mut call = Call {
            issuer: self,
            number: self.book.present(self.session, access, refresh),
            refresh,
            is_processed: false,
            end: None,
        };
        let answer = match self.book.is_healthy() {
            true => Answer::Give,
            false => self.world.answer(),
        };
        self.book.on_the_wire().await;
        match answer {
            Answer::Give => call.give().await,
            Answer::Fail => {
                call.end = Some(End::NotProcessed);
                let error = ReissueError::transient("overloaded");
                Err(match fastrand::bool() {
                    true => error.with_retry_after(Duration::from_secs(fastrand::u64(1..9))),
                    false => error,
                })
            }
            Answer::Misconfigure => {
                call.end = Some(End::NotProcessed);
                Err(ReissueError::misconfigured("no such client"))
            }
            Answer::Refuse => {
                self.book.revoke(refresh.login);
                call.give().await
            }
            Answer::Lose => {
                call.process();
                Err(ReissueError::unknown("the connection broke"))
            }
            Answer::Hang => pending().await,
            Answer::Panic => {
                if fastrand::bool() {
                    call.process();
                }
                // Without the hook: it is meant to happen.
                resume_unwind(Box::new("planned"))
            }
            Answer::Half => match call.process() {
                Some(pair) => {
                    call.end = Some(End::Answered);
                    let refresh = pair.tokens().refresh_token().cloned();
                    let error = ReissueError::unknown("half an answer");
                    Err(match refresh {
                        Some(refresh) => error.with_refresh_token(refresh),
                        None => error,
                    })
                }
                None => call.refuse(),
            },
        }
    }
}

/// One reissue that is under way.
struct Call<'a> {
    issuer: &'a Issuer,
    number: usize,
    refresh: Pair,
    is_processed: bool,
    end: Option<End>,
}

impl Call<'_> {
    fn process(&mut self) -> Option<Pair> {
        self.is_processed = true;
        self.issuer.book.process(self.refresh)
    }

    async fn give(&mut self) -> Result<TokenSet, ReissueError> {
        let pair = self.process();
        self.issuer.book.on_the_wire().await;
        match pair {
            Some(pair) => {
                self.end = Some(End::Answered);
                let tokens = pair.tokens();
                Ok(match self.issuer.world.lifetime {
                    Some(lifetime) => tokens.with_expires_in(lifetime),
                    None => tokens,
                })
            }
            None => self.refuse(),
        }
    }

    fn refuse(&mut self) -> Result<TokenSet, ReissueError> {
        self.end = Some(End::Refused);
        Err(ReissueError::refused("no"))
    }
}

impl Drop for Call<'_> {
    /// Whoever gives it up does not know what the issuer has done, or does yet.
    fn drop(&mut self) {
        let book = &self.issuer.book;
        if self.end.is_none() {
            if !self.is_processed && fastrand::bool() {
                self.process();
            }
            if self.is_processed {
                book.lose(self.refresh.login);
            }
        }
        book.end(self.number, self.end.unwrap_or(End::Unknown));
    }
}
