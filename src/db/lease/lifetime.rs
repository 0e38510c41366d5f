//! How old a connection may get.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

tokio::task_local! {
    /// The age of the connection that the pool is about to hand out: only its hook is told.
    static AGE: Cell<Duration>;
}

/// What happens to a connection that has been out of the pool for long.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lifetime {
    /// It is closed at this age, give or take a tenth.
    Recycle(Duration),
    /// It returns after this time to a pool of the application's, which closes it by rules of its own.
    Lend(Duration),
}

impl Lifetime {
    /// When a connection of this age has to go.
    pub fn ends(self, age: Duration) -> Instant {
        let now = Instant::now();
        match self {
            Self::Recycle(recycle) => now + lifetime(recycle, age).saturating_sub(age),
            Self::Lend(time) => now + time,
        }
    }
}

/// Whether the pool must not hand out a connection of this age. If it may, the lease is told the age.
pub(crate) fn is_past(recycle: Duration, age: Duration) -> bool {
    let past = age > lifetime(recycle, age);
    if !past {
        let _ = AGE.try_with(|cell| cell.set(age));
    }
    past
}

/// Takes a connection from the pool, and tells its age.
pub(super) async fn aged<C, E>(
    acquire: impl Future<Output = Result<C, E>>,
) -> Result<(C, Duration), E> {
    // A connection that is just being opened does not come by the hook.
    AGE.scope(Cell::new(Duration::ZERO), async {
        let connection = acquire.await?;
        Ok((connection, AGE.with(Cell::get)))
    })
    .await
}

/// How old a connection of this age may get: `recycle`, give or take a tenth.
///
/// The tenth is drawn from the moment at which the connection was opened, the one thing that stays
/// the same each time it is looked at: a fresh draw each time would soon hit the lowest, for all.
fn lifetime(recycle: Duration, age: Duration) -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let opened = Instant::now() - age;
    let opened = opened.saturating_duration_since(*START).as_millis();
    let draw = fastrand::Rng::with_seed(opened as u64).f64();
    recycle.mul_f64(draw.mul_add(0.2, 0.9))
}
