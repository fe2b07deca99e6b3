//! The keeper: the one thread that changes what lies in the bundle folders.
//!
//! Decides the order of the work on the disk: one thing after the other, so that nothing is removed
//! while it is filled or checked. What is done is decided by the core, through the driver.

use crate::fetch::{Action, Fetcher, Gap, Part};
use crate::store::{self, Bundles};
use crate::watchdog::Pulse;
use agent_core::{Event, Flow, Found, Millis};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use trust::{Code, Digest, Trust};

/// Between two looks at what is late.
/// The pause before what could not be removed is tried again.
const CLEAR_AGAIN: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(500);
/// So many windows of arrivals may wait for the disk; more are dropped, and asked for again when they are late.
const WINDOWS_WAITING: usize = 2;

/// Something for the keeper to do.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Get a bundle.
    Fetch {
        /// The bundle.
        bundle: Digest,
        /// Its size in bytes.
        total_size: u64,
        /// The broker is asked for it at once.
        asks: bool,
    },
    /// Ask the broker for it from now on.
    AskBroker(Digest),
    /// Get the rest of it: it may be installed here, by what is known of it.
    Admit(Digest),
    /// Say what a bundle lacks next; one that asks for it over the link hears it when the bundle is admitted.
    Gap {
        /// The bundle.
        bundle: Digest,
        /// Over the link.
        over_link: bool,
        /// To be told.
        tell: SyncSender<Option<Gap>>,
    },
    /// Take a part of a bundle from a source, and say when that is done.
    Give {
        /// The bundle.
        bundle: Digest,
        /// What it is.
        part: Part,
        /// Its bytes.
        bytes: Vec<u8>,
        /// To be told.
        done: SyncSender<()>,
    },
    /// Stop getting it.
    StopFetching(Digest),
    /// Stop getting anything: the core is another one.
    StopAll,
    /// Read it, and give it its place.
    Examine(Digest),
    /// Envelopes are checked against this from now on.
    Believe(Arc<Trust>),
    /// Take it out of use: it is damaged. What is whole in it need not come again if it is fetched;
    /// if it is not, it goes when the rest goes that nobody needs.
    SetAside(Digest),
    /// Remove all but these.
    Keep(BTreeSet<Digest>),
    /// The connection came; `retains` when its broker says that it keeps what is published.
    Connected {
        /// What it says.
        retains: bool,
    },
    /// The connection went.
    Disconnected,
    /// The broker did not take the subscriptions to these chunks.
    TurnedDown(Vec<Digest>),
    /// Something arrived.
    Arrived(Arrival),
}

impl Errand {
    /// Whether it reads or removes whole bundles: what lies there already is hashed before it counts.
    fn is_long(&self) -> bool {
        match self {
            Errand::Fetch { .. } | Errand::Admit(_) | Errand::Examine(_) | Errand::SetAside(_) | Errand::Keep(_) => {
                true
            }
            Errand::AskBroker(_)
            | Errand::Gap { .. }
            | Errand::Give { .. }
            | Errand::StopFetching(_)
            | Errand::StopAll
            | Errand::Believe(_)
            | Errand::Connected { .. }
            | Errand::Disconnected
            | Errand::TurnedDown(_)
            | Errand::Arrived(_) => false,
        }
    }
}

/// Bytes from the broker.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A bundle's envelope.
    Envelope(Digest, Vec<u8>),
    /// A bundle's offer.
    Offer(Digest, Vec<u8>),
    /// A chunk.
    Chunk {
        /// The digest that its topic names.
        chunk: Digest,
        /// Its bytes.
        bytes: Vec<u8>,
        /// The broker had kept it.
        retained: bool,
    },
}

/// What the keeper has to say.
#[derive(Debug)]
pub(crate) enum Word {
    /// For the broker, or for the status.
    Action(Action),
    /// For the core.
    Event(Event),
}

/// The driver's side of the keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    errands: Sender<Errand>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    pulse: Arc<Pulse>,
}

impl Keeper {
    /// Starts the thread; what it has to say comes through `words`. It ends when this is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        trust: Arc<Trust>,
        bundles: Bundles,
        flow: Flow,
        words: UnboundedSender<Word>,
    ) -> io::Result<Self> {
        let (errands, inbox) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let most_waiting = flow.most() * WINDOWS_WAITING;
        let desk = Desk::new(trust, bundles, flow, words, waiting.clone());
        let pulse = Arc::new(Pulse::default());
        let felt = pulse.clone();
        let span = tracing::Span::current();
        let work = move || span.in_scope(|| desk.work(&inbox, &felt));
        thread::Builder::new().name("petrel-keeper".into()).spawn(work)?;
        Ok(Self { errands, waiting, most_waiting, pulse })
    }

    /// Has something done; its outcome is a [`Word`].
    pub(crate) fn ask(&self, errand: Errand) {
        if self.errands.send(errand).is_err() {
            tracing::error!("the keeper of the bundles has stopped; restart the agent");
        }
    }

    /// What its thread is busy with.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }

    /// For sources besides the broker.
    pub(crate) fn counter(&self, over_link: bool) -> Counter {
        Counter { errands: self.errands.clone(), over_link }
    }

    /// Hands over what arrived, unless too much waits already.
    pub(crate) fn hand(&self, arrival: Arrival) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.most_waiting {
            self.ask(Errand::Arrived(arrival));
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The way to the keeper for whoever has bytes and waits until they are taken.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    errands: Sender<Errand>,
    over_link: bool,
}

