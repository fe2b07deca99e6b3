//! How often strangers may knock: what needs no token of a person must not cost the bridge its time.
//!
//! Failures are counted by address, and what was admitted together, in windows of a minute. An address that may
//! not ask takes nothing from the others. Only who was admitted can fail, so memory is bounded by the requests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
/// Failures of one address in a window.
const FAILURES: u32 = 20;
/// Requests for certificates of all addresses in a window.
pub(super) const REQUESTS: u32 = 1_200;

/// Requests of one person in a window.
const OF_ONE_PERSON: u32 = 12_000;

/// Counts for the window under way.
#[derive(Debug)]
pub(super) struct Limiter {
    requests: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    requests: u32,
    failures: BTreeMap<IpAddr, u32>,
}

impl Limiter {
    /// All addresses may ask so often together.
    pub(super) fn new(requests: u32) -> Self {
        let window = Window { began: Instant::now(), requests: 0, failures: BTreeMap::new() };
        Self { requests, window: Mutex::new(window) }
    }

    /// Whether `address` may ask now.
    pub(super) fn admits(&self, address: IpAddr, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.began) >= WINDOW {
            *window = Window { began: now, requests: 0, failures: BTreeMap::new() };
        }
        let failures = window.failures.get(&address).copied().unwrap_or_default();
        let admitted = window.requests < self.requests && failures < FAILURES;
        window.requests += u32::from(admitted);
        admitted
    }

    /// `address` was admitted, and asked in vain.
    pub(super) fn failed(&self, address: IpAddr) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        *window.failures.entry(address).or_default() += 1;
    }
}

/// How often each person may ask: a script that went wild must not stop the others. Only names that hold a token are
/// counted, so memory is bounded by them.
#[derive(Debug)]
pub(super) struct Turns(Mutex<(Instant, BTreeMap<Arc<str>, u32>)>);

impl Turns {
    /// Nobody has asked yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new((Instant::now(), BTreeMap::new())))
    }

    /// Whether `person` may ask now.
    pub(super) fn admits(&self, person: &Arc<str>, now: Instant) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.0) >= WINDOW {
            *window = (now, BTreeMap::new());
        }
        let asked = window.1.entry(person.clone()).or_default();
        *asked = asked.saturating_add(1);
        *asked <= OF_ONE_PERSON
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_fails_too_often_waits_and_nobody_else() {
        let limiter = Limiter::new(REQUESTS);
        let (stranger, device) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let now = Instant::now();
        for _ in 0..FAILURES {
            assert!(limiter.admits(stranger, now));
            limiter.failed(stranger);
        }
        // However often it goes on knocking, there is room for the others.
        assert!((0..2 * REQUESTS).all(|_| !limiter.admits(stranger, now)));
        assert!(limiter.admits(device, now));
        assert!(limiter.admits(stranger, now + WINDOW));
    }

    #[test]
    fn a_person_who_asks_too_often_waits_and_nobody_else() {
        let (turns, now) = (Turns::new(), Instant::now());
        let [anna, bert]: [Arc<str>; 2] = ["anna".into(), "bert".into()];
        assert!((0..OF_ONE_PERSON).all(|_| turns.admits(&anna, now)));
        assert!(!turns.admits(&anna, now) && turns.admits(&bert, now) && turns.admits(&anna, now + WINDOW));
    }

    #[test]
    fn all_together_are_bounded() {
        let limiter = Limiter::new(REQUESTS);
        let now = Instant::now();
        let admitted = (0..REQUESTS + 10).filter(|n| limiter.admits(IpAddr::from(n.to_be_bytes()), now)).count();
        assert_eq!(admitted, REQUESTS as usize);
    }
}
