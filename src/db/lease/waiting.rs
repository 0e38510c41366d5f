//! Callers that have their turn and no connection: each takes what comes first, one that is given
//! back or one that is opened.
//!
//! So nobody starves beside connections that others use, when no more can be opened.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::runtime::{Handle, Id};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::opening::{LOOK, PAUSE};
use super::{Leases, State, Warm};
use crate::db::error::{Error, Result};

/// A caller in the line.
pub(super) struct Waiting {
    runtime: Id,
    sender: oneshot::Sender<Result<Warm>>,
}

/// A caller's place in the line. Left, it passes on what has come meanwhile.
pub(super) struct Place<'l> {
    leases: &'l Leases,
    receiver: oneshot::Receiver<Result<Warm>>,
}

impl Place<'_> {
    /// A connection, or why there is none; none at all at the deadline.
    pub async fn served(&mut self, deadline: Instant) -> Option<Result<Warm>> {
        let served = timeout_at(deadline, &mut self.receiver).await.ok()?;
        // The runtime that was to open it is gone.
        Some(served.unwrap_or(Err(Error::NoRuntime)))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(Ok(warm)) = self.receiver.try_recv() {
            self.leases.give(warm);
        }
    }
}

/// A task that opens connections, for as long as it runs.
struct Opener {
    leases: Arc<Leases>,
    runtime: Handle,
    ended: bool,
}

/// Why an attempt to open a connection failed.
pub(super) struct Failure {
    pub error: Error,
    /// Whether another attempt may succeed.
    pub passing: bool,
}

impl State {
    /// Gives a connection to the one who has waited longest. Returns it when nobody waits.
    pub(super) fn hand_over(&mut self, mut warm: Warm) -> Option<Warm> {
        while let Some(first) = self.next_in_line(warm.connection.runtime().id()) {
            match first.sender.send(Ok(warm)) {
                Err(Ok(unwanted)) => warm = unwanted,
                _ => return None,
            }
        }
        Some(warm)
    }

    fn next_in_line(&mut self, runtime: Id) -> Option<Waiting> {
        let first = self.waiting.iter().position(|waiting| waiting.runtime == runtime)?;
        self.waiting.remove(first)
    }

    fn remove_opener(&mut self, runtime: Id) {
        if let Some(at) = self.opening.iter().position(|opening| *opening == runtime) {
            self.opening.swap_remove(at);
        }
    }

    fn opening(&self, runtime: Id) -> usize {
        self.opening.iter().filter(|opening| **opening == runtime).count()
    }

    fn waiting(&mut self, runtime: Id) -> usize {
        self.waiting.retain(|waiting| !waiting.sender.is_closed());
        self.waiting.iter().filter(|waiting| waiting.runtime == runtime).count()
    }

    /// How many more have to be opened. While the server refuses, one attempt at a time is enough.
    fn missing(&mut self, runtime: Id) -> usize {
        let most = if self.refused { 1 } else { usize::MAX };
        self.waiting(runtime).min(most).saturating_sub(self.opening(runtime))
    }
}

impl Leases {
    /// Lines up, with a connection that is to be looked at first if there is one.
    pub(super) fn line_up(self: &Arc<Self>, warm: Option<Warm>, runtime: &Handle) -> Place<'_> {
        let (sender, receiver) = oneshot::channel();
        let id = runtime.id();
        let mut state = self.state();
        state.waiting.push_back(Waiting { runtime: id, sender });
        // One may have come back since the caller looked.
        let several = self.runtimes.are_several();
        let found = warm.or_else(|| state.next_warm(self.options.order, several.then_some(id)));
        let (found, foreign) = match found {
            Some(warm) if self.is_good(&warm, std::time::Instant::now()) => {
                (state.hand_over(warm), None)
            }
            Some(warm) => (Some(warm), None),
            // Another runtime's stands in the way of one of this runtime's.
            None if several && self.is_full() => (None, state.warm.pop_front()),
            None => (None, None),
        };
        let openers = if found.is_some() { 1 } else { state.missing(id) };
        state.opening.extend(std::iter::repeat_n(id, openers));
        drop(state);
        drop(foreign);
        self.start_openers(openers, found, runtime);
        Place { leases: self, receiver }
    }

    /// Whether the pool has all the connections that it may have.
    pub(super) fn is_full(&self) -> bool {
        self.pool.size() >= self.pool.options().get_max_connections()
    }

    /// Not while the state is locked: on a runtime that shuts down they end at once.
    fn start_openers(self: &Arc<Self>, count: usize, mut warm: Option<Warm>, runtime: &Handle) {
        for _ in 0..count {
            let leases = Arc::clone(self);
            let opener = Opener { leases, runtime: runtime.clone(), ended: false };
            runtime.spawn(opener.run(warm.take()));
        }
    }

    /// Gives a connection to who has waited longest, or keeps it.
    fn give(&self, warm: Warm) {
        let unclaimed = self.state().hand_over(warm);
        if let Some(warm) = unclaimed {
            self.keep(warm.connection, warm.tenure, None);
        }
    }

    /// Whether anybody waits for a connection of this runtime's.
    pub(super) fn is_awaited(&self, runtime: Id) -> bool {
        self.state().waiting(runtime) > 0
    }
}

impl Opener {
    async fn run(mut self, warm: Option<Warm>) {
        if let Some(warm) = warm
            && let Some(warm) = self.leases.checked(warm).await
        {
            return self.end(Ok(warm));
        }
        while self.is_needed() {
            match self.leases.opened(&self.runtime).await {
                Err(Failure { error, passing: true }) => {
                    let refused = matches!(error, Error::TooManyConnections);
                    if !matches!(error, Error::PoolTimedOut(_)) {
                        self.leases.note(&error);
                    }
                    self.leases.state().refused |= refused;
                    sleep(if refused { LOOK } else { PAUSE }).await;
                }
                Err(failure) => return self.end(Err(failure.error)),
                Ok(warm) => return self.end(Ok(warm)),
            }
        }
        self.ended = true;
    }

    /// Whether anybody waits for what it opens; if not, it counts no more.
    fn is_needed(&self) -> bool {
        let id = self.runtime.id();
        let mut state = self.leases.state();
        let needed = state.waiting(id) > 0 && !(state.refused && state.opening(id) > 1);
        if !needed {
            state.remove_opener(id);
        }
        needed
    }

    fn end(mut self, outcome: Result<Warm>) {
        self.ended = true;
        let id = self.runtime.id();
        let mut state = self.leases.state();
        state.remove_opener(id);
        match outcome {
            Ok(warm) => {
                state.refused = false;
                drop(state);
                self.leases.give(warm);
            }
            Err(error) => {
                state.last_connect_error = Some(error.to_string());
                state.refused = false;
                let first = state.next_in_line(id);
                drop(state);
                if let Some(first) = first {
                    drop(first.sender.send(Err(error)));
                }
            }
        }
        let mut state = self.leases.state();
        let more = state.missing(id);
        state.opening.extend(std::iter::repeat_n(id, more));
        drop(state);
        self.leases.start_openers(more, None, &self.runtime);
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Its runtime shuts down: whoever waits there waits for nothing.
        let id = self.runtime.id();
        let mut state = self.leases.state();
        state.remove_opener(id);
        let waiting = std::mem::take(&mut state.waiting);
        let (here, elsewhere): (VecDeque<_>, _) =
            waiting.into_iter().partition(|waiting| waiting.runtime == id);
        state.waiting = elsewhere;
        drop(state);
        drop(here);
    }
}
