//! Rollouts as the API shows them: waves, devices by what they count as, and the judgement with its numbers.

use super::{ArrivingView, plain};
use crate::service::arrivals::Arrivals;
use crate::service::library::Library;
use bridge_core::{Device, Judgement, Member, Phase, Place, Preview, Rollout, Standing, UnixMillis};
use protocol::{DeviceId, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use trust::Digest;
use utoipa::ToSchema;

/// A rollout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RolloutView {
    /// Its number.
    pub(crate) id: u64,
    /// The stream.
    pub(crate) stream: String,
    /// The version.
    pub(crate) version: String,
    /// The release number.
    pub(crate) release: u64,
    /// Whom it is for.
    pub(crate) to: String,
    /// Who asked for it.
    pub(crate) by: String,
    /// Who approved it, by wave from 1.
    pub(crate) approved: BTreeMap<u64, String>,
    /// `draft`, `approval`, `rolling`, `soaking`, `paused`, `reverting`, `stopped` or `completed`.
    pub(crate) state: String,
    /// Why it is paused, goes back or stopped.
    pub(crate) reason: Option<String>,
    /// The wave that it reached, from 1.
    pub(crate) wave: u64,
    /// The waves.
    pub(crate) waves: Vec<WaveView>,
    /// When the soak of the wave under way ends, milliseconds since 1970.
    pub(crate) soaks_until: Option<u64>,
    /// Devices that were assigned the release.
    pub(crate) hit: u64,
    /// Those of them that are on their way back.
    pub(crate) returning: u64,
    /// Those of them that run again what they ran before.
    pub(crate) returned: u64,
    /// Those of them that are getting it.
    pub(crate) arriving: Option<ArrivingView>,
    /// What the evidence says, gate by gate.
    #[schema(value_type = Option<Object>)]
    pub(crate) judgement: Option<Judgement>,
    /// When it was asked for, milliseconds since 1970.
    pub(crate) started: u64,
    /// When it ended.
    pub(crate) ended: Option<u64>,
    /// What the devices said.
    pub(crate) results: Vec<ResultView>,
}

/// A wave.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct WaveView {
    /// Its devices.
    pub(crate) devices: u64,
    /// Those that confirmed.
    pub(crate) confirmed: u64,
    /// Those that refused or reverted.
    pub(crate) failed: u64,
    /// Those that are on their way to a verdict.
    pub(crate) open: u64,
    /// Those that were away when they were assigned it, and are.
    pub(crate) away: u64,
    /// Those of which nothing was heard for too long.
    pub(crate) unknown: u64,
    /// Those that were not assigned it yet.
    pub(crate) waiting: u64,
    /// How long it is looked at.
    pub(crate) soak: String,
    /// Somebody else than who started it must approve it before.
    pub(crate) approval: bool,
}

/// What one device said.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ResultView {
    /// Which device.
    pub(crate) device: String,
    /// `confirmed`, `reverted` or `refused`.
    pub(crate) outcome: String,
    /// The refusal's code.
    pub(crate) code: Option<String>,
    /// The refusal in words.
    pub(crate) detail: Option<String>,
    /// Answers on trial.
    pub(crate) answers: u64,
    /// Requests without a usable answer on trial.
    pub(crate) errors: u64,
}

impl RolloutView {
    /// A rollout at `now`.
    pub(crate) fn new(
        rollout: &Rollout,
        devices: &BTreeMap<DeviceId, Device>,
        arrivals: &Arrivals,
        now: UnixMillis,
    ) -> Self {
        let (reason, wave, soaks_until) = match &rollout.phase {
            Phase::Draft => (None, 0, None),
            Phase::Approval { wave } | Phase::Rolling { wave } => (None, wave + 1, None),
            Phase::Soaking { wave, since } => {
                let soak = rollout.policy.waves.get(*wave).map_or(0, |w| w.soak.0);
                (None, wave + 1, Some(since.saturating_add(soak)))
            }
            Phase::Paused { wave, reason, .. }
            | Phase::Reverting { wave, reason }
            | Phase::Stopped { wave, reason } => (Some(plain(reason)), wave + 1, None),
            Phase::Completed => (None, rollout.waves(), None),
        };
        let mut waves: Vec<WaveView> = rollout.policy.waves.iter().map(WaveView::new).collect();
        for member in rollout.members.values() {
            let standing = member.standing(devices.get(&member.device), now, rollout.policy.silence.deadline.0);
            if let Some(wave) = waves.get_mut(member.wave) {
                wave.count(standing);
            }
        }
        let at = |place: Place| rollout.members.values().filter(|m| m.place == place).count() as u64;
        let getting = rollout.members.values().filter(|m| m.place == Place::Assigned && m.result.is_none());
        Self {
            id: rollout.id,
            stream: rollout.stream.to_string(),
            version: rollout.version.clone(),
            release: rollout.release,
            to: rollout.to.to_string(),
            by: rollout.by.clone(),
            approved: rollout.approved.iter().map(|(wave, who)| (*wave as u64 + 1, who.clone())).collect(),
            state: rollout.phase.name().into(),
            reason,
            wave: wave as u64,
            waves,
            soaks_until,
            hit: rollout.hit() as u64,
            returning: at(Place::Returning),
            returned: at(Place::Returned),
            arriving: ArrivingView::together(getting.filter_map(|m| arrivals.of(now, &m.device, rollout.bundle))),
            judgement: rollout.judgement.clone(),
            started: rollout.started,
            ended: rollout.ended,
            results: rollout.members.values().filter_map(ResultView::new).collect(),
        }
    }

    /// Whether nothing more will come of it by itself.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "stopped" | "completed")
    }
}

impl WaveView {
    fn new(wave: &bridge_core::policy::Wave) -> Self {
        Self { soak: wave.soak.to_string(), approval: wave.approval, ..Self::default() }
    }

