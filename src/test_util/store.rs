//! The suites that stores must pass: here that of a token store, in [`shared`] that of a store which
//! several processes share.
//!
//! Both say what is done with a store and in which order; [`samples`] and [`records`] have what is
//! put into it, [`mod@difference`] says in words what is wrong with what comes back.

mod difference;
mod fault;
mod records;
mod samples;
mod shared;
mod unreadable;

pub use fault::StoreFault;
pub use shared::check_shared_token_store;
pub use unreadable::check_unreadable_shared_token_store;
pub use unreadable::check_unreadable_token_store;

use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use futures_util::future::join3;
use tokio::task::yield_now;

use self::difference::difference;
use self::difference::none_of;
use self::fault::CUTS;
use self::fault::answer;
use self::fault::cut;
use self::fault::let_others_run;
use self::samples::Sample;
use self::samples::Samples;
use crate::store::TokenStore;
use crate::token::TokenSet;

/// So many saves, while others load.
const SAVES: usize = 24;

/// Puts a store through what the crate relies on.
///
/// `open` gives a handle on the same storage each time it is called, as a program has it that was
/// started again. The storage is empty at first, and is again at the end if nothing is wrong. A
/// store that keeps nothing beyond its process, or lets only one handle be open, gives clones of one
/// handle (or of an [`Arc`](std::sync::Arc) around it): then all is checked but that the tokens
/// outlive the handle.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use tower_token_refresh::test_util::{StoreFault, check_token_store};
/// use tower_token_refresh::{BoxError, TokenSet, TokenStore};
///
/// #[derive(Default)]
/// struct Variable(Mutex<Option<TokenSet>>);
///
/// impl TokenStore for Variable {
///     async fn load(&self) -> Result<Option<TokenSet>, BoxError> {
///         Ok(self.0.lock().map_err(|_| "somebody panicked")?.clone())
///     }
///     async fn save(&self, tokens: &TokenSet) -> Result<(), BoxError> {
///         *self.0.lock().map_err(|_| "somebody panicked")? = Some(tokens.clone());
///         Ok(())
///     }
///     async fn clear(&self) -> Result<(), BoxError> {
///         *self.0.lock().map_err(|_| "somebody panicked")? = None;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), StoreFault> {
/// let store = Arc::new(Variable::default());
/// check_token_store(async || store.clone()).await
/// # }
/// ```
///
/// In a test it is one line, here for a database whose `connect` is yours:
///
/// ```no_run
/// # use tower_token_refresh::{BoxError, TokenSet, TokenStore};
/// # struct Row;
/// # impl TokenStore for Row {
/// #     async fn load(&self) -> Result<Option<TokenSet>, BoxError> { Ok(None) }
/// #     async fn save(&self, _: &TokenSet) -> Result<(), BoxError> { Ok(()) }
/// #     async fn clear(&self) -> Result<(), BoxError> { Ok(()) }
/// # }
/// # async fn connect(_: &str) -> Result<Row, BoxError> { Ok(Row) }
/// #[tokio::test]
/// # async fn unused() {}
/// async fn the_row_keeps_tokens_as_the_crate_wants_it() {
///     let url = "postgres://localhost/test";
///     tower_token_refresh::test_util::check_token_store(async || connect(url).await.unwrap())
///         .await
///         .unwrap();
/// }
/// ```
///
/// # What is checked
///
/// - An empty storage loads as `None`, and clearing it does no harm.
/// - What was saved comes back: both tokens, or one; the expiry, the time of receipt and the doubt
///   to the second; the identity, of any JSON type. Tokens are of any visible ASCII characters, in
///   upper and lower case, and up to 16 KiB long.
/// - A save replaces everything that was there, also when the tokens are the same and only the rest
///   is new. A clear forgets it.
/// - All handles see that: the one that wrote, another one that was open all the while, and one that
///   is opened afterwards. A load changes nothing, and what was loaded can be saved again, and again,
///   and is still the same.
/// - A `save` or `clear` that is dropped, at whatever moment, leaves the old or the new and never a
///   mix, and whatever is written next through the same handle wins, also over what the dropped call
///   has left running. A `load` that is dropped changes nothing.
/// - While a save is under way, loads see the old or the new.
///
/// # What is not
///
/// That what was saved survives a failure of power; that nobody else can read it; that a storage
/// which cannot be read is an error and not `None`, which is the store's most important promise and
/// has a check of its own ([`check_unreadable_token_store`]); and what a server does with a statement
/// whose caller is gone, if it takes its time.
///
/// # Errors
///
/// The first thing that is found wrong. This is an error and no panic so that the test that calls it
/// is where the failure is reported, and other frameworks can print it: `unwrap()` it, or return it
/// from the test. A store's own error is its [`source`](std::error::Error::source), unless it quotes a token, which
/// is a fault by itself. A call that takes longer than 30 s is one as well.
///
/// # Panics
///
/// Where the store or `open` does.
///
/// # Runtimes
///
/// It needs none, beyond what the store does: any will do, with one thread as well. It waits for
/// nothing but the store. On tokio, leave the clock running if the store talks to somebody else.
///
/// # Cancel safety
///
/// It may be dropped, and then leaves in the storage what is there.
pub async fn check_token_store<S, F>(open: impl Fn() -> F) -> Result<(), StoreFault>
where
    S: TokenStore,
    F: Future<Output = S>,
{
    let samples = Samples::new().map_err(StoreFault::of_the_suite)?;
    let kit = Kit {
        first: open().await,
        second: open().await,
        open,
    };
    kit.is_empty_at_first().await?;
    kit.keeps_and_replaces(&samples.in_turn).await?;
    kit.keeps_what_is_saved_again(&samples).await?;
    kit.forgets(&samples).await?;
    kit.bears_dropped_saves(&samples).await?;
    kit.bears_dropped_clears(&samples).await?;
    kit.bears_dropped_loads(&samples).await?;
    kit.is_whole_at_any_time(&samples).await?;
    kit.clear(&kit.first, "at the end, a clear").await?;
    kit.holds("after the clear at the end", None).await
}

