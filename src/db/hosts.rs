//! The hosts that a URL names, and which of them is connected to.

use std::cmp::Reverse;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Row};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout, timeout_at};

use super::error::ConnectTarget;
use super::pooler::refuses_settings;

/// How long a host that answered waits for one that would be better.
const GRACE: Duration = Duration::from_millis(50);
/// Between two searches: what fails in between has the same cause.
const PAUSE: Duration = Duration::from_millis(100);

/// One host, and how to connect to it.
#[derive(Clone)]
pub(crate) struct Host {
    /// With the settings that the session begins with.
    pub options: PgConnectOptions,
    /// Without them, as poolers want it.
    pub bare: PgConnectOptions,
    /// Whether the URL itself has settings for the session.
    pub has_options_of_its_own: bool,
    pub target: ConnectTarget,
}

/// Which host is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The one that takes writes.
    Primary,
    /// The first that answers, in their order.
    First,
}

/// The hosts of one pool.
pub(crate) struct Hosts {
    all: Vec<Host>,
    // The rest are another URL's.
    own: usize,
    wanted: Wanted,
    connect_timeout: Duration,
    current: AtomicUsize,
    // Connections that were opened before are not used any more; in nanoseconds since START.
    moved: AtomicU64,
    searching: Mutex<Option<Search>>,
}

/// When the last search was.
#[derive(Clone, Copy)]
struct Search {
    began: Instant,
    ended: Instant,
}

/// What a search found.
#[derive(Clone, Copy)]
struct Found {
    /// Whether it is another host than before.
    moved: bool,
    /// Whether a new session may write.
    takes_writes: bool,
}

/// What a host says of itself.
struct Answer {
    in_recovery: bool,
    /// Whether a new session may write: not on a standby, nor with `default_transaction_read_only`.
    takes_writes: bool,
    /// The timeline of a primary, eight hexadecimal digits at the start of this name.
    wal_file: String,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn since_start(moment: Instant) -> u64 {
    u64::try_from(moment.saturating_duration_since(*START).as_nanos()).unwrap_or(u64::MAX)
}

impl Hosts {
    pub(crate) fn of_a_primary(all: Vec<Host>, own: usize, connect_timeout: Duration) -> Self {
        Self::new(all, own, Wanted::Primary, connect_timeout)
    }

    pub(crate) fn in_their_order(all: Vec<Host>, connect_timeout: Duration) -> Self {
        let own = all.len();
        Self::new(all, own, Wanted::First, connect_timeout)
    }

    fn new(all: Vec<Host>, own: usize, wanted: Wanted, connect_timeout: Duration) -> Self {
        LazyLock::force(&START);
        Self {
            all,
            own,
            wanted,
            connect_timeout,
            current: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            searching: Mutex::new(None),
        }
    }

    /// The host that new connections go to.
    pub(crate) fn current(&self) -> &Host {
        &self.all[self.current.load(Ordering::Relaxed)]
    }

    /// Whether another host could be connected to.
    pub(crate) fn has_choice(&self, behind_a_pooler: bool) -> bool {
        self.candidates(behind_a_pooler).len() > 1
    }

    /// Whether they are to take writes.
    pub(crate) fn are_for_writing(&self) -> bool {
        self.wanted == Wanted::Primary
    }

    /// Another URL's hosts are servers: connecting to them would go past the pooler.
    fn candidates(&self, behind_a_pooler: bool) -> &[Host] {
        if behind_a_pooler { &self.all[..self.own] } else { &self.all }
    }

    /// Whether a connection of this age goes to the host that is the right one.
    pub(crate) fn is_current(&self, opened: Instant) -> bool {
        // Zero for as long as it never moved: then there is nothing to compute.
        let moved = self.moved.load(Ordering::Relaxed);
        moved == 0 || since_start(opened) >= moved
    }

    /// From now on only connections that are opened from now on are used.
    fn condemn_older(&self) {
        self.moved.store(since_start(Instant::now()), Ordering::Relaxed);
    }

    /// Looks for the right host. Some: it was found; true: it is another one than before.
    ///
    /// What is asked for while another search runs, or just ended, is answered by that one: none.
    pub(crate) async fn search(&self, behind_a_pooler: bool) -> Option<bool> {
        let mut last = self.searching.lock().await;
        if last.is_some_and(|last| last.ended.elapsed() < PAUSE) {
            return None;
        }
        self.search_now(&mut last, behind_a_pooler).await.map(|found| found.moved)
    }

