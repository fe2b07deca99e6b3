//! What a person should look at first: the sensor, the wire, the unit, or the world.
//!
//! Decides the name of an alarm that others have raised; it raises none. A name is a guess with a reason: the first of
//! its rules that holds.

use crate::feature::Feature;
use crate::special::normal_quantile;
use crate::tally::Tally;
use serde::Serialize;
use std::fmt;

/// Why a feature differs from its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// Values are not there, or are no numbers.
    Missing {
        /// Their share in the window.
        share: f64,
    },
    /// One value came again and again.
    Stuck {
        /// How often in a row.
        rows: u64,
    },
    /// The values are those of the baseline in another unit.
    UnitChange {
        /// From which unit to which.
        from_to: &'static str,
    },
    /// Many values are exactly the least or the greatest one.
    Saturated {
        /// The value.
        at: f32,
        /// Their share in the window.
        share: f64,
    },
    /// Values lie far outside of everything in the baseline.
    OutOfRange {
        /// Their share in the window.
        share: f64,
    },
    /// None of these: what is measured has changed.
    Population,
}

impl Cause {
    /// Its name for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Cause::Missing { .. } => "missing",
            Cause::Stuck { .. } => "stuck",
            Cause::UnitChange { .. } => "unit_change",
            Cause::Saturated { .. } => "saturated",
            Cause::OutOfRange { .. } => "out_of_range",
            Cause::Population => "population",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: &f64| 100.0 * share;
        match self {
            Cause::Missing { share } => write!(f, "missing: {:.1} %", percent(share)),
            Cause::Stuck { rows } => write!(f, "stuck: one value {rows} times in a row"),
            Cause::UnitChange { from_to } => write!(f, "another unit: {from_to}"),
            Cause::Saturated { at, share } => write!(f, "saturated: {:.1} % at {at}", percent(share)),
            Cause::OutOfRange { share } => write!(f, "out of range: {:.1} %", percent(share)),
            Cause::Population => f.write_str("the population moved"),
        }
    }
}

/// Units that people mix up: new = old * factor + offset.
const UNITS: [(&str, f64, f64); 30] = [
    ("Celsius to Fahrenheit", 1.8, 32.0),
    ("Fahrenheit to Celsius", 1.0 / 1.8, -32.0 / 1.8),
    ("Celsius to Kelvin", 1.0, 273.15),
    ("Kelvin to Celsius", 1.0, -273.15),
    ("Fahrenheit to Kelvin", 1.0 / 1.8, 459.67 / 1.8),
    ("Kelvin to Fahrenheit", 1.8, -459.67),
    ("a factor of 10", 10.0, 0.0),
    ("a factor of 1/10", 0.1, 0.0),
    ("a factor of 100 (a share to per cent)", 100.0, 0.0),
    ("a factor of 1/100 (per cent to a share)", 0.01, 0.0),
    ("a factor of 1,000", 1e3, 0.0),
    ("a factor of 1/1,000", 1e-3, 0.0),
    ("a factor of 1,000,000", 1e6, 0.0),
    ("a factor of 1/1,000,000", 1e-6, 0.0),
    ("metres to feet", 1.0 / 0.3048, 0.0),
    ("feet to metres", 0.3048, 0.0),
    ("inches to centimetres", 2.54, 0.0),
    ("centimetres to inches", 1.0 / 2.54, 0.0),
    ("inches to millimetres", 25.4, 0.0),
    ("millimetres to inches", 1.0 / 25.4, 0.0),
    ("metres a second to km/h", 3.6, 0.0),
    ("km/h to metres a second", 1.0 / 3.6, 0.0),
    ("kilograms to pounds", 1.0 / 0.453_592_37, 0.0),
    ("pounds to kilograms", 0.453_592_37, 0.0),
    ("bar to psi", 14.503_773_8, 0.0),
    ("psi to bar", 1.0 / 14.503_773_8, 0.0),
    ("radians to degrees", 57.295_779_5, 0.0),
    ("degrees to radians", 1.0 / 57.295_779_5, 0.0),
    ("a turned sign", -1.0, 0.0),
    ("seconds to minutes", 1.0 / 60.0, 0.0),
];
/// How near the mean must be to that of the baseline in the new unit, in its new deviations.
const MEAN_WITHIN: f64 = 0.5;
/// How near the deviation must be, as a ratio.
const DEVIATION_WITHIN: f64 = 1.3;
/// How far apart the distribution functions may be, at the edges.
const SHAPE_WITHIN: f64 = 0.2;
/// A mean that moved by fewer deviations, with about the old deviation, is no other unit.
const SAME_UNIT: f64 = 3.0;
/// A run of one value is noticed when chance makes one in fewer windows than this.
const RUN_BY_CHANCE: f64 = 1e-6;
/// The share of far values that names them.
const FAR_SHARE: f64 = 0.005;
/// The share at an extreme that is no chance.
const SATURATED_SHARE: f64 = 0.1;

