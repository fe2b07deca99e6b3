//! The driver: feeds events to the core one by one, saves, and carries out what it then hands over.
//!
//! It owns the core; everybody else asks through [`Driver`]. It verifies what devices say with the
//! key that land holds of them, and decides nothing.

mod ahead;
mod batch;
mod belief;
mod measured;

use super::arrivals::Arrivals;
use super::config::BridgeConfig;
use super::expulsion::Expulsion;
use super::library::Library;
use super::lookout::Lookout;
use super::mqtt::Inbound;
use super::pen::Pen;
use super::speaker::{Job, Speaker};
use super::store::commands::{Answered, Reply};
use super::store::drift::Room;
use super::store::once::Once;
use super::store::{Store, Words, unix_millis};
use super::tally::{Tally, What};
use crate::broker::Guests;
use crate::fault::Fault;
use ahead::{AT_ONCE, Ahead, Coming};
use anyhow::Context;
use batch::{Batch, commit};
use belief::{Believed, Doubt, Heard, code, understand};
use bridge_core::audit::Deed;
use bridge_core::{Answer, Bridge, Effect, Event, Now, Rejection, Said};
use protocol::{BridgeTopic, DeviceId, DocumentKind, Topics};
use rumqttc::v5::mqttbytes::v5::Publish;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};
use trust::Digest;

/// The outcome, in the audit log, of what was not refused.
pub(crate) const DONE: &str = "done";
/// Questions waiting for the driver, and taken together.
const QUESTIONS: usize = 256;

/// What the driver works with.
pub(crate) struct Hands {
    /// The topic tree.
    pub(crate) topics: Topics,
    /// Says what is to be said.
    pub(crate) speaker: Speaker,
    /// Looks at what the broker retains.
    pub(crate) lookout: Lookout,
    /// Counts.
    pub(crate) tally: Arc<Tally>,
    /// Signs assignments and beacons.
    pub(crate) pen: Arc<Pen>,
    /// Verifies bundles.
    pub(crate) library: Arc<Library>,
    /// Holds records.
    pub(crate) store: Store,
    /// Makes it felt when a device is thrown out.
    pub(crate) expulsion: Expulsion,
    /// Whom the broker inside lets in.
    pub(crate) guests: Arc<Guests>,
    /// What is arriving on devices.
    pub(crate) arrivals: Arc<Arrivals>,
}

type Look = Box<dyn FnOnce(&Bridge) + Send>;

/// Where somebody waits for an answer.
type Tell = oneshot::Sender<Result<Answer, Rejection>>;

/// What somebody asks of the core, and what the audit log will say of it.
struct Asked {
    event: Event,
    deed: Deed,
    once: Option<Once>,
}

enum Question {
    Event(Box<Asked>, Tell),
    Look(Look),
}

/// The way to the core.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    ask: mpsc::Sender<Question>,
    /// What is arriving on devices.
    pub(crate) arrivals: Arc<Arrivals>,
}

impl Driver {
    /// Requests something of the core; the answer comes after it was saved, in one with what the audit
    /// log says of it: `deed`, with the outcome that the core decides.
    pub(crate) async fn request(&self, event: Event, deed: Deed) -> anyhow::Result<Result<Answer, Rejection>> {
        self.request_once(event, deed, None).await
    }

    /// The same; what counts once and was done before is not done again, and its answer is told.
    pub(crate) async fn request_once(
        &self,
        event: Event,
        deed: Deed,
        once: Option<Once>,
    ) -> anyhow::Result<Result<Answer, Rejection>> {
        let (tell, answer) = oneshot::channel();
        let asked = Box::new(Asked { event, deed, once });
        self.ask.send(Question::Event(asked, tell)).await.ok().context("the bridge is stopping")?;
        answer.await.context("the bridge is stopping")
    }

    /// Looks at what the core knows.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Bridge) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (tell, answer) = oneshot::channel();
        let look: Look = Box::new(move |bridge| {
            // Whoever asked may have gone away; nobody misses the answer then.
            let _ = tell.send(look(bridge));
        });
        self.ask.send(Question::Look(look)).await.ok().context("the bridge is stopping")?;
        answer.await.context("the bridge is stopping")
    }
}

