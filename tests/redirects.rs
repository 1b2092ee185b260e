//! Proves P11 over real connections: whoever is redirected, to wherever and however often, the token
//! reaches the named origin and nobody else.

#[path = "support/server.rs"]
mod server;
mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use server::Server;
use support::Client;
use tokio::net::TcpStream;
use tower::Service;
use tower::ServiceBuilder;
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http::follow_redirect::policy::FilterCredentials;
use tower_http::follow_redirect::policy::PolicyExt;
use tower_http::follow_redirect::policy::clone_body_fn;
use tower_token_refresh::BoxError;
use tower_token_refresh::Origin;
use tower_token_refresh::ReissueError;
use tower_token_refresh::ReplayBody;
use tower_token_refresh::SelectSession;
use tower_token_refresh::Session;
use tower_token_refresh::SessionExtension;
use tower_token_refresh::TokenRefreshLayer;
use tower_token_refresh::TokenSet;
use tower_token_refresh::WithoutToken;
use tower_token_refresh::reissue_fn;
use url::Url;

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
const CREDENTIALS: [&str; 4] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
];

/// A named origin, and one that is another.
const PAIRS: [(&str, &str); 17] = [
    // Another host, however near.
    ("http://127.0.0.1:8001", "http://localhost:8001"),
    ("http://localhost:8001", "http://127.0.0.1:8001"),
    ("http://localhost", "http://api.localhost"),
    ("http://api.localhost", "http://localhost"),
    ("http://ours.test", "http://ours.test.evil.test"),
    ("http://ours.test", "http://yours.test"),
    // Another port, or another scheme with the same port.
    ("http://ours.test:8001", "http://ours.test:8002"),
    ("http://ours.test", "http://ours.test:8001"),
    ("https://ours.test", "http://ours.test"),
    ("https://ours.test:8001", "http://ours.test:8001"),
    ("http://ours.test:8001", "https://ours.test:8001"),
    // Ours stands where the userinfo is.
    ("http://ours.test", "http://ours.test@evil.test"),
    ("http://ours.test", "http://ours.test:80@evil.test:8001"),
    // A name in other letters: `Location` has it in Unicode, and the client goes to its ASCII form.
    ("http://ours.test", "http://óurs.test"),
    ("http://xn--urs-fna.test", "http://ours.test"),
    ("http://[::1]:8001", "http://[::2]:8001"),
    ("http://127.0.0.1:8001", "http://[::ffff:127.0.0.1]:8001"),
];

/// Which server is at each end: ours (`O`) or a foreign one (`F`).
type Which = char;

/// A request as a server saw it.
#[derive(Clone)]
struct Seen {
    which: Which,
    method: Method,
    headers: HeaderMap,
    /// All of it: the first line, the headers, the body.
    text: String,
    body: Bytes,
}

impl Seen {
    async fn read(which: Which, request: Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut text = format!("{} {}\n", head.method, head.uri);
        for (name, value) in &head.headers {
            text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
        text += &String::from_utf8_lossy(&body);
        Self {
            which,
            method: head.method,
            headers: head.headers,
            text,
            body,
        }
    }

    fn carries(&self, token: &str) -> bool {
        self.text.contains(token)
    }
}

/// What both servers know.
#[derive(Default)]
struct Facts {
    /// Where `Location` leads.
    bases: HashMap<Which, String>,
    /// Where a connection for this scheme and authority leads.
    names: HashMap<String, SocketAddr>,
    /// At the end of a chain our server rejects any other token; it takes all if there is none.
    good: Option<&'static str>,
    /// And the foreign one rejects everybody.
    foreign_rejects: bool,
    seen: Vec<Seen>,
}

/// Two servers, and a client that finds them under whatever name the test gives them.
///
/// The path of a request says what is to happen: `/307/OF` redirects to our server, which redirects to
/// the foreign one, where the chain ends.
struct Stage {
    facts: Arc<Mutex<Facts>>,
    ours: Server,
    foreign: Server,
}

impl Stage {
    async fn new() -> Self {
        let facts = Arc::<Mutex<Facts>>::default();
        let start = |which| {
            let facts = facts.clone();
            Server::start(move |request| {
                let facts = facts.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let seen = Seen::read(which, request).await;
                    let mut facts = facts.lock().unwrap();
                    let response = answer(&facts, &seen, &path);
                    facts.seen.push(seen);
                    response
                }
            })
        };
        let (ours, foreign) = (start('O').await, start('F').await);
        Self {
            facts,
            ours,
            foreign,
        }
    }

