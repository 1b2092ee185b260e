//! How changes are told by Redis: on one channel, for all sessions of a prefix.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::BoxStream;
use redis::Client;
use redis::cmd;

use super::Family;
use crate::store::BoxResult;
use crate::store::notices::Wire;

/// A connection of its own: one that listens can do nothing else.
pub(super) struct Channel {
    client: Client,
    /// Where changes are told.
    changes: String,
    /// Where this process alone listens: what it tells itself would be heard by all others.
    echo: String,
    /// What is told goes the way of the swaps.
    family: Weak<Family>,
}

impl Channel {
    pub(super) fn new(family: &Arc<Family>) -> Self {
        Self {
            client: family.client.clone(),
            changes: family.channel.clone(),
            echo: format!("{}:echo:{:016x}", family.prefix, fastrand::u64(..)),
            family: Arc::downgrade(family),
        }
    }
}

impl Wire for Channel {
    fn listen(&self) -> BoxResult<'_, BoxStream<'static, String>> {
        async {
            let mut connection = self.client.get_async_pubsub().await?;
            connection.subscribe(&[&self.changes, &self.echo]).await?;
            let told = connection.into_on_message();
            Ok(told
                .filter_map(|told| ready(told.get_payload().ok()))
                .boxed())
        }
        .boxed()
    }

    fn tell<'a>(&'a self, text: &'a str) -> BoxResult<'a, ()> {
        async move {
            let family = self
                .family
                .upgrade()
                .ok_or("nobody uses the store any more")?;
            let link = family.line.link().await?;
            let tell = async |mut connection| {
                let mut publish = cmd("PUBLISH");
                publish.arg(&self.echo).arg(text);
                publish.exec_async(&mut connection).await
            };
            Ok(family.line.ask(&link, Duration::ZERO, tell).await?)
        }
        .boxed()
    }
}