/// Starts the driver with what the store remembers, and the root that the configuration names.
pub(crate) async fn start(
    config: &BridgeConfig,
    root: Vec<u8>,
    hands: Hands,
    inbound: mpsc::UnboundedReceiver<Inbound>,
) -> anyhow::Result<(Driver, JoinHandle<anyhow::Result<()>>)> {
    let unbelieved = |refusal| {
        Fault::new("a document in the database is not believed")
            .because(refusal)
            .remedy("was the database changed by hand? Restore the data folder from a backup")
    };
    let mut bridge = Bridge::restore(config.fleet.clone(), hands.store.records().await?).map_err(unbelieved)?;
    bridge.limit_needs(config.need_rate);
    let named = Event::DocumentPushed { kind: DocumentKind::Root, bytes: root };
    let step = bridge.step(Now { unix: unix_millis() }, named);
    let committed = commit(&hands, vec![step], &Words::default())?.pop().context("a step has an outcome")?;
    committed.answer.map_err(|rejection| {
        Fault::new("the root that the configuration names is not one of this fleet's chain")
            .because(rejection)
            .remedy("name the newest root that was published, or publish those in between with `petrel publish`")
    })?;
    committed.effects.into_iter().for_each(|effect| hands.carry_out(effect));
    if let (Some(root), _) = bridge.believed() {
        hands.pen.check(root)?;
    }
    let (ask, questions) = mpsc::channel(QUESTIONS);
    let arrivals = hands.arrivals.clone();
    let task = tokio::spawn(drive(bridge, hands, Ahead::new(inbound), questions));
    Ok((Driver { ask, arrivals }, task))
}

async fn drive(
    mut bridge: Bridge,
    hands: Hands,
    mut ahead: Ahead,
    mut questions: mpsc::Receiver<Question>,
) -> anyhow::Result<()> {
    let mut asked = Vec::with_capacity(QUESTIONS);
    loop {
        let wait = bridge.deadline().map(|at| Duration::from_millis(at.saturating_sub(unix_millis())));
        let overdue = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let (mut batch, mut looks, mut came, mut due) = (Batch::default(), Vec::new(), Vec::new(), false);
        tokio::select! {
            () = overdue => due = true,
            1.. = questions.recv_many(&mut asked, QUESTIONS) => {}
            some = ahead.come() => {
                anyhow::ensure!(!some.is_empty(), "the wire ended");
                came = some;
            }
        }
        // Whatever else is there, or about to be, is kept in one with it: the disk is waited for once.
        tokio::task::yield_now().await;
        came.append(&mut ahead.there(AT_ONCE.saturating_sub(came.len())));
        while asked.len() < QUESTIONS
            && let Ok(question) = questions.try_recv()
        {
            asked.push(question);
        }
        // One that comes alone is looked up at its turn.
        if came.len() > 1 {
            came.iter_mut().for_each(|coming| coming.read_result(&bridge, &hands.topics));
            batch.look_up(&hands, &came).await?;
        }
        for Coming { news, read, .. } in came {
            match news {
                Inbound::Connected { remembered, retains } => {
                    batch.measure(&mut bridge, &hands).await?;
                    batch.take(&mut bridge, Event::BrokerConnected { remembered, retains });
                }
                Inbound::Missed { bundle } => batch.take(&mut bridge, Event::BundleMissed { bundle }),
                Inbound::Said(publish, came) => {
                    hands.tally.began(came);
                    hear(&mut bridge, &hands, *publish, read, &mut batch).await?;
                }
            }
        }
        // What came in time counts first.
        batch.measure(&mut bridge, &hands).await?;
        if due {
            batch.take(&mut bridge, Event::DeadlineReached);
        }
        for question in asked.drain(..) {
            match question {
                Question::Look(look) => looks.push(look),
                Question::Event(asked, tell) => {
                    // What came of the one before it is on the disk then.
                    if batch.knows(asked.once.as_ref()) {
                        std::mem::take(&mut batch).keep(&mut bridge, &hands, &mut ahead).await?;
                    }
                    batch.ask(&mut bridge, &hands, *asked, tell).await?;
                }
            }
        }
        batch.keep(&mut bridge, &hands, &mut ahead).await?;
        hands.tally.caught_up(ahead.waiting());
        // Nobody sees what is not saved.
        looks.into_iter().for_each(|look| look(&bridge));
    }
}

