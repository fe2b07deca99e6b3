//! What is kept together: the steps of the core, and what was said that led to them.
//!
//! Nobody hears of anything before all of it is on the disk.

use super::ahead::{Ahead, Coming};
use super::{Asked, DONE, Hands, Tell, measured};
use crate::service::store::commands::Reply;
use crate::service::store::drift::Room;
use crate::service::store::once::Once;
use crate::service::store::{Words, unix_millis};
use anyhow::Context;
use bridge_core::audit::Deed;
use bridge_core::{Answer, Bridge, Committed, Event, Measured, Now, Record, Rejection, Step};
use protocol::{CommandResult, DeviceId, Drift, Telemetry};
use rumqttc::v5::mqttbytes::v5::Publish;
use std::collections::BTreeMap;
use tracing::{debug, info, warn};

/// What names an answer to a command: whose, and which.
type Replied = (DeviceId, u64, String);

fn replied(result: &CommandResult) -> Replied {
    (result.device_id.clone(), result.seq, result.nonce.clone())
}

/// Steps that are saved together, since each time that something is kept the disk is waited for; what follows from them is
/// done afterwards, in their order.
#[derive(Default)]
pub(super) struct Batch {
    steps: Vec<(Step, Option<Tell>)>,
    /// Telemetry that came one after the other, and is not in a step yet.
    pub(super) telemetry: Vec<Telemetry>,
    /// What was new, to be kept with the steps.
    pub(super) words: Words,
    /// What answers to commands would be, after those of this batch.
    replies: BTreeMap<Replied, Reply>,
    /// To be acknowledged when all of it is on the disk.
    pub(super) publishes: Vec<Publish>,
}

impl Batch {
    /// News that nobody waits to hear the answer of.
    pub(super) fn take(&mut self, bridge: &mut Bridge, event: Event) {
        self.steps.push((bridge.step(Now { unix: unix_millis() }, event), None));
    }

    /// What somebody asks, and waits for.
    pub(super) async fn ask(
        &mut self,
        bridge: &mut Bridge,
        hands: &Hands,
        asked: Asked,
        tell: Tell,
    ) -> anyhow::Result<()> {
        let Asked { event, deed, once } = asked;
        if let Some(once) = &once
            && let Some((asked, number)) = hands.store.once(&once.who, &once.key).await?
        {
            let other = || Rejection::Invalid(format!("the key `{}` was used for another request", once.key));
            let again = repeated(&event, number).filter(|_| asked == once.asked).ok_or_else(other);
            let outcome = if again.is_ok() { "repeated" } else { outcome(&again) };
            hands.store.witness(&Deed { outcome: outcome.into(), ..deed }).await?;
            // Whoever asked may have gone away.
            let _ = tell.send(again);
            return Ok(());
        }
        let step = bridge.step(Now { unix: unix_millis() }, event);
        let step = step.asked_by(|answer| {
            if let (Some(once), Some(number)) = (once, number(answer)) {
                self.words.once.push((once, number));
            }
            Deed { outcome: outcome(answer).into(), ..deed }
        });
        self.steps.push((step, Some(tell)));
        Ok(())
    }

    /// Whether a request of this key is in the batch.
    pub(super) fn knows(&self, once: Option<&Once>) -> bool {
        once.is_some_and(|once| self.words.once.iter().any(|(one, _)| (&one.who, &one.key) == (&once.who, &once.key)))
    }

