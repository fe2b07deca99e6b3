//! A device's drift in one place: rows go in, at the end of each window a summary and a judgement come out.
//!
//! Decides what is kept between windows: how each feature varies, and the evidence of gradual drift. What must outlive
//! a power cut is [`Memory`]; the hands keep it. Knows no time.

use crate::baseline::Baseline;
use crate::detector::{Detector, SIDES, THRESHOLD};
use crate::dispersion::{Dispersion, LEARNED_WINDOWS};
use crate::judge::{Judgement, Known, Level, judge};
use crate::summary::{Summary, SummaryError};
use crate::window::{RowError, Window};
use serde::{Deserialize, Serialize};

/// Watches the rows of one model.
#[derive(Debug, Clone)]
pub struct Monitor {
    baseline: Baseline,
    window: Window,
    learned: Vec<Dispersion>,
    /// One for each feature, once all that can be learned of how it varies is.
    detectors: Vec<Option<Detector>>,
    gradual: Vec<bool>,
}

/// What must outlive a power cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    fingerprint: u64,
    learned: Vec<Dispersion>,
    evidence: Vec<[f64; SIDES]>,
}

impl Memory {
    /// Of the baseline: [`Baseline::fingerprint`].
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// A closed window.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// What it saw.
    pub summary: Summary,
    /// What that means.
    pub judgement: Judgement,
}

impl Monitor {
    /// Begins with a baseline, knowing nothing else.
    pub fn new(baseline: Baseline) -> Self {
        let count = baseline.features.len();
        let learned = vec![Dispersion::default(); count];
        let window = Window::new(&baseline);
        Self { window, learned, detectors: vec![None; count], gradual: vec![false; count], baseline }
    }

    /// Goes on with what was remembered. What is of another baseline, or cannot have been learned, is an error and
    /// changes nothing: the caller goes on without it.
    ///
    /// # Errors
    /// `OtherBaseline`.
    pub fn remember(&mut self, memory: Memory) -> Result<(), SummaryError> {
        let count = self.baseline.features.len();
        let sound = memory.learned.iter().all(Dispersion::is_sound)
            && memory.evidence.iter().flatten().all(|evidence| evidence.is_finite() && *evidence >= 0.0);
        let same = memory.fingerprint == self.baseline.fingerprint()
            && memory.learned.len() == count
            && memory.evidence.len() == count;
        if !(sound && same) {
            return Err(SummaryError::OtherBaseline);
        }
        self.learned = memory.learned;
        self.watch();
        for (detector, evidence) in self.detectors.iter_mut().zip(memory.evidence) {
            if let Some(detector) = detector {
                detector.resume(evidence);
            }
        }
        Ok(())
    }

    /// What must outlive a power cut; it changes with each closed window.
    pub fn memory(&self) -> Memory {
        let evidence = |detector: &Option<Detector>| detector.as_ref().map_or([0.0; SIDES], Detector::evidence);
        Memory {
            fingerprint: self.baseline.fingerprint(),
            learned: self.learned.clone(),
            evidence: self.detectors.iter().map(evidence).collect(),
        }
    }

    /// The baseline.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Rows of the open window.
    pub fn rows(&self) -> u32 {
        self.window.rows()
    }

    /// Takes one row; see [`Window::update`]. Takes no memory.
    ///
    /// # Errors
    /// As there.
    pub fn update(&mut self, row: &[f32]) -> Result<(), RowError> {
        let (detectors, gradual) = (&mut self.detectors, &mut self.gradual);
        self.window.update_seen(row, |feature, slot| {
            if let Some(detector) = &mut detectors[feature] {
                gradual[feature] |= detector.update(slot);
            }
        })
    }

    /// Ends the window, judges it, learns from it, and begins the next.
    pub fn close(&mut self) -> Closed {
        let summary = self.window.close();
        let judged = judge(&self.baseline, &summary, Known::Learned(&self.learned));
        let mut judgement = judged.expect("our own window is of our own baseline");
        for (at, gradual) in self.gradual.iter_mut().enumerate() {
            let finding = &mut judgement.features[at];
            finding.gradual = std::mem::take(gradual);
            if finding.gradual && finding.level == Level::Quiet {
                finding.level = Level::Warn;
                finding.name_cause(&self.baseline.features[at], &summary.features[at]);
                judgement.level = judgement.level.max(Level::Warn);
            }
        }
        for ((feature, tally), learned) in self.baseline.features.iter().zip(&summary.features).zip(&mut self.learned) {
            learned.learn(feature, tally);
        }
        self.watch();
        Closed { summary, judgement }
    }

    /// Begins to watch for gradual drift where the dispersion is learned.
    ///
    /// A false alarm of any feature is one of the model: each has the threshold of all.
    fn watch(&mut self) {
        let threshold = THRESHOLD * self.baseline.features.len() as f64;
        for ((feature, learned), detector) in self.baseline.features.iter().zip(&self.learned).zip(&mut self.detectors)
        {
            if detector.is_none() && learned.windows() >= LEARNED_WINDOWS {
                *detector = Detector::new(feature, learned.along(0), threshold);
            }
        }
    }
}