/// One store under test: two handles that stay open, and a way to get more.
struct Kit<S, O> {
    first: S,
    second: S,
    open: O,
}

/// What may be found: its name, where there are several, and the tokens.
type Allowed<'a> = (&'static str, Option<&'a TokenSet>);

impl<S, F, O> Kit<S, O>
where
    S: TokenStore,
    F: Future<Output = S>,
    O: Fn() -> F,
{
    async fn is_empty_at_first(&self) -> Result<(), StoreFault> {
        self.holds("at first, while nothing was saved", None)
            .await?;
        self.clear(&self.first, "a clear of the empty storage")
            .await?;
        self.holds("after a clear of the empty storage", None).await
    }

    async fn keeps_and_replaces(&self, samples: &[Sample]) -> Result<(), StoreFault> {
        let mut before = "nothing";
        let writers = [
            (&self.first, "the first handle"),
            (&self.second, "the second handle"),
        ];
        for (sample, (writer, who)) in samples.iter().zip(writers.into_iter().cycle()) {
            let step = format!("a save of {} over {before}, through {who}", sample.name);
            self.save(writer, &step, &sample.tokens).await?;
            self.holds(&format!("after {step}"), Some(&sample.tokens))
                .await?;
            before = sample.name;
        }
        Ok(())
    }

    /// The crate does that: it loads tokens, marks them as in doubt, and saves them.
    async fn keeps_what_is_saved_again(&self, samples: &Samples) -> Result<(), StoreFault> {
        let original = &samples.old;
        let step = "a save of what is to be loaded and saved again";
        self.save(&self.first, step, original).await?;
        for _ in 0..4 {
            let step = "a load of what is to be saved again";
            let Some(loaded) = answer(step, self.first.load()).await? else {
                return Err(StoreFault::new(step, "there are no tokens"));
            };
            let step = "a save of what was loaded";
            self.save(&self.first, step, &loaded).await?;
            self.holds("after saves of what was loaded", Some(original))
                .await?;
        }
        Ok(())
    }

    async fn forgets(&self, samples: &Samples) -> Result<(), StoreFault> {
        self.clear(&self.second, "a clear").await?;
        self.holds("after a clear", None).await?;
        self.clear(&self.first, "a second clear").await?;
        self.holds("after a second clear", None).await?;
        let step = "a save after a clear";
        self.save(&self.first, step, &samples.next).await?;
        self.holds(step, Some(&samples.next)).await
    }

    async fn bears_dropped_saves(&self, samples: &Samples) -> Result<(), StoreFault> {
        let (old, new, next) = (&samples.old, &samples.new, &samples.next);
        for at in 0..CUTS {
            self.save(&self.first, "a save", old).await?;
            let step = "a save that is to be dropped";
            let done = answer(step, cut(self.first.save(new), at)).await?;
            if done.is_some() {
                return self.holds("after a save", Some(new)).await;
            }
            let allowed = [("the old tokens", Some(old)), ("the new ones", Some(new))];
            self.holds_one_of("after a save that was dropped", &allowed)
                .await?;
            let step = "a save after one that was dropped";
            self.save(&self.first, step, next).await?;
            self.still_holds(step, Some(next)).await?;
        }
        Ok(())
    }

    async fn bears_dropped_clears(&self, samples: &Samples) -> Result<(), StoreFault> {
        let (old, next) = (&samples.old, &samples.next);
        for at in 0..CUTS {
            self.save(&self.first, "a save", old).await?;
            let step = "a clear that is to be dropped";
            let done = answer(step, cut(self.first.clear(), at)).await?;
            if done.is_some() {
                return self.holds("after a clear", None).await;
            }
            let allowed = [("the old tokens", Some(old)), ("nothing", None)];
            self.holds_one_of("after a clear that was dropped", &allowed)
                .await?;
            let step = "a save after a clear that was dropped";
            self.save(&self.first, step, next).await?;
            self.still_holds(step, Some(next)).await?;
        }
        Ok(())
    }

    async fn bears_dropped_loads(&self, samples: &Samples) -> Result<(), StoreFault> {
        let old = &samples.old;
        self.save(&self.first, "a save", old).await?;
        for at in 0..CUTS {
            let step = "a load that is to be dropped";
            let done = answer(step, cut(self.first.load(), at)).await?;
            self.still_holds("after a load that was dropped", Some(old))
                .await?;
            if done.is_some() {
                break;
            }
        }
        Ok(())
    }

    async fn is_whole_at_any_time(&self, samples: &Samples) -> Result<(), StoreFault> {
        let (old, new) = (&samples.old, &samples.new);
        self.save(&self.first, "a save", old).await?;
        let done = AtomicBool::new(false);
        let save = async {
            for tokens in [new, old].into_iter().cycle().take(SAVES) {
                let step = "a save while others load";
                self.save(&self.first, step, tokens).await?;
                yield_now().await;
            }
            Ok(())
        };
        let saves = async {
            let saved = save.await;
            done.store(true, Ordering::Relaxed);
            saved
        };
        let allowed = [("the old tokens", Some(old)), ("the new ones", Some(new))];
        let loads = async |store: &S, step: &str| {
            while !done.load(Ordering::Relaxed) {
                self.finds_one_of(store, step, &allowed).await?;
                yield_now().await;
            }
            Ok(())
        };
        let step = "a load while a save is under way, through";
        let (same, other) = (format!("{step} the same handle"), format!("{step} another"));
        let all = join3(
            saves,
            loads(&self.first, &same),
            loads(&self.second, &other),
        );
        let (saved, loaded, loaded_elsewhere) = all.await;
        saved.and(loaded).and(loaded_elsewhere)?;
        self.holds("after saves while others loaded", Some(old))
            .await
    }

    async fn save(&self, store: &S, step: &str, tokens: &TokenSet) -> Result<(), StoreFault> {
        answer(step, store.save(tokens)).await
    }

    async fn clear(&self, store: &S, step: &str) -> Result<(), StoreFault> {
        answer(step, store.clear()).await
    }

    /// The storage holds this, whoever asks and however often.
    async fn holds(&self, step: &str, tokens: Option<&TokenSet>) -> Result<(), StoreFault> {
        self.holds_one_of(step, &[("this", tokens)]).await
    }

    /// The same, and whatever may have been left running does not change it.
    async fn still_holds(&self, step: &str, tokens: Option<&TokenSet>) -> Result<(), StoreFault> {
        self.holds(step, tokens).await?;
        let_others_run().await;
        self.holds(&format!("{step}, and some turns later"), tokens)
            .await
    }

    async fn holds_one_of(&self, step: &str, allowed: &[Allowed<'_>]) -> Result<(), StoreFault> {
        let reopened = (self.open)().await;
        for (store, who) in [
            (&self.first, "a load through the first handle"),
            (&self.first, "a load after another load"),
            (&self.second, "a load through the second handle"),
            (&reopened, "a load through a handle that was opened anew"),
        ] {
            self.finds_one_of(store, &format!("{step}, {who}"), allowed)
                .await?;
        }
        Ok(())
    }

    async fn finds_one_of(
        &self,
        store: &S,
        step: &str,
        allowed: &[Allowed<'_>],
    ) -> Result<(), StoreFault> {
        let found = answer(step, store.load()).await?;
        let mut differences = Vec::new();
        for (name, expected) in allowed {
            match difference(*expected, found.as_ref()) {
                Some(what) => differences.push((*name, what)),
                None => return Ok(()),
            }
        }
        Err(StoreFault::new(step, none_of(&differences)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::OwnMemory;

    // shows P13
    #[tokio::test]
    async fn the_store_of_a_session_that_was_given_none_passes() {
        let store = Arc::new(OwnMemory::default());
        check_token_store(async || store.clone()).await.unwrap();
    }
}
