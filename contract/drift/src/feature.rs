//! One feature of the baseline: its bins, and what bins cannot see.
//!
//! Conventions, so that anybody can check them with numpy: edge i of B is the value at the 1-based
//! rank ceil(i * n / B) of the sorted finite values (`inverted_cdf`), duplicates removed; a value
//! falls into the bin whose number is the count of edges strictly below it (bins are closed on the
//! right); -0.0 is 0.0; the standard deviation is that of the population (ddof 0). Of categories the
//! most frequent have a slot each, the others one together; equals are taken in the order of their bytes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bins that a feature's values are cut into, before duplicate edges are removed.
pub const VALUE_BINS: usize = 20;
/// Categories that have a slot of their own.
pub const MAX_CATEGORIES: usize = 32;
/// The longest category with a slot of its own, in bytes.
const MAX_CATEGORY_BYTES: usize = 128;

/// The most rows of a baseline: sums of two sides never overflow.
const MAX_COUNT: u64 = 1 << 48;

/// One column of training rows.
#[derive(Debug, Clone, Copy)]
pub enum Column<'a> {
    /// Numbers; NaN is a missing one.
    Numbers(&'a [f32]),
    /// Categories; `None` is a missing one.
    Categories(&'a [Option<&'a str>]),
}

/// What one column of the training rows looked like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// The column's name.
    pub name: String,
    /// Values seen, of every kind.
    pub count: u64,
    /// NaN among them.
    pub missing: u64,
    /// +inf among them.
    pub plus_inf: u64,
    /// -inf among them.
    pub minus_inf: u64,
    /// The finite values in short; `None` when there are none.
    pub spread: Option<Spread>,
    /// Strictly rising, at most [`VALUE_BINS`] - 1.
    pub edges: Vec<f32>,
    /// Finite values in each bin: one bin more than there are edges. Of categories: each one's, then all others'.
    pub counts: Vec<u64>,
    /// The most frequent categories, the first the most frequent; empty when the feature is numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

/// Finite values in short.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The least.
    pub min: f32,
    /// The greatest.
    pub max: f32,
    /// The arithmetic mean.
    pub mean: f64,
    /// The standard deviation of the population.
    pub std: f64,
}

impl Feature {
    pub(crate) fn measure(name: &str, column: Column<'_>) -> Self {
        match column {
            Column::Numbers(values) => Self::numbers(name, values),
            Column::Categories(values) => Self::categories(name, values),
        }
    }

    fn numbers(name: &str, values: &[f32]) -> Self {
        let how_many = |kind: fn(f32) -> bool| values.iter().filter(|x| kind(**x)).count() as u64;
        // Adding 0.0 turns -0.0 into 0.0 and changes nothing else.
        let mut sorted: Vec<f32> = values.iter().filter(|x| x.is_finite()).map(|x| x + 0.0).collect();
        sorted.sort_by(f32::total_cmp);
        let edges = edges(&sorted);
        let mut counts = vec![0; edges.len() + 1];
        for value in &sorted {
            counts[bin(&edges, *value)] += 1;
        }
        Self {
            name: name.to_owned(),
            count: values.len() as u64,
            missing: how_many(f32::is_nan),
            plus_inf: how_many(|x| x == f32::INFINITY),
            minus_inf: how_many(|x| x == f32::NEG_INFINITY),
            spread: spread(&sorted),
            edges,
            counts,
            categories: Vec::new(),
        }
    }

    fn categories(name: &str, values: &[Option<&str>]) -> Self {
        let mut tallied: BTreeMap<&str, u64> = BTreeMap::new();
        for value in values.iter().flatten() {
            *tallied.entry(value).or_default() += 1;
        }
        let mut named: Vec<(&str, u64)> = tallied.into_iter().filter(|(v, _)| v.len() <= MAX_CATEGORY_BYTES).collect();
        // The sort is stable: equals stay in the order of their bytes.
        named.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        named.truncate(MAX_CATEGORIES);
        let seen = values.iter().flatten().count() as u64;
        let mut counts: Vec<u64> = named.iter().map(|(_, count)| *count).collect();
        counts.push(seen - counts.iter().sum::<u64>());
        Self {
            name: name.to_owned(),
            count: values.len() as u64,
            missing: values.len() as u64 - seen,
            plus_inf: 0,
            minus_inf: 0,
            spread: None,
            edges: Vec::new(),
            counts,
            categories: named.into_iter().map(|(value, _)| value.to_owned()).collect(),
        }
    }