    fn count(&mut self, standing: Standing) {
        let of = match standing {
            Standing::Gone => return,
            Standing::Waiting => &mut self.waiting,
            Standing::Open => &mut self.open,
            Standing::Away => &mut self.away,
            Standing::Unknown => &mut self.unknown,
            Standing::Failed => &mut self.failed,
            Standing::Confirmed => &mut self.confirmed,
        };
        *of += 1;
        self.devices += 1;
    }
}

impl ResultView {
    fn new(member: &Member) -> Option<Self> {
        let result = member.result.as_ref()?;
        Some(Self {
            device: member.device.to_string(),
            outcome: match result.outcome {
                Outcome::Confirmed => "confirmed".into(),
                Outcome::Reverted => "reverted".into(),
                Outcome::Refused => "refused".into(),
            },
            code: result.code.as_deref().map(plain),
            detail: result.detail.as_deref().map(plain),
            answers: result.answers,
            errors: result.errors,
        })
    }
}

/// What a rollout would be, before it is one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct PlanView {
    /// The stream.
    pub(crate) stream: String,
    /// The version.
    pub(crate) version: String,
    /// Its waves.
    pub(crate) waves: Vec<PlannedWave>,
    /// Who is meant and would not get it, and why.
    pub(crate) left_out: BTreeMap<String, String>,
    /// Devices that are away now.
    pub(crate) away: u64,
    /// What crosses which links.
    pub(crate) links: Vec<LinkView>,
    /// Seconds that it takes at least: soaks and pace.
    pub(crate) at_least_s: u64,
    /// What a person should know before it begins.
    pub(crate) warnings: Vec<String>,
}

/// A wave that is planned.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct PlannedWave {
    /// The size that was asked for.
    pub(crate) size: String,
    /// Its devices by board.
    pub(crate) boards: BTreeMap<String, u64>,
    /// Its devices.
    pub(crate) devices: Vec<String>,
    /// How long it is looked at.
    pub(crate) soak: String,
    /// Somebody else must approve it before.
    pub(crate) approval: bool,
}

/// What crosses the links of one kind.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LinkView {
    /// `metered` or `unmetered`.
    pub(crate) link: String,
    /// Devices behind such links.
    pub(crate) devices: u64,
    /// Bytes over all of them; chunks that a device has are not sent.
    pub(crate) bytes: u64,
    /// The most over one.
    pub(crate) most: u64,
}

impl PlanView {
    /// A preview; `bytes` says what a device lacks that runs a bundle.
    pub(crate) fn new(
        preview: &Preview<'_>,
        devices: &BTreeMap<DeviceId, Device>,
        bytes: impl Fn(Option<Digest>) -> u64,
    ) -> Self {
        let rollout = &preview.rollout;
        let waves = rollout.policy.waves.iter().enumerate().map(|(at, wave)| {
            let mut boards: BTreeMap<String, u64> = BTreeMap::new();
            let members: Vec<&Member> = rollout.members_of(at).collect();
            for device in members.iter().filter_map(|m| devices.get(&m.device)) {
                *boards.entry(plain(&device.profile.board)).or_default() += 1;
            }
            PlannedWave {
                size: wave.size.to_string(),
                boards,
                devices: members.iter().map(|m| m.device.to_string()).collect(),
                soak: wave.soak.to_string(),
                approval: wave.approval || (at == 0 && rollout.policy.approval),
            }
        });
        let mut links: BTreeMap<bool, LinkView> = BTreeMap::new();
        for device in rollout.members.keys().filter_map(|id| devices.get(id)) {
            let needs = bytes(device.desired.get(&rollout.stream).map(|d| d.bundle));
            let metered = device.profile.metered;
            let name = if metered { "metered" } else { "unmetered" };
            let link =
                links.entry(metered).or_insert_with(|| LinkView { link: name.into(), devices: 0, bytes: 0, most: 0 });
            link.devices += 1;
            link.bytes = link.bytes.saturating_add(needs);
            link.most = link.most.max(needs);
        }
        let away = rollout.members.keys().filter(|id| devices.get(*id).is_some_and(|d| !d.online)).count() as u64;
        let soaks: u64 = rollout.policy.waves.iter().map(|wave| wave.soak.0).fold(0, u64::saturating_add);
        let pace = rollout.policy.pace.map_or(0.0, |pace| {
            let grows = pace.increment_factor > 1.0 && pace.rate_increase_criteria.number_of_succeeded_things > 0;
            let first = pace.base_rate_per_minute.min(pace.maximum_per_minute);
            rollout.members.len() as f64 / if grows { pace.maximum_per_minute } else { first } * 60.0
        });
        Self {
            stream: rollout.stream.to_string(),
            version: rollout.version.clone(),
            waves: waves.collect(),
            left_out: preview.left_out.iter().map(|(id, why)| (id.to_string(), why.clone())).collect(),
            away,
            links: links.into_values().collect(),
            at_least_s: (soaks / 1_000).saturating_add(pace as u64),
            warnings: preview.warnings.clone(),
        }
    }
}

/// What a device lacks of a bundle when it holds another: bytes of the chunks that both do not share.
pub(crate) fn lacking(library: &Library, bundle: Digest, held: Option<Digest>) -> anyhow::Result<u64> {
    let parts = library.parts(bundle)?;
    let known: BTreeSet<Digest> = match held.map(|held| library.parts(held)) {
        Some(Ok(parts)) => parts.chunks().iter().copied().collect(),
        Some(Err(_)) | None => BTreeSet::new(),
    };
    Ok(parts.chunks().iter().filter(|chunk| !known.contains(chunk)).map(|chunk| parts.length(chunk)).sum())
}
