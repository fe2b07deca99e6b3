//! JSON as documents may use it: limited in size before it is parsed, no unknown field, no key
//! twice, whole numbers that every language holds, times in one form only.
//!
//! Nesting needs no counter of its own: documents are parsed into closed types, which bound it.

use crate::{Code, Refusal, SPEC};
use serde::de::{self, DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Refuses `bytes` above `limit`.
pub(crate) fn limit(what: &str, bytes: &[u8], limit: usize) -> Result<(), Refusal> {
    if bytes.len() <= limit {
        return Ok(());
    }
    Err(Refusal::new(Code::Limit, format!("{what} has {} bytes: at most {limit} are allowed", bytes.len())))
}

/// Parses a document of a closed type.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Refusal> {
    // A closed type would also be read from a list of its values.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Refusal::new(Code::Parse, format!("{what} is malformed: it is no JSON object")));
    }
    serde_json::from_slice(bytes).map_err(|e| Refusal::new(Code::Parse, format!("{what} is malformed: {e}")))
}

/// Parses a document that says `spec`; a version from the future is named as such, not as a typing error.
pub(crate) fn parse_versioned<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Refusal> {
    #[derive(Deserialize)]
    struct Version {
        spec: u64,
    }
    let Version { spec } = parse(what, bytes)?;
    if spec != SPEC {
        let detail = format!("{what} has version {spec}, this build knows {SPEC}: update the older side");
        return Err(Refusal::new(Code::Version, detail));
    }
    parse(what, bytes)
}

/// A whole number from 0 to 2^53 - 1, which JSON numbers hold exactly in every language.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct U53(u64);

impl U53 {
    /// The largest value.
    pub const MAX: u64 = (1 << 53) - 1;

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for U53 {
    type Error = String;
    fn try_from(value: u64) -> Result<Self, String> {
        if value <= Self::MAX { Ok(Self(value)) } else { Err(format!("{value} is above 2^53 - 1")) }
    }
}

impl From<U53> for u64 {
    fn from(value: U53) -> u64 {
        value.0
    }
}

impl From<u32> for U53 {
    fn from(value: u32) -> Self {
        Self(value.into())
    }
}

impl fmt::Display for U53 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment in whole seconds; in JSON RFC 3339 with `Z`, in that one form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(jiff::Timestamp);

impl Time {
    /// From seconds since 1970; `None` outside the years that RFC 3339 can write.
    pub fn from_unix(seconds: i64) -> Option<Self> {
        let end = 253_402_300_799; // 9999-12-31T23:59:59Z
        (0..=end).contains(&seconds).then(|| jiff::Timestamp::from_second(seconds).ok().map(Self))?
    }

    /// Seconds since 1970.
    pub fn unix(self) -> i64 {
        self.0.as_second()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

impl TryFrom<String> for Time {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("`{text}` is no time of the form 2026-01-31T12:00:00Z");
        let parsed: jiff::Timestamp = text.parse().map_err(|_| fault())?;
        let time = Self::from_unix(parsed.as_second()).ok_or_else(fault)?;
        if time.to_string() == text { Ok(time) } else { Err(fault()) }
    }
}

impl From<Time> for String {
    fn from(time: Time) -> String {
        time.to_string()
    }
}

/// A map that refuses a key twice, where serde would quietly keep the last one.
pub(crate) fn unique_map<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Unique<V>(PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
        type Value = BTreeMap<String, V>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, V>()? {
                if map.contains_key(&key) {
                    return Err(de::Error::custom(format!("duplicate key `{key}`")));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_form() {
        assert_eq!(Time::from_unix(1_000_000_000).unwrap().to_string(), "2001-09-09T01:46:40Z");
        assert!(Time::try_from("2001-09-09T01:46:40Z".to_owned()).is_ok());
        for bad in ["2001-09-09T01:46:40+00:00", "2001-09-09T01:46:40.5Z", "2001-09-09", "2001-09-09t01:46:40z", ""] {
            assert!(Time::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_stay_below_two_to_the_53() {
        assert!(serde_json::from_str::<U53>("9007199254740991").is_ok());
        assert!(serde_json::from_str::<U53>("9007199254740992").is_err());
        assert!(serde_json::from_str::<U53>("-1").is_err());
        assert!(serde_json::from_str::<U53>("1.0").is_err());
    }
}
