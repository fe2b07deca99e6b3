//! What was measured: the training baseline that drift is told from.
//!
//! Decides how a feature's values become counts in bins: edges by `inverted_cdf`, bins closed on
//! the right, and slots for what bins cannot see. It is pure arithmetic; it deliberately does not
//! know where values come from, who signed a baseline, or what counts as an alarm.

mod baseline;
mod feature;

pub use baseline::{BASELINE_VERSION, Baseline, BaselineError, MAX_FEATURES};
pub use feature::{Feature, Spread, VALUE_BINS};
