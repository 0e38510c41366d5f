//! How far a database had come: what a later read has to see at least.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::database::Database;
use super::error::{InvalidInput, Reason, Result};

/// A position in the database's log that covers a commit: what reads from a standby wait for, so that
/// they see it ([`Reader::after`](crate::Reader::after)).
///
/// It comes from [`UnitOfWork::commit_with_token`](crate::UnitOfWork::commit_with_token) or
/// [`Database::read_token`], and travels as text, in a cookie or a header. It is no secret and grants
/// nothing: whoever forges one makes his own reads go to the primary.
///
/// ```
/// use chancery::ReadToken;
///
/// let token: ReadToken = "1-16B3748".parse()?;
/// assert_eq!(token.to_string(), "1-16B3748");
/// # Ok::<(), chancery::InvalidInput>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadToken {
    /// Each promotion begins a new one, in which positions may be used again.
    timeline: u32,
    /// The log sequence number, in bytes.
    lsn: u64,
}

impl ReadToken {
    /// What no standby ever reaches, so that reads after it go to the primary.
    pub(crate) const PRIMARY: Self = Self { timeline: u32::MAX, lsn: u64::MAX };

    /// From the name of a file of the log, whose first eight digits are the timeline.
    pub(crate) fn from_log(file: &str, lsn: i64) -> Self {
        let timeline = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match (timeline, u64::try_from(lsn)) {
            (Some(timeline), Ok(lsn)) => Self { timeline, lsn },
            _ => Self::PRIMARY,
        }
    }

    /// Whether a server that has come to `self` has all that `token` stands for. One of an earlier
    /// timeline may have other things at the same position.
    pub(crate) fn covers(self, token: Self) -> bool {
        self.timeline >= token.timeline && self.lsn >= token.lsn
    }

    /// What covers both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { timeline: self.timeline.max(other.timeline), lsn: self.lsn.max(other.lsn) }
    }

    /// Bytes of the log between two positions.
    pub(crate) fn bytes_since(self, earlier: Self) -> u64 {
        self.lsn.saturating_sub(earlier.lsn)
    }
}

impl fmt::Display for ReadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}-{:X}", self.timeline, self.lsn)
    }
}

impl FromStr for ReadToken {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let number = |digits: &str| {
            let hexadecimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            hexadecimal.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('-')
            .and_then(|(timeline, lsn)| {
                Some(Self { timeline: number(timeline)?.try_into().ok()?, lsn: number(lsn)? })
            })
            .ok_or(InvalidInput::new("token", Reason::Malformed("a read token")))
    }
}

impl Serialize for ReadToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReadToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Database {
    /// How far the primary has come: it covers all that was committed before the call. One round
    /// trip, for what was written without a unit of work.
    pub async fn read_token(&self) -> Result<ReadToken> {
        Ok(current(self.executor()).await?)
    }
}

/// Where the primary stands. What was committed before lies before it, also where commits don't wait
/// for the disk.
pub(crate) async fn current(
    conn: impl sqlx::PgExecutor<'_>,
) -> std::result::Result<ReadToken, sqlx::Error> {
    let row = sqlx::query!(
        r#"select pg_walfile_name(pg_current_wal_insert_lsn()) as "file!",
                  (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint as "lsn!""#
    )
    .fetch_one(conn)
    .await?;
    Ok(ReadToken::from_log(&row.file, row.lsn))
}

/// How far a server has come, and whether it is a standby.
pub(crate) struct Standing {
    pub is_standby: bool,
    pub reached: ReadToken,
}

/// Where a server stands, whatever it is.
///
/// A standby does not tell which timeline it replays; its control file tells one that it has replayed,
/// which after a promotion is the former one for up to `checkpoint_timeout`.
pub(crate) async fn standing(
    conn: impl sqlx::PgExecutor<'_>,
) -> std::result::Result<Standing, sqlx::Error> {
    let row = sqlx::query!(
        r#"select pg_is_in_recovery() as "is_standby!",
                  case when pg_is_in_recovery()
                       then lpad(to_hex(greatest(c.timeline_id, r.min_recovery_end_timeline)), 8, '0')
                       else pg_walfile_name(pg_current_wal_insert_lsn()) end as "file!",
                  (case when pg_is_in_recovery()
                        then pg_last_wal_replay_lsn()
                        else pg_current_wal_insert_lsn() end - '0/0'::pg_lsn)::bigint as "lsn!"
             from pg_control_checkpoint() c, pg_control_recovery() r"#
    )
    .fetch_one(conn)
    .await?;
    let reached = ReadToken::from_log(&row.file, row.lsn);
    Ok(Standing { is_standby: row.is_standby, reached })
}
