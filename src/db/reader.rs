//! Reading from standbys: the same repositories, read-only, and no staler than is asked for.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::conn::Conn;
use super::database::Database;
use super::error::Result;
use super::lease::{Lease, Leases};
use super::read_token::{ReadToken, standing};

/// The repositories for reading: on the standbys of
/// [`reader_url`](crate::DatabaseConfigBuilder::reader_url), on the primary where there is none.
///
/// They have no method that writes:
///
/// ```compile_fail,E0599
/// # async fn example(db: chancery::Database) -> chancery::Result<()> {
/// db.reader().users().create(chancery::NewUser::new("ada@example.org")).await?;
/// # Ok(()) }
/// ```
///
/// A standby is behind the primary, by milliseconds mostly, by more when it is busy. Whoever has
/// written sees it there with a token:
///
/// ```no_run
/// # async fn example(db: chancery::Database, id: chancery::UserId) -> chancery::Result<()> {
/// let mut uow = db.begin().await?;
/// uow.conversations().create(id, Some("Rice speech")).await?;
/// let token = uow.commit_with_token().await?.to_string(); // to the client, in a cookie
///
/// let token = token.parse()?; // in the client's next request
/// let conversations = db.reader().after(token).conversations().list_by_user(id, 20, 0).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Reader<'d> {
    db: &'d Database,
    after: Option<ReadToken>,
    patience: Duration,
}

/// How long a read waits for a standby unless said otherwise.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two looks at how far a standby has come; twice as long each time, up to ten times.
const PAUSE: Duration = Duration::from_millis(1);

impl Database {
    /// The repositories for reading, on a standby if one is configured.
    pub fn reader(&self) -> Reader<'_> {
        Reader { db: self, after: None, patience: PATIENCE }
    }
}

impl<'d> Reader<'d> {
    /// Reads see what the token stands for: each one runs on a connection whose server has come that
    /// far, waits for it if need be, and goes to the primary when that takes too long
    /// ([`within`](Self::within)) or can't be told. So none is stale.
    ///
    /// A connection is asked once for each step that it has not made, one round trip.
    pub fn after(mut self, token: ReadToken) -> Self {
        self.after = Some(self.after.map_or(token, |other| other.and(token)));
        self
    }

    /// How long each read waits for a standby before it goes to the primary. Default 200 ms.
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The standbys as an executor, for the application's own statements. What writes is refused
    /// there ([`Error::ReadOnly`](crate::Error::ReadOnly)), but not where the primary has to serve.
    #[track_caller]
    pub fn executor(self) -> Conn<'d> {
        let place = Location::caller();
        match self.db.reader_leases() {
            None => Conn::pool(self.db.leases(), place),
            Some(standby) => {
                let catch_up = self.after.map(|token| CatchUp {
                    token,
                    patience: self.patience,
                    primary: self.db.leases(),
                });
                Conn::standby(standby, place, catch_up)
            }
        }
    }
}

/// What a connection to a standby has to have reached.
#[derive(Clone, Copy)]
pub(crate) struct CatchUp<'c> {
    token: ReadToken,
    patience: Duration,
    primary: &'c Arc<Leases>,
}

impl CatchUp<'_> {
    /// A connection whose server has come that far.
    pub(crate) async fn acquire(
        self,
        standby: &Arc<Leases>,
        place: &'static Location<'static>,
    ) -> Result<Lease> {
        let deadline = Instant::now() + self.patience;
        if let Ok(Ok(mut lease)) = timeout_at(deadline, standby.acquire(place)).await {
            if lease.reached().is_some_and(|reached| reached.covers(self.token)) {
                return Ok(lease);
            }
            if let Ok(true) = timeout_at(deadline, self.reached_by(&mut lease, deadline)).await {
                return Ok(lease);
            }
        }
        tracing::debug!(target: "chancery", event = "database.read_on_primary", token = %self.token);
        self.primary.acquire(place).await
    }

    async fn reached_by(self, lease: &mut Lease, deadline: Instant) -> bool {
        let mut pause = PAUSE;
        loop {
            let Ok(now) = lease.run(standing).await else { return false };
            // Behind a pooler the next statement may go to another server.
            if !lease.leases().shares_sessions() {
                lease.set_reached(now.reached);
            }
            if now.reached.covers(self.token) {
                return true;
            }
            if Instant::now() + pause >= deadline {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE * 10);
        }
    }
}
