//! Land that was put back from a copy: what it has forgotten, and how it learns it again from its devices.
//!
//! A copy is older than the devices. What land signs next must be newer than all that it signed since, or devices take it for
//! a repetition; and it must not send anybody back to what the copy knew. So every number goes on from the time of that
//! moment, rollouts wait for a person, and a device is told nothing before it was heard: what it runs by then is what it
//! should run.

use super::Bridge;
use crate::{
    Alarm, Desired, Device, DeviceResult, Member, Now, Phase, Place, Policy, Record, Release, Rollout, SampleRequest,
    UnixMillis,
};
use protocol::{DeviceId, Outcome};
use trust::{Digest, Intent};

/// How an alarm of this begins.
const FORGOTTEN: &str = "it has what land has forgotten, ";

/// The records of a copy that was made at `made`, as land begins with them again at `now`. Numbers go on from `now`, in
/// milliseconds: no land counts as fast as that, so whatever was signed before, also after another copy was put back, is older.
pub fn put_back(records: impl IntoIterator<Item = Record>, made: UnixMillis, now: UnixMillis) -> Vec<Record> {
    let mut reserved = now;
    let mut begin = |record| match record {
        Record::Device(mut device) => {
            forget(&mut device, now);
            Record::Device(device)
        }
        Record::Rollout(mut rollout) => {
            hold(&mut rollout, made);
            Record::Rollout(rollout)
        }
        Record::Member(mut member) => {
            // It has as long to be heard as one that is assigned it now.
            member.assigned = member.assigned.map(|_| now);
            member.there = false;
            if member.place == Place::Returning {
                member.place = Place::Assigned;
            }
            Record::Member(member)
        }
        // Somebody may have ended it since.
        Record::Samples(request) => {
            let ended = request.ended.clone().or_else(|| Some("bridge".into()));
            Record::Samples(Box::new(SampleRequest { ended, ..*request }))
        }
        Record::Beacons { reserved: before } => {
            reserved = reserved.max(before);
            Record::Beacons { reserved }
        }
        other => other,
    };
    let mut records: Vec<Record> = records.into_iter().map(&mut begin).collect();
    // Also where the copy is from before the first beacon.
    records.extend([Record::Beacons { reserved }, Record::PutBack { at: now }]);
    records
}

/// What it runs and knows, nobody knows any more.
fn forget(device: &mut Device, now: UnixMillis) {
    // A copy of a land that had not heard it yet either knows no more than that one.
    device.forgotten = device.forgotten.or(Some(device.generation));
    device.generation = device.generation.max(now);
    device.commands = device.commands.max(now);
    (device.report, device.online, device.last_seen) = (None, false, now);
    device.alarm = device.alarm.take().filter(|alarm| !alarm.what.starts_with(FORGOTTEN));
}

/// What came of its devices since, nobody knows: a person looks before it goes on, or back.
fn hold(rollout: &mut Rollout, made: UnixMillis) {
    let time = i64::try_from(made).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.map(|time| time.to_string()).unwrap_or_default();
    let (wave, more) = match &rollout.phase {
        Phase::Rolling { wave } | Phase::Soaking { wave, .. } | Phase::Paused { wave, .. } => (*wave, ""),
        Phase::Approval { wave } if *wave > 0 => (wave - 1, ""),
        Phase::Reverting { wave, .. } => (*wave, "; it was being taken back: abort it to go on with that"),
        Phase::Draft | Phase::Approval { .. } | Phase::Stopped { .. } | Phase::Completed => return,
    };
    let reason = format!("land was put back from a copy of {time}{more}");
    rollout.phase = Phase::Paused { wave, reason, by_person: true };
}

