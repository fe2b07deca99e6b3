//! Two tables of raw rows, every figure by feature: what anybody can compute again with numpy and scipy.
//!
//! Decides which figures there are. On raw rows Kolmogorov-Smirnov and Wasserstein are exact, which a device's
//! counts are not; the others are those of the device.

use crate::baseline::{Baseline, BaselineError};
use crate::distances::{Binned, jensen_shannon, ks_on_bins, psi, wasserstein_on_bins};
use crate::feature::{Column, Feature};
use crate::fisher::fisher_exact;
use crate::homogeneity::{Test, chi_squared, merged_chi_squared, smooth};
use crate::judge::{Finding, Judgement, Known, every_slot, every_slot_of, judge};
use crate::summary::Summary;
use crate::tally::Tally;
use crate::window::{MAX_WINDOW_ROWS, Window};
use serde::Serialize;
use std::fmt;

/// One feature of two tables.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Its name.
    pub name: &'a str,
    /// What drift is told from.
    pub baseline: Column<'a>,
    /// What may have drifted.
    pub window: Column<'a>,
}

/// Why two tables cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareError {
    /// The first gives no baseline.
    Baseline(BaselineError),
    /// A feature is numbers in one and categories in the other.
    Kind {
        /// The feature.
        name: String,
    },
    /// Columns of the second have different lengths, or too many rows.
    Rows {
        /// The feature that differs from the first.
        name: String,
    },
}

impl fmt::Display for CompareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompareError::Baseline(_) => f.write_str("the first table gives no baseline"),
            CompareError::Kind { name } => {
                write!(f, "feature {name:?} is numbers in one table and categories in the other")
            }
            CompareError::Rows { name } => {
                write!(f, "feature {name:?} has another number of rows, or more than {MAX_WINDOW_ROWS}")
            }
        }
    }
}

impl std::error::Error for CompareError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CompareError::Baseline(error) => Some(error),
            CompareError::Kind { .. } | CompareError::Rows { .. } => None,
        }
    }
}

/// Two tables compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What a device would say of the window, taking its rows for independent.
    pub judgement: Judgement,
    /// Every figure of each feature.
    pub features: Vec<Figures>,
}

/// One feature compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Its name.
    pub name: String,
    /// Whether it is categories.
    pub categorical: bool,
    /// Between the bins, in rising order.
    pub edges: Vec<f32>,
    /// The categories with a slot of their own.
    pub categories: Vec<String>,
    /// The baseline.
    pub baseline: Side,
    /// The window.
    pub window: Side,
    /// Over all slots, missing and infinite values too.
    pub psi: Option<f64>,
    /// Over all slots, missing and infinite values too.
    pub jensen_shannon: Option<f64>,
    /// Of the finite values, at the edges.
    pub ks_on_bins: Option<f64>,
    /// Of the finite values, exact.
    pub ks: Option<f64>,
    /// Of the finite values, each bin's spread evenly.
    pub wasserstein_on_bins: Option<f64>,
    /// Of the finite values, exact.
    pub wasserstein: Option<f64>,
    /// Over all slots, missing and infinite values too.
    pub chi_squared: Option<Test>,
    /// Of the finite values, over groups in which the window expects five.
    pub chi_squared_merged: Option<Test>,
    /// Of the finite values.
    pub smooth: Option<Test>,
    /// Of missing and infinite values: Fisher's exact test, two-sided.
    pub missing_p: f64,
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// All values.
    pub count: u64,
    /// NaN, or an empty cell.
    pub missing: u64,
    /// +inf.
    pub plus_inf: u64,
    /// -inf.
    pub minus_inf: u64,
    /// Below the baseline's least.
    pub below: u64,
    /// Above the baseline's greatest.
    pub above: u64,
    /// Finite values in each bin, or each category's and all others'.
    pub counts: Vec<u64>,
    /// Of the finite values.
    pub mean: Option<f64>,
    /// Of the finite values, of the population.
    pub std: Option<f64>,
    /// The least finite value.
    pub min: Option<f32>,
    /// The greatest finite value.
    pub max: Option<f32>,
}

