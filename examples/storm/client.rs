//! The client under test: a hyper client, the layer around it, and what a caller gets from it.

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use serde_json::json;
use tower::{Layer, Service, ServiceExt};
use tower_token_refresh::{
    BoxError, DefaultClassifier, ErrorCodes, JsonReissue, Or, RefreshError, Session, TokenRefresh,
    TokenRefreshLayer, TokenSet,
};

use crate::{
    backend::User,
    connections::{Body, Http},
    trace::{Life, Reissues, Watch},
};

const REISSUE_PATH: &str = "/member/token/refresh";

type Api = TokenRefresh<Watch<Http>, Session, Or<ErrorCodes, DefaultClassifier>>;

/// One client for everything; its clones share the session.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: Watch<Http>,
    api: Api,
    pub session: Session,
}

/// How a request ended for its caller.
pub enum End {
    /// With a 2xx.
    Accepted { item: u64, owner: String },
    /// With any other answer of the server, and why the layer didn't make it good.
    Refused {
        status: StatusCode,
        code: Option<String>,
        why: Option<RefreshError>,
    },
    /// Without an answer.
    Failed(BoxError),
    /// The caller didn't wait for it.
    Dropped,
}

impl Client {
    pub fn new(base: &str, http: Http, reissues: Reissues) -> anyhow::Result<Self> {
        let http = Watch::new(http, REISSUE_PATH, reissues);
        let issuer = JsonReissue::post(format!("{base}{REISSUE_PATH}"), http.clone());
        let session = Session::builder(issuer.refused("T-003")).build()?;
        // The default classifier has the last word: once the session is over, requests go out without
        // a token, and their 401 (T-004) is to carry the reason as well.
        let codes = ErrorCodes::json("/code").expired("T-002").ended("T-003");
        let layer =
            TokenRefreshLayer::new(base, session.clone())?.classify(codes.or(DefaultClassifier));
        Ok(Self {
            base: base.to_owned(),
            api: layer.layer(http.clone()),
            http,
            session,
        })
    }

    pub fn connections(&self) -> &str {
        self.http.get_ref().describe()
    }

    /// Logs in at the server. The session hears nothing of it yet, and never of the expiry.
    pub async fn tokens_of(&self, user: &User) -> anyhow::Result<TokenSet> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Login {
            id: String,
            email: String,
            access_token: String,
            refresh_token: String,
        }
        let credentials = json!({ "email": user.email, "password": user.password });
        let request = Request::post(format!("{}/member/login", self.base))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(Bytes::from(credentials.to_string())))?;
        let answer = self.http.clone().oneshot(request).await;
        let answer = answer.map_err(anyhow::Error::from_boxed)?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let login: Login =
            serde_json::from_slice(&body).with_context(|| format!("login refused: {status}"))?;
        Ok(TokenSet::new(login.access_token)?
            .with_refresh_token(login.refresh_token)?
            .with_identity("id", login.id)
            .with_identity("email", login.email))
    }

    /// `GET /items/{item}`, as any caller would send it.
    pub async fn get(mut self, item: u64, life: Life) -> End {
        let end = self.try_get(item, &life).await.unwrap_or_else(End::Failed);
        life.settled();
        end
    }

    async fn try_get(&mut self, item: u64, life: &Life) -> Result<End, BoxError> {
        let request = Request::get(format!("{}/items/{item}", self.base))
            .extension(life.clone())
            .body(Full::<Bytes>::default())?;
        let api = self.api.ready().await?;
        life.called();
        let answer = api.call(request);
        life.admitted();
        let (head, body) = answer.await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(if head.status.is_success() {
            accepted(&body)?
        } else {
            End::Refused {
                status: head.status,
                code: code(&body),
                why: head.extensions.get().cloned(),
            }
        })
    }
}

fn accepted(body: &[u8]) -> Result<End, BoxError> {
    #[derive(Deserialize)]
    struct Item {
        item: u64,
        owner: String,
    }
    let Item { item, owner } = serde_json::from_slice(body)?;
    Ok(End::Accepted { item, owner })
}

fn code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    Some(refusal.code)
}