    /// Whether its values are categories.
    pub fn is_categorical(&self) -> bool {
        !self.categories.is_empty()
    }

    /// What stands for a category in a row: its slot's number, NaN for a missing one.
    pub fn code(&self, category: Option<&str>) -> f32 {
        let slot = |value: &str| self.categories.iter().position(|known| known == value);
        category.map_or(f32::NAN, |value| slot(value).unwrap_or(self.categories.len()) as f32)
    }

    /// Values that are no numbers: missing, or infinite.
    pub fn not_finite(&self) -> u64 {
        self.count.saturating_sub(self.finite())
    }

    /// The number of finite values.
    pub fn finite(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        let slots = if self.is_categorical() { self.categories.len() } else { self.edges.len() };
        if self.edges.len() >= VALUE_BINS || self.counts.len() != slots + 1 {
            return Err("there is one bin more than edges, and at most 20");
        }
        if !self.edges.iter().all(|x| x.is_finite()) || !self.edges.is_sorted_by(|a, b| a < b) {
            return Err("its edges must be finite and rise strictly");
        }
        let parts = [self.finite(), self.missing, self.plus_inf, self.minus_inf];
        if parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part)) != self.count {
            return Err("its counts do not add up");
        }
        if self.count > MAX_COUNT {
            return Err("nobody has so many rows");
        }
        if self.is_categorical() {
            return self.validate_categories();
        }
        let Some(spread) = self.spread else {
            return if self.finite() == 0 { Ok(()) } else { Err("its values have no minimum and maximum") };
        };
        let (min, max) = (f64::from(spread.min), f64::from(spread.max));
        let sound = min.is_finite() && max.is_finite() && spread.std.is_finite() && spread.std >= 0.0;
        // A mean of equal values may be off by its last bit.
        let slack = 1e-9 * min.abs().max(max.abs());
        if self.finite() == 0 || !sound || !(min - slack..=max + slack).contains(&spread.mean) {
            return Err("its minimum, mean, maximum and deviation contradict each other");
        }
        match (self.edges.first(), self.edges.last()) {
            (Some(first), Some(last)) if *first < spread.min || *last > spread.max => {
                Err("its edges lie outside of its values")
            }
            _ => Ok(()),
        }
    }

    fn validate_categories(&self) -> Result<(), &'static str> {
        let known: BTreeMap<&str, ()> = self.categories.iter().map(|value| (value.as_str(), ())).collect();
        if self.categories.len() > MAX_CATEGORIES || known.len() < self.categories.len() {
            return Err("its categories are at most 32, each there once");
        }
        if self.categories.iter().any(|value| value.len() > MAX_CATEGORY_BYTES) {
            return Err("a category is too long");
        }
        let numeric = self.plus_inf + self.minus_inf > 0 || self.spread.is_some() || !self.edges.is_empty();
        if numeric { Err("it has both categories and numbers") } else { Ok(()) }
    }
}

fn edges(sorted: &[f32]) -> Vec<f32> {
    let rank = |i: usize| (i * sorted.len()).div_ceil(VALUE_BINS);
    let mut edges: Vec<f32> = (1..VALUE_BINS).filter_map(|i| sorted.get(rank(i).checked_sub(1)?).copied()).collect();
    edges.dedup();
    edges
}

fn bin(edges: &[f32], value: f32) -> usize {
    edges.partition_point(|edge| *edge < value)
}

