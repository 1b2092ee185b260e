//! Tokens that say where they come from: of which login, and the how-manieth pair of it.

use tower_token_refresh::TokenSet;

use crate::report::violated;

/// A pair of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    pub login: usize,
    pub nth: usize,
}

impl Pair {
    pub fn tokens(self) -> TokenSet {
        let Self { login, nth } = self;
        let tokens = TokenSet::new(format!("access-{login}-{nth}"))
            .and_then(|it| it.with_refresh_token(format!("refresh-{login}-{nth}")));
        match tokens {
            Ok(tokens) => tokens,
            Err(error) => violated("the explorer", &error.to_string()),
        }
    }

    /// Of an access token, a refresh token or a header.
    pub fn parse(text: &str) -> Self {
        let mut numbers = text.rsplit('-').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(nth)), Some(Ok(login))) => Self { login, nth },
            _ => violated("P12", &format!("this is no token of anybody: {text}")),
        }
    }

    /// Of the pair in a set.
    pub fn of(tokens: &TokenSet) -> Self {
        Self::parse(tokens.access_token().expose())
    }

    /// Of its refresh token, which may be an older or a newer one.
    pub fn of_refresh(tokens: &TokenSet) -> Option<Self> {
        Some(Self::parse(tokens.refresh_token()?.expose()))
    }
}
