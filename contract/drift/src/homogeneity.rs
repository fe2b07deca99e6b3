//! Whether two rows of counts come from one distribution: chi-squared, and Neyman's smooth test.
//!
//! Decides the statistics and their tails. Chi-squared looks in every direction; the smooth test in the four in which
//! sensors and populations move, and sees them much sooner.

use crate::basis::{components, grouped, groups, polynomials};
use crate::special::chi2_sf;
use serde::Serialize;

/// Degrees of the smooth test.
pub(crate) const SMOOTH: usize = 4;

/// A statistic, its degrees of freedom, and the chance of one as large.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Test {
    /// The statistic.
    pub statistic: f64,
    /// Degrees of freedom.
    pub df: u32,
    /// The chance of a statistic as large when nothing differs.
    pub p: f64,
}

impl Test {
    pub(crate) fn chi2(statistic: f64, df: u32) -> Self {
        Self { statistic, df, p: chi2_sf(statistic, df.into()) }
    }
}

/// Chi-squared of the table of two rows, without a correction; slots that neither uses are dropped. `None` when a side
/// is empty or one slot is left.
pub fn chi_squared(baseline: &[u64], window: &[u64]) -> Option<Test> {
    let total = |counts: &[u64]| counts.iter().map(|count| *count as f64).sum::<f64>();
    let (n, m) = (total(baseline), total(window));
    let used: Vec<(f64, f64)> =
        baseline.iter().zip(window).map(|(a, b)| (*a as f64, *b as f64)).filter(|(a, b)| a + b > 0.0).collect();
    if n == 0.0 || m == 0.0 || used.len() < 2 {
        return None;
    }
    let slot = |(a, b): &(f64, f64)| {
        let (expected_a, expected_b) = ((a + b) * n / (n + m), (a + b) * m / (n + m));
        (a - expected_a).powi(2) / expected_a + (b - expected_b).powi(2) / expected_b
    };
    Some(Test::chi2(used.iter().map(slot).sum(), used.len() as u32 - 1))
}

/// Chi-squared over groups of bins in which the window expects five rows or more.
pub fn merged_chi_squared(baseline: &[u64], window: &[u64]) -> Option<Test> {
    let groups = groups(baseline, window.iter().sum());
    chi_squared(&grouped(baseline, &groups), &grouped(window, &groups))
}

/// Neyman's smooth test with polynomials of degree 1 to 4 of the rank. `None` when a side is empty or the baseline
/// uses one slot only.
pub fn smooth(baseline: &[u64], window: &[u64]) -> Option<Test> {
    if window.iter().sum::<u64>() == 0 {
        return None;
    }
    let z = components(&polynomials(baseline, SMOOTH), baseline, window);
    (!z.is_empty()).then(|| Test::chi2(z.iter().map(|z| z * z).sum(), z.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chi_squared_by_hand() {
        // Expected 15 and 15 on both sides: 4 * 25 / 15.
        let test = chi_squared(&[10, 0, 20], &[20, 0, 10]).unwrap();
        assert!((test.statistic - 20.0 / 3.0).abs() < 1e-12 && test.df == 1);
        assert!((test.p - 0.009_823_274_507_519_235).abs() < 1e-12, "{}", test.p);
    }

    #[test]
    fn what_cannot_be_tested_is_not() {
        for (p, q) in [([0, 0], [1, 1]), ([1, 1], [0, 0]), ([5, 0], [3, 0])] {
            assert_eq!((chi_squared(&p, &q), smooth(&p, &q)), (None, None), "{p:?} {q:?}");
        }
        // Two rows are too few for two groups of five.
        assert_eq!(merged_chi_squared(&[50, 50], &[1, 1]), None);
    }
}
