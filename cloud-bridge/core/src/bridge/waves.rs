//! Waves: whom the release of a rollout is assigned to next.
//!
//! Without a limit a wave is assigned at once. With one, as many devices that are there are on their way to a verdict at a
//! time; one that is away is assigned when it comes, since nobody knows when it would begin.

use super::Bridge;
use crate::{Now, Rollout};
use protocol::DeviceId;
use std::collections::BTreeMap;
use trust::Intent;

impl Bridge {
    /// Begins the wave under way.
    pub(super) fn begin_wave(&mut self, now: Now, id: u64) {
        if let Some(rollout) = self.rollouts.get_mut(&id) {
            rollout.wave_started = now.unix;
            self.changed_rollouts.insert(id);
        }
        self.go_on(id);
    }

    /// A device came or went: there may be room for another.
    pub(super) fn pace(&mut self) {
        let paced = self.rollouts.values().filter(|r| r.wave().is_some() && r.at_once.is_some());
        let paced: Vec<u64> = paced.map(|r| r.id).collect();
        paced.into_iter().for_each(|id| self.go_on(id));
    }

    /// The devices of the wave under way that may be assigned the release now.
    fn next(&self, rollout: &Rollout) -> Vec<DeviceId> {
        let Some(wave) = rollout.wave() else { return Vec::new() };
        let waiting = rollout.waves[wave].iter().filter(|d| !rollout.before.contains_key(*d));
        let Some(most) = rollout.at_once else { return waiting.cloned().collect() };
        let is_there = |id: &&DeviceId| self.devices.get(*id).is_some_and(|device| device.online);
        let unanswered = rollout.before.keys().filter(|id| !rollout.results.contains_key(*id));
        let under_way = unanswered.filter(is_there).count() as u64;
        let room = usize::try_from(most.saturating_sub(under_way)).unwrap_or(usize::MAX);
        waiting.filter(is_there).take(room).cloned().collect()
    }

    /// Assigns the release to whoever is next.
    pub(super) fn go_on(&mut self, id: u64) {
        let Some(rollout) = self.rollouts.get(&id) else { return };
        let Some(release) = self.releases.get(&rollout.bundle) else { return };
        let names = self.next(rollout);
        if names.is_empty() {
            return;
        }
        let mut before = BTreeMap::new();
        for name in names {
            // A device that was away may still run whatever it was ever assigned.
            let assigned = |r: &&Rollout| r.stream == release.stream && r.before.contains_key(&name);
            let newest = self.rollouts.values().filter(assigned).map(|r| r.release).max();
            let Some(device) = self.devices.get_mut(&name) else { continue };
            let older = newest.is_some_and(|newest| release.release < newest);
            let intent = if older { Intent::Rollback } else { Intent::Install };
            let ran = device.desired.get(&release.stream).map(|d| d.bundle);
            device.want(release, intent, id, rollout.trial);
            self.due.insert(name.clone());
            self.changed_devices.insert(name.clone());
            before.insert(name, ran);
        }
        if let Some(rollout) = self.rollouts.get_mut(&id) {
            rollout.before.extend(before);
            self.changed_rollouts.insert(id);
        }
    }
}
