//! A request to the token endpoint of OAuth 2.0 (RFC 6749 section 3.2), whatever the grant: who the
//! client is, what it asks for, and how it proves that it holds a key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::Serializer;
use form_urlencoded::byte_serialize;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::header;
use zeroize::Zeroizing;

use super::ReissueError;
use super::dpop;
use super::dpop::Sign;
use super::dpop::Signer;
use super::exchange::Answer;
use super::exchange::Exchange;
use super::exchange::TokenInBody;
use super::exchange::secret_value;
use crate::error::ConfigError;

/// Parameters that have a setting of their own, or none.
const RESERVED: [(&str, &str); 5] = [
    ("grant_type", "it is written by the reissuer itself"),
    ("refresh_token", "it is written by the reissuer itself"),
    ("scope", "use scope(…)"),
    (
        "client_id",
        "use basic(…), client_in_body(…) or public_client(…)",
    ),
    ("client_secret", "use basic(…) or client_in_body(…)"),
];

/// What the settings of a grant have said.
pub(super) struct Grant {
    grant_type: &'static str,
    /// The last one counts.
    client: Result<Client, ConfigError>,
    scope: Option<String>,
    params: Vec<(String, Zeroizing<String>)>,
    signer: Option<Signer>,
}

enum Client {
    Unnamed,
    /// The header's value, rendered once.
    Basic(HeaderValue),
    InBody(String, Zeroizing<String>),
    Public(String),
}

impl Grant {
    pub(super) fn new(grant_type: &'static str) -> Self {
        Self {
            grant_type,
            client: Ok(Client::Unnamed),
            scope: None,
            params: Vec::new(),
            signer: None,
        }
    }

    pub(super) fn authenticate_by_basic(&mut self, id: String, secret: String) {
        let secret = Zeroizing::new(secret);
        self.client = check_client(&id, &secret)
            .and_then(|()| {
                let value = basic(&id, &secret);
                value.ok_or_else(|| ConfigError::new("the client cannot be written as Basic"))
            })
            .map(Client::Basic);
    }

    pub(super) fn authenticate_in_body(&mut self, id: String, secret: String) {
        let secret = Zeroizing::new(secret);
        let checked = check_client(&id, &secret);
        self.client = match checked {
            Ok(()) if secret.is_empty() => Err(ConfigError::new(
                "the client secret is empty; a client without one is a public_client(…)",
            )),
            Ok(()) => Ok(Client::InBody(id, secret)),
            Err(error) => Err(error),
        };
    }

    pub(super) fn name_client(&mut self, id: String) {
        self.client = check_client(&id, "").map(|()| Client::Public(id));
    }

    pub(super) fn scope(&mut self, scope: String) {
        self.scope = Some(scope);
    }

    pub(super) fn param(&mut self, name: String, value: String) {
        self.params.push((name, Zeroizing::new(value)));
    }

    pub(super) fn dpop(&mut self, sign: Sign) {
        self.signer = Some(Signer::new(sign));
    }

    /// Whether the client is named in any way.
    pub(super) fn names_client(&self) -> bool {
        !matches!(self.client, Ok(Client::Unnamed))
    }

    pub(super) fn check(&self, exchange: &Exchange) -> Result<(), ConfigError> {
        exchange.check(self.own_headers())?;
        self.client.as_ref().map_err(ConfigError::clone)?;
        if self.scope.as_ref().is_some_and(|scope| !is_scope(scope)) {
            return Err(ConfigError::new(
                "a scope is names of visible characters with single spaces between them, without \
                 '\"' and '\\' (RFC 6749 section 3.3)",
            ));
        }
        if self.params.iter().any(|(name, _)| name.is_empty()) {
            return Err(ConfigError::new("a parameter has an empty name"));
        }
        let mut names = self.params.iter().map(|(name, _)| name);
        let taken = names.find_map(|name| RESERVED.iter().find(|(reserved, _)| name == reserved));
        match taken {
            Some((name, instead)) => {
                let message =
                    format!("the parameter {name} cannot be given with param(…): {instead}");
                Err(ConfigError::new(message))
            }
            None => Ok(()),
        }
    }

