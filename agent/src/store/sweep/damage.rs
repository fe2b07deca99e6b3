//! T77 and T78: bits flip in what is stored, and slots go.

use super::device::{Broken, Past, STATE};
use super::disk::Sim;
use super::land::Flow;
use super::world::World;
use super::{Effort, base, ended_well, go, sweep};
use crate::key::Signer;

use std::path::Path;

#[test]
fn t77_one_bit_flipped_in_any_stored_byte_is_found_and_mended() {
    let effort = Effort::of("PETREL_FLIPS", 60);
    assert!(sweep("flipped bits", effort, every_byte) >= 200);
}

/// One bit of every byte that the device keeps, one at a time; the ledger and the key every bit.
fn every_byte(flow: &'static Flow, effort: Effort) -> Result<usize, Broken> {
    let (world, past) = base(flow)?;
    let mut dice = fastrand::Rng::with_seed(effort.seed);
    let mut all = Vec::new();
    for (path, content) in world.files() {
        if path.ends_with("/mine") {
            continue;
        }
        all.extend((0..content.len()).map(|byte| (path.clone(), byte, dice.u32(..8))));
    }
    dice.shuffle(&mut all);
    all.truncate(effort.most);
    for (path, byte, bit) in &all {
        let mut damaged = world.clone();
        damaged.flip(Path::new(path), *byte, *bit);
        one(flow, damaged, past.clone(), path).map_err(|why| format!("bit {bit} of byte {byte} of {path}: {why}"))?;
    }
    Ok(all.len())
}

fn one(flow: &'static Flow, damaged: World, mut past: Past, path: &str) -> Result<(), Broken> {
    let disk = Sim::of(damaged);
    if path.ends_with("device.key") {
        return match Signer::open(&disk, Path::new(STATE)) {
            Err(fault) if fault.advice().is_some() => Ok(()),
            other => Err(format!("the key is {other:?}")),
        };
    }
    if path.contains("ledger.") {
        past.forget_one();
    }
    let device = go(flow, disk, past)?;
    ended_well(&device, flow)
}
