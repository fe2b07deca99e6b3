//! The baseline of a bundle (`drift.json`): every feature of the training rows, in column order.
//!
//! Decides what a baseline may hold. What one feature looks like is decided in `feature`.

use crate::feature::{Column, Feature};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The newest version of the form: it has categories. A baseline without them is written as version 1, which
/// agents that know no categories read.
pub const BASELINE_VERSION: u32 = 2;
/// The version without categories.
const NUMBERS_ONLY: u32 = 1;
/// The most features of a baseline.
pub const MAX_FEATURES: usize = 4096;
/// The longest name of a feature, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// What the training rows looked like, feature by feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Version of the form: 1 without categories, [`BASELINE_VERSION`] with them.
    pub version: u32,
    /// The features, in the order of the columns.
    pub features: Vec<Feature>,
}

/// Why something is no baseline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaselineError {
    /// A version that this build does not know.
    Version {
        /// What it says.
        found: u32,
    },
    /// No feature, or more than [`MAX_FEATURES`].
    FeatureCount {
        /// How many there are; one more than the limit when counting stopped there.
        found: usize,
    },
    /// A name that is empty, too long, or there twice.
    Name {
        /// The name, cut short.
        name: String,
    },
    /// A feature whose numbers contradict each other.
    Feature {
        /// The feature.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl fmt::Display for BaselineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BaselineError::Version { found } => {
                write!(f, "the baseline has version {found}, this build knows up to {BASELINE_VERSION}")
            }
            BaselineError::FeatureCount { found } => {
                write!(f, "a baseline has 1 to {MAX_FEATURES} features, not {found}")
            }
            BaselineError::Name { name } => {
                write!(f, "{name:?} is no name of a feature: each is there once and has 1 to {MAX_NAME_BYTES} bytes")
            }
            BaselineError::Feature { name, reason } => write!(f, "feature {name:?}: {reason}"),
        }
    }
}

impl std::error::Error for BaselineError {}

impl Baseline {
    /// Measures columns of numbers; NaN stands for a missing one.
    ///
    /// # Errors
    /// `FeatureCount` and `Name`.
    pub fn measure<'a>(columns: impl IntoIterator<Item = (&'a str, &'a [f32])>) -> Result<Self, BaselineError> {
        Self::measure_columns(columns.into_iter().map(|(name, values)| (name, Column::Numbers(values))))
    }

    /// Measures columns of numbers and of categories.
    ///
    /// # Errors
    /// `FeatureCount` and `Name`.
    pub fn measure_columns<'a>(
        columns: impl IntoIterator<Item = (&'a str, Column<'a>)>,
    ) -> Result<Self, BaselineError> {
        let mut features = Vec::new();
        for (name, values) in columns {
            if features.len() == MAX_FEATURES {
                return Err(BaselineError::FeatureCount { found: MAX_FEATURES + 1 });
            }
            features.push(Feature::measure(name, values));
        }
        let version = if features.iter().any(Feature::is_categorical) { BASELINE_VERSION } else { NUMBERS_ONLY };
        let baseline = Self { version, features };
        baseline.validate()?;
        Ok(baseline)
    }

    /// Checks a baseline that came from a file.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self) -> Result<(), BaselineError> {
        if !(NUMBERS_ONLY..=BASELINE_VERSION).contains(&self.version) {
            return Err(BaselineError::Version { found: self.version });
        }
        if self.features.is_empty() || self.features.len() > MAX_FEATURES {
            return Err(BaselineError::FeatureCount { found: self.features.len() });
        }
        let mut names = BTreeSet::new();
        for feature in &self.features {
            let name = feature.name.as_str();
            if name.is_empty() || name.len() > MAX_NAME_BYTES || !names.insert(name) {
                return Err(BaselineError::Name { name: name.chars().take(80).collect() });
            }
            let fault = |reason| BaselineError::Feature { name: name.to_owned(), reason };
            feature.validate().map_err(fault)?;
            if self.version == NUMBERS_ONLY && feature.is_categorical() {
                return Err(fault("version 1 has no categories"));
            }
        }
        Ok(())
    }

    /// A number that summaries carry, so that counts in other bins are not taken for counts in these. It guards
    /// against mistakes; against malice a summary is signed.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        for feature in &self.features {
            hash.text(&feature.name);
            for number in [feature.count, feature.missing, feature.plus_inf, feature.minus_inf] {
                hash.number(number);
            }
            if let Some(spread) = feature.spread {
                hash.number(spread.min.to_bits().into());
                hash.number(spread.max.to_bits().into());
                // As moments are counted with them.
                hash.number((spread.mean as f32).to_bits().into());
                hash.number((spread.std as f32).to_bits().into());
            }
            hash.number(feature.edges.len() as u64);
            feature.edges.iter().for_each(|edge| hash.number(edge.to_bits().into()));
            feature.counts.iter().for_each(|count| hash.number(*count));
            hash.number(feature.categories.len() as u64);
            feature.categories.iter().for_each(|value| hash.text(value));
        }
        hash.0
    }
}