    fn own_headers(&self) -> impl Iterator<Item = &'static HeaderName> {
        let basic = matches!(self.client, Ok(Client::Basic(_))).then_some(&header::AUTHORIZATION);
        let proof = self.signer.is_some().then_some(&dpop::PROOF);
        basic.into_iter().chain(proof)
    }

    /// One conversation: a request and its answer, and both again where the issuer wants its nonce
    /// in the proof (RFC 9449 section 8). The answer is a success by its status.
    pub(super) async fn converse(
        &self,
        exchange: &Exchange,
        refresh_token: Option<&str>,
    ) -> Result<Answer, ReissueError> {
        let form = self.form(refresh_token)?;
        let (answer, has_nonce) = self.ask(exchange, form.clone()).await?;
        let wants_nonce = !answer.status.is_success()
            && exchange.contract.error_answer(&answer).code() == Some("use_dpop_nonce");
        if !(wants_nonce && has_nonce) {
            return exchange.judge(answer);
        }
        let (answer, _) = self.ask(exchange, form).await?;
        exchange.judge(answer)
    }

    /// Sends it once. Tells whether the answer brought a nonce that there is a use for.
    async fn ask(&self, exchange: &Exchange, form: Bytes) -> Result<(Answer, bool), ReissueError> {
        let answer = exchange.ask(self.request(exchange, form)?).await?;
        let signer = self.signer.as_ref();
        let has_nonce = signer.is_some_and(|signer| signer.learn(&answer.headers));
        Ok((answer, has_nonce))
    }

    fn request(&self, exchange: &Exchange, form: Bytes) -> Result<Request<Bytes>, ReissueError> {
        let mut http = exchange.request(form)?;
        http.extensions_mut().insert(TokenInBody);
        let proof = match &self.signer {
            Some(signer) => Some(signer.proof(&Method::POST, http.uri())?),
            None => None,
        };
        let headers = http.headers_mut();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        if let Ok(Client::Basic(value)) = &self.client {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        if let Some(proof) = proof {
            headers.insert(&dpop::PROOF, proof);
        }
        Ok(http)
    }

    fn form(&self, refresh_token: Option<&str>) -> Result<Bytes, ReissueError> {
        let client = self.client.as_ref();
        let (id, secret) =
            match client.map_err(|error| ReissueError::misconfigured(error.clone()))? {
                Client::Unnamed | Client::Basic(_) => (None, None),
                Client::InBody(id, secret) => (Some(id.as_str()), Some(secret.as_str())),
                Client::Public(id) => (Some(id.as_str()), None),
            };
        let own = [
            ("grant_type", Some(self.grant_type)),
            ("refresh_token", refresh_token),
            ("scope", self.scope.as_deref()),
            ("client_id", id),
            ("client_secret", secret),
        ];
        let own = own
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let params = self.params.iter();
        let params = params.map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(form(own.chain(params)))
    }
}

/// As HTML forms write it (RFC 6749 appendix B). In a buffer that does not grow: growing would leave
/// a copy of the secrets behind.
fn form<'a>(params: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Bytes {
    let mut text = Zeroizing::new(String::with_capacity(room(params.clone())));
    Serializer::new(&mut *text).extend_pairs(params);
    Bytes::from_owner(text)
}

/// Enough for these, were every byte escaped.
fn room<'a>(params: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    params
        .map(|(name, value)| 3 * (name.len() + value.len()) + 2)
        .sum()
}

/// RFC 6749 section 2.3.1, RFC 7617. In buffers that are wiped and do not grow.
fn basic(id: &str, secret: &str) -> Option<HeaderValue> {
    let mut pair = Zeroizing::new(String::with_capacity(3 * (id.len() + secret.len()) + 1));
    pair.extend(byte_serialize(id.as_bytes()));
    pair.push(':');
    pair.extend(byte_serialize(secret.as_bytes()));
    let mut text = Zeroizing::new(vec![0; pair.len().div_ceil(3) * 4]);
    let length = STANDARD.encode_slice(pair.as_bytes(), &mut text).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    secret_value("Basic ", text).ok()
}

/// RFC 6749 appendices A.1 and A.2: visible characters and spaces.
fn check_client(id: &str, secret: &str) -> Result<(), ConfigError> {
    let is_vschar = |byte: u8| (b' '..=b'~').contains(&byte);
    let wrong = if id.is_empty() {
        "the client id is empty"
    } else if !id.bytes().all(is_vschar) {
        "the client id has characters other than visible ASCII and spaces"
    } else if !secret.bytes().all(is_vschar) {
        "the client secret has characters other than visible ASCII and spaces"
    } else {
        return Ok(());
    };
    Err(ConfigError::new(wrong))
}

/// RFC 6749 section 3.3.
fn is_scope(scope: &str) -> bool {
    let is_nqchar = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_nqchar);
    scope.split(' ').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    // shows P12: a buffer that grew would leave secrets behind.
    #[test]
    fn the_room_for_a_form_is_enough() {
        let every: String = (0..=u8::MAX).map(char::from).collect();
        let texts = ["", "a", "a b", "&=+%", "\0", every.as_str()];
        for name in texts {
            for value in texts {
                for count in 0..3 {
                    let params = vec![(name, value); count];
                    let written = form(params.iter().copied()).len();
                    assert!(
                        written <= room(params.iter().copied()),
                        "{name:?} {value:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn basic_is_written_for_every_pair_of_lengths() {
        for id in 1..9 {
            for secret in 0..9 {
                let (id, secret) = ("i".repeat(id), "%".repeat(secret));
                let pair = format!("{id}:{}", secret.replace('%', "%25"));
                let expected = format!("Basic {}", STANDARD.encode(pair));
                assert_eq!(basic(&id, &secret).unwrap(), expected);
            }
        }
    }
}
