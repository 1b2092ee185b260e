//! The client under test: a hyper client, the layer around it, and what a caller gets from it.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt};
use tower_token_refresh::{
    BoxError, DefaultClassifier, ErrorCodes, JsonReissue, LostReply, Or, RefreshError, Session,
    TokenRefresh, TokenRefreshLayer, TokenSet,
};

use crate::{
    backend::User,
    connections::{Body, Http},
    trace::{Life, Reissues, Watch},
};

const REISSUE_PATH: &str = "/member/token/refresh";

/// How long a caller waits who is told to try again later: at once, to see that the issuer is left alone, and
/// then for as long as a first pause, and a second, last at the most.
const PATIENCE: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::ZERO,
    Duration::from_secs(2),
];
/// Nobody can say whether a reissue that was answered with 500 was processed. This issuer is on the same
/// machine: what it has not processed by then, it never will.
const QUARANTINE: Duration = Duration::from_secs(1);
/// So many times one request is sent at the most where callers try again.
pub const MOST_SENDS: u64 = PATIENCE.len() as u64 + 2;

type Api = TokenRefresh<Watch<Http>, Session, Or<ErrorCodes, DefaultClassifier>>;

/// One client for everything; its clones share the session.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: Watch<Http>,
    api: Api,
    /// The same, with a service that is not ready when the door is closed.
    behind_door: Api,
    pub session: Session,
}

/// What a caller asks for.
#[derive(Clone, Copy)]
pub enum Ask {
    /// `GET /items/{item}`, which says who is logged in.
    Item(u64),
    /// `POST /echo`, which sends the body back.
    Echo(u64),
}

/// How a request ended for its caller.
pub enum End {
    /// With a 2xx: what was asked for, and whose it is, as far as it says.
    Accepted {
        item: Option<u64>,
        owner: Option<String>,
    },
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
        let session = Session::builder(issuer.refused("T-003"))
            .lost_reply(LostReply::strict().quarantine(QUARANTINE))
            .build()?;
        // The default classifier has the last word: once the session is over, requests go out without
        // a token, and their 401 (T-004) is to carry the reason as well.
        let codes = ErrorCodes::json("/code").expired("T-002").ended("T-003");
        let layer =
            TokenRefreshLayer::new(base, session.clone())?.classify(codes.or(DefaultClassifier));
        Ok(Self {
            base: base.to_owned(),
            api: layer.layer(http.clone()),
            behind_door: layer.layer(http.clone().with_door()),
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

    /// For requests that go through the door.
    pub fn behind_door(&self) -> Self {
        Self {
            api: self.behind_door.clone(),
            ..self.clone()
        }
    }

    /// As any caller would send it.
    pub async fn call(mut self, ask: Ask, life: Life) -> End {
        let end = self.try_call(ask, &life).await;
        life.settled();
        end
    }

    /// As a caller sends it who tries again when that may help.
    pub async fn call_patiently(mut self, ask: Ask, life: Life) -> End {
        let mut end = self.try_call(ask, &life).await;
        for pause in PATIENCE {
            if !end.is_transient() {
                break;
            }
            sleep(pause).await;
            end = self.try_call(ask, &life).await;
        }
        life.settled();
        end
    }

    async fn try_call(&mut self, ask: Ask, life: &Life) -> End {
        self.send(ask, life).await.unwrap_or_else(End::Failed)
    }

    async fn send(&mut self, ask: Ask, life: &Life) -> Result<End, BoxError> {
        let (request, body) = match ask {
            Ask::Item(item) => (
                Request::get(format!("{}/items/{item}", self.base)),
                String::new(),
            ),
            Ask::Echo(item) => (
                Request::post(format!("{}/echo", self.base)),
                json!({ "item": item }).to_string(),
            ),
        };
        let request = request
            .extension(life.clone())
            .body(Full::<Bytes>::from(body))?;
        let api = self.api.ready().await?;
        life.called();
        let answer = api.call(request);
        life.admitted();
        let (head, body) = answer.await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(if head.status.is_success() {
            accepted(&body)
        } else {
            End::Refused {
                status: head.status,
                code: code(&body),
                why: head.extensions.get().cloned(),
            }
        })
    }
}

impl End {
    /// To try again may help.
    pub fn is_transient(&self) -> bool {
        let Self::Refused { why: Some(why), .. } = self else {
            return false;
        };
        why.is_transient()
    }
}

/// A body that was lost on the way is an answer to nothing that was asked.
fn accepted(body: &[u8]) -> End {
    #[derive(Default, Deserialize)]
    struct Item {
        item: Option<u64>,
        owner: Option<String>,
    }
    let Item { item, owner } = serde_json::from_slice(body).unwrap_or_default();
    End::Accepted { item, owner }
}

fn code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    Some(refusal.code)
}
