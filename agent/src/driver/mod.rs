//! The driver: what happens becomes an event for the core, and what the core decides is carried out.
//!
//! Decides nothing about models. It owns the core, and the order: the ledger is saved before any
//! effect. Slow work is done on threads of its own and comes back as an event, so the one thread here
//! is always free to listen.

mod drift;
mod effects;
mod papers;
mod sources;
mod start;
mod telemetry;

pub(crate) use start::{read_root, run};

use papers::Papers;
use sources::Https;

use crate::arrivals::Arrivals;
use crate::config::Config;
use crate::fault::told;
use crate::feed::Counts;
use crate::identity::{self, Identity};
use crate::keeper::{Arrival, Errand, Keeper, Word};
use crate::log::Log;
use crate::mqtt::{self, Heard, Link, Loss, LossKind, Receipt};
use crate::settings::Origin;
use crate::status::{DriftStatus, Status, StreamStatus};
use crate::store::{self, Store, Summed};
use crate::telemetry::Gauge;
use crate::watchdog::Watch;
use crate::worker::{Loader, Place, Task, Worker};
use agent_core::{Agent, Event, Millis, Now, Spool};
use protocol::{BridgeTopic, DeviceTopic, Generation, Profile, StreamName, Topics};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use trust::{Code, Digest, Refusal};

/// What requests did is told to the core this often, while there are any.
const OBSERVATION_PAUSE: Duration = Duration::from_millis(200);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// A clock before 2024 was never set.
const EARLIEST_WALL_MS: u64 = 1_704_067_200_000;
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(2);

/// Everything that one device's agent holds.
pub(crate) struct Driver {
    config: Config,
    /// Each key of it, and where it was said.
    settings: Vec<(String, toml::Value, Origin)>,
    log: Log,
    /// The root that the device was given at first.
    root: Vec<u8>,
    papers: Papers,
    topics: Topics,
    profile: Profile,
    started: Instant,
    /// When the core was restored.
    awake: Instant,
    store: Option<Store>,
    /// Absent after the disk refused the ledger, until it takes it again.
    core: Option<Agent>,
    retry: Option<(Instant, Duration)>,
    /// Why the core is absent.
    trouble: Option<String>,
    link: Option<Link>,
    keeper: Keeper,
    words: mpsc::UnboundedReceiver<Word>,
    loader: Loader,
    events: mpsc::UnboundedReceiver<Event>,
    worker: Arc<Worker>,
    gauge: Gauge,
    observation: Option<Instant>,
    totals: BTreeMap<StreamName, (u64, u64)>,
    arrivals: Arrivals,
    https: Https,
    spool: Spool,
    spool_file: Summed,
    learned_file: Summed,
    /// The last window of each stream.
    drift: BTreeMap<StreamName, DriftStatus>,
    measure_at: Instant,
    windows_at: Instant,
    connected: Option<bool>,
    /// Drawn at the start.
    run: u64,
    seq: u64,
    status: watch::Sender<Arc<Status>>,
    feeds: Counts,
    watch: Watch,
}

impl Driver {
    /// Works until `stop` resolves, then says goodbye.
    async fn work(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        self.restore();
        self.watch.begun();
        loop {
            self.tell();
            tokio::select! {
                () = &mut stop => break,
                () = self.turn() => {}
            }
        }
        self.watch.stopping();
        self.end().await;
    }

