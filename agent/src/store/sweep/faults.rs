//! T75 and T76: every operation of the disk fails, once or until somebody frees space.

use super::device::Broken;
use super::disk::{Asked, Sim, Trouble};
use super::land::Flow;
use super::{Effort, base, ended_well, go, lost, recover, sweep};
use rustix::io::Errno;

#[test]
fn t75_every_operation_may_fail_in_every_way() {
    let effort = Effort::of("PETREL_FAULTS", 60);
    assert!(sweep("injected faults", effort, |flow, effort| every_operation(flow, effort, troubles)) >= 400);
}

#[test]
fn t76_what_a_sync_lost_is_written_anew() {
    let effort = Effort::of("PETREL_FAULTS", usize::MAX);
    assert!(sweep("failed syncs", effort, |flow, effort| every_operation(flow, effort, lost_syncs)) >= 50);
}

/// What can go wrong with an operation.
fn troubles(asked: Asked) -> Vec<Trouble> {
    let full = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS];
    let once = full.into_iter().chain([Errno::IO]).map(Trouble::Once);
    let lasting = full.into_iter().map(Trouble::From);
    match asked {
        Asked::Read => vec![Trouble::Once(Errno::IO)],
        Asked::Change | Asked::Sync | Asked::SyncDir => once.chain(lasting).collect(),
        Asked::Write => once.chain(lasting).chain([Trouble::Short]).collect(),
    }
}

fn lost_syncs(asked: Asked) -> Vec<Trouble> {
    match asked {
        Asked::Sync | Asked::SyncDir => vec![Trouble::Once(Errno::IO)],
        Asked::Read | Asked::Change | Asked::Write => Vec::new(),
    }
}

/// The flow with one trouble at a time, at each of its operations. The device gets to the end all the
/// same, and then the power goes: at the worst moment, which is when nothing in doubt is kept, and at
/// another one that chance says.
fn every_operation(flow: &'static Flow, effort: Effort, troubles: fn(Asked) -> Vec<Trouble>) -> Result<usize, Broken> {
    let (world, past) = base(flow)?;
    let asked = go(flow, Sim::of(world.clone()), past.clone())?.disk.asked();
    let mut all: Vec<(usize, Trouble)> = Vec::new();
    for (event, asked) in asked.into_iter().enumerate() {
        all.extend(troubles(asked).into_iter().map(|trouble| (event, trouble)));
    }
    let mut dice = fastrand::Rng::with_seed(effort.seed);
    dice.shuffle(&mut all);
    all.truncate(effort.most);
    for (event, trouble) in &all {
        let (world, past) = (world.clone(), past.clone());
        one(flow, Sim::of(world), past, (*event, *trouble), &mut dice)
            .map_err(|why| format!("{trouble:?} at operation {event}: {why}"))?;
    }
    Ok(all.len())
}

fn one(
    flow: &'static Flow,
    disk: Sim,
    past: super::Past,
    (event, trouble): (usize, Trouble),
    dice: &mut fastrand::Rng,
) -> Result<(), Broken> {
    disk.plan(event, trouble);
    let device = go(flow, disk, past)?;
    if !device.disk.was_struck() {
        return Err("nothing went wrong".into());
    }
    let states = device.disk.journal();
    let end = states.len() - 1;
    for moment in [end, dice.usize(..=end)] {
        let rest = device.past.until(moment);
        let told = |why: Broken| format!("and the power went at moment {moment} of {end}: {why}");
        recover(flow, lost(&states[moment]), rest).map_err(told)?;
    }
    // What could not be removed goes at the next start at the latest.
    let restarted = go(flow, Sim::of(states[end].clone()), device.past.until(end))?;
    ended_well(&restarted, flow)
}
