//! Looks at a plan before anything of it is done: whether every step of it is one that may be done.
//!
//! Written from the promises to people and not from the planner, and shares no code with it: a fault of one is seen by
//! the other. Decides nothing but yes or no, and says which promise would be broken.

use crate::planner::Plan;
use crate::rollout::{Phase, Place, Rollout};
use crate::{Device, Release, Status, UnixMillis};
use protocol::{DeviceId, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use trust::Digest;

/// What a plan would break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The promise.
    pub promise: &'static str,
    /// By what.
    pub by: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.by)
    }
}

impl std::error::Error for Breach {}

/// What a plan is held against.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Every device.
    pub devices: &'a BTreeMap<DeviceId, Device>,
    /// Every rollout.
    pub rollouts: &'a BTreeMap<u64, Rollout>,
    /// Every release.
    pub releases: &'a BTreeMap<Digest, Release>,
    /// Whether the rollout's release was revoked.
    pub revoked: bool,
    /// Now.
    pub now: UnixMillis,
}

/// Looks at a plan for `rollout`.
///
/// # Errors
/// The first promise that it breaks.
pub fn audit(plan: &Plan, rollout: &Rollout, known: Known<'_>) -> Result<(), Breach> {
    each_once(plan)?;
    for id in &plan.assign {
        may_be_assigned(id, rollout, known)?;
    }
    if !plan.assign.is_empty() {
        let promise = "no release that was revoked or removed is assigned";
        ensure(!known.revoked && known.releases.contains_key(&rollout.bundle), promise, || rollout.version.clone())?;
        caps(plan, rollout, known)?;
    }
    let boxed = plan.box_up.iter().map(|(id, _)| id);
    for id in plan.send_back.iter().chain(boxed) {
        may_go_back(id, rollout)?;
    }
    for (id, until) in &plan.box_up {
        let tries = rollout.members.get(id).map_or(u64::MAX, |m| m.tries);
        let in_time = *until >= known.now.saturating_add(rollout.policy.retry.after.0);
        ensure(tries < rollout.policy.retry.times && in_time, "nobody is tried again too often or too soon", || {
            id.to_string()
        })?;
    }
    let tried = rollout.retries + plan.box_up.len() as u64;
    let within = plan.box_up.is_empty() || tried <= rollout.policy.retry.budget;
    ensure(within, "retries have a budget", || tried.to_string())
}

fn ensure(kept: bool, promise: &'static str, by: impl FnOnce() -> String) -> Result<(), Breach> {
    if kept { Ok(()) } else { Err(Breach { promise, by: by() }) }
}

fn each_once(plan: &Plan) -> Result<(), Breach> {
    let mut seen = BTreeSet::new();
    let boxed = plan.box_up.iter().map(|(id, _)| id);
    for id in plan.assign.iter().chain(&plan.send_back).chain(boxed) {
        ensure(seen.insert(id), "one thing at a time is done with a device", || id.to_string())?;
    }
    Ok(())
}

