//! The deterministic simulation: real cores among modelled hands, one story for each seed.
//!
//! `scenario` says what is tried, `faults` what goes wrong, `broker`, `device` and `land` are the
//! modelled hands, `world` moves the clock, and `check` says what must hold, knowing nothing of why.

mod broker;
mod by_hand;
mod check;
mod device;
mod faults;
mod land;
mod scenario;
mod world;

pub use by_hand::ByHand;
pub use check::Violation;

use world::World;

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Steps of all cores together.
    pub steps: u64,
    /// Crashes of devices and of the bridge.
    pub crashes: u64,
    /// Rollouts that were completed, and that were stopped.
    pub rollouts: (usize, usize),
    /// Milliseconds of the world until it came to rest.
    pub elapsed_ms: u64,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
}

/// Lives one world through until it comes to rest, or breaks a rule.
pub fn run(seed: u64) -> Outcome {
    World::new(seed, false).live().0
}

/// The same, with a line for each thing that happened.
pub fn run_traced(seed: u64) -> (Outcome, Vec<String>) {
    World::new(seed, true).live()
}
