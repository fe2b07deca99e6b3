//! What other programs are told: that a rollout goes on, that a gate was breached, that a model has gone stale.
//!
//! Decides what is worth an event and what stands in it (CloudEvents 1.0). Whom it goes to, and how often that is tried, is
//! decided outside.

use crate::UnixMillis;
use crate::drift::Concern;
use crate::judge::Verdict;
use crate::rollout::{Phase, Rollout};
use protocol::FleetId;
use serde_json::{Value, json};

/// A drift of the population that is seen in so many windows is no passing cloud: the model should learn anew.
const STALE: u64 = 3;
/// The cause that no sensor explains.
const POPULATION: &str = "population";

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// What, such as `petrel.rollout.completed`.
    pub kind: String,
    /// To what: `rollout/7`, `stream/digits`.
    pub subject: String,
    /// All of it.
    pub data: Value,
}

impl Notice {
    /// What a change of a rollout has to say.
    pub fn of_rollout(before: Option<&Rollout>, now: &Rollout) -> Vec<Self> {
        let stage = |rollout: &Rollout| (rollout.phase.name(), wave(&rollout.phase));
        if before.is_some_and(|before| stage(before) == stage(now)) {
            return Vec::new();
        }
        let reason = match &now.phase {
            Phase::Paused { reason, .. } | Phase::Reverting { reason, .. } | Phase::Stopped { reason, .. } => {
                Some(reason)
            }
            Phase::Draft
            | Phase::Approval { .. }
            | Phase::Rolling { .. }
            | Phase::Soaking { .. }
            | Phase::Completed => None,
        };
        let (subject, state) = (format!("rollout/{}", now.id), now.phase.name());
        let data = json!({
            "rollout": now.id,
            "stream": now.stream,
            "version": now.version,
            "by": now.by,
            "state": state,
            "wave": wave(&now.phase),
            "waves": now.waves(),
            "reason": reason,
        });
        let mut notices =
            vec![Self { kind: format!("petrel.rollout.{state}"), subject: subject.clone(), data: data.clone() }];
        let breached = now.judgement.as_ref().filter(|j| reason.is_some_and(|reason| *reason == j.reason()));
        if let (Some(judgement), Phase::Paused { .. } | Phase::Reverting { .. }) = (breached, &now.phase) {
            let failed: Vec<_> = judgement.findings.iter().filter(|f| f.verdict == Verdict::Fail).collect();
            let mut data = data;
            data["gates"] = json!(failed);
            notices.push(Self { kind: "petrel.gate.breached".into(), subject, data });
        }
        notices
    }

    /// What a change of an alarm has to say: that it is new, or louder than it was; and once that it stays.
    pub fn of_concern(before: Option<&Concern>, now: &Concern) -> Vec<Self> {
        let mut notices = Vec::new();
        let mut tell = |kind: &str| {
            let subject = format!("stream/{}", now.stream);
            notices.push(Self { kind: kind.into(), subject, data: json!(now) });
        };
        if before.is_none_or(|before| before.level < now.level) {
            tell("petrel.drift.alarm");
        }
        if now.cause == POPULATION && now.windows >= STALE && before.is_none_or(|before| before.windows < STALE) {
            tell("petrel.retrain.requested");
        }
        notices
    }

    /// What is sent to try the way.
    pub fn of_test(by: &str) -> Self {
        Self { kind: "petrel.test".into(), subject: "webhook".into(), data: json!({ "by": by }) }
    }

    /// As a CloudEvent in JSON. `id` names it and no other; it came about at `at`.
    pub fn event(&self, fleet: &FleetId, id: &str, at: UnixMillis) -> Value {
        let time = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        json!({
            "specversion": "1.0",
            "id": id,
            "source": format!("/petrel/fleets/{fleet}"),
            "type": self.kind,
            "subject": self.subject,
            "time": time.map(|time| time.to_string()),
            "datacontenttype": "application/json",
            "data": self.data,
        })
    }
}

/// Whether a name in a configuration means a kind: the kind itself, or the first of its words.
pub fn means(name: &str, kind: &str) -> bool {
    kind == name || kind.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
}

/// Counted from 1, as people do.
fn wave(phase: &Phase) -> Option<usize> {
    match phase {
        Phase::Approval { wave }
        | Phase::Rolling { wave }
        | Phase::Soaking { wave, .. }
        | Phase::Paused { wave, .. } => Some(wave + 1),
        Phase::Draft | Phase::Reverting { .. } | Phase::Stopped { .. } | Phase::Completed => None,
    }
}