    /// Waits for the one thing that happens next, and deals with it. May be dropped while it waits.
    async fn turn(&mut self) {
        let deadline = self.core.as_ref().and_then(Agent::deadline);
        let deadline = deadline.map(|at| self.awake + Duration::from_millis(at));
        let spool = self.spool.deadline().map(|at| self.started + Duration::from_millis(at));
        tokio::select! {
            heard = next(&mut self.link) => self.hear(heard),
            Some(word) = self.words.recv() => self.take(word),
            Some(event) = self.events.recv() => {
                self.watch.heard(&event);
                self.step(event);
            }
            ended = self.https.ended() => self.take_end(ended),
            () = self.worker.stirred(), if self.observation.is_none() => {
                self.observation = Some(Instant::now() + OBSERVATION_PAUSE);
            }
            () = self.feeds.stirred(), if self.observation.is_none() => {
                self.observation = Some(Instant::now() + OBSERVATION_PAUSE);
            }
            () = until(self.observation) => self.observe(),
            () = until(deadline) => self.step(Event::DeadlineReached),
            () = until(self.retry.map(|(at, _)| at)) => self.restore(),
            answer = self.papers.due() => self.look_at_papers(answer),
            () = sleep_until(self.measure_at) => self.measure(),
            () = sleep_until(self.windows_at) => self.look_at_windows(false),
            () = until(spool) => self.tend_spool(),
            () = until(self.watch.ping_at().map(Instant::from_std)) => self.watch.ping(),
        }
    }

    /// One event through the core: decided, remembered, carried out.
    fn step(&mut self, event: Event) {
        let now = self.now();
        let (Some(core), Some(store)) = (&mut self.core, &mut self.store) else { return };
        tracing::debug!(?event, "step");
        let step = core.step(now, event);
        let mut learned = false;
        let committed = step.commit(|memory| {
            learned = !memory.documents.is_empty();
            store.save(memory)
        });
        match committed {
            Ok(effects) => {
                self.papers.learn(core.trust().clock().low(now.mono));
                if learned {
                    self.keeper.ask(Errand::Believe(Arc::new(core.trust().clone())));
                }
                effects.into_iter().for_each(|effect| self.carry_out(effect));
            }
            Err(error) => self.lose_core(&error),
        }
    }

    /// Begins from the memory on the disk: at the start, and after the disk refused to take it.
    fn restore(&mut self) {
        let (mut store, ledger) = match Store::open(store::host(), &self.config.state) {
            Ok(opened) => opened,
            Err(error) => return self.lose_core(&error),
        };
        let trust = match store.recall(&self.device(), self.config.fleet.as_str(), &self.root, &ledger) {
            Ok(trust) => trust,
            // The root was read and believed when the agent started.
            Err(refusal) => return self.lose_core(&std::io::Error::other(refusal)),
        };
        let Some(seed) = identity::seed() else {
            return self.lose_core(&std::io::Error::other("the system gives no random numbers"));
        };
        let (fleet, device) = (self.config.fleet.clone(), self.config.device.clone());
        self.awake = Instant::now();
        let limits = crate::telemetry::limits(&self.config);
        let confirmed = ledger.clone();
        let (core, step) = Agent::restore(fleet, device, self.profile.clone(), limits, seed, trust, ledger);
        let saved = step.commit(|memory| store.save(memory));
        self.store = Some(store);
        match saved {
            Ok(effects) => {
                let (boot, root) = (core.ledger().boot, core.trust().root().version.get());
                self.keeper.ask(Errand::Believe(Arc::new(core.trust().clone())));
                self.papers.learn(core.trust().clock().low(0));
                self.core = Some(core);
                (self.retry, self.trouble) = (None, None);
                tracing::info!(boot, root, "the agent is awake");
                effects.into_iter().for_each(|effect| self.carry_out(effect));
                self.read_papers();
            }
            Err(error) => {
                self.serve_confirmed(&confirmed);
                self.lose_core(&error);
            }
        }
    }

    /// What needs no memory answers also when the disk takes none.
    fn serve_confirmed(&mut self, ledger: &agent_core::Ledger) {
        let serving = self.worker.serving();
        for (name, bundle, row_us) in ledger.confirmed().filter(|(name, ..)| !serving.contains_key(*name)) {
            let main = Place { bundle, row_us };
            self.loader.ask(Task::Serve { stream: name.clone(), main, fallback: None });
        }
    }

    fn device(&self) -> trust::Device {
        let (id, class) = (self.config.device.to_string(), self.config.board.clone());
        trust::Device { id, class, certificate: None, built: start::built() }
    }