    /// With a named origin and a foreign one.
    async fn between(named: &str, foreign: &str) -> Self {
        let stage = Self::new().await;
        stage.put('O', named);
        stage.put('F', foreign);
        stage
    }

    /// Requests to this base arrive at this server; `Location` names it so.
    fn put(&self, which: Which, base: &str) {
        self.reach(which, &normal(base));
        self.lock().bases.insert(which, base.to_owned());
    }

    /// The same, as the caller spells it.
    fn reach(&self, which: Which, base: &str) {
        let server = match which {
            'O' => &self.ours,
            _ => &self.foreign,
        };
        let address = server.base.trim_start_matches("http://").parse().unwrap();
        self.lock()
            .names
            .insert(key(&base.parse().unwrap()), address);
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.lock().seen)
    }

    /// The request that sets off along a chain.
    fn request(&self, status: u16, chain: &str) -> Request<Full<Bytes>> {
        let mut rest = chain.chars();
        let first = rest.next().unwrap();
        let base = normal(&self.lock().bases[&first]);
        let uri = format!("{base}/{status}/{}", rest.as_str());
        Request::get(uri).body(Full::default()).unwrap()
    }

    fn http(&self) -> Http {
        let names = Names(self.facts.clone());
        HyperClient::builder(TokioExecutor::new()).build(names)
    }

    /// The layer below `FollowRedirect`, as the documentation has it.
    fn below<S>(&self, layer: &TokenRefreshLayer<S>) -> Client
    where
        S: SelectSession + Clone + Send + Sync + 'static,
    {
        let stack = ServiceBuilder::new().layer(FollowRedirectLayer::new());
        Client::new(stack.layer(layer.clone()).service(self.http()))
    }

    /// The layer above it.
    fn above<S>(&self, layer: &TokenRefreshLayer<S>) -> Client
    where
        S: SelectSession + Clone + Send + Sync + 'static,
    {
        let stack = ServiceBuilder::new().layer(layer.clone());
        Client::new(stack.layer(FollowRedirectLayer::new()).service(self.http()))
    }
}

fn answer(facts: &Facts, seen: &Seen, path: &str) -> Response<Full<Bytes>> {
    let mut parts = path.trim_start_matches('/').split('/');
    let status: u16 = parts.next().unwrap().parse().unwrap();
    let mut rest = parts.next().unwrap_or_default().chars();
    let (status, name, value) = match rest.next() {
        Some(next) => {
            let location = format!("{}/{status}/{}", facts.bases[&next], rest.as_str());
            (status, "location", location)
        }
        None => match seen.which {
            'F' if facts.foreign_rejects => (401, "x-from", "a stranger".to_owned()),
            'O' if !facts.good.is_none_or(|good| seen.carries(good)) => {
                (401, "set-cookie", "rejected=yes".to_owned())
            }
            _ => (200, "set-cookie", "accepted=yes".to_owned()),
        },
    };
    let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
    let response = Response::builder().status(status).header(name, value);
    let body = if status == 200 {
        seen.body.clone()
    } else {
        Bytes::new()
    };
    response.body(Full::new(body)).unwrap()
}

/// As a client that follows redirects spells it.
fn normal(base: &str) -> String {
    let url = Url::parse(base).unwrap();
    url.as_str().trim_end_matches('/').to_owned()
}

fn key(uri: &Uri) -> String {
    let (scheme, authority) = (uri.scheme_str().unwrap(), uri.authority().unwrap());
    format!("{scheme}://{authority}")
}

type Http = HyperClient<Names, ReplayBody<Full<Bytes>>>;

/// Connects to where a name leads on this stage; without TLS, which has no part in this.
#[derive(Clone)]
struct Names(Arc<Mutex<Facts>>);

impl Service<Uri> for Names {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let address = self.0.lock().unwrap().names.get(&key(&uri)).copied();
        Box::pin(async move {
            let address = address.ok_or_else(|| format!("nobody is called {uri}"))?;
            Ok(TokioIo::new(TcpStream::connect(address).await?))
        })
    }
}

/// Logged in with the token `CANARY-old`; a reissue gives `CANARY-new`.
async fn session(header: &str) -> Session {
    let reissue = reissue_fn(async |_| TokenSet::new("CANARY-new").map_err(ReissueError::unknown));
    let scheme = if header == "authorization" {
        "Bearer"
    } else {
        ""
    };
    let session = Session::builder(reissue).header(header, scheme).build();
    let session = session.unwrap();
    let tokens = TokenSet::new("CANARY-old").unwrap();
    let tokens = tokens.with_refresh_token("CANARY-refresh").unwrap();
    session.login(tokens).await.unwrap();
    session
}

