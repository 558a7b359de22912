//! Attached loaders: those that the builder was given.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc as StdArc;

use crate::entry::Loaded;
use crate::util::error::{LoadError, TryLoadError};

/// A loader's error of any type.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// A loader that was given to the builder, and whether it asked for what is there.
pub(super) struct Attached<F> {
    pub(super) call: F,
    pub(super) shows_previous: bool,
}

/// A loader that was given to the builder, for threads.
pub(super) type BlockingLoader<K, V> =
    Box<dyn Fn(&K, Option<&V>) -> Result<Loaded<V>, BoxError> + Send + Sync>;

/// The future of an attached loader.
pub(super) type LoadFuture<V> = Pin<Box<dyn Future<Output = Result<Loaded<V>, BoxError>> + Send>>;

/// An asynchronous loader that was given to the builder.
pub(super) type AsyncLoader<K, V> = Box<dyn Fn(K, Option<V>) -> LoadFuture<V> + Send + Sync>;

/// An attached loader's error, as everybody gets it.
pub(super) fn shared(error: BoxError) -> LoadError {
    LoadError::Failed(StdArc::from(error))
}

/// An error of this call or another's, where both are of one type.
pub(super) fn either(error: TryLoadError<LoadError>) -> LoadError {
    let (TryLoadError::Own(error) | TryLoadError::Shared(error)) = error;
    error
}
