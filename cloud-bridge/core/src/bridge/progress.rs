//! How a rollout goes on by itself: what was heard becomes evidence, the evidence a judgement, the judgement a turn, and the
//! turn a plan that was audited.
//!
//! A look costs as much as there are members, so a large rollout is looked at less often than it hears something: looks
//! take a bounded part of the time, however much is said.

use super::Bridge;
use crate::audit::Deed;
use crate::auditor::{Known, audit};
use crate::evidence::{Figures, Measured};
use crate::judge::{Judgement, Verdict, judge};
use crate::planner::{Plan, plan};
use crate::rollout::{Member, Place, Standing};
use crate::{Device, DeviceResult, Now, Phase, Record, Rollout, Turn, UnixMillis};
use protocol::DeviceId;
use std::collections::{BTreeMap, BTreeSet};
use trust::{Intent, Trial};

/// Members that a look may take for each millisecond that passes between two looks.
const MEMBERS_PER_MS: u64 = 10;
/// So few are looked at whenever something of them is heard.
const FEW_MEMBERS: u64 = 500;
/// Turns of a rollout in one look: each wave has three.
const MOST_TURNS: usize = 128;

/// When a rollout was looked at, and when it must be again. Nothing of it outlives the process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Looks {
    last: Option<UnixMillis>,
    pub(crate) next: Option<UnixMillis>,
}

impl Looks {
    /// As soon as possible.
    pub(crate) fn due() -> Self {
        Self { last: None, next: Some(0) }
    }
}

impl Bridge {
    /// Takes what devices measured: as what they did lately, and as evidence for the rollouts that they are in.
    pub(super) fn measure(&mut self, now: Now, measured: Vec<Measured>) {
        let mut touched = BTreeSet::new();
        for Measured { device: id, stream, release, figures } in measured {
            let Some(device) = self.devices.get_mut(&id).filter(|d| d.is_approved()) else { continue };
            device.last_seen = now.unix;
            let ran = device.desired.get(&stream).map(|desired| desired.release);
            // A trial that failed is no day of the release before it.
            if ran == Some(release) {
                device.lately.entry(stream.clone()).or_default().take(now.unix, release, &figures);
            }
            self.changed_devices.insert(id.clone());
            let open = |r: &&mut Rollout| r.stream == stream && r.phase.is_under_way();
            for rollout in self.rollouts.values_mut().filter(open) {
                let own = rollout.release;
                let Some(member) = rollout.members.get_mut(&id) else { continue };
                let before = match member.place {
                    Place::Waiting { .. } => ran,
                    Place::Assigned => member.before.and_then(|b| self.releases.get(&b)).map(|r| r.release),
                    Place::Returning | Place::Returned => continue,
                };
                if member.place == Place::Assigned && release == own {
                    member.new.add(&figures);
                } else if before == Some(release) {
                    member.old.add(&figures);
                } else {
                    continue;
                }
                self.changed_members.insert((rollout.id, id.clone()));
                touched.insert(rollout.id);
            }
        }
        touched.into_iter().for_each(|id| self.look(now, id));
    }

    /// A device said what became of the release that a rollout assigned it.
    pub(super) fn take_result(&mut self, now: Now, id: u64, device: &DeviceId, result: DeviceResult) {
        let Some(rollout) = self.rollouts.get_mut(&id) else { return };
        let Some(member) = rollout.members.get_mut(device).filter(|m| m.place == Place::Assigned) else { return };
        member.result = Some(result);
        self.changed_members.insert((id, device.clone()));
        self.look(now, id);
    }

    /// A device says what it runs: some are back by that.
    pub(super) fn note_return(&mut self, now: Now, id: &DeviceId) {
        let Some(device) = self.devices.get(id) else { return };
        let mut back = Vec::new();
        for rollout in self.rollouts.values_mut() {
            let Some(member) = rollout.members.get_mut(id).filter(|m| m.place == Place::Returning) else { continue };
            if is_back(member, &rollout.stream, device) {
                member.place = Place::Returned;
                back.push(rollout.id);
            }
        }
        for rollout in back {
            self.changed_members.insert((rollout, id.clone()));
            self.look(now, rollout);
        }
    }

