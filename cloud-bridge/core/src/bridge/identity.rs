//! Who belongs to the fleet: how devices come in, change keys, and go.
//!
//! Decides which key speaks for a name, and which certificates count. That whoever asks holds the key, and may
//! ask at all, was proved by the hands.

use super::{Bridge, no_device};
use crate::{
    Answer, Credential, Device, Disbelief, Effect, Invitation, Now, Record, Rejection, Status, UnixMillis, Withdrawn,
};
use protocol::{DeviceId, Profile, StreamName};
use std::collections::BTreeMap;

/// The most devices that may wait for a person's decision.
const MAX_PENDING: usize = 1_000;
/// The most labels of a device.
const MAX_LABELS: usize = 32;
/// Clocks differ: a certificate is told as withdrawn until this long after its end.
const AFTER_ITS_END: UnixMillis = 24 * 3_600 * 1_000;

impl Bridge {
    /// The certificates that count no more, by serial number.
    pub fn withdrawn(&self) -> &BTreeMap<String, Withdrawn> {
        &self.withdrawn
    }

    /// How many messages were not believed since the start, by reason.
    pub fn disbelieved(&self) -> &BTreeMap<Disbelief, u64> {
        &self.disbelieved
    }

    /// Whether a token for `id` could be used: nobody holds the name.
    pub fn is_free(&self, id: &DeviceId) -> bool {
        self.devices.get(id).is_none_or(|d| d.status == Status::Retired)
    }

    pub(super) fn disbelieve(&mut self, why: Disbelief) -> Result<Answer, Rejection> {
        *self.disbelieved.entry(why).or_default() += 1;
        Ok(Answer::Done)
    }

    /// A device comes in. The same key again is the same device, whose answer was lost.
    pub(super) fn enrol(
        &mut self,
        now: Now,
        id: DeviceId,
        credential: Credential,
        profile: Profile,
        invitation: Invitation,
    ) -> Result<Answer, Rejection> {
        let waits = self.devices.values().filter(|d| d.status == Status::Pending).count() >= MAX_PENDING;
        match self.devices.get_mut(&id) {
            Some(known) if known.status.is_member() && known.credential.key == credential.key => {
                let before = std::mem::replace(&mut known.credential, credential);
                self.withdraw(now, &id, [before]);
            }
            Some(known) if known.status != Status::Retired => {
                let why = format!("device `{id}` is enrolled already, with another key");
                return Err(Rejection::Conflict(why));
            }
            // Whoever left may still hold the token, and the key.
            Some(Device { left: Some(left), .. }) if invitation.made < *left => {
                let why = format!("device `{id}` was retired after this token was made: make a new one");
                return Err(Rejection::Conflict(why));
            }
            _ if waits && invitation.pending => {
                return Err(Rejection::Conflict(format!("{MAX_PENDING} devices already wait for approval")));
            }
            retired => {
                // Numbers go on: the device may remember those that it had under this name.
                let (generation, commands, left) = retired.map_or((0, 0, None), |d| (d.generation, d.commands, d.left));
                let status = if invitation.pending { Status::Pending } else { Status::Approved };
                let mut device =
                    Device { generation, commands, left, status, ..Device::new(id.clone(), credential, profile) };
                device.last_seen = now.unix;
                // It may be one that land has forgotten, with a ledger that has not.
                device.forgotten = self.put_back.map(|_| 0);
                device.generation = device.generation.max(self.put_back.unwrap_or(0));
                device.commands = device.commands.max(self.put_back.unwrap_or(0));
                if !invitation.pending {
                    device.generation += 1;
                    self.due.insert(id.clone());
                }
                self.devices.insert(id.clone(), device);
            }
        }
        self.changed_devices.insert(id.clone());
        self.join(now, &id);
        Ok(Answer::Done)
    }

    /// A member gets a certificate for a new key; the old one counts until the new one is used.
    pub(super) fn renew(&mut self, now: Now, id: &DeviceId, credential: Credential) -> Result<Answer, Rejection> {
        let device = self.devices.get_mut(id).ok_or_else(|| no_device(id))?;
        if !device.status.is_member() {
            return Err(Rejection::Conflict(format!("device `{id}` is {}", device.status)));
        }
        let before = device.next.replace(credential);
        self.withdraw(now, id, before);
        self.changed_devices.insert(id.clone());
        Ok(Answer::Done)
    }

