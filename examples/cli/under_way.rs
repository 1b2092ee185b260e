//! Knows whether a refresh is under way: each has a span of its own from its start until its tokens
//! are saved. And shows what the crate tells, if that is asked for.

use std::io::{IsTerminal, stderr};

use tokio::sync::watch;
use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter, span};
use tracing_subscriber::{
    Layer, filter::Targets, fmt, layer::Context, prelude::*, registry::LookupSpan,
};

const CRATE: &str = "tower_token_refresh";
const SPAN: &str = "token_refresh";

#[derive(Clone)]
pub struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    /// From now on. `verbose` is how much of it is told.
    pub fn watch(verbose: u8) -> Self {
        let under_way = Self(watch::Sender::new(0));
        let level = match verbose {
            0 => LevelFilter::OFF,
            1 => Level::INFO.into(),
            _ => Level::TRACE.into(),
        };
        // What the crates below would tell is about connections, and not for this place.
        let told = fmt::layer()
            .with_writer(stderr)
            .with_ansi(stderr().is_terminal())
            .with_filter(Targets::new().with_target(CRATE, level));
        let counted = under_way
            .clone()
            .with_filter(Targets::new().with_target(CRATE, Level::INFO));
        tracing_subscriber::registry()
            .with(counted)
            .with(told)
            .init();
        under_way
    }

    /// One is, now.
    pub fn is_any(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Resolves when none is.
    pub async fn settled(&self) {
        // An error would be a sender that is gone, and it is here.
        let _ = self
            .0
            .subscribe()
            .wait_for(|refreshes| *refreshes == 0)
            .await;
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for UnderWay {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        if is_refresh(attributes.metadata()) {
            self.0.send_modify(|refreshes| *refreshes += 1);
        }
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        if context.metadata(&id).is_some_and(is_refresh) {
            self.0.send_modify(|refreshes| *refreshes -= 1);
        }
    }
}

fn is_refresh(metadata: &Metadata<'_>) -> bool {
    metadata.name() == SPAN
}
