//! The client: hyper, the layer around it, and what a caller gets from it.

use std::io;

use ::http::{
    Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::de::IgnoredAny;
use tower::{Layer, ServiceExt, util::BoxCloneService};
use tower_token_refresh::{
    BoxError, ConfigError, DefaultClassifier, RefreshError, ResponseBody, Session,
    TokenRefreshLayer,
};

use crate::{
    cli::{
        http::{self, Http},
        issuer,
        options::origin,
        output,
        tokens::Tokens,
    },
    options::Options,
};

type Api = BoxCloneService<Request<Full<Bytes>>, Response<ResponseBody<Incoming>>, BoxError>;

/// One client for everything; its clones share the session.
#[derive(Clone)]
pub struct Client {
    api: Api,
    data: Option<Bytes>,
    pub session: Session,
}

/// How a request ended.
pub enum End {
    /// With an answer, and why the layer did not make it good.
    Answered {
        status: StatusCode,
        why: Option<RefreshError>,
    },
    /// Without one.
    Failed(BoxError),
    /// With one that could not be shown.
    Unwritten(io::Error),
}

impl Client {
    pub fn new(options: &Options, tokens: &Tokens) -> Result<Self, ConfigError> {
        let uris = options.urls.iter().chain([&options.common.reissue]);
        let requests = options.urls.len() as u64 * u64::from(options.parallel);
        let http = http::client(uris, requests);
        let session = tokens
            .keep(issuer::session(&options.common, http.clone()))
            .build()?;
        Ok(Self {
            api: api(options, &session, http)?,
            data: options.data.clone().map(Bytes::from),
            session,
        })
    }

    /// Sends a request, and reads its answer to the end: to standard output, if it is to be shown.
    pub async fn send(self, uri: Uri, shows_body: bool) -> End {
        let sent = self.try_send(uri, shows_body).await;
        sent.unwrap_or_else(End::Failed)
    }

    async fn try_send(self, uri: Uri, shows_body: bool) -> Result<End, BoxError> {
        let answer = self.api.oneshot(request(uri, self.data)?).await?;
        let (head, body) = answer.into_parts();
        match shows_body {
            true => {
                if let Err(error) = show(body).await? {
                    return Ok(End::Unwritten(error));
                }
            }
            false => read(body).await?,
        }
        Ok(End::Answered {
            status: head.status,
            why: head.extensions.get().cloned(),
        })
    }
}

fn api(options: &Options, session: &Session, http: Http) -> Result<Api, ConfigError> {
    let mut origins = options.urls.iter().map(origin);
    let first = origins
        .next()
        .unwrap_or_else(|| origin(&options.common.reissue))?;
    let layer = TokenRefreshLayer::new(first, session.clone())?;
    let layer = origins.try_fold(layer, |layer, origin| layer.also(origin?))?;
    Ok(match options.common.codes()? {
        Some(codes) => {
            BoxCloneService::new(layer.classify(codes.or(DefaultClassifier)).layer(http))
        }
        None => BoxCloneService::new(layer.layer(http)),
    })
}

fn request(uri: Uri, data: Option<Bytes>) -> Result<Request<Full<Bytes>>, ::http::Error> {
    let request = Request::builder()
        .uri(uri)
        .header(ACCEPT, "*/*")
        .header(USER_AGENT, "tower-token-refresh/fetch");
    let Some(data) = data else {
        return request.body(Full::default());
    };
    request
        .method("POST")
        .header(CONTENT_TYPE, content_type(&data))
        .body(Full::new(data))
}

fn content_type(data: &[u8]) -> &'static str {
    match serde_json::from_slice::<IgnoredAny>(data) {
        Ok(_) => "application/json",
        Err(_) => "text/plain; charset=utf-8",
    }
}

async fn read(mut body: ResponseBody<Incoming>) -> Result<(), BoxError> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// The inner error is that of standard output.
async fn show(mut body: ResponseBody<Incoming>) -> Result<io::Result<()>, BoxError> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        match output::write(&data).await {
            Ok(true) => {}
            // Whoever read it has seen enough.
            Ok(false) => break,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}
