//! Land as a whole: devices, releases, rollouts, and one `step`.

mod command;
mod identity;
mod progress;
mod repair;
mod returned;
mod rollouts;
mod samples;
mod shelf;
mod stock;
mod twin;

pub use command::{FanOut, FanOutWish, LONGEST_COMMAND, MOST_AT_ONCE};
pub use identity::is_label_value;
pub use repair::{NEED_RATE, Needs};
pub use returned::put_back;
pub use rollouts::{Preview, Wish};
pub use samples::{Asked, MOST_ASKED, Said, SampleRequest, SampleState, SampleTurn, SampleWish};
pub use stock::Stay;

use crate::documents::{Announcement, Beacons, Documents};
use crate::rollout::Member;
use crate::{
    Answer, Desired, Device, DeviceResult, Disbelief, Effect, Event, Greeted, Now, Phase, Record, Rejection, Release,
    Rollout, Status, Step, StoredDocument, UnixMillis, Withdrawn,
};
use progress::Looks;
use protocol::{DeviceId, FleetId, Outcome, Profile, Report, Verdict};
use repair::Repair;
use shelf::Shelf;
use std::collections::{BTreeMap, BTreeSet};
use trust::{Digest, Refusal, Request, Revocation, Root, Verified};
use twin::Twins;

/// The decisions of land.
#[derive(Debug)]
pub struct Bridge {
    pub(crate) fleet: FleetId,
    pub(crate) documents: Documents,
    pub(crate) beacons: Beacons,
    pub(crate) announcement: Announcement,
    pub(crate) devices: BTreeMap<DeviceId, Device>,
    releases: BTreeMap<Digest, Release>,
    rollouts: BTreeMap<u64, Rollout>,
    sample_requests: BTreeMap<u64, SampleRequest>,
    fan_outs: BTreeMap<u64, FanOut>,
    /// When fan-outs of the last minute were, and how many devices they asked.
    asked_lately: Vec<(UnixMillis, u64)>,
    /// When whoever gave no inputs is asked again.
    samples_due: Option<UnixMillis>,
    looks: BTreeMap<u64, Looks>,
    /// When land was put back from a copy, if it ever was.
    put_back: Option<UnixMillis>,
    withdrawn: BTreeMap<String, Withdrawn>,
    disbelieved: BTreeMap<Disbelief, u64>,
    repair: Repair,
    shelf: Shelf,
    twins: Twins,
    /// Nothing has been said since the start: effects of the last step before it may be lost.
    fresh: bool,
    /// The generation of each device's assignment that the audit log tells of.
    told: BTreeMap<DeviceId, u64>,
    // What the step under way has gathered.
    changed_devices: BTreeSet<DeviceId>,
    changed_rollouts: BTreeSet<u64>,
    changed_members: BTreeSet<(u64, DeviceId)>,
    /// Devices that are told what they should run: once, with what the whole step decided.
    pub(crate) due: BTreeSet<DeviceId>,
    pub(crate) records: Vec<Record>,
    pub(crate) effects: Vec<Effect>,
}

