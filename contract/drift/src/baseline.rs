//! The baseline of a bundle (`drift.json`): every feature of the training rows, in column order.
//!
//! Decides what a baseline may hold. What one feature looks like is decided in `feature`.

use crate::feature::Feature;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The version of the form.
pub const BASELINE_VERSION: u32 = 1;
/// The most features of a baseline.
pub const MAX_FEATURES: usize = 4096;
/// The longest name of a feature, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// What the training rows looked like, feature by feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Version of the form: [`BASELINE_VERSION`].
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
                write!(f, "the baseline has version {found}, this build knows {BASELINE_VERSION}")
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
    /// Measures columns of values; NaN stands for a missing one.
    ///
    /// # Errors
    /// `FeatureCount` and `Name`.
    pub fn measure<'a>(columns: impl IntoIterator<Item = (&'a str, &'a [f32])>) -> Result<Self, BaselineError> {
        let mut features = Vec::new();
        for (name, values) in columns {
            if features.len() == MAX_FEATURES {
                return Err(BaselineError::FeatureCount { found: MAX_FEATURES + 1 });
            }
            features.push(Feature::measure(name, values));
        }
        let baseline = Self { version: BASELINE_VERSION, features };
        baseline.validate()?;
        Ok(baseline)
    }

    /// Checks a baseline that came from a file.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self) -> Result<(), BaselineError> {
        if self.version != BASELINE_VERSION {
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
        }
        Ok(())
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
    fn contradictions_are_found() {
        type Spoil = fn(&mut Baseline);
        let spoils: [(&str, Spoil); 8] = [
            ("version", |b| b.version = 2),
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
