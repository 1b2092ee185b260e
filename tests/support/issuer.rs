//! A scripted issuer over HTTP/1 or HTTP/2: the same answers, and the same ways to break off.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::Response;
use tokio::sync::Semaphore;

use super::raw;
use super::raw::Raw;
use super::raw_h2;
use super::raw_h2::RawH2;

/// What it does with one request, when it has read it whole.
#[derive(Clone)]
pub struct Act {
    gate: Option<Arc<Semaphore>>,
    status: Option<u16>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    announced: Option<usize>,
    drip: bool,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Done,
    Close,
    Reset,
    Hang,
}

impl Act {
    fn just(then: Then) -> Self {
        Self {
            gate: None,
            status: None,
            headers: Vec::new(),
            body: Vec::new(),
            announced: None,
            drip: false,
            then,
        }
    }

    /// Says nothing, and closes the connection.
    pub fn close() -> Self {
        Self::just(Then::Close)
    }

    /// Says nothing, and resets: the connection (RST), or the stream (RST_STREAM).
    pub fn reset() -> Self {
        Self::just(Then::Reset)
    }

    /// Says nothing, ever.
    pub fn hang() -> Self {
        Self::just(Then::Hang)
    }

    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            ..Self::just(Then::Done)
        }
    }

    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self::status(status)
            .header("content-type", "application/json")
            .body(body.into())
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Announces this length, whatever the body's.
    #[must_use]
    pub fn announcing(mut self, length: usize) -> Self {
        self.announced = Some(length);
        self
    }

    /// Sends the body byte by byte.
    #[must_use]
    pub fn dripping(mut self) -> Self {
        self.drip = true;
        self
    }

    /// Waits for a permit before it says anything.
    #[must_use]
    pub fn after(mut self, gate: &Arc<Semaphore>) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// What was said so far is not all, and then the connection is closed.
    #[must_use]
    pub fn then_close(self) -> Self {
        self.then(Then::Close)
    }

    /// What was said so far is not all, and then there is a reset.
    #[must_use]
    pub fn then_reset(self) -> Self {
        self.then(Then::Reset)
    }

    /// What was said so far is not all, and then comes nothing.
    #[must_use]
    pub fn then_hang(self) -> Self {
        self.then(Then::Hang)
    }

    fn then(mut self, then: Then) -> Self {
        self.announced.get_or_insert(self.body.len() + 100);
        Self { then, ..self }
    }

    fn over_http1(self) -> raw::Act {
        let mut bytes = Vec::new();
        if let Some(status) = self.status {
            let length = self.announced.unwrap_or(self.body.len());
            bytes = format!("HTTP/1.1 {status} Said\r\n").into_bytes();
            for (name, value) in &self.headers {
                bytes.extend(format!("{name}: {value}\r\n").into_bytes());
            }
            if status != 204 {
                bytes.extend(format!("content-length: {length}\r\n").into_bytes());
            }
            bytes.extend(b"\r\n");
            bytes.extend(&self.body);
        }
        raw::Act {
            gate: self.gate,
            bytes,
            drip: self.drip,
            body_unread: false,
            then: match self.then {
                Then::Done => raw::Then::Keep,
                Then::Close => raw::Then::Close,
                Then::Reset => raw::Then::Reset,
                Then::Hang => raw::Then::Hang,
            },
        }
    }

    fn over_http2(self) -> raw_h2::Act {
        let head = self.status.map(|status| {
            let mut head = Response::builder().status(status);
            for (name, value) in &self.headers {
                head = head.header(name, value);
            }
            if let Some(length) = self.announced {
                head = head.header("content-length", length);
            }
            head.body(()).unwrap()
        });
        let then = match self.then {
            Then::Done => raw_h2::Then::Done,
            Then::Close => raw_h2::Then::Close,
            Then::Reset => raw_h2::Then::Reset(Reason::INTERNAL_ERROR),
            Then::Hang => raw_h2::Then::Hang,
        };
        raw_h2::Act {
            gate: self.gate,
            head,
            body: Bytes::from(self.body),
            drip: self.drip,
            ..raw_h2::Act::just(then)
        }
    }
}

pub enum Issuer {
    Http1(Raw),
    Http2(RawH2),
}

impl Issuer {
    /// Does one act for each request, in turn; the last one for all that follow.
    pub async fn scripted(http2: bool, acts: impl IntoIterator<Item = Act>) -> Self {
        let acts = acts.into_iter();
        match http2 {
            false => Self::Http1(Raw::scripted(acts.map(Act::over_http1)).await),
            true => Self::Http2(RawH2::scripted(acts.map(Act::over_http2)).await),
        }
    }

    pub fn uri(&self) -> String {
        let address = match self {
            Self::Http1(raw) => raw.address,
            Self::Http2(raw) => raw.address,
        };
        format!("http://{address}/token")
    }

    /// The requests it has read, as text.
    pub fn requests(&self) -> Vec<String> {
        match self {
            Self::Http1(raw) => raw.requests(),
            Self::Http2(raw) => raw.requests(),
        }
    }

    /// Waits until it has read so many.
    pub async fn asked(&self, n: usize) {
        match self {
            Self::Http1(raw) => raw.asked(n).await,
            Self::Http2(raw) => raw.asked(n).await,
        }
    }

    pub fn connections(&self) -> usize {
        match self {
            Self::Http1(raw) => raw.connections(),
            Self::Http2(raw) => raw.connections(),
        }
    }
}
