//! Land as a whole: devices, releases, rollouts, and one `step`.

mod command;
mod identity;
mod repair;
mod shelf;
mod stock;
mod twin;
mod waves;

pub use command::LONGEST_COMMAND;
pub use repair::{NEED_RATE, Needs};
pub use stock::Stay;

use crate::documents::{Announcement, Beacons, Documents};
use crate::rollout::{Evidence, MAX_WAVES, entry_order};
use crate::{
    Answer, Desired, Device, DeviceResult, Disbelief, Effect, Event, Greeted, Now, Phase, Record, Rejection, Release,
    Rollout, RolloutRequest, Status, Step, StoredDocument, Targets, UnixMillis, Withdrawn,
};
use protocol::{DeviceId, FleetId, MAX_STREAMS, Outcome, Profile, Report, StreamName, Verdict};
use repair::Repair;
use shelf::Shelf;
use std::collections::{BTreeMap, BTreeSet};
use trust::{Digest, Intent, Refusal, Revocation, Root, Trial, Verified};
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
            withdrawn: BTreeMap::new(),
            disbelieved: BTreeMap::new(),
            repair: Repair::default(),
            shelf: Shelf::default(),
            twins: Twins::default(),
            fresh: true,
            told: BTreeMap::new(),
            changed_devices: BTreeSet::new(),
            changed_rollouts: BTreeSet::new(),
            due: BTreeSet::new(),
            records: Vec::new(),
            effects: Vec::new(),
        };
        let mut documents = Vec::new();
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
                // The log is the hands' to read.
                Record::Deed(_) => {}
                // So are commands, and what came of them.
                Record::Command(_) => {}
                Record::Document(document) => documents.push(*document),
                Record::Beacons { reserved } => bridge.beacons.restore(reserved),
                Record::Withdrawn(w) => drop(bridge.withdrawn.insert(w.serial.clone(), w)),
                Record::NotWithdrawn { serial } => drop(bridge.withdrawn.remove(&serial)),
            }
        }
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
        self.rollouts.values().filter_map(Rollout::deadline).chain(self.beacons.due).chain(self.announcement.due).min()
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
            Event::DeviceApproved { device } => self.approve(&device),
            Event::DeviceRejected { device } => self.reject(now, &device),
            Event::DeviceRevoked { device } => self.revoke(now, &device),
            Event::DeviceRetired { device } => self.retire(now, &device),
            Event::DeviceLabelled { device, labels } => self.label(&device, labels),
            Event::ReleasePushed(release) => self.learn(release),
            Event::RolloutRequested(request) => self.start(now, &request),
            Event::StockCleared => self.clear_stock(),
            Event::CommandRequested { device, request, good_for } => self.command(now, &device, request, good_for),
            Event::DeadlineReached => self.reach_deadlines(now),
        };
        self.finish(now, answer)
    }

    fn finish(&mut self, now: Now, answer: Result<Answer, Rejection>) -> Step {
        let mut assignments = Vec::new();
        if let Some(numbers) = self.documents.numbers() {
            for id in std::mem::take(&mut self.due) {
                let Some(device) = self.devices.get_mut(&id) else { continue };
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
            self.pace();
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
        self.changed_devices.insert(id);
        Ok(Answer::Done)
    }

    fn take_presence(&mut self, now: Now, id: &DeviceId, online: bool) -> Result<Answer, Rejection> {
        if let Some(device) = self.devices.get_mut(id).filter(|d| d.online != online) {
            device.online = online;
            device.last_seen = now.unix;
            self.changed_devices.insert(id.clone());
            self.pace();
        }
        Ok(Answer::Done)
    }

    fn learn(&mut self, release: Release) -> Result<Answer, Rejection> {
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
        Ok(answer)
    }

    fn start(&mut self, now: Now, request: &RolloutRequest) -> Result<Answer, Rejection> {
        let named = |r: &&Release| r.stream == request.stream && r.version == request.version;
        let missing = || Rejection::NotFound(format!("release {}@{}", request.stream, request.version));
        let release = self.releases.values().find(named).ok_or_else(missing)?.clone();
        self.check_not_revoked(&release)?;
        if request.waves.len() > MAX_WAVES {
            return Err(Rejection::Invalid(format!("a rollout has at most {MAX_WAVES} waves")));
        }
        if request.at_once == Some(0) {
            return Err(Rejection::Invalid(
                "at least one device at a time is on its way, or nothing ever happens".into(),
            ));
        }
        let busy = |r: &&Rollout| r.stream == request.stream && r.wave().is_some();
        if let Some(other) = self.rollouts.values().find(busy) {
            let why = format!("rollout {} of {} is under way: wait for its end", other.id, other.stream);
            return Err(Rejection::Conflict(why));
        }
        let devices = self.targets(request, &release)?;
        let id = self.rollouts.keys().next_back().map_or(1, |last| last + 1);
        let mut rollout = Rollout::plan(id, request, release.release, release.bundle, &devices);
        rollout.started = now.unix;
        self.rollouts.insert(id, rollout);
        self.begin_wave(now, id);
        Ok(Answer::Started { rollout: id })
    }

    /// The devices that the request names and that lack the release, in the order in which they enter.
    fn targets(&self, request: &RolloutRequest, release: &Release) -> Result<Vec<DeviceId>, Rejection> {
        let named: Vec<&Device> = match &request.to {
            Targets::All => self.devices.values().filter(|d| d.status == Status::Approved).collect(),
            Targets::Devices(ids) => {
                let find = |id: &DeviceId| {
                    let approved = self.devices.get(id).filter(|d| d.status == Status::Approved);
                    approved.ok_or_else(|| Rejection::NotFound(format!("approved device `{id}`")))
                };
                ids.iter().map(find).collect::<Result<_, _>>()?
            }
        };
        let full = |d: &&&Device| d.desired.len() >= MAX_STREAMS && !d.desired.contains_key(&release.stream);
        if let Some(device) = named.iter().find(full) {
            let why = format!("device `{}` runs {MAX_STREAMS} streams already, which is the most", device.id);
            return Err(Rejection::Invalid(why));
        }
        let lacks = |d: &&Device| d.desired.get(&release.stream).is_none_or(|w| w.bundle != release.bundle);
        let mut devices: Vec<DeviceId> = named.into_iter().filter(lacks).map(|d| d.id.clone()).collect();
        if devices.is_empty() {
            return Err(Rejection::Invalid("no approved device is left that lacks this release".into()));
        }
        devices.sort_by_key(|d| (entry_order(&release.stream, d), d.clone()));
        Ok(devices)
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
        let Some(rollout) = self.rollouts.get_mut(&rollout_id) else { return Ok(Answer::Done) };
        if rollout.bundle.0 != verdict.statement_sha256 {
            return Ok(Answer::Done);
        }
        let (name, outcome) = (verdict.device_id, verdict.outcome);
        if rollout.wave().is_some() {
            let (code, detail, answers, errors) = (verdict.code, verdict.detail, verdict.answers, verdict.errors);
            let result = DeviceResult { outcome, code, detail, answers, errors };
            rollout.results.insert(name.clone(), result);
            self.changed_rollouts.insert(rollout_id);
        }
        if outcome != Outcome::Confirmed {
            self.send_back(rollout_id, &[name]);
        }
        self.judge(now, rollout_id, false);
        Ok(Answer::Done)
    }

    fn reach_deadlines(&mut self, now: Now) -> Result<Answer, Rejection> {
        let due = |r: &&Rollout| r.deadline().is_some_and(|d| d <= now.unix);
        let overdue: Vec<u64> = self.rollouts.values().filter(due).map(|r| r.id).collect();
        for id in overdue {
            self.judge(now, id, true);
        }
        if self.beacons.due.is_some_and(|due| due <= now.unix) {
            self.beacon(now, None, None);
        }
        if self.announcement.due.is_some_and(|due| due <= now.unix) {
            self.say_documents(now);
        }
        Ok(Answer::Done)
    }

    /// Goes on, or stops, as the evidence says.
    fn judge(&mut self, now: Now, id: u64, overdue: bool) {
        let Some(rollout) = self.rollouts.get_mut(&id) else { return };
        let Some(wave) = rollout.wave() else { return };
        match rollout.evidence(overdue) {
            Evidence::Open => self.go_on(id),
            Evidence::Good if wave + 1 < rollout.waves.len() => {
                rollout.phase = Phase::Rolling { wave: wave + 1 };
                self.begin_wave(now, id);
            }
            Evidence::Good => self.end(now, id, Phase::Completed),
            Evidence::Bad(reason) => {
                let assigned: Vec<DeviceId> = rollout.before.keys().cloned().collect();
                self.end(now, id, Phase::Stopped { wave, reason });
                self.send_back(id, &assigned);
            }
        }
    }

    fn end(&mut self, now: Now, id: u64, phase: Phase) {
        let Some(rollout) = self.rollouts.get_mut(&id) else { return };
        rollout.phase = phase;
        rollout.ended = Some(now.unix);
        self.changed_rollouts.insert(id);
    }

    /// Those of `names` that should run the rollout's release get what they ran before: a newer
    /// generation that names the older bundle. Devices that took it back themselves agree at once, and
    /// no later rollout takes for their previous release one that they never ran.
    fn send_back(&mut self, id: u64, names: &[DeviceId]) {
        let Some(rollout) = self.rollouts.get(&id) else { return };
        let at_once = Trial::default();
        for name in names {
            let Some(device) = self.devices.get_mut(name) else { continue };
            let wants = |d: &Desired| d.rollout == id && d.bundle == rollout.bundle;
            if !device.desired.get(&rollout.stream).is_some_and(wants) {
                continue;
            }
            let before = rollout.before.get(name).copied().flatten();
            match before.and_then(|bundle| self.releases.get(&bundle)) {
                Some(release) => device.want(release, Intent::Rollback, id, at_once),
                None => device.want_none(&rollout.stream),
            }
            self.due.insert(name.clone());
            self.changed_devices.insert(name.clone());
        }
    }

    /// The release that a version of a stream names.
    pub fn release(&self, stream: &StreamName, version: &str) -> Option<&Release> {
        self.releases.values().find(|r| r.stream == *stream && r.version == version)
    }
}

fn no_device(id: &DeviceId) -> Rejection {
    Rejection::NotFound(format!("device `{id}`"))
}
