//! Where new tokens come from, in four styles.

use ::http::StatusCode;
use tower_token_refresh::{
    ClientCredentials, CookieReissue, ErrorAnswer, JsonReissue, RefreshGrant, ReissueError,
    Session, SessionBuilder,
};

use super::{
    http::Http,
    options::{Common, Credentials, Issuer},
};

/// A session with this issuer.
pub fn session(options: &Common, http: Http) -> SessionBuilder {
    let uri = options.reissue.to_string();
    let ended = options.ended_codes.clone();
    let by_code = move |answer: &ErrorAnswer<'_>| refusal(answer, &ended);
    let home_made = {
        let by_code = by_code.clone();
        move |answer: &ErrorAnswer<'_>| by_code(answer).or_else(|| unnamed(answer))
    };
    let of_oauth = move |answer: &ErrorAnswer<'_>| by_code(answer).or_else(|| stranger(answer));
    match &options.issuer {
        Issuer::Member => Session::builder(JsonReissue::post(uri, http).on_error(home_made)),
        Issuer::Cookie => Session::builder(
            CookieReissue::post(uri, http)
                .cookie("refreshToken")
                .on_error(home_made),
        ),
        Issuer::OAuth2(client) => {
            let grant = RefreshGrant::post(uri, http).on_error(of_oauth);
            Session::builder(match client {
                Some(Credentials {
                    id,
                    secret: Some(secret),
                }) => grant.basic(id, secret),
                Some(Credentials { id, secret: None }) => grant.public_client(id),
                None => grant,
            })
        }
        Issuer::ClientCredentials { id, secret } => {
            let grant = ClientCredentials::post(uri, http).on_error(stranger);
            Session::builder(grant.basic(id, secret))
        }
    }
}

/// The refresh token is dead, as the user has named it.
fn refusal(answer: &ErrorAnswer<'_>, ended: &[String]) -> Option<ReissueError> {
    // An issuer of OAuth has its code in `error`, and may share others with the API.
    let shared = answer.member("/code").and_then(|code| code.as_str());
    let named = |code: &&String| answer.code() == Some(code) || shared == Some(code);
    let code = ended.iter().find(named)?;
    let status = answer.status();
    Some(ReissueError::refused(format!(
        "it answered {status} with the code {code:?}"
    )))
}

/// The issuer does not know who asks.
fn stranger(answer: &ErrorAnswer<'_>) -> Option<ReissueError> {
    let code = answer.code().filter(|code| *code == "invalid_client")?;
    let status = answer.status();
    Some(ReissueError::misconfigured(format!(
        "it answered {status} with the code {code:?}; check --client-id and --client-secret"
    )))
}

/// Issuers with a contract of their own may refuse in any way: what was not named ends nothing.
fn unnamed(answer: &ErrorAnswer<'_>) -> Option<ReissueError> {
    let status = answer.status();
    let is_theirs = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    );
    (status.is_client_error() && !is_theirs).then(|| {
        ReissueError::misconfigured(format!(
            "it answered {status}, with no code that was named; check --reissue and --style, or if \
             that means that the refresh token is dead, name its code with --ended-code"
        ))
    })
}
