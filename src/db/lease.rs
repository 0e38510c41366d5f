//! Leases: connections on loan from the pool, kept warm for the next caller.
//!
//! sqlx's pool pings a connection before it hands it out and after it takes it back, and its waits for
//! the second ping have no bound. Here a connection that comes back clean stays on a stack of its own
//! for about a second and goes to the next caller as it is; only then does it return to the pool,
//! which stays the owner and keeps its limits. A connection whose last call was given up, failed or
//! left a transaction open is looked at first, for a bounded time, and dropped if it does not answer.

use std::collections::{HashMap, VecDeque};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout, timeout_at};

use super::answer::hangs_up;
use super::error::{ConnectTarget, Error, PoolTimeout, Result};
use super::unit_of_work::finished;

mod lent;

pub(crate) use lent::Lease;
use lent::{Anchored, discard, made_ready};

/// A connection that was used within this time is handed out without a ping.
const FRESH: Duration = Duration::from_secs(1);
/// How often the janitor looks.
const TICK: Duration = Duration::from_millis(250);
/// How long a ping may take: one round trip on any network worth using.
pub(crate) const PING: Duration = Duration::from_millis(300);
/// How long a connection that was left busy may take to become ready again.
const RELEASE: Duration = Duration::from_millis(200);

tokio::task_local! {
    /// The databases of which a unit of work in closure form holds a connection while its body runs.
    static HELD: Vec<usize>;
}

/// Before the next attempt to connect to a server that hung up on the last one.
const PAUSE: Duration = Duration::from_millis(50);

/// How leases behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseOptions {
    /// How long a caller waits for a connection.
    pub acquire: Duration,
    /// How long the answer to a statement may take, on top of the server's own limit; none: for ever.
    pub answer: Option<Duration>,
    /// How long a connection stays out of the pool at most, so that the pool can recycle it.
    pub keep: Duration,
    /// Whether a connection that was idle for longer than [`FRESH`] is pinged.
    pub pre_ping: bool,
    /// A lease that is held for longer is warned about.
    pub held: Duration,
}

/// The connections of one [`Database`](crate::Database).
pub(crate) struct Leases {
    pub(crate) pool: PgPool,
    pub(crate) target: ConnectTarget,
    options: LeaseOptions,
    // As many as the pool has connections; its queue is first come, first served.
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    // Giving a connection back spawns a task, and a drop may happen outside of the runtime.
    runtime: Handle,
    me: Weak<Leases>,
}

#[derive(Default)]
struct State {
    warm: VecDeque<Warm>,
    holders: HashMap<u64, Holder>,
    next_holder: u64,
    janitor: bool,
    last_connect_error: Option<String>,
}

struct Warm {
    connection: PoolConnection<Postgres>,
    taken: Instant,
    idle_since: Instant,
    /// Whether it may be dead.
    suspect: bool,
    /// Whether what is prepared on it may no longer fit the schema.
    stale: bool,
}

/// Who holds a connection.
struct Holder {
    place: &'static Location<'static>,
    since: Instant,
    warned: bool,
}

impl Leases {
    pub(crate) fn new(pool: PgPool, target: ConnectTarget, options: LeaseOptions) -> Arc<Self> {
        let permits = pool.options().get_max_connections() as usize;
        Arc::new_cyclic(|me| Self {
            pool,
            target,
            options,
            permits: Arc::new(Semaphore::new(permits)),
            state: Mutex::default(),
            runtime: Handle::current(),
            me: me.clone(),
        })
    }

    /// How long the answer to a statement may take.
    pub(crate) fn answer_timeout(&self) -> Option<Duration> {
        self.options.answer
    }

