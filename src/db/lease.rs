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

use sqlx::PgPool;
use tokio::runtime::{Handle, Id};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::yield_now;
use tokio::time::timeout_at;

use super::attempt::ConnectLimits;
use super::config::PoolOrder;
use super::database::PoolStatus;
use super::error::{Error, PoolTimeout, Result};
use super::hosts::Hosts;
use super::pooler::{PoolerMode, Sessions};
use super::read_token::ReadToken;
use super::runtime::here;

mod holders;
mod janitor;
mod lent;
mod lifetime;
mod opening;
mod routing;
mod runtimes;
mod surplus;
mod waiting;

use holders::Holders;
pub(crate) use lent::Anchored;
pub(crate) use lent::Lease;
use lent::Turn;
pub(crate) use lifetime::{Lifetime, is_past};
pub(crate) use runtimes::Runtimes;
use surplus::Surplus;
pub(crate) use surplus::Trim;
use waiting::Waiting;

/// A connection that was used within this time is handed out without a ping.
const FRESH: Duration = Duration::from_secs(1);
/// A connection that is out for less goes from hand to hand within a slice of the kernel's scheduler.
const BRIEF: Duration = Duration::from_millis(1);
/// How long a ping may take: one round trip on any network worth using.
pub(crate) const PING: Duration = Duration::from_millis(300);
/// How long a connection that was left busy may take to become ready again.
const RELEASE: Duration = Duration::from_millis(200);

tokio::task_local! {
    /// The databases of which a unit of work in closure form holds a connection while its body runs.
    static HELD: Vec<usize>;
}

/// How leases behave.
#[derive(Debug, Clone)]
pub(crate) struct LeaseOptions {
    /// How long connecting may take.
    pub connect: ConnectLimits,
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
    runtimes: Arc<Runtimes>,
    me: Weak<Leases>,
}

/// Locked once when a connection is handed out and once when it comes back, each time for a moment.
#[derive(Default)]
struct State {
    // The one that has been idle for longest in front.
    warm: VecDeque<Warm>,
    holders: Holders,
    surplus: Surplus,
    // The one that has waited for longest in front.
    waiting: VecDeque<Waiting>,
    // The runtime of each task that opens connections.
    opening: Vec<Id>,
    // Whether the server refused the last connection, because it has too many.
    refused: bool,
    // The runtimes that have one.
    janitors: Vec<Id>,
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
    connection: Anchored,
    tenure: Tenure,
    idle_since: Instant,
    /// Whether it may be dead.
    suspect: bool,
    /// Whether what is prepared on it may no longer fit the schema.
    stale: bool,
}

impl Leases {
    pub(crate) fn new(
        pool: PgPool,
        hosts: Arc<Hosts>,
        runtimes: Arc<Runtimes>,
        options: LeaseOptions,
    ) -> Arc<Self> {
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
            runtimes,
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
        let runtime = here()?;
        if self.runtimes.note(runtime.id()) {
            self.discard_idle();
        }
        match self.take_warm(runtime.id(), Instant::now(), place) {
            (Some(warm), Some(holder)) => Ok(Lease::new(warm, holder, turn)),
            (warm, _) => Box::pin(self.prepared(warm, turn, runtime, started, place)).await,
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
        runtime: Id,
        now: Instant,
        place: &'static Location<'static>,
    ) -> (Option<Warm>, Option<usize>) {
        let of = self.runtimes.are_several().then_some(runtime);
        let mut state = self.state();
        let warm = state.next_warm(self.options.order, of);
        let good = warm.as_ref().is_some_and(|warm| self.is_good(warm, now));
        let holder = good.then(|| state.holders.add(place, now));
        (warm, holder)
    }

    /// A connection that is not at hand, or not known to be good.
    async fn prepared(
        self: &Arc<Self>,
        warm: Option<Warm>,
        turn: Turn,
        runtime: Handle,
        started: Instant,
        place: &'static Location<'static>,
    ) -> Result<Lease> {
        let deadline = (started + self.options.acquire).into();
        let served = self.line_up(warm, &runtime).served(deadline).await;
        let warm = served.unwrap_or_else(|| Err(self.timed_out(started.elapsed())))?;
        let mut state = self.state();
        let holder = state.holders.add(place, Instant::now());
        if !state.janitors.contains(&runtime.id()) {
            self.start_janitor(state, &runtime);
        }
        Ok(Lease::new(warm, holder, turn))
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
        let state = self.state();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).min(size);
        let idle = count(self.pool.num_idle() + state.warm.len());
        // The rest is lent, here or by the pool itself, or is being opened.
        let opening = count(state.opening.len());
        PoolStatus {
            size,
            idle,
            in_use: (size - idle).saturating_sub(opening).max(count(state.holders.len())),
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
        // A runtime may be at rest for ever: those of several are dropped here and now.
        if !self.are_told_apart() {
            warm.into_iter().for_each(|warm| warm.connection.spawn(Anchored::returned));
        }
    }

    /// Whether connections stay out of the driver's pool, which does not know whose they are.
    fn are_told_apart(&self) -> bool {
        self.runtimes.are_several() && matches!(self.options.lifetime, Lifetime::Recycle(_))
    }

    /// Closes what lies in the driver's pool.
    fn discard_idle(&self) {
        if self.are_told_apart() {
            std::iter::from_fn(|| self.pool.try_acquire()).for_each(|idle| drop(idle.detach()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if something did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection can be used as it is.
    fn is_good(&self, warm: &Warm, now: Instant) -> bool {
        warm.is_good(now) && self.hosts.is_current(warm.tenure.opened)
    }

    /// Takes a clean connection back, for the next caller; from whom, if a holder is told.
    fn keep(&self, connection: Anchored, tenure: Tenure, holder: Option<usize>) {
        let warm = Warm::new(connection, tenure);
        let current = self.hosts.is_current(tenure.opened);
        let going = !current || self.pool.is_closed() || warm.is_over(warm.idle_since);
        let mut state = self.state();
        if let Some(since) = holder.and_then(|holder| state.holders.remove(holder)) {
            self.brisk.store(warm.idle_since - since < BRIEF, Relaxed);
        }
        if going {
            drop(state);
            if current {
                let lifetime = self.options.lifetime;
                warm.connection.spawn(move |connection| connection.parted(lifetime));
            }
            return;
        }
        let warm = if state.waiting.is_empty() { Some(warm) } else { state.hand_over(warm) };
        // Who is left waits for one of another runtime's.
        let in_the_way = !state.waiting.is_empty() && self.is_full();
        let Some(warm) = warm.filter(|_| !in_the_way) else { return };
        state.warm.push_back(warm);
        let connection = &state.warm.back().expect("it was just kept").connection;
        if !state.janitors.contains(&connection.runtime().id()) {
            let runtime = connection.runtime().clone();
            self.start_janitor(state, &runtime);
        }
    }
}

impl State {
    /// The warm connection that comes next; of this runtime's, if one is told.
    fn next_warm(&mut self, order: PoolOrder, of: Option<Id>) -> Option<Warm> {
        let fits = |warm: &Warm| of.is_none_or(|id| warm.connection.runtime().id() == id);
        let next = match order {
            PoolOrder::Fifo => self.warm.iter().position(fits),
            PoolOrder::Lifo => self.warm.iter().rposition(fits),
        };
        self.warm.remove(next?)
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.warm)
            .into_iter()
            .for_each(|warm| warm.connection.spawn(Anchored::returned));
    }
}

impl Warm {
    fn new(connection: Anchored, tenure: Tenure) -> Self {
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