/// FNV-1a of 64 bits.
struct Fnv(u64);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Baseline {
        let (rising, fixed) = ([1.0, 2.0, 3.0], [5.0; 3]);
        Baseline::measure([("a", &rising[..]), ("b", &fixed[..])]).unwrap()
    }

    #[test]
    fn columns_keep_their_order_and_names() {
        let names: Vec<String> = measured().features.into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn names_are_there_once_and_not_too_long() {
        let values = [1.0];
        for names in [["a", "a"], ["a", ""], ["a", &"x".repeat(257)]] {
            let columns = names.map(|name| (name, &values[..]));
            assert!(matches!(Baseline::measure(columns), Err(BaselineError::Name { .. })), "{names:?}");
        }
    }

    #[test]
    fn there_are_one_to_4096_features() {
        assert_eq!(Baseline::measure([]), Err(BaselineError::FeatureCount { found: 0 }));
        let names: Vec<String> = (0..=MAX_FEATURES).map(|i| format!("f{i}")).collect();
        let columns = names.iter().map(|name| (name.as_str(), &[0.0][..]));
        assert_eq!(Baseline::measure(columns.clone()), Err(BaselineError::FeatureCount { found: 4097 }));
        assert!(Baseline::measure(columns.take(MAX_FEATURES)).is_ok());
    }

    #[test]
    fn a_baseline_without_categories_is_what_older_agents_read() {
        assert_eq!(measured().version, 1);
        let mut mixed =
            Baseline::measure_columns([("a", Column::Numbers(&[1.0])), ("b", Column::Categories(&[Some("x"), None]))])
                .unwrap();
        assert_eq!((mixed.version, mixed.validate()), (2, Ok(())));
        mixed.version = 1;
        assert!(matches!(mixed.validate(), Err(BaselineError::Feature { .. })));
    }

    #[test]
    fn other_bins_have_another_fingerprint() {
        let one = measured();
        let mut other = one.clone();
        assert_eq!(one.fingerprint(), other.fingerprint());
        other.features[0].edges[0] = 0.5;
        assert_ne!(one.fingerprint(), other.fingerprint());
    }

    #[test]
    fn contradictions_are_found() {
        type Spoil = fn(&mut Baseline);
        let spoils: [(&str, Spoil); 8] = [
            ("version", |b| b.version = 3),
            ("bins", |b| b.features[0].counts.push(0)),
            ("order of edges", |b| b.features[0].edges.reverse()),
            ("edge twice", |b| b.features[0].edges[1] = b.features[0].edges[0]),
            ("edge not finite", |b| b.features[0].edges[0] = f32::NEG_INFINITY),
            ("sum of counts", |b| b.features[0].count += 1),
            ("spread", |b| b.features[0].spread = None),
            ("mean outside", |b| b.features[0].spread.as_mut().unwrap().mean = 9.0),
        ];
        assert_eq!(measured().validate(), Ok(()));
        for (what, spoil) in spoils {
            let mut baseline = measured();
            spoil(&mut baseline);
            assert!(baseline.validate().is_err(), "{what}");
        }
    }
}
