//! Whether a window differs from its baseline, by more than chance and by enough to matter.
//!
//! Decides the alarms: three tests a feature, each corrected by what was learned of how the feature varies, all features
//! of a model under one rate of false discoveries, and effect beside significance. Distances are shown beside it and
//! decide nothing. Who hears of an alarm is decided elsewhere.

use crate::baseline::Baseline;
use crate::basis::{components, grouped, groups, polynomials};
use crate::cause::{Cause, cause, share_differs};
use crate::discovery::discovered;
use crate::dispersion::{Dispersion, MOST_DISPERSION};
use crate::distances::{jensen_shannon, psi};
use crate::feature::Feature;
use crate::fisher::fisher_exact;
use crate::homogeneity::{SMOOTH, chi_squared};
use crate::special::{chi2_isf, chi2_sf, f_isf, f_sf};
use crate::summary::{Summary, SummaryError};
use crate::tally::Tally;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Rows below which nothing is decided.
pub const LEAST_ROWS: u64 = 50;
/// The share of false discoveries among warnings.
pub const WARN_RATE: f64 = 0.01;
/// The share of false discoveries among pages.
pub const PAGE_RATE: f64 = 0.001;
/// The effect that a page must surely have, in standard deviations.
pub const LEAST_EFFECT: f64 = 0.1;
/// The chance that an effect is below its lower bound.
const EFFECT_CHANCE: f64 = 0.01;
/// Tests of one feature.
const TESTS: f64 = 3.0;

/// How loud an alarm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing differs, as far as can be told.
    Quiet,
    /// Something to look at when there is time.
    Warn,
    /// Somebody should look now.
    Page,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Quiet => "quiet",
            Level::Warn => "warn",
            Level::Page => "page",
        })
    }
}

/// Why a window cannot say all that a longer one could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// Fewer rows than [`LEAST_ROWS`]: nothing is decided.
    FewRows,
    /// The window has more rows than the baseline: it warns at most.
    LargerThanBaseline,
    /// How the features vary from window to window is not known yet: it warns at most.
    Learning,
}

/// What one window is, against its baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// The loudest of its features.
    pub level: Level,
    /// Rows of the window.
    pub rows: u64,
    /// What it cannot say.
    pub doubts: Vec<Doubt>,
    /// One for each feature of the baseline.
    pub features: Vec<Finding>,
}

/// What one feature is, against its baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The feature.
    pub name: String,
    /// How loud.
    pub level: Level,
    /// What to look at first, where there is an alarm.
    pub cause: Option<Cause>,
    /// Three times the least of the tests' chances.
    pub p: f64,
    /// Of the smooth test.
    pub p_smooth: f64,
    /// Of chi-squared over groups of bins.
    pub p_chi_squared: f64,
    /// Of the values that cannot be used.
    pub p_unusable: f64,
    /// Standard deviations by which it surely differs.
    pub effect: f64,
    /// The greatest of its dispersions in the directions of the smooth test.
    pub dispersion: f64,
    /// It varies so much from window to window that it only advises: a longer window would tell more.
    pub advisory: bool,
    /// Evidence of a gradual change reached its threshold in this window.
    pub gradual: bool,
    /// Shown, never alarmed on.
    pub psi: Option<f64>,
    /// Shown, never alarmed on.
    pub jensen_shannon: Option<f64>,
}

/// What is known of the features before this window.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// The rows are independent: of each other, as far as anybody knows.
    Independent,
    /// What was learned from windows before, one for each feature.
    Learned(&'a [Dispersion]),
}

/// Judges a window.
///
/// # Errors
/// When it was counted against another baseline, or the dispersions are of another number of features.
pub fn judge(baseline: &Baseline, window: &Summary, known: Known<'_>) -> Result<Judgement, SummaryError> {
    let before = baseline.features.iter().map(Before::of_baseline).collect();
    judged(baseline, before, window, known)
}

/// Judges a window against another summary of the same bins: canaries against control, this week against last. The
/// baseline says what a feature is, and in which unit.
///
/// # Errors
/// As [`judge`].
pub fn judge_against(
    baseline: &Baseline,
    control: &Summary,
    window: &Summary,
    known: Known<'_>,
) -> Result<Judgement, SummaryError> {
    control.fits(baseline)?;
    let before = baseline.features.iter().zip(&control.features).map(|(feature, tally)| Before::of(feature, tally));
    judged(baseline, before.collect(), window, known)
}