    /// A member whose certificate has expired is back: a person decides again.
    pub(super) fn take_back(&mut self, now: Now, id: &DeviceId, credential: Credential) -> Result<Answer, Rejection> {
        let device = self.devices.get(id).ok_or_else(|| no_device(id))?;
        let again = device.next.as_ref().is_some_and(|next| next.key == credential.key);
        if device.credential.until > now.unix && !again {
            return Err(Rejection::Conflict(format!("the certificate of `{id}` has not expired")));
        }
        self.renew(now, id, credential)?;
        if let Some(device) = self.devices.get_mut(id) {
            device.status = Status::Pending;
        }
        Ok(Answer::Done)
    }

    /// The first message that the new key signed has come: the old one counts no more.
    pub(super) fn promote(&mut self, now: Now, id: &DeviceId, key: &[u8]) -> Result<Answer, Rejection> {
        let Some(device) = self.devices.get_mut(id) else { return Ok(Answer::Done) };
        let Some(next) = device.next.take_if(|next| next.key == key) else { return Ok(Answer::Done) };
        let before = std::mem::replace(&mut device.credential, next);
        self.withdraw(now, id, [before]);
        self.changed_devices.insert(id.clone());
        Ok(Answer::Done)
    }

    pub(super) fn approve(&mut self, now: Now, id: &DeviceId) -> Result<Answer, Rejection> {
        let device = self.devices.get_mut(id).ok_or_else(|| no_device(id))?;
        match device.status {
            // What land knows counts, whatever the device has.
            Status::Approved if device.forgotten.is_some() && device.report.is_some() => self.settle(id),
            Status::Approved => {}
            Status::Pending => {
                device.status = Status::Approved;
                device.generation += 1;
                self.due.insert(id.clone());
                self.changed_devices.insert(id.clone());
                self.join(now, id);
            }
            Status::Revoked | Status::Retired => {
                return Err(Rejection::Conflict(format!("device `{id}` is {}: enrol it again", device.status)));
            }
        }
        Ok(Answer::Done)
    }

    /// One that was never let in leaves nothing behind, unless another of its name has left.
    pub(super) fn reject(&mut self, now: Now, id: &DeviceId) -> Result<Answer, Rejection> {
        let device = self.devices.get(id).ok_or_else(|| no_device(id))?;
        if device.status != Status::Pending {
            return Err(Rejection::Conflict(format!("device `{id}` is {} already", device.status)));
        }
        let known_before = device.generation > 0 || device.left.is_some();
        self.retire(now, id)?;
        if !known_before {
            self.devices.remove(id);
            self.changed_devices.remove(id);
            self.records.push(Record::NoDevice { id: id.clone() });
        }
        Ok(Answer::Done)
    }

    /// It is believed no more, and its session ends. Its name stays taken.
    pub(super) fn revoke(&mut self, now: Now, id: &DeviceId) -> Result<Answer, Rejection> {
        self.expel(now, id, Status::Revoked)
    }

    /// All of the labels, or none of them.
    pub(super) fn label(
        &mut self,
        now: Now,
        id: &DeviceId,
        labels: BTreeMap<String, Option<String>>,
    ) -> Result<Answer, Rejection> {
        let device = self.devices.get_mut(id).ok_or_else(|| no_device(id))?;
        let mut all = device.labels.clone();
        for (key, value) in labels {
            let wrong = |word: &str, rule: &str| {
                Err(Rejection::Invalid(format!("`{}`: {rule}", word.chars().take(80).collect::<String>())))
            };
            if key.parse::<StreamName>().is_err() {
                return wrong(&key, "keys of labels are 1 to 63 of a-z 0-9 - _ ., beginning with a letter or a digit");
            }
            if let Some(value) = value.as_ref().filter(|value| !is_label_value(value)) {
                return wrong(value, "values of labels are 1 to 63 of a-z A-Z 0-9 - _ . / + :");
            }
            match value {
                Some(value) => drop(all.insert(key, value)),
                None => drop(all.remove(&key)),
            }
        }
        if all.len() > MAX_LABELS {
            return Err(Rejection::Invalid(format!("a device has at most {MAX_LABELS} labels")));
        }
        if all != device.labels {
            device.labels = all;
            self.changed_devices.insert(id.clone());
            self.join(now, id);
            self.look_at_all(now);
        }
        Ok(Answer::Done)
    }

