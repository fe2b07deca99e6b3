//! Whom a rollout reaches next, and who goes back: a plan, as a pure function of what is known.
//!
//! Decides by waves, pace, windows and caps. A plan is looked at by [`crate::auditor`] before anything of it is done; the
//! two share no code but the types.

use crate::rollout::{Member, Phase, Place, Rollout};
use crate::{Device, UnixMillis};
use protocol::{DeviceId, Outcome};
use std::collections::BTreeMap;

/// A window opens at a full minute, and who may be assigned then is looked up at each.
const MINUTE: UnixMillis = 60_000;
/// What the pace lets begin at once after a time in which nothing was assigned, in minutes' worth.
const BURST_MINUTES: f64 = 1.0;

/// What is to be done now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// These are assigned the release.
    pub assign: Vec<DeviceId>,
    /// These are to run what they ran before.
    pub send_back: Vec<DeviceId>,
    /// So are these, and are tried again not before that.
    pub box_up: Vec<(DeviceId, UnixMillis)>,
    /// What the pace still lets begin after it.
    pub allowance: f64,
    /// When it is worth while to plan again, whatever happens.
    pub wake: Option<UnixMillis>,
}

/// Plans the next step of one rollout.
pub fn plan(rollout: &Rollout, devices: &BTreeMap<DeviceId, Device>, now: UnixMillis) -> Plan {
    let mut plan = Plan { allowance: rollout.allowance.0, ..Plan::default() };
    send_back(rollout, now, &mut plan);
    if let Some(wave) = rollout.wave() {
        assign(rollout, wave, devices, now, &mut plan);
    }
    plan
}

fn send_back(rollout: &Rollout, now: UnixMillis, plan: &mut Plan) {
    let all = matches!(rollout.phase, Phase::Reverting { .. });
    let mut retries = rollout.policy.retry.budget.saturating_sub(rollout.retries);
    for member in rollout.members.values().filter(|m| m.place == Place::Assigned) {
        if all {
            plan.send_back.push(member.device.clone());
        } else if member.has_failed() {
            if rollout.phase.is_under_way() && retries > 0 && may_try_again(rollout, member) {
                retries -= 1;
                let until = now.saturating_add(rollout.policy.retry.after.0);
                plan.box_up.push((member.device.clone(), until));
            } else {
                plan.send_back.push(member.device.clone());
            }
        }
    }
}

/// Only what never served: a release that was taken back said something of itself.
fn may_try_again(rollout: &Rollout, member: &Member) -> bool {
    let refused = member.result.as_ref().is_some_and(|result| result.outcome == Outcome::Refused);
    refused && member.tries < rollout.policy.retry.times
}

fn assign(rollout: &Rollout, wave: usize, devices: &BTreeMap<DeviceId, Device>, now: UnixMillis, plan: &mut Plan) {
    let policy = &rollout.policy;
    // Where it matters who begins when, one that is away is assigned when it comes.
    let measured = policy.at_once.is_some()
        || policy.pace.is_some()
        || !policy.windows.is_empty()
        || policy.silence.max_away < 1.0;
    let rate = rate(rollout);
    plan.allowance = allowance(rollout, rate, now);
    let mut room = policy.at_once.map_or(usize::MAX, |most| {
        let under_way = rollout.members.values().filter(|m| m.place == Place::Assigned && m.result.is_none());
        // Whoever is silent for too long holds no place.
        let in_time = |m: &&Member| m.assigned.is_some_and(|at| now.saturating_sub(at) < policy.silence.deadline.0);
        let there = under_way.filter(in_time).filter(|m| devices.get(&m.device).is_some_and(|d| d.online)).count();
        usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(there)
    });
    let away = |member: &&Member| devices.get(&member.device).is_some_and(|d| d.is_approved() && !d.online);
    if rollout.members.values().filter(away).count() as f64 > policy.silence.max_away * rollout.members.len() as f64 {
        room = 0;
    }
    let mut wake = |at: UnixMillis| plan.wake = Some(plan.wake.map_or(at, |known| known.min(at)));
    let mut members: Vec<(u64, &Member)> = Vec::new();
    for member in rollout.members.values().filter(|m| m.wave <= wave) {
        let Place::Waiting { until } = member.place else { continue };
        let Some(device) = devices.get(&member.device).filter(|d| rollout.wants(d)) else { continue };
        if until > now {
            wake(until);
        } else if measured && !device.online {
            continue;
        } else if !policy.is_open(device.labels.get(crate::policy::ZONE_LABEL).map(String::as_str), now) {
            wake((now / MINUTE + 1) * MINUTE);
        } else {
            members.push((crate::rollout::entry(&rollout.stream, &member.device), member));
        }
    }
    members.sort_by_key(|(entry, member)| (member.wave, *entry));
    for (_, member) in members {
        if room == 0 {
            break;
        }
        if rate.is_some() && plan.allowance < 1.0 {
            let left = (1.0 - plan.allowance) * MINUTE as f64 / rate.unwrap_or(1.0);
            wake(now.saturating_add((left.ceil() as u64).clamp(1, 3_600_000)));
            break;
        }
        if rate.is_some() {
            plan.allowance -= 1.0;
        }
        room -= 1;
        plan.assign.push(member.device.clone());
    }
    // A millionth of a device is the same after it lay on a disk.
    plan.allowance = (plan.allowance * 1e6).floor() / 1e6;
}

fn rate(rollout: &Rollout) -> Option<f64> {
    rollout.policy.rate(rollout.count(Outcome::Confirmed) as u64)
}

/// What the pace lets begin by now.
fn allowance(rollout: &Rollout, rate: Option<f64>, now: UnixMillis) -> f64 {
    let Some(rate) = rate else { return 0.0 };
    let (left, at) = rollout.allowance;
    let minutes = now.saturating_sub(at) as f64 / MINUTE as f64;
    (left + rate * minutes).min((rate * BURST_MINUTES).max(1.0))
}
