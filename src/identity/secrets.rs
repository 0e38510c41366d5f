//! Hashes that are as good as the secret to whoever steals them: stored, compared, never printed.
//!
//! Each has a masked `Debug`, no `Display` and no `Serialize`: `expose()` is the one way to the text, and
//! easy to search for. A model that holds one leaves it out when it is serialised.

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
    /// assert!(PasswordHash::new("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaC1vZi0xNi1ieXRlcw").is_ok());
    /// assert!(PasswordHash::new("hunter2").is_err());
    /// ```
    PasswordHash
);

impl PasswordHash {
    /// A salted hash as a PHC string (`$argon2id$…`, `$scrypt$…`, `$pbkdf2-sha256$…`, also as passlib
    /// writes them) or of bcrypt (`$2a$…`, `$2b$…`, `$2y$…`), with nothing before or after it. Which
    /// algorithm it is and how strong is the application's to choose.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::InvalidInput), which does not quote it, for everything else, and for more
    /// than 255 characters.
    pub fn new(hash: impl Into<String>) -> Result<Self> {
        let hash = hash.into();
        if !(is_phc(&hash) || is_bcrypt(&hash)) {
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

/// Whether it is `$id[$v=version][$parameters]$salt$hash`, as the PHC string format has it
/// (<https://github.com/P-H-C/phc-string-format>). Salt and hash are asked for: without them it is no
/// password's. A lone number of rounds stands for parameters in passlib's strings. Names of one or two
/// characters are crypt's (`$1$`, `$2b$`, `$6$`), not PHC's.
fn is_phc(hash: &str) -> bool {
    const SHORTEST_HASH: usize = 14; // of 10 bytes
    let is = |text: &str, sign: fn(u8) -> bool| !text.is_empty() && text.bytes().all(sign);
    let word = |text: &str| {
        text.len() <= 32 && is(text, |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    let value = |text: &str| {
        is(text, |b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'+' | b'.' | b'-'))
    };
    let digits = |text: &str| is(text, |b| b.is_ascii_digit());
    let parameters = |text: &str| {
        digits(text)
            || text
                .split(',')
                .all(|one| one.split_once('=').is_some_and(|(n, v)| word(n) && value(v)))
    };
    let Some(parts) = hash.strip_prefix('$') else { return false };
    let parts: Vec<&str> = parts.split('$').collect();
    let (id, middle, salt, digest) = match parts[..] {
        [id, salt, digest] => (id, [None, None], salt, digest),
        [id, one, salt, digest] => (id, [None, Some(one)], salt, digest),
        [id, version, some, salt, digest] => (id, [Some(version), Some(some)], salt, digest),
        _ => return false,
    };
    let [version, some] = middle;
    word(id)
        && id.len() > 2
        && version.is_none_or(|v| v.strip_prefix("v=").is_some_and(digits))
        && some.is_none_or(parameters)
        && value(salt)
        && digest.len() >= SHORTEST_HASH
        && is(digest, |b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'+' | b'.'))
}

/// Whether it is `$2b$cost$` and 53 characters of salt and hash; the cost is 4 to 31.
fn is_bcrypt(hash: &str) -> bool {
    let parts: Vec<&str> = hash.split('$').collect();
    matches!(parts[..], ["", "2a" | "2b" | "2y", cost, rest]
        if cost.len() == 2
            && cost.bytes().all(|b| b.is_ascii_digit())
            && cost.parse().is_ok_and(|cost: u8| (4..=31).contains(&cost))
            && rest.len() == 53
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/')))
}

secret!(
    /// The hash of a session's token. The token itself is never stored.
    ///
    /// ```compile_fail
    /// # let hash = chancery::TokenHash::new("hash").unwrap();
    /// println!("{hash}");
    /// ```
    ///
    /// ```compile_fail
    /// # let hash = chancery::TokenHash::new("hash").unwrap();
    /// serde_json::to_string(&hash);
    /// ```
    TokenHash
);

impl TokenHash {
    /// A digest, in hex.
    pub(super) fn from_digest(digest: &[u8]) -> Self {
        Self(digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
            hex.extend([digit(byte >> 4), digit(byte & 15)]);
            hex
        }))
    }

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
    use proptest::prelude::*;

    use super::*;

    const HASHES: [&str; 10] = [
        "$2a$04$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
        "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
        "$2y$31$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaC1vZi0xNi1ieXRlcw",
        "$argon2i$m=65536,t=2,p=1$c2FsdHNhbHQ$aGFzaC1vZi0xNi1ieXRlcw",
        "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
        "$pbkdf2-sha256$i=600000,l=32$c2FsdHNhbHQ$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
        // passlib's
        "$pbkdf2-sha256$29000$N2YMIWQsBWBMae09x1jrPQ$1t8iyB2A.WF/Z5JZv.lfCIhXXN33N23OSgQYThBYRfk",
        "$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2",
        "$plain$c2FsdHNhbHQ$aGFzaC1vZi0xNi1ieXRlcw",
    ];

    #[test]
    fn a_plain_password_is_not_taken_for_a_hash() {
        for plain in [
            "",
            "hunter2",
            "$",
            "$$",
            "$$$",
            "pa$$word",
            "$ pass$word",
            "$Pass$word",
            "$x$\0",
            "$money$makes$happy",
            "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc",
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0$",
            // The right beginning, and no more.
            "$argon2id$hunter2",
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$",
            "$argon2id$v=19$m=19456,t=2,p=1$$aGFzaC1vZi0xNi1ieXRlcw",
            "$argon2id$19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaC1vZi0xNi1ieXRlcw",
            "$argon2id$v=19$m19456$c2FsdHNhbHQ$aGFzaC1vZi0xNi1ieXRlcw",
            "$2b$12$hunter2",
            "$2b$03$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "$2b$32$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "$2b$+9$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "$2x$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUWx",
            "5f4dcc3b5aa765d61d8327deb882cf99",
        ] {
            let error = PasswordHash::new(plain).expect_err(plain);
            let shown = format!("{error} {error:?}");
            assert!(plain.len() < 5 || !shown.contains(plain), "{shown}");
        }
        assert!(PasswordHash::legacy("5f4dcc3b5aa765d61d8327deb882cf99").is_ok());
    }

    #[test]
    fn what_hashing_libraries_write_is_taken() {
        for hash in HASHES {
            assert_eq!(PasswordHash::new(hash).expect(hash).expose(), hash);
        }
    }

    proptest! {
        /// A PHC string is put together by its grammar; nothing that is left out or added fits.
        #[test]
        fn the_grammar_of_phc_strings_is_what_is_taken(
            id in "[a-z0-9-]{3,32}",
            version in proptest::option::of(0..100_u32),
            parameters in proptest::collection::vec(("[a-z0-9-]{1,32}", "[a-zA-Z0-9/+.-]{1,9}"), 0..4),
            salt in "[a-zA-Z0-9/+.-]{1,32}",
            digest in "[a-zA-Z0-9/+]{14,43}",
        ) {
            let mut hash = format!("${id}");
            if let Some(version) = version {
                hash += &format!("$v={version}");
            }
            let list: Vec<_> = parameters.iter().map(|(n, v)| format!("{n}={v}")).collect();
            if !list.is_empty() {
                hash += &format!("${}", list.join(","));
            }
            hash += &format!("${salt}${digest}");
            let fits = hash.len() <= 255;
            prop_assert_eq!(PasswordHash::new(hash.clone()).is_ok(), fits, "{}", hash);
            for wrong in [
                hash[1..].to_owned(),
                format!(" {hash}"),
                format!("{hash} "),
                format!("{hash}$"),
                format!("{hash}\n"),
                hash.replacen(&id, "", 1),
                hash.replacen(&id, "A", 1),
                hash.strip_suffix(&digest).unwrap().to_owned(),
            ] {
                prop_assert!(PasswordHash::new(wrong.clone()).is_err(), "{}", wrong);
            }
        }

        /// No more than one in a great many texts without the three signs of a hash is taken.
        #[test]
        fn what_people_type_is_refused(text in ".{0,60}") {
            prop_assume!(text.matches('$').count() < 3);
            prop_assert!(PasswordHash::new(text).is_err());
        }

        #[test]
        fn a_hash_that_is_cut_is_refused_or_has_its_form(which in 0..HASHES.len(), cut in 1..70_usize) {
            let hash = HASHES[which];
            let cut = &hash[..hash.len().saturating_sub(cut)];
            if cut.starts_with("$2") {
                prop_assert!(PasswordHash::new(cut).is_err(), "{}", cut);
            }
            if cut.rsplit('$').next().is_none_or(|digest| digest.len() < 14) {
                prop_assert!(PasswordHash::new(cut).is_err(), "{}", cut);
            }
        }
    }

    #[test]
    fn hashes_do_not_print() {
        let shown = format!("{:?} {:?}", TokenHash::new("canary"), PasswordHash::legacy("canary"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