/// Takes one message of a device: verified, where that was not done ahead, and decided here; saved and acknowledged with
/// `batch`. Telemetry waits for more of it.
async fn hear(
    bridge: &mut Bridge,
    hands: &Hands,
    publish: Publish,
    read: Option<Believed>,
    batch: &mut Batch,
) -> anyhow::Result<()> {
    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
    match hands.topics.read_up(&topic) {
        None => match hands.topics.read_chunk(&topic) {
            Some(chunk) if publish.retain => hands.lookout.saw(chunk),
            Some(_) | None => debug!(%topic, "a topic that means nothing here"),
        },
        Some(from) => match read
            .filter(|read| read.still_counts(bridge))
            .map_or_else(|| understand(bridge, &from, &publish.payload), Ok)
        {
            Ok(Believed { key, heard }) => {
                hands.tally.took();
                // Of a device that has no newer key it is no news.
                let renews = |device: &DeviceId| bridge.devices().get(device).is_some_and(|known| known.next.is_some());
                if let Some((device, key)) = key.filter(|(device, _)| renews(device)) {
                    batch.take(bridge, Event::KeyUsed { device, key });
                }
                if let Heard::Telemetry(telemetry) = heard {
                    hands.arrivals.heard(unix_millis(), &telemetry);
                    batch.telemetry.push(*telemetry);
                } else {
                    batch.measure(bridge, hands).await?;
                    heed(bridge, hands, &topic, heard, batch).await?;
                }
            }
            Err(Doubt { why, reason }) => {
                warn!(%topic, code = code(&reason), reason = format!("{reason:#}"), "a message was not believed");
                batch.take(bridge, Event::MessageDisbelieved { why });
            }
        },
    }
    batch.publishes.push(publish);
    Ok(())
}

async fn heed(bridge: &mut Bridge, hands: &Hands, topic: &str, heard: Heard, batch: &mut Batch) -> anyhow::Result<()> {
    match heard {
        Heard::Event(event) => {
            if let Event::VerdictReceived(v) = event.as_ref() {
                info!(device = %v.device_id, stream = %v.stream, release = v.release, outcome = ?v.outcome, code = v.code, "verdict");
            }
            batch.take(bridge, *event);
        }
        Heard::Drift(drift) => {
            // A window is of the release that it says: whoever made one up for another raises no alarms there.
            let of = bridge.releases().get(&Digest(drift.statement));
            if of.is_none_or(|of| of.stream != drift.stream || of.release != drift.release) {
                debug!(%topic, stream = %drift.stream, release = drift.release, "a window of a release that is not here");
                return Ok(());
            }
            let answers = match measured::by_window(hands, &drift) {
                Ok(Some(answers)) => answers,
                Ok(None) => return Ok(()),
                // A window that is none may be lost; the bridge must not be.
                Err(error) => {
                    warn!(%topic, error = format!("{error:#}"), "a window of drift was not kept");
                    return Ok(());
                }
            };
            match batch.room_for(hands, &drift).await? {
                Room::Known => {}
                Room::Full => warn!(%topic, "a device has sent more windows than are kept of one"),
                Room::New => {
                    batch.take(bridge, Event::Measured(vec![answers]));
                    batch.words.windows.push(*drift);
                }
            }
        }
        Heard::Result(result) => {
            let mut result = *result;
            let (device, command, outcome) = (result.device_id.clone(), result.seq, result.outcome);
            let samples = bridge.samples_to_keep(Now { unix: unix_millis() }, &mut result);
            let count = samples.as_ref().map_or(0, |(_, samples)| samples.len() as u64);
            let said = Said { code: result.code.clone(), detail: result.detail.clone(), samples: count };
            match batch.reply(hands, &result).await? {
                Reply::Unasked => debug!(%device, command, "an answer to no command that is known here"),
                // Also what was kept by an earlier version before a crash that forgot what follows from it.
                reply => {
                    info!(%device, command, ?outcome, ?reply, "a command was answered");
                    batch.take(bridge, Event::CommandAnswered { device, seq: command, outcome, said });
                    if reply == Reply::First {
                        batch.words.answers.push(Answered { result, samples });
                    }
                }
            }
        }
        // It waits for more of it.
        Heard::Telemetry(_) | Heard::Nothing => {}
    }
    Ok(())
}