fn may_be_assigned(id: &DeviceId, rollout: &Rollout, known: Known<'_>) -> Result<(), Breach> {
    let by = || id.to_string();
    let open = match &rollout.phase {
        Phase::Rolling { wave } | Phase::Soaking { wave, .. } => Some(*wave),
        Phase::Draft | Phase::Approval { .. } | Phase::Paused { .. } | Phase::Reverting { .. } => None,
        Phase::Stopped { .. } | Phase::Completed => None,
    };
    ensure(open.is_some(), "only a rollout that is under way assigns", by)?;
    let member = rollout.members.get(id);
    ensure(member.is_some_and(|m| Some(m.wave) <= open), "nobody is assigned before its wave", by)?;
    let waits = |place: Place| matches!(place, Place::Waiting { until } if until <= known.now);
    ensure(member.is_some_and(|m| waits(m.place)), "nobody is assigned twice, or out of its box", by)?;
    let device = known.devices.get(id);
    ensure(device.is_some_and(|d| d.status == Status::Approved), "only devices of the fleet are assigned", by)?;
    let pinned = |d: &Device| d.labels.get("pinned").is_some_and(|value| value != "false");
    ensure(!device.is_some_and(pinned), "a pinned device stays as it is", by)?;
    ensure(device.is_some_and(|d| rollout.to.mean(d)), "nobody is assigned what is meant for others", by)?;
    let wave = member.map_or(0, |m| m.wave);
    for before in 0..=wave {
        let asked =
            rollout.policy.waves.get(before).is_some_and(|w| w.approval) || (before == 0 && rollout.policy.approval);
        let approver = rollout.approved.get(&before);
        ensure(
            !asked || approver.is_some_and(|who| *who != rollout.by),
            "what needs approval has that of somebody else",
            by,
        )?;
    }
    let elsewhere = |other: &&Rollout| {
        other.id != rollout.id
            && other.stream == rollout.stream
            && other.phase.is_under_way()
            && other.members.contains_key(id)
    };
    ensure(
        !known.rollouts.values().any(|other| elsewhere(&other)),
        "one rollout of a stream at a time has a device",
        by,
    )?;
    let policy = &rollout.policy;
    let no_matter = policy.at_once.is_none() && policy.pace.is_none() && policy.windows.is_empty();
    let anybody = no_matter && policy.silence.max_away >= 1.0;
    let there = anybody || device.is_some_and(|d| d.online);
    ensure(there, "where it matters who begins when, nobody begins who is away", by)?;
    let zone = device.and_then(|d| d.labels.get("timezone")).map(String::as_str);
    ensure(rollout.policy.is_open(zone, known.now), "no device is changed outside its window", by)
}

fn caps(plan: &Plan, rollout: &Rollout, known: Known<'_>) -> Result<(), Breach> {
    let online = |id: &DeviceId| known.devices.get(id).is_some_and(|device| device.online);
    if let Some(most) = rollout.policy.at_once {
        let mut on_the_way = 0;
        for member in rollout.members.values() {
            let open = member.place == Place::Assigned && member.result.is_none();
            let late =
                member.assigned.is_none_or(|at| at.saturating_add(rollout.policy.silence.deadline.0) <= known.now);
            on_the_way += u64::from(open && !late && online(&member.device));
        }
        let all = on_the_way + plan.assign.len() as u64;
        ensure(all <= most.max(on_the_way), "so many devices are on their way at once, and no more", || {
            all.to_string()
        })?;
    }
    let confirmed = rollout.members.values().filter_map(|m| m.result.as_ref());
    let confirmed = confirmed.filter(|result| result.outcome == Outcome::Confirmed).count() as u64;
    if let Some(pace) = &rollout.policy.pace {
        let steps = confirmed.checked_div(pace.rate_increase_criteria.number_of_succeeded_things).unwrap_or(0);
        let rate = (pace.base_rate_per_minute * pace.increment_factor.powf(steps as f64)).min(pace.maximum_per_minute);
        let minutes = known.now.saturating_sub(rollout.allowance.1) as f64 / 60_000.0;
        let may = (rollout.allowance.0 + rate * minutes).min(rate.max(1.0));
        let fits = plan.assign.len() as f64 <= may + 1e-6 && plan.allowance <= may - plan.assign.len() as f64 + 1e-6;
        ensure(fits, "nobody begins before the pace lets it", || format!("{} of {may:.2}", plan.assign.len()))?;
    }
    let of_fleet = |id: &DeviceId| known.devices.get(id).is_some_and(|device| device.status == Status::Approved);
    let away = rollout.members.keys().filter(|id| of_fleet(id) && !online(id)).count() as f64;
    let most = rollout.policy.silence.max_away * rollout.members.len() as f64;
    ensure(away <= most, "nobody begins while too many are away", || format!("{away} of {most:.1}"))
}

fn may_go_back(id: &DeviceId, rollout: &Rollout) -> Result<(), Breach> {
    let member = rollout.members.get(id);
    let has_it = member.is_some_and(|m| m.place == Place::Assigned);
    ensure(has_it, "only who was assigned the release goes back", || id.to_string())?;
    let failed = member.and_then(|m| m.result.as_ref()).is_some_and(|result| result.outcome != Outcome::Confirmed);
    let all = matches!(rollout.phase, Phase::Reverting { .. });
    ensure(failed || all, "nobody goes back without a reason", || id.to_string())
}