    /// Lets the telemetry that waits count, before something else does: nothing overtakes it.
    pub(super) async fn measure(&mut self, bridge: &mut Bridge, hands: &Hands) -> anyhow::Result<()> {
        if self.telemetry.is_empty() {
            return Ok(());
        }
        // What is said again is no new evidence; what is new counts in one with being kept.
        let mut new = hands.store.are_new(&self.telemetry).await?.into_iter();
        self.telemetry.retain(|said| {
            let same = |one: &Telemetry| (&one.device, one.run, one.seq) == (&said.device, said.run, said.seq);
            let again = self.words.telemetry.iter().any(same);
            new.next().unwrap_or(false) && !again
        });
        let rows: Vec<_> = self.telemetry.iter().flat_map(measured::by_telemetry).collect();
        if !rows.is_empty() {
            let known = |row: &&Measured| {
                bridge.releases().values().any(|of| of.stream == row.stream && of.release == row.release)
            };
            hands.tally.worked(rows.iter().filter(known));
        }
        self.take(bridge, Event::Measured(rows));
        self.words.telemetry.append(&mut self.telemetry);
        Ok(())
    }

    /// What a window would be here, after those of this batch.
    pub(super) async fn room_for(&self, hands: &Hands, drift: &Drift) -> anyhow::Result<Room> {
        let same = |one: &Drift| (&one.device, one.run, one.seq) == (&drift.device, drift.run, drift.seq);
        if self.words.windows.iter().any(same) { Ok(Room::Known) } else { hands.store.room_for(drift).await }
    }

    /// Asks the database at once what all these answers to commands would be.
    pub(super) async fn look_up(&mut self, hands: &Hands, came: &[Coming]) -> anyhow::Result<()> {
        let results: Vec<&CommandResult> = came.iter().filter_map(Coming::result).collect();
        let replies = hands.store.replies(&results).await?;
        self.replies.extend(results.into_iter().map(replied).zip(replies));
        Ok(())
    }

    /// What an answer to a command would be here, after those of this batch.
    pub(super) async fn reply(&mut self, hands: &Hands, result: &CommandResult) -> anyhow::Result<Reply> {
        let reply = match self.replies.get(&replied(result)) {
            Some(reply) => *reply,
            None => hands.store.replies(&[result]).await?.pop().context("an answer is something")?,
        };
        if reply == Reply::First {
            self.replies.insert(replied(result), Reply::Again);
        }
        Ok(reply)
    }

    /// Saves all of it, and then does what follows. Only what is on the disk is answered and acknowledged. An error is the
    /// store's: the bridge ends and starts anew, and the broker says to it what was not acknowledged.
    #[tracing::instrument(level = "debug", skip_all, fields(messages = self.publishes.len(), steps = self.steps.len()))]
    pub(super) async fn keep(mut self, bridge: &mut Bridge, hands: &Hands, ahead: &mut Ahead) -> anyhow::Result<()> {
        self.measure(bridge, hands).await?;
        let (steps, tells): (Vec<Step>, Vec<Option<Tell>>) = self.steps.into_iter().unzip();
        let committed = ahead.read_while(bridge, &hands.topics, || commit(hands, steps, &self.words))?;
        for (committed, tell) in committed.into_iter().zip(tells) {
            committed.effects.into_iter().for_each(|effect| hands.carry_out(effect));
            match (tell, committed.answer) {
                // Whoever asked may have gone away; what was decided stays decided.
                (Some(tell), answer) => drop(tell.send(answer)),
                (None, Err(rejection)) => warn!(%rejection, "news was turned down"),
                (None, Ok(_)) => {}
            }
        }
        self.publishes.into_iter().for_each(|publish| hands.speaker.acknowledge(publish));
        Ok(())
    }
}

/// Saves what the steps decided, with the words that led to it.
pub(super) fn commit(hands: &Hands, steps: Vec<Step>, words: &Words) -> anyhow::Result<Vec<Committed>> {
    Step::commit_all(steps, |records| {
        if records.is_empty() && words.is_empty() {
            return Ok(());
        }
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| runtime.block_on(hands.store.save(records, words)))
            .context("the database did not keep what was decided")?;
        tell(hands, records);
        Ok(())
    })
}

