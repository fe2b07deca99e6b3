//! T72 and T74: the power goes, or the agent is killed, at every moment.

use super::super::ledger::{LedgerStore, Recalled};
use super::device::{Broken, Past, STATE};
use super::disk::Sim;
use super::land::Flow;
use super::world::World;
use super::{Effort, base, ended_well, go, lost, recover, sweep};
use agent_core::MAX_TRIAL_BOOTS;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// Power cuts in a row.
const DEPTH: usize = 3;
/// After so many rounds without anything new, or as many as states are asked for, all was seen.
const IDLE: usize = 200;

/// What was seen of a flow, and its dice.
struct Explorer {
    flow: &'static Flow,
    dice: fastrand::Rng,
    seen: HashSet<(u64, usize, usize)>,
    ends: HashSet<u64>,
}

#[test]
fn t72_t74_the_power_may_go_at_every_moment_of_every_flow() {
    let effort = Effort::of("PETREL_CRASH_STATES", 100);
    assert!(sweep("crash states", effort, every_moment) >= 500);
}

/// Every moment of the flow with everything in doubt lost, with everything kept, and with the agent
/// killed and the disk as it was; then what chance says, until `effort` is spent.
fn every_moment(flow: &'static Flow, effort: Effort) -> Result<usize, Broken> {
    let (world, past) = base(flow)?;
    let device = go(flow, Sim::of(world), past)?;
    ended_well(&device, flow)?;
    let (states, past) = (device.disk.journal(), device.past);
    let dice = fastrand::Rng::with_seed(effort.seed);
    let mut explorer = Explorer { flow, dice, seen: HashSet::new(), ends: HashSet::new() };
    for (moment, state) in states.iter().enumerate() {
        let count = state.doubts().len();
        for left in [lost(state), state.cut(&vec![1; count]), state.clone()] {
            explorer.visit(left, past.until(moment), 0).map_err(|why| format!("at moment {moment}: {why}"))?;
        }
    }
    let mut idle = 0;
    while explorer.seen.len() < effort.most && idle < effort.most.max(IDLE) {
        let before = explorer.seen.len();
        let moment = explorer.dice.usize(..states.len());
        explorer.fall(&states, &past, moment, DEPTH)?;
        idle = if explorer.seen.len() == before { idle + 1 } else { 0 };
    }
    Ok(explorer.seen.len())
}

/// One more start takes the release on trial back, which is another end than the flow's.
fn ends_trial(left: &World) -> bool {
    match LedgerStore::open(Arc::new(Sim::of(left.clone())), Path::new(STATE)) {
        Ok((_, Recalled::Whole(ledger))) => {
            ledger.streams.values().any(|s| s.trial.is_some_and(|t| t.boots >= MAX_TRIAL_BOOTS))
        }
        Ok((_, Recalled::Never | Recalled::Lost)) | Err(_) => false,
    }
}

impl Explorer {
    /// The power goes at a moment and leaves what chance says.
    fn fall(&mut self, states: &[World], past: &Past, moment: usize, depth: usize) -> Result<(), Broken> {
        let state = &states[moment];
        let killed = self.dice.u8(..8) == 0;
        let choice: Vec<u32> = state.doubts().into_iter().map(|ways| self.dice.u32(..ways)).collect();
        let left = if killed { state.clone() } else { state.cut(&choice) };
        let how = if killed { "killed".into() } else { format!("left {choice:?}") };
        self.visit(left, past.until(moment), depth).map_err(|why| format!("at moment {moment}, {how}: {why}"))
    }

    /// The device goes on from what is left, to the end; on its way the power may go again.
    fn visit(&mut self, left: World, past: Past, depth: usize) -> Result<(), Broken> {
        if ends_trial(&left) {
            return Ok(());
        }
        let saved = past.ledgers.iter().filter(|(_, done, _)| done.is_some()).count();
        if !self.seen.insert((left.print(), saved, past.said.len())) {
            return Ok(());
        }
        let device = recover(self.flow, left, past)?;
        let states = device.disk.journal();
        let end = states.len() - 1;
        let left = lost(&states[end]);
        if self.ends.insert(left.print()) {
            recover(self.flow, left, device.past.until(end)).map_err(|why| format!("after its end: {why}"))?;
        }
        if depth > 0 {
            let moment = self.dice.usize(..states.len());
            self.fall(&states, &device.past, moment, depth - 1)?;
        }
        Ok(())
    }
}