fn spread(sorted: &[f32]) -> Option<Spread> {
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let n = sorted.len() as f64;
    let mean = sorted.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = sorted.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
    Some(Spread { min, max, mean, std: variance.sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &[f32]) -> Feature {
        Feature::measure("x", Column::Numbers(values))
    }

    #[test]
    fn the_most_frequent_categories_have_slots() {
        let feature =
            Feature::measure("x", Column::Categories(&[Some("b"), None, Some("a"), Some("c"), Some("c"), None]));
        assert_eq!(feature.categories, ["c", "a", "b"]);
        assert_eq!((feature.counts.as_slice(), feature.missing, feature.count), (&[2, 1, 1, 0][..], 2, 6));
        assert_eq!(["c", "b", "z"].map(|value| feature.code(Some(value))), [0.0, 2.0, 3.0]);
        assert!(feature.code(None).is_nan());
        assert_eq!(feature.validate(), Ok(()));

        let names: Vec<String> = (0..40).map(|i| format!("{i:02}")).collect();
        let values: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        let feature = Feature::measure("x", Column::Categories(&values));
        assert_eq!((feature.categories.len(), feature.counts[32]), (32, 8));
        assert_eq!(feature.code(Some("35")), 32.0);
    }

    #[test]
    fn forty_values_make_twenty_bins_of_two() {
        // Ranks ceil(i * 40 / 20) = 2i: the edges are 2, 4, … 38, and each bin holds two values.
        let values: Vec<f32> = (1..=40).rev().map(|x| x as f32).collect();
        let feature = numbers(&values);
        let expected: Vec<f32> = (1..20).map(|i| 2.0 * i as f32).collect();
        assert_eq!(feature.edges, expected);
        assert_eq!(feature.counts, [2; 20]);
        // Mean 20.5; population variance (40^2 - 1) / 12 = 133.25.
        let spread = feature.spread.unwrap();
        assert_eq!((spread.min, spread.max, spread.mean), (1.0, 40.0, 20.5));
        assert!((spread.std - 133.25_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn few_values_share_edges() {
        // n = 3: ranks ceil(i * 3 / 20) are 1 up to i = 6, 2 up to 13, 3 up to 19.
        let feature = numbers(&[3.0, 1.0, 2.0]);
        assert_eq!(feature.edges, [1.0, 2.0, 3.0]);
        assert_eq!(feature.counts, [1, 1, 1, 0]);
    }

    #[test]
    fn bins_are_closed_on_the_right() {
        let edges = [1.0, 2.0];
        let cases = [(0.5, 0), (1.0, 0), (1.5, 1), (2.0, 1), (2.5, 2)];
        assert!(cases.iter().all(|(value, expected)| bin(&edges, *value) == *expected));
    }

    #[test]
    fn both_zeros_are_one() {
        let feature = numbers(&[-0.0, 0.0, 0.0, -0.0]);
        assert_eq!(feature.edges, [0.0]);
        assert_eq!(feature.counts, [4, 0]);
        assert!(feature.spread.unwrap().min.is_sign_positive());
    }

    #[test]
    fn what_bins_cannot_see_is_counted_apart() {
        let inf = f32::INFINITY;
        let feature = numbers(&[f32::NAN, inf, -inf, inf, 7.0, f32::NAN]);
        assert_eq!((feature.count, feature.missing, feature.plus_inf, feature.minus_inf), (6, 2, 2, 1));
        assert_eq!((feature.edges.as_slice(), feature.counts.as_slice()), (&[7.0][..], &[1, 0][..]));
        assert_eq!(feature.spread, Some(Spread { min: 7.0, max: 7.0, mean: 7.0, std: 0.0 }));
        assert_eq!(feature.validate(), Ok(()));
    }

    #[test]
    fn a_column_without_values_has_one_empty_bin() {
        for values in [&[][..], &[f32::NAN][..]] {
            let feature = numbers(values);
            assert_eq!((feature.edges.len(), feature.counts.as_slice(), feature.spread), (0, &[0][..], None));
            assert_eq!(feature.validate(), Ok(()));
        }
    }

    #[test]
    fn the_greatest_numbers_do_not_overflow() {
        let feature = numbers(&[f32::MAX, f32::MAX, f32::MIN]);
        assert_eq!(feature.validate(), Ok(()));
    }
}
