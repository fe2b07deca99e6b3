//! What arrives: how far each bundle is, and how fast it comes.
//!
//! Decides over which time a rate is measured. What is fetched, and from where, is not known here.

use crate::status::Progress;
use protocol::{Arriving, MAX_ARRIVING_ROWS};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use trust::Digest;

/// The time over which a rate is measured.
const LATELY: Duration = Duration::from_secs(10);

/// The bundles under way.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(BTreeMap<Digest, Arrival>);

#[derive(Debug, Default)]
struct Arrival {
    total: u64,
    /// What had arrived, and when; the oldest first.
    lately: VecDeque<(Instant, u64)>,
}

impl Arrivals {
    /// More of a bundle arrived.
    pub(crate) fn progressed(&mut self, now: Instant, bundle: Digest, arrived: u64, total: u64) {
        let arrival = self.0.entry(bundle).or_default();
        arrival.total = total;
        arrival.lately.push_back((now, arrived));
        while arrival.lately.front().is_some_and(|(at, _)| now.duration_since(*at) > LATELY) {
            arrival.lately.pop_front();
        }
    }

    /// A bundle is there, or is not fetched any more: `true` if it was under way.
    pub(crate) fn forget(&mut self, bundle: &Digest) -> bool {
        self.0.remove(bundle).is_some()
    }

    /// Nothing is under way any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// How far a bundle is.
    pub(crate) fn progress(&self, now: Instant, bundle: &Digest) -> Option<Progress> {
        self.0.get(bundle)?.progress(now)
    }

    /// How far each is, as land is told.
    pub(crate) fn rows(&self, now: Instant) -> Vec<Arriving> {
        let row = |(bundle, arrival): (&Digest, &Arrival)| {
            let Progress { arrived, total, rate } = arrival.progress(now)?;
            Some(Arriving { statement: bundle.0, arrived, total, rate })
        };
        self.0.iter().filter_map(row).take(MAX_ARRIVING_ROWS).collect()
    }
}

impl Arrival {
    fn progress(&self, now: Instant) -> Option<Progress> {
        let ((since, before), (_, arrived)) = (*self.lately.front()?, *self.lately.back()?);
        let took = u64::try_from(now.duration_since(since).as_millis()).unwrap_or(u64::MAX);
        let rate = arrived.saturating_sub(before).saturating_mul(1_000) / took.max(1);
        Some(Progress { arrived, total: self.total, rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_fades_when_nothing_comes() {
        let (mut arrivals, bundle, start) = (Arrivals::default(), Digest([1; 32]), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        arrivals.progressed(at(0), bundle, 5_000, 100_000);
        assert_eq!(arrivals.progress(at(0), &bundle), Some(Progress { arrived: 5_000, total: 100_000, rate: 0 }));
        for s in 1..=20 {
            arrivals.progressed(at(s), bundle, 5_000 + 1_000 * s, 100_000);
        }
        let rate = |arrivals: &Arrivals, s| arrivals.rows(at(s)).first().map(|row| row.rate);
        assert_eq!(rate(&arrivals, 20), Some(1_000));
        assert_eq!(rate(&arrivals, 30), Some(500));
        arrivals.progressed(at(40), bundle, 26_000, 100_000);
        assert_eq!(rate(&arrivals, 41), Some(0), "one look is no rate");
        assert!(arrivals.forget(&bundle) && !arrivals.forget(&bundle));
        assert_eq!(arrivals.rows(at(41)), []);
    }
}
