//! Which runtimes use a pool.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Id;

/// The runtimes that use a pool.
///
/// A connection is only used by the runtime that opened it, because what comes over its socket is
/// noticed by that one alone. The driver's pool does not know whose a connection is: from the second
/// runtime on none goes back to it.
#[derive(Debug, Default)]
pub(crate) struct Runtimes {
    first: OnceLock<Id>,
    several: AtomicBool,
}

impl Runtimes {
    pub fn are_several(&self) -> bool {
        self.several.load(Ordering::Acquire)
    }

    /// Notes one. Says whether it is the first one other than the first.
    pub fn note(&self, runtime: Id) -> bool {
        *self.first.get_or_init(|| runtime) != runtime
            && !self.are_several()
            && !self.several.swap(true, Ordering::AcqRel)
    }
}
