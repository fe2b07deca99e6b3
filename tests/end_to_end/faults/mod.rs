//! The device's own program under faults: each call that writes fails or is its last, and the power goes at each
//! moment with only some of what was written.
//!
//! Decides how much of it is tried. `store::sweep` of the agent tries more of it, on a disk in memory; here it is the
//! real program, a real bridge and a real disk.

mod disk;
mod flows;
mod soak;
mod sweep;
mod trace;

use flows::{FLOWS, finish, fleet};

/// As many devices meet faults at a time: most of the time each waits.
const DEVICES: usize = 12;
/// Faults in all, where nobody asks for more, and states after a power cut.
const FAULTS: u64 = 70;
const CUTS: u64 = 48;

/// T74, T75 on the real program. `PETREL_PROGRAM_FAULTS` and `PETREL_PROGRAM_CUTS` say how many, `PETREL_SEED` which.
#[test]
fn whatever_write_fails_or_is_the_last_the_device_ends_where_it_should() {
    if trace::strace().is_none() {
        println!("not run: strace is not installed");
        return;
    }
    let asked =
        |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")));
    let each = |name: &str, usual| usize::try_from(asked(name).unwrap_or(usual)).unwrap().div_ceil(FLOWS.len());
    let wanted = (each("PETREL_PROGRAM_FAULTS", FAULTS), each("PETREL_PROGRAM_CUTS", CUTS));
    let mut dice = fastrand::Rng::with_seed(asked("PETREL_SEED").unwrap_or(7));
    let (mut fleet, devices) = fleet(DEVICES);
    let (mut met, mut missed, mut cuts) = (0, 0, 0);
    for flow in &FLOWS {
        let tried = sweep::sweep(&fleet, &devices, flow, wanted, &mut dice);
        met += tried.met;
        missed += tried.missed;
        cuts += tried.cuts;
        finish(&mut fleet);
    }
    println!("the device's program: {met} faults, {missed} not met, {cuts} states after a power cut, 0 bad");
    assert!(met > missed, "most calls come in every run: {met} met, {missed} not met");
}
