//! Owns [`RecordedError`]: what is left of an error that was written down.
//!
//! Plain data; knows nothing of how the error came about.

#[cfg(feature = "serde")]
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[cfg(feature = "serde")]
use crate::error::error::Error;
use crate::error::kind::ErrorKind;

/// What is left of an error that was written down, such as a problem in a
/// [`Report`](crate::Report): its message, and what a host would branch on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[error("{message}")]
#[non_exhaustive]
pub struct RecordedError {
    /// What the error printed.
    pub message: String,
    /// What [`Error::kind`](crate::Error::kind) said.
    pub kind: ErrorKind,
    /// What [`Error::raw_os_error`](crate::Error::raw_os_error) said.
    pub raw_os_error: Option<i32>,
}

/// As a [`RecordedError`].
#[cfg(feature = "serde")]
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (kind, raw_os_error) = (self.kind(), self.raw_os_error());
        RecordedError { message: self.to_string(), kind, raw_os_error }.serialize(to)
    }
}

/// Always [`Error::Recorded`], which prints the same message.
#[cfg(feature = "serde")]
impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        RecordedError::deserialize(from).map(Self::Recorded)
    }
}
