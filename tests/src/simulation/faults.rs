//! What goes wrong, and when. It knows nothing of what must hold all the same: that is `check`.

use super::scenario::{DEVICES, MINUTE, Millis, QUIET, SECOND, START};
use fastrand::Rng;

/// Something that goes wrong at a time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A device's connection breaks, and comes back after `pause`.
    DropDevice { device: usize, pause: Millis },
    /// The bridge's connection breaks.
    DropLand,
    /// A device loses power; `rot` flips a bit of a bundle on its disk.
    CrashDevice { device: usize, rot: bool },
    /// The bridge dies.
    CrashLand,
    /// The broker starts again, and may have lost what it retained, and its sessions.
    RestartBroker { retained: bool, sessions: bool },
    /// The broker gives a device an assignment that was signed some time ago, perhaps for another
    /// device, perhaps with a byte changed; and may retain it.
    Mislead { device: usize, other: bool, flip: bool, retain: bool },
    /// The broker repeats what a device said some time ago.
    Repeat,
    /// The broker retains a chunk with a byte changed.
    Poison,
}

/// Where a process dies in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// It does not.
    Never,
    /// The save fails, and the process ends.
    InSave,
    /// After the save, when so many effects were carried out.
    After(usize),
}

/// How bad this world is.
#[derive(Debug)]
pub(super) struct Faults {
    /// Crashes in steps, of 10,000.
    crash: u32,
    /// Messages doubled or damaged, of 100.
    noise: u8,
    slow: bool,
}

impl Faults {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { crash: [0, 10, 40, 150][rng.usize(..4)], noise: [0, 2, 10][rng.usize(..3)], slow: rng.u8(..4) == 0 }
    }

    /// All that goes wrong at a time of its own.
    pub(super) fn plan(rng: &mut Rng) -> Vec<(Millis, Fault)> {
        let often = [0, 10, 40, 80][rng.usize(..4)];
        (0..often).map(|_| (rng.u64(..QUIET), Self::one(rng))).collect()
    }

    /// Nothing goes wrong but the links.
    pub(super) fn of_links() -> Self {
        Self { crash: 0, noise: 0, slow: false }
    }

    /// Four links of five break three times while a bundle comes through them.
    pub(super) fn links(rng: &mut Rng, devices: usize) -> Vec<(Millis, Fault)> {
        let mut drop = |device| {
            let pause = rng.u64(SECOND..20 * SECOND);
            (START + rng.u64(..20 * SECOND), Fault::DropDevice { device, pause })
        };
        (0..devices).flat_map(|device| [device; 3]).filter(|device| !device.is_multiple_of(5)).map(&mut drop).collect()
    }

    fn one(rng: &mut Rng) -> Fault {
        let device = rng.usize(..DEVICES);
        match rng.u8(..20) {
            0..5 => {
                let pause = if rng.u8(..4) == 0 { rng.u64(..QUIET) } else { rng.u64(SECOND..MINUTE) };
                Fault::DropDevice { device, pause }
            }
            5..7 => Fault::DropLand,
            7..11 => Fault::CrashDevice { device, rot: rng.u8(..4) == 0 },
            11..13 => Fault::CrashLand,
            13..15 => Fault::RestartBroker { retained: rng.bool(), sessions: rng.bool() },
            15..18 => Fault::Mislead { device, other: rng.bool(), flip: rng.bool(), retain: rng.bool() },
            18 => Fault::Repeat,
            _ => Fault::Poison,
        }
    }

    /// How long a message is under way.
    pub(super) fn delay(&self, rng: &mut Rng, now: Millis) -> Millis {
        match now < QUIET && self.slow && rng.u8(..5) == 0 {
            true => rng.u64(SECOND..30 * SECOND),
            false => rng.u64(1..200),
        }
    }

    /// Whether a message arrives twice.
    pub(super) fn doubles(&self, rng: &mut Rng, now: Millis) -> bool {
        now < QUIET && rng.u8(..100) < self.noise
    }

    /// Whether a chunk arrives damaged.
    pub(super) fn damages(&self, rng: &mut Rng, now: Millis) -> bool {
        now < QUIET && rng.u8(..100) < self.noise
    }

    /// Whether, and where, a process dies in the step under way.
    pub(super) fn crash(&self, rng: &mut Rng, now: Millis) -> Crash {
        if now >= QUIET || rng.u32(..10_000) >= self.crash {
            return Crash::Never;
        }
        match rng.usize(..6) {
            0 | 1 => Crash::InSave,
            effects => Crash::After(effects - 2),
        }
    }

    /// How long a process stays away; all are back before the quiet is over.
    pub(super) fn pause(rng: &mut Rng, now: Millis) -> Millis {
        if now < QUIET { rng.u64(SECOND..MINUTE) } else { rng.u64(SECOND..10 * SECOND) }
    }
}
