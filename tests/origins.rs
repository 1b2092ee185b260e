//! Proves P11: the token goes to the named origins only, judged for every request.

mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use support::Client;
use support::World;
use tower::Layer;
use tower_token_refresh::JsonReissue;
use tower_token_refresh::Origin;
use tower_token_refresh::Session;
use tower_token_refresh::TokenRefreshLayer;

fn request(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

async fn carries(client: &Client, world: &World, uri: &str) -> bool {
    client.send(request(uri)).await.unwrap();
    world.seen().last().unwrap().token.is_some()
}

// shows B14, S1, S3
#[tokio::test]
async fn the_token_goes_to_the_named_origins_and_to_no_other() {
    let world = World::new();
    let session = world.logged_in("u").await;
    let layer = TokenRefreshLayer::new("https://api.test", session.clone())
        .unwrap()
        .also("https://other.test:8443")
        .unwrap()
        .also("http://127.0.0.1:8080")
        .unwrap();
    let client = Client::new(layer.layer(world.api()));
    for uri in [
        "https://api.test/",
        "https://api.test:443/x?y",
        "https://API.test/",
        "https://api.test./",
        "https://other.test:8443/",
        "http://127.0.0.1:8080/",
        "/where/the/service/is/bound",
    ] {
        assert!(carries(&client, &world, uri).await, "{uri}");
    }
    for uri in [
        "http://api.test/",
        "https://api.test:8443/",
        "https://api.test:80/",
        "https://sub.api.test/",
        "https://api.test.evil/",
        "https://evil-api.test/",
        "https://user@api.test/",
        "https://api.test:443@evil.test/",
        "https://user:password@api.test/",
        "https://other.test/",
        "http://127.0.0.1:8081/",
        "http://127.0.0.2:8080/",
        "https://[::1]/",
        "ftp://api.test/",
    ] {
        assert!(!carries(&client, &world, uri).await, "{uri}");
    }
    assert_eq!(
        world.counts().reissues,
        0,
        "a rejection elsewhere is none of our business"
    );
}

// shows B16, B141: and what is no origin is refused by name.
#[tokio::test]
async fn what_is_no_origin_is_refused_when_the_layer_is_built() {
    let session = World::new().session();
    for origin in [
        "",
        " ",
        "api.test",
        "api.test:443",
        "//api.test",
        "/path",
        "*",
        "https://",
        "https://*",
        "https:// api.test",
        "https://api.test/path",
        "https://api.test?x",
        "https://api.test#x",
        "https://user@api.test",
        "https://api.test:0",
        "https://api.test:99999",
        "https://api.test:port",
        "ftp://api.test",
        "http://api.test",
        "http://10.0.0.1",
        "http://localhost.evil.test",
        "http://127.0.0.1.evil.test",
    ] {
        let refused = TokenRefreshLayer::new(origin, session.clone());
        let message = refused
            .err()
            .unwrap_or_else(|| panic!("{origin:?}"))
            .to_string();
        assert!(message.len() > 15, "{origin:?}: {message}");
    }
    for origin in [
        "http://localhost:1",
        "http://LOCALHOST",
        "http://127.9.9.9",
        "http://[::1]:8080",
    ] {
        assert!(
            TokenRefreshLayer::new(origin, session.clone()).is_ok(),
            "{origin}"
        );
    }
    let asked_for = Origin::allow_plain_http("http://10.0.0.1:8080").unwrap();
    assert!(TokenRefreshLayer::new(asked_for, session).is_ok());
}

// shows S10: the refresh token goes over https, or stays on this machine.
#[tokio::test]
async fn a_reissuer_with_a_bad_address_is_refused_when_the_session_is_built() {
    for url in [
        "",
        "/member/token/refresh",
        "issuer.test/refresh",
        "http://issuer.test/refresh",
        "ftp://issuer.test/refresh",
        "https://user:password@issuer.test/refresh",
        "https:///refresh",
        "not a url",
    ] {
        let reissue = JsonReissue::post(
            url,
            tower::service_fn(|_: Request<Full<Bytes>>| async {
                Ok::<http::Response<Full<Bytes>>, std::io::Error>(http::Response::default())
            }),
        );
        assert!(Session::builder(reissue).build().is_err(), "{url:?}");
    }
}
