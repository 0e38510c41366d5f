//! A look at start-up: what the login role may do that it need not, and how the database keeps text.

use std::fmt;
use std::str::FromStr;

use sqlx::PgConnection;

use super::actor::APP_ROLE;
use super::error::{Error, Result};

/// What [`Database::connect`](crate::Database::connect) does about a login role that may do more than it
/// need: `DATABASE_ROLE_CHECK`.
///
/// Looking costs one round trip when the database is connected to, and none later. The same look warns of
/// a database whose encoding is not UTF8, and of one whose collation has another version by now than when
/// it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RoleCheck {
    /// Do not look.
    Off,
    /// Log a warning, with the role and what is wrong with it.
    #[default]
    Warn,
    /// Refuse to connect: [`Error::RoleRefused`].
    Refuse,
}

impl FromStr for RoleCheck {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Ok(Self::Off),
            "warn" => Ok(Self::Warn),
            "refuse" => Ok(Self::Refuse),
            _ => Err(()),
        }
    }
}

/// Why a login role is more than an application's should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoleRisk {
    /// A superuser: no privilege and no policy holds for it.
    Superuser,
    /// It has BYPASSRLS: no policy holds for it.
    BypassesRowSecurity,
    /// It owns the tables, or is a member of the role that does: it can drop them and their policies.
    /// An application that migrates when it starts is in this case; let a role of its own migrate.
    OwnsTables,
}

impl fmt::Display for RoleRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superuser => "is a superuser",
            Self::BypassesRowSecurity => "has BYPASSRLS",
            Self::OwnsTables => "owns the tables",
        })
    }
}

/// Looks at the role that this connection is logged in as, and at the database.
pub(super) async fn check_role(connection: &mut PgConnection, check: RoleCheck) -> Result<()> {
    if check == RoleCheck::Off {
        return Ok(());
    }
    // The bookkeeping table is its tables' owner's; before the first migration there is none.
    let found = sqlx::query!(
        r#"select rolname::text as "role!", rolsuper as "superuser!", rolbypassrls as "bypasses!",
                  exists (select from pg_class
                           where oid = to_regclass('_chancery_migrations')
                             and pg_has_role(relowner, 'member')) as "owns!",
                  coalesce(pg_has_role(to_regrole($1), 'member'), true) as "member!",
                  pg_encoding_to_char(encoding)::text as "encoding!",
                  datcollversion as made_with,
                  pg_database_collation_actual_version(pg_database.oid) as collates_now
             from pg_roles, pg_database
            where rolname = session_user and datname = current_database()"#,
        APP_ROLE,
    )
    .fetch_one(connection)
    .await?;
    if found.encoding != "UTF8" {
        tracing::warn!(
            target: "chancery",
            event = "database.encoding",
            encoding = %found.encoding,
            "the database's encoding is not UTF8: it can't store every text"
        );
    }
    // The server's own warning is kept back with the others: client_min_messages.
    if found.made_with.is_some() && found.made_with != found.collates_now {
        tracing::warn!(
            target: "chancery",
            event = "database.collation",
            made_with = ?found.made_with,
            now = ?found.collates_now,
            "the system sorts text in another way than when the database was made: indexes on text may \
             not find what is there; reindex, then alter database … refresh collation version"
        );
    }
    let role = found.role;
    let risk = if found.superuser {
        Some(RoleRisk::Superuser)
    } else if found.bypasses {
        Some(RoleRisk::BypassesRowSecurity)
    } else if found.owns {
        Some(RoleRisk::OwnsTables)
    } else {
        None
    };
    if !found.member {
        tracing::warn!(
            target: "chancery",
            event = "database.role",
            %role,
            "the login role is not a member of {APP_ROLE}: it can't work for a user"
        );
    }
    match risk {
        None => Ok(()),
        Some(risk) if check == RoleCheck::Refuse => Err(Error::RoleRefused { role, risk }),
        Some(risk) => {
            tracing::warn!(
                target: "chancery",
                event = "database.role",
                %role,
                ?risk,
                "the login role {risk}: an application needs less (DATABASE_ROLE_CHECK)"
            );
            Ok(())
        }
    }
}
