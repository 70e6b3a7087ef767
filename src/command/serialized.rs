//! Owns how limits and what they are made of are serialized, where that cannot be derived.
//!
//! Invariant: what is deserialized is as valid as what the API can make. Knows no format.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::command::capability::Capability;
use crate::command::files::LimitFile;
use crate::command::limits::Limits;
use crate::command::signal::Signal;
use crate::command::units::{ByteSize, Device};
use crate::command::value::LimitValue;

/// As the number of bytes.
impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.as_bytes())
    }
}

/// From a number of bytes or, in formats that people read, a text such as `100M`.
impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OfSize;

        impl Visitor<'_> for OfSize {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a size such as 100M")
            }

            fn visit_u64<E>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize::from_bytes(bytes))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }

        if from.is_human_readable() {
            from.deserialize_any(OfSize)
        } else {
            from.deserialize_u64(OfSize)
        }
    }
}

/// As a text such as `8:0`, so that it can be the key of a map in every format.
impl Serialize for Device {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// As its number.
impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(self.as_raw())
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = i32::deserialize(from)?;
        let expected = &"the number of a signal, 1 to 64";
        let unexpected = Unexpected::Signed(number.into());
        Self::from_raw(number).ok_or_else(|| D::Error::invalid_value(unexpected, expected))
    }
}

/// As its number.
impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(self.as_raw())
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(from)?;
        let expected = &"the number of a capability, 0 to 63";
        let unexpected = Unexpected::Unsigned(number.into());
        Self::from_raw(number).ok_or_else(|| D::Error::invalid_value(unexpected, expected))
    }
}

/// As a map from the interface files to their values, in the order in which they are written.
impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.iter().count()))?;
        for (file, value) in self.iter() {
            map.serialize_entry(file, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OfLimits;

        impl<'de> Visitor<'de> for OfLimits {
            type Value = Limits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from interface files to their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Limits, A::Error> {
                let mut limits = Limits::new();
                while let Some((file, value)) = map.next_entry::<String, LimitValue>()? {
                    if !value.fits(LimitFile::find(&file).map(LimitFile::shape)) {
                        let problem = format_args!("{file} does not have a value of this kind");
                        return Err(A::Error::custom(problem));
                    }
                    limits.put(file, value);
                }
                Ok(limits)
            }
        }

        from.deserialize_map(OfLimits)
    }
}
