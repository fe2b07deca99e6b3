//! What is arriving on devices, as they said last.
//!
//! Decides how long such a word counts. It is news of the moment: it is kept in memory alone, and devices that get
//! a bundle say it again every few seconds.

use bridge_core::UnixMillis;
use protocol::{Arriving, DeviceId, Telemetry};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use trust::Digest;

/// A device that gets a bundle says so every ten seconds, or as often as it says anything.
const COUNTS: UnixMillis = 90_000;

/// The devices that are getting something.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(RwLock<BTreeMap<DeviceId, (UnixMillis, Vec<Arriving>)>>);

impl Arrivals {
    /// What a device said at `now`.
    pub(crate) fn heard(&self, now: UnixMillis, telemetry: &Telemetry) {
        let mut devices = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if telemetry.arriving.is_empty() {
            devices.remove(&telemetry.device);
        } else {
            devices.insert(telemetry.device.clone(), (now, telemetry.arriving.clone()));
        }
    }

    /// How far a bundle is on a device.
    pub(crate) fn of(&self, now: UnixMillis, device: &DeviceId, bundle: Digest) -> Option<Arriving> {
        let devices = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (at, rows) = devices.get(device)?;
        let row = rows.iter().find(|row| row.statement == bundle.0)?;
        (now.saturating_sub(*at) < COUNTS).then_some(*row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_for_a_while() {
        let arrivals = Arrivals::default();
        let golden = include_str!("../../../contract/protocol/tests/golden/telemetry.hex").trim();
        let frame = hex::decode(golden).unwrap();
        let mut telemetry: Telemetry = protocol::decode_cbor(&frame[1 + protocol::SIGNATURE_BYTES..]).unwrap();
        let (device, bundle) = (telemetry.device.clone(), Digest(telemetry.arriving[0].statement));
        arrivals.heard(1_000, &telemetry);
        assert_eq!(arrivals.of(2_000, &device, bundle), Some(telemetry.arriving[0]));
        assert_eq!(arrivals.of(1_000 + COUNTS, &device, bundle), None, "too old");
        assert_eq!(arrivals.of(2_000, &device, Digest([0; 32])), None, "another bundle");
        telemetry.arriving.clear();
        arrivals.heard(3_000, &telemetry);
        assert_eq!(arrivals.of(3_000, &device, bundle), None, "it is there");
    }
}
