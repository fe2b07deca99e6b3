//! Drift as REST tells it.

use bridge_core::drift::{Concern, Group};
use drift::{Baseline, Feature, Finding, Tally};
use protocol::AlarmLevel;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a stream's models saw in a time.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct DriftView {
    /// The stream.
    pub(crate) stream: String,
    /// Windows that ended from then on, milliseconds since 1970.
    pub(crate) since: u64,
    /// And before then.
    pub(crate) until: u64,
    /// Windows of each group added up.
    pub(crate) groups: Vec<DriftGroupView>,
}

/// Windows that were added up: of one release, and of what they were grouped by.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct DriftGroupView {
    /// What they have in common.
    pub(crate) key: String,
    /// The release.
    pub(crate) release: u64,
    /// Its bundle, hex.
    pub(crate) bundle: String,
    /// Who saw them.
    pub(crate) devices: Vec<String>,
    /// How many they were.
    pub(crate) windows: u64,
    /// Rows in them.
    pub(crate) rows: u64,
    /// When the first began, milliseconds since 1970.
    pub(crate) from: u64,
    /// When the last ended.
    pub(crate) until: u64,
    /// The loudest that a device said of them: `quiet`, `warn` or `page`.
    pub(crate) level: String,
    /// How right the answers were, where the truth came to be known, and what is thought of it without.
    pub(crate) performance: PerformanceView,
    /// Feature by feature, in the order of the baseline; empty when land does not have the bundle any more.
    pub(crate) features: Vec<DriftFeatureView>,
}

/// How right answers were.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct PerformanceView {
    /// Answers whose class is known to be right or wrong.
    pub(crate) classes: u64,
    /// The share of them that was right.
    pub(crate) accuracy: Option<f64>,
    /// By how much confidence and accuracy differ, on average over ten bins of confidence (the expected calibration error).
    pub(crate) calibration_error: Option<f64>,
    /// An ESTIMATE of the accuracy of all answers, from their confidence alone: as good as that is calibrated.
    pub(crate) estimated_accuracy: Option<f64>,
    /// Answers whose value was held against the true one.
    pub(crate) values: u64,
    /// The mean of their errors without sign.
    pub(crate) mean_absolute_error: Option<f64>,
    /// The root of the mean of the squares of their errors.
    pub(crate) root_mean_square_error: Option<f64>,
    /// Truths of answers that no device remembers.
    pub(crate) unknown: u64,
}

/// One feature beside its baseline.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct DriftFeatureView {
    /// Its name.
    pub(crate) name: String,
    /// The loudest that a device said of it.
    pub(crate) level: String,
    /// What that device would have somebody look at: a code, and the same in words.
    pub(crate) cause: Option<String>,
    /// In words.
    pub(crate) detail: Option<String>,
    /// Windows in which a device raised an alarm.
    pub(crate) alarmed_windows: u64,
    /// Standard deviations by which all of it surely differs, if rows are independent.
    pub(crate) effect: Option<f64>,
    /// Shown, never alarmed on.
    pub(crate) psi: Option<f64>,
    /// Shown, never alarmed on.
    pub(crate) jensen_shannon: Option<f64>,
    /// The share of values that are missing or not finite, when it was trained and now.
    pub(crate) missing: [Option<f64>; 2],
    /// The mean of the finite values, when it was trained and now.
    pub(crate) mean: [Option<f64>; 2],
    /// The least and the greatest value now.
    pub(crate) range: Option<[f32; 2]>,
    /// Edges between the bins; empty for categories.
    pub(crate) edges: Vec<f32>,
    /// Categories, the last slot being all others; empty for numbers.
    pub(crate) categories: Vec<String>,
    /// The share of each bin or category when it was trained.
    pub(crate) trained: Vec<f64>,
    /// And now.
    pub(crate) now: Vec<f64>,
}

/// An alarm that people hear of.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct DriftAlarmView {
    /// Its number.
    pub(crate) id: i64,
    /// The stream.
    pub(crate) stream: String,
    /// The device; absent for those that the budget of a day holds back.
    pub(crate) device: Option<String>,
    /// The feature.
    pub(crate) feature: String,
    /// The release that saw it last.
    pub(crate) release: u64,
    /// `warn` or `page`.
    pub(crate) level: String,
    /// What to look at first: a code.
    pub(crate) cause: String,
    /// The same in words.
    pub(crate) detail: String,
    /// Standard deviations by which it surely differed, at most.
    pub(crate) effect: f32,
    /// Windows in which it did.
    pub(crate) windows: u64,
    /// When it began, milliseconds since 1970.
    pub(crate) first: u64,
    /// When it was heard last.
    pub(crate) last: u64,
    /// Who has seen it.
    pub(crate) acknowledged_by: Option<String>,
    /// When.
    pub(crate) acknowledged_at: Option<u64>,
}

/// The word of a level.
pub(crate) fn word(level: Option<AlarmLevel>) -> String {
    match level {
        None => "quiet",
        Some(AlarmLevel::Warn) => "warn",
        Some(AlarmLevel::Page) => "page",
    }
    .to_owned()
}