impl Bridge {
    /// A device was heard since land was put back, or what one of them has came again.
    pub(super) fn remember(&mut self, now: Now, id: &DeviceId) {
        let numbers = self.documents.numbers().unwrap_or_default();
        let Some(device) = self.devices.get_mut(id) else { return };
        let (Some(before), Some(report)) = (device.forgotten, &device.report) else { return };
        let mut missing = Vec::new();
        if report.root_version > numbers.root {
            missing.push(format!("root {}", report.root_version));
        }
        if let Some(newer) = report.revocation.filter(|known| known.seq > numbers.revocation) {
            missing.push(format!("revocation {}", newer.seq));
        }
        let told = report.generation.map_or(0, |told| told.seq);
        device.generation = device.generation.max(told);
        let mut runs = Vec::new();
        for row in report.streams.iter().filter(|_| told > before) {
            let Some(active) = row.active else { continue };
            let digest = Digest(active.statement_sha256);
            let desired = device.desired.get(&row.stream);
            match self.releases.get(&digest) {
                _ if desired.is_some_and(|desired| desired.bundle == digest) => {}
                None => missing.push(format!("{} release {} ({})", row.stream, active.release, digest.short())),
                Some(release) => {
                    let known = desired.map(|desired| desired.bundle);
                    let desired = Desired {
                        intent: Intent::Install,
                        release: release.release,
                        version: release.version.clone(),
                        bundle: digest,
                        total_size: release.total_size,
                        rollout: self.rollouts.values().find(|r| gives(r, release, id)).map_or(0, |r| r.id),
                        trial: desired.map_or_else(|| Policy::default().trial, |desired| desired.trial),
                        since: device.generation,
                        verdict: desired.map_or(0, |desired| desired.verdict),
                    };
                    device.desired.insert(row.stream.clone(), desired);
                    runs.push((row.stream.clone(), digest, known));
                }
            }
        }
        self.changed_devices.insert(id.clone());
        if missing.is_empty() {
            self.settle(id);
        } else {
            let missing = missing.join(", ");
            let what = format!(
                "{FORGOTTEN}{missing}: push or publish that again, or let what land knows count (`petrel devices approve {id}`)"
            );
            device.alarm = Some(Alarm { at: now.unix, what });
        }
        for (stream, runs, known) in runs {
            for rollout in self.rollouts.values_mut().filter(|r| r.stream == stream && r.phase.is_under_way()) {
                let Some(member) = rollout.members.get_mut(id) else { continue };
                if rollout.bundle == runs {
                    has_it(member, known, now);
                } else if member.place != Place::Returned {
                    // Something newer was decided for it.
                    rollout.members.remove(id);
                }
                self.changed_members.insert((rollout.id, id.clone()));
            }
        }
    }

    /// What land wants of a device counts from now on.
    pub(super) fn settle(&mut self, id: &DeviceId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        device.forgotten = None;
        device.alarm = device.alarm.take().filter(|alarm| !alarm.what.starts_with(FORGOTTEN));
        self.changed_devices.insert(id.clone());
        self.due.insert(id.clone());
    }

    /// The same for all of which something was missing.
    pub(crate) fn remember_all(&mut self, now: Now) {
        let waiting = self.devices.values().filter(|d| d.forgotten.is_some() && d.report.is_some());
        let waiting: Vec<DeviceId> = waiting.map(|device| device.id.clone()).collect();
        waiting.iter().for_each(|id| self.remember(now, id));
    }
}

/// Whether a device can have a release by this rollout, which is under way.
fn gives(rollout: &Rollout, release: &Release, id: &DeviceId) -> bool {
    rollout.phase.is_under_way() && rollout.bundle == release.bundle && rollout.members.contains_key(id)
}

/// It was assigned the release after the copy, and has confirmed it.
fn has_it(member: &mut Member, before: Option<Digest>, now: Now) {
    let confirmed = || DeviceResult {
        outcome: Outcome::Confirmed,
        code: None,
        detail: None,
        answers: 0,
        errors: 0,
        compared: 0,
        disagreed: 0,
    };
    if member.place != Place::Assigned {
        member.before = before;
    }
    member.place = Place::Assigned;
    (member.assigned, member.there) = (Some(now.unix), true);
    member.result.get_or_insert_with(confirmed);
}