impl Bridge {
    /// Land as it was remembered.
    ///
    /// # Errors
    /// When a document that was kept is not believed any more.
    pub fn restore(fleet: FleetId, records: impl IntoIterator<Item = Record>) -> Result<Self, Refusal> {
        let mut bridge = Self {
            fleet,
            documents: Documents::default(),
            beacons: Beacons::default(),
            announcement: Announcement::default(),
            devices: BTreeMap::new(),
            releases: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            sample_requests: BTreeMap::new(),
            fan_outs: BTreeMap::new(),
            asked_lately: Vec::new(),
            samples_due: None,
            looks: BTreeMap::new(),
            put_back: None,
            withdrawn: BTreeMap::new(),
            disbelieved: BTreeMap::new(),
            repair: Repair::default(),
            shelf: Shelf::default(),
            twins: Twins::default(),
            fresh: true,
            told: BTreeMap::new(),
            changed_devices: BTreeSet::new(),
            changed_rollouts: BTreeSet::new(),
            changed_members: BTreeSet::new(),
            due: BTreeSet::new(),
            records: Vec::new(),
            effects: Vec::new(),
        };
        let (mut documents, mut members): (Vec<_>, BTreeMap<_, Member>) = Default::default();
        for record in records {
            match record {
                Record::Device(device) => {
                    bridge.told.insert(device.id.clone(), device.generation);
                    bridge.devices.insert(device.id.clone(), *device);
                }
                Record::NoDevice { id } => drop(bridge.devices.remove(&id)),
                Record::Release(release) => drop(bridge.releases.insert(release.bundle, *release)),
                Record::NoRelease { bundle } => drop(bridge.releases.remove(&bundle)),
                Record::Rollout(rollout) => drop(bridge.rollouts.insert(rollout.id, *rollout)),
                Record::NoRollout { rollout } => drop(bridge.rollouts.remove(&rollout)),
                Record::Member(m) => drop(members.insert((m.rollout, m.device.clone()), *m)),
                Record::NoMember { rollout, device } => drop(members.remove(&(rollout, device))),
                Record::Samples(request) => drop(bridge.sample_requests.insert(request.id, *request)),
                Record::NoSamples { request } => drop(bridge.sample_requests.remove(&request)),
                Record::FanOut(fan_out) => drop(bridge.fan_outs.insert(fan_out.id, *fan_out)),
                Record::NoFanOut { fan_out } => drop(bridge.fan_outs.remove(&fan_out)),
                // The log is the hands' to read.
                Record::Deed(_) => {}
                // So are commands, and what came of them.
                Record::Command(_) => {}
                Record::Document(document) => documents.push(*document),
                Record::Beacons { reserved } => bridge.beacons.restore(reserved),
                Record::PutBack { at } => bridge.put_back = Some(at),
                Record::Withdrawn(w) => drop(bridge.withdrawn.insert(w.serial.clone(), w)),
                Record::NotWithdrawn { serial } => drop(bridge.withdrawn.remove(&serial)),
            }
        }
        for member in members.into_values() {
            let rollout = bridge.rollouts.get_mut(&member.rollout);
            rollout.map(|rollout| rollout.members.insert(member.device.clone(), member));
        }
        // What was due when the last process ended is due now.
        let open = bridge.rollouts.values().filter(|r| !matches!(r.phase, Phase::Stopped { .. } | Phase::Completed));
        bridge.looks = open.map(|r| (r.id, Looks::due())).collect();
        bridge.samples_due = bridge.sample_requests.values().any(|request| request.approved.is_some()).then_some(0);
        bridge.documents = Documents::restore(bridge.fleet.as_str(), documents)?;
        bridge.adopt();
        bridge.set_up_shelf();
        Ok(bridge)
    }

    /// The newest root and revocation.
    pub fn believed(&self) -> (Option<&Verified<Root>>, Option<&Verified<Revocation>>) {
        (self.documents.root(), self.documents.revocation())
    }

    /// Every document for everybody.
    pub fn documents(&self) -> impl Iterator<Item = &StoredDocument> {
        self.documents.all()
    }

    /// Every device.
    pub fn devices(&self) -> &BTreeMap<DeviceId, Device> {
        &self.devices
    }

    /// Every release by its bundle.
    pub fn releases(&self) -> &BTreeMap<Digest, Release> {
        &self.releases
    }

    /// Every rollout.
    pub fn rollouts(&self) -> &BTreeMap<u64, Rollout> {
        &self.rollouts
    }

    /// When [`Event::DeadlineReached`] is due.
    pub fn deadline(&self) -> Option<UnixMillis> {
        let looks = self.looks.values().filter_map(|looks| looks.next);
        looks.chain(self.beacons.due).chain(self.announcement.due).chain(self.samples_due).min()
    }

