//! What people ask of rollouts, and what follows from it: who is meant, what begins, what goes back.
//!
//! Decides which wishes can be granted. How a rollout goes on by itself is decided next door, in `progress`.

use super::Bridge;
use crate::rollout::{Member, Place, entry_order};
use crate::{
    Answer, Device, Now, Phase, Policy, Record, Rejection, Release, Rollout, RolloutRequest, Targets, Turn, UnixMillis,
};
use protocol::{DeviceId, MAX_STREAMS, StreamName};
use std::collections::{BTreeMap, BTreeSet};

/// What a person wants of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That a draft begins.
    Begin,
    /// That the wave that waits for it goes on.
    Approve,
    /// That nobody else is assigned the release.
    Pause,
    /// That it goes on, in spite of what paused it.
    Resume,
    /// That it ends.
    Abort {
        /// Its devices keep what they have.
        keep: bool,
    },
    /// That its devices go back after its end.
    Undo,
}

impl Wish {
    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Wish::Begin => "begin",
            Wish::Approve => "approve",
            Wish::Pause => "pause",
            Wish::Resume => "resume",
            Wish::Abort { .. } => "abort",
            Wish::Undo => "undo",
        }
    }
}

/// Who would get a release, and who not, before anybody does.
#[derive(Debug, Clone)]
pub struct Preview<'a> {
    /// The release.
    pub release: &'a Release,
    /// The rollout as it would begin.
    pub rollout: Rollout,
    /// Who is meant and would not get it, and why.
    pub left_out: BTreeMap<DeviceId, String>,
    /// What a person should know before it begins.
    pub warnings: Vec<String>,
}

