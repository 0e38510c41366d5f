//! Leases: connections on loan from the pool, kept warm for the next caller.
//!
//! sqlx's pool pings a connection before it hands it out and after it takes it back, and its waits for
//! the second ping have no bound. Here a connection that comes back clean stays on a stack of its own
//! for about a second and goes to the next caller as it is; only then does it return to the pool,
//! which stays the owner and keeps its limits. A connection whose last call was given up, failed or
//! left a transaction open is looked at first, for a bounded time, and dropped if it does not answer.

use std::collections::VecDeque;
use std::panic::Location;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout, timeout_at};

use super::answer::hangs_up;
use super::config::PoolOrder;
use super::database::PoolStatus;
use super::error::{Error, PoolTimeout, Result};
use super::hosts::Hosts;
use super::pooler::{PoolerMode, Sessions};
use super::read_token::ReadToken;
use super::unit_of_work::finished;

mod holders;
mod lent;
mod lifetime;
mod routing;
mod surplus;

use holders::Holders;
pub(crate) use lent::Lease;
use lent::{Anchored, Turn, discard, made_ready};
pub(crate) use lifetime::{Lifetime, is_past};
use surplus::Surplus;
pub(crate) use surplus::Trim;

/// A connection that was used within this time is handed out without a ping.
const FRESH: Duration = Duration::from_secs(1);
/// A connection that is out for less goes from hand to hand within a slice of the kernel's scheduler.
const BRIEF: Duration = Duration::from_millis(1);
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
#[derive(Debug, Clone)]
pub(crate) struct LeaseOptions {
    /// How long connecting may take.
    pub connect: Duration,
    /// What stands between, as far as it was said.
    pub pooler: PoolerMode,
    /// What the sessions of a pooler are not told when they begin.
    pub settings: Vec<(&'static str, String)>,
    /// How long a caller waits for a connection.
    pub acquire: Duration,
    /// How long the answer to a statement may take, on top of the server's own limit; none: for ever.
    pub answer: Option<Duration>,
    /// How old a connection gets.
    pub lifetime: Lifetime,
    /// Which of the warm connections is handed out.
    pub order: PoolOrder,
    /// Which idle connections are closed; none: the pool's own business.
    pub trim: Option<Trim>,
    /// Whether a connection that was idle for longer than [`FRESH`] is pinged.
    pub pre_ping: bool,
    /// A lease that is held for longer is warned about.
    pub held: Duration,
}

/// The connections of one [`Database`](crate::Database).
pub(crate) struct Leases {
    pub(crate) pool: PgPool,
    pub(crate) hosts: Arc<Hosts>,
    // Empty until it was found out.
    sessions: OnceCell<Sessions>,
    options: LeaseOptions,
    // As many as the pool has connections; its queue is first come, first served.
    turns: Semaphore,
    state: Mutex<State>,
    // Whether the connection that came back last was out for a moment only.
    brisk: AtomicBool,
    // Giving a connection back spawns a task, and a drop may happen outside of the runtime.
    runtime: Handle,
    me: Weak<Leases>,
}

/// Locked once when a connection is handed out and once when it comes back, each time for a moment.
#[derive(Default)]
struct State {
    // The one that has been idle for longest in front.
    warm: VecDeque<Warm>,
    holders: Holders,
    surplus: Surplus,
    janitor: bool,
    last_connect_error: Option<String>,
}

/// What is known of a connection for as long as it is out of the pool.
#[derive(Debug, Clone, Copy)]
struct Tenure {
    opened: Instant,
    /// When it has to go.
    ends: Instant,
    /// How far its server had come when it was last asked.
    reached: Option<ReadToken>,
}

impl Tenure {
    fn new(lifetime: Lifetime, age: Duration) -> Self {
        Self { opened: Instant::now() - age, ends: lifetime.ends(age), reached: None }
    }
}

/// A connection that nobody uses.
struct Warm {
    connection: PoolConnection<Postgres>,
    tenure: Tenure,
    idle_since: Instant,
    /// Whether it may be dead.
    suspect: bool,
    /// Whether what is prepared on it may no longer fit the schema.
    stale: bool,
}

impl Leases {
    pub(crate) fn new(pool: PgPool, hosts: Arc<Hosts>, options: LeaseOptions) -> Arc<Self> {
        let turns = pool.options().get_max_connections() as usize;
        Arc::new_cyclic(|me| Self {
            pool,
            // One host of which is known what it is: there is nothing to find out.
            sessions: OnceCell::new_with(match options.pooler {
                _ if hosts.has_choice(options.pooler == PoolerMode::Transaction) => None,
                PoolerMode::Detect => None,
                PoolerMode::Direct => Some(Sessions::Own),
                PoolerMode::Transaction => Some(Sessions::Shared),
            }),
            hosts,
            options,
            turns: Semaphore::new(turns),
            state: Mutex::default(),
            brisk: AtomicBool::new(false),
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
        let turn = match self.turns.try_acquire() {
            Ok(permit) => Turn::new(self, permit),
            // It would wait for what may never come: its own caller holds a connection.
            Err(_) if self.is_held_here() => return Err(Error::WouldDeadlock),
            Err(_) => self.wait(started).await?,
        };
        if self.options.order == PoolOrder::Fifo && self.is_brisk() {
            // Else a caller whose answers come fast goes on with its server process alone, while
            // others' processes wait for the processor: for milliseconds, as measured.
            yield_now().await;
        }
        if self.pool.is_closed() {
            return Err(Error::PoolClosed);
        }
        match self.take_warm(Instant::now(), place) {
            (Some(warm), Some(holder)) => Ok(Lease::new(warm, holder, turn)),
            (warm, _) => Box::pin(self.prepared(warm, turn, started, place)).await,
        }
    }

    /// Whether connections change hands fast, and others than the one who asks, who has its turn, hold
    /// some.
    fn is_brisk(&self) -> bool {
        let turns = self.pool.options().get_max_connections() as usize;
        self.brisk.load(Relaxed) && self.turns.available_permits() + 1 < turns
    }

    async fn wait(self: &Arc<Self>, started: Instant) -> Result<Turn> {
        let deadline = (started + self.options.acquire).into();
        match timeout_at(deadline, self.turns.acquire()).await {
            Ok(Ok(permit)) => Ok(Turn::new(self, permit)),
            Ok(Err(_)) => Err(Error::PoolClosed),
            Err(_) => Err(self.timed_out(started.elapsed())),
        }
    }

    /// A warm connection, and who holds it from now on; one that is not good as it is comes without.
    fn take_warm(
        &self,
        now: Instant,
        place: &'static Location<'static>,
    ) -> (Option<Warm>, Option<usize>) {
        let mut state = self.state();
        let warm = match self.options.order {
            PoolOrder::Fifo => state.warm.pop_front(),
            PoolOrder::Lifo => state.warm.pop_back(),
        };
        let good = warm
            .as_ref()
            .is_some_and(|warm| warm.is_good(now) && self.hosts.is_current(warm.tenure.opened));
        let holder = good.then(|| state.holders.add(place, now));
        (warm, holder)
    }

    /// A connection that is not at hand, or not known to be good.
    async fn prepared(
        self: &Arc<Self>,
        warm: Option<Warm>,
        turn: Turn,
        started: Instant,
        place: &'static Location<'static>,
    ) -> Result<Lease> {
        let deadline = tokio::time::Instant::from(started + self.options.acquire);
        let timed_out = || self.timed_out(started.elapsed());
        // In a task: a caller that goes away leaves its connection to the next one.
        let leases = Arc::clone(self);
        let preparing = self.runtime.spawn(async move {
            let warm = leases.prepare(warm, deadline).await?;
            let mut state = leases.state();
            let holder = state.holders.add(place, Instant::now());
            leases.ensure_janitor(&mut state);
            drop(state);
            Ok::<_, Error>(Lease::new(warm, holder, turn))
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
    async fn prepare(&self, warm: Option<Warm>, deadline: tokio::time::Instant) -> Result<Warm> {
        if let Some(mut warm) = warm {
            if !self.hosts.is_current(warm.tenure.opened) {
                discard(warm.connection);
            } else if warm.is_over(Instant::now()) {
                self.part_with(Anchored::new(warm.connection, &self.runtime)).await;
            } else if !(self.options.pre_ping || warm.suspect || warm.stale)
                || matches!(
                    timeout(PING, made_ready(&mut warm.connection, warm.stale)).await,
                    Ok(Ok(()))
                )
            {
                return Ok(warm);
            } else {
                discard(warm.connection);
            }
        }
        // A server that starts is waited for, as the pool does.
        while let Err(error) = self.survey().await {
            self.note(&error);
            if !error.is_of_the_network() {
                return Err(error);
            }
            if tokio::time::Instant::now() + PAUSE >= deadline {
                return Err(self.timed_out(Duration::ZERO));
            }
            sleep(PAUSE).await;
        }
        loop {
            match lifetime::aged(self.acquire_from_pool()).await {
                Ok((mut connection, age)) => {
                    if age.is_zero()
                        && self.is_astray(&mut connection).await
                        && tokio::time::Instant::now() < deadline
                    {
                        discard(connection);
                        continue;
                    }
                    return Ok(Warm::new(connection, Tenure::new(self.options.lifetime, age)));
                }
                Err(sqlx::Error::PoolTimedOut) => {
                    // The pool swallows why it could not connect; one attempt of our own tells.
                    let options = self.pool.connect_options();
                    let tried = timeout_at(deadline, PgConnection::connect_with(&options)).await;
                    match tried {
                        Ok(Ok(connection)) => drop(connection.close().await),
                        Ok(Err(error)) => self.note(&Error::from_connect(error, self.target())),
                        Err(_) => {}
                    }
                    if tokio::time::Instant::now() >= deadline {
                        return Err(self.timed_out(Duration::ZERO));
                    }
                }
                Err(error) => {
                    let going_down = hangs_up(&error);
                    let error = Error::from_connect(error, self.target());
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

    fn timed_out(&self, waited: Duration) -> Error {
        let state = self.state();
        let mut holders: Vec<_> = state
            .holders
            .iter()
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

    /// What the pool holds. Warm connections are idle, though they are out of it.
    pub(crate) fn status(&self) -> PoolStatus {
        let size = self.pool.size();
        let idle = self.pool.num_idle() + self.state().warm.len();
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(size);
        PoolStatus {
            size,
            idle,
            in_use: size - idle,
            max: self.pool.options().get_max_connections(),
        }
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

    /// Takes a clean connection back, for the next caller; from whom, if a holder is told.
    fn keep(&self, connection: PoolConnection<Postgres>, tenure: Tenure, holder: Option<usize>) {
        let warm = Warm::new(connection, tenure);
        let current = self.hosts.is_current(tenure.opened);
        let going = !current || self.pool.is_closed() || warm.is_over(warm.idle_since);
        let mut state = self.state();
        if let Some(since) = holder.and_then(|holder| state.holders.remove(holder)) {
            self.brisk.store(warm.idle_since - since < BRIEF, Relaxed);
        }
        if going {
            drop(state);
            if !current {
                let _runtime = self.runtime.enter();
                return discard(warm.connection);
            }
            return self.spawn_parting(warm.connection);
        }
        state.warm.push_back(warm);
        self.ensure_janitor(&mut state);
    }

    fn spawn_return(&self, connection: PoolConnection<Postgres>) {
        self.spawn_with(connection, |leases, connection| async move {
            leases.return_to_pool(connection).await;
        });
    }

    fn spawn_parting(&self, connection: PoolConnection<Postgres>) {
        self.spawn_with(connection, |leases, connection| async move {
            leases.part_with(connection).await;
        });
    }

    fn spawn_with<F: Future<Output = ()> + Send + 'static>(
        &self,
        connection: PoolConnection<Postgres>,
        task: impl FnOnce(Arc<Self>, Anchored) -> F,
    ) {
        if let Some(leases) = self.me.upgrade() {
            let connection = Anchored::new(connection, &self.runtime);
            self.runtime.spawn(task(leases, connection));
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

    /// Parts with a connection whose time is over.
    async fn part_with(&self, connection: Anchored) {
        match self.options.lifetime {
            Lifetime::Recycle(_) => {
                let _ = timeout(PING, connection.into_inner().close()).await;
            }
            Lifetime::Lend(_) => self.return_to_pool(connection).await,
        }
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
        let slow = state.holders.slow(self.options.held);
        let mut surplus = Vec::new();
        if let Some(trim) = self.options.trim.filter(|_| !closed) {
            let count = state.surplus.look(trim, &self.pool);
            surplus.extend((0..count).map_while(|_| self.pool.try_acquire()));
        }
        let wide = self.options.trim.is_some_and(|trim| self.pool.size() > trim.keep);
        state.janitor = !(state.warm.is_empty() && state.holders.is_empty()) || (wide && !closed);
        let again = state.janitor;
        drop(state);
        for warm in stale {
            self.spawn_return(warm.connection);
        }
        for connection in surplus {
            self.spawn_with(connection, |_, connection| async move {
                let _ = timeout(PING, connection.into_inner().close()).await;
            });
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

/// Gives idle connections back to the pool, warns of those that are held for long, and closes those
/// that are too many. Runs only while there are any.
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
    fn new(connection: PoolConnection<Postgres>, tenure: Tenure) -> Self {
        Self { connection, tenure, idle_since: Instant::now(), suspect: false, stale: false }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.tenure.ends
    }

    /// Whether it can be handed out without a look at it.
    fn is_good(&self, now: Instant) -> bool {
        !(self.suspect || self.stale) && now < self.idle_since + FRESH && !self.is_over(now)
    }
}
