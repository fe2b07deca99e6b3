//! What a process takes of this machine, as the kernel counts it.

use anyhow::Context;
use std::fs;

/// The kernel tells processor time in hundredths of a second.
const TICKS: f64 = 100.0;

/// Seconds of the processor that those threads of a process have taken whose names begin so. What threads took that have
/// ended is told by nobody.
pub(super) fn of_threads(pid: u32, name: &str) -> anyhow::Result<f64> {
    let mut taken = 0.0;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(line) = fs::read_to_string(entry?.path().join("stat")) else { continue };
        let (found, seconds) = read(&line).context("/proc tells no times")?;
        taken += if found.starts_with(name) { seconds } else { 0.0 };
    }
    Ok(taken)
}

/// Seconds of the processor that a process has taken.
pub(super) fn seconds(pid: u32) -> anyhow::Result<f64> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(read(&line).context("/proc tells no times")?.1)
}

fn read(line: &str) -> Option<(&str, f64)> {
    // The name is in brackets and may hold anything.
    let (name, rest) = line.split_once('(')?.1.rsplit_once(')')?;
    let mut times = rest.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some((name, (user + system) / TICKS))
}

/// Bytes of memory that a process holds (`VmRSS`), or held at most (`VmHWM`).
pub(super) fn memory(pid: u32, which: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(which)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib * 1_024).with_context(|| format!("/proc tells no {which}"))
}
