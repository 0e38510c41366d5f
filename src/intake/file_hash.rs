//! What tells two uploads of one file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::db::{InvalidInput, Reason};

/// The SHA-256 of a file's content, as 64 hex digits in lower case. `Debug` leaves it out.
///
/// Computing it is the application's: from the digest's 32 bytes, or from its text in either case.
///
/// ```
/// use chancery::FileHash;
///
/// let from_text: FileHash = "AB".repeat(32).parse()?;
/// assert_eq!(from_text, FileHash::from([0xab; 32]));
/// assert_eq!(from_text.as_str(), "ab".repeat(32));
/// assert!("ab".parse::<FileHash>().is_err());
/// # Ok::<(), chancery::InvalidInput>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct FileHash(String);

impl FileHash {
    /// From its text.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] for anything but 64 hex digits.
    pub fn new(hex: &str) -> Result<Self, InvalidInput> {
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidInput::new(
                "file_hash",
                Reason::Malformed("a SHA-256 in 64 hex digits"),
            ));
        }
        Ok(Self(hex.to_ascii_lowercase()))
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<[u8; 32]> for FileHash {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl FromStr for FileHash {
    type Err = InvalidInput;

    fn from_str(hex: &str) -> Result<Self, InvalidInput> {
        Self::new(hex)
    }
}

impl<'de> Deserialize<'de> for FileHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_hex_digits_are_a_hash() {
        let digits = "0123456789abcdefABCDEF0123456789abcdefABCDEF01234567890123456789";
        assert_eq!(FileHash::new(digits).unwrap().as_str(), digits.to_lowercase());
        for wrong in
            ["", "0", &digits[1..], &format!("{digits}0"), &"g".repeat(64), &"é".repeat(32)]
        {
            assert!(FileHash::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn json_holds_the_digits_and_is_checked_when_read() {
        let hash = FileHash::from([7; 32]);
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json, format!("\"{}\"", "07".repeat(32)));
        assert_eq!(serde_json::from_str::<FileHash>(&json).unwrap(), hash);
        assert!(serde_json::from_str::<FileHash>("\"07\"").is_err());
        assert!(!format!("{hash:?}").contains("07"));
    }
}
