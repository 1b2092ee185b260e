//! The refresh token grant of OAuth 2.0.

use super::Reissue;
use super::ReissueError;
use super::ReissueRequest;
use super::answer;
use super::answer::Contract;
use super::exchange::Exchange;
use super::grant::Grant;
use super::settings::client_settings;
use super::settings::oauth_settings;
use crate::error::ConfigError;
use crate::json::Pointer;
use crate::token::TokenSet;

/// Presents the refresh token to the token endpoint of OAuth 2.0 (RFC 6749 section 6).
///
/// The request is a form, the answer is read as section 5.1 has it: `access_token`, and, where they
/// are there, `refresh_token` and `expires_in`. A client that has a secret says so with
/// [`basic`](Self::basic) or [`client_in_body`](Self::client_in_body), one without with
/// [`public_client`](Self::public_client); without any of them the client is not named, which few
/// issuers take.
///
/// ```
/// # fn main() -> Result<(), tower_token_refresh::ConfigError> {
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use tower::service_fn;
/// use tower_token_refresh::{RefreshGrant, Session};
///
/// # let http = service_fn(async |_: http::Request<Full<Bytes>>| {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::new())))
/// # });
/// let grant = RefreshGrant::post("https://login.example.com/oauth2/token", http)
///     .basic("the-client", "its-secret")
///     .scope("orders profile");
/// let session = Session::builder(grant).build()?;
/// # Ok(())
/// # }
/// ```
///
/// # What an answer means
///
/// The code in the member `error` decides first (RFC 6749 section 5.2), on whatever status, and in a
/// 2xx without tokens as well; only `invalid_grant` needs a status that lets it. The status decides
/// where there is no code that is known.
///
/// | answer | means |
/// |---|---|
/// | `invalid_grant` in a 4xx other than 408 and 429, or in a 2xx without tokens | [refused](ReissueError::refused): the session ends |
/// | `invalid_grant` with any other status | as without a code: an issuer in trouble refuses nothing |
/// | `invalid_client`, `unauthorized_client`, `unsupported_grant_type`, `invalid_scope`, `invalid_target`, `invalid_request`, `invalid_dpop_proof` | [misconfigured](ReissueError::misconfigured) |
/// | `use_dpop_nonce` | the request is sent again with the nonce, once; without a [signer](Self::dpop), without exactly one `DPoP-Nonce`, or the second time: misconfigured |
/// | `temporarily_unavailable`, `slow_down` | [transient](ReissueError::transient), with `Retry-After` |
/// | `server_error` | [unknown](ReissueError::unknown) |
/// | 429, 503; [no answer](crate::JsonReissue#when-there-is-no-answer), and the issuer never had the request | transient, with `Retry-After` |
/// | a redirect (none is followed), any other 4xx but 408 | misconfigured |
/// | any other 5xx, 408; any other case without an answer; a success that cannot be read: no JSON, cut off, over 1 MiB, compressed, with a member given twice, without an access token | unknown, with the new refresh token if there is one |
/// | a success whose `token_type` is neither absent nor known (section 7.1) | misconfigured, with the new refresh token if there is one |
///
/// Where the table is wrong for an issuer, [`on_error`](Self::on_error) goes before it. What it returns
/// counts with whatever status, a refusal too.
pub struct RefreshGrant {
    exchange: Exchange,
    grant: Grant,
}

client_settings!(RefreshGrant, Contract::oauth() => {
    grant: Grant::new("refresh_token")
});

oauth_settings!(RefreshGrant);

impl Reissue for RefreshGrant {
    async fn reissue(&self, request: ReissueRequest) -> Result<TokenSet, ReissueError> {
        self.check().map_err(ReissueError::misconfigured)?;
        let token = request.refresh_token_to_send()?;
        let mut answer = self.grant.converse(&self.exchange, Some(token)).await?;
        let pointer = Pointer::new("/refresh_token");
        let rotated = answer::refresh_token(&mut answer.document, &pointer);
        self.exchange.contract.success(answer, rotated)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.grant.check(&self.exchange)
    }
}
