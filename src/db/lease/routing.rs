//! Which host connections go to, whether a pooler stands there, and where to go when it takes no writes.

use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Executor, PgConnection, Postgres, Row};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::Leases;
use crate::db::error::{ConnectTarget, Error, Result};
use crate::db::pooler::{self, PoolerMode, Sessions};
use crate::db::runtime::{finished, here};

/// A connection that takes longer to make may have gone to the wrong host.
const SLOW: Duration = Duration::from_millis(100);

impl Leases {
    /// Where connections go to.
    pub(crate) fn target(&self) -> &ConnectTarget {
        &self.hosts.current().target
    }

    /// Finds out, once, which host to connect to and whether a pooler stands there.
    pub(crate) async fn survey(&self) -> Result<()> {
        let surveyed = self.sessions.get_or_try_init(async || {
            let shared = self.options.pooler == PoolerMode::Transaction;
            if self.hosts.has_choice(shared) {
                self.hosts.search(shared).await;
            }
            let found = match self.options.pooler {
                PoolerMode::Detect => {
                    pooler::detect(self.hosts.current(), self.options.connect).await?
                }
                PoolerMode::Direct => Sessions::Own,
                PoolerMode::Transaction => Sessions::Shared,
            };
            self.connect_to_current(found == Sessions::Shared);
            Ok::<_, Error>(found)
        });
        surveyed.await.map(drop)
    }

    fn connect_to_current(&self, shared: bool) {
        let host = self.hosts.current();
        let options = if shared { &host.bare } else { &host.options };
        self.pool.set_connect_options(options.clone());
    }

    /// Whether sessions are shared: nothing may be set in one that is not set back by its transaction.
    pub(crate) fn shares_sessions(&self) -> bool {
        match self.sessions.get() {
            Some(sessions) => *sessions == Sessions::Shared,
            None => self.options.pooler == PoolerMode::Transaction,
        }
    }

    /// What a transaction has to set for itself, because its session did not.
    pub(crate) fn transaction_settings(&self) -> &[(&'static str, String)] {
        if self.shares_sessions() { &self.options.settings } else { &[] }
    }

    /// A connection of the pool's; looks for another host while it can't be made.
    pub(super) async fn acquire_from_pool(
        &self,
        runtime: &Handle,
    ) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let shared = self.shares_sessions();
        if !self.hosts.has_choice(shared) {
            return self.acquire_watched(runtime).await;
        }
        loop {
            let mut acquiring = std::pin::pin!(self.pool.acquire());
            let failed = loop {
                match timeout(SLOW, &mut acquiring).await {
                    Ok(Err(error)) if !matches!(error, sqlx::Error::PoolClosed) => {
                        break Some(error);
                    }
                    Ok(acquired) => return acquired,
                    Err(_) => {
                        if self.search().await == Some(true) {
                            break None;
                        }
                    }
                }
            };
            if let Some(error) = failed
                && self.search().await != Some(true)
            {
                return Err(error);
            }
        }
    }

    /// Looks for the right host, and has new connections go there.
    pub(crate) async fn search(&self) -> Option<bool> {
        let shared = self.shares_sessions();
        let found = self.hosts.search(shared).await;
        if found == Some(true) {
            self.connect_to_current(shared);
            self.discard_warm();
        }
        found
    }

    fn discard_warm(&self) {
        let warm = std::mem::take(&mut self.state().warm);
        drop(warm);
    }

    /// Looks for whoever takes writes, because a connection opened at this time was refused one. Says
    /// whether a new connection is better off; connections from before are not used any more then.
    ///
    /// In a task: given up half-way, it would leave half-open handshakes.
    pub(crate) fn leave(&self, opened: Instant) -> impl Future<Output = bool> + Send + use<> {
        self.leave_seen(opened, Some(Instant::now()))
    }

    /// As [`leave`](Self::leave), without waiting when a search has just ended.
    pub(super) fn leave_soon(&self, opened: Instant) -> impl Future<Output = bool> + Send + use<> {
        self.leave_seen(opened, None)
    }

    fn leave_seen(
        &self,
        opened: Instant,
        seen: Option<Instant>,
    ) -> impl Future<Output = bool> + Send + use<> {
        let leases = self.me.upgrade().filter(|leases| leases.hosts.are_for_writing());
        async move {
            let Some(leases) = leases else { return false };
            let Ok(runtime) = here() else { return false };
            let limit = leases.options.acquire;
            let leaving = runtime.spawn(async move {
                let shared = leases.shares_sessions();
                if leases.hosts.leave(opened, seen, shared).await {
                    leases.connect_to_current(shared);
                    leases.discard_warm();
                }
                !leases.hosts.is_current(opened)
            });
            // As long as for a connection, and no longer.
            matches!(timeout(limit, finished(leaving)).await, Ok(Ok(true)))
        }
    }

    /// Looks for whoever takes writes, in the background.
    pub(crate) fn look_for_primary(&self) {
        if let Ok(runtime) = here() {
            runtime.spawn(self.leave_soon(Instant::now()));
        }
    }

    /// Whether a connection that was just made goes to a server that takes no writes, and another one
    /// is there that does. Asks only where there is a choice.
    pub(super) async fn is_astray(&self, connection: &mut PgConnection) -> bool {
        if !self.hosts.are_for_writing() || !self.hosts.has_choice(self.shares_sessions()) {
            return false;
        }
        let opened = Instant::now();
        // As a simple query: nothing is prepared, so a pooler can't lose it.
        let asking = connection.fetch_one("select current_setting('transaction_read_only') = 'on'");
        match timeout(self.options.connect.reach, asking).await {
            Ok(Ok(row)) if row.try_get(0).unwrap_or(false) => self.leave(opened).await,
            // What is wrong with it, its first statement tells.
            _ => false,
        }
    }
}
