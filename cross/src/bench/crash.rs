//! Faults, losses of power and rot: how many were tried, and what came of them.
//!
//! Decides how much is tried and what it should be. Each is a test, which fails when one device is not what it should be.

use super::said::{numbers, test};
use super::{Asked, Row};

/// What the page says of it.
pub(super) const ABOUT: &str = "The device's own program, a real bridge and a real disk: strace lets each call that writes fail (ENOSPC, EIO, EROFS) or be the \
last, alone and in the start after another, and what the program asked of the disk is replayed on one that forgets whatever was not made durable. After each the device must come by itself to the very \
state in which it is without a fault, its model must answer, and land must hear its verdict. The agent's own code on a disk in memory: more of the same, and bits \
that are flipped. `docs/testing.md` says how to run less of it or more.";

/// A tenth of the faults meet no call: a start that begins otherwise makes it no second time.
const PROGRAM: [(&str, &str); 3] =
    [("PETREL_PROGRAM_FAULTS", "5700"), ("PETREL_PROGRAM_CUTS", "1000"), ("PETREL_KILLS", "1000")];
const MEMORY: [(&str, &str); 3] =
    [("PETREL_CRASH_STATES", "100000"), ("PETREL_FAULTS", "10000"), ("PETREL_FLIPS", "100000")];

pub(super) fn run(_: Asked) -> anyhow::Result<Vec<Row>> {
    let said = test(&["--workspace", "--test", "end_to_end", "faults"], &PROGRAM)?;
    let program = numbers(&said, "the device's program:")?;
    let [faults, unmet, cuts, bad] = program[..] else { anyhow::bail!("the sweep told {program:?}") };
    let kills = numbers(&said, "losses of power,")?;
    let [kills, rollouts, answers] = kills[..] else { anyhow::bail!("the soak told {kills:?}") };
    let said = test(&["--workspace", "--bin", "petrel-agent", "store::sweep"], &MEMORY)?;
    // Each flow says its own; the last line is of all.
    let all = |mark: &str| {
        let line = said.lines().rfind(|line| line.contains(mark) && line.ends_with("in all"));
        numbers(line.unwrap_or_default(), mark).map(|told| told.first().copied().unwrap_or_default())
    };
    Ok(vec![
        Row::new("faults in calls of the program", faults, "")
            .at_least(5_000.0)
            .beside(&format!("{unmet} more whose call did not come again")),
        Row::new("states after a power cut, of the program's calls", cuts, ""),
        Row::new("bad states", bad, "").at_most(0.0),
        Row::new("losses of power under load without repair", kills, "")
            .at_least(200.0)
            .beside(&format!("{rollouts} rollouts, {answers} right answers meanwhile")),
        Row::new("distinct crash states, in memory", all("crash states: ")?, "").at_least(50_000.0),
        Row::new("failures of single operations, in memory", all("injected faults: ")?, ""),
        Row::new("flipped bits, in memory", all("flipped bits: ")?, ""),
    ])
}