    /// It leaves the fleet, and its name is free.
    pub(super) fn retire(&mut self, now: Now, id: &DeviceId) -> Result<Answer, Rejection> {
        if self.devices.get(id).is_some_and(|d| d.status == Status::Retired) {
            return Ok(Answer::Done);
        }
        self.expel(now, id, Status::Retired)?;
        let (numbers, device) = (self.documents.numbers(), self.devices.get_mut(id));
        let Some(device) = device else { return Ok(Answer::Done) };
        if !device.desired.is_empty() {
            device.generation += 1;
            device.desired.clear();
            // At once, since its topics are cleared after it.
            if let Some(numbers) = numbers.filter(|_| device.forgotten.is_none()) {
                device.seal(now, numbers);
                self.effects.push(Effect::PublishAssignment(device.assignment()));
            }
        }
        device.report = None;
        device.left = Some(now.unix);
        self.effects.push(Effect::ClearDevice { device: id.clone() });
        Ok(Answer::Done)
    }

    fn expel(&mut self, now: Now, id: &DeviceId, status: Status) -> Result<Answer, Rejection> {
        let device = self.devices.get_mut(id).ok_or_else(|| no_device(id))?;
        if device.status == Status::Retired && status == Status::Revoked {
            return Err(Rejection::Conflict(format!("device `{id}` is retired already")));
        }
        if device.status == status {
            return Ok(Answer::Done);
        }
        device.status = status;
        let before = device.next.take().into_iter().chain([device.credential.clone()]);
        self.changed_devices.insert(id.clone());
        self.withdraw(now, id, before);
        self.effects.push(Effect::EndSession { device: id.clone() });
        self.excuse(now, id);
        Ok(Answer::Done)
    }

    fn withdraw(&mut self, now: Now, id: &DeviceId, credentials: impl IntoIterator<Item = Credential>) {
        let over = |w: &&Withdrawn| w.until.saturating_add(AFTER_ITS_END) < now.unix;
        let over: Vec<String> = self.withdrawn.values().filter(over).map(|w| w.serial.clone()).collect();
        let mut changed = false;
        for Credential { serial, until, .. } in credentials {
            if until.saturating_add(AFTER_ITS_END) < now.unix {
                continue;
            }
            let withdrawn = Withdrawn { device: id.clone(), serial, until, since: now.unix };
            self.records.push(Record::Withdrawn(withdrawn.clone()));
            self.withdrawn.insert(withdrawn.serial.clone(), withdrawn);
            changed = true;
        }
        for serial in over {
            self.withdrawn.remove(&serial);
            self.records.push(Record::NotWithdrawn { serial });
        }
        if changed {
            self.tell_withdrawn();
        }
    }

    pub(super) fn tell_withdrawn(&mut self) {
        self.effects.push(Effect::PublishWithdrawn(self.withdrawn.values().cloned().collect()));
    }

    /// What a crash may have kept from being done.
    pub(super) fn expel_again(&mut self) {
        if !self.withdrawn.is_empty() {
            self.tell_withdrawn();
        }
        for device in self.devices.values() {
            match device.status {
                Status::Revoked if device.online => {
                    self.effects.push(Effect::EndSession { device: device.id.clone() });
                }
                Status::Retired => self.effects.push(Effect::ClearDevice { device: device.id.clone() }),
                Status::Pending | Status::Approved | Status::Revoked => {}
            }
        }
    }
}

/// Whether it can be the value of a label, and be written in an expression as it is: a site, a line, a time zone.
pub fn is_label_value(value: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./+:".contains(&b);
    (1..=63).contains(&value.len()) && value.bytes().all(is_plain)
}
