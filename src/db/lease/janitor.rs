//! Gives idle connections back to the pool, warns of those that are held for long, and closes those that
//! are too many. One for each runtime, while there is something to do.

use std::sync::{MutexGuard, Weak};
use std::time::Duration;

use sqlx::pool::CloseEvent;
use tokio::runtime::{Handle, Id};
use tokio::time::{sleep, timeout};

use super::{Anchored, FRESH, Leases, State, Warm};

/// How often a janitor looks.
const TICK: Duration = Duration::from_millis(250);

struct Janitor {
    leases: Weak<Leases>,
    runtime: Id,
    ended: bool,
}

impl Janitor {
    async fn work(mut self, closing: CloseEvent) {
        let mut closing = Some(closing);
        loop {
            match &mut closing {
                Some(event) => {
                    if timeout(TICK, event).await.is_ok() {
                        closing = None;
                    }
                }
                None => sleep(TICK).await,
            }
            match self.leases.upgrade() {
                Some(leases) if leases.clean_up(self.runtime) => {}
                _ => break,
            }
        }
        self.ended = true;
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // Its runtime shuts down: nothing comes over the connections that it opened any more.
        if !self.ended
            && let Some(leases) = self.leases.upgrade()
        {
            let mut state = leases.state();
            let gone = state.take_warm(self.runtime, |_| true);
            state.janitors.retain(|runtime| *runtime != self.runtime);
            drop(state);
            drop(gone);
        }
    }
}

impl State {
    /// Takes out those of a runtime's that are to go.
    fn take_warm(&mut self, runtime: Id, goes: impl Fn(&Warm) -> bool) -> Vec<Warm> {
        let all = std::mem::take(&mut self.warm);
        let (gone, kept) = all
            .into_iter()
            .partition(|warm| warm.connection.runtime().id() == runtime && goes(warm));
        self.warm = kept;
        Vec::from(gone)
    }
}

impl Leases {
    /// Not while the state is locked: on a runtime that shuts down it ends at once.
    pub(super) fn start_janitor(&self, mut state: MutexGuard<'_, State>, runtime: &Handle) {
        state.janitors.push(runtime.id());
        drop(state);
        let leases = self.me.clone();
        let janitor = Janitor { leases, runtime: runtime.id(), ended: false };
        runtime.spawn(janitor.work(self.pool.close_event()));
    }

    /// One round of a janitor's. Says whether there is reason for another one.
    fn clean_up(&self, runtime: Id) -> bool {
        let apart = self.are_told_apart();
        let closed = self.pool.is_closed();
        let trim = self.options.trim;
        // Those that stay out of the driver's pool go when it would be their time there.
        let idle = trim.filter(|_| apart).map_or(FRESH, |trim| trim.after);
        let mut state = self.state();
        let stale = state.take_warm(runtime, |warm| closed || warm.idle_since.elapsed() >= idle);
        let slow = state.holders.slow(self.options.held);
        let mut surplus = Vec::new();
        if let Some(trim) = trim.filter(|_| !closed && !apart) {
            let count = state.surplus.look(trim, &self.pool);
            surplus.extend((0..count).map_while(|_| self.pool.try_acquire()));
        }
        let wide = trim.is_some_and(|trim| self.pool.size() > trim.keep);
        let again = !(state.warm.is_empty() && state.holders.is_empty()) || (wide && !closed);
        if !again {
            state.janitors.retain(|other| *other != runtime);
        }
        drop(state);
        for warm in stale {
            if apart {
                warm.connection.spawn(Anchored::closed);
            } else {
                warm.connection.spawn(Anchored::returned);
            }
        }
        let here = Handle::current();
        for connection in surplus {
            Anchored::new(connection, &here).spawn(Anchored::closed);
        }
        for holder in slow {
            tracing::warn!(
                target: "chancery",
                event = "database.connection_held_long",
                place = %holder.place,
                held = ?holder.since.elapsed(),
                "a connection is being held for long"
            );
        }
        again
    }
}