    /// A device confirmed what it ran before.
    pub(super) fn take_return(&mut self, now: Now, id: u64, device: &DeviceId) {
        let member = self.rollouts.get_mut(&id).and_then(|r| r.members.get_mut(device));
        if let Some(member) = member.filter(|m| m.place == Place::Returning) {
            member.place = Place::Returned;
            self.changed_members.insert((id, device.clone()));
            self.look(now, id);
        }
    }

    /// Something happened that may concern any rollout under way.
    pub(super) fn look_at_all(&mut self, now: Now) {
        let open = |r: &&Rollout| r.phase.is_under_way() || matches!(r.phase, Phase::Reverting { .. });
        let open: Vec<u64> = self.rollouts.values().filter(open).map(|r| r.id).collect();
        open.into_iter().for_each(|id| self.look(now, id));
    }

    /// Looks at the rollouts for which it is time.
    pub(super) fn look_at_due(&mut self, now: Now) {
        let due = self.looks.iter().filter(|(_, looks)| looks.next.is_some_and(|at| at <= now.unix));
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.look_now(now, id));
    }

    /// Looks at a rollout, or will soon.
    pub(super) fn look(&mut self, now: Now, id: u64) {
        let Some(rollout) = self.rollouts.get(&id) else { return };
        let members = rollout.members.len() as u64;
        let pause = if members <= FEW_MEMBERS { 0 } else { members / MEMBERS_PER_MS };
        let looks = self.looks.entry(id).or_default();
        match looks.last.map(|last| last.saturating_add(pause)) {
            Some(soonest) if soonest > now.unix => {
                looks.next = Some(looks.next.map_or(soonest, |next| next.min(soonest)))
            }
            Some(_) | None => self.look_now(now, id),
        }
    }

    fn look_now(&mut self, now: Now, id: u64) {
        self.looks.insert(id, Looks { last: Some(now.unix), next: None });
        for _ in 0..MOST_TURNS {
            // What will be tried again is no evidence yet; and nobody is assigned anything before that was looked at.
            if self.carry_out(now, id, |due| Plan { box_up: due.box_up, allowance: due.allowance, ..Plan::default() }) {
                continue;
            }
            match self.next_turn(now, id) {
                Some(turn) => self.turn(now, id, turn),
                None if self.carry_out(now, id, |due| due) => {}
                None => return,
            }
        }
    }

    /// What the evidence makes of a rollout, if anything; and when to look again.
    fn next_turn(&mut self, now: Now, id: u64) -> Option<Turn> {
        let rollout = self.rollouts.get_mut(&id)?;
        if let Phase::Reverting { .. } = rollout.phase {
            let waits = |m: &&Member| match m.place {
                Place::Assigned | Place::Returning => self.devices.get(&m.device).is_some_and(Device::is_approved),
                Place::Waiting { .. } | Place::Returned => false,
            };
            return rollout.members.values().all(|m| !waits(&m)).then_some(Turn::Returned);
        }
        // What has it already is looked at while the next wave waits for approval.
        let wave = match rollout.phase {
            Phase::Approval { wave } => wave.checked_sub(1)?,
            _ => rollout.wave()?,
        };
        let judgement = judge(rollout, &self.devices, now.unix);
        let known = rollout.judgement.as_ref();
        let same = |known: &Judgement| {
            (&known.findings, known.counted, known.beside) == (&judgement.findings, judgement.counted, judgement.beside)
        };
        if !known.is_some_and(same) {
            rollout.judgement = Some(judgement.clone());
            self.changed_rollouts.insert(id);
        }
        let rollout = self.rollouts.get(&id)?;
        let waived = rollout.waived == Some(wave);
        if judgement.verdict == Verdict::Fail && !waived {
            return Some(breached(rollout, judgement.reason()));
        }
        let answered = answered(rollout, wave, &self.devices, now.unix);
        let mut soon = vec![overdue_at(rollout, &self.devices, now.unix)];
        let turn = match (&rollout.phase, answered) {
            (Phase::Rolling { .. } | Phase::Soaking { .. }, Answered::Nobody) if !waived => {
                let seconds = rollout.policy.silence.deadline.0 / 1_000;
                let reason = format!("no device of wave {} confirmed within {seconds} seconds", wave + 1);
                Some(breached(rollout, reason))
            }
            (Phase::Rolling { .. }, Answered::All | Answered::Nobody) => Some(Turn::Answered { at: now.unix }),
            (Phase::Rolling { .. }, Answered::Open) => None,
            // Whoever comes only now is looked at like the others; it does not begin the soak anew.
            (Phase::Soaking { since, .. }, answered) => {
                let last = wave + 1 >= rollout.waves();
                let soaked = since.saturating_add(rollout.soak(wave));
                let patient = soaked.saturating_add(rollout.policy.gates.patience.0);
                if now.unix < soaked {
                    soon.push(Some(soaked));
                    None
                } else if judgement.verdict == Verdict::NotYet && !waived && rollout.policy.gates.patience.0 > 0 {
                    soon.push(Some(patient));
                    let reason = || format!("not enough evidence after wave {}: {}", wave + 1, lacking(&judgement));
                    (now.unix >= patient).then(|| Turn::Held { reason: reason(), by_person: false })
                } else if last && answered == Answered::Open {
                    None
                } else {
                    Some(Turn::Passed { last, approval: !last && rollout.wants_approval(wave + 1) })
                }
            }
            (
                Phase::Draft
                | Phase::Approval { .. }
                | Phase::Paused { .. }
                | Phase::Reverting { .. }
                | Phase::Stopped { .. }
                | Phase::Completed,
                _,
            ) => None,
        };
        if turn.is_none() {
            let next = soon.into_iter().flatten().filter(|at| *at > now.unix).min();
            self.wake(id, next);
        }
        turn
    }

    fn wake(&mut self, id: u64, at: Option<UnixMillis>) {
        let looks = self.looks.entry(id).or_default();
        looks.next = looks.next.into_iter().chain(at).min();
    }

    /// A rollout goes on to what follows.
    pub(super) fn turn(&mut self, now: Now, id: u64, turn: Turn) {
        let Some(rollout) = self.rollouts.get_mut(&id) else { return };
        let Some(next) = rollout.phase.next(turn) else { return };
        let is_new_wave = next.wave().is_some_and(
            |wave| !matches!(rollout.phase, Phase::Soaking { wave: w, .. } | Phase::Rolling { wave: w } if w == wave),
        );
        if is_new_wave {
            rollout.wave_started = now.unix;
        }
        // The day has a rhythm: those that wait are measured in the same hours as those that come next.
        if is_new_wave && !matches!(rollout.phase, Phase::Paused { .. }) {
            for member in rollout.members.values_mut().filter(|m| !m.is_hit() && m.old != Figures::default()) {
                member.begin_anew();
                self.changed_members.insert((id, member.device.clone()));
            }
        }
        let reason = match &next {
            Phase::Paused { reason, .. } | Phase::Reverting { reason, .. } | Phase::Stopped { reason, .. } => {
                format!(": {reason}")
            }
            Phase::Approval { wave } | Phase::Rolling { wave } | Phase::Soaking { wave, .. } => {
                format!(": wave {}", wave + 1)
            }
            Phase::Draft | Phase::Completed => String::new(),
        };
        let subject = format!("{id} {}@{}{reason}", rollout.stream, rollout.version);
        let action = format!("rollout.{}", next.name());
        self.records.push(Record::Deed(Box::new(Deed::new("judge", &action, &subject, "done"))));
        rollout.ended = matches!(next, Phase::Stopped { .. } | Phase::Completed).then_some(now.unix);
        rollout.phase = next;
        self.changed_rollouts.insert(id);
    }

    /// Does what is due, if the auditor finds nothing against it. Whether that was anything.
    fn carry_out(&mut self, now: Now, id: u64, part: impl FnOnce(Plan) -> Plan) -> bool {
        let Some(rollout) = self.rollouts.get(&id) else { return false };
        let due = part(plan(rollout, &self.devices, now.unix));
        let revoked = self.releases.get(&rollout.bundle).is_none_or(|r| self.check_not_revoked(r).is_err());
        let known = Known {
            devices: &self.devices,
            rollouts: &self.rollouts,
            releases: &self.releases,
            revoked,
            now: now.unix,
        };
        if let Err(breach) = audit(&due, rollout, known) {
            // Nothing of it is done. A revoked release, or a fault of our own: a person decides.
            let reason = format!("the plan would break a promise: {breach}");
            self.turn(now, id, Turn::Held { reason, by_person: false });
            return false;
        }
        self.wake(id, due.wake);
        let something = !(due.assign.is_empty() && due.send_back.is_empty() && due.box_up.is_empty());
        self.apply(now, id, due);
        something
    }

    fn apply(&mut self, now: Now, id: u64, due: Plan) {
        let Plan { assign, send_back, box_up, allowance, wake: _ } = due;
        if let Some(rollout) = self.rollouts.get_mut(&id)
            && rollout.policy.pace.is_some()
            && !assign.is_empty()
        {
            rollout.allowance = (allowance, now.unix);
            self.changed_rollouts.insert(id);
        }
        for name in assign {
            self.assign(now, id, &name);
        }
        for name in send_back {
            self.send_back(id, &name);
            self.place(id, &name, |member| member.place = Place::Returning);
            self.note_superseded(id, &name);
        }
        for (name, until) in box_up {
            self.send_back(id, &name);
            self.place(id, &name, |member| {
                member.tries += 1;
                member.result = None;
                member.place = Place::Waiting { until };
            });
            if let Some(rollout) = self.rollouts.get_mut(&id) {
                rollout.retries += 1;
                self.changed_rollouts.insert(id);
            }
        }
    }

    fn place(&mut self, id: u64, name: &DeviceId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.rollouts.get_mut(&id).and_then(|r| r.members.get_mut(name)) {
            change(member);
            self.changed_members.insert((id, name.clone()));
        }
    }

    fn assign(&mut self, now: Now, id: u64, name: &DeviceId) {
        let Some(rollout) = self.rollouts.get(&id) else { return };
        let Some(release) = self.releases.get(&rollout.bundle) else { return };
        // A device that was away may still run whatever it was ever assigned.
        let assigned = |r: &&Rollout| r.stream == release.stream && r.members.get(name).is_some_and(Member::is_hit);
        let newest = self.rollouts.values().filter(assigned).map(|r| r.release).max();
        let Some(device) = self.devices.get_mut(name) else { return };
        let older = newest.is_some_and(|newest| release.release < newest);
        let intent = if older { Intent::Rollback } else { Intent::Install };
        let ran = device.desired.get(&release.stream).map(|d| d.bundle);
        device.want(release, intent, id, rollout.policy.trial);
        let there = device.online;
        self.due.insert(name.clone());
        self.changed_devices.insert(name.clone());
        self.place(id, name, |member| {
            // Of one that is tried again, what it ran before the first time.
            if member.assigned.is_none() {
                member.before = ran;
            }
            member.assigned = Some(now.unix);
            member.there = there;
            member.place = Place::Assigned;
        });
    }

    /// A device that should run the rollout's release gets what it ran before: a newer generation that names the older
    /// bundle. One that took it back itself agrees at once, and no later rollout takes for its previous release one that
    /// it never ran.
    fn send_back(&mut self, id: u64, name: &DeviceId) {
        let Some(rollout) = self.rollouts.get(&id) else { return };
        let Some(device) = self.devices.get_mut(name) else { return };
        if !device.desired.get(&rollout.stream).is_some_and(|d| d.rollout == id && d.bundle == rollout.bundle) {
            return;
        }
        let before = rollout.members.get(name).and_then(|m| m.before);
        match before.and_then(|bundle| self.releases.get(&bundle)) {
            Some(release) => device.want(release, Intent::Rollback, id, Trial::default()),
            None => device.want_none(&rollout.stream),
        }
        self.due.insert(name.clone());
        self.changed_devices.insert(name.clone());
    }

    /// A later rollout has the device already: it does not come back to this one.
    fn note_superseded(&mut self, id: u64, name: &DeviceId) {
        let Some(rollout) = self.rollouts.get(&id) else { return };
        let desired = self.devices.get(name).and_then(|d| d.desired.get(&rollout.stream));
        let before = rollout.members.get(name).and_then(|m| m.before);
        let superseded = match (desired, before) {
            (Some(desired), _) => desired.rollout != id,
            (None, before) => before.is_some(),
        };
        if superseded {
            self.place(id, name, |member| member.place = Place::Returned);
        }
    }
}