    /// A connection. Waits its turn; nothing is lost when the caller goes away meanwhile.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        place: &'static Location<'static>,
    ) -> Result<Lease> {
        let started = Instant::now();
        let deadline = tokio::time::Instant::now() + self.options.acquire;
        let timed_out = || self.timed_out(started.elapsed());
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            // It would wait for what may never come: its own caller holds a connection.
            Err(_) if self.is_held_here() => return Err(Error::WouldDeadlock),
            Err(_) => {
                let turn = Arc::clone(&self.permits).acquire_owned();
                match timeout_at(deadline, turn).await {
                    Ok(permit) => permit.map_err(|_| Error::PoolClosed)?,
                    Err(_) => return Err(timed_out()),
                }
            }
        };
        if self.pool.is_closed() {
            return Err(Error::PoolClosed);
        }
        let warm = self.state().warm.pop_front();
        let warm = match warm {
            Some(warm) if warm.is_fresh(self.options.keep) => {
                return Ok(self.lease(warm.connection, warm.taken, permit, place));
            }
            other => other,
        };
        // In a task: a caller that goes away leaves its connection to the next one.
        let leases = Arc::clone(self);
        let preparing = self.runtime.spawn(async move {
            let (connection, taken) = leases.prepare(warm, deadline).await?;
            Ok::<_, Error>(leases.lease(connection, taken, permit, place))
        });
        match timeout_at(deadline, finished(preparing)).await {
            Ok(prepared) => prepared?.map_err(|error| match error {
                Error::PoolTimedOut(_) => timed_out(),
                error => error,
            }),
            Err(_) => Err(timed_out()),
        }
    }

    /// Runs the body of a unit of work: what it asks for beside its own connection is not waited for.
    pub(crate) fn while_held<F: Future>(&self, body: F) -> impl Future<Output = F::Output> {
        let mut held = HELD.try_with(Vec::clone).unwrap_or_default();
        held.push(self.identity());
        HELD.scope(held, body)
    }

    fn is_held_here(&self) -> bool {
        HELD.try_with(|held| held.contains(&self.identity())).unwrap_or(false)
    }

    /// Stays the same for as long as a lease is out.
    fn identity(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// A connection that answers: a warm one, or one of the pool's.
    async fn prepare(
        &self,
        warm: Option<Warm>,
        deadline: tokio::time::Instant,
    ) -> Result<(PoolConnection<Postgres>, Instant)> {
        if let Some(mut warm) = warm {
            if warm.taken.elapsed() > self.options.keep {
                self.return_to_pool(Anchored::new(warm.connection, &self.runtime)).await;
            } else if !(self.options.pre_ping || warm.suspect || warm.stale) {
                return Ok((warm.connection, warm.taken));
            } else if let Ok(Ok(())) =
                timeout(PING, made_ready(&mut warm.connection, warm.stale)).await
            {
                return Ok((warm.connection, warm.taken));
            } else {
                discard(warm.connection);
            }
        }
        loop {
            match self.pool.acquire().await {
                Ok(connection) => return Ok((connection, Instant::now())),
                Err(sqlx::Error::PoolTimedOut) => {
                    // The pool swallows why it could not connect; one attempt of our own tells.
                    let options = self.pool.connect_options();
                    let tried = timeout_at(deadline, PgConnection::connect_with(&options)).await;
                    match tried {
                        Ok(Ok(connection)) => drop(connection.close().await),
                        Ok(Err(error)) => self.note(&Error::from_connect(error, &self.target)),
                        Err(_) => {}
                    }
                    if tokio::time::Instant::now() >= deadline {
                        return Err(self.timed_out(Duration::ZERO));
                    }
                }
                Err(error) => {
                    let going_down = hangs_up(&error);
                    let error = Error::from_connect(error, &self.target);
                    self.note(&error);
                    if !going_down || tokio::time::Instant::now() + PAUSE >= deadline {
                        return Err(error);
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn note(&self, error: &Error) {
        self.state().last_connect_error = Some(error.to_string());
    }

    fn lease(
        self: &Arc<Self>,
        connection: PoolConnection<Postgres>,
        taken: Instant,
        permit: OwnedSemaphorePermit,
        place: &'static Location<'static>,
    ) -> Lease {
        let mut state = self.state();
        let holder = state.next_holder;
        state.next_holder += 1;
        state.holders.insert(holder, Holder { place, since: Instant::now(), warned: false });
        self.ensure_janitor(&mut state);
        drop(state);
        Lease::new(connection, taken, permit, holder, Arc::clone(self))
    }

    fn timed_out(&self, waited: Duration) -> Error {
        let state = self.state();
        let mut holders: Vec<_> = state
            .holders
            .values()
            .map(|holder| (holder.place.to_string(), holder.since.elapsed()))
            .collect();
        holders.sort_by_key(|(_, held)| std::cmp::Reverse(*held));
        holders.truncate(5);
        Error::PoolTimedOut(Box::new(PoolTimeout {
            max: self.pool.options().get_max_connections(),
            size: self.pool.size(),
            idle: self.pool.num_idle() + state.warm.len(),
            in_use: state.holders.len(),
            waited,
            last_connect_error: state.last_connect_error.clone(),
            holders,
        }))
    }

    /// The connections that are open and that nobody uses, though they are out of the pool.
    pub(crate) fn warm(&self) -> usize {
        self.state().warm.len()
    }

    /// Has all warm connections pinged before their next use: a connection was just found dead, and
    /// what killed it may have killed them.
    pub(crate) fn suspect_all(&self) {
        for warm in &mut self.state().warm {
            warm.suspect = true;
        }
    }

    /// Has all warm connections forget what is prepared on them before their next use: the schema has
    /// changed.
    pub(crate) fn stale_all(&self) {
        for warm in &mut self.state().warm {
            warm.stale = true;
        }
    }

    /// Gives all warm connections back to the pool, so that it can be closed.
    pub(crate) fn release_warm(&self) {
        let warm = std::mem::take(&mut self.state().warm);
        for warm in warm {
            self.spawn_return(warm.connection);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if something did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a clean connection for the next caller.
    fn keep(&self, connection: PoolConnection<Postgres>, taken: Instant) {
        if self.pool.is_closed() || taken.elapsed() > self.options.keep {
            return self.spawn_return(connection);
        }
        let warm =
            Warm { connection, taken, idle_since: Instant::now(), suspect: false, stale: false };
        let mut state = self.state();
        state.warm.push_back(warm);
        self.ensure_janitor(&mut state);
    }

    fn spawn_return(&self, connection: PoolConnection<Postgres>) {
        if let Some(leases) = self.me.upgrade() {
            let connection = Anchored::new(connection, &self.runtime);
            self.runtime.spawn(async move { leases.return_to_pool(connection).await });
        } else {
            let _runtime = self.runtime.enter();
            drop(connection);
        }
    }

    /// Hands a connection back to the pool, which pings it: here with a bound. What does not answer
    /// is dropped, and its place in the pool is free.
    async fn return_to_pool(&self, mut connection: Anchored) {
        let _ = timeout(PING, connection.return_to_pool()).await;
    }

    /// Starts the janitor unless it runs.
    fn ensure_janitor(&self, state: &mut State) {
        if !state.janitor {
            state.janitor = true;
            self.runtime.spawn(janitor(self.me.clone(), self.pool.clone()));
        }
    }

    /// One round of the janitor's. Says whether there is reason for another one.
    fn clean_up(&self) -> bool {
        let mut state = self.state();
        let closed = self.pool.is_closed();
        let mut stale = Vec::new();
        while let Some(warm) = state.warm.front() {
            if !closed && warm.idle_since.elapsed() < FRESH {
                break;
            }
            stale.extend(state.warm.pop_front());
        }
        let mut slow = Vec::new();
        for holder in state.holders.values_mut() {
            let held = holder.since.elapsed();
            if !holder.warned && held > self.options.held {
                holder.warned = true;
                slow.push((holder.place, held));
            }
        }
        state.janitor = !(state.warm.is_empty() && state.holders.is_empty());
        let again = state.janitor;
        drop(state);
        for warm in stale {
            self.spawn_return(warm.connection);
        }
        for (place, held) in slow {
            tracing::warn!(
                target: "chancery",
                event = "database.connection_held_long",
                %place,
                ?held,
                "a connection is being held for long"
            );
        }
        again
    }
}

/// Gives idle connections back to the pool and warns of those that are held for long. Runs only
/// while there are any.
async fn janitor(leases: Weak<Leases>, pool: PgPool) {
    let mut closing = Some(pool.close_event());
    drop(pool);
    loop {
        match &mut closing {
            Some(event) => {
                if timeout(TICK, event).await.is_ok() {
                    closing = None;
                }
            }
            None => sleep(TICK).await,
        }
        match leases.upgrade() {
            Some(leases) if leases.clean_up() => {}
            _ => return,
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let _runtime = self.runtime.enter();
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).warm.clear();
    }
}

impl Warm {
    fn is_fresh(&self, keep: Duration) -> bool {
        !(self.suspect || self.stale)
            && self.idle_since.elapsed() < FRESH
            && self.taken.elapsed() <= keep
    }
}