fn layer<S>(named: &str, session: S) -> TokenRefreshLayer<S> {
    let origin = Origin::allow_plain_http(named).unwrap();
    TokenRefreshLayer::new(origin, session).unwrap()
}

/// All ways over one, two and three redirects.
fn chains() -> impl Iterator<Item = String> {
    (2..=4).flat_map(|length| {
        let letter = move |n: u32, place: u32| if n >> place & 1 == 0 { 'O' } else { 'F' };
        (0..1 << length).map(move |n| (0..length).map(|place| letter(n, place)).collect())
    })
}

/// Which requests of a chain carry the token.
fn carried(seen: &[Seen]) -> Vec<bool> {
    seen.iter().map(|seen| seen.carries("CANARY")).collect()
}

/// Sends a request along every chain with every status, and compares who got the token.
async fn try_all(
    stage: &Stage,
    client: &Client,
    expected: impl Fn(&str) -> Vec<bool>,
    row: &str,
) -> usize {
    let mut requests = 0;
    for status in STATUSES {
        for chain in chains() {
            let answer = client.send(stage.request(status, &chain)).await;
            let row = format!("{row}: {status} along {chain}");
            assert_eq!(answer.unwrap().status, StatusCode::OK, "{row}");
            let seen = stage.take_seen();
            let way: String = seen.iter().map(|seen| seen.which).collect();
            assert_eq!(way, chain, "{row}");
            let expected = expected(&chain);
            assert_eq!(carried(&seen), expected, "{row}");
            let bare = seen.iter().zip(&expected).filter(|(_, carried)| !**carried);
            bare.for_each(|(seen, _)| assert_bare(seen));
            requests += seen.len();
        }
    }
    requests
}

/// No header either in which any client keeps a credential.
fn assert_bare(seen: &Seen) {
    let mut names = CREDENTIALS.iter();
    let given = names.find(|name| seen.headers.contains_key(**name));
    assert!(given.is_none(), "{}", seen.text);
}

fn assert_foreign_bare(seen: &[Seen]) {
    let foreign = seen.iter().filter(|seen| seen.which == 'F');
    foreign.for_each(assert_bare);
}

// shows B15, B120, P11, S1, S2
#[tokio::test]
async fn below_follow_redirect_each_hop_to_the_named_origin_and_no_other_carries_the_token() {
    let mut requests = 0;
    for (named, foreign) in PAIRS {
        for header in ["authorization", "x-api-key"] {
            let stage = Stage::between(named, foreign).await;
            let client = stage.below(&layer(named, session(header).await));
            let row = format!("{named}, {foreign}, {header}");
            let ours = |chain: &str| chain.chars().map(|which| which == 'O').collect();
            requests += try_all(&stage, &client, ours, &row).await;
        }
    }
    assert_eq!(
        requests,
        PAIRS.len() * 2 * STATUSES.len() * (4 * 2 + 8 * 3 + 16 * 4)
    );
}

// shows P11, S1: what tower-http does about the header that it knows. It drops the token at the first
// hop to another origin and has none to put back.
#[tokio::test]
async fn above_follow_redirect_an_authorization_header_goes_no_further_than_the_named_origin() {
    for (named, foreign) in PAIRS {
        let stage = Stage::between(named, foreign).await;
        let client = stage.above(&layer(named, session("authorization").await));
        let until_it_leaves = |chain: &str| {
            let left = chain.find('F').unwrap_or(chain.len());
            (0..chain.len()).map(|hop| hop < left).collect()
        };
        try_all(
            &stage,
            &client,
            until_it_leaves,
            &format!("{named}, {foreign}"),
        )
        .await;
    }
}

// shows S2: the documentation warns of this, and it has to go on doing so for as long as this holds.
#[tokio::test]
async fn above_follow_redirect_a_header_of_another_name_is_carried_away() {
    let (named, foreign) = ("http://ours.test", "http://evil.test");
    let stage = Stage::between(named, foreign).await;
    let client = stage.above(&layer(named, session("x-api-key").await));
    let everywhere = |chain: &str| vec![chain.starts_with('O'); chain.len()];
    try_all(&stage, &client, everywhere, "x-api-key").await;
}

