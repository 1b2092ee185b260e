//! That a storage which cannot be read is an error.

use std::future::Future;

use super::fault::StoreFault;
use super::fault::in_time;
use super::records::Records;
use super::records::at;
use crate::error::BoxError;
use crate::store::SharedTokenStore;
use crate::store::Swap;
use crate::store::TokenStore;

/// Checks that a storage which cannot be read is an error and never "no tokens".
///
/// `open` gives a handle on a storage that you have broken: a row that is cut off, a server that is
/// away. That is to be an error, each time and through each handle. It is given back, for a look at
/// what it says.
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
/// use tower_token_refresh::test_util::check_unreadable_token_store;
///
/// # async fn test() {
/// let broken = async || connect("a row that is cut off").await.unwrap();
/// let error = check_unreadable_token_store(broken).await.unwrap();
/// assert!(error.to_string().contains("the row of the session"));
/// # }
/// ```
///
/// # Errors
///
/// When it is read all the same, be it with tokens or without. What this waits for, and where it may be
/// used, is as with [`check_token_store`](super::check_token_store); it writes nothing.
pub async fn check_unreadable_token_store<S, F>(
    open: impl Fn() -> F,
) -> Result<BoxError, StoreFault>
where
    S: TokenStore,
    F: Future<Output = S>,
{
    let (first, second) = (open().await, open().await);
    let error = fails("a load", first.load()).await?;
    fails("a second load", first.load()).await?;
    fails("a load through another handle", second.load()).await?;
    Ok(error)
}

/// The same for a store that several processes share: a read is an error, and a swap with version 0
/// does not take it for an empty storage.
///
/// ```
/// use tower_token_refresh::{FileStore, test_util::check_unreadable_shared_token_store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("session.json");
/// std::fs::write(&path, r#"{"access_token": "acc"#).unwrap();
/// let open = async || FileStore::new(&path);
/// let error = check_unreadable_shared_token_store(open).await.unwrap();
/// assert!(error.to_string().contains("it breaks off"));
/// # }
/// ```
///
/// # Errors
///
/// When it is read all the same, or written. What this waits for, and where it may be used, is as
/// with [`check_shared_token_store`](super::check_shared_token_store).
pub async fn check_unreadable_shared_token_store<S, F>(
    open: impl Fn() -> F,
) -> Result<BoxError, StoreFault>
where
    S: SharedTokenStore,
    F: Future<Output = S>,
{
    let records = Records::new().map_err(StoreFault::of_the_suite)?;
    let (first, second) = (open().await, open().await);
    let error = fails("a read", first.read()).await?;
    for (store, who) in [(&first, "the same handle"), (&second, "another handle")] {
        let step = format!("a swap with version 0, through {who}");
        match in_time(&step, store.swap(0, &at(1, &records.new))).await? {
            Ok(Swap::Conflict) => {}
            Ok(Swap::Done) => {
                let what = "it is done, though nobody can say what was there";
                return Err(StoreFault::new(&step, what));
            }
            Err(error) => {
                if let Some(fault) = StoreFault::quoted(&step, &error) {
                    return Err(fault);
                }
            }
        }
    }
    fails("a second read", first.read()).await?;
    fails("a read through another handle", second.read()).await?;
    Ok(error)
}

/// The error, as there must be one.
async fn fails<T>(
    step: &str,
    call: impl Future<Output = Result<T, BoxError>>,
) -> Result<BoxError, StoreFault> {
    match in_time(step, call).await? {
        Err(error) => Ok(error),
        Ok(_) => {
            let what = "it is no error, though the storage cannot be read";
            Err(StoreFault::new(step, what))
        }
    }
}
