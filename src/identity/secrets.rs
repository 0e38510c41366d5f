//! Hashes that are as good as the secret to whoever steals them: stored, compared, never printed.

use std::fmt;

use crate::db::{Error, Reason, Result, input};

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, sqlx::Type)]
        #[sqlx(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text, to be compared or hashed; keep it out of logs.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

secret!(
    /// A password's hash, as the application's hashing library made it.
    ///
    /// Hashing is the application's; this type only refuses what does not look like a hash, so that
    /// a plain password is not stored by mistake.
    ///
    /// ```
    /// use chancery::PasswordHash;
    ///
    /// assert!(PasswordHash::new("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA").is_ok());
    /// assert!(PasswordHash::new("hunter2").is_err());
    /// ```
    PasswordHash
);

impl PasswordHash {
    /// A hash in PHC form (`$argon2id$…`, `$scrypt$…`, `$pbkdf2-sha256$…`) or of bcrypt (`$2b$…`).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::InvalidInput) for everything else, and for more than 255 characters.
    pub fn new(hash: impl Into<String>) -> Result<Self> {
        let hash = hash.into();
        let mut parts = hash.split('$');
        let well_formed = parts.next() == Some("")
            && parts.next().is_some_and(|id| {
                !id.is_empty()
                    && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            })
            && parts.next().is_some_and(|part| !part.is_empty())
            && hash.bytes().all(|b| b.is_ascii_graphic());
        if !well_formed {
            return Err(Error::invalid(
                "password_hash",
                Reason::Malformed("a PHC or bcrypt string; PasswordHash::legacy takes others"),
            ));
        }
        Self::legacy(hash)
    }

    /// A hash of any other form, from a system that came before.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::InvalidInput) when it is empty, longer than 255 characters or contains
    /// NUL.
    pub fn legacy(hash: impl Into<String>) -> Result<Self> {
        let hash = hash.into();
        input::name("password_hash", &hash, 255)?;
        Ok(Self(hash))
    }
}

secret!(
    /// The hash of a session's token. The token itself is never stored.
    TokenHash
);

impl TokenHash {
    /// A hash in the application's form (SHA-256 in hex, for example): 1 to 255 characters.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::InvalidInput).
    pub fn new(hash: impl Into<String>) -> Result<Self> {
        let hash = hash.into();
        input::name("token_hash", &hash, 255)?;
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_password_is_not_taken_for_a_hash() {
        for plain in ["", "hunter2", "$", "$$", "pa$$word", "$ pass$word", "$Pass$word", "$x$\0"] {
            assert!(PasswordHash::new(plain).is_err(), "{plain:?}");
        }
        for hash in
            ["$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW", "$scrypt$ln=16$a$b"]
        {
            assert!(PasswordHash::new(hash).is_ok(), "{hash}");
        }
        assert!(PasswordHash::legacy("5f4dcc3b5aa765d61d8327deb882cf99").is_ok());
    }

    #[test]
    fn hashes_do_not_print() {
        let shown = format!("{:?} {:?}", TokenHash::new("canary"), PasswordHash::legacy("canary"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
