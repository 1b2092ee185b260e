//! Two backends with one session: the layer inside each, and above what chooses.

use std::collections::HashMap;

use bytes::Bytes;
use http::Request;
use http::Uri;
use http_body_util::Full;
use tower::Layer;
use tower::ServiceBuilder;
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::load::Constant;
use tower::service_fn;
use tower::steer::Steer;
use tower::util::BoxCloneSyncService;
use tower_token_refresh::BoxError;
use tower_token_refresh::TokenRefreshLayer;

use crate::HTTP1;
use crate::WIRES;
use crate::Wire;
use crate::site::Site;
use crate::support::Client;
use crate::within;

/// The name that callers use for both.
const NAME: &str = "https://api.test";

const CROWD: usize = 40;

type Backend<B> = BoxCloneSyncService<Request<B>, http::Response<hyper::body::Incoming>, BoxError>;

/// Sends everything to this site, whatever host it names.
fn bound<B>(wire: Wire, site: &Site) -> Backend<B>
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let base = site.base.clone();
    let rewrite = move |mut request: Request<B>| {
        let path = request.uri().path();
        *request.uri_mut() = format!("{base}{path}").parse::<Uri>().unwrap();
        request
    };
    let stack = ServiceBuilder::new().map_request(rewrite);
    let stack = stack.map_err(Into::into).service(wire.http());
    BoxCloneSyncService::new(stack)
}

fn get(path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(format!("{NAME}{path}"));
    request.body(Full::default()).unwrap()
}

/// By the number at the end of the path.
fn even_or_odd<S, B>(request: &Request<B>, _: &[S]) -> usize {
    usize::from(request.uri().path().ends_with(['1', '3', '5', '7', '9']))
}

/// How often each path was seen at each site.
fn visits(sites: &[Site; 2]) -> HashMap<String, [usize; 2]> {
    let mut visits = HashMap::<_, [usize; 2]>::new();
    for (n, site) in sites.iter().enumerate() {
        for seen in site.seen() {
            visits.entry(seen.path).or_default()[n] += 1;
        }
    }
    visits
}

/// All succeed, with one reissue for both sites: each was rejected once, and sent again.
async fn succeeds(client: &Client, sites: &[Site; 2], stack: &str) {
    for site in sites {
        site.hold_answers();
    }
    let paths = (0..CROWD).map(|n| format!("/{n}"));
    let crowd = paths.map(|path| tokio::spawn(client.send(get(&path))));
    let crowd: Vec<_> = crowd.collect();
    within(async {
        let [one, other] = sites;
        // Both counts move, so each is looked at when either has.
        let mut here = 0;
        while here + other.counts().requests < CROWD {
            let (seen, there) = (here, other.counts().requests);
            tokio::select! {
                () = one.until(|counts| counts.requests > seen) => {}
                () = other.until(|counts| counts.requests > there) => {}
            }
            here = one.counts().requests;
        }
    })
    .await;
    for site in sites {
        site.release_answers(1 << 20);
    }
    for sent in crowd {
        let answer = within(sent).await.unwrap();
        let answer = answer.unwrap_or_else(|error| panic!("{stack}: {error:?}"));
        assert_eq!(answer.status, 200, "{stack}");
    }
    let counts = sites.each_ref().map(Site::counts);
    assert_eq!(counts[0].reissues + counts[1].reissues, 1, "{stack}");
    assert_eq!(
        counts[0].requests + counts[1].requests,
        2 * CROWD,
        "{stack}"
    );
    assert!(counts.iter().all(|it| it.requests > 0), "{stack}");
    assert!(visits(sites).values().all(|[a, b]| a + b == 2), "{stack}");
}

async fn two_sites() -> [Site; 2] {
    let one = Site::start().await;
    let other = one.beside().await;
    [one, other]
}

fn named(session: &tower_token_refresh::Session) -> TokenRefreshLayer {
    TokenRefreshLayer::new(NAME, session.clone()).unwrap()
}

