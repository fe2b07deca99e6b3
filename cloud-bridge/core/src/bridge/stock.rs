//! The stock: which releases land must keep, and which may go from its library.
//!
//! Decides by what devices should run, say that they hold, and would go back to. What lies at the broker is another
//! room's.

use super::Bridge;
use crate::audit::Deed;
use crate::{Answer, Effect, Record, Rejection, Release, UnixMillis};
use std::collections::BTreeMap;
use std::fmt;
use trust::Digest;

/// The newest releases of a stream stay, whoever runs them.
const NEWEST: usize = 2;

/// Why a release stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// A rollout brings it now.
    Rolling(u64),
    /// So many devices should run it.
    Wanted(u64),
    /// So many devices say that they hold it: active, before it, or on trial.
    Held(u64),
    /// So many devices go back to it when what they should run fails.
    Fallback(u64),
    /// It is one of the newest of its stream.
    Newest,
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stay::Rolling(rollout) => write!(f, "rollout {rollout} is under way"),
            Stay::Wanted(devices) => write!(f, "{devices} device(s) should run it"),
            Stay::Held(devices) => write!(f, "{devices} device(s) hold it"),
            Stay::Fallback(devices) => write!(f, "{devices} device(s) would go back to it"),
            Stay::Newest => write!(f, "one of the newest {NEWEST} of its stream"),
        }
    }
}

/// How many devices have to do with a bundle.
#[derive(Debug, Clone, Copy, Default)]
struct Uses {
    wanted: u64,
    held: u64,
    fallback: u64,
}

impl Bridge {
    /// Every release, and why it stays; `None` for one that may go.
    pub fn stock(&self) -> Vec<(&Release, Option<Stay>)> {
        let uses = self.uses();
        let mut newest: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for release in self.releases.values() {
            newest.entry(&release.stream).or_default().push(release.release);
        }
        newest.values_mut().for_each(|numbers| numbers.sort_unstable_by(|a, b| b.cmp(a)));
        let stays = |release: &Release| {
            let rolling = self.rollouts.values().find(|r| r.bundle == release.bundle && r.phase.is_under_way());
            let Uses { wanted, held, fallback } = uses.get(&release.bundle).copied().unwrap_or_default();
            let is_new = newest[&release.stream].iter().take(NEWEST).any(|number| *number == release.release);
            let by = |count: u64, stay: fn(u64) -> Stay| (count > 0).then(|| stay(count));
            rolling
                .map(|r| Stay::Rolling(r.id))
                .or(by(wanted, Stay::Wanted))
                .or(by(held, Stay::Held))
                .or(by(fallback, Stay::Fallback))
                .or(is_new.then_some(Stay::Newest))
        };
        self.releases.values().map(|release| (release, stays(release))).collect()
    }

    fn uses(&self) -> BTreeMap<Digest, Uses> {
        let mut uses: BTreeMap<Digest, Uses> = BTreeMap::new();
        for device in self.devices.values().filter(|device| device.status.is_member()) {
            for wanted in device.desired.values() {
                uses.entry(wanted.bundle).or_default().wanted += 1;
                let before = self.rollouts.get(&wanted.rollout).and_then(|r| r.members.get(&device.id));
                if let Some(before) = before.and_then(|member| member.before) {
                    uses.entry(before).or_default().fallback += 1;
                }
            }
            device.held().for_each(|held| uses.entry(held).or_default().held += 1);
        }
        uses
    }

    /// Somebody wants the room of what may go, and came before this time.
    pub(super) fn clear_stock(&mut self, before: UnixMillis) -> Result<Answer, Rejection> {
        let spare = self.stock().into_iter().filter(|(release, stay)| stay.is_none() && release.pushed < before);
        let spare: Vec<Release> = spare.map(|(release, _)| release.clone()).collect();
        for release in &spare {
            self.releases.remove(&release.bundle);
            self.records.push(Record::NoRelease { bundle: release.bundle });
            let subject = format!("{}@{} {}", release.stream, release.version, release.bundle);
            self.records.push(Record::Deed(Box::new(Deed::new("bridge", "release.forget", &subject, "done"))));
            self.effects.push(Effect::RemoveBundle { bundle: release.bundle });
        }
        Ok(Answer::Forgotten { releases: spare })
    }
}
