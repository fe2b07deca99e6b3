//! Gradual drift: evidence that grows row by row, from a change that nobody knows the time of.
//!
//! Decides the Shiryaev-Roberts e-detector: for each of six alternatives (the mean has moved by .3, .6 or 1.2 standard
//! deviations, up or down) a sum over all times at which it may have begun. Without a change the mean of the six
//! grows by one a row, so rows between false alarms are on average as many as the threshold says, or more. A
//! value's gain depends on its bin only: an update is six multiplications.

use crate::basis::polynomials;
use crate::feature::Feature;
use crate::special::normal_quantile;

/// Shifts that are looked for, in standard deviations.
const TILTS: [f64; 3] = [0.3, 0.6, 1.2];
/// Each of them upwards and downwards.
pub(crate) const SIDES: usize = 6;
/// Rows between false alarms.
pub const THRESHOLD: f64 = 1e5;
/// Standard errors of the baseline's own mean that are no drift.
const BASELINE_ERRORS: f64 = 2.0;

/// Watches one feature.
#[derive(Debug, Clone)]
pub struct Detector {
    /// What a value in each slot multiplies the evidence with.
    gains: Vec<[f64; SIDES]>,
    evidence: [f64; SIDES],
    threshold: f64,
}

impl Detector {
    /// Watches a feature whose rows vary `dispersion` times as much as independent ones, until the evidence is `threshold`.
    /// `None` when the baseline shows no order in which anything could move: categories, or one value.
    pub fn new(feature: &Feature, dispersion: f64, threshold: f64) -> Option<Self> {
        let (counts, all) = (&feature.counts, feature.finite() as f64);
        // No direction: fewer than two bins are in use.
        if feature.is_categorical() || polynomials(counts, 1).is_empty() {
            return None;
        }
        let scores = scores(counts, all);
        let guard = BASELINE_ERRORS * (dispersion / all).sqrt();
        let mut gains = vec![[0.0; SIDES]; counts.len()];
        for (side, tilt) in TILTS.iter().flat_map(|tilt| [*tilt, -*tilt]).enumerate() {
            let mean = counts.iter().zip(&scores).map(|(c, score)| *c as f64 / all * (tilt * score).exp()).sum::<f64>();
            for (gain, score) in gains.iter_mut().zip(&scores) {
                gain[side] = ((tilt * score - mean.ln() - tilt.abs() * guard) / dispersion).exp();
            }
        }
        Some(Self { gains, evidence: [0.0; SIDES], threshold })
    }

    /// One value, by its slot in the window. True when the evidence reached the threshold; it begins anew then.
    pub fn update(&mut self, slot: usize) -> bool {
        let Some(gains) = self.gains.get(slot) else { return false };
        let mut sum = 0.0;
        for (evidence, gain) in self.evidence.iter_mut().zip(gains) {
            *evidence = (*evidence + 1.0) * gain;
            sum += *evidence;
        }
        let reached = sum >= self.threshold * SIDES as f64;
        if reached {
            self.evidence = [0.0; SIDES];
        }
        reached
    }

    pub(crate) fn evidence(&self) -> [f64; SIDES] {
        self.evidence
    }

    /// Goes on where another stopped.
    pub(crate) fn resume(&mut self, evidence: [f64; SIDES]) {
        self.evidence = evidence;
    }
}

/// What a bin says of the mean: the normal value of its middle rank, with mean 0 and deviation 1 over the baseline.
fn scores(counts: &[u64], all: f64) -> Vec<f64> {
    let mut before = 0.0;
    let middle = |count: &u64| {
        let rank = (before + *count as f64 / 2.0) / all;
        before += *count as f64;
        // Bins that the baseline left empty lie at its ends.
        normal_quantile(rank.clamp(0.5 / all, 1.0 - 0.5 / all))
    };
    let raw: Vec<f64> = counts.iter().map(middle).collect();
    let average = |of: &dyn Fn(f64) -> f64| raw.iter().zip(counts).map(|(x, c)| of(*x) * *c as f64 / all).sum::<f64>();
    let mean = average(&|x| x);
    let deviation = average(&|x| (x - mean).powi(2)).sqrt();
    raw.iter().map(|x| (x - mean) / deviation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature::Column;

    fn even(n: usize) -> Feature {
        let values: Vec<f32> = (0..n).map(|x| x as f32).collect();
        Feature::measure("x", Column::Numbers(&values))
    }

    #[test]
    fn without_a_change_the_evidence_does_not_grow_by_more_than_one() {
        let feature = even(5_000);
        let detector = Detector::new(&feature, 1.0, THRESHOLD).unwrap();
        for side in 0..SIDES {
            let gain: f64 = detector.gains.iter().zip(&feature.counts).map(|(g, c)| g[side] * *c as f64).sum();
            assert!((0.9..=1.0 + 1e-12).contains(&(gain / 5_000.0)), "{side}: {gain}");
        }
    }

    #[test]
    fn values_on_one_side_are_noticed_and_then_it_begins_anew() {
        let mut detector = Detector::new(&even(5_000), 1.0, THRESHOLD).unwrap();
        let rows = (1..).find(|_| detector.update(19)).unwrap();
        // The top bin gains exp(1.2 * 2 - .72) = 5.3 or so a row: ln(6e5) / ln(5.3).
        assert!((6..=10).contains(&rows), "{rows}");
        assert_eq!(detector.evidence(), [0.0; SIDES]);
        assert!(!detector.update(usize::MAX));
    }

    #[test]
    fn what_has_no_order_is_not_watched() {
        let categories = Feature::measure("x", Column::Categories(&[Some("a"), Some("b")]));
        let constant = Feature::measure("x", Column::Numbers(&[5.0; 100]));
        let nothing = Feature::measure("x", Column::Numbers(&[f32::NAN; 100]));
        for feature in [categories, constant, nothing] {
            assert!(Detector::new(&feature, 1.0, THRESHOLD).is_none());
        }
    }
}
