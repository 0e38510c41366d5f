//! Many rows at once: as one statement, or past a size as several in one transaction.

use futures_core::future::BoxFuture;

use super::conn::Conn;
use super::error::Result;
use super::input;

/// How much of texts and JSON one statement is given: 4 MiB.
///
/// The server takes no message of 1 GiB, and both sides hold a message in memory. It also unnests
/// arrays into a store of `work_mem` (4 MB unless set), and writes what is beyond to disk.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// What each row weighs beside its text and JSON.
const ROW_BYTES: usize = 64;

/// Runs a statement for each batch of rows, all of them or none: several in the unit of work at hand, or
/// in one that is begun for them. `size` says how large a row is, or what is wrong with it; `list` names them.
pub(crate) async fn in_batches<T, R>(
    mut conn: Conn<'_>,
    list: &'static str,
    rows: Vec<T>,
    size: impl Fn(&T) -> Result<usize>,
    statement: impl for<'c> Fn(Conn<'c>, Vec<T>) -> BoxFuture<'c, Result<R>>,
) -> Result<Vec<R>> {
    let mut sizes = Vec::with_capacity(rows.len());
    input::each(list, &rows, |row| {
        sizes.push(size(row)?);
        Ok(())
    })?;
    let batches = batches(rows, &sizes, BATCH_BYTES);
    let mut outcomes = Vec::with_capacity(batches.len());
    // A single statement needs no unit of work.
    let mut begun = if batches.len() > 1 { conn.begin().await? } else { None };
    let owner = conn.owner();
    for batch in batches {
        let conn = match &mut begun {
            Some(uow) => uow.executor().owned_by(owner),
            None => conn.reborrow(),
        };
        outcomes.push(statement(conn, batch).await?);
    }
    if let Some(uow) = begun {
        uow.commit().await?;
    }
    Ok(outcomes)
}

/// Cuts rows into batches of so many bytes, at least one row each; `sizes` are those of the rows.
fn batches<T>(rows: Vec<T>, sizes: &[usize], bytes: usize) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    let mut left = 0;
    for (row, size) in rows.into_iter().zip(sizes) {
        let size = size + ROW_BYTES;
        match batches.last_mut() {
            Some(batch) if size <= left => batch.push(row),
            _ => {
                batches.push(vec![row]);
                left = bytes;
            }
        }
        left = left.saturating_sub(size);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_batches_in_their_order() {
        let cut = |sizes: &[usize], bytes| batches((0..sizes.len()).collect(), sizes, bytes);
        assert!(cut(&[], 1000).is_empty());
        assert_eq!(cut(&[10, 10, 10], 1000), [[0, 1, 2]]);
        // A row that is larger than a batch is one.
        assert_eq!(cut(&[5000, 10, 5000], 1000), [[0], [1], [2]]);
        let two = [436, 436, 436, 436, 436];
        assert_eq!(cut(&two, 1000), [vec![0, 1], vec![2, 3], vec![4]]);
    }
}
