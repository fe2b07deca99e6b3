//! Names of fleets, devices and streams: what may stand in a topic, a path and a table.
//!
//! One alphabet for all three, small enough that a name is safe in an MQTT topic (no `/`, `+`, `#`),
//! in a file name (no `.` at the start) and in a shell.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a {what} name: use 1 to 63 of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or a digit")]
pub struct NameError {
    what: &'static str,
    name: String,
}

fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let bytes = name.as_bytes();
    let good = (1..=MAX_NAME_BYTES).contains(&bytes.len())
        && bytes.iter().all(|b| allowed(*b))
        && bytes[0].is_ascii_alphanumeric();
    if good { Ok(()) } else { Err(NameError { what, name: name.chars().take(80).collect() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                check($what, name).map(|()| Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                check($what, &name).map(|()| Self(name))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// All the devices that one root of trust speaks for.
    FleetId,
    "fleet"
);
name!(
    /// One device; also the MQTT client id and the name in its certificate.
    DeviceId,
    "device"
);
name!(
    /// A model's line of releases.
    StreamName,
    "stream"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_topics_paths_and_shells() {
        for good in ["a", "rpi-4", "plant_3.line-2", "0", &"x".repeat(63)] {
            assert!(good.parse::<DeviceId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-rf", "a/b", "a+b", "#", "A", "ä", "a b", "a\0", &"x".repeat(64)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad:?}");
        }
    }
}