/// Whether a device says that it runs what it ran before.
fn is_back(member: &Member, stream: &protocol::StreamName, device: &Device) -> bool {
    let Some(report) = &device.report else { return false };
    let said = report.generation.map_or(0, |generation| generation.seq);
    match device.desired.get(stream) {
        Some(desired) if desired.rollout != member.rollout => true,
        Some(desired) => {
            said >= desired.since && device.active(stream).is_some_and(|(_, bundle)| bundle == desired.bundle)
        }
        None => said >= device.generation && device.active(stream).is_none(),
    }
}

fn breached(rollout: &Rollout, reason: String) -> Turn {
    Turn::Breached { reason, revert: rollout.policy.on_breach.action == crate::policy::Action::Revert }
}

/// Whether a wave can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// Somebody is expected to answer.
    Open,
    /// Everybody who can answer has.
    All,
    /// Nobody confirmed, and the time is over.
    Nobody,
}

fn answered(rollout: &Rollout, wave: usize, devices: &BTreeMap<DeviceId, Device>, now: UnixMillis) -> Answered {
    let deadline = rollout.policy.silence.deadline.0;
    let (mut open, mut away, mut own, mut confirmed, mut hit) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    for member in rollout.members.values().filter(|m| m.wave <= wave) {
        let device = devices.get(&member.device);
        let standing = member.standing(device, now, deadline);
        let online = device.is_some_and(|d| d.online);
        let is_own = member.wave == wave && standing != Standing::Gone;
        own += u64::from(is_own);
        hit += u64::from(is_own && member.is_hit());
        match standing {
            Standing::Waiting if !device.is_some_and(|d| rollout.wants(d)) => {}
            Standing::Waiting if online => open += 1,
            Standing::Waiting | Standing::Away => away += 1,
            Standing::Open => open += 1,
            Standing::Confirmed => confirmed += u64::from(is_own),
            Standing::Unknown | Standing::Failed | Standing::Gone => {}
        }
    }
    let overdue = now >= rollout.wave_started.saturating_add(deadline);
    let failed = rollout.members_of(wave).filter(|m| m.has_failed()).count() as u64;
    // Windows and paces have their own time: what was assigned to nobody is not late.
    if overdue
        && own > 0
        && confirmed == 0
        && failed < own
        && (hit > 0 || rollout.policy.windows.is_empty())
        && open == 0
    {
        return Answered::Nobody;
    }
    let last = wave + 1 >= rollout.waves();
    match (open, away) {
        (0, 0) => Answered::All,
        (0, _) if overdue || (!last && confirmed > 0) => Answered::All,
        (_, _) => Answered::Open,
    }
}

/// When somebody will have been silent for too long.
fn overdue_at(rollout: &Rollout, devices: &BTreeMap<DeviceId, Device>, now: UnixMillis) -> Option<UnixMillis> {
    let deadline = rollout.policy.silence.deadline.0;
    let wave = rollout.wave_started.saturating_add(deadline);
    let silent = rollout.members.values().filter(|m| m.place == Place::Assigned).filter_map(|m| {
        let device = devices.get(&m.device)?;
        let heard = if m.result.is_none() && m.there { m.assigned? } else { device.last_seen.max(m.assigned?) };
        (m.result.is_none() || !device.online).then(|| heard.saturating_add(deadline))
    });
    silent.chain([wave]).filter(|at| *at > now).min()
}

fn lacking(judgement: &crate::judge::Judgement) -> String {
    let lacking = judgement.findings.iter().filter(|finding| finding.verdict == Verdict::NotYet);
    lacking.map(|finding| finding.why.clone()).collect::<Vec<_>>().join("; ")
}
