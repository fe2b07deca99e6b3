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

/// What came of one release for a whole fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Devices, all of which it was for.
    pub devices: usize,
    /// Those that confirmed it.
    pub confirmed: usize,
    /// Bytes of the bundle.
    pub bundle: u64,
    /// Bytes of chunks that land published.
    pub published: u64,
    /// Milliseconds from the start of the rollout to its end.
    pub took_ms: u64,
    /// How the world ended.
    pub outcome: Outcome,
}

/// Two releases for `devices` devices with real cores, which are asked all the time: the second one is judged by what they
/// tell, and fails three times as often when it is `bad`. Says who had it, whether it was stopped, and how the world ended.
pub fn judge(seed: u64, devices: usize, bad: bool) -> (usize, bool, Outcome) {
    let mut world = World::of_judgement(seed, devices, bad);
    let outcome = world.live_on();
    let second = world.checks.rollouts().values().next_back();
    let (hit, completed) = second.map_or((0, false), |r| (r.hit(), r.phase == bridge_core::Phase::Completed));
    (hit, !completed, outcome)
}

/// Brings one bundle of `chunks` chunks to `devices` devices at once, over links that break, through a broker that takes ten
/// subscriptions of a client.
pub fn deliver(seed: u64, devices: usize, chunks: usize) -> Delivered {
    let mut world = World::of_one_rollout(seed, devices, chunks);
    let outcome = world.live_on();
    let confirmed = world.checks.rollouts().values().map(|rollout| rollout.count(protocol::Outcome::Confirmed)).sum();
    let took = |r: &bridge_core::Rollout| r.ended.unwrap_or(r.started).saturating_sub(r.started);
    let took_ms = world.checks.rollouts().values().map(took).max().unwrap_or(0);
    let bundle = world.library.bundles.values().map(|bundle| bundle.total_size).sum();
    Delivered { devices, confirmed, bundle, published: world.land.chunk_bytes, took_ms, outcome }
}