/// The likeliest cause of an alarm; `by_unusable` when it was raised because values could not be used.
pub(crate) fn cause(feature: &Feature, tally: &Tally, by_unusable: bool) -> Cause {
    let share = tally.not_finite() as f64 / tally.count().max(1) as f64;
    let more = share > feature.not_finite() as f64 / feature.count.max(1) as f64;
    if by_unusable && more && tally.not_finite() >= tally.far {
        return Cause::Missing { share };
    }
    stuck(feature, tally)
        .or_else(|| unit_change(feature, tally))
        .or_else(|| saturated(feature, tally))
        .or_else(|| out_of_range(tally))
        .unwrap_or(Cause::Population)
}

fn stuck(feature: &Feature, tally: &Tally) -> Option<Cause> {
    let (run, finite) = (tally.longest_run, tally.finite() as f64);
    // A value is in the window as often as the fullest bin at most, as far as the baseline tells.
    let most = feature.counts.iter().max().map_or(1.0, |most| *most as f64 / feature.finite().max(1) as f64);
    if most == 0.0 {
        return None;
    }
    let by_chance = finite.ln() + (run as f64 - 1.0) * most.ln();
    let numbers = !feature.is_categorical();
    (numbers && run as f64 * 2.0 >= finite && by_chance < RUN_BY_CHANCE.ln()).then_some(Cause::Stuck { rows: run })
}

fn unit_change(feature: &Feature, tally: &Tally) -> Option<Cause> {
    let (old, (mean, deviation)) = (feature.spread?, tally.moments(feature)?);
    let moved = (mean - old.mean).abs() > SAME_UNIT * old.std;
    let wider = !(0.5..=2.0).contains(&(deviation / old.std)) && old.std > 0.0;
    if !(moved || wider) || old.std == 0.0 || deviation == 0.0 {
        return None;
    }
    let misfit = |(_, factor, offset): &(&str, f64, f64)| {
        let spread = factor.abs() * old.std;
        let off = (mean - (factor * old.mean + offset)).abs() / spread / MEAN_WITHIN;
        off.max((deviation / spread).ln().abs() / DEVIATION_WITHIN.ln())
    };
    let best = UNITS.iter().min_by(|a, b| misfit(a).total_cmp(&misfit(b)))?;
    // Mean and deviation may be those of a few wild values: every value must be in the new unit.
    let same = misfit(best) < 1.0 && apart(feature, tally, best.1, best.2) < SHAPE_WITHIN;
    same.then_some(Cause::UnitChange { from_to: best.0 })
}

/// The largest difference, at the edges, of the window's distribution function and that of the baseline in another unit.
fn apart(feature: &Feature, tally: &Tally, factor: f64, offset: f64) -> f64 {
    let (mut below, finite) = (0, tally.finite() as f64);
    let at = |(edge, count): (&f32, &u64)| {
        below += count;
        let before = share_below(feature, (f64::from(*edge) - offset) / factor);
        let expected = if factor < 0.0 { 1.0 - before } else { before };
        (below as f64 / finite - expected).abs()
    };
    feature.edges.iter().zip(&tally.counts).map(at).fold(0.0, f64::max)
}

/// The share of the baseline below a value, each bin spread evenly.
fn share_below(feature: &Feature, value: f64) -> f64 {
    let Some(spread) = feature.spread else { return 0.0 };
    let (mut from, mut below) = (f64::from(spread.min), 0.0);
    let ends = feature.edges.iter().chain([&spread.max]).map(|end| f64::from(*end));
    for (to, count) in ends.zip(&feature.counts) {
        if value < to {
            let part = if to > from { ((value - from) / (to - from)).max(0.0) } else { 0.0 };
            return (below + part * *count as f64) / feature.finite() as f64;
        }
        (from, below) = (to, below + *count as f64);
    }
    1.0
}

fn saturated(feature: &Feature, tally: &Tally) -> Option<Cause> {
    let (extremes, finite) = (tally.extremes?, tally.finite() as f64);
    let before = |value: f32| {
        let bin = feature.edges.partition_point(|edge| *edge < value);
        feature.counts[bin] as f64 / feature.finite().max(1) as f64
    };
    let ends = [(extremes.max, extremes.at_max), (extremes.min, extremes.at_min)];
    let piled = |(value, times): &(f32, u64)| *times as f64 / finite >= SATURATED_SHARE.max(2.0 * before(*value));
    let (at, times) = ends.into_iter().filter(piled).max_by_key(|(_, times)| *times)?;
    (extremes.min < extremes.max).then_some(Cause::Saturated { at, share: times as f64 / finite })
}

fn out_of_range(tally: &Tally) -> Option<Cause> {
    let share = tally.far as f64 / tally.finite() as f64;
    (share >= FAR_SHARE)
        .then(|| Cause::OutOfRange { share: (tally.below + tally.above) as f64 / tally.finite() as f64 })
}

/// The lower bound of Cohen's h, by how much a share differs, in standard deviations of a share.
pub(crate) fn share_differs(baseline: (u64, u64), window: (u64, u64), dispersion: f64, chance: f64) -> f64 {
    let angle = |(some, all): (u64, u64)| 2.0 * (some as f64 / all as f64).sqrt().asin();
    let error = (dispersion * (1.0 / baseline.1 as f64 + 1.0 / window.1 as f64)).sqrt();
    (angle(window) - angle(baseline)).abs() + normal_quantile(chance) * error
}
