//! Proves P12 for `Debug`: of each public type, and so that a new one cannot be forgotten, no token
//! is shown.

mod support;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Ready;
use std::future::ready;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower::service_fn;
use tower_token_refresh::test_util::Gate;
use tower_token_refresh::test_util::Reply;
use tower_token_refresh::test_util::ScriptedIssuer;
use tower_token_refresh::test_util::check_shared_token_store;
use tower_token_refresh::*;

/// The mark that each secret here bears.
const MARK: &str = "c4n4ry";

/// What is public and cannot be printed, or is another's.
const NO_TYPES: [&str; 6] = [
    "BoxError",
    "Classify",
    "Reissue",
    "SelectSession",
    "SharedTokenStore",
    "TokenStore",
];

/// What was printed, by the type's name.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Printed {
    fn add(&self, name: &'static str, value: &impl Debug) {
        let text = format!("{value:?} {value:#?}");
        self.0.lock().unwrap().insert(name, text);
    }
}

/// The types that the crate's public modules export.
fn public_types() -> BTreeSet<&'static str> {
    let test_util = include_str!("../src/test_util/mod.rs").lines();
    let lines = include_str!("../src/lib.rs").lines().chain(test_util);
    let exports = lines.filter_map(|line| line.strip_prefix("pub use ")?.strip_suffix(';'));
    // Those of the scripted issuer have a test of their own.
    let exports = exports.filter(|path| !path.starts_with("issuer::"));
    let names = exports.filter_map(|path| path.rsplit("::").next());
    let is_type = |name: &&str| name.starts_with(char::is_uppercase) && !NO_TYPES.contains(name);
    names.filter(is_type).collect()
}

fn tokens() -> TokenSet {
    let tokens = TokenSet::new(format!("{MARK}-access")).unwrap();
    tokens
        .with_refresh_token(format!("{MARK}-refresh"))
        .unwrap()
}

/// An issuer that answers everything with an error full of marks.
fn answer(_: Request<Full<Bytes>>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let body = format!(r#"{{"error":"{MARK}","code":"{MARK}"}}"#);
    let answer = Response::builder()
        .status(400)
        .header("content-type", "application/json")
        .header("dpop-nonce", MARK)
        .header("x-secret", MARK);
    ready(Ok(answer.body(Full::from(body)).unwrap()))
}

fn print_tokens_and_errors(printed: &Printed) {
    let set = tokens();
    printed.add("AccessToken", set.access_token());
    printed.add("RefreshToken", set.refresh_token().unwrap());
    printed.add("InDoubt", &InDoubt::new(SystemTime::now(), 2));
    printed.add(
        "InvalidToken",
        &AccessToken::new(format!("{MARK}\n")).unwrap_err(),
    );
    let error = Origin::try_from(format!("https://{MARK}@a.test?{MARK}").as_str());
    printed.add("ConfigError", &error.unwrap_err());
    let token = set.refresh_token().unwrap().clone();
    let error = ReissueError::unknown("no").with_refresh_token(token);
    printed.add("ReissueError", &error);
    printed.add("TokenSet", &set);
    printed.add("EndReason", &EndReason::Refused);
    printed.add("Verdict", &Verdict::Refresh);
    printed.add("LostReply", &LostReply::OKTA);
    printed.add("WithoutToken", &WithoutToken);
    printed.add("ReplaySafe", &ReplaySafe);
    printed.add("Origin", &Origin::try_from("https://a.test").unwrap());
}

fn print_classifiers(printed: &Printed) {
    let codes = ErrorCodes::json("/code").expired("T-002");
    printed.add("ErrorCodes", &codes);
    printed.add("DefaultClassifier", &DefaultClassifier);
    printed.add("Or", &codes.or(DefaultClassifier));
    let secret = format!("{MARK}-captured");
    let function = classify_fn(move |_, headers| match headers.contains_key(&secret) {
        true => Verdict::Refresh,
        false => Verdict::Abstain,
    });
    printed.add("ClassifyFn", &function);
}

async fn print_reissuers(printed: &Printed) {
    let url = format!("https://a.test/token?{MARK}");
    let json = JsonReissue::post(&url, service_fn(answer)).header("x-api-key", MARK);
    printed.add("JsonReissue", &json);
    printed.add(
        "CookieReissue",
        &CookieReissue::post(&url, service_fn(answer)).header("x-api-key", MARK),
    );
    printed.add(
        "ClientCredentials",
        &ClientCredentials::post(&url, service_fn(answer))
            .basic("id", MARK)
            .param("a", MARK),
    );
    let (request, response) = (printed.clone(), printed.clone());
    let grant = RefreshGrant::post(&url, service_fn(answer))
        .client_in_body("id", MARK)
        .dpop(move |of| {
            request.add("DpopRequest", &of);
            Ok(format!("{MARK}-proof"))
        })
        .on_error(move |of| {
            response.add("ErrorAnswer", of);
            None
        });
    printed.add("RefreshGrant", &grant);
    let session = Session::builder(grant).build().unwrap();
    session.login(tokens()).await.unwrap();
    printed.add("RefreshError", &session.refresh().await.unwrap_err());
    let seen = printed.clone();
    let function = reissue_fn(move |request| {
        seen.add("ReissueRequest", &request);
        async { Err(ReissueError::transient("no")) }
    });
    printed.add("ReissueFn", &function);
    let session = Session::builder(function).build().unwrap();
    session.login(tokens()).await.unwrap();
    session.refresh().await.unwrap_err();
}

async fn print_stores(printed: &Printed) {
    let memory = MemoryStore::new();
    let (empty, now) = memory.read().await.unwrap();
    let login = empty.with_login(tokens(), now).unwrap();
    assert_eq!(memory.swap(0, &login).await.unwrap(), Swap::Done);
    printed.add("MemoryStore", &memory);
    let (record, _) = memory.read().await.unwrap();
    let swapped = memory.swap(record.version(), &record).await.unwrap();
    printed.add("Record", &record);
    printed.add("Swap", &swapped);
    printed.add("StoreLock", &StoreLock::new(MARK));
    let folder = tempfile::tempdir().unwrap();
    let file = FileStore::new(folder.path().join("tokens.json"));
    file.save(&tokens()).await.unwrap();
    file.load().await.unwrap();
    printed.add("FileStore", &file);
    let secret = MARK.repeat(3);
    let server = format!("postgres://me:{MARK}@localhost/it").parse();
    let row = PostgresStore::new(server.unwrap(), tokio_postgres::NoTls, MARK);
    printed.add("PostgresStore", &row.secret(&secret).unwrap());
    let server = redis::Client::open(format!("redis://:{MARK}@localhost/"));
    let key = RedisStore::new(server.unwrap(), MARK);
    printed.add("RedisStore", &key.secret(&secret).unwrap());
    let fault = check_shared_token_store(async || file.clone())
        .await
        .unwrap_err();
    printed.add("StoreFault", &fault);
}

async fn print_the_layer(printed: &Printed) {
    let builder = Session::builder(JsonReissue::post("https://a.test", service_fn(answer)));
    printed.add("SessionBuilder", &builder);
    let session = builder.build().unwrap();
    session.login(tokens()).await.unwrap();
    printed.add("Session", &session);
    printed.add("SessionStatus", &session.status());
    printed.add("Stats", &session.stats());
    printed.add("FailureStats", &session.stats().failures);
    printed.add("SessionExtension", &SessionExtension);
    let captured = session.clone();
    printed.add("SelectFn", &select_fn(move |_| Some(captured.clone())));
    let layer = TokenRefreshLayer::new(support::ORIGIN, session).unwrap();
    printed.add("TokenRefreshLayer", &layer);
    let inside = printed.clone();
    let service = layer.layer(service_fn(
        move |request: Request<ReplayBody<Full<Bytes>>>| {
            inside.add("ReplayBody", request.body());
            ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(
                MARK,
            ))))
        },
    ));
    printed.add("TokenRefresh", &layer.layer(support::World::new().counts()));
    let mut service = service;
    let future = service
        .ready()
        .await
        .unwrap()
        .call(support::post("/", MARK));
    printed.add("ResponseFuture", &future);
    printed.add("ResponseBody", future.await.unwrap().body());
}

