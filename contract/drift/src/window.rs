//! The window of a device: rows become counts, and a closed window becomes a summary.
//!
//! Decides what is kept of a value. All memory is taken when a window is made; an update takes none. Knows no
//! time: who closes a window decides how long it was.

use crate::baseline::Baseline;
use crate::feature::{Feature, MAX_CATEGORIES, VALUE_BINS};
use crate::summary::Summary;
use crate::tally::{Extremes, Scale, Tally};
use std::fmt;

/// The most rows of one window.
pub const MAX_WINDOW_ROWS: u32 = 1 << 30;

/// Why a row was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowError {
    /// It has other columns than the baseline.
    Width {
        /// Columns of the row.
        found: usize,
        /// Features of the baseline.
        wanted: usize,
    },
    /// The window holds [`MAX_WINDOW_ROWS`]: it must be closed first.
    Full,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowError::Width { found, wanted } => write!(f, "a row of {found} values for {wanted} features"),
            RowError::Full => write!(f, "the window is full"),
        }
    }
}

impl std::error::Error for RowError {}

/// Counts rows against a baseline.
#[derive(Debug, Clone)]
pub struct Window {
    fingerprint: u64,
    rows: u32,
    counters: Vec<Counter>,
}

impl Window {
    /// An empty window.
    pub fn new(baseline: &Baseline) -> Self {
        let counters = baseline.features.iter().map(Counter::new).collect();
        Self { fingerprint: baseline.fingerprint(), rows: 0, counters }
    }

    /// Rows so far.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Counts one row: a value for each feature, in the order of the baseline. NaN is a missing one; a category is
    /// what [`Feature::code`] says. Takes no memory.
    ///
    /// # Errors
    /// When the row has another width, or the window is full. Nothing was counted then.
    pub fn update(&mut self, row: &[f32]) -> Result<(), RowError> {
        self.update_seen(row, |_, _| {})
    }

    /// Counts one row and says in which slot each feature's value was, where it was in one.
    pub(crate) fn update_seen(&mut self, row: &[f32], mut saw: impl FnMut(usize, usize)) -> Result<(), RowError> {
        if row.len() != self.counters.len() {
            return Err(RowError::Width { found: row.len(), wanted: self.counters.len() });
        }
        if self.rows >= MAX_WINDOW_ROWS {
            return Err(RowError::Full);
        }
        self.rows += 1;
        for (feature, (counter, value)) in self.counters.iter_mut().zip(row).enumerate() {
            if let Some(slot) = counter.add(*value) {
                saw(feature, slot);
            }
        }
        Ok(())
    }

    /// What was seen, and an empty window again.
    pub fn close(&mut self) -> Summary {
        let rows = std::mem::take(&mut self.rows).into();
        let features = self.counters.iter_mut().map(Counter::take).collect();
        Summary { fingerprint: self.fingerprint, rows, windows: 1, features }
    }
}

const SLOTS: usize = MAX_CATEGORIES + 1;
/// Places for edges: five halvings.
const EDGES: usize = 32;
const _: () = assert!(VALUE_BINS <= EDGES && VALUE_BINS <= SLOTS);

/// One feature, as the update wants it: everything at a fixed place.
#[derive(Debug, Clone)]
struct Counter {
    /// Behind the baseline's edges +inf, which no finite value is above.
    edges: [f32; EDGES],
    /// Least and greatest of the baseline, and the range from which on a value is far.
    range: [f32; 4],
    scale: Scale,
    slots: usize,
    categorical: bool,
    seen: Seen,
}

/// What an update changes.
#[derive(Debug, Clone)]
struct Seen {
    counts: [u32; SLOTS],
    missing: u32,
    plus_inf: u32,
    minus_inf: u32,
    below: u32,
    above: u32,
    far: u32,
    sum: i64,
    squares: u128,
    min: f32,
    at_min: u32,
    max: f32,
    at_max: u32,
    last: f32,
    run: u32,
    longest_run: u32,
}

const NOTHING: Seen = Seen {
    counts: [0; SLOTS],
    missing: 0,
    plus_inf: 0,
    minus_inf: 0,
    below: 0,
    above: 0,
    far: 0,
    sum: 0,
    squares: 0,
    min: f32::INFINITY,
    at_min: 0,
    max: f32::NEG_INFINITY,
    at_max: 0,
    last: f32::NAN,
    run: 0,
    longest_run: 0,
};

impl Counter {
    fn new(feature: &Feature) -> Self {
        let mut edges = [f32::INFINITY; EDGES];
        for (place, edge) in edges.iter_mut().zip(&feature.edges) {
            *place = *edge;
        }
        Self {
            edges,
            range: range(feature),
            scale: Scale::of(feature),
            slots: feature.counts.len(),
            categorical: feature.is_categorical(),
            seen: NOTHING,
        }
    }

