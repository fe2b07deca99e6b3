//! What a summary keeps of one feature, and how two become one.
//!
//! Decides that everything kept merges exactly, in any order and any grouping: counts and sums are whole numbers,
//! the rest is a least, a greatest or how often it was there. Moments are whole numbers of 1/256 of the baseline's
//! standard deviation away from its mean. Does not know where values come from or what they mean.

use crate::feature::Feature;

/// Steps of the moments in one standard deviation of the baseline.
const STEPS: f64 = 256.0;
/// The most steps that one value is away: 262,144 standard deviations. What is farther counts as so far.
pub(crate) const MOST_STEPS: i64 = 1 << 26;

/// One feature of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Finite values in each bin of the baseline; of categories each one's, then all others'.
    pub counts: Vec<u64>,
    /// NaN.
    pub missing: u64,
    /// +inf.
    pub plus_inf: u64,
    /// -inf.
    pub minus_inf: u64,
    /// Finite values below the baseline's least; they are in the first bin too.
    pub below: u64,
    /// Finite values above the baseline's greatest; they are in the last bin too.
    pub above: u64,
    /// Of `below` and `above`: out of the baseline's range by more than its width. No population does that.
    pub far: u64,
    /// Sum of the values, in steps.
    pub sum: i64,
    /// Sum of their squares, in steps.
    pub squares: u128,
    /// The extremes; `None` without a finite number.
    pub extremes: Option<Extremes>,
    /// The longest run of one value.
    pub longest_run: u64,
}

/// The least and the greatest of the finite values.
#[derive(Debug, Clone, Copy)]
pub struct Extremes {
    /// The least.
    pub min: f32,
    /// How often it was there.
    pub at_min: u64,
    /// The greatest.
    pub max: f32,
    /// How often it was there.
    pub at_max: u64,
}

impl PartialEq for Extremes {
    fn eq(&self, other: &Self) -> bool {
        let bits = |e: &Self| (e.min.to_bits(), e.at_min, e.max.to_bits(), e.at_max);
        bits(self) == bits(other)
    }
}

impl Eq for Extremes {}

impl Extremes {
    fn merged(self, other: Self) -> Self {
        let (mut low, mut high) = (self, self);
        if other.min < self.min {
            low = other;
        } else if other.min == self.min {
            low.at_min += other.at_min;
        }
        if other.max > self.max {
            high = other;
        } else if other.max == self.max {
            high.at_max += other.at_max;
        }
        Self { min: low.min, at_min: low.at_min, max: high.max, at_max: high.at_max }
    }
}

impl Tally {
    /// Nothing seen in so many slots.
    pub(crate) fn empty(slots: usize) -> Self {
        Self {
            counts: vec![0; slots],
            missing: 0,
            plus_inf: 0,
            minus_inf: 0,
            below: 0,
            above: 0,
            far: 0,
            sum: 0,
            squares: 0,
            extremes: None,
            longest_run: 0,
        }
    }

    /// Finite values.
    pub fn finite(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Values that are no numbers: missing, or infinite.
    pub fn not_finite(&self) -> u64 {
        self.missing.saturating_add(self.plus_inf).saturating_add(self.minus_inf)
    }

    /// Values that no model can use: no numbers, or far outside of the baseline.
    pub fn unusable(&self) -> u64 {
        self.not_finite().saturating_add(self.far)
    }

    /// Every value that was seen.
    pub fn count(&self) -> u64 {
        self.finite().saturating_add(self.not_finite())
    }

    /// The mean and the standard deviation (of the population), to 1/256 of the baseline's deviation.
    pub fn moments(&self, feature: &Feature) -> Option<(f64, f64)> {
        let scale = Scale::of(feature);
        let n = self.finite() as f64;
        (n > 0.0 && !feature.is_categorical()).then(|| {
            let mean = self.sum as f64 / n;
            // Exact until the last step: the difference is taken between whole numbers.
            let whole = self.squares * u128::from(self.finite());
            let over = whole.saturating_sub(self.sum.unsigned_abs() as u128 * self.sum.unsigned_abs() as u128);
            (scale.centre + mean / scale.inverse, (over as f64).sqrt() / n / scale.inverse)
        })
    }

    /// Adds what another saw. The caller has made sure that the slots are the same and that nothing overflows.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.missing += other.missing;
        self.plus_inf += other.plus_inf;
        self.minus_inf += other.minus_inf;
        self.below += other.below;
        self.above += other.above;
        self.far += other.far;
        self.sum += other.sum;
        self.squares += other.squares;
        self.longest_run = self.longest_run.max(other.longest_run);
        self.extremes = match (self.extremes, other.extremes) {
            (Some(mine), Some(theirs)) => Some(mine.merged(theirs)),
            (one, none) => one.or(none),
        };
    }

    /// Whether it has extremes just when it has numbers.
    pub(crate) fn has_extremes(&self) -> bool {
        self.extremes.is_some() == (self.finite() > 0)
    }

    /// What cannot have been counted.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let finite = self.finite();
        let outside = self.below.saturating_add(self.above);
        if outside > finite || self.far > outside || self.longest_run > finite {
            return Some("more is out of range, or in a row, than there is");
        }
        let most = u128::from(finite) * MOST_STEPS as u128;
        if u128::from(self.sum.unsigned_abs()) > most || self.squares > most * MOST_STEPS as u128 {
            return Some("its moments are greater than its values allow");
        }
        let Extremes { min, at_min, max, at_max } = self.extremes?;
        let counted = (1..=finite).contains(&at_min) && (1..=finite).contains(&at_max);
        let negative_zero = |x: f32| x == 0.0 && x.is_sign_negative();
        let sound = min.is_finite() && max.is_finite() && min <= max && !negative_zero(min) && !negative_zero(max);
        (!sound || !counted).then_some("its extremes contradict each other")
    }
}

/// The steps in which a feature's moments are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) centre: f64,
    /// Steps in a unit of the feature.
    pub(crate) inverse: f64,
}

impl Scale {
    pub(crate) fn of(feature: &Feature) -> Self {
        // Rounded, because not every reader of JSON gives the last bit of a number back.
        let rounded = |x: f64| f64::from(x as f32);
        let (centre, std) = feature.spread.map_or((0.0, 0.0), |spread| (rounded(spread.mean), rounded(spread.std)));
        // A baseline of one value has no deviation: its size is as good as any.
        let unit = if std > 1e-30 { std } else { centre.abs().max(1.0) };
        Self { centre, inverse: STEPS / unit }
    }

    /// Rounds to the nearest step, halves to the even one: by addition, which every processor does alike.
    pub(crate) fn steps(self, x: f32) -> i64 {
        const MAGIC: f64 = 6_755_399_441_055_744.0;
        let most = MOST_STEPS as f64;
        let steps = ((f64::from(x) - self.centre) * self.inverse).max(-most).min(most);
        ((steps + MAGIC).to_bits() as i64) - (MAGIC.to_bits() as i64)
    }
}