impl Counter {
    /// What a bundle lacks next; `None` when it is not wanted, or lacks nothing.
    pub(crate) fn gap(&self, bundle: Digest) -> Option<Gap> {
        let (tell, told) = sync_channel(1);
        self.errands.send(Errand::Gap { bundle, over_link: self.over_link, tell }).ok()?;
        told.recv().ok()?
    }

    /// Hands over a part of a bundle. What is not what was signed changes nothing.
    pub(crate) fn give(&self, bundle: Digest, part: Part, bytes: Vec<u8>) {
        let (done, told) = sync_channel(1);
        if self.errands.send(Errand::Give { bundle, part, bytes, done }).is_ok() {
            // An error means that the keeper has stopped, and with it the wish.
            let _ = told.recv();
        }
    }
}

/// The keeper's work itself, done by whoever holds it.
pub(crate) struct Desk {
    trust: Arc<Trust>,
    bundles: Bundles,
    fetcher: Fetcher,
    words: UnboundedSender<Word>,
    waiting: Arc<AtomicUsize>,
    /// Sources over the link that asked what is lacking.
    asking: Vec<(Digest, SyncSender<Option<Gap>>)>,
    /// What must stay, and when the rest is tried again: not all of it could be removed.
    uncleared: Option<(Instant, BTreeSet<Digest>)>,
    started: Instant,
}

impl Desk {
    /// Nothing is done yet; `waiting` counts the arrivals that wait.
    pub(crate) fn new(
        trust: Arc<Trust>,
        bundles: Bundles,
        flow: Flow,
        words: UnboundedSender<Word>,
        waiting: Arc<AtomicUsize>,
    ) -> Self {
        let fetcher = Fetcher::new(trust.clone(), bundles.clone(), flow);
        Self { trust, bundles, fetcher, words, waiting, asking: Vec::new(), uncleared: None, started: Instant::now() }
    }

    fn work(mut self, inbox: &Receiver<Errand>, pulse: &Pulse) {
        let mut ticked = Instant::now();
        loop {
            let errand = match self.fetcher.is_idle() && self.uncleared.is_none() {
                true => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => inbox.recv_timeout(TICK),
            };
            pulse.begins(errand.as_ref().is_ok_and(Errand::is_long));
            match errand {
                Ok(errand) => self.run(errand),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                let now = self.now();
                self.fetcher.tick(now);
                if let Some((_, kept)) = self.uncleared.take_if(|(due, _)| *due <= ticked) {
                    self.clear(kept);
                }
            }
            self.tell();
            pulse.rests();
        }
    }

    /// Says what came of the work.
    pub(crate) fn tell(&mut self) {
        let fetcher = &self.fetcher;
        self.asking.retain(|(bundle, tell)| {
            let waits = fetcher.awaits_admission(*bundle);
            if !waits {
                // Whoever asked may have gone away.
                let _ = tell.try_send(fetcher.gap(*bundle));
            }
            waits
        });
        for action in self.fetcher.actions() {
            self.say(match action {
                Action::Described(bundle, described) => Word::Event(Event::BundleDescribed { bundle, described }),
                Action::Stored(bundle) => {
                    tracing::info!(bundle = %bundle.short(), "the bundle is stored");
                    Word::Event(Event::BundleStored { bundle })
                }
                Action::Doubted(refusal) => {
                    tracing::warn!(
                        code = refusal.code.as_str(),
                        "a bundle does not arrive as it should: {}",
                        refusal.detail
                    );
                    Word::Event(Event::DocumentRefused(refusal))
                }
                Action::Refused(bundle, refusal) => Word::Event(Event::BundleRefused { bundle, refusal }),
                Action::Stumbled(bundle, why) => {
                    tracing::error!(bundle = %bundle.short(), "the bundle cannot be written: {why}");
                    Word::Event(Event::Stumbled { bundle })
                }
                other => Word::Action(other),
            });
        }
    }

    fn now(&self) -> Millis {
        self.started.elapsed().as_millis().try_into().unwrap_or(Millis::MAX)
    }

    /// The driver may be gone already; then nobody needs to know.
    fn say(&self, word: Word) {
        let _ = self.words.send(word);
    }