impl Hands {
    /// Carries out one effect, without waiting for the broker.
    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::PublishAssignment(draft) => match self.pen.assignment(&draft) {
                Ok(envelope) => {
                    info!(device = %draft.device, generation = draft.seq, "assignment");
                    self.speaker.publish(What::Assignment, self.topics.assignment(&draft.device), envelope);
                }
                Err(error) => {
                    error!(device = %draft.device, error = format!("{error:#}"), "an assignment cannot be signed")
                }
            },
            Effect::PublishCommand(draft) => match self.pen.command(&draft) {
                Ok(envelope) => self.speaker.command(self.topics.command(&draft.device), envelope),
                Err(error) => {
                    error!(device = %draft.device, error = format!("{error:#}"), "a command cannot be signed")
                }
            },
            Effect::PublishBeacon(draft) => match (self.pen.beacon(&draft, unix_millis() / 1_000), &draft.to) {
                (Ok(envelope), Some(device)) => self.speaker.tell(What::Beacon, self.topics.answer(device), envelope),
                (Ok(envelope), None) => self.speaker.publish(What::Beacon, self.topics.beacon(), envelope),
                (Err(error), _) => error!(error = format!("{error:#}"), "a beacon cannot be signed"),
            },
            Effect::PublishDocument(stored) => {
                let topic = match stored.document {
                    DocumentKind::Root => self.topics.root(stored.number),
                    DocumentKind::Revocation => self.topics.revocation(),
                    DocumentKind::Breakglass => self.topics.breakglass(),
                    // The core keeps none of these.
                    DocumentKind::Assignment | DocumentKind::Beacon | DocumentKind::Command => return,
                };
                self.speaker.publish(What::Document, topic, stored.text.into_bytes());
            }
            Effect::Adopt { root, revocation } => {
                if let Err(fault) = self.pen.check(&root) {
                    error!(root = root.version.get(), "{}", crate::fault::told(&fault));
                }
                self.library.believe(*root, revocation.map(|revocation| *revocation));
            }
            Effect::PublishBundle { bundle } => self.speaker.ask(Job::Publish(bundle)),
            Effect::PublishParts { bundle, documents, chunks } => {
                self.speaker.ask(Job::Repeat { bundle, documents, chunks, asked: Instant::now() })
            }
            Effect::LookForBundles { bundles } => self.lookout.look(bundles),
            Effect::ClearChunks { bundle, stay } => self.speaker.ask(Job::Clear(bundle, stay)),
            Effect::RemoveBundle { bundle } => {
                for topic in [self.topics.envelope(&bundle.0), self.topics.offer(&bundle.0)] {
                    self.speaker.publish(What::Cleared, topic, Vec::new());
                }
                if let Err(error) = self.library.remove(bundle) {
                    error!(bundle = %bundle.short(), error = format!("{error:#}"), "a bundle cannot be removed");
                }
            }
            Effect::ClearDevice { device } => {
                let up = [BridgeTopic::Report(device.clone()), BridgeTopic::Presence(device.clone())];
                self.speaker.publish(What::Cleared, self.topics.assignment(&device), Vec::new());
                up.iter()
                    .for_each(|topic| self.speaker.publish(What::Cleared, self.topics.upstream(topic), Vec::new()));
            }
            Effect::PublishWithdrawn(withdrawn) => self.expulsion.list(withdrawn),
            Effect::EndSession { device } => self.expulsion.end(device),
        }
    }
}
