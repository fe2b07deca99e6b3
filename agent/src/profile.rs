//! How a profile looks to people and to machines: the operators of a plan by their time.
//!
//! Decides nothing of what is measured; that is done by `engine`.

use comfy_table::{Table, presets};
use engine::{PlanFacts, Profile};
use std::fs;

/// A profile as JSON, or as a table.
///
/// # Errors
/// When it cannot be written as JSON.
pub(crate) fn told(profile: &Profile, plan: PlanFacts, json: bool) -> anyhow::Result<String> {
    let peak = peak_rss();
    if json {
        let mut machine = serde_json::to_value(profile)?;
        machine["plan"] = serde_json::to_value(plan)?;
        machine["peak_rss_bytes"] = peak.into();
        return Ok(machine.to_string());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["OPERATOR", "STEPS", "TIME", "SHARE"]);
    table.add_rows(profile.operators.iter().map(|share| {
        let part = 100.0 * share.us / profile.total_us.max(f64::MIN_POSITIVE);
        [share.operator.clone(), share.steps.to_string(), format!("{:.1} us", share.us), format!("{part:.1} %")]
    }));
    let plan = format!("{} plan of {} steps", if plan.optimised { "optimised" } else { "unoptimised" }, plan.steps);
    let peak = peak.map_or(String::new(), |peak| format!("; the most memory of this process was {} MiB", peak >> 20));
    Ok(format!(
        "{table}\n\n{plan}: {:.1} us for {} rows, on average over {} runs{peak}",
        profile.total_us, profile.rows, profile.runs
    ))
}

/// The most memory that this process has held, in bytes, where the system tells.
fn peak_rss() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