impl DriftGroupView {
    /// A group beside its baseline, where that is known; of `only` one feature, or of all.
    pub(crate) fn new(group: &Group, baseline: Option<&Baseline>, only: Option<&str>) -> Self {
        let features = baseline.and_then(|baseline| {
            let judged = group.against(baseline).ok()?;
            let all = baseline.features.iter().zip(&group.summary.features).zip(judged.features);
            let wanted = all.filter(|((feature, _), _)| only.is_none_or(|name| name == feature.name));
            Some(
                wanted
                    .map(|((feature, tally), finding)| DriftFeatureView::new(group, feature, tally, &finding))
                    .collect(),
            )
        });
        Self {
            key: group.key.clone(),
            release: group.release,
            bundle: group.bundle.to_string(),
            devices: group.devices.iter().map(ToString::to_string).collect(),
            windows: group.summary.windows,
            rows: group.summary.rows,
            from: group.from,
            until: group.until,
            level: word(group.alarms.values().map(|alarm| alarm.level).max()),
            performance: PerformanceView::new(group, baseline),
            features: features.unwrap_or_default(),
        }
    }
}

impl PerformanceView {
    fn new(group: &Group, baseline: Option<&Baseline>) -> Self {
        let performance = &group.performance;
        let (classes, right) = performance.classes();
        let share = |sum: f64, count: u64| (count > 0).then(|| sum / count as f64);
        let apart = performance.calibration.iter().map(|bin| (bin.score as f64 / 1e6 - bin.right as f64).abs()).sum();
        let confidence = baseline.and_then(|baseline| {
            let at = baseline.features.iter().position(|feature| feature.name == "answer.score")?;
            let (mean, _) = group.summary.features.get(at)?.moments(&baseline.features[at])?;
            Some(mean).filter(|mean| (0.0..=1.0).contains(mean))
        });
        Self {
            classes,
            accuracy: share(right as f64, classes),
            calibration_error: share(apart, classes),
            estimated_accuracy: confidence,
            values: performance.values,
            mean_absolute_error: share(performance.absolute, performance.values),
            root_mean_square_error: share(performance.squared, performance.values).map(f64::sqrt),
            unknown: performance.unknown,
        }
    }

    /// In words; `None` where nothing is known or thought.
    pub(crate) fn told(&self) -> Option<String> {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let mut parts = Vec::new();
        if let (Some(accuracy), Some(apart)) = (self.accuracy, self.calibration_error) {
            let (accuracy, apart) = (percent(accuracy), percent(apart));
            parts.push(format!(
                "accuracy {accuracy} of {} answers with a label, calibration error {apart}",
                self.classes
            ));
        }
        if let (Some(absolute), Some(squares)) = (self.mean_absolute_error, self.root_mean_square_error) {
            parts.push(format!(
                "{} values with a label: mean absolute error {absolute:.4}, root mean square {squares:.4}",
                self.values
            ));
        }
        if self.unknown > 0 {
            parts.push(format!("{} labels of answers that no device remembers", self.unknown));
        }
        if let Some(estimate) = self.estimated_accuracy {
            parts.push(format!("accuracy ESTIMATED from confidence alone: {}", percent(estimate)));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl DriftFeatureView {
    fn new(group: &Group, feature: &Feature, tally: &Tally, finding: &Finding) -> Self {
        let alarm = group.alarms.get(&feature.name);
        let share = |some: u64, all: u64| (all > 0).then(|| some as f64 / all as f64);
        let shares = |counts: &[u64]| {
            let all = counts.iter().sum::<u64>().max(1) as f64;
            counts.iter().map(|count| *count as f64 / all).collect()
        };
        Self {
            name: feature.name.clone(),
            level: word(alarm.map(|alarm| alarm.level)),
            cause: alarm.map(|alarm| alarm.cause.clone()),
            detail: alarm.map(|alarm| alarm.detail.clone()),
            alarmed_windows: alarm.map_or(0, |alarm| alarm.windows),
            effect: Some(finding.effect).filter(|effect| effect.is_finite()),
            psi: finding.psi,
            jensen_shannon: finding.jensen_shannon,
            missing: [share(feature.not_finite(), feature.count), share(tally.not_finite(), tally.count())],
            mean: [feature.spread.map(|spread| spread.mean), tally.moments(feature).map(|(mean, _)| mean)],
            range: tally.extremes.map(|extremes| [extremes.min, extremes.max]),
            edges: feature.edges.clone(),
            categories: feature.categories.clone(),
            trained: shares(&feature.counts),
            now: shares(&tally.counts),
        }
    }
}

impl DriftAlarmView {
    /// An alarm by its number.
    pub(crate) fn new((id, concern): (i64, Concern)) -> Self {
        let (acknowledged_by, acknowledged_at) = concern.acknowledged.unzip();
        Self {
            id,
            stream: concern.stream.to_string(),
            device: concern.device.map(|device| device.to_string()),
            feature: concern.feature,
            release: concern.release,
            level: word(Some(concern.level)),
            cause: concern.cause,
            detail: concern.detail,
            effect: concern.effect,
            windows: concern.windows,
            first: concern.first,
            last: concern.last,
            acknowledged_by,
            acknowledged_at,
        }
    }
}