/// Compares two tables, feature by feature.
///
/// # Errors
/// When the first gives no baseline or the second does not suit it.
pub fn compare(pairs: &[Pair<'_>]) -> Result<Comparison, CompareError> {
    let columns = pairs.iter().map(|pair| (pair.name, pair.baseline));
    let baseline = Baseline::measure_columns(columns).map_err(CompareError::Baseline)?;
    let window = count(&baseline, pairs)?;
    let judged = judge(&baseline, &window, Known::Independent);
    let judgement = judged.expect("the window was counted against this baseline");
    let rows = baseline.features.iter().zip(&window.features).zip(pairs);
    let features = rows.map(|((feature, tally), pair)| figures(feature, tally, pair)).collect();
    Ok(Comparison { judgement, features })
}

fn count(baseline: &Baseline, pairs: &[Pair<'_>]) -> Result<Summary, CompareError> {
    let mut columns = Vec::with_capacity(pairs.len());
    for (pair, feature) in pairs.iter().zip(&baseline.features) {
        columns.push(match (pair.baseline, pair.window) {
            (Column::Numbers(_), Column::Numbers(values)) => values.to_vec(),
            (Column::Categories(_), Column::Categories(values)) => {
                values.iter().map(|value| feature.code(*value)).collect()
            }
            _ => return Err(CompareError::Kind { name: pair.name.to_owned() }),
        });
    }
    let rows = columns.first().map_or(0, Vec::len);
    let odd = columns.iter().position(|column| column.len() != rows || rows > MAX_WINDOW_ROWS as usize);
    if let Some(odd) = odd {
        return Err(CompareError::Rows { name: pairs[odd].name.to_owned() });
    }
    let mut window = Window::new(baseline);
    for row in 0..rows {
        let values: Vec<f32> = columns.iter().map(|column| column[row]).collect();
        window.update(&values).expect("as wide as the baseline, and not too many");
    }
    Ok(window.close())
}

fn figures(feature: &Feature, tally: &Tally, pair: &Pair<'_>) -> Figures {
    let (before, now) = (sorted(pair.baseline), sorted(pair.window));
    let (all_before, all_now) = (every_slot_of(feature), every_slot(tally));
    let numbers = !feature.is_categorical();
    let extremes = |values: &[f32]| Some((*values.first()?, *values.last()?));
    let sides = extremes(&before).zip(extremes(&now)).filter(|_| numbers);
    let on_bins = sides.and_then(|(ours, theirs)| {
        let side = |counts, extremes| Binned { counts, extremes };
        wasserstein_on_bins(&feature.edges, side(&feature.counts, ours), side(&tally.counts, theirs))
    });
    let exact = sides.map(|_| distances_of_rows(&before, &now));
    Figures {
        name: feature.name.clone(),
        categorical: !numbers,
        edges: feature.edges.clone(),
        categories: feature.categories.clone(),
        baseline: Side {
            count: feature.count,
            missing: feature.missing,
            plus_inf: feature.plus_inf,
            minus_inf: feature.minus_inf,
            below: 0,
            above: 0,
            counts: feature.counts.clone(),
            ..Side::of(&before)
        },
        window: Side {
            count: tally.count(),
            missing: tally.missing,
            plus_inf: tally.plus_inf,
            minus_inf: tally.minus_inf,
            below: tally.below,
            above: tally.above,
            counts: tally.counts.clone(),
            ..Side::of(&now)
        },
        psi: psi(&all_before, &all_now),
        jensen_shannon: jensen_shannon(&all_before, &all_now),
        ks_on_bins: ks_on_bins(&feature.counts, &tally.counts).filter(|_| numbers),
        ks: exact.map(|(ks, _)| ks),
        wasserstein_on_bins: on_bins,
        wasserstein: exact.map(|(_, wasserstein)| wasserstein),
        chi_squared: chi_squared(&all_before, &all_now),
        chi_squared_merged: merged_chi_squared(&feature.counts, &tally.counts),
        smooth: smooth(&feature.counts, &tally.counts),
        missing_p: fisher_exact((feature.not_finite(), feature.count), (tally.not_finite(), tally.count())),
    }
}

impl Side {
    /// Moments of finite, sorted values; nothing else.
    fn of(values: &[f32]) -> Self {
        let n = values.len() as f64;
        let mean = (n > 0.0).then(|| values.iter().map(|x| f64::from(*x)).sum::<f64>() / n);
        let about = |mean: f64| values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
        Self {
            count: 0,
            missing: 0,
            plus_inf: 0,
            minus_inf: 0,
            below: 0,
            above: 0,
            counts: Vec::new(),
            mean,
            std: mean.map(|mean| about(mean).sqrt()),
            min: values.first().copied(),
            max: values.last().copied(),
        }
    }
}

fn sorted(column: Column<'_>) -> Vec<f32> {
    let Column::Numbers(values) = column else { return Vec::new() };
    // Adding 0.0 turns -0.0 into 0.0 and changes nothing else.
    let mut finite: Vec<f32> = values.iter().filter(|x| x.is_finite()).map(|x| x + 0.0).collect();
    finite.sort_by(f32::total_cmp);
    finite
}

/// Kolmogorov-Smirnov and Wasserstein-1 of sorted values, neither of them empty.
fn distances_of_rows(ours: &[f32], theirs: &[f32]) -> (f64, f64) {
    let (mut at, mut seen) = (0, 0);
    let (mut largest, mut area) = (0.0_f64, 0.0);
    let mut before: Option<(f64, f64)> = None;
    while at < ours.len() || seen < theirs.len() {
        let next = |values: &[f32], at: usize| values.get(at).map_or(f32::INFINITY, |x| *x);
        let x = next(ours, at).min(next(theirs, seen));
        at += ours[at..].iter().take_while(|value| **value == x).count();
        seen += theirs[seen..].iter().take_while(|value| **value == x).count();
        if let Some((last, apart)) = before {
            area += apart * (f64::from(x) - last);
        }
        let apart = (at as f64 / ours.len() as f64 - seen as f64 / theirs.len() as f64).abs();
        largest = largest.max(apart);
        before = Some((x.into(), apart));
    }
    (largest, area)
}

impl Comparison {
    /// Each feature's figures with what was found of it.
    pub fn by_feature(&self) -> impl Iterator<Item = (&Figures, &Finding)> {
        self.features.iter().zip(&self.judgement.features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_hand() {
        // F is 1/2 at 0 and 1 at 1; G is 1/4 at 0, 1/2 at 2, 1 at 3: apart by 1/4 over 0..1, 3/4 over 1..2, 1/2 over 2..3.
        let (ks, wasserstein) = distances_of_rows(&[0.0, 1.0], &[0.0, 2.0, 3.0, 3.0]);
        assert_eq!((ks, wasserstein), (0.75, 1.5));
        assert_eq!(distances_of_rows(&[1.0], &[1.0, 1.0]), (0.0, 0.0));
    }

    #[test]
    fn tables_that_do_not_suit_each_other_are_refused() {
        let (numbers, texts) = ([1.0_f32, 2.0], [Some("a"), None]);
        let (numbers, texts) = (Column::Numbers(&numbers), Column::Categories(&texts));
        let kind = compare(&[Pair { name: "x", baseline: numbers, window: texts }]);
        assert_eq!(kind, Err(CompareError::Kind { name: "x".into() }));
        let short = Column::Numbers(&[1.0]);
        let rows = compare(&[
            Pair { name: "x", baseline: numbers, window: numbers },
            Pair { name: "y", baseline: numbers, window: short },
        ]);
        assert_eq!(rows, Err(CompareError::Rows { name: "y".into() }));
        assert!(matches!(compare(&[]), Err(CompareError::Baseline(_))));
    }

    #[test]
    fn an_empty_window_has_counts_and_no_distances() {
        let (before, now) = (Column::Numbers(&[1.0, 2.0, 3.0]), Column::Numbers(&[f32::NAN, f32::NAN]));
        let figures = compare(&[Pair { name: "x", baseline: before, window: now }]).unwrap().features.remove(0);
        assert_eq!((figures.window.missing, figures.window.mean, figures.ks), (2, None, None));
        assert_eq!((figures.smooth, figures.chi_squared_merged, figures.wasserstein_on_bins), (None, None, None));
        // Missing values are a slot: PSI and chi-squared see them. 1 / C(5, 2) is the chance of this table.
        assert!(figures.psi.is_some() && figures.chi_squared.is_some());
        assert!((figures.missing_p - 0.1).abs() < 1e-12);
    }
}