    /// The slot in which the value is counted; none when it is no number.
    fn add(&mut self, value: f32) -> Option<usize> {
        let seen = &mut self.seen;
        if !value.is_finite() {
            seen.missing += u32::from(value.is_nan());
            seen.plus_inf += u32::from(value == f32::INFINITY);
            seen.minus_inf += u32::from(value == f32::NEG_INFINITY);
            seen.run = 0;
            seen.last = f32::NAN;
            return None;
        }
        // Turns -0.0 into 0.0 and changes nothing else.
        let x = value + 0.0;
        seen.run = if x == seen.last { seen.run + 1 } else { 1 };
        seen.last = x;
        seen.longest_run = seen.longest_run.max(seen.run);
        if self.categorical {
            let other = self.slots - 1;
            // What is no slot's number is another category.
            let slot = if x >= 0.0 && x.fract() == 0.0 { (x as usize).min(other) } else { other };
            seen.counts[slot] += 1;
            return Some(slot);
        }
        let bin = bin(&self.edges, x);
        seen.counts[bin] += 1;
        let [min, max, far_below, far_above] = self.range;
        if x < min || x > max {
            seen.below += u32::from(x < min);
            seen.above += u32::from(x > max);
            seen.far += u32::from(x < far_below) + u32::from(x > far_above);
        }
        let steps = self.scale.steps(x);
        seen.sum += steps;
        // A square is not negative: it is the same number without a sign.
        seen.squares += u128::from((steps * steps) as u64);
        if x <= seen.min {
            seen.at_min = if x < seen.min { 1 } else { seen.at_min + 1 };
            seen.min = x;
        }
        if x >= seen.max {
            seen.at_max = if x > seen.max { 1 } else { seen.at_max + 1 };
            seen.max = x;
        }
        Some(bin)
    }

    fn take(&mut self) -> Tally {
        let seen = std::mem::replace(&mut self.seen, NOTHING);
        Tally {
            counts: seen.counts[..self.slots].iter().map(|count| u64::from(*count)).collect(),
            missing: seen.missing.into(),
            plus_inf: seen.plus_inf.into(),
            minus_inf: seen.minus_inf.into(),
            below: seen.below.into(),
            above: seen.above.into(),
            far: seen.far.into(),
            sum: seen.sum,
            squares: seen.squares,
            extremes: (seen.at_min > 0).then(|| Extremes {
                min: seen.min,
                at_min: seen.at_min.into(),
                max: seen.max,
                at_max: seen.at_max.into(),
            }),
            longest_run: seen.longest_run.into(),
        }
    }
}

/// How many edges are below: halves of what is left, without a branch that a processor could guess wrongly.
fn bin(edges: &[f32; EDGES], x: f32) -> usize {
    let mut below = 0;
    for step in [16, 8, 4, 2, 1] {
        below += if edges[below + step - 1] < x { step } else { 0 };
    }
    below
}

/// Least and greatest of the baseline; beyond them by its whole width is far. Without a baseline nothing is.
fn range(feature: &Feature) -> [f32; 4] {
    let everything = [f32::NEG_INFINITY, f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY];
    feature.spread.map_or(everything, |spread| {
        let (min, max) = (f64::from(spread.min), f64::from(spread.max));
        [spread.min, spread.max, (min - (max - min)) as f32, (max + (max - min)) as f32]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature::Column;

    fn baseline() -> Baseline {
        let values: Vec<f32> = (1..=40).map(|x| x as f32).collect();
        let colours = [Some("red"), Some("red"), Some("blue")];
        Baseline::measure_columns([("x", Column::Numbers(&values)), ("c", Column::Categories(&colours))]).unwrap()
    }

    #[test]
    fn a_value_is_counted_where_the_baseline_would_have_it() {
        let baseline = baseline();
        let mut window = Window::new(&baseline);
        let values = [2.0, 2.5, -0.0, 41.0, 79.0, 79.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 40.0, -38.5];
        for x in values {
            window.update(&[x, f32::NAN]).unwrap();
        }
        let tally = &window.close().features[0];
        // Below 2 or at it: 2.0, 0.0, -38.5. Above 38: 41, 79, 79.5 and 40.
        assert_eq!((tally.counts[0], tally.counts[1], tally.counts[19], tally.finite()), (3, 1, 4, 8));
        assert_eq!((tally.missing, tally.plus_inf, tally.minus_inf), (1, 1, 1));
        // The width is 39: far is below -38 and above 79.
        assert_eq!((tally.below, tally.above, tally.far), (2, 3, 2));
        assert_eq!(tally.extremes, Some(Extremes { min: -38.5, at_min: 1, max: 79.5, at_max: 1 }));
        assert_eq!(tally.contradiction(), None);
    }

    #[test]
    fn moments_are_those_of_the_values() {
        let baseline = baseline();
        let mut window = Window::new(&baseline);
        for x in [10.0, 20.0, 30.0, 60.0] {
            window.update(&[x, 0.0]).unwrap();
        }
        let (mean, std) = window.close().features[0].moments(&baseline.features[0]).unwrap();
        // One step is 11.5 / 256; each value is off by half of one at most.
        assert!((mean - 30.0).abs() < 0.03 && (std - 350.0_f64.sqrt()).abs() < 0.03, "{mean} {std}");
    }

    #[test]
    fn a_run_ends_where_a_value_is_missing() {
        let mut window = Window::new(&baseline());
        for x in [5.0, 5.0, f32::NAN, 5.0, 5.0, 5.0, 7.0] {
            window.update(&[x, x]).unwrap();
        }
        let summary = window.close();
        assert_eq!((summary.features[0].longest_run, summary.features[1].longest_run), (3, 3));
    }

    #[test]
    fn categories_that_nobody_knows_are_others() {
        let mut window = Window::new(&baseline());
        for x in [0.0, 1.0, 1.0, 2.0, 99.0, -1.0, 0.5, f32::NAN, 1e30] {
            window.update(&[1.0, x]).unwrap();
        }
        let tally = &window.close().features[1];
        assert_eq!((tally.counts.as_slice(), tally.missing), (&[1, 2, 5][..], 1));
        assert_eq!((tally.extremes, tally.sum), (None, 0));
    }

    #[test]
    fn rows_of_another_width_are_not_counted() {
        let mut window = Window::new(&baseline());
        assert_eq!(window.update(&[1.0]), Err(RowError::Width { found: 1, wanted: 2 }));
        assert_eq!((window.rows(), window.close().rows, window.close().rows), (0, 0, 0));
    }
}