// shows P12 for what follows a script: its tokens bear no mark, so they are looked for as they are.
#[tokio::test]
async fn the_debug_form_of_the_scripted_issuer_shows_no_token() {
    let issuer = ScriptedIssuer::new().oauth_client("app", MARK);
    let mut tokens = vec![issuer.login("u")];
    let grant = RefreshGrant::post("https://a.test/oauth/token", issuer.client());
    let session = Session::builder(grant.client_in_body("app", MARK));
    let session = session.build().unwrap();
    session.login(tokens[0].clone()).await.unwrap();
    session.refresh().await.unwrap();
    let access = session.token().await.unwrap();
    tokens.push(TokenSet::new(access).unwrap());
    let (printed, gate) = (Printed::default(), Gate::new());
    printed.add("ScriptedIssuer", &issuer);
    printed.add("IssuerClient", &issuer.client());
    printed.add("IssuerCounts", &issuer.counts());
    printed.add("Reply", &Reply::tokens().held_by(&gate).json(MARK));
    printed.add("Gate", &gate);
    let printed = printed.0.lock().unwrap();
    let exports = include_str!("../src/test_util/mod.rs").lines();
    let exports = exports.filter_map(|line| line.strip_prefix("pub use issuer::"));
    let exports: BTreeSet<_> = exports.map(|name| name.trim_end_matches(';')).collect();
    let names: BTreeSet<_> = printed.keys().copied().collect();
    assert_eq!(names, exports, "each type has its place in this test");
    let access = tokens.iter().map(|set| set.access_token().expose());
    let refresh = tokens.iter().filter_map(|set| set.refresh_token());
    let secrets = access.chain(refresh.map(|token| token.expose()));
    for secret in secrets.chain([MARK]) {
        for (name, text) in &*printed {
            assert!(!text.contains(secret), "{name}: {text}");
        }
    }
}

// shows B130, S5, P12
#[tokio::test]
async fn the_debug_form_of_each_public_type_shows_no_secret() {
    let printed = Printed::default();
    print_tokens_and_errors(&printed);
    print_classifiers(&printed);
    print_reissuers(&printed).await;
    print_stores(&printed).await;
    print_the_layer(&printed).await;
    let printed = printed.0.lock().unwrap();
    let names: BTreeSet<_> = printed.keys().copied().collect();
    assert_eq!(
        names,
        public_types(),
        "each public type has its place in this test"
    );
    for (name, text) in &*printed {
        assert!(!text.contains(MARK), "{name}: {text}");
    }
}
