//! T77 and T78: bits flip in what is stored, and slots go.

use super::device::{Broken, Device, Past, STATE};
use super::disk::Sim;
use super::land::{FLOWS, Flow, Land};
use super::world::World;
use super::{Effort, base, ended_well, sweep};
use crate::identity::FileKey;

use agent_core::Phase;
use protocol::Verdict;
use std::path::Path;
use trust::Code;

#[test]
fn t77_one_bit_flipped_in_any_stored_byte_is_found_and_mended() {
    let effort = Effort::of("PETREL_FLIPS", 60);
    assert!(sweep("flipped bits", effort, every_byte) >= 200);
}

#[test]
fn t78_a_device_that_lost_both_slots_installs_nothing_until_it_is_fresh() {
    let flow = FLOWS.iter().find(|flow| flow.name == "upgrade").unwrap();
    let (mut world, past) = base(flow).unwrap();
    for slot in ["ledger.a", "ledger.b"] {
        world.flip(&Path::new(STATE).join(slot), 90, 3);
    }
    let forgotten = Past { ledgers: Vec::new(), verdicts: Vec::new(), said: Vec::new(), ..past };
    let mut device = Device::new(flow, Sim::of(world), forgotten);
    device.live(1).unwrap();
    assert_eq!(device.served, None);
    let held = |phase: &Phase| matches!(phase, Phase::Held { refusal, .. } if refusal.code == Code::Stale);
    assert!(device.phases().iter().all(held) && device.phases().len() == 1, "{:?}", device.phases());

    let first = Land::get().release(1).fixture.digest;
    device.whole(first).expect("what is on the disk stays there");
    device.hear_beacon().unwrap();
    assert_eq!(device.served, Some(first));
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
    // What a revocation falls back to and is damaged leaves nothing to answer, until land wants another.
    let fallback = format!("{STATE}/bundles/{}/", Land::get().release(1).fixture.digest);
    match ended_well(&device, flow) {
        Err(_) if flow.name == "revocation" && path.starts_with(&fallback) && device.served.is_none() => Ok(()),
        Err(_) if path.ends_with("bundle.dsse.json") && device.past.verdicts.iter().any(strange) => Ok(()),
        ended => ended,
    }
}
