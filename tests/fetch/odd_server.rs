//! A server that answers in ways an issuer should not, and remembers what it was sent.

use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::header::CONTENT_ENCODING;
use axum::http::header::CONTENT_TYPE;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use axum::routing::any;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub struct OddServer {
    pub base: String,
    authorizations: Authorizations,
    serving: JoinHandle<()>,
}

type Authorizations = Arc<Mutex<Vec<String>>>;

impl OddServer {
    /// `elsewhere` is where it redirects to.
    pub async fn start(elsewhere: String) -> Self {
        let authorizations = Authorizations::default();
        let redirect = (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, elsewhere)]);
        let router = Router::new()
            .route("/seen", any(seen))
            .route("/redirect", any(redirect))
            .route("/unauthorized", any(StatusCode::UNAUTHORIZED))
            .route(
                "/html",
                any(([(CONTENT_TYPE, "text/html")], "<h1>hello</h1>")),
            )
            .route("/bomb", any(bomb))
            .route(
                "/mac",
                any((
                    [(CONTENT_TYPE, "application/json")],
                    r#"{"access_token":"a","token_type":"mac"}"#,
                )),
            )
            .route("/large", any("[1]".repeat(1 << 20)))
            .with_state(authorizations.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self {
            base: format!("http://{addr}"),
            authorizations,
            serving,
        }
    }

    /// The `Authorization` headers that `/seen` was sent.
    pub fn authorizations(&self) -> Vec<String> {
        self.authorizations.lock().expect("no panic").clone()
    }
}

impl Drop for OddServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn seen(State(authorizations): State<Authorizations>, headers: HeaderMap) {
    let values = headers.get_all(AUTHORIZATION).iter();
    let texts = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    authorizations.lock().expect("no panic").extend(texts);
}

/// A thousand times as large as it looks.
async fn bomb() -> impl IntoResponse {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![b' '; 32 << 20]).expect("memory");
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CONTENT_ENCODING, "gzip"),
    ];
    (headers, encoder.finish().expect("memory"))
}
