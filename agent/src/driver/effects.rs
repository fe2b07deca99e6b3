//! Carries out what the core and the pull decided: each effect goes to the hand that does it.

use super::Driver;
use crate::fetch::Action;
use crate::keeper::Errand;
use crate::mqtt::{Message, Receipt};
use crate::settings::Origin;
use crate::worker::{Place, Task, Truth};
use agent_core::{Effect, Log};
use protocol::{
    BridgeTopic, CommandOutcome, CommandResult, Diagnostics, Hello, Kind, MAX_RESULT_BYTES, Need, Presence, Setting,
    Verdict, encode_json,
};
use serde::Serialize;
use trust::{PayloadKind, Refusal};

/// How long the broker holds telemetry for a land that is away: as long as land keeps it by default. It may have
/// waited on the device for weeks, and the device forgets it when the broker has it.
pub(super) const TELEMETRY_EXPIRY_S: u32 = 30 * 24 * 3_600;
/// A hello or a need that was not heard is said again.
const PASSING_EXPIRY_S: u32 = 60;

impl Driver {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        tracing::debug!(?effect, "effect");
        self.watch.decided(&effect);
        match effect {
            Effect::Fetch { bundle, total_size } => {
                tracing::info!(bundle = %bundle.short(), bytes = total_size, "a bundle is fetched");
                self.fetch(bundle, total_size);
            }
            Effect::Admit { bundle } => self.keeper.ask(Errand::Admit(bundle)),
            Effect::StopFetching { bundle } => {
                self.arrived(&bundle);
                self.keeper.ask(Errand::StopFetching(bundle));
            }
            Effect::Examine { bundle } => self.keeper.ask(Errand::Examine(bundle)),
            Effect::Discard { bundle } => self.keeper.ask(Errand::SetAside(bundle)),
            Effect::Keep { bundles } => self.keeper.ask(Errand::Keep(bundles)),
            Effect::Probe { bundle } => self.loader.ask(Task::Probe(bundle)),
            Effect::Serve { stream, bundle, fallback } => {
                let (main, fallback) = (self.place(bundle), fallback.map(|bundle| self.place(bundle)));
                self.loader.ask(Task::Serve { stream, main, fallback });
            }
            Effect::Shadow { stream, bundle } => {
                self.loader.ask(Task::Shadow { stream, place: self.place(bundle) });
            }
            Effect::StopServing { stream } => self.loader.ask(Task::Stop(stream)),
            Effect::AwaitRoot { version } => {
                let [next, last] = [version, version.saturating_sub(1)].map(|version| self.topics.root(version));
                if let Some(link) = &mut self.link {
                    // In this order, since the broker may take no more than there are.
                    link.unsubscribe(last);
                    link.subscribe([next]);
                }
            }
            Effect::SayHello { boot, seq, nonce, profile } => {
                let Some(signer) = self.papers.signer() else { return };
                let key = signer.public().spki().to_vec();
                let hello = Hello { device: self.config.device.clone(), boot, seq, key, nonce, profile };
                let topic = BridgeTopic::Hello(self.config.device.clone());
                self.say_frame(Kind::Hello, &topic, &hello, Some(PASSING_EXPIRY_S), None);
            }
            Effect::PublishReport(report) => {
                let topic = BridgeTopic::Report(self.config.device.clone());
                self.say_document(PayloadKind::Report, &topic, &report, true, None);
            }
            Effect::DeliverVerdict(verdict) => {
                log_verdict(&verdict);
                let topic = BridgeTopic::Verdict(self.config.device.clone());
                self.say_document(PayloadKind::Verdict, &topic, &verdict, false, Some(Receipt::Verdict(verdict.seq)));
            }
            Effect::Restart { stream } => self.loader.ask(Task::Restart(stream)),
            Effect::SetLog(Log::Configured) => self.log.set(None),
            Effect::SetLog(Log::Level(level)) => self.log.set(Some(level.as_str())),
            Effect::Measure => self.measure(),
            Effect::Diagnose(result) => {
                let mut result = CommandResult { diagnostics: Some(self.diagnose()), ..result };
                result.fit(MAX_RESULT_BYTES);
                self.say_result(&result);
            }
            Effect::Judge { stream, labels, result } => {
                let truths: Vec<Truth> = labels.into_iter().map(Truth::from).collect();
                self.say_result(&match self.worker.judge(&stream, &truths) {
                    Ok(joined) => CommandResult { labels: Some(joined), ..result },
                    Err(why) => {
                        let outcome = CommandOutcome::Failed;
                        CommandResult { outcome, detail: Some(why.to_string()), ..result }
                    }
                });
            }
            Effect::Give { stream, request, count, bytes, by, approved, result } => {
                let given = self.worker.give(&stream, request, count, bytes);
                let samples = given.as_ref().map_or(0, Vec::len);
                tracing::info!(%stream, request, by, approved, samples, "land asks for inputs");
                self.say_result(&match given {
                    Ok(samples) => CommandResult { samples: Some(samples), ..result },
                    Err(Refusal { code, detail }) => CommandResult {
                        outcome: CommandOutcome::Refused,
                        code: Some(code.to_string()),
                        detail: Some(detail),
                        ..result
                    },
                });
            }
            Effect::DeliverResult(result) => self.say_result(&result),
        }
    }

    fn say_result(&mut self, result: &CommandResult) {
        let (command, outcome, why) = (result.seq, result.outcome, result.detail.as_deref().unwrap_or("-"));
        tracing::info!(command, ?outcome, why, "land asked, and is told");
        let topic = BridgeTopic::Result(self.config.device.clone());
        self.say_document(PayloadKind::Result, &topic, result, false, None);
    }

    /// What a person who looks for a fault wants to see. There is no secret in any of it: keys are in files of their own,
    /// and the configuration names those.
    fn diagnose(&self) -> Diagnostics {
        let (log, log_left_out) = self.log.lines.latest();
        let setting = |(key, value, origin): &(String, toml::Value, Origin)| Setting {
            key: key.clone(),
            value: value.to_string(),
            from: origin.to_string(),
        };
        // Plain data has a JSON form.
        let status = serde_json::to_string(&self.describe()).unwrap_or_default();
        Diagnostics { status, config: self.settings.iter().map(setting).collect(), log, log_left_out }
    }

    /// A bundle with what is remembered of its probe.
    fn place(&self, bundle: trust::Digest) -> Place {
        let cost = self.core.as_ref().and_then(|core| core.ledger().costs.get(&bundle));
        Place { bundle, row_us: cost.map_or(0, |cost| cost.row_us) }
    }

    pub(super) fn act(&mut self, action: Action) {
        if let Action::Slow(bundle) = action {
            return self.look_elsewhere(bundle);
        }
        let Some(link) = &mut self.link else { return };
        match action {
            Action::AskDocuments(bundle) => link.subscribe([self.topics.bundle_filter(&bundle.0)]),
            Action::LeaveDocuments(bundle) => link.unsubscribe(self.topics.bundle_filter(&bundle.0)),
            Action::AskChunks(chunks) => link.subscribe(chunks.iter().map(|chunk| self.topics.chunk(&chunk.0))),
            Action::LeaveChunk(chunk) => link.unsubscribe(self.topics.chunk(&chunk.0)),
            Action::Need { bundle, documents, chunks } => {
                tracing::info!(bundle = %bundle.short(), documents, chunks = chunks.len(), "not all arrived, it is asked for");
                let need = Need {
                    device: self.config.device.clone(),
                    boot: self.core.as_ref().map_or(0, |core| core.ledger().boot),
                    seq: self.next_seq(),
                    statement: bundle.0,
                    documents,
                    chunks: chunks.iter().flat_map(|chunk| chunk.0).collect(),
                };
                let topic = BridgeTopic::Need(self.config.device.clone());
                self.say_frame(Kind::Need, &topic, &need, Some(PASSING_EXPIRY_S), None);
            }
            Action::Progressed { bundle, arrived, total } => {
                self.arrivals.progressed(std::time::Instant::now(), bundle, arrived, total);
                self.measure_soon();
            }
            // Done above; and the keeper makes events of the others.
            Action::Slow(_)
            | Action::Described(..)
            | Action::Stored(_)
            | Action::Doubted(_)
            | Action::Refused(..)
            | Action::Stumbled(..) => {}
        }
    }

    /// The first things on a new connection: what to listen to, and that we are there.
    pub(super) fn greet(&mut self) {
        let boot = self.core.as_ref().map_or(0, |core| core.ledger().boot);
        let birth = self.presence_message(boot, true);
        let filters = [self.topics.down_filter(&self.config.device), self.topics.all_filter()];
        let Some(link) = &mut self.link else { return };
        link.publish(birth);
        link.subscribe(filters);
    }

    pub(super) fn presence(&self, boot: u64, online: bool) -> Vec<u8> {
        encode_json(&Presence { boot, online })
    }

    pub(super) fn presence_message(&self, boot: u64, online: bool) -> Message {
        let topic = self.topics.upstream(&BridgeTopic::Presence(self.config.device.clone()));
        Message { topic, payload: self.presence(boot, online), retain: true, expiry_s: None, receipt: None }
    }

    /// Whether it could be signed and handed over.
    pub(super) fn say_frame<T: Serialize>(
        &mut self,
        kind: Kind,
        topic: &BridgeTopic,
        message: &T,
        expiry_s: Option<u32>,
        receipt: Option<Receipt>,
    ) -> bool {
        let topic = self.topics.upstream(topic);
        let Some(signer) = self.papers.signer() else { return false };
        match signer.frame(kind, message) {
            Ok(payload) => {
                self.publish(Message { topic, payload, retain: false, expiry_s, receipt });
                true
            }
            Err(error) => {
                tracing::error!(topic, "a message was not sent: {error}");
                false
            }
        }
    }

    fn say_document<T: Serialize>(
        &mut self,
        kind: PayloadKind,
        topic: &BridgeTopic,
        document: &T,
        retain: bool,
        receipt: Option<Receipt>,
    ) {
        let topic = self.topics.upstream(topic);
        let Some(signer) = self.papers.signer() else { return };
        match signer.document(kind, document) {
            Ok(payload) => self.publish(Message { topic, payload, retain, expiry_s: None, receipt }),
            Err(error) => tracing::error!(topic, "a document was not sent: {error}"),
        }
    }

    fn publish(&mut self, message: Message) {
        if let Some(link) = &mut self.link {
            link.publish(message);
        }
    }
}

fn log_verdict(verdict: &Verdict) {
    let (stream, release, outcome) = (verdict.stream.as_str(), verdict.release, verdict.outcome);
    let (code, detail) = (verdict.code.as_deref().unwrap_or("-"), verdict.detail.as_deref().unwrap_or("-"));
    let (answers, errors) = (verdict.answers, verdict.errors);
    tracing::info!(stream, release, ?outcome, code, detail, answers, errors, "verdict");
}
