//! Twins: whether two agents speak with one identity, as after the copy of a state folder.
//!
//! Each takes the session from the other, and few brokers say so. But both count their hellos, and neither knows of the
//! other's: what land hears goes back, and forth, and back again. A device alone goes back once, when its memory did. What
//! the broker brings twice is known by its nonce; a broker that repeats hellos from long ago can make this alarm, and no more.

use super::Bridge;
use crate::{Alarm, Now, UnixMillis};
use protocol::DeviceId;
use std::collections::{BTreeMap, VecDeque};

/// The latest hellos of a device that are recognised.
const REMEMBERED: usize = 8;
/// So often an older hello after a newer one,
const TURNS: usize = 3;
/// within this time, is no device alone.
const WITHIN: UnixMillis = 3_600_000;

/// What each device said lately.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    devices: BTreeMap<DeviceId, Hellos>,
}

#[derive(Debug, Default)]
struct Hellos {
    latest: VecDeque<((u64, u64), String)>,
    /// The last one was older than one before it.
    behind: bool,
    turns: VecDeque<UnixMillis>,
    /// The alarm of these turns was raised.
    told: bool,
}

impl Twins {
    /// Whether the alarm of a device is that it is two.
    pub(super) fn are_told(&self, id: &DeviceId) -> bool {
        self.devices.get(id).is_some_and(|hellos| hellos.told)
    }
}

impl Hellos {
    /// Notes a hello; `true` when it is the one that tells two agents apart.
    fn tell_apart(&mut self, now: UnixMillis, newest: (u64, u64), heard: (u64, u64), nonce: &str) -> bool {
        if self.latest.iter().any(|(known, of)| *known == heard && of == nonce) {
            return false;
        }
        self.latest.push_back((heard, nonce.to_owned()));
        if self.latest.len() > REMEMBERED {
            self.latest.pop_front();
        }
        self.turns.retain(|at| now < at.saturating_add(WITHIN));
        self.told &= !self.turns.is_empty();
        let was_behind = std::mem::replace(&mut self.behind, heard <= newest);
        let turned = self.behind && !was_behind;
        if turned {
            self.turns.push_back(now);
            // More than enough to tell.
            if self.turns.len() > TURNS {
                self.turns.pop_front();
            }
        }
        turned && self.turns.len() == TURNS && !std::mem::replace(&mut self.told, true)
    }
}

impl Bridge {
    /// Takes note of a hello of a device that is known, before it counts.
    pub(super) fn look_for_twin(&mut self, now: Now, id: &DeviceId, heard: (u64, u64), nonce: &str) {
        if self.twins.devices.len() > self.devices.len() {
            self.twins.devices.retain(|known, _| self.devices.contains_key(known));
        }
        let Some(device) = self.devices.get_mut(id) else { return };
        let hellos = self.twins.devices.entry(id.clone()).or_default();
        if hellos.tell_apart(now.unix, device.heard.hello, heard, nonce) {
            let what = "two agents use this identity, and take the connection from each other: its state folder was \
                        copied (or the broker repeats old hellos). Find both; retire the device and enrol the one that stays"
                .to_owned();
            device.alarm = Some(Alarm { at: now.unix, what });
            self.changed_devices.insert(id.clone());
        }
    }
}
