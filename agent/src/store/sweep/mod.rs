//! The sweep: every flow that writes, with a power cut at every moment and a failure of every operation.
//!
//! Decides what is tried and what must hold afterwards. What is driven is the agent's own code, on a disk
//! in memory that forgets what was not made durable (`world`, `disk`). `docs/testing.md` says how to run
//! more of it; a failure prints the command that replays it.

mod damage;
mod device;
mod disk;
mod faults;
mod land;
mod power;
mod world;

use super::disk::Disk;
use super::ledger::{LedgerStore, Recalled};
use device::{Broken, Device, Past, STATE, whole};
use disk::Sim;
use land::{FLOWS, Flow, Land};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use world::World;

/// Files that are none of the agent's.
const FOREIGN: [&str; 3] = ["notes/mine", "bundles/notes/mine", "incoming/ABC/mine"];
const FOREIGN_TEXT: &[u8] = b"not yours";

/// How much is tried: this many things of each flow, in the order that the seed says.
#[derive(Debug, Clone, Copy)]
struct Effort {
    most: usize,
    seed: u64,
}

impl Effort {
    /// `most`, unless the environment asks for more of it.
    fn of(variable: &str, most: usize) -> Self {
        let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let most = asked(variable).map_or(most, |all| (all as usize).div_ceil(FLOWS.len()));
        Self { most, seed: asked("PETREL_SEED").unwrap_or(0) }
    }
}

/// Tries every flow, each on a thread of its own; gives how much was tried of each.
fn sweep(what: &str, effort: Effort, try_flow: fn(&'static Flow, Effort) -> Result<usize, Broken>) -> usize {
    let outcomes = thread::scope(|scope| {
        let runs = FLOWS.each_ref().map(|flow| scope.spawn(move || try_flow(flow, effort)));
        runs.map(|run| run.join().expect("a flow panicked"))
    });
    let mut tried = 0;
    let mut broken = Vec::new();
    for (flow, outcome) in FLOWS.iter().zip(outcomes) {
        match outcome {
            Ok(count) => {
                println!("{what}: {count} of `{}`, 0 bad", flow.name);
                tried += count;
            }
            Err(why) => broken.push(format!("{}: {why}", flow.name)),
        }
    }
    println!("{what}: {tried} in all");
    assert!(broken.is_empty(), "with PETREL_SEED={}:\n{}", effort.seed, broken.join("\n"));
    tried
}

/// A disk on which a flow can begin: the device is at rest, and only what is durable is left.
fn base(flow: &'static Flow) -> Result<(World, Past), Broken> {
    let disk = Sim::of(World::new());
    let set_up = |disk: &Sim| {
        disk.make_dirs(Path::new("/var/lib"))?;
        if flow.before.is_empty() {
            return Ok(());
        }
        for path in foreign() {
            disk.make_dirs(Path::new(&path).parent().unwrap_or(Path::new("/")))?;
            (disk as &dyn Disk).write(Path::new(&path), FOREIGN_TEXT)?;
        }
        Ok(())
    };
    set_up(&disk).map_err(|error: std::io::Error| error.to_string())?;
    let world = disk.world();
    let kept = world.cut(&vec![1; world.doubts().len()]);
    let (disk, past) = (Sim::of(kept), Past::default());
    if flow.before.is_empty() {
        return Ok((disk.world(), past));
    }
    let mut device = Device::new(flow, disk, past);
    device.live(flow.before.len())?;
    Ok((lost(&device.disk.world()), device.past.until(usize::MAX)))
}

fn foreign() -> impl Iterator<Item = String> {
    FOREIGN.iter().map(|name| format!("{STATE}/{name}"))
}

/// The power goes, and nothing of what was in doubt was kept.
fn lost(world: &World) -> World {
    world.cut(&vec![0; world.doubts().len()])
}

/// Goes the whole flow on a disk whose states are recorded, and looks at what became of it.
fn go(flow: &'static Flow, disk: Sim, past: Past) -> Result<Device, Broken> {
    disk.record();
    let mut device = Device::new(flow, disk, past);
    device.live(flow.before.len() + flow.wishes.len())?;
    Ok(device)
}

/// The end of a flow: what should serve serves and is whole, what nobody needs is gone, and what is not
/// the agent's is as it was.
fn ended_well(device: &Device, flow: &Flow) -> Result<(), Broken> {
    let land = Land::get();
    let digest = |release: u64| land.release(release).fixture.digest;
    let (active, previous) = (flow.end.0.map(digest), flow.end.1.map(digest));
    if device.served != active {
        return Err(format!("{:?} serves", device.served));
    }
    let streams = device.ledger().map(|ledger| ledger.streams.clone()).unwrap_or_default();
    let digits = streams.values().next().cloned().unwrap_or_default();
    let found = (digits.active.map(|i| i.bundle), digits.previous.map(|i| i.bundle));
    if found != (active, previous) {
        return Err(format!("the ledger says {digits:?}"));
    }
    let mut needed: Vec<String> = active.iter().chain(&previous).map(|bundle| format!("bundles/{bundle}")).collect();
    needed.sort();
    active.iter().chain(&previous).try_for_each(|bundle| device.whole(*bundle))?;
    let files = device.disk.world().files();
    let mut folders: Vec<String> = files.keys().filter_map(|path| bundle_folder(path)).collect();
    folders.dedup();
    if folders != needed {
        return Err(format!("on the disk are {folders:?}"));
    }
    if !flow.before.is_empty() && !foreign().all(|path| files.get(&path).is_some_and(|c| **c == FOREIGN_TEXT)) {
        return Err("a foreign file was touched".into());
    }
    Ok(())
}

/// The folder of a bundle, whole or not, in which a file lies.
fn bundle_folder(path: &str) -> Option<String> {
    let (place, rest) = path.strip_prefix(STATE)?.strip_prefix('/')?.split_once('/')?;
    let (bundle, _) = rest.split_once('/')?;
    bundle.parse::<trust::Digest>().ok().map(|_| format!("{place}/{bundle}"))
}

/// What is left of a device after a power cut: the ledger is the last one that was saved or one that was
/// being saved, and what it relies on is whole. Then it goes on to the end of the flow.
fn recover(flow: &'static Flow, left: World, past: Past) -> Result<Device, Broken> {
    let disk = Sim::of(left);
    let opened = LedgerStore::open(Arc::new(disk.clone()), Path::new(STATE));
    match opened.map_err(|error| error.to_string())?.1 {
        Recalled::Never => {}
        Recalled::Whole(ledger) => {
            let relied = ledger.streams.values().flat_map(|s| [s.active, s.previous, s.trial.map(|t| t.candidate)]);
            relied.flatten().try_for_each(|installed| whole(&disk, installed.bundle))?;
        }
        Recalled::Lost => return Err("the ledger is lost".into()),
    }
    let device = go(flow, disk, past)?;
    ended_well(&device, flow)?;
    Ok(device)
}
