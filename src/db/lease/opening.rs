//! Connections that are opened, or looked at before they are used again.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, Postgres};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::lent::made_ready;
use super::waiting::Failure;
use super::{Anchored, Leases, Lifetime, PING, Tenure, Warm, lifetime};
use crate::db::answer::hangs_up;
use crate::db::boundary::is_inside;
use crate::db::error::Error;

/// Before the next attempt to connect to a server that hung up on the last one.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// A connection that takes longer to open is looked into; and a server that has too many is asked for
/// one so often.
pub(super) const LOOK: Duration = Duration::from_secs(1);

impl Leases {
    /// A warm connection that was not known to be good, if it is.
    pub(super) async fn checked(&self, mut warm: Warm) -> Option<Warm> {
        if !self.hosts.is_current(warm.tenure.opened) {
            return None;
        }
        if warm.is_over(Instant::now()) {
            warm.connection.parted(self.options.lifetime).await;
            return None;
        }
        let looked_at = self.options.pre_ping || warm.suspect || warm.stale;
        let good = !looked_at
            || matches!(
                timeout(PING, made_ready(&mut warm.connection, warm.stale)).await,
                Ok(Ok(()))
            );
        good.then_some(warm)
    }

    /// A connection of the pool's, for this runtime.
    pub(super) async fn opened(&self, runtime: &Handle) -> Result<Warm, Failure> {
        // A server that starts is waited for, as the pool does.
        if let Err(error) = self.survey().await {
            let passing = error.is_of_the_network() || matches!(error, Error::TooManyConnections);
            return Err(Failure { error, passing });
        }
        let failed = |error: sqlx::Error| Failure {
            passing: passes(&error),
            error: Error::from_connect(error, self.target()),
        };
        if self.state().refused {
            self.look().await.map_err(failed)?;
        }
        match lifetime::aged(self.acquire_from_pool(runtime)).await {
            Ok((connection, age)) => {
                let mut connection = Anchored::new(connection, runtime);
                // A pool of the application's has lent it to others before.
                let lent = matches!(self.options.lifetime, Lifetime::Lend(_));
                if lent && !matches!(timeout(PING, is_inside(&mut connection)).await, Ok(Ok(false)))
                {
                    return Err(failed(sqlx::Error::PoolTimedOut));
                }
                if age.is_zero() && self.is_astray(&mut connection).await {
                    return Err(Failure { error: Error::ReadOnly, passing: true });
                }
                Ok(Warm::new(connection, Tenure::new(self.options.lifetime, age)))
            }
            // The pool swallows why it could not connect.
            Err(sqlx::Error::PoolTimedOut) if !self.is_lent_elsewhere() => {
                let looked = self.look().await;
                Err(failed(looked.err().unwrap_or(sqlx::Error::PoolTimedOut)))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// A connection of the pool's. One that takes long is looked into: the pool does not tell why it
    /// can't connect, and an attempt may be lost where another one is answered.
    pub(super) async fn acquire_watched(
        &self,
        runtime: &Handle,
    ) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let mut acquiring = pin!(self.pool.acquire());
        loop {
            // In time for those who wait to be told.
            let patience = LOOK.min(self.options.acquire / 2);
            if let Ok(acquired) = timeout(patience, &mut acquiring).await {
                return acquired;
            }
            if !self.is_awaited(runtime.id()) {
                return Err(sqlx::Error::PoolTimedOut);
            }
            if self.is_lent_elsewhere() {
                continue;
            }
            match select(&mut acquiring, pin!(self.look())).await {
                Either::Left((acquired, _)) => return acquired,
                Either::Right((looked, _)) => looked?,
            }
            acquiring.set(self.pool.acquire());
        }
    }

    /// Connects beside the pool, to see whether it can be done.
    async fn look(&self) -> Result<(), sqlx::Error> {
        let options = self.pool.connect_options();
        let connecting = PgConnection::connect_with(&options);
        match timeout(self.options.connect.answer, connecting).await {
            Ok(connected) => connected?.close().await,
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// Whether somebody took connections from the pool itself, and may have all that are missing.
    fn is_lent_elsewhere(&self) -> bool {
        let state = self.state();
        let known = state.holders.len() + state.warm.len() + state.opening.len();
        self.pool.size() as usize > known + self.pool.num_idle()
    }
}

/// Whether another attempt to connect may succeed where this one failed.
fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => true,
        sqlx::Error::Database(e) => matches!(e.code().as_deref(), Some("53300" | "57P03")),
        error => hangs_up(error),
    }
}