// shows P11: other spellings of a named origin are that origin, and userinfo never is.
#[tokio::test]
async fn a_named_origin_is_known_in_each_of_its_spellings() {
    let cases = [
        ("http://ours.test", "http://OURS.test", true),
        ("http://ours.test", "http://ours.test.", true),
        ("http://ours.test", "http://Ours.Test.:80", true),
        ("http://ours.test", "http://ours.test:80", true),
        ("http://ours.test:80", "http://ours.test", true),
        ("https://ours.test", "https://ours.test:443", true),
        ("http://OURS.test.", "http://ours.test", true),
        ("http://[::1]:8001", "http://[0:0:0:0:0:0:0:1]:8001", true),
        (
            "http://xn--bcher-kva.test",
            "http://XN--BCHER-KVA.test",
            true,
        ),
        ("http://ours.test", "http://user@ours.test", false),
        ("http://ours.test", "http://user:password@ours.test", false),
        ("http://ours.test", "http://@ours.test", false),
    ];
    for (named, spelling, expected) in cases {
        let stage = Stage::between(named, "http://evil.test").await;
        stage.reach('O', spelling);
        let client = stage.below(&layer(named, session("authorization").await));
        let request = Request::get(format!("{spelling}/302/"));
        let request = request.body(Full::default()).unwrap();
        client.send(request).await.unwrap();
        assert_eq!(carried(&stage.take_seen()), [expected], "{spelling}");
    }
}

// shows P11: and so it is where a redirect spells it.
#[tokio::test]
async fn a_redirect_to_another_spelling_of_the_named_origin_carries_the_token() {
    let named = "http://ours.test";
    for (location, expected) in [
        ("http://OURS.TEST", true),
        ("http://ours.test.", true),
        ("http://ours.test:80", true),
        ("http://ours.test:0080", true),
        ("http://%6furs.test", true),
        ("http://user:password@ours.test", false),
    ] {
        let stage = Stage::between(named, "http://evil.test").await;
        let client = stage.below(&layer(named, session("authorization").await));
        let request = stage.request(307, "OO");
        stage.put('O', location);
        client.send(request).await.unwrap();
        assert_eq!(carried(&stage.take_seen()), [true, expected], "{location}");
    }
}

// shows P11, S19: it had no token of ours, so it can't have rejected one.
#[tokio::test]
async fn a_401_of_a_foreign_server_causes_no_reissue() {
    let (named, foreign) = ("http://ours.test", "http://evil.test");
    let stage = Stage::between(named, foreign).await;
    stage.lock().foreign_rejects = true;
    let session = session("authorization").await;
    let client = stage.below(&layer(named, session.clone()));
    for chain in ["OF", "OOF", "OFF", "OFOF"] {
        let answer = client.send(stage.request(302, chain)).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{chain}");
        assert!(answer.why.is_none(), "{chain}: not ours to explain");
        assert_eq!(stage.take_seen().len(), chain.len(), "{chain}");
    }
    let stats = session.stats();
    assert_eq!((stats.reissues, stats.replays), (0, 0));
}

// What the documentation says of the layer above: it can't see who has answered.
#[tokio::test]
async fn above_follow_redirect_a_401_of_a_foreign_server_is_taken_for_ours() {
    let (named, foreign) = ("http://ours.test", "http://evil.test");
    let stage = Stage::between(named, foreign).await;
    stage.lock().foreign_rejects = true;
    let session = session("authorization").await;
    let client = stage.above(&layer(named, session.clone()));
    let answer = client.send(stage.request(302, "OF")).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let stats = session.stats();
    assert_eq!((stats.reissues, stats.replays), (1, 1));
    assert_foreign_bare(&stage.take_seen());
}

// shows B120, P1, P9: below, the last hop is sent again; above, the whole way is gone once more.
#[tokio::test]
async fn a_401_at_the_end_of_redirects_costs_one_reissue_and_one_replay() {
    let (named, foreign) = ("http://ours.test", "http://evil.test");
    for (is_above, chain, way) in [
        (false, "OO", "OOO"),
        (false, "OOO", "OOOO"),
        (false, "OFO", "OFOO"),
        (false, "FO", "FOO"),
        (true, "OO", "OOOO"),
        (true, "OOO", "OOOOOO"),
    ] {
        let stage = Stage::between(named, foreign).await;
        stage.lock().good = Some("CANARY-new");
        let session = session("authorization").await;
        let layer = layer(named, session.clone());
        let client = if is_above {
            stage.above(&layer)
        } else {
            stage.below(&layer)
        };
        for status in STATUSES {
            let answer = client.send(stage.request(status, chain)).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{status} {chain}");
        }
        let seen = stage.take_seen();
        let whole: String = seen.iter().map(|seen| seen.which).collect();
        // Once with the old token; the others find the new one.
        assert_eq!(whole, way.to_owned() + &chain.repeat(STATUSES.len() - 1));
        let stats = session.stats();
        assert_eq!((stats.reissues, stats.replays), (1, 1), "{chain}");
        assert_foreign_bare(&seen);
    }
}