/// The word of the audit log for an answer: the same that REST gives.
fn outcome(answer: &Result<Answer, Rejection>) -> &'static str {
    match answer {
        Ok(
            Answer::Done
            | Answer::Started { .. }
            | Answer::Taken { .. }
            | Answer::Known { .. }
            | Answer::Commanded { .. }
            | Answer::FannedOut { .. }
            | Answer::Wanted { .. }
            | Answer::Forgotten { .. },
        ) => DONE,
        Err(rejection) => rejection.code(),
    }
}

/// The number of what a request began.
fn number(answer: &Result<Answer, Rejection>) -> Option<u64> {
    match answer {
        Ok(
            Answer::Started { rollout: number }
            | Answer::Commanded { seq: number, .. }
            | Answer::FannedOut { fan_out: number }
            | Answer::Wanted { request: number },
        ) => Some(*number),
        Ok(Answer::Done | Answer::Taken { .. } | Answer::Known { .. } | Answer::Forgotten { .. }) | Err(_) => None,
    }
}

/// The answer to a request that began what has this number.
fn repeated(event: &Event, number: u64) -> Option<Answer> {
    match event {
        Event::RolloutRequested(_) => Some(Answer::Started { rollout: number }),
        Event::CommandRequested { .. } => Some(Answer::Commanded { seq: number, draft: None }),
        Event::FanOutRequested(_) => Some(Answer::FannedOut { fan_out: number }),
        Event::SamplesWanted(_) => Some(Answer::Wanted { request: number }),
        _ => None,
    }
}

/// What changed: the broker inside hears of certificates, and whoever reads the log of everything.
fn tell(hands: &Hands, records: &[Record]) {
    for record in records {
        match record {
            Record::Withdrawn(w) => info!(device = %w.device, serial = w.serial, "certificate withdrawn"),
            Record::PutBack { at } => info!(at, "land was put back from a copy"),
            Record::NotWithdrawn { serial } => debug!(serial, "a withdrawn certificate has ended"),
            Record::Rollout(r) => {
                let verdict = r.judgement.as_ref().map(|judgement| judgement.verdict.to_string());
                info!(rollout = r.id, stream = %r.stream, release = r.release, phase = ?r.phase, verdict, "rollout");
            }
            Record::NoRollout { rollout } => info!(rollout, "rollout forgotten"),
            Record::Member(m) => debug!(rollout = m.rollout, device = %m.device, place = ?m.place, "rollout's device"),
            Record::NoMember { rollout, device } => debug!(rollout, %device, "a device left its rollout"),
            Record::Release(r) => {
                info!(stream = %r.stream, release = r.release, version = r.version, bundle = %r.bundle.short(), "release known");
            }
            Record::NoRelease { bundle } => info!(bundle = %bundle.short(), "release removed"),
            Record::NoSamples { request } => debug!(request, "request for samples forgotten"),
            Record::Samples(r) => debug!(request = r.id, stream = %r.stream, "request for samples"),
            Record::FanOut(f) => {
                info!(fan_out = f.id, to = %f.to, request = ?f.request, given = f.given, left_out = f.left_out, "fan-out");
            }
            Record::NoFanOut { fan_out } => debug!(fan_out, "fan-out forgotten"),
            // One line tells of all of them.
            Record::Command(c) if c.fan_out.is_some() => debug!(device = %c.device, command = c.seq, "command"),
            Record::Command(c) => info!(device = %c.device, command = c.seq, request = ?c.request, "command"),
            Record::Deed(deed) => debug!(who = deed.who, action = deed.action, subject = deed.subject, "audit"),
            Record::Document(d) => info!(document = ?d.document, number = d.number, "document"),
            Record::Beacons { reserved } => debug!(reserved, "numbers of beacons"),
            Record::NoDevice { id } => {
                hands.guests.forget(id);
                info!(device = %id, "device rejected");
            }
            Record::Device(d) => {
                hands.guests.know(d);
                debug!(device = %d.id, status = ?d.status, online = d.online, generation = d.generation, "device");
                if let Some(alarm) = &d.alarm {
                    warn!(device = %d.id, at = alarm.at, "{}", alarm.what);
                }
            }
        }
    }
}
