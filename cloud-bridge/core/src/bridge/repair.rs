//! What devices ask for again: how much of it is published, and what is refused for now.
//!
//! Decides by time and bytes only. Whether an asked chunk is of the bundle, the hand knows that holds the bundle. A
//! device that was refused asks again by itself, later each time, so nothing is queued here.

use super::Bridge;
use crate::{Answer, Effect, Now, Rejection, Status, UnixMillis};
use protocol::{CHUNK_BYTES, DeviceId, MAX_NEEDED_CHUNKS};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use trust::Digest;

/// Whoever asks for what was published so lately was subscribed and has it by now, or asks once more: the first
/// patience of a device is longer.
const JUST_NOW: UnixMillis = 2_000;
/// What a part is charged: a chunk is not larger, and the documents of a bundle seldom are.
const PART_BYTES: u64 = CHUNK_BYTES;
/// The bytes of a whole need.
const NEED_BYTES: u64 = MAX_NEEDED_CHUNKS as u64 * PART_BYTES;
/// A device may have all of its bundles so often in an hour,
const TIMES_AN_HOUR: u64 = 2;
/// and so much besides, since small files are many chunks and few bytes.
const BESIDES: u64 = 4 * NEED_BYTES;
const HOUR: UnixMillis = 3_600_000;
/// Bytes a second that a fleet is given again unless the configuration says otherwise.
pub const NEED_RATE: NonZeroU64 = NonZeroU64::new(8_000_000).unwrap();
/// So many milliseconds' worth of it may go at once.
const FLEET_PERIOD: UnixMillis = 10_000;

/// What became of what was asked for again, since the start. A part is a chunk, or the documents of a bundle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Messages that counted.
    pub heard: u64,
    /// Parts that were published.
    pub answered: u64,
    /// Parts that had just been published.
    pub just_published: u64,
    /// Parts beyond what their device may have.
    pub over_device: u64,
    /// Parts beyond what all devices together may have.
    pub over_fleet: u64,
}

/// What may be given again, and what was given lately.
#[derive(Debug)]
pub(crate) struct Repair {
    rate: NonZeroU64,
    fleet: Bucket,
    devices: BTreeMap<DeviceId, Bucket>,
    /// Chunks, and bundles whose documents were published. Bounded, since the fleet's bucket is.
    published: BTreeMap<[u8; 32], UnixMillis>,
    needs: Needs,
}

/// Bytes that may be spent.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u64,
    at: UnixMillis,
}

impl Bucket {
    const FULL: Self = Self { left: u64::MAX, at: 0 };

    /// It holds at most `room`, and gains that in `period`.
    fn fill(&mut self, now: UnixMillis, room: u64, period: UnixMillis) {
        let gained = u128::from(room) * u128::from(now.saturating_sub(self.at)) / u128::from(period);
        let left = u128::from(self.left).saturating_add(gained).min(u128::from(room));
        *self = Self { left: u64::try_from(left).unwrap_or(room), at: now };
    }
}

impl Default for Repair {
    fn default() -> Self {
        let (devices, published) = (BTreeMap::new(), BTreeMap::new());
        Self { rate: NEED_RATE, fleet: Bucket::FULL, devices, published, needs: Needs::default() }
    }
}

impl Repair {
    /// Whether `part` is published now, for a device whose bucket is `own`.
    fn gives(&mut self, now: UnixMillis, own: &mut Bucket, part: [u8; 32]) -> bool {
        if self.published.contains_key(&part) {
            self.needs.just_published += 1;
        } else if own.left < PART_BYTES {
            self.needs.over_device += 1;
        } else if self.fleet.left < PART_BYTES {
            self.needs.over_fleet += 1;
        } else {
            own.left -= PART_BYTES;
            self.fleet.left -= PART_BYTES;
            self.published.insert(part, now);
            self.needs.answered += 1;
            return true;
        }
        false
    }

    /// Forgets what is not of now any more, and gives what the time since has brought.
    fn pass(&mut self, now: UnixMillis) {
        self.published.retain(|_, at| now < at.saturating_add(JUST_NOW));
        let room = self.rate.get().saturating_mul(FLEET_PERIOD) / 1_000;
        // A slow fleet gives a whole need at once all the same, and then for longer nothing.
        let (room, period) =
            if room >= NEED_BYTES { (room, FLEET_PERIOD) } else { (NEED_BYTES, NEED_BYTES * 1_000 / self.rate) };
        self.fleet.fill(now, room, period);
    }
}

impl Bridge {
    /// All devices together are given so many bytes a second again.
    pub fn limit_needs(&mut self, bytes_a_second: NonZeroU64) {
        self.repair.rate = bytes_a_second;
    }

    /// What was asked for again.
    pub fn needs(&self) -> Needs {
        self.repair.needs
    }

    pub(super) fn help(
        &mut self,
        now: Now,
        id: &DeviceId,
        bundle: Digest,
        documents: bool,
        mut chunks: Vec<[u8; 32]>,
    ) -> Result<Answer, Rejection> {
        let Some(device) = self.devices.get(id).filter(|d| d.status == Status::Approved) else {
            return Ok(Answer::Done);
        };
        if !device.desired.values().any(|wanted| wanted.bundle == bundle) {
            return Ok(Answer::Done);
        }
        let sizes = device.desired.values().fold(0_u64, |sum, wanted| sum.saturating_add(wanted.total_size));
        let room = sizes.saturating_mul(TIMES_AN_HOUR).saturating_add(BESIDES);
        let repair = &mut self.repair;
        repair.needs.heard += 1;
        repair.pass(now.unix);
        let mut own = repair.devices.get(id).copied().unwrap_or(Bucket::FULL);
        own.fill(now.unix, room, HOUR);
        let documents = documents && repair.gives(now.unix, &mut own, bundle.0);
        chunks.retain(|chunk| repair.gives(now.unix, &mut own, *chunk));
        repair.devices.insert(id.clone(), own);
        if documents || !chunks.is_empty() {
            self.effects.push(Effect::PublishParts { bundle, documents, chunks });
        }
        Ok(Answer::Done)
    }
}
