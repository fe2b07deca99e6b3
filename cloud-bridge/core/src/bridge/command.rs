//! Commands: what a person asks of one device now.
//!
//! Decides whether it can be asked at all. A command answers the device's latest hello, so that only who said it takes it,
//! and counts for a short time; nothing of it is said twice. What came of it, the hands keep.

use super::{Bridge, no_device};
use crate::{Answer, CommandDraft, Effect, Now, Record, Rejection, Status, UnixMillis};
use protocol::DeviceId;
use trust::Request;

/// A command counts so long at most, in milliseconds.
pub const LONGEST_COMMAND: UnixMillis = 3_600_000;

impl Bridge {
    pub(super) fn command(
        &mut self,
        now: Now,
        id: &DeviceId,
        request: Request,
        good_for: UnixMillis,
    ) -> Result<Answer, Rejection> {
        let conflict = |why: String| Err(Rejection::Conflict(why));
        if !(1_000..=LONGEST_COMMAND).contains(&good_for) {
            let most = LONGEST_COMMAND / 1_000;
            return Err(Rejection::Invalid(format!("a command counts for 1 to {most} seconds")));
        }
        let Some(numbers) = self.documents.numbers() else { return conflict("the fleet has no root yet".into()) };
        let device = self.devices.get_mut(id).ok_or_else(|| no_device(id))?;
        if device.status != Status::Approved {
            return conflict(format!("device `{id}` is {}", device.status));
        }
        if !device.online {
            return conflict(format!("device `{id}` is offline, and a command is for one that is there"));
        }
        let Some(greeted) = device.greeted.clone() else {
            return conflict(format!("device `{id}` has said no hello to this bridge yet: it does when it connects"));
        };
        device.commands += 1;
        let draft = CommandDraft {
            device: id.clone(),
            seq: device.commands,
            issued: now.unix,
            deadline: now.unix.saturating_add(good_for),
            nonce: greeted.nonce,
            heard: greeted.at,
            numbers,
            request,
        };
        self.changed_devices.insert(id.clone());
        self.records.push(Record::Command(Box::new(draft.clone())));
        let answer = Answer::Commanded { seq: draft.seq, draft: Some(Box::new(draft.clone())) };
        self.effects.push(Effect::PublishCommand(draft));
        Ok(answer)
    }
}
