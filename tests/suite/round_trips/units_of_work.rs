//! Units of work: what begins and ends them, and what exists only there.

use chancery::{Database, IsolationLevel, Result, TransactionOptions, UnitOfWork};

use super::Meter;
use crate::support::conversation;

pub async fn measure(meter: &mut Meter) {
    let kept = conversation(&meter.setup).await.id;
    let strict = TransactionOptions::default().isolation(IsolationLevel::Serializable).read_only();

    begun(meter, "begin", async |db| db.begin().await).await;
    begun(meter, "begin_with", async |db| db.begin_with(strict).await).await;
    ended(meter, "uow.commit", async |uow| uow.commit().await).await;
    ended(meter, "uow.rollback", async |uow| uow.rollback().await).await;
    meter
        .count("transaction", async |proxy, db| {
            let before = proxy.round_trips();
            db.transaction(async |_| Ok(())).await.unwrap();
            proxy.round_trips() - before
        })
        .await;
    within(meter, "uow.begin", async |uow| uow.begin().await.map(drop)).await;
    within(meter, "uow.transaction", async |uow| uow.transaction(async |_| Ok(())).await).await;
    within(meter, "uow.transaction_id", async |uow| uow.transaction_id().await.map(drop)).await;
    within(meter, "uow.connection", async |uow| uow.connection().await.map(drop)).await;
    within(meter, "uow.lock_conversation", async |uow| uow.lock_conversation(kept).await.map(drop))
        .await;
}

async fn begun(
    meter: &mut Meter,
    name: &str,
    begin: impl AsyncFn(&Database) -> Result<UnitOfWork>,
) {
    meter
        .count(name, async |proxy, db| {
            let before = proxy.round_trips();
            let uow = begin(db).await.unwrap();
            let count = proxy.round_trips() - before;
            uow.rollback().await.unwrap();
            count
        })
        .await;
}

/// Counts what ends a unit of work that has written something.
async fn ended(meter: &mut Meter, name: &str, end: impl AsyncFn(UnitOfWork) -> Result<()>) {
    meter
        .count(name, async |proxy, db| {
            let mut uow = db.begin().await.unwrap();
            uow.config().set_value("theme", &"dark".into(), None).await.unwrap();
            let before = proxy.round_trips();
            end(uow).await.unwrap();
            proxy.round_trips() - before
        })
        .await;
}

/// Counts what is done within a unit of work.
async fn within(meter: &mut Meter, name: &str, act: impl AsyncFn(&mut UnitOfWork) -> Result<()>) {
    meter
        .count(name, async |proxy, db| {
            let mut uow = db.begin().await.unwrap();
            let before = proxy.round_trips();
            act(&mut uow).await.unwrap();
            let count = proxy.round_trips() - before;
            uow.rollback().await.unwrap();
            count
        })
        .await;
}
