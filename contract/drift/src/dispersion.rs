//! How much more a feature varies from window to window than chance lets independent rows vary.
//!
//! Decides how it is learned: from the first hundred windows of a device, along each direction of `basis`, and for
//! the share of values that cannot be used. Rows of a sensor resemble the row before, so a window of a thousand says
//! as much as fifty that do not; without this nearly every window of such a sensor would alarm.

use crate::basis::{grouped, groups, polynomials};
use crate::feature::Feature;
use crate::tally::Tally;
use serde::{Deserialize, Serialize};

/// Windows that are learned from.
pub const LEARNED_WINDOWS: u32 = 100;
/// Windows without which nothing is known.
pub const LEAST_WINDOWS: u32 = 20;
/// A dispersion above which no window of this length is worth a page.
pub const MOST_DISPERSION: f64 = 30.0;
/// Finite values of a window that is learned from.
const LEAST_VALUES: u64 = 50;

/// What was learned of one feature.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispersion {
    /// Along each direction: the window's mean times the root of its rows.
    components: Vec<Varied>,
    /// Values that cannot be used: their share, times the root of the rows.
    unusable: Varied,
    /// Their share.
    share: Varied,
}

/// Mean and sum of squares about it, one value at a time (Welford).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Varied {
    count: u32,
    mean: f64,
    squares: f64,
}

impl Varied {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let apart = value - self.mean;
        self.mean += apart / f64::from(self.count);
        self.squares += apart * (value - self.mean);
    }

    fn variance(&self) -> f64 {
        self.squares / f64::from(self.count.max(2) - 1)
    }

    fn is_sound(&self) -> bool {
        self.mean.is_finite() && self.squares.is_finite() && self.squares >= 0.0 && self.count <= LEARNED_WINDOWS
    }
}

impl Dispersion {
    /// Learns from one window, until there were [`LEARNED_WINDOWS`].
    pub fn learn(&mut self, feature: &Feature, tally: &Tally) {
        let (finite, all) = (tally.finite(), tally.count());
        if self.share.count < LEARNED_WINDOWS && all >= LEAST_VALUES {
            let share = tally.unusable() as f64 / all as f64;
            self.share.add(share);
            self.unusable.add(share * (all as f64).sqrt());
        }
        let full = self.components.first().is_some_and(|varied| varied.count >= LEARNED_WINDOWS);
        if finite < LEAST_VALUES || feature.finite() == 0 || full {
            return;
        }
        let groups = groups(&feature.counts, finite);
        let (baseline, window) = (grouped(&feature.counts, &groups), grouped(&tally.counts, &groups));
        let directions = polynomials(&baseline, baseline.len());
        if self.components.len() < directions.len() {
            self.components.resize(directions.len(), Varied::default());
        }
        for (varied, values) in self.components.iter_mut().zip(&directions) {
            let sum: f64 = values.iter().zip(&window).map(|(value, count)| value * *count as f64).sum();
            varied.add(sum / (finite as f64).sqrt());
        }
    }

    /// Windows that were learned from.
    pub fn windows(&self) -> u32 {
        // A feature of one value has no direction: only its unusable values vary.
        self.components.first().unwrap_or(&self.share).count
    }

    /// Whether enough was learned to judge by.
    pub fn is_known(&self) -> bool {
        self.windows() >= LEAST_WINDOWS
    }

    /// How much more than independent rows this feature varies along a direction: 1 for independent rows, never
    /// less. A direction that was seen too seldom is as the last one that was not.
    pub fn along(&self, direction: usize) -> f64 {
        let known = self.components.iter().take(direction + 1).rev().find(|varied| varied.count >= LEAST_WINDOWS);
        known.map_or(1.0, |varied| varied.variance().max(1.0))
    }

    /// The same for the share of values that cannot be used.
    pub fn of_unusable(&self) -> f64 {
        let share = self.share.mean;
        let by_chance = share * (1.0 - share);
        if self.share.count < LEAST_WINDOWS || by_chance <= 0.0 {
            return 1.0;
        }
        (self.unusable.variance() / by_chance).max(1.0)
    }

    /// Whether what was remembered can have been learned.
    pub(crate) fn is_sound(&self) -> bool {
        self.components.len() <= crate::feature::MAX_CATEGORIES
            && self.components.iter().chain([&self.unusable, &self.share]).all(Varied::is_sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Baseline;
    use crate::window::Window;

    /// Windows of 200 rows of a sensor that keeps `memory` of its last value.
    fn learned(memory: f64) -> Dispersion {
        let mut chance = fastrand::Rng::with_seed(7);
        let mut normal = move || (0..12).map(|_| chance.f64()).sum::<f64>() - 6.0;
        let values: Vec<f32> = (0..20_000).map(|_| normal() as f32).collect();
        let baseline = Baseline::measure([("x", &values[..])]).unwrap();
        let (mut dispersion, mut window, mut x) = (Dispersion::default(), Window::new(&baseline), 0.0);
        for _ in 0..150 {
            for _ in 0..200 {
                x = memory * x + (1.0 - memory * memory).sqrt() * normal();
                window.update(&[x as f32]).unwrap();
            }
            dispersion.learn(&baseline.features[0], &window.close().features[0]);
        }
        dispersion
    }

    #[test]
    fn independent_rows_vary_as_chance_has_it() {
        let dispersion = learned(0.0);
        assert_eq!(dispersion.windows(), LEARNED_WINDOWS);
        assert!((0..19).all(|direction| dispersion.along(direction) < 1.6), "{dispersion:?}");
        assert_eq!(dispersion.of_unusable(), 1.0);
    }

    #[test]
    fn rows_that_resemble_the_last_vary_more() {
        // The mean of an AR(1) process varies (1 + .9) / (1 - .9) = 19 times as much.
        let dispersion = learned(0.9);
        assert!((10.0..30.0).contains(&dispersion.along(0)), "{}", dispersion.along(0));
        assert!(dispersion.along(3) < dispersion.along(0));
    }
}