    /// Nothing is decided or said until the ledger can be saved again; models go on answering.
    fn lose_core(&mut self, error: &std::io::Error) {
        let pause = self.retry.map_or(FIRST_RETRY, |(_, pause)| (pause * 2).min(LONGEST_RETRY));
        let trouble = format!("the ledger cannot be kept in {}: {error}", self.config.state.display());
        tracing::error!(
            "{trouble}; models go on answering, nothing else is done; tried again in {} s",
            pause.as_secs()
        );
        self.trouble = Some(trouble);
        if self.core.take().is_some() {
            // Nobody knows any more when another level would end.
            self.log.set(None);
        }
        self.retry = Some((Instant::now() + pause, pause));
        self.connected = None;
        if let Some(link) = self.link.take() {
            link.drop_now();
        }
        self.spool.disconnected();
        self.keeper.ask(Errand::Disconnected);
        self.keeper.ask(Errand::StopAll);
        self.arrivals.clear();
    }

    /// What lies on the disk is shown from now on.
    fn read_papers(&mut self) {
        match self.papers.read() {
            Ok(()) => self.connect(),
            Err(refusal) => {
                tracing::error!(
                    code = refusal.code.as_str(),
                    "nothing is said to land, models go on answering: {}",
                    refusal.detail
                );
                self.step(Event::DocumentRefused(refusal));
            }
        }
    }

    /// Begins a connection that shows the identity in use, in place of the one before.
    fn connect(&mut self) {
        let Some(boot) = self.core.as_ref().map(|core| core.ledger().boot) else { return };
        let tls = match self.papers.tls() {
            Some(Ok(tls)) => tls,
            Some(Err(why)) => return tracing::error!("no connection can be made: {}", told(&why)),
            None => return,
        };
        if let Some(link) = self.link.take() {
            link.drop_now();
            if self.connected.replace(false) == Some(true) {
                self.spool.disconnected();
                self.keeper.ask(Errand::Disconnected);
                self.step(Event::Disconnected);
            }
        }
        let topic = self.topics.upstream(&BridgeTopic::Presence(self.config.device.clone()));
        self.link = Some(Link::start(mqtt::Settings {
            broker: self.config.broker.clone(),
            client_id: self.config.device.to_string(),
            tls,
            will: (topic, self.presence(boot, false)),
            refused: self.papers.refused,
        }));
    }

    fn look_at_papers(&mut self, answer: Option<Result<Identity, crate::fault::Fault>>) {
        match answer {
            Some(Ok(identity)) => {
                tracing::info!(until = identity.until, "there is a newer certificate");
                self.papers.refused = 0;
                self.read_papers();
            }
            Some(Err(why)) => {
                let advice = why.advice().unwrap_or_default();
                tracing::warn!("no newer certificate: {}; {advice}", told(&why));
            }
            None if self.papers.identity().is_none() => self.read_papers(),
            None => {
                let wall = self.now().wall.map(|ms| ms / 1_000);
                self.papers.ask(&self.config, wall);
            }
        }
    }

