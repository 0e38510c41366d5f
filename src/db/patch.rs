//! Partial updates, in which "leave it" and "set it to null" are different things.

use serde::{Deserialize, Deserializer};

/// One field of a partial update.
///
/// `Patch<Option<String>>` tells [`Keep`](Patch::Keep) (leave the column) from `Set(None)` (store
/// null). The default is `Keep`, so a patch names only what changes:
///
/// ```
/// use chancery::{Patch, UserPatch};
///
/// let patch = UserPatch {
///     name: Patch::Set(Some("Ada".into())),
///     profession: Patch::Set(None), // forget it
///     ..UserPatch::default()
/// };
/// # assert!(patch.email.is_keep());
/// ```
///
/// In JSON a field that is left out is kept and one that is null is set to null, with
/// `#[serde(default)]`:
///
/// ```
/// use chancery::Patch;
///
/// #[derive(serde::Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// # #[derive(Default)]
/// struct ProfilePatch {
///     name: Patch<Option<String>>,
///     profession: Patch<Option<String>>,
/// }
///
/// let patch: ProfilePatch = serde_json::from_str(r#"{"profession": null}"#)?;
/// assert_eq!(patch.name, Patch::Keep);
/// assert_eq!(patch.profession, Patch::Set(None));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patch<T> {
    /// Leave the column as it is.
    #[default]
    Keep,
    /// Store this value.
    Set(T),
}

impl<T> Patch<T> {
    /// Whether the column stays as it is.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// Whether the column gets a value.
    pub fn is_set(&self) -> bool {
        !self.is_keep()
    }

    /// The value, if there is one.
    pub fn as_ref(&self) -> Option<&T> {
        match self {
            Self::Keep => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl<T> From<T> for Patch<T> {
    fn from(value: T) -> Self {
        Self::Set(value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::Set)
    }
}

impl Patch<Option<String>> {
    /// The text to store, if there is one.
    pub(crate) fn set_text(&self) -> Option<&str> {
        self.as_ref().and_then(|text| text.as_deref())
    }
}
