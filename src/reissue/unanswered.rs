//! What it means for the issuer that a request failed without an answer.
//!
//! An error that proves that the issuer never had the request makes the failure *transient*: the
//! refresh token is as good as before. Everything else is *unknown*, as a refresh token that is
//! presented twice can cost the session.
//!
//! What is no proof, though it looks like one:
//!
//! - `HostUnreachable`, `NetworkUnreachable` and `TimedOut` of an [`io::Error`]: an established
//!   connection ends with them too, after the request was written. Where a hyper client met them
//!   while it connected, it says so.
//! - An HTTP/2 GOAWAY, where the refresh token is in the head of the request. Streams above its last
//!   stream identifier were not processed (RFC 9113 section 6.8), and `h2` fails just those with it.
//!   But hyper asks `h2` once more whether the connection is open after it has handed a head over,
//!   and before it touches the body. A GOAWAY that another thread has read in between fails a request
//!   whose head is on its way, whatever the last stream; the error does not tell the two apart.
//!   Neither lets an issuer have a token that is in the body.
//! - A message that is incomplete: the peer closed a connection kept alive, before or after it had
//!   read the request.

use std::error::Error;
use std::io;
use std::iter;

use tower::load_shed::error::Overloaded;

use super::ReissueError;
use crate::error::BoxError;

/// A client's error in place of an answer, to a request whose refresh token was in its body or not.
pub(super) fn unanswered(error: impl Into<BoxError>, token_in_body: bool) -> ReissueError {
    let error = error.into();
    if causes(&*error).any(|error| was_not_sent(error, token_in_body)) {
        ReissueError::transient(error)
    } else {
        ReissueError::unknown(error)
    }
}

/// The error, what caused it, and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |error| cause(*error))
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        // The source of an `io::Error` is not what it wraps, but the source of that.
        Some(io) => io.get_ref().map(|wrapped| wrapped as _),
        None => error.source(),
    }
}

fn was_not_sent(error: &(dyn Error + 'static), token_in_body: bool) -> bool {
    is_of_connecting(error) || error.is::<Overloaded>() || is_of_hyper(error, token_in_body)
}

/// What only the attempt to connect can end with: refused, or no local port was free.
fn is_of_connecting(error: &(dyn Error + 'static)) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::AddrNotAvailable)
    )
}

/// The client of hyper-util, which is that of reqwest too: the connector failed (name resolution,
/// TCP, TLS), the request did not get as far as a connection, or the peer says that it was not
/// processed (RFC 9113 section 8.7).
#[cfg(feature = "hyper")]
fn is_of_hyper(error: &(dyn Error + 'static), token_in_body: bool) -> bool {
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        error.is_connect()
    } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
        error.is_canceled()
    } else if let Some(error) = error.downcast_ref::<h2::Error>() {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away() && token_in_body)
    } else {
        false
    }
}

#[cfg(not(feature = "hyper"))]
fn is_of_hyper(_: &(dyn Error + 'static), _: bool) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use tower::timeout::error::Elapsed;

    use super::*;

    fn io(kind: io::ErrorKind) -> io::Error {
        io::Error::from(kind)
    }

    #[derive(Debug)]
    struct Because(BoxError);

    impl fmt::Display for Because {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("client error")
        }
    }

    impl Error for Because {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.0)
        }
    }

    /// The ways in which clients wrap what happened.
    fn wrapped<E: Error + Send + Sync + 'static>(error: impl Fn() -> E) -> [BoxError; 4] {
        [
            error().into(),
            Because(Because(error().into()).into()).into(),
            io::Error::other(error()).into(),
            io::Error::other(Because(io::Error::other(error()).into())).into(),
        ]
    }

    #[test]
    fn a_proof_is_found_however_it_is_wrapped() {
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::AddrNotAvailable,
        ] {
            for error in wrapped(|| io(kind)) {
                assert!(unanswered(error, true).is_transient(), "{kind}");
            }
        }
        for error in wrapped(Overloaded::new) {
            assert!(unanswered(error, true).is_transient());
        }
    }

    #[test]
    fn every_other_failure_without_an_answer_is_of_unknown_outcome() {
        for kind in [
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::NotConnected,
            io::ErrorKind::TimedOut,
            io::ErrorKind::Other,
        ] {
            for error in wrapped(|| io(kind)) {
                assert!(unanswered(error, true).is_unknown(), "{kind}");
            }
        }
        for error in wrapped(Elapsed::new) {
            assert!(unanswered(error, true).is_unknown());
        }
        assert!(unanswered("gone", true).is_unknown());
    }

    #[cfg(feature = "hyper")]
    #[test]
    fn a_reason_of_http2_without_a_frame_of_the_peer_proves_nothing() {
        for error in wrapped(|| h2::Error::from(h2::Reason::REFUSED_STREAM)) {
            assert!(unanswered(error, true).is_unknown());
        }
    }
}
