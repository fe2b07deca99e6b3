//! `petrel-agent run`: brings everything up in an order in which each failure has a clear word.

use super::Driver;
use super::drift::{LOOK_AT_WINDOWS, MAX_LEARNED_BYTES};
use super::papers::Papers;
use super::sources::Https;
use crate::arrivals::Arrivals;
use crate::config::{Config, MAX_SPOOL_BYTES};
use crate::fault::Fault;
use crate::feed::{Counts, Feeds};
use crate::hardware;
use crate::http::{self, Api};
use crate::identity::{self, Floor, Slots};
use crate::keeper::{Keeper, Word};
use crate::log::Log;
use crate::settings::Origin;
use crate::status::{ADDRESS_FILE, Status};
use crate::store::{self, Bundles, Found, Lock, Summed};
use crate::telemetry::{self, Gauge};
use crate::watchdog::{Manager, Watch};
use crate::worker::{Loader, Program, Worker};
use agent_core::{Flow, Spool, Spooled};
use anyhow::Context;
use protocol::{ClockState, SpoolState, Topics};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tracing::Instrument;
use trust::{MAX_ROOT_BYTES, Time, Trust};

/// A person who has just let a device in wants to see how it is doing.
const FIRST_TELEMETRY: Duration = Duration::from_secs(5);
/// Threads for what may take its time: the disk, large requests.
const MOST_THREADS: usize = 16;
/// The pause before the address file is tried again.
const TELL_AGAIN: Duration = Duration::from_secs(10);
const DRAIN_PATIENCE: Duration = Duration::from_secs(3);

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn run(config: Config, settings: Vec<(String, toml::Value, Origin)>, log: Log) -> anyhow::Result<()> {
    let span = tracing::info_span!("agent", device = config.device.as_str());
    let _entered = span.clone().entered();
    let _lock = Lock::take(&config.state)?;
    hardware::check(&config)?;
    let root = read_root(&config)?;
    let ca = read_ca(&config)?;
    let bundles = Bundles::open(store::host(), &config.state).map_err(|why| unusable(&config.state, why))?;
    // Nobody else of this user looks into the agent, and no core dump of it is written.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MOST_THREADS).build()?;
    runtime.block_on(work((config, settings, log), root, ca, bundles).instrument(span))
}

/// The configuration, each key of it with its origin, and the log.
type Meant = (Config, Vec<(String, toml::Value, Origin)>, Log);

