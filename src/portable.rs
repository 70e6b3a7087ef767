//! Owns [`Portable`]: how types of the standard library are serialized that serde does not, or not
//! in a form that fits every format.
//!
//! Invariant: nothing is lost, bytes that are not UTF-8 included; what cannot be kept is an error.
//! Knows nothing of what the values mean.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};

/// For `serde(with)`: a field that serde cannot serialize, or not as it should be.
pub(crate) fn serialize<T: Portable, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    value.form().map_err(S::Error::custom)?.serialize(to)
}

/// For `serde(with)`.
pub(crate) fn deserialize<'de, T: Portable, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::of(T::Form::deserialize(from)?).map_err(D::Error::custom)
}

/// A type that is serialized in the form of another one.
pub(crate) trait Portable: Sized {
    type Form: Serialize + for<'de> Deserialize<'de>;

    fn form(&self) -> Result<Self::Form, &'static str>;
    fn of(form: Self::Form) -> Result<Self, &'static str>;
}

/// Bytes that are text as a rule: a string in formats that people read, if it is UTF-8, and
/// otherwise a sequence of numbers; bytes in all others.
pub(crate) struct Text(Vec<u8>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            _ if !to.is_human_readable() => to.serialize_bytes(&self.0),
            Ok(text) => to.serialize_str(text),
            Err(_) => to.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OfText;

        impl<'de> Visitor<'de> for OfText {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or bytes")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.into()))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(bytes.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Text, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = sequence.next_element()? {
                    bytes.push(byte);
                }
                Ok(Text(bytes))
            }
        }

        if from.is_human_readable() {
            from.deserialize_any(OfText)
        } else {
            from.deserialize_bytes(OfText)
        }
    }
}

impl Portable for OsString {
    type Form = Text;

    fn form(&self) -> Result<Text, &'static str> {
        Ok(Text(self.as_bytes().to_owned()))
    }

    fn of(Text(bytes): Text) -> Result<Self, &'static str> {
        Ok(Self::from_vec(bytes))
    }
}

impl Portable for PathBuf {
    type Form = Text;

    fn form(&self) -> Result<Text, &'static str> {
        Ok(Text(self.as_os_str().as_bytes().to_owned()))
    }

    fn of(Text(bytes): Text) -> Result<Self, &'static str> {
        Ok(OsString::from_vec(bytes).into())
    }
}

impl Portable for Arc<[u8]> {
    type Form = Text;

    fn form(&self) -> Result<Text, &'static str> {
        Ok(Text(self.to_vec()))
    }

    fn of(Text(bytes): Text) -> Result<Self, &'static str> {
        Ok(bytes.into())
    }
}

impl<T: Portable> Portable for Option<T> {
    type Form = Option<T::Form>;

    fn form(&self) -> Result<Self::Form, &'static str> {
        self.as_ref().map(T::form).transpose()
    }

    fn of(form: Self::Form) -> Result<Self, &'static str> {
        form.map(T::of).transpose()
    }
}

impl<T: Portable> Portable for Vec<T> {
    type Form = Vec<T::Form>;

    fn form(&self) -> Result<Self::Form, &'static str> {
        self.iter().map(T::form).collect()
    }

    fn of(form: Self::Form) -> Result<Self, &'static str> {
        form.into_iter().map(T::of).collect()
    }
}

/// The variables of an environment, as pairs: the keys of a map have to be strings in some formats.
impl Portable for BTreeMap<OsString, Option<OsString>> {
    type Form = Vec<(Text, Option<Text>)>;

    fn form(&self) -> Result<Self::Form, &'static str> {
        self.iter().map(|(key, value)| Ok((key.form()?, value.form()?))).collect()
    }

    fn of(form: Self::Form) -> Result<Self, &'static str> {
        form.into_iter().map(|(key, value)| Ok((OsString::of(key)?, Option::of(value)?))).collect()
    }
}

const NO_DESCRIPTOR: &str = "an open file descriptor has no meaning outside of its process";

impl Portable for Arc<OwnedFd> {
    type Form = ();

    fn form(&self) -> Result<(), &'static str> {
        Err(NO_DESCRIPTOR)
    }

    fn of((): ()) -> Result<Self, &'static str> {
        Err(NO_DESCRIPTOR)
    }
}

/// Nothing, unless there are descriptors.
impl Portable for BTreeMap<RawFd, Arc<OwnedFd>> {
    type Form = [(); 0];

    fn form(&self) -> Result<Self::Form, &'static str> {
        if self.is_empty() { Ok([]) } else { Err(NO_DESCRIPTOR) }
    }

    fn of([]: Self::Form) -> Result<Self, &'static str> {
        Ok(Self::new())
    }
}