    /// Takes one event and decides.
    pub fn step(&mut self, now: Now, event: Event) -> Step {
        let answer = match event {
            Event::BrokerConnected { remembered, retains } => self.say_all(now, remembered, retains),
            Event::BundleMissed { bundle } => {
                self.refill_shelf(bundle);
                Ok(Answer::Done)
            }
            Event::DocumentPushed { .. } => self.take_document(now, event),
            Event::HelloReceived { device, boot, seq, key, nonce, profile } => {
                self.greet(now, device, (boot, seq), &key, nonce, profile)
            }
            Event::DeviceEnrolled { device, credential, profile, invitation } => {
                self.enrol(now, device, credential, profile, invitation)
            }
            Event::KeyRenewed { device, shown, credential } => {
                // It uses that key, also when no message that it signed has come: it must not take its own place away.
                self.promote(now, &device, &shown).and_then(|_| self.renew(now, &device, credential))
            }
            Event::DeviceReturned { device, credential } => self.take_back(now, &device, credential),
            Event::KeyUsed { device, key } => self.promote(now, &device, &key),
            Event::MessageDisbelieved { why } => self.disbelieve(why),
            Event::ReportReceived(report) => self.take_report(now, *report),
            Event::VerdictReceived(verdict) => self.take_verdict(now, verdict),
            Event::PresenceReceived { device, online } => self.take_presence(now, &device, online),
            Event::ChunksNeeded { device, bundle, documents, chunks } => {
                self.help(now, &device, bundle, documents, chunks)
            }
            Event::DeviceApproved { device } => self.approve(now, &device),
            Event::DeviceRejected { device } => self.reject(now, &device),
            Event::DeviceRevoked { device } => self.revoke(now, &device),
            Event::DeviceRetired { device } => self.retire(now, &device),
            Event::DeviceLabelled { device, labels } => self.label(now, &device, labels),
            Event::ReleasePushed(release) => self.learn(now, release),
            Event::RolloutRequested(request) => self.start(now, &request),
            Event::RolloutTurned { rollout, by, since, wish } => self.wish(now, rollout, (&by, since), wish),
            Event::Measured(measured) => {
                self.measure(now, measured);
                Ok(Answer::Done)
            }
            Event::RolloutAged { rollout, before } => self.forget_rollout(rollout, before),
            Event::StockCleared { before } => self.clear_stock(before),
            Event::CommandRequested { request: Request::Samples { .. }, .. } => Err(Rejection::Invalid(
                "inputs are given for a request that somebody approved: `petrel samples ask`".into(),
            )),
            Event::CommandRequested { device, request, good_for } => self.command(now, &device, request, good_for),
            Event::FanOutRequested(wish) => self.fan_out(now, *wish),
            Event::CommandAnswered { device, seq, outcome, said } => {
                self.take_samples(now, &device, seq, outcome, said);
                Ok(Answer::Done)
            }
            Event::SamplesWanted(wish) => self.want_samples(now, *wish),
            Event::SamplesTurned { request, by, since, turn } => self.turn_samples(now, request, (&by, since), turn),
            Event::DeadlineReached => self.reach_deadlines(now),
        };
        self.finish(now, answer)
    }