    /// Does one thing.
    pub(crate) fn run(&mut self, errand: Errand) {
        let now = self.now();
        match errand {
            Errand::Fetch { bundle, total_size, asks } => self.fetcher.start(now, bundle, total_size, asks),
            Errand::AskBroker(bundle) => self.fetcher.ask_broker(now, bundle),
            Errand::Admit(bundle) => self.fetcher.admit(now, bundle),
            Errand::Gap { bundle, over_link: true, tell } => self.asking.push((bundle, tell)),
            // Whoever asked may have gone away.
            Errand::Gap { bundle, over_link: false, tell } => drop(tell.try_send(self.fetcher.gap(bundle))),
            Errand::Give { bundle, part, bytes, done } => {
                self.fetcher.given(now, bundle, part, &bytes);
                let _ = done.try_send(());
            }
            Errand::StopFetching(bundle) => self.fetcher.stop(bundle),
            Errand::StopAll => self.fetcher.stop_all(),
            Errand::Examine(bundle) => {
                let event = self.examine(bundle);
                self.say(Word::Event(event));
            }
            Errand::Believe(trust) => {
                self.fetcher.believe(trust.clone());
                self.trust = trust;
            }
            Errand::SetAside(bundle) => {
                self.fetcher.stop(bundle);
                if let Err(error) = self.bundles.demote(bundle) {
                    tracing::warn!(bundle = %bundle.short(), "the damaged bundle cannot be set aside: {error}");
                }
            }
            Errand::Keep(kept) => self.clear(kept),
            Errand::Connected { retains } => self.fetcher.connected(now, retains),
            Errand::Disconnected => self.fetcher.disconnected(),
            Errand::TurnedDown(chunks) => self.fetcher.turned_down(&chunks),
            Errand::Arrived(arrival) => {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                match arrival {
                    Arrival::Envelope(bundle, bytes) => self.fetcher.envelope(now, bundle, &bytes),
                    Arrival::Offer(bundle, bytes) => self.fetcher.offer(now, bundle, &bytes),
                    Arrival::Chunk { chunk, bytes, retained } => self.fetcher.chunk(now, chunk, &bytes, retained),
                }
            }
        }
    }

    fn clear(&mut self, kept: BTreeSet<Digest>) {
        let cleared = self.bundles.keep(&kept);
        self.uncleared = cleared.is_err().then(|| (Instant::now() + CLEAR_AGAIN, kept));
        match cleared {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => tracing::info!(bundles = gone.len(), "bundles that nobody needs are removed"),
            Err(error) => tracing::warn!("not every bundle that nobody needs can be removed yet: {error}"),
        }
    }

    /// A bundle that was whole once and is damaged now is mended: it goes back among those that
    /// arrive, and the core lets it be fetched again.
    fn examine(&self, bundle: Digest) -> Event {
        let failed = |why: &dyn std::error::Error| {
            tracing::error!(bundle = %bundle.short(), "the bundle cannot be checked: {}", crate::fault::told(why));
            Event::Stumbled { bundle }
        };
        let whole = match self.bundles.has(bundle) {
            Ok(whole) => whole,
            Err(error) => return failed(&error),
        };
        let dir = if whole { self.bundles.complete(bundle) } else { self.bundles.incoming(bundle) };
        // An envelope whose signatures hold no more although they did is damaged too.
        let known = store::known(&**self.bundles.disk(), &dir, bundle).and_then(|known| {
            match self.trust.verify_statement(&known.envelope) {
                Err(refusal) if is_damage(refusal.code) => Err(refusal.into()),
                Ok(_) | Err(_) => Ok(known),
            }
        });
        let known = match known {
            Ok(known) => known,
            Err(store::Fault::Refused(refusal)) if whole && is_damage(refusal.code) => {
                tracing::warn!(bundle = %bundle.short(), "the bundle is damaged and will be mended: {refusal}");
                return match self.bundles.demote(bundle) {
                    Ok(()) => Event::Stumbled { bundle },
                    Err(error) => failed(&error),
                };
            }
            Err(store::Fault::Refused(refusal)) => return Event::BundleRefused { bundle, refusal },
            Err(fault) => return failed(&fault),
        };
        let placed = if whole { self.bundles.sync() } else { self.bundles.promote(bundle) };
        match placed.and_then(|()| self.bundles.free()) {
            Ok(free) => {
                let taken = known.files.iter().map(|file| file.size.get()).fold(free, u64::saturating_add);
                let store::Known { envelope, manifest, files, .. } = known;
                Event::BundleExamined { bundle, found: Box::new(Found { envelope, manifest, files, room: taken }) }
            }
            Err(error) => failed(&error),
        }
    }
}

fn is_damage(code: Code) -> bool {
    let content = matches!(code, Code::Digest | Code::Missing | Code::Size);
    content || matches!(code, Code::KeyId | Code::Mismatch | Code::Parse | Code::Sig | Code::Type)
}
