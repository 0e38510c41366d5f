//! The runtime that work is done on, and what may happen where there is none.

use std::ops::{Deref, DerefMut};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::error::{Error, Result};

/// Returns the runtime of the caller.
pub(crate) fn here() -> Result<Handle> {
    Handle::try_current().map_err(|_| Error::NoRuntime)
}

/// Runs in a task of its own what has to reach its end, whatever becomes of the caller.
pub(crate) fn detached<F>(work: F) -> impl Future<Output = Result<F::Output>>
where
    F: Future<Output: Send> + Send + 'static,
{
    let task = here().map(|runtime| runtime.spawn(work));
    async { finished(task?).await }
}

/// Waits for a task that goes on when the waiting ends. Its panic is the caller's.
pub(crate) async fn finished<T>(task: JoinHandle<T>) -> Result<T> {
    match task.await {
        Ok(value) => Ok(value),
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        // Only a runtime that shuts down cancels it.
        Err(_) => Err(Error::NoRuntime),
    }
}

/// Holds what spawns a task when it is dropped, as the driver's connections do, so that it may be
/// dropped anywhere.
///
/// A drop must not enter a runtime where there is one: within `tokio::spawn`, which drops its task at
/// once when the runtime shuts down, that panics.
pub(crate) struct Anywhere<T> {
    // None only while it is dropped.
    value: Option<T>,
    runtime: Handle,
}

const TAKEN: &str = "the value is taken only when its holder goes";

impl<T> Anywhere<T> {
    pub fn new(value: T, runtime: Handle) -> Self {
        Self { value: Some(value), runtime }
    }

    /// Drops it on the runtime that it was made on, if that is still there.
    pub fn drop_at_home(self)
    where
        T: Send + 'static,
    {
        let runtime = self.runtime.clone();
        runtime.spawn(async move { drop(self) });
    }
}

impl<T> Deref for Anywhere<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect(TAKEN)
    }
}

impl<T> DerefMut for Anywhere<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect(TAKEN)
    }
}

impl<T> Drop for Anywhere<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            drop_anywhere(value, &self.runtime);
        }
    }
}

/// Drops what spawns then; where there is no runtime, in this one.
pub(crate) fn drop_anywhere<T>(value: T, runtime: &Handle) {
    match Handle::try_current() {
        Ok(_) => drop(value),
        Err(error) if error.is_missing_context() => {
            let _runtime = runtime.enter();
            drop(value);
        }
        // The thread itself ends, and can't spawn any more.
        Err(_) => std::mem::forget(value),
    }
}
