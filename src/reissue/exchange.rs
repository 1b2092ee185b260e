//! Sending one request to the issuer, and reading as much of its answer as is wanted.
//!
//! The client's type ends here: a reissue is rare and slow, and so the reissuers over a client have
//! no type parameters. What an answer means stands in [`answer`](super::answer).

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Buf;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use http_body_util::combinators::UnsyncBoxBody;
use tower::ServiceExt;
use tower_service::Service;
use zeroize::Zeroizing;

use super::ReissueError;
use super::answer::Contract;
use super::document::Document;
use super::unanswered::unanswered;
use crate::attach;
use crate::attach::WithoutToken;
use crate::error::BoxError;
use crate::error::ConfigError;
use crate::json;
use crate::origin::check_endpoint;

/// The most that is read of an answer. Tokens are some kilobytes at the most.
const LIMIT: usize = 1 << 20;

type Unread = Response<UnsyncBoxBody<Bytes, BoxError>>;
type Pending = Pin<Box<dyn Future<Output = Result<Unread, ReissueError>> + Send>>;
type Client = Box<dyn Fn(Request<Bytes>) -> Pending + Send>;

/// Headers about the connection (RFC 9110 section 7.6.1, RFC 9113 section 8.2.2) and about how a body is
/// sent: the client alone knows what can stand there.
static OF_THE_CLIENT: [HeaderName; 8] = [
    header::CONNECTION,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// An extension of a request that has no refresh token in its head.
#[derive(Clone, Copy)]
pub(super) struct TokenInBody;

/// A client, the address of the issuer, and the issuer's contract.
pub(super) struct Exchange {
    /// Behind a lock, as many a client is `Send` and not `Sync`; it is held to clone the client.
    client: Mutex<Client>,
    uri: Result<Uri, ConfigError>,
    headers: Result<HeaderMap, ConfigError>,
    plain_http_allowed: bool,
    pub(super) contract: Contract,
}

/// An answer of the issuer. Its body may be of no use while its headers are.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) document: Result<Document, BoxError>,
}

impl Exchange {
    pub(super) fn post<C, B, RB>(uri: &str, client: C, contract: Contract) -> Self
    where
        C: Service<Request<B>, Response = Response<RB>> + Clone + Send + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
        B: From<Bytes> + Send + 'static,
        RB: Body + Send + 'static,
        RB::Error: Into<BoxError>,
    {
        let client: Client = Box::new(move |request| {
            let mut client = client.clone();
            Box::pin(async move {
                // Nothing has been handed to a client that does not become ready.
                let client = client.ready().await.map_err(ReissueError::transient)?;
                let in_body = request.extensions().get::<TokenInBody>().is_some();
                let answer = client.call(request.map(B::from)).await;
                let answer = answer.map_err(|error| unanswered(error, in_body))?;
                Ok(answer.map(erase_body))
            })
        });
        Self {
            client: Mutex::new(client),
            uri: endpoint(uri),
            headers: Ok(HeaderMap::new()),
            plain_http_allowed: false,
            contract,
        }
    }

    pub(super) fn allow_plain_http(&mut self) {
        self.plain_http_allowed = true;
    }