impl Bridge {
    /// What would come of a request.
    ///
    /// # Errors
    /// Why it would be turned down.
    pub fn preview(&self, now: Now, request: &RolloutRequest) -> Result<Preview<'_>, Rejection> {
        let named = |r: &&Release| r.stream == request.stream && r.version == request.version;
        let missing = || Rejection::NotFound(format!("release {}@{}", request.stream, request.version));
        let release = self.releases.values().find(named).ok_or_else(missing)?;
        self.check_not_revoked(release)?;
        request.policy.check().map_err(Rejection::Invalid)?;
        let (devices, left_out) = self.targets(request, release)?;
        if devices.is_empty() {
            let first = left_out.iter().next().map_or(String::new(), |(id, why)| format!(": `{id}` {why}"));
            return Err(Rejection::Invalid(format!("no approved device is left that lacks this release{first}")));
        }
        self.check_way_back(&request.policy, release, &devices)?;
        let id = self.rollouts.keys().next_back().map_or(1, |last| last + 1);
        let order = entry_order(&release.stream, devices);
        let rollout = Rollout::plan((id, now.unix), request, release, &order);
        let warnings = warnings(&rollout);
        Ok(Preview { release, rollout, left_out, warnings })
    }

    pub(super) fn start(&mut self, now: Now, request: &RolloutRequest) -> Result<Answer, Rejection> {
        let rollout = self.preview(now, request)?.rollout;
        let id = rollout.id;
        self.changed_members.extend(rollout.members.keys().map(|device| (id, device.clone())));
        self.changed_rollouts.insert(id);
        self.rollouts.insert(id, rollout);
        if !request.draft {
            self.begin(now, id);
        }
        Ok(Answer::Started { rollout: id })
    }

    fn begin(&mut self, now: Now, id: u64) {
        let Some(rollout) = self.rollouts.get_mut(&id) else { return };
        let approval = rollout.wants_approval(0);
        for member in rollout.members.values_mut() {
            if let Some(device) = self.devices.get(&member.device) {
                member.day = device.lately(&rollout.stream);
            }
        }
        self.changed_members.extend(rollout.members.keys().map(|device| (id, device.clone())));
        self.turn(now, id, Turn::Begun { approval });
        self.look(now, id);
    }

    /// Rollouts that ended before this time, and are nobody's any more: no device has what it should run from one.
    pub fn old_rollouts(&self, before: UnixMillis) -> Vec<u64> {
        let of = self.devices.values().flat_map(|device| device.desired.values()).map(|desired| desired.rollout);
        let in_use: BTreeSet<u64> = of.collect();
        // The next one's number follows the last.
        let last = self.rollouts.keys().next_back();
        let old = |rollout: &&Rollout| {
            let over = matches!(rollout.phase, Phase::Stopped { .. } | Phase::Completed);
            let is_old = over && rollout.ended.is_some_and(|ended| ended < before);
            is_old && Some(&rollout.id) != last && !in_use.contains(&rollout.id)
        };
        self.rollouts.values().filter(old).map(|rollout| rollout.id).collect()
    }

    /// Forgets one of them.
    pub(super) fn forget_rollout(&mut self, id: u64, before: UnixMillis) -> Result<Answer, Rejection> {
        if !self.old_rollouts(before).contains(&id) {
            return Err(Rejection::Conflict(format!("rollout {id} is in use, or not so old")));
        }
        if let Some(rollout) = self.rollouts.remove(&id) {
            self.records.push(Record::NoRollout { rollout: id });
            // Their rows go, since there is no such rollout.
            self.changed_members.extend(rollout.members.into_keys().map(|device| (id, device)));
        }
        Ok(Answer::Done)
    }

    /// The devices that the request means and that lack the release; and those that are meant and left out.
    fn targets(
        &self,
        request: &RolloutRequest,
        release: &Release,
    ) -> Result<(Vec<&Device>, BTreeMap<DeviceId, String>), Rejection> {
        if let Targets::Devices(ids) = &request.to {
            for id in ids {
                let approved = self.devices.get(id).filter(|d| d.is_approved());
                approved.ok_or_else(|| Rejection::NotFound(format!("approved device `{id}`")))?;
            }
        }
        let (mut devices, mut left_out) = (Vec::new(), BTreeMap::new());
        for device in self.devices.values().filter(|d| request.to.mean(d)) {
            match self.reason_against(device, release) {
                None => devices.push(device),
                Some(why) => drop(left_out.insert(device.id.clone(), why)),
            }
        }
        Ok((devices, left_out))
    }

    /// Why a device that is meant would not get a release.
    fn reason_against(&self, device: &Device, release: &Release) -> Option<String> {
        let desired = device.desired.get(&release.stream);
        let elsewhere = self
            .rollouts
            .values()
            .find(|r| r.stream == release.stream && r.phase.is_under_way() && r.members.contains_key(&device.id));
        if !device.is_approved() {
            Some(format!("is {}", device.status))
        } else if device.forgotten.is_some() {
            Some("was not heard since land was put back from a copy".into())
        } else if device.is_pinned() {
            Some("is pinned: take its label `pinned` away first".into())
        } else if let Some(other) = elsewhere {
            let (id, stream, version) = (other.id, &other.stream, &other.version);
            Some(format!(
                "belongs to rollout {id} of {stream} {version}, which is under way and goes first: wait for its end, or abort it"
            ))
        } else if desired.is_some_and(|wanted| wanted.bundle == release.bundle) {
            Some("has it already".into())
        } else if device.desired.len() >= MAX_STREAMS && desired.is_none() {
            Some(format!("runs {MAX_STREAMS} streams already, which is the most"))
        } else {
            None
        }
    }

    /// Where the root keeps rollbacks from the director, no rollout may count on one.
    fn check_way_back(&self, policy: &Policy, release: &Release, devices: &[&Device]) -> Result<(), Rejection> {
        if self.documents.root().is_none_or(|root| root.policy.director_may_rollback) {
            return Ok(());
        }
        let way_out = "this fleet's root lets nobody but a breakglass roll back";
        if policy.on_breach.action == crate::policy::Action::Revert {
            let why = format!("{way_out}: choose `action = \"pause\"` in [on_breach]");
            return Err(Rejection::Invalid(why));
        }
        let newer = |d: &&&Device| d.desired.get(&release.stream).is_some_and(|w| w.release > release.release);
        match devices.iter().find(newer) {
            Some(device) => {
                Err(Rejection::Invalid(format!("{way_out}, and device `{}` runs a newer release", device.id)))
            }
            None => Ok(()),
        }
    }

    /// A person turns a rollout.
    pub(super) fn wish(
        &mut self,
        now: Now,
        id: u64,
        (by, since): (&str, UnixMillis),
        wish: Wish,
    ) -> Result<Answer, Rejection> {
        let conflict = |why: String| Err(Rejection::Conflict(why));
        let rollout = self.rollouts.get(&id).ok_or_else(|| Rejection::NotFound(format!("rollout {id}")))?;
        let turn = match wish {
            Wish::Begin => {
                if rollout.phase != Phase::Draft {
                    return conflict(cannot(rollout, wish));
                }
                let release = self.releases.get(&rollout.bundle);
                let Some(release) = release else {
                    return conflict(format!("the release of rollout {id} was removed"));
                };
                self.check_not_revoked(release)?;
                let devices: Vec<&Device> = rollout.members.keys().filter_map(|name| self.devices.get(name)).collect();
                self.check_way_back(&rollout.policy, release, &devices)?;
                let against = |d: &&Device| self.reason_against(d, release).map(|why| (d.id.clone(), why));
                if let Some((device, why)) = devices.iter().find_map(against) {
                    return conflict(format!("device `{device}` {why}"));
                }
                self.begin(now, id);
                return Ok(Answer::Done);
            }
            Wish::Approve => {
                let Phase::Approval { wave } = rollout.phase else { return conflict(cannot(rollout, wish)) };
                if rollout.by == by {
                    return conflict(format!("rollout {id} was started by `{by}`: somebody else must approve it"));
                }
                // Or else whoever began it makes a token for somebody else, and approves.
                if since > rollout.started {
                    return conflict(format!(
                        "`{by}` was let in after rollout {id} was written down: somebody who was there before must approve it"
                    ));
                }
                if let Some(rollout) = self.rollouts.get_mut(&id) {
                    rollout.approved.insert(wave, by.to_owned());
                }
                Turn::Approved
            }
            Wish::Pause => Turn::Held { reason: format!("paused by {by}"), by_person: true },
            Wish::Resume => Turn::Resumed,
            Wish::Abort { keep } => {
                let what = if keep { "; its devices keep what they have" } else { "" };
                Turn::Aborted { reason: format!("aborted by {by}{what}"), keep }
            }
            Wish::Undo => {
                let holds = |r: &&Rollout| {
                    let same = r.id != id && r.stream == rollout.stream && r.phase.is_under_way();
                    same && rollout.members.keys().any(|device| r.members.contains_key(device))
                };
                if let Some(other) = self.rollouts.values().find(holds) {
                    return conflict(format!(
                        "rollout {} of {} has some of its devices: abort it first",
                        other.id, other.stream
                    ));
                }
                Turn::Undone { reason: format!("undone by {by}") }
            }
        };
        let sends_back = matches!(turn, Turn::Aborted { keep: false, .. } | Turn::Undone { .. });
        let may = self.documents.root().is_none_or(|root| root.policy.director_may_rollback);
        let Some(rollout) = self.rollouts.get_mut(&id) else { return Ok(Answer::Done) };
        if sends_back && !may && rollout.hit() > 0 {
            return conflict("this fleet's root lets nobody but a breakglass roll back: abort with --keep".into());
        }
        if rollout.phase.next(turn.clone()).is_none() {
            return conflict(cannot(rollout, wish));
        }
        // What a person paused goes on as it was; what the evidence paused goes on in spite of it.
        if let (Phase::Paused { wave, by_person: false, .. }, Turn::Resumed) = (&rollout.phase, &turn) {
            rollout.waived = Some(*wave);
        }
        self.turn(now, id, turn);
        self.look(now, id);
        Ok(Answer::Done)
    }

    /// Devices that came since then, or are called otherwise, join the rollouts that mean them.
    pub(super) fn join(&mut self, now: Now, id: &DeviceId) {
        let Some(device) = self.devices.get(id).filter(|d| d.is_approved() && !d.is_pinned()) else { return };
        let open = |r: &&Rollout| r.phase.is_under_way() && !matches!(r.to, Targets::Devices(_)) && r.to.mean(device);
        let means = |r: &&Rollout| open(r) && !r.members.contains_key(id);
        let wanting: Vec<u64> = self.rollouts.values().filter(means).map(|r| r.id).collect();
        for rollout_id in wanting {
            let Some(rollout) = self.rollouts.get(&rollout_id) else { continue };
            let Some(release) = self.releases.get(&rollout.bundle) else { continue };
            let Some(device) = self.devices.get(id) else { continue };
            if self.reason_against(device, release).is_some() {
                continue;
            }
            let mut member = Member::new(rollout_id, id.clone(), rollout.joins(id));
            member.day = device.lately(&rollout.stream);
            if let Some(rollout) = self.rollouts.get_mut(&rollout_id) {
                rollout.members.insert(id.clone(), member);
            }
            self.changed_members.insert((rollout_id, id.clone()));
            self.look(now, rollout_id);
        }
    }

    /// No rollout waits for a device any more that left the fleet.
    pub(super) fn excuse(&mut self, now: Now, id: &DeviceId) {
        let waits = |m: &Member| m.result.is_none() || m.place == Place::Returning;
        let mut excused = Vec::new();
        let open = |r: &&mut Rollout| !matches!(r.phase, Phase::Completed | Phase::Stopped { .. });
        for rollout in self.rollouts.values_mut().filter(open) {
            if rollout.members.get(id).is_some_and(waits) {
                rollout.members.remove(id);
                excused.push(rollout.id);
            }
        }
        for rollout in excused {
            self.changed_members.insert((rollout, id.clone()));
            self.look(now, rollout);
        }
    }

    /// The release that a version of a stream names.
    pub fn release(&self, stream: &StreamName, version: &str) -> Option<&Release> {
        self.releases.values().find(|r| r.stream == *stream && r.version == version)
    }
}

fn cannot(rollout: &Rollout, wish: Wish) -> String {
    format!("rollout {} is {}: it cannot be asked to {}", rollout.id, rollout.phase.name(), wish.as_str())
}

fn warnings(rollout: &Rollout) -> Vec<String> {
    let mut warnings = Vec::new();
    let canaries = rollout.members_of(0).count() as u64;
    let others = rollout.members.len() as u64 - canaries;
    if canaries < crate::judge::FEW_CANARIES || others < crate::judge::FEW_CONTROLS {
        warnings.push(format!(
            "{canaries} canaries and {others} others are too few to be compared: each device's own trial decides, and the judgement is weak"
        ));
    } else if canaries < drift::ADVISED_CANARIES {
        let advised = drift::ADVISED_CANARIES;
        warnings.push(format!("{canaries} canaries tell little: from {advised} on, what they say is sure"));
    }
    if rollout.policy.waves.first().is_some_and(|wave| wave.soak.0 == 0) && rollout.waves() > 1 {
        warnings.push("the first wave has no soak: what shows itself after the trial is seen too late".into());
    }
    warnings
}
