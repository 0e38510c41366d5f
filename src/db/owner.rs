//! Statements in two forms: for whoever's rows, and for those of the owner whom a connection source
//! names.

use uuid::Uuid;

use super::conn::Conn;
use super::error::{Denied, Error, Result};

impl Conn<'_> {
    /// Refuses what a call asks for another user than the owner.
    pub(crate) fn check_owner(&self, user_id: impl Into<Uuid>) -> Result<()> {
        match self.owner() {
            Some(owner) if owner != user_id.into() => {
                Err(Error::PermissionDenied(Denied::OtherUser))
            }
            _ => Ok(()),
        }
    }
}

/// Runs one of two statements: the plain one where no owner is known, the owned one where one is. The
/// owner is the owned one's last argument.
///
/// `"…" + owned(" and user_id = $2") + "…"` says more in the owned form; `"…" | owned("…")` says
/// something else.
///
/// `query!(…).map(…) => |statement| …` hands on what makes the statement, for [`rows`](super::rows).
macro_rules! by_owner {
    (
        $owner:expr,
        $query:ident!(
            $($row:path,)? $head:literal + owned($owned:literal) $(+ $tail:literal)?
            $(, $argument:expr)* $(,)?
        ) $(.$method:ident($map:expr))? => |$statement:ident| $run:expr
    ) => {
        match $owner {
            None => {
                let $statement = move || {
                    sqlx::$query!($($row,)? $head $(+ $tail)? $(, $argument)*) $(.$method($map))?
                };
                $run
            }
            Some(owner) => {
                let $statement = move || {
                    sqlx::$query!($($row,)? $head + $owned $(+ $tail)? $(, $argument)*, owner)
                        $(.$method($map))?
                };
                $run
            }
        }
    };
    (
        $owner:expr,
        $query:ident!(
            $($row:path,)? $plain:literal | owned($owned:literal) $(, $argument:expr)* $(,)?
        ) $(.$method:ident($map:expr))? => |$statement:ident| $run:expr
    ) => {
        match $owner {
            None => {
                let $statement =
                    move || sqlx::$query!($($row,)? $plain $(, $argument)*) $(.$method($map))?;
                $run
            }
            Some(owner) => {
                let $statement =
                    move || sqlx::$query!($($row,)? $owned $(, $argument)*, owner) $(.$method($map))?;
                $run
            }
        }
    };
    (
        $owner:expr,
        $query:ident!(
            $($row:path,)? $head:literal + owned($owned:literal) $(+ $tail:literal)?
            $(, $argument:expr)* $(,)?
        ) $($then:tt)+
    ) => {
        match $owner {
            None => sqlx::$query!($($row,)? $head $(+ $tail)? $(, $argument)*) $($then)+,
            Some(owner) => {
                sqlx::$query!($($row,)? $head + $owned $(+ $tail)? $(, $argument)*, owner) $($then)+
            }
        }
    };
    (
        $owner:expr,
        $query:ident!(
            $($row:path,)? $plain:literal | owned($owned:literal) $(, $argument:expr)* $(,)?
        ) $($then:tt)+
    ) => {
        match $owner {
            None => sqlx::$query!($($row,)? $plain $(, $argument)*) $($then)+,
            Some(owner) => sqlx::$query!($($row,)? $owned $(, $argument)*, owner) $($then)+,
        }
    };
}

pub(crate) use by_owner;
