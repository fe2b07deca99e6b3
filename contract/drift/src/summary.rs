//! A summary: what one closed window saw, or many of them, of one device or of a fleet.
//!
//! Decides which summaries may become one, and that the order in which they do never matters.

use crate::baseline::Baseline;
use crate::tally::Tally;
use std::fmt;

/// The most rows of a summary: what the sums of moments hold without a check on each.
pub const MAX_ROWS: u64 = 1 << 36;

/// Counts against a baseline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Of the baseline: [`Baseline::fingerprint`].
    pub fingerprint: u64,
    /// Rows that were seen.
    pub rows: u64,
    /// Windows that became this summary.
    pub windows: u64,
    /// One for each feature of the baseline.
    pub features: Vec<Tally>,
}

/// Why two summaries are not one, or a summary is not of a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SummaryError {
    /// They were counted in other bins.
    OtherBaseline,
    /// Together they have more than [`MAX_ROWS`].
    TooManyRows,
}

impl fmt::Display for SummaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SummaryError::OtherBaseline => "the summary was counted against another baseline",
            SummaryError::TooManyRows => "the summaries have too many rows to be one",
        })
    }
}

impl std::error::Error for SummaryError {}

impl Summary {
    /// Nothing seen: what merging begins with.
    pub fn empty(baseline: &Baseline) -> Self {
        let features = baseline.features.iter().map(|feature| Tally::empty(feature.counts.len())).collect();
        Self { fingerprint: baseline.fingerprint(), rows: 0, windows: 0, features }
    }

    /// Adds what another saw. The result is the same bit by bit in any order and any grouping.
    ///
    /// # Errors
    /// When they are not of one baseline, or have too many rows. Nothing was added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), SummaryError> {
        let slots = |(mine, theirs): (&Tally, &Tally)| mine.counts.len() == theirs.counts.len();
        let same = self.fingerprint == other.fingerprint && self.features.len() == other.features.len();
        if !same || !self.features.iter().zip(&other.features).all(slots) {
            return Err(SummaryError::OtherBaseline);
        }
        let sum = |a: u64, b: u64| a.checked_add(b).filter(|n| *n <= MAX_ROWS).ok_or(SummaryError::TooManyRows);
        let (rows, windows) = (sum(self.rows, other.rows)?, sum(self.windows, other.windows)?);
        for (mine, theirs) in self.features.iter_mut().zip(&other.features) {
            mine.merge(theirs);
        }
        (self.rows, self.windows) = (rows, windows);
        Ok(())
    }

    /// Whether it was counted against this baseline: what must be asked of a summary that came from elsewhere.
    ///
    /// # Errors
    /// `OtherBaseline`.
    pub fn fits(&self, baseline: &Baseline) -> Result<(), SummaryError> {
        let slots = baseline.features.iter().map(|feature| feature.counts.len());
        let fits = self.fingerprint == baseline.fingerprint()
            && slots.eq(self.features.iter().map(|tally| tally.counts.len()))
            && baseline.features.iter().zip(&self.features).all(|(feature, tally)| {
                let numeric = tally.extremes.is_some() || tally.sum != 0 || tally.squares != 0 || tally.below != 0;
                !(feature.is_categorical() && numeric) && (feature.is_categorical() || tally.has_extremes())
            });
        if fits { Ok(()) } else { Err(SummaryError::OtherBaseline) }
    }

    /// What cannot have been counted.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        if self.rows > MAX_ROWS || self.windows > MAX_ROWS {
            return Some("it has more rows than a summary may have");
        }
        let unequal = self.features.iter().any(|tally| tally.count() != self.rows);
        let of_features = || self.features.iter().find_map(Tally::contradiction);
        if unequal { Some("its counts do not add up to its rows") } else { of_features() }
    }
}
