//! The client credentials grant of OAuth 2.0.

use super::Reissue;
use super::ReissueError;
use super::ReissueErrorKind;
use super::ReissueRequest;
use super::answer::Contract;
use super::exchange::Exchange;
use super::grant::Grant;
use super::settings::client_settings;
use super::settings::oauth_settings;
use crate::error::ConfigError;
use crate::token::TokenSet;

/// Gets access tokens from the token endpoint of OAuth 2.0 for the client itself (RFC 6749 section
/// 4.4), without a user and without a refresh token.
///
/// The session needs no login: the first request has the first token fetched, and all others wait
/// for that. One of [`basic`](Self::basic), [`client_in_body`](Self::client_in_body) and
/// [`public_client`](Self::public_client) must be given. A refresh token in an answer is ignored: the
/// issuer should not send one (section 4.4.3), and the credentials do as well.
///
/// ```
/// # fn main() -> Result<(), tower_token_refresh::ConfigError> {
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use tower::service_fn;
/// use std::time::Duration;
/// use tower_token_refresh::{ClientCredentials, Session};
///
/// # let http = service_fn(async |_: http::Request<Full<Bytes>>| {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::new())))
/// # });
/// let grant = ClientCredentials::post("https://login.example.com/oauth2/token", http)
///     .basic("the-client", "its-secret")
///     .param("audience", "https://api.example.com");
/// let session = Session::builder(grant)
///     .refresh_ahead(Duration::from_secs(30))
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// # What an answer means
///
/// The same as for [`RefreshGrant`](crate::RefreshGrant#what-an-answer-means), except that nothing is
/// [refused](ReissueError::refused), as there is no refresh token: `invalid_grant`, or a refusal that
/// [`on_error`](Self::on_error) returns, is [misconfigured](ReissueError::misconfigured). So the issuer
/// never ends the session: once the credentials are right, it goes on.
pub struct ClientCredentials {
    exchange: Exchange,
    grant: Grant,
}

client_settings!(ClientCredentials, Contract::oauth() => {
    grant: Grant::new("client_credentials")
});

oauth_settings!(ClientCredentials);

impl Reissue for ClientCredentials {
    async fn reissue(&self, _: ReissueRequest) -> Result<TokenSet, ReissueError> {
        self.check().map_err(ReissueError::misconfigured)?;
        let answer = self.grant.converse(&self.exchange, None).await;
        let tokens = answer.and_then(|answer| self.exchange.contract.success(answer, Ok(None)));
        tokens.map_err(never_refused)
    }

    fn needs_refresh_token(&self) -> bool {
        false
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self.grant.names_client() {
            return Err(ConfigError::new(
                "client credentials need a client: basic(…), client_in_body(…) or public_client(…)",
            ));
        }
        self.grant.check(&self.exchange)
    }
}

/// There is no refresh token that could be dead.
fn never_refused(error: ReissueError) -> ReissueError {
    let kind = match error.kind {
        ReissueErrorKind::Refused => ReissueErrorKind::Misconfigured,
        kind => kind,
    };
    ReissueError { kind, ..error }
}