async fn work(meant: Meant, root: Vec<u8>, ca: Vec<u8>, bundles: Bundles) -> anyhow::Result<()> {
    let (config, settings, log) = meant;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listener = TcpListener::bind(config.listen).await.map_err(|why| {
        Fault::new(format!("cannot listen on {}", config.listen))
            .because(why)
            .remedy("stop what listens there, or choose another address with the key `listen` (port 0 takes any)")
    })?;
    let listen = listener.local_addr()?;
    let address_file = config.state.join(ADDRESS_FILE);
    let fresh = address_file.with_extension("new");
    let disk = bundles.disk().clone();
    // Nothing that must outlive a power cut: it says where this very process listens.
    let (told, file) = (disk.clone(), address_file.clone());
    let tell = move || {
        told.write(&fresh, format!("{listen}\n").as_bytes()).and_then(|()| told.rename(&fresh, &file)).inspect_err(
            |why| {
                tracing::error!(
                    "the disk takes nothing, `petrel-agent status` does not find the local API at {listen}: {why}"
                );
            },
        )
    };
    tokio::spawn(async move {
        while tell().is_err() {
            tokio::time::sleep(TELL_AGAIN).await;
        }
    });
    tracing::info!(%listen, "the local API listens");

    let kept = keep(&config, &root, &bundles)?;
    let no_chance = |_| {
        Fault::new("the agent cannot start")
            .because("the system gives no randomness")
            .remedy("is /dev/urandom there? Restart the device")
    };
    let worker = Arc::new(Worker::keeping(config.privacy.clone()).map_err(no_chance)?);
    let (status, statuses) = watch::channel(Arc::new(first_status(&config, listen)));
    let large = Arc::new(Semaphore::new(http::MOST_LARGE));
    let api = Api { worker: worker.clone(), large, counter: kept.keeper.counter(false), status: statuses };
    let (stop_serving, stopped) = watch::channel(());
    let socket = config.socket.as_deref().map(listen_at).transpose()?;
    let socket_file = config.socket.clone();
    let server = tokio::spawn(http::serve(listener, socket, api, stopped));

    let (feeds, counts) = Feeds::start(&config.feeds, &config.device, &worker);
    let driver = assemble((config, settings, log), root, ca, bundles, kept, worker, (status, counts))?;
    driver
        .work(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    drop(stop_serving);
    let _ = tokio::time::timeout(DRAIN_PATIENCE, async { tokio::join!(server, feeds.end()) }).await;
    let _ = disk.remove_file(&address_file);
    if let Some(path) = socket_file {
        let _ = disk.remove_file(&path);
    }
    Ok(())
}

/// The socket in the file system, for this user and this group; one that a killed agent left there makes room.
fn listen_at(path: &Path) -> Result<UnixListener, Fault> {
    let fault = |why: std::io::Error| {
        Fault::new(format!("cannot listen at {}", path.display()))
            .because(why)
            .remedy("name a socket in a folder that the agent may write to with the key `socket`, or leave it out")
    };
    match std::fs::symlink_metadata(path) {
        // The lock on the state folder says that no other agent of this device runs.
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(fault)?,
        Ok(_) => return Err(fault(std::io::Error::other("there is something else at that place"))),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(fault)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(fault)?;
    Ok(listener)
}

/// The keeper of the bundles, what it has to say, and the time that has certainly come.
struct Kept {
    keeper: Keeper,
    words: mpsc::UnboundedReceiver<Word>,
    low: u64,
}

fn keep(config: &Config, root: &[u8], bundles: &Bundles) -> anyhow::Result<Kept> {
    let (say_word, words) = mpsc::unbounded_channel();
    let device =
        trust::Device { id: config.device.to_string(), class: config.board.clone(), certificate: None, built: built() };
    let believed = Arc::new(Trust::first(device, config.fleet.as_str(), root)?);
    let low = u64::try_from(believed.clock().low(0).unix()).unwrap_or_default();
    let flow = Flow::new(config.window, config.fetch_rate, config.device.as_str());
    let keeper = Keeper::start(believed, bundles.clone(), flow, say_word)?;
    Ok(Kept { keeper, words, low })
}

fn assemble(
    (config, settings, log): Meant,
    root: Vec<u8>,
    ca: Vec<u8>,
    bundles: Bundles,
    kept: Kept,
    worker: Arc<Worker>,
    (status, feeds): (watch::Sender<Arc<Status>>, Counts),
) -> anyhow::Result<Driver> {
    let (say_event, events) = mpsc::unbounded_channel();
    let Kept { keeper, words, low } = kept;
    let file = |name, format, most| Summed::new(bundles.disk().clone(), &config.state, name, format, most);
    let (spool_file, learned_file) = (file("spool", 2, MAX_SPOOL_BYTES), file("drift", 1, MAX_LEARNED_BYTES));
    let spooled = match spool_file.read() {
        Found::Whole(spooled) => spooled,
        Found::Nothing => Spooled::default(),
        Found::Damaged => Spooled::damaged(),
    };
    if let Found::Whole(learned) = learned_file.read() {
        worker.remember(learned);
    }
    let loader = Loader::start(bundles, worker.clone(), Program::own(), config.load, say_event)?;
    Ok(Driver {
        topics: Topics::new(&config.fleet),
        profile: telemetry::profile(&config),
        gauge: Gauge::new(&config.state),
        watch: Watch::new(Manager::of_environment(), keeper.pulse(), config.load),
        papers: Papers::new(Slots::of(&config.state), ca, Floor::new(low)),
        spool: Spool::new(config.spool_bytes, spooled),
        measure_at: Instant::now() + config.telemetry.min(FIRST_TELEMETRY),
        windows_at: Instant::now() + config.drift_window.min(LOOK_AT_WINDOWS),
        config,
        settings,
        log,
        root,
        started: Instant::now(),
        awake: Instant::now(),
        store: None,
        core: None,
        retry: None,
        trouble: None,
        link: None,
        keeper,
        words,
        loader,
        events,
        worker,
        observation: None,
        totals: BTreeMap::new(),
        arrivals: Arrivals::default(),
        https: Https::default(),
        spool_file,
        learned_file,
        drift: BTreeMap::new(),
        connected: None,
        run: identity::run_number().context("the system gives no random numbers")?,
        seq: 0,
        status,
        feeds,
    })
}

fn first_status(config: &Config, listen: SocketAddr) -> Status {
    Status {
        device: config.device.to_string(),
        fleet: config.fleet.to_string(),
        board: config.board.clone(),
        agent: env!("CARGO_PKG_VERSION").into(),
        boot: 0,
        uptime_s: 0,
        broker: format!("{}:{}", config.broker.host, config.broker.port),
        connected: false,
        key_id: String::new(),
        certificate_until: None,
        root_version: 0,
        revocation: None,
        clock: ClockState::Unset,
        generation: None,
        listen,
        outbox: 0,
        spool: SpoolState::default(),
        streams: Vec::new(),
        refusals: Vec::new(),
        feeds: Vec::new(),
        trouble: None,
        disk_free_mb: 0,
    }
}

fn read_ca(config: &Config) -> Result<Vec<u8>, Fault> {
    let wrong = |why: String| {
        Fault::new(format!("cannot use the certificate authority {}", config.ca.display())).because(why).remedy(
            "set the key `ca` to the fleet's ca.pem, a file with a PEM certificate; `petrel-agent enrol` writes it",
        )
    };
    let mut bytes = Vec::new();
    let read = File::open(&config.ca).and_then(|f| f.take(MAX_ROOT_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|e| wrong(e.to_string()))?;
    if bytes.len() > MAX_ROOT_BYTES {
        return Err(wrong(format!("it is larger than {MAX_ROOT_BYTES} bytes")));
    }
    identity::certificates(&bytes).map_err(wrong)?;
    Ok(bytes)
}

/// The root that the device was given, believed.
/// The root that the configuration names, when it is this fleet's.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_root(config: &Config) -> Result<Vec<u8>, Fault> {
    let path = &config.root;
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(MAX_ROOT_BYTES as u64 + 1).read_to_end(&mut bytes)).map_err(|why| {
        Fault::new(format!("cannot read the root of trust {}", path.display()))
            .because(why)
            .remedy("set the key `root` to the fleet's root.json")
    })?;
    match trust::verify_root(config.fleet.as_str(), &bytes) {
        Ok(_) => Ok(bytes),
        Err(refusal) => Err(Fault::new(format!("the root of trust {} is refused", path.display()))
            .because(refusal)
            .remedy("give the root.json of this fleet, from a source that you trust")),
    }
}

/// No agent of this version was built before this moment, so it is not earlier than that. A fixed moment,
/// since the same source gives the same binary.
pub(super) fn built() -> Time {
    Time::clamped(1_795_824_000)
}

fn unusable(state: &Path, why: std::io::Error) -> Fault {
    Fault::new(format!("cannot use the state folder {}", state.display()))
        .because(why)
        .remedy("make it writable for the agent, or choose another with the key `state`")
}
