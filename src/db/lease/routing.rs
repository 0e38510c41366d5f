//! Which host connections go to, whether a pooler stands there, and where to go when it takes no writes.

use std::time::Duration;

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use tokio::time::timeout;

use super::Leases;
use super::lent::discard;
use crate::db::error::{ConnectTarget, Error, Result};
use crate::db::pooler::{self, PoolerMode, Sessions};

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
    pub(super) async fn acquire_from_pool(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let shared = self.shares_sessions();
        if !self.hosts.has_choice(shared) {
            return self.pool.acquire().await;
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
    async fn search(&self) -> Option<bool> {
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
        let _runtime = self.runtime.enter();
        warm.into_iter().for_each(|warm| discard(warm.connection));
    }

    /// A connection turned out to go to a server that takes no writes: whoever has them is looked for,
    /// in the background, and connections from before are not used any more.
    pub(crate) fn look_for_primary(&self) {
        let Some(leases) = self.me.upgrade().filter(|_| self.hosts.are_for_writing()) else {
            return;
        };
        self.runtime.spawn(async move {
            // Found under the same name, it is another server now.
            if leases.search().await == Some(false) {
                leases.hosts.condemn_older();
                leases.discard_warm();
            }
        });
    }
}
