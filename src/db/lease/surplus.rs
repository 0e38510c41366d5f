//! Connections that were opened under load and that nobody needs any more.

use std::time::{Duration, Instant};

use sqlx::PgPool;

/// Which idle connections are closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trim {
    /// As many stay.
    pub keep: u32,
    /// Those that were idle for as long go.
    pub after: Duration,
}

/// How many connections were idle all the time since a look was begun.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    since: Option<Instant>,
    least: usize,
}

impl Surplus {
    /// Looks at the pool, again and again, and says how many connections to close now: so many were
    /// not needed once in the time that they are given.
    ///
    /// The pool's own way would close all that are idle for so long, and open others in their place.
    pub fn look(&mut self, trim: Trim, pool: &PgPool) -> usize {
        let over = pool.size().saturating_sub(trim.keep) as usize;
        if over == 0 {
            self.since = None;
            return 0;
        }
        let idle = pool.num_idle();
        let Some(since) = self.since else {
            *self = Self { since: Some(Instant::now()), least: idle };
            return 0;
        };
        self.least = self.least.min(idle);
        if since.elapsed() < trim.after {
            return 0;
        }
        let surplus = self.least.min(over);
        *self = Self { since: Some(Instant::now()), least: idle };
        surplus
    }
}