fn judged(
    baseline: &Baseline,
    before: Vec<Before<'_>>,
    window: &Summary,
    known: Known<'_>,
) -> Result<Judgement, SummaryError> {
    window.fits(baseline)?;
    let dispersion = |at: usize| match known {
        Known::Independent => Ok(None),
        Known::Learned(all) if all.len() == before.len() => Ok(Some(&all[at])),
        Known::Learned(_) => Err(SummaryError::OtherBaseline),
    };
    let mut features = Vec::with_capacity(before.len());
    for (at, (before, tally)) in before.iter().zip(&window.features).enumerate() {
        features.push(found(before, tally, dispersion(at)?));
    }
    let mut doubts = Vec::new();
    let larger = before.iter().any(|before| before.unusable.1 < window.rows);
    let learning = matches!(known, Known::Learned(all) if !all.iter().any(Dispersion::is_known));
    if window.rows < LEAST_ROWS {
        doubts.push(Doubt::FewRows);
    } else {
        doubts.extend(larger.then_some(Doubt::LargerThanBaseline));
        doubts.extend(learning.then_some(Doubt::Learning));
        let most = if larger { Level::Warn } else { Level::Page };
        raise(&mut features, most, baseline, window, known);
    }
    let level = features.iter().map(|finding| finding.level).max().unwrap_or(Level::Quiet);
    Ok(Judgement { level, rows: window.rows, doubts, features })
}

/// What a feature of a window is held against.
struct Before<'a> {
    feature: &'a Feature,
    counts: &'a [u64],
    /// All slots, the holes too.
    slots: Vec<u64>,
    /// Values that cannot be used, of all.
    unusable: (u64, u64),
}

impl<'a> Before<'a> {
    fn of_baseline(feature: &'a Feature) -> Self {
        let unusable = (feature.not_finite(), feature.count);
        Self { feature, counts: &feature.counts, slots: every_slot_of(feature), unusable }
    }

    fn of(feature: &'a Feature, tally: &'a Tally) -> Self {
        let unusable = (tally.unusable(), tally.count());
        Self { feature, counts: &tally.counts, slots: every_slot(tally), unusable }
    }
}

/// Gives levels and causes to what was found.
fn raise(features: &mut [Finding], most: Level, baseline: &Baseline, window: &Summary, known: Known<'_>) {
    let chances: Vec<f64> = features.iter().map(|finding| finding.p).collect();
    let (warned, paged) = (discovered(&chances, WARN_RATE), discovered(&chances, PAGE_RATE));
    for (at, finding) in features.iter_mut().enumerate() {
        let unknown = matches!(known, Known::Learned(all) if !all[at].is_known());
        let loud = paged[at] && finding.effect > LEAST_EFFECT && !finding.advisory && !unknown;
        finding.level = match (warned[at], loud) {
            (_, true) => most,
            (true, false) => Level::Warn,
            (false, false) => continue,
        };
        finding.name_cause(&baseline.features[at], &window.features[at]);
    }
}

impl Finding {
    pub(crate) fn name_cause(&mut self, feature: &Feature, tally: &Tally) {
        let by_unusable = self.p_unusable <= self.p_smooth.min(self.p_chi_squared);
        self.cause = Some(cause(feature, tally, by_unusable));
    }
}

fn found(against: &Before<'_>, tally: &Tally, dispersion: Option<&Dispersion>) -> Finding {
    let known = dispersion.filter(|dispersion| dispersion.is_known());
    let groups = groups(against.counts, tally.finite());
    let (before, now) = (grouped(against.counts, &groups), grouped(&tally.counts, &groups));
    let all_before = against.counts.iter().sum::<u64>();
    let z = if tally.finite() == 0 || all_before == 0 {
        Vec::new()
    } else {
        components(&polynomials(&before, before.len()), &before, &now)
    };
    let along = |direction: usize| known.map_or(1.0, |known| known.along(direction));
    let few = &z[..z.len().min(SMOOTH)];
    let learned = known.map(|known| learned_df(known, tally.finite()));
    let (p_smooth, smooth_effect) = varied(few, along, learned);
    let (mut p_chi_squared, every_effect) = varied(&z, along, learned);
    if known.is_none() {
        p_chi_squared = chi_squared(&before, &now).map_or(1.0, |test| test.p);
    }
    let (n, m) = (all_before as f64, tally.finite() as f64);
    let scale = if z.is_empty() { 0.0 } else { (1.0 / n + 1.0 / m).sqrt() };
    let (p_unusable, share_effect) = unusable(against.unusable, tally, known);
    let least = p_smooth.min(p_chi_squared).min(p_unusable);
    let slots = every_slot(tally);
    let greatest = (0..SMOOTH).map(along).fold(1.0, f64::max);
    Finding {
        name: against.feature.name.clone(),
        level: Level::Quiet,
        cause: None,
        p: (TESTS * least).min(1.0),
        p_smooth,
        p_chi_squared,
        p_unusable,
        effect: (smooth_effect.max(every_effect) * scale).max(share_effect).max(0.0),
        dispersion: greatest,
        advisory: greatest > MOST_DISPERSION,
        gradual: false,
        psi: psi(&against.slots, &slots),
        jensen_shannon: jensen_shannon(&against.slots, &slots),
    }
}

