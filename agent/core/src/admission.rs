//! Whether a release may run here: asked of the assignment before a byte is fetched, and of the
//! manifest before it is probed.

use crate::ledger::{StreamLedger, Wanted};
use protocol::{Profile, StreamName};
use trust::{Code, Intent, Manifest, Refusal};

/// Starts of the agent that a release may see while it is on trial.
pub(crate) const MAX_TRIAL_BOOTS: u64 = 3;

/// Refuses what the signed order of releases forbids.
pub(crate) fn order(stream: &StreamLedger, wanted: &Wanted) -> Result<(), Refusal> {
    let release = wanted.target.release;
    if release < stream.floor {
        let detail = format!("release {release} is below the floor {}", stream.floor);
        return Err(Refusal::new(Code::Floor, detail));
    }
    match (stream.active, wanted.intent) {
        (Some(active), Intent::Install) if release < active.release => {
            let detail = format!("release {release} is older than {} and no rollback was declared", active.release);
            Err(Refusal::new(Code::UndeclaredRollback, detail))
        }
        (_, Intent::Install | Intent::Rollback | Intent::Hold) => Ok(()),
    }
}

/// Refuses a manifest that is not of what was assigned, or does not fit this board or this agent.
pub(crate) fn fit(profile: &Profile, stream: &StreamName, wanted: &Wanted, manifest: &Manifest) -> Result<(), Refusal> {
    if manifest.stream != stream.as_str() || manifest.release.get() != wanted.target.release {
        let detail = format!(
            "assigned was {stream} release {}, the bundle is {} release {}",
            wanted.target.release, manifest.stream, manifest.release
        );
        return Err(Refusal::new(Code::Mismatch, detail));
    }
    let fits = |h: &trust::Hardware| h.arch == profile.arch && h.min_ram_mb.get() <= profile.ram_mb;
    if !manifest.hardware.is_empty() && !manifest.hardware.iter().any(fits) {
        let detail = format!("it does not run on {} with {} MiB of memory", profile.arch, profile.ram_mb);
        return Err(Refusal::new(Code::Hardware, detail));
    }
    let needed = manifest.resources_budget.ram_mb.get();
    if needed > profile.ram_mb {
        let detail = format!("it needs {needed} MiB of memory, the board has {}", profile.ram_mb);
        return Err(Refusal::new(Code::Hardware, detail));
    }
    match (version(&manifest.min_agent), version(&profile.agent)) {
        (Some(least), Some(agent)) if agent >= least => Ok(()),
        _ => {
            let detail = format!("it needs agent {}, this is {}", manifest.min_agent, profile.agent);
            Err(Refusal::new(Code::AgentOld, detail))
        }
    }
}

/// `major.minor.patch`; what follows a `-` or `+` does not count.
fn version(text: &str) -> Option<[u64; 3]> {
    let core = text.split(['-', '+']).next()?;
    let numbers: Vec<u64> = core.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}