    /// The broker did not want this device, or could not prove who it is.
    fn mind(&mut self, loss: &Loss) {
        match loss.kind {
            LossKind::Network | LossKind::Forgetful => {}
            LossKind::Impostor => self.step(Event::DocumentRefused(Refusal::new(Code::Tls, &*loss.why))),
            LossKind::TakenOver => {
                let detail = "the broker says that land, or another client with this device's certificate, took its session over";
                tracing::warn!("{detail}");
                self.step(Event::DocumentRefused(Refusal::new(Code::Identity, detail)));
            }
            LossKind::Refused | LossKind::Expired => {
                let expired = loss.kind == LossKind::Expired;
                tracing::warn!("the broker does not want this device: {}", loss.why);
                if self.papers.refused(expired) {
                    self.connect();
                } else if expired {
                    let wall = self.now().wall.map(|ms| ms / 1_000);
                    self.papers.ask(&self.config, wall);
                }
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        let broker = format!("{}:{}", self.config.broker.host, self.config.broker.port);
        match heard {
            Heard::Connected { retains } => {
                tracing::info!(broker, "connected");
                self.connected = Some(true);
                self.papers.taken();
                self.greet();
                self.keeper.ask(Errand::Connected { retains });
                // Verdicts go first: the spool has its turn after this step.
                self.spool.connected();
                self.step(Event::Connected);
            }
            Heard::Lost(loss) => {
                tracing::warn!(broker, "the connection is lost, models go on answering: {}", loss.why);
                self.connected = Some(false);
                self.spool.disconnected();
                self.keeper.ask(Errand::Disconnected);
                self.step(Event::Disconnected);
                self.mind(&loss);
            }
            Heard::Unreachable(loss) => {
                if self.connected.replace(false).is_none() {
                    tracing::warn!(broker, "no connection, tried again and again: {}", loss.why);
                } else {
                    tracing::debug!(broker, "still no connection: {}", loss.why);
                }
                self.mind(&loss);
            }
            Heard::Message { topic, payload, retained } => self.receive(&topic, payload, retained),
            Heard::TurnedDown(topics) => self.mind_subscriptions(&topics),
            Heard::Delivered(Receipt::Verdict(seq)) => self.step(Event::VerdictDelivered { seq }),
            Heard::Delivered(Receipt::Spooled { run, seq }) => self.spool.delivered(self.age(), run, seq),
            Heard::Refused(Receipt::Spooled { .. }) => self.spool.refused(),
            // It stays in the ledger, and is said again.
            Heard::Refused(Receipt::Verdict(_)) => {}
        }
    }

    /// Subscriptions that the broker did not take: chunks wait for room, the others are missed.
    fn mind_subscriptions(&mut self, topics: &[String]) {
        let chunk = |topic: &String| match self.topics.read_down(&self.config.device, topic) {
            Some(DeviceTopic::Chunk(chunk)) => Some(Digest(chunk)),
            Some(_) | None => None,
        };
        let chunks: Vec<Digest> = topics.iter().filter_map(chunk).collect();
        if chunks.len() < topics.len() {
            tracing::warn!(
                "the broker refuses subscriptions: its access rules must let this device read what is for it"
            );
        }
        if !chunks.is_empty() {
            tracing::debug!(chunks = chunks.len(), "the broker takes no more subscriptions");
            self.keeper.ask(Errand::TurnedDown(chunks));
        }
    }

    /// A message from the broker. An empty one is how a retained one is cleared.
    fn receive(&mut self, topic: &str, payload: Vec<u8>, retained: bool) {
        if payload.is_empty() {
            return;
        }
        match self.topics.read_down(&self.config.device, topic) {
            Some(DeviceTopic::Document(kind)) => {
                tracing::debug!(?kind, bytes = payload.len(), "a document arrived");
                self.step(Event::DocumentArrived { kind, bytes: payload });
            }
            Some(DeviceTopic::Envelope(bundle)) => self.keeper.hand(Arrival::Envelope(Digest(bundle), payload)),
            Some(DeviceTopic::Offer(bundle)) => self.keeper.hand(Arrival::Offer(Digest(bundle), payload)),
            Some(DeviceTopic::Chunk(chunk)) => {
                self.keeper.hand(Arrival::Chunk { chunk: Digest(chunk), bytes: payload, retained });
            }
            None => {
                let topic: String = topic.chars().take(200).collect();
                tracing::warn!(topic, "nothing is expected there");
                self.step(Event::DocumentRefused(Refusal::new(
                    Code::Type,
                    format!("nothing is expected on `{topic}`"),
                )));
            }
        }
    }

    fn take(&mut self, word: Word) {
        match word {
            Word::Action(action) => self.act(action),
            Word::Event(event) => {
                if let Event::BundleStored { bundle }
                | Event::BundleRefused { bundle, .. }
                | Event::Stumbled { bundle } = &event
                {
                    self.arrived(bundle);
                }
                self.step(event);
            }
        }
    }

    /// Nothing more of a bundle comes.
    fn arrived(&mut self, bundle: &Digest) {
        if self.arrivals.forget(bundle) {
            self.measure_soon();
        }
    }

    /// Tells the core, the telemetry and the status what requests did.
    fn observe(&mut self) {
        self.observation = None;
        for observation in self.worker.observe() {
            self.gauge.add(&observation);
            let (answers, errors) = (observation.counts.answers(), observation.counts.errors);
            let total = self.totals.entry(observation.stream.clone()).or_default();
            *total = (total.0 + answers, total.1 + errors);
            let (took_us, resident) = (observation.counts.took_us, observation.resident);
            self.step(Event::Observed {
                stream: observation.stream,
                bundle: observation.bundle,
                answers,
                errors,
                took_us,
                resident,
            });
        }
        for (bundle, compared, disagreed) in self.worker.compared() {
            self.step(Event::Compared { bundle, compared, disagreed });
        }
    }

    /// Hands the status to the local API and the service manager, when it changed.
    fn tell(&mut self) {
        let status = self.describe();
        let awake = self.core.is_some();
        self.watch.tell(|| if awake { status.line() } else { "the ledger cannot be kept, only models answer".into() });
        self.status.send_if_modified(|told| {
            let changed = **told != status;
            if changed {
                *told = Arc::new(status);
            }
            changed
        });
    }

    fn describe(&self) -> Status {
        let last = self.status.borrow().clone();
        let mut status = Status { connected: self.connected == Some(true), ..(*last).clone() };
        status.uptime_s = self.started.elapsed().as_secs();
        status.trouble.clone_from(&self.trouble);
        status.disk_free_mb = self.gauge.disk_free_mb();
        status.key_id = self.papers.signer().map_or(String::new(), |s| s.public().id().to_string());
        status.certificate_until = self.papers.identity().map(|identity| identity.until);
        status.feeds = self.feeds.status();
        let Some(core) = &self.core else { return status };
        let (ledger, serving) = (core.ledger(), self.worker.serving());
        status.boot = ledger.boot;
        let (counters, root) = (core.trust().counters(), core.trust().root());
        let numbers = |g: trust::Generation| Generation { role_epoch: g.role_epoch.get(), seq: g.seq.get() };
        status.root_version = root.version.get();
        status.revocation = counters.revocation().map(numbers);
        status.clock = core.clock();
        status.generation = counters.assignment().map(numbers);
        status.outbox = ledger.outbox.len();
        status.spool = self.spool.state();
        status.refusals = core.refusals().cloned().collect();
        let stream = |(name, stream): (&StreamName, &agent_core::StreamLedger)| {
            let target = core.phases().get(name).and_then(agent_core::Phase::target);
            let (answers, errors) = self.totals.get(name).copied().unwrap_or_default();
            let now = std::time::Instant::now();
            let progress = target.and_then(|target| self.arrivals.progress(now, &target.bundle));
            let drift = self.drift.get(name).cloned();
            StreamStatus { answers, errors, progress, drift, ..StreamStatus::of(core, name, stream, &serving) }
        };
        status.streams = ledger.streams.iter().map(stream).collect();
        status
    }

    fn now(&self) -> Now {
        let mono = Millis::try_from(self.awake.elapsed().as_millis()).unwrap_or(Millis::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_millis()).ok());
        Now { mono, wall: wall.filter(|ms| *ms >= EARLIEST_WALL_MS) }
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    async fn end(mut self) {
        tracing::info!("the agent goes to sleep");
        self.look_at_windows(true);
        let boot = self.core.as_ref().map_or(0, |core| core.ledger().boot);
        let last = self.presence_message(boot, false);
        if let Some(link) = self.link.take() {
            link.end(last, LAST_WORD_PATIENCE).await;
        }
        if self.spool.is_unsaved() {
            self.save_spool();
        }
    }
}

async fn next(link: &mut Option<Link>) -> Heard {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
