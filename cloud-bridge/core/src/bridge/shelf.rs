//! What lies at the broker: the bundles whose chunks are retained there, and no others.
//!
//! A bundle lies there while a rollout brings it or a device waits for it. What should lie there is worked out after
//! each step, and the difference is published or cleared. Which chunks a bundle has, and shares, the hands know.

use super::Bridge;
use crate::{Device, Effect, Status};
use protocol::DeviceId;
use std::collections::{BTreeMap, BTreeSet};
use trust::Digest;

/// The latest ended rollouts whose chunks are cleared again after a crash: clearing may have been lost with it.
const CLEARED_AGAIN: usize = 16;

/// What the broker retains of bundles.
#[derive(Debug)]
pub(crate) struct Shelf {
    /// The broker of this connection, or of the last one, retains.
    pub(super) retains: bool,
    lies: BTreeSet<Digest>,
    /// Who waits for what.
    waiting: BTreeMap<Digest, BTreeSet<DeviceId>>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self { retains: true, lies: BTreeSet::new(), waiting: BTreeMap::new() }
    }
}

impl Bridge {
    /// What should lie at the broker as land remembers it; it is said at the first connection.
    pub(super) fn set_up_shelf(&mut self) {
        let devices: Vec<DeviceId> = self.devices.keys().cloned().collect();
        devices.iter().for_each(|device| self.note_waiting(device));
        self.shelf.lies = self.needed();
    }

    /// Notes what a device waits for now.
    pub(super) fn note_waiting(&mut self, id: &DeviceId) {
        let wants = self.devices.get(id).map(Device::waits_for).unwrap_or_default();
        self.shelf.waiting.retain(|bundle, waiting| {
            if !wants.contains(bundle) {
                waiting.remove(id);
            }
            !waiting.is_empty()
        });
        for bundle in wants {
            self.shelf.waiting.entry(bundle).or_default().insert(id.clone());
        }
    }

    fn needed(&self) -> BTreeSet<Digest> {
        let rolling = self.rollouts.values().filter(|r| r.phase.is_under_way()).map(|r| r.bundle);
        rolling.chain(self.shelf.waiting.keys().copied()).collect()
    }

    /// What is needed from now on, and what is not any more.
    pub(super) fn set_shelf(&mut self) {
        let needed = self.needed();
        if self.shelf.retains {
            let over = self.shelf.lies.difference(&needed);
            self.effects.extend(over.map(|bundle| Effect::ClearChunks { bundle: *bundle, stay: needed.clone() }));
            let new = needed.difference(&self.shelf.lies);
            self.effects.extend(new.map(|bundle| Effect::PublishBundle { bundle: *bundle }));
        }
        self.shelf.lies = needed;
    }

    /// After a connection. What a broker forgot with our session is published again, and also what a crash may
    /// have kept from being said. A broker that kept our session is asked: it may have lost what it retained.
    pub(super) fn fill_shelf(&mut self, forgotten: bool, retains: bool) {
        let anew = forgotten || !self.shelf.retains;
        self.shelf.retains = retains;
        if !retains {
            return;
        }
        let needed = self.needed();
        if anew {
            let ended = self.rollouts.values().rev().filter(|r| !r.phase.is_under_way()).take(CLEARED_AGAIN);
            let wanted = self.devices.values().flat_map(|d| d.desired.values().map(|wanted| wanted.bundle));
            let over: BTreeSet<Digest> = ended.map(|r| r.bundle).chain(wanted).collect();
            let over = over.difference(&needed);
            self.effects.extend(over.map(|bundle| Effect::ClearChunks { bundle: *bundle, stay: needed.clone() }));
            self.effects.extend(needed.iter().map(|bundle| Effect::PublishBundle { bundle: *bundle }));
        } else if !needed.is_empty() {
            self.effects.push(Effect::LookForBundles { bundles: needed.clone() });
        }
        self.shelf.lies = needed;
    }

    /// The broker does not hold what it should.
    pub(super) fn refill_shelf(&mut self, bundle: Digest) {
        if self.shelf.retains && self.shelf.lies.contains(&bundle) {
            self.effects.push(Effect::PublishBundle { bundle });
        }
    }
}

impl Device {
    /// The bundles that it should run, has not answered for, and does not say that it holds. Whoever never
    /// reported has heard of none.
    fn waits_for(&self) -> BTreeSet<Digest> {
        if self.report.is_none() || self.status != Status::Approved {
            return BTreeSet::new();
        }
        let held: BTreeSet<Digest> = self.held().collect();
        let open = self.desired.values().filter(|wanted| wanted.verdict == 0);
        open.map(|wanted| wanted.bundle).filter(|bundle| !held.contains(bundle)).collect()
    }
}
