//! JSON as documents may use it: limited in size before it is parsed, no unknown field, no key
//! twice, nested 16 deep at most, whole numbers that every language holds, everything in one form.
//!
//! Bytes become a tree, the tree becomes a closed type, and the type must say again what was read.
//! So whatever a lenient parser would let pass (a list of values for an object, `null` for a field
//! that is left out, hex in capitals, a set with a member twice) is refused in one place.

use crate::{Code, Refusal, SPEC};
use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

/// The deepest nesting of a document.
const MAX_DEPTH: usize = 16;

/// Refuses `bytes` above `limit`.
pub(crate) fn limit(what: &str, bytes: &[u8], limit: usize) -> Result<(), Refusal> {
    if bytes.len() <= limit {
        return Ok(());
    }
    Err(Refusal::new(Code::Limit, format!("{what} has {} bytes: at most {limit} are allowed", bytes.len())))
}

/// Parses a document of a closed type.
pub(crate) fn parse<T: DeserializeOwned + Serialize>(what: &str, bytes: &[u8]) -> Result<T, Refusal> {
    Read::new(what, bytes)?.typed(what)
}

/// Parses a document that says `spec`; a version from the future is named as such, not as a typing error.
pub(crate) fn parse_versioned<T: DeserializeOwned + Serialize>(what: &str, bytes: &[u8]) -> Result<T, Refusal> {
    let read = Read::new(what, bytes)?;
    match read.tree.get("spec").and_then(Value::as_u64) {
        Some(SPEC) => read.typed(what),
        Some(spec) => {
            let detail = format!("{what} has version {spec}, this build knows {SPEC}: update the older side");
            Err(Refusal::new(Code::Version, detail))
        }
        None => Err(malformed(what, "it says no version `spec`")),
    }
}

fn malformed(what: &str, why: impl fmt::Display) -> Refusal {
    Refusal::new(Code::Parse, format!("{what} is malformed: {why}"))
}

/// A document as a tree.
struct Read {
    tree: Value,
    /// A number in it is beyond 2^53 - 1.
    large: bool,
}

impl Read {
    fn new(what: &str, bytes: &[u8]) -> Result<Self, Refusal> {
        let large = Cell::new(false);
        let mut text = serde_json::Deserializer::from_slice(bytes);
        let tree = Tree { depth: 0, large: &large }.deserialize(&mut text).map_err(|e| malformed(what, e))?;
        text.end().map_err(|e| malformed(what, e))?;
        if !tree.is_object() {
            return Err(malformed(what, "it is no JSON object"));
        }
        Ok(Self { tree, large: large.get() })
    }

    fn typed<T: DeserializeOwned + Serialize>(&self, what: &str) -> Result<T, Refusal> {
        if self.large {
            return Err(Refusal::new(Code::Limit, format!("{what} has a number beyond 2^53 - 1")));
        }
        let typed = T::deserialize(&self.tree).map_err(|e| malformed(what, e))?;
        let said = serde_json::to_value(&typed).map_err(|e| malformed(what, e))?;
        if says(&self.tree, &said) { Ok(typed) } else { Err(malformed(what, "a value is not in its one form")) }
    }
}

/// Whether all that was read is what the typed document says; it may say more where a field has a default.
fn says(read: &Value, said: &Value) -> bool {
    match (read, said) {
        (Value::Object(read), Value::Object(said)) => {
            read.iter().all(|(key, value)| said.get(key).is_some_and(|other| says(value, other)))
        }
        (Value::Array(read), Value::Array(said)) => {
            let pairwise = || read.iter().zip(said).all(|(read, said)| says(read, said));
            read.len() == said.len() && (pairwise() || same_words(read, said))
        }
        (Value::Number(read), Value::Number(said)) => read == said || read.as_f64() == said.as_f64(),
        (read, said) => read == said,
    }
}

/// Whether both hold the same words, each once: a set may be written in any order.
fn same_words(read: &[Value], said: &[Value]) -> bool {
    let words = |items: &[Value]| items.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<BTreeSet<_>>>();
    words(read).is_some_and(|set| set.len() == read.len() && Some(set) == words(said))
}

/// Reads any JSON within the limits.
#[derive(Clone, Copy)]
struct Tree<'a> {
    depth: usize,
    large: &'a Cell<bool>,
}

impl Tree<'_> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format!("it is nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        self.large.set(self.large.get() || value > U53::MAX);
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        self.large.set(self.large.get() || value.unsigned_abs() > U53::MAX);
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        self.large.set(self.large.get() || value.abs() > U53::MAX as f64);
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(inner)?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("duplicate key `{key}`")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
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

/// 9999-12-30T22:00:00Z, the last second that every offset from UTC can write.
const END: i64 = 253_402_207_200;

/// A moment in whole seconds; in JSON RFC 3339 with `Z`, in that one form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(jiff::Timestamp);

impl Time {
    /// From seconds since 1970; `None` outside the years that RFC 3339 can write.
    pub fn from_unix(seconds: i64) -> Option<Self> {
        (0..=END).contains(&seconds).then(|| jiff::Timestamp::from_second(seconds).ok().map(Self))?
    }

    /// The moment that a document can write which is nearest to these seconds since 1970.
    pub fn clamped(seconds: i64) -> Self {
        Self(jiff::Timestamp::from_second(seconds.clamp(0, END)).unwrap_or(jiff::Timestamp::MAX))
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
