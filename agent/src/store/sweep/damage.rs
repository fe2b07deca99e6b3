//! T77 and T78: bits flip in what is stored, and slots go.

use super::device::{Broken, Device, Past, STATE};
use super::disk::Sim;
use super::land::Flow;
use super::world::World;
use super::{Effort, base, ended_well, sweep};
use crate::identity::FileKey;

use protocol::Verdict;
use std::path::Path;
use trust::Code;

#[test]
fn t77_one_bit_flipped_in_any_stored_byte_is_found_and_mended() {
    let effort = Effort::of("PETREL_FLIPS", 60);
    assert!(sweep("flipped bits", effort, every_byte) >= 200);
}

/// One bit of every byte that the device keeps, one at a time.
fn every_byte(flow: &'static Flow, effort: Effort) -> Result<usize, Broken> {
    let (world, past) = base(flow)?;
    let mut dice = fastrand::Rng::with_seed(effort.seed);
    let mut all = Vec::new();
    for (path, content) in world.files().into_iter().filter(|(path, _)| !path.ends_with("/mine")) {
        let mut bytes: Vec<usize> = (0..content.len()).collect();
        dice.shuffle(&mut bytes);
        all.extend(bytes.into_iter().enumerate().map(|(turn, byte)| (turn, path.clone(), byte, dice.u32(..8))));
    }
    // Every file has its turn, however small it is.
    all.sort();
    all.truncate(effort.most);
    for (_, path, byte, bit) in &all {
        let mut damaged = world.clone();
        damaged.flip(Path::new(path), *byte, *bit);
        one(flow, damaged, past.clone(), path).map_err(|why| format!("bit {bit} of byte {byte} of {path}: {why}"))?;
    }
    Ok(all.len())
}

fn one(flow: &'static Flow, damaged: World, mut past: Past, path: &str) -> Result<(), Broken> {
    let disk = Sim::of(damaged);
    if path.ends_with("device.key") {
        return match FileKey::open_or_make(&disk, &Path::new(STATE).join("device.key")) {
            Err(fault) if fault.advice().is_some() => Ok(()),
            other => Err(format!("the key is {other:?}")),
        };
    }
    if path.contains("ledger.") {
        past.forget_one();
    }
    let mut device = Device::new(flow, disk, past);
    device.damaged = true;
    device.live(flow.before.len() + flow.wishes.len())?;
    // A key id that was changed in an envelope makes its signature a stranger's: nobody can tell.
    let strange = |(_, verdict): &(usize, Verdict)| verdict.code.as_deref() == Some(Code::Threshold.as_str());
    match ended_well(&device, flow) {
        Err(_) if path.ends_with("bundle.dsse.json") && device.past.verdicts.iter().any(strange) => Ok(()),
        ended => ended,
    }
}
