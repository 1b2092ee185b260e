//! The four ways to ask for new tokens, as command lines.

// Each test file uses a part of it.
#![allow(dead_code)]

use crate::backend::Backend;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Member,
    Cookie,
    OAuth2,
    /// It does not say who asks.
    OAuth2Unnamed,
    ClientCredentials,
}

impl Style {
    /// Those that need a refresh token.
    pub const LOGGED_IN: [Self; 4] = [
        Self::Member,
        Self::Cookie,
        Self::OAuth2,
        Self::OAuth2Unnamed,
    ];

    pub fn arguments(self, backend: &Backend) -> Vec<String> {
        let (style, path) = match self {
            Self::Member => ("member", "/member/token/refresh"),
            Self::Cookie => ("cookie", "/v1/api/auth/reissue"),
            Self::OAuth2 | Self::OAuth2Unnamed => ("oauth2", "/oauth/token"),
            Self::ClientCredentials => ("client-credentials", "/oauth/token"),
        };
        let client = backend.client();
        let reissue = format!("{}{path}", backend.base());
        let mut arguments = vec!["--style", style, "--reissue", &reissue];
        match self {
            Self::Member | Self::Cookie => {
                arguments.extend(["--expired-code", "T-002", "--ended-code", "T-003"]);
            }
            Self::OAuth2 | Self::ClientCredentials => {
                arguments.extend(["--client-id", &client.id, "--client-secret", &client.secret]);
            }
            Self::OAuth2Unnamed => {}
        }
        arguments.into_iter().map(str::to_owned).collect()
    }
}