// shows B112, B120, P10
#[tokio::test]
async fn a_body_that_is_redirected_is_replayed_whole() {
    let (named, foreign) = ("http://ours.test", "http://evil.test");
    for status in [307, 308] {
        let stage = Stage::between(named, foreign).await;
        stage.lock().good = Some("CANARY-new");
        let session = session("authorization").await;
        // `FollowRedirect` sends a body along only where it is told how to copy it.
        let copy = clone_body_fn(|body: &Full<Bytes>| Some(body.clone()));
        let policy = copy.and::<_, _, BoxError>(FilterCredentials::new());
        let stack = ServiceBuilder::new()
            .layer(FollowRedirectLayer::with_policy(policy))
            .layer(layer(named, session.clone()));
        let client = Client::new(stack.service(stage.http()));
        let whole = Bytes::from("0123456789".repeat(10_000));
        for chain in ["OO", "OFO"] {
            let (mut head, _) = stage.request(status, chain).into_parts();
            head.method = Method::POST;
            let request = Request::from_parts(head, Full::new(whole.clone()));
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{chain}");
            assert!(answer.body.as_bytes() == whole, "{chain}");
        }
        let seen = stage.take_seen();
        assert_eq!(seen.len(), 3 + 3, "the first chain with a replay");
        assert!(
            seen.iter()
                .all(|it| it.method == Method::POST && it.body == whole)
        );
        assert_eq!(session.stats().replays, 1);
        assert_foreign_bare(&seen);
    }
}

// shows S18: what keeps cookies above the layer never learns of the rejection.
#[tokio::test]
async fn the_cookies_of_a_rejection_that_was_made_good_are_not_passed_on() {
    let (named, foreign) = ("http://ours.test", "http://evil.test");
    let stage = Stage::between(named, foreign).await;
    stage.lock().good = Some("CANARY-new");
    let session = session("authorization").await;
    let jar = Arc::new(Mutex::new(Vec::new()));
    let kept = jar.clone();
    let keep = move |response: Response<_>| {
        let cookies = response.headers().get_all("set-cookie").iter().cloned();
        kept.lock().unwrap().push(cookies.collect::<Vec<_>>());
        response
    };
    let stack = ServiceBuilder::new()
        .map_response(keep)
        .layer(layer(named, session.clone()));
    let client = Client::new(stack.service(stage.http()));
    let answer = client.send(stage.request(302, "O")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(stage.take_seen().len(), 2, "rejected, and sent again");
    assert_eq!(*jar.lock().unwrap(), [["accepted=yes"]]);
}

// What the documentation says: between origins `FollowRedirect` drops what a request was marked with,
// unless it is told to keep it.
#[tokio::test]
async fn a_users_session_survives_a_redirect_to_another_origin_only_where_it_is_let() {
    let (named, foreign) = ("http://ours.test", "http://evil.test");
    let stage = Stage::between(named, foreign).await;
    let layer = layer(named, SessionExtension);
    let keeping = FilterCredentials::new()
        .allow_extension::<Session>()
        .allow_extension::<WithoutToken>();
    let stack = ServiceBuilder::new()
        .layer(FollowRedirectLayer::with_policy(keeping))
        .layer(layer.clone());
    let keeping = Client::new(stack.service(stage.http()));
    for (client, expected) in [
        (stage.below(&layer), [true, false, false]),
        (keeping.clone(), [true, false, true]),
    ] {
        let mut request = stage.request(302, "OFO");
        request
            .extensions_mut()
            .insert(session("authorization").await);
        client.send(request).await.unwrap();
        assert_eq!(carried(&stage.take_seen()), expected);
    }
    let mut request = stage.request(302, "OFO");
    request
        .extensions_mut()
        .insert(session("authorization").await);
    request.extensions_mut().insert(WithoutToken);
    keeping.send(request).await.unwrap();
    assert_eq!(carried(&stage.take_seen()), [false; 3]);
}