// shows B31, P1: a session is one login, however many layers it is in.
#[tokio::test]
async fn steered_requests_of_two_backends_cost_one_reissue() {
    for wire in WIRES {
        let sites = two_sites().await;
        let layer = named(&sites[0].session().await);
        let layered = sites.each_ref().map(|site| layer.layer(bound(wire, site)));
        let inside = Client::new(Steer::new(layered, even_or_odd));
        succeeds(&inside, &sites, &format!("inside each, {wire:?}")).await;

        let sites = two_sites().await;
        let layer = named(&sites[0].session().await);
        let bare = sites.each_ref().map(|site| bound(wire, site));
        let above = Client::new(layer.layer(Steer::new(bare, even_or_odd)));
        succeeds(&above, &sites, &format!("above, {wire:?}")).await;
        // By its path, so it was the same both times.
        assert!(visits(&sites).values().all(|visits| visits.contains(&2)));
    }
}

// shows B31, B118, P1: inside each, a request is sent again where it was rejected; above, it is
// balanced once more.
#[tokio::test]
async fn balanced_requests_of_two_backends_cost_one_reissue() {
    for wire in WIRES {
        let sites = two_sites().await;
        let layer = named(&sites[0].session().await);
        let layered = sites.each_ref().map(|site| layer.layer(bound(wire, site)));
        let loads = layered.map(|service| Constant::new(service, 1));
        let balance = Balance::new(ServiceList::new(loads));
        let inside = Client::new(Buffer::new(balance, CROWD));
        succeeds(&inside, &sites, &format!("inside each, {wire:?}")).await;
        assert!(visits(&sites).values().all(|visits| visits.contains(&2)));

        let sites = two_sites().await;
        let layer = named(&sites[0].session().await);
        let loads = sites
            .each_ref()
            .map(|site| Constant::new(bound(wire, site), 1));
        let balance = Balance::new(ServiceList::new(loads));
        let above = Client::new(layer.layer(Buffer::new(balance, CROWD)));
        succeeds(&above, &sites, &format!("above, {wire:?}")).await;
    }
}

// shows P11: above what rewrites addresses, the layer goes by the name that the caller used.
#[tokio::test]
async fn an_address_that_is_rewritten_below_is_not_judged_and_one_rewritten_above_is() {
    let site = Site::start().await;
    let session = site.session().await;
    let below = Client::new(named(&session).layer(bound(HTTP1, &site)));
    let answer = within(below.send(get("/below"))).await.unwrap();
    assert_eq!(
        answer.status, 200,
        "the token went to an address of no name"
    );
    let base = site.base.clone();
    let layered = named(&session).layer(HTTP1.http());
    let above = service_fn(move |mut request: Request<Full<Bytes>>| {
        *request.uri_mut() = format!("{base}/above").parse().unwrap();
        tower::ServiceExt::oneshot(layered.clone(), request)
    });
    let answer = within(Client::new(above).send(get("/above"))).await;
    assert_eq!(answer.unwrap().status, 401);
    assert_eq!(site.seen().last().unwrap().token, "");
}

// What `Steer` needs below the layer. A clone of one that is ready takes itself for ready, though its
// services are not: a limit among them panics. A `Buffer` between keeps it from being cloned.
#[tokio::test]
async fn a_steer_below_whose_services_need_readiness_stands_below_a_buffer() {
    let sites = two_sites().await;
    let layer = named(&sites[0].session().await);
    let limited = sites.each_ref().map(|site| {
        let stack = ServiceBuilder::new().concurrency_limit(CROWD);
        stack.service(bound(HTTP1, site))
    });
    let steer = Steer::new(limited, even_or_odd);
    let client = Client::new(layer.layer(Buffer::new(steer, CROWD)));
    succeeds(&client, &sites, "below a buffer").await;
}