    fn finish(&mut self, now: Now, answer: Result<Answer, Rejection>) -> Step {
        let mut assignments = Vec::new();
        if let Some(numbers) = self.documents.numbers() {
            for id in std::mem::take(&mut self.due) {
                let Some(device) = self.devices.get_mut(&id).filter(|d| d.forgotten.is_none()) else { continue };
                if device.seal(now, numbers) {
                    self.changed_devices.insert(id);
                }
                assignments.push(Effect::PublishAssignment(device.assignment()));
            }
        }
        let mut records = std::mem::take(&mut self.records);
        for id in std::mem::take(&mut self.changed_devices) {
            self.note_waiting(&id);
            let Some(device) = self.devices.get(&id) else { continue };
            if self.told.insert(id, device.generation).unwrap_or(0) < device.generation {
                records.push(Record::Deed(Box::new(device.assigned())));
            }
            records.push(Record::Device(Box::new(device.clone())));
        }
        for id in std::mem::take(&mut self.changed_rollouts) {
            records.extend(self.rollouts.get(&id).map(|r| Record::Rollout(Box::new(r.clone()))));
        }
        for (id, device) in std::mem::take(&mut self.changed_members) {
            let member = self.rollouts.get(&id).and_then(|r| r.members.get(&device));
            records.push(match member {
                Some(member) => Record::Member(Box::new(member.clone())),
                None => Record::NoMember { rollout: id, device },
            });
        }
        self.set_shelf();
        let mut effects = std::mem::take(&mut self.effects);
        effects.extend(assignments);
        Step { records, effects, answer }
    }

    /// After a connection every document and every assignment is said again: a broker may keep a session and
    /// lose what it retained.
    fn say_all(&mut self, now: Now, remembered: bool, retains: bool) -> Result<Answer, Rejection> {
        self.say_documents(now);
        let fresh = std::mem::take(&mut self.fresh);
        if fresh {
            self.expel_again();
        }
        self.fill_shelf(fresh || !remembered, retains);
        self.beacon(now, None, None);
        self.everybody_is_due();
        Ok(Answer::Done)
    }

    fn greet(
        &mut self,
        now: Now,
        id: DeviceId,
        heard: (u64, u64),
        key: &[u8],
        nonce: String,
        profile: Profile,
    ) -> Result<Answer, Rejection> {
        let Some(device) = self.devices.get(&id) else { return self.disbelieve(Disbelief::Unknown) };
        if !device.status.is_member() {
            // It should not have got so far: the broker does not know yet, or was never told.
            self.effects.push(Effect::EndSession { device: id });
            return self.disbelieve(Disbelief::Revoked);
        }
        if !device.holds(key) {
            return self.disbelieve(Disbelief::Signature);
        }
        self.promote(now, &id, key)?;
        self.look_for_twin(now, &id, heard, &nonce);
        let Some(device) = self.devices.get_mut(&id) else { return Ok(Answer::Done) };
        let approved = device.status == Status::Approved;
        let new = heard > device.heard.hello;
        if new {
            device.heard.hello = heard;
            device.greeted = Some(Greeted { nonce: nonce.clone(), at: now.unix });
            device.profile = profile;
            device.online = true;
            device.last_seen = now.unix;
            if approved {
                self.due.insert(id.clone());
                if !self.shelf.retains {
                    self.announce(now);
                }
            }
            self.changed_devices.insert(id.clone());
            self.join(now, &id);
            self.look_at_all(now);
        }
        // An old one too: it may come from a device whose memory went back, and only who is there can
        // name the answer.
        if approved {
            self.answer(now, &id, nonce);
        }
        if new { Ok(Answer::Done) } else { self.disbelieve(Disbelief::Replayed) }
    }

    /// The device of that name, if its word counts; it is counted when it does not.
    fn heeded(&mut self, id: &DeviceId) -> Option<&mut Device> {
        let why = match self.devices.get(id).map(|d| d.status) {
            Some(Status::Approved) => return self.devices.get_mut(id),
            Some(Status::Pending) => Disbelief::Pending,
            Some(Status::Revoked | Status::Retired) => Disbelief::Revoked,
            None => Disbelief::Unknown,
        };
        *self.disbelieved.entry(why).or_default() += 1;
        None
    }

