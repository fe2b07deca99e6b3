//! What was measured: the training baseline, the windows of a device counted against it, and whether they differ.
//!
//! Decides how values become counts, how counts become one, what differs by chance and what does not, and what
//! a person is told of it. It is pure arithmetic; it deliberately does not know where values come from, who signed a
//! baseline, how long a window is, or who is to be woken. docs/drift.md has the conventions.

mod baseline;
mod basis;
mod bits;
mod canary;
mod cause;
mod compare;
mod detector;
mod discovery;
mod dispersion;
mod distances;
mod encode;
mod feature;
mod fisher;
mod homogeneity;
mod judge;
mod monitor;
mod special;
mod summary;
mod tally;
mod window;

pub use baseline::{BASELINE_VERSION, Baseline, BaselineError, MAX_FEATURES};
pub use canary::{
    ADVISED_CANARIES, CANARY_ALPHA, Devices, exceeds_share, grew, grew_above, grew_from_before, grew_share,
};
pub use cause::Cause;
pub use compare::{CompareError, Comparison, Figures, Pair, Side, compare};
pub use detector::{Detector, THRESHOLD};
pub use discovery::discovered;
pub use dispersion::{Dispersion, LEARNED_WINDOWS, LEAST_WINDOWS, MOST_DISPERSION};
pub use distances::{Binned, jensen_shannon, ks_on_bins, psi, wasserstein_on_bins};
pub use encode::{DecodeError, MAX_SUMMARY_BYTES, SUMMARY_VERSION};
pub use feature::{Column, Feature, MAX_CATEGORIES, Spread, VALUE_BINS};
pub use fisher::fisher_exact;
pub use homogeneity::{Test, chi_squared, merged_chi_squared, smooth};
pub use judge::{
    Doubt, Finding, Judgement, Known, LEAST_EFFECT, LEAST_ROWS, Level, PAGE_RATE, WARN_RATE, judge, judge_against,
};
pub use monitor::{Closed, Memory, Monitor};
pub use summary::{MAX_ROWS, Summary, SummaryError};
pub use tally::{Extremes, Tally};
pub use window::{MAX_WINDOW_ROWS, RowError, Window};
