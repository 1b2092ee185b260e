//! The back end, as the gateway sees it: one client with one layer, for all users.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{Method, Uri, header::CONTENT_TYPE, uri::PathAndQuery},
    response::Response,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use tower::{Layer, ServiceExt};
use tower_token_refresh::{
    BoxError, DefaultClassifier, ErrorCodes, JsonReissue, Or, ReplayBody, Session,
    SessionExtension, TokenRefresh, TokenRefreshLayer, TokenSet,
};

use super::{headers, refusal::Refusal};

/// What the back end says about tokens, and no browser is to hear.
const TOKEN_ROUTES: [&str; 4] = [
    "/member/login",
    "/member/token/refresh",
    "/v1/api/auth/reissue",
    "/oauth/token",
];
const LOGIN_LIMIT: usize = 64 * 1024;

type Http = Client<HttpConnector, ReplayBody<Body>>;
type Api = TokenRefresh<Http, SessionExtension, Or<ErrorCodes, DefaultClassifier>>;

pub struct Upstream {
    base: String,
    http: Http,
    api: Api,
}

/// A user, and the tokens that stay here.
pub struct Login {
    pub id: String,
    pub email: String,
    pub tokens: TokenSet,
}

impl Upstream {
    pub fn new(base: &str) -> Result<Self, BoxError> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        let codes = ErrorCodes::json("/code").expired("T-002").ended("T-003");
        // Whose token a request carries stands in its extensions; one without is not sent at all.
        let layer = TokenRefreshLayer::new(base, SessionExtension)?
            .classify(codes.or(DefaultClassifier))
            .require_token();
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            api: layer.layer(http.clone()),
            http,
        })
    }

    /// A session for one user. They share nothing but the connections.
    pub fn session(&self) -> Result<Session, Refusal> {
        let issuer = self.url("/member/token/refresh");
        let issuer = JsonReissue::post(issuer, self.http.clone()).refused("T-003");
        Ok(Session::builder(issuer).build()?)
    }

    /// Logs in at the back end with what the browser has sent, and keeps the tokens.
    pub async fn log_in(&self, credentials: Bytes) -> Result<Login, Refusal> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            id: String,
            email: String,
            access_token: String,
            refresh_token: String,
        }
        let request = Request::post(self.url("/member/login"))
            .header(CONTENT_TYPE, "application/json")
            .body(ReplayBody::from(credentials))
            .map_err(|_| Refusal::BadRequest)?;
        let answer = self.http.request(request).await;
        let answer = answer.map_err(|_| Refusal::NoAnswer)?;
        let status = answer.status();
        let body = to_bytes(Body::new(answer.into_body()), LOGIN_LIMIT).await;
        let body = body.map_err(|_| Refusal::NoAnswer)?;
        if !status.is_success() {
            return Err(Refusal::Login(status, body));
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| Refusal::NoAnswer)?;
        let tokens = TokenSet::new(answer.access_token)
            .and_then(|tokens| tokens.with_refresh_token(answer.refresh_token))
            .map_err(|_| Refusal::NoAnswer)?
            // The back end asks for both at each reissue, and refuses a token of anybody else.
            .with_identity("id", &*answer.id)
            .with_identity("email", &*answer.email);
        Ok(Login {
            id: answer.id,
            email: answer.email,
            tokens,
        })
    }

    pub async fn log_out(&self, session: &Session) -> Result<(), BoxError> {
        let request = Request::post(self.url("/member/logout"))
            .extension(session.clone())
            .body(Body::empty())?;
        self.send(request).await.map(drop)
    }

    /// Makes a browser's request one to the back end, which nothing in it can redirect: of its target
    /// only path and query are used.
    pub fn address(&self, request: Request) -> Result<Request, Refusal> {
        let target = request.uri().path_and_query();
        let target = target.map_or("/", PathAndQuery::as_str);
        let target = match target.starts_with('?') {
            true => format!("/{target}"),
            false => target.to_owned(),
        };
        // `*` would become a part of the port, and what CONNECT names is no path.
        if !target.starts_with('/') || request.method() == Method::CONNECT {
            return Err(Refusal::BadRequest);
        }
        if TOKEN_ROUTES.contains(&request.uri().path()) {
            return Err(Refusal::NotFound);
        }
        let target: Uri = self.url(&target).parse().map_err(|_| Refusal::BadRequest)?;
        let mut ours = Request::new(Body::empty());
        *ours.method_mut() = request.method().clone();
        *ours.uri_mut() = target;
        let (head, body) = request.into_parts();
        *ours.headers_mut() = head.headers;
        headers::make_ours(ours.headers_mut());
        Ok(ours.map(|_| body))
    }

    /// Both bodies stream. A request that is to be sent again has to fit into the layer's
    /// `replay_limit`.
    pub async fn send(&self, request: Request) -> Result<Response, BoxError> {
        let response = self.api.clone().oneshot(request).await?;
        Ok(response.map(Body::new))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}