/// Degrees of freedom of what was learned.
///
/// Two things make the tail heavier than that of chi-squared. The dispersion is an estimate from so many windows. And
/// rows that depend on each other are worth few that do not: a mean of squares of e independent normal rows has an
/// excess kurtosis of 12 / e, which is that of t with 4 + e / 2 degrees. Independent rows in bins have no such tail.
fn learned_df(known: &Dispersion, rows: u64) -> f64 {
    let windows = f64::from(known.windows()) - 1.0;
    let dispersion = known.along(0);
    if dispersion <= 1.0 {
        return windows;
    }
    let worth = rows as f64 / dispersion;
    let dependent = 4.0 + worth / (2.0 * (1.0 - 1.0 / dispersion));
    1.0 / (1.0 / windows + 1.0 / dependent)
}

/// The chance of components as large, and by how many deviations of chance they surely differ from nothing.
fn varied(z: &[f64], along: impl Fn(usize) -> f64, learned: Option<f64>) -> (f64, f64) {
    if z.is_empty() {
        return (1.0, 0.0);
    }
    let df = z.len() as f64;
    let corrected: f64 = z.iter().enumerate().map(|(at, z)| z * z / along(at)).sum();
    let expected: f64 = (0..z.len()).map(along).sum();
    let length = z.iter().map(|z| z * z).sum::<f64>().sqrt();
    // What was learned is itself an estimate: hence F and not chi-squared.
    let (p, most) = match learned {
        None => (chi2_sf(corrected, df), chi2_isf(EFFECT_CHANCE, df) / df),
        Some(d2) => (f_sf(corrected / df, df, d2), f_isf(EFFECT_CHANCE, df, d2)),
    };
    (p, length - (expected * most).sqrt())
}

fn unusable(before: (u64, u64), tally: &Tally, known: Option<&Dispersion>) -> (f64, f64) {
    let now = (tally.unusable(), tally.count());
    if before.1 == 0 || now.1 == 0 {
        return (1.0, 0.0);
    }
    let dispersion = known.map_or(1.0, Dispersion::of_unusable);
    let exact = fisher_exact(before, now);
    let p = match known {
        Some(known) if dispersion > 1.0 => {
            exact.max(f_sf(share_z2(before, now) / dispersion, 1.0, f64::from(known.windows()) - 1.0))
        }
        _ => exact,
    };
    (p, share_differs(before, now, dispersion, EFFECT_CHANCE))
}

/// The squared difference of two shares in deviations of chance.
fn share_z2(before: (u64, u64), now: (u64, u64)) -> f64 {
    let share = |(some, all): (u64, u64)| some as f64 / all as f64;
    let pooled = share((before.0 + now.0, before.1 + now.1));
    let variance = pooled * (1.0 - pooled) * (1.0 / before.1 as f64 + 1.0 / now.1 as f64);
    if variance > 0.0 { (share(now) - share(before)).powi(2) / variance } else { 0.0 }
}

/// Bins or categories, then missing, +inf, -inf: what the distances are taken over.
pub(crate) fn every_slot(tally: &Tally) -> Vec<u64> {
    tally.counts.iter().copied().chain([tally.missing, tally.plus_inf, tally.minus_inf]).collect()
}

/// The same of the baseline.
pub(crate) fn every_slot_of(feature: &Feature) -> Vec<u64> {
    feature.counts.iter().copied().chain([feature.missing, feature.plus_inf, feature.minus_inf]).collect()
}
