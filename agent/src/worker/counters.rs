//! What a release did, counted without a lock.

use protocol::{LATENCY_BOUNDS_US, LATENCY_BUCKETS};
use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters that many threads raise and one takes down.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    errors: AtomicU64,
    took_us: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS],
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Requests that the model could not answer.
    pub(crate) errors: u64,
    /// Microseconds that the answers took together.
    pub(crate) took_us: u64,
    /// Answers by [`LATENCY_BOUNDS_US`].
    pub(crate) latency: [u64; LATENCY_BUCKETS],
}

impl Counters {
    pub(crate) fn answered(&self, took: Duration) {
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| u128::from(*bound) < took.as_micros());
        self.latency[bucket].fetch_add(1, Ordering::Relaxed);
        self.took_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted since the last call.
    pub(crate) fn take(&self) -> Counts {
        Counts {
            errors: self.errors.swap(0, Ordering::Relaxed),
            took_us: self.took_us.swap(0, Ordering::Relaxed),
            latency: array::from_fn(|bucket| self.latency[bucket].swap(0, Ordering::Relaxed)),
        }
    }
}

impl Counts {
    /// Answers given.
    pub(crate) fn answers(&self) -> u64 {
        self.latency.iter().sum()
    }

    /// Whether nothing was counted.
    pub(crate) fn is_zero(&self) -> bool {
        self.errors == 0 && self.answers() == 0
    }

    /// Both together.
    pub(crate) fn add(&mut self, more: &Counts) {
        self.errors += more.errors;
        self.took_us = self.took_us.saturating_add(more.took_us);
        self.latency.iter_mut().zip(more.latency).for_each(|(sum, n)| *sum += n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_falls_into_the_first_bucket_that_bounds_it() {
        let cases = [(0, 0), (50, 0), (51, 1), (1_000, 4), (1_001, 5), (5_000_000, 14), (5_000_001, 15)];
        for (micros, bucket) in cases {
            let counters = Counters::default();
            counters.answered(Duration::from_micros(micros));
            let counts = counters.take();
            assert_eq!((counts.latency[bucket], counts.answers(), counts.took_us), (1, 1, micros), "{micros} us");
            assert!(counters.take().is_zero(), "taken once");
        }
    }
}