    /// Looks for the right host after a connection was refused a write. Where a new one is better off,
    /// no older ones are used any more.
    ///
    /// With a time at which the refusal was seen it counts only what was asked after that, and waits
    /// for it; without one, what ended just before will do.
    pub(crate) async fn leave(
        &self,
        opened: Instant,
        seen: Option<Instant>,
        behind_a_pooler: bool,
    ) -> bool {
        let mut last = self.searching.lock().await;
        let is_answered = last.is_some_and(|last| match seen {
            Some(seen) => last.began >= seen,
            None => last.ended.elapsed() < PAUSE,
        });
        if is_answered || !self.is_current(opened) {
            return false;
        }
        if let Some(last) = *last {
            sleep_until((last.ended + PAUSE).into()).await;
        }
        match self.search_now(&mut last, behind_a_pooler).await {
            Some(Found { moved: true, .. }) => true,
            // Found under the same name it may be another server now, or its sessions begin otherwise.
            Some(Found { takes_writes: true, .. }) => {
                self.condemn_older();
                true
            }
            _ => false,
        }
    }

    async fn search_now(&self, last: &mut Option<Search>, behind_a_pooler: bool) -> Option<Found> {
        let began = Instant::now();
        let found = self.ask_all(self.candidates(behind_a_pooler), behind_a_pooler).await;
        *last = Some(Search { began, ended: Instant::now() });
        let (found, takes_writes) = found?;
        let before = self.current.swap(found, Ordering::Relaxed);
        if before != found {
            self.condemn_older();
            tracing::warn!(
                target: "chancery",
                event = "database.host_changed",
                from = %self.all[before].target.address,
                to = %self.all[found].target.address,
                "connections go to another host"
            );
        }
        Some(Found { moved: before != found, takes_writes })
    }

    /// The right host, and whether it takes writes.
    async fn ask_all(&self, candidates: &[Host], behind_a_pooler: bool) -> Option<(usize, bool)> {
        let mut asking = JoinSet::new();
        for (index, host) in candidates.iter().enumerate() {
            let (host, limit) = (host.clone(), self.connect_timeout);
            asking.spawn(async move { (index, timeout(limit, host.ask(behind_a_pooler)).await) });
        }
        let current = self.current.load(Ordering::Relaxed);
        // Of two primaries the one of the later timeline is right: the other was left behind.
        let rank = |index: usize, answer: Answer| {
            let takes_writes = answer.takes_writes;
            let (timeline, stay) = match self.wanted {
                Wanted::Primary if answer.in_recovery => return None,
                Wanted::Primary => (answer.timeline(), index == current),
                Wanted::First => return Some((String::new(), false, false, Reverse(index))),
            };
            Some((timeline, takes_writes, stay, Reverse(index)))
        };
        let mut best = None;
        let mut end = tokio::time::Instant::now() + self.connect_timeout;
        while let Ok(Some(asked)) = timeout_at(end, asking.join_next()).await {
            let Ok((index, Ok(Ok(answer)))) = asked else { continue };
            let rank = rank(index, answer);
            if best.is_none() && rank.is_some() {
                end = end.min(tokio::time::Instant::now() + GRACE);
            }
            best = best.max(rank);
        }
        best.map(|(_, takes_writes, _, Reverse(index))| (index, takes_writes))
    }
}

impl Answer {
    fn timeline(mut self) -> String {
        self.wal_file.truncate(8);
        self.wal_file
    }
}

impl Host {
    async fn ask(&self, behind_a_pooler: bool) -> Result<Answer, sqlx::Error> {
        let with_settings = if behind_a_pooler { &self.bare } else { &self.options };
        match with_settings.connect().await {
            Ok(connection) => ask(connection).await,
            Err(refused) if refuses_settings(&refused) => ask(self.bare.connect().await?).await,
            Err(error) => Err(error),
        }
    }
}

async fn ask(mut connection: PgConnection) -> Result<Answer, sqlx::Error> {
    // As a simple query: nothing is prepared, so a pooler can't lose it.
    let row = connection
        .fetch_one(
            "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'off',
                    case when pg_is_in_recovery() then ''
                         else pg_walfile_name(pg_current_wal_insert_lsn()) end",
        )
        .await?;
    connection.close().await.ok();
    Ok(Answer {
        in_recovery: row.try_get(0)?,
        takes_writes: row.try_get(1)?,
        wal_file: row.try_get(2)?,
    })
}