    /// Remembers the first header that cannot be: a chain of settings has no way to say it.
    pub(super) fn header(&mut self, name: &str, value: &str) {
        let Ok(headers) = &mut self.headers else {
            return;
        };
        match (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.append(name, value);
            }
            (Err(_), _) => {
                self.headers = Err(ConfigError::new(format!("{name:?} is no name of a header")));
            }
            (Ok(name), Err(_)) => {
                let message = format!("the value of the header {name} cannot stand in a header");
                self.headers = Err(ConfigError::new(message));
            }
        }
    }

    /// `own` are the headers that the reissuer itself writes, besides those of every reissue.
    pub(super) fn check<'a>(
        &self,
        own: impl IntoIterator<Item = &'a HeaderName>,
    ) -> Result<(), ConfigError> {
        let checked = check_endpoint(self.uri()?, self.plain_http_allowed);
        checked.map_err(|error| self.with_address(&error))?;
        self.contract.check()?;
        let headers = self.headers()?;
        if let Some(name) = OF_THE_CLIENT
            .iter()
            .find(|name| headers.contains_key(*name))
        {
            return Err(ConfigError::new(format!(
                "the header {name} cannot be given with header(…): it is the HTTP client's to write"
            )));
        }
        let taken = [
            &header::ACCEPT_ENCODING,
            &header::CONTENT_LENGTH,
            &header::CONTENT_TYPE,
            &header::HOST,
        ];
        match taken
            .into_iter()
            .chain(own)
            .find(|name| headers.contains_key(*name))
        {
            Some(name) => Err(ConfigError::new(format!(
                "the header {name} is written by the reissuer itself"
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn uri(&self) -> Result<&Uri, ConfigError> {
        self.uri.as_ref().map_err(ConfigError::clone)
    }

    fn with_address(&self, error: &ConfigError) -> ConfigError {
        match self.uri.as_ref().map(Uri::to_string) {
            Ok(uri) => ConfigError::new(format!("the issuer's address{}: {error}", shown(&uri))),
            Err(error) => error.clone(),
        }
    }

    fn headers(&self) -> Result<&HeaderMap, ConfigError> {
        self.headers.as_ref().map_err(ConfigError::clone)
    }

    /// A request with what every reissue carries.
    pub(super) fn request(&self, body: Bytes) -> Result<Request<Bytes>, ReissueError> {
        let uri = self.uri().map_err(ReissueError::misconfigured)?;
        let mut headers = self.headers().map_err(ReissueError::misconfigured)?.clone();
        let json = HeaderValue::from_static("application/json");
        headers.entry(header::ACCEPT).or_insert(json);
        let identity = HeaderValue::from_static("identity");
        headers.insert(header::ACCEPT_ENCODING, identity);
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers;
        // P15: passes untouched where the client was given with a layer of ours around it.
        request.extensions_mut().insert(WithoutToken);
        Ok(request)
    }

    /// Sends it once, and gives back what is a success by its status.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Answer, ReissueError> {
        self.judge(self.ask(request).await?)
    }

    /// Sends it once, and reads as much of the answer as is wanted.
    pub(super) async fn ask(&self, request: Request<Bytes>) -> Result<Answer, ReissueError> {
        let (head, body) = self.start(request).await?.into_parts();
        let text = if self.contract.wants_body(head.status, &head.headers) {
            read(&head.headers, body).await
        } else {
            Err("its body was not read".into())
        };
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            document: text.and_then(|text| Document::parse(&text)),
        })
    }

    /// Lets through what is a success by its status.
    pub(super) fn judge(&self, answer: Answer) -> Result<Answer, ReissueError> {
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(self.contract.failure(&answer))
        }
    }

    fn start(&self, request: Request<Bytes>) -> Pending {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client(request)
    }
}

fn endpoint(uri: &str) -> Result<Uri, ConfigError> {
    // `Uri` would drop it, and whoever wrote it meant something (RFC 6749 section 3.2).
    if uri.contains('#') {
        let message = format!("the issuer's address{} has a fragment", shown(uri));
        return Err(ConfigError::new(message));
    }
    let no_uri = |_| ConfigError::new(format!("the issuer's address{} is no URI", shown(uri)));
    uri.parse().map_err(no_uri)
}

/// The address with a blank before it, unless there can be a secret in it: userinfo, a query or a
/// fragment (P12).
fn shown(uri: &str) -> String {
    match uri.contains(['?', '@', '#']) {
        true => String::new(),
        false => format!(" {uri:?}"),
    }
}

/// Gives the body its limit on the way.
fn erase_body<B>(body: B) -> UnsyncBoxBody<Bytes, BoxError>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    let whole = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    Limited::new(body, LIMIT)
        .map_frame(move |frame| frame.map_data(whole))
        .boxed_unsync()
}

/// Reads a body as it is, up to its limit.
async fn read(
    headers: &HeaderMap,
    body: UnsyncBoxBody<Bytes, BoxError>,
) -> Result<Zeroizing<Vec<u8>>, BoxError> {
    if !json::is_plain(headers) {
        return Err("its answer is compressed, though it was asked not to".into());
    }
    if announced(headers) > LIMIT as u64 {
        return Err(too_large());
    }
    let body = body.collect().await.map_err(named)?;
    // There are tokens in it.
    Ok(Zeroizing::new(Vec::from(body.to_bytes())))
}

fn announced(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    length.unwrap_or(0)
}

fn named(error: BoxError) -> BoxError {
    if error.is::<LengthLimitError>() {
        too_large()
    } else {
        error
    }
}

fn too_large() -> BoxError {
    "its answer is larger than 1 MiB".into()
}

/// A header's value around a secret.
pub(super) fn secret_value(before: &str, secret: &str) -> Result<HeaderValue, ReissueError> {
    attach::secret_value(before, secret).map_err(ReissueError::misconfigured)
}

#[cfg(test)]
mod tests {
    use super::*;

    // shows P12
    #[test]
    fn a_secret_value_is_sensitive_and_shares_its_buffer() {
        let value = secret_value("Bearer ", "abc").unwrap();
        assert_eq!(value, "Bearer abc");
        assert!(value.is_sensitive());
        assert_eq!(value.as_bytes().as_ptr(), value.clone().as_bytes().as_ptr());
        let error = secret_value("Bearer ", "a\nCANARY").unwrap_err();
        assert!(!format!("{error:?}").contains("CANARY"));
    }
}