    fn take_report(&mut self, now: Now, report: Report) -> Result<Answer, Rejection> {
        let (retains, twins) = (self.shelf.retains, self.twins.are_told(&report.device_id));
        let Some(device) = self.heeded(&report.device_id) else { return Ok(Answer::Done) };
        // A device whose memory went back counts its boots anew, and takes no beacon but the newest. So the beacon comes
        // first: nobody can have recorded a report that names a newer one than the last that was heard.
        let last = device.report.as_ref().and_then(|report| report.beacon);
        if (report.beacon, (report.boot, report.seq)) <= (last, device.heard.report) {
            return self.disbelieve(Disbelief::Replayed);
        }
        let id = report.device_id.clone();
        let told = device.alarm.clone();
        device.take_report(now, report);
        if twins {
            // That the memory of one is behind the other's is known by then.
            device.alarm = told;
        }
        // Where nothing is retained, what is heard is said by somebody who is there, and its birth may be lost.
        device.online |= !retains;
        self.changed_devices.insert(id.clone());
        self.remember(now, &id);
        self.note_return(now, &id);
        Ok(Answer::Done)
    }

    fn take_presence(&mut self, now: Now, id: &DeviceId, online: bool) -> Result<Answer, Rejection> {
        if let Some(device) = self.devices.get_mut(id).filter(|d| d.online != online) {
            device.online = online;
            device.last_seen = now.unix;
            self.changed_devices.insert(id.clone());
            self.look_at_all(now);
        }
        Ok(Answer::Done)
    }

    fn learn(&mut self, now: Now, release: Release) -> Result<Answer, Rejection> {
        let answer = Answer::Known { stream: release.stream.clone(), bundle: release.bundle };
        if self.releases.contains_key(&release.bundle) {
            return Ok(answer);
        }
        let taken =
            |r: &&Release| r.stream == release.stream && (r.release == release.release || r.version == release.version);
        if let Some(other) = self.releases.values().find(taken) {
            return Err(Rejection::Conflict(format!(
                "{} {} (release {}) exists with other content ({}): give the new bundle a new version",
                other.stream,
                other.version,
                other.release,
                other.bundle.short()
            )));
        }
        self.records.push(Record::Release(Box::new(release.clone())));
        self.releases.insert(release.bundle, release);
        self.remember_all(now);
        Ok(answer)
    }

    fn take_verdict(&mut self, now: Now, verdict: Verdict) -> Result<Answer, Rejection> {
        let Some(device) = self.heeded(&verdict.device_id) else { return Ok(Answer::Done) };
        let answers = |d: &&mut Desired| {
            let new = verdict.seq > d.verdict && verdict.generation.seq >= d.since;
            new && d.bundle.0 == verdict.statement_sha256
        };
        let Some(asked) = device.desired.get_mut(&verdict.stream).filter(answers) else { return Ok(Answer::Done) };
        asked.verdict = verdict.seq;
        let rollout_id = asked.rollout;
        device.last_seen = now.unix;
        self.changed_devices.insert(verdict.device_id.clone());
        let (name, outcome) = (verdict.device_id, verdict.outcome);
        if self.rollouts.get(&rollout_id).is_some_and(|r| r.bundle.0 == verdict.statement_sha256) {
            let (code, detail, answers, errors) = (verdict.code, verdict.detail, verdict.answers, verdict.errors);
            let (compared, disagreed) =
                verdict.shadow.map_or((0, 0), |shadow| (shadow.compared, shadow.disagreed.min(shadow.compared)));
            let result = DeviceResult { outcome, code, detail, answers, errors, compared, disagreed };
            self.take_result(now, rollout_id, &name, result);
        } else if outcome == Outcome::Confirmed {
            self.take_return(now, rollout_id, &name);
        }
        Ok(Answer::Done)
    }

    fn reach_deadlines(&mut self, now: Now) -> Result<Answer, Rejection> {
        self.look_at_due(now);
        if self.beacons.due.is_some_and(|due| due <= now.unix) {
            self.beacon(now, None, None);
        }
        if self.announcement.due.is_some_and(|due| due <= now.unix) {
            self.say_documents(now);
        }
        self.ask_again(now);
        Ok(Answer::Done)
    }
}

fn no_device(id: &DeviceId) -> Rejection {
    Rejection::NotFound(format!("device `{id}`"))
}
