//! The service manager's watchdog: it is told that the agent goes on, and only while all of it does.
//!
//! Decides when the agent counts as stuck, and speaks the few words of `sd_notify`. What the agent is busy with, the
//! driver and the threads say; without a service manager nobody is told anything.

use agent_core::{Effect, Event};
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What reads, checks or removes whole bundles may take so long, on the slowest card that anybody would use.
const LONG_ERRAND: Duration = Duration::from_secs(15 * 60);
/// A service manager that does not listen holds nobody up for longer.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_STATUS_CHARS: usize = 200;

/// How the service manager is reached, and what it wants to hear.
#[derive(Debug, Default)]
pub(crate) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment names it.
    pub(crate) fn of_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(name) = variable("NOTIFY_SOCKET") else { return Self::default() };
        match open(&name) {
            Ok(socket) => {
                let number = |name| variable(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
                let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
                let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros);
                Self { socket: Some(socket), watchdog }
            }
            Err(why) => {
                tracing::warn!("the service manager cannot be told anything at {}: {why}", name.display());
                Self::default()
            }
        }
    }

    /// Every word goes by the name anew: a manager that was started again listens there once more.
    fn say(&self, words: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(why) = socket.send_to_addr(words.as_bytes(), address) {
            tracing::debug!("the service manager did not take a word: {why}");
        }
    }
}

fn open(name: &OsStr) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

/// What a thread is busy with: since when, and whether that may take long.
#[derive(Debug, Default)]
pub(crate) struct Pulse(Mutex<Option<Busy>>);

#[derive(Debug, Clone, Copy)]
struct Busy {
    since: Instant,
    long: bool,
}

impl Pulse {
    /// The thread begins an errand.
    pub(crate) fn begins(&self, long: bool) {
        *self.lock() = Some(Busy { since: Instant::now(), long });
    }

    /// It is done with it.
    pub(crate) fn rests(&self) {
        *self.lock() = None;
    }

    // Nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Option<Busy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the loader was asked and has not answered.
#[derive(Debug, Default)]
struct Asked {
    tasks: usize,
    /// Of them, models that shall answer.
    serves: usize,
    /// When the first of them began, or the one before it ended.
    since: Option<Instant>,
}

/// The agent as its service manager sees it.
#[derive(Debug)]
pub(crate) struct Watch {
    manager: Manager,
    keeper: Arc<Pulse>,
    /// The most that the loader may take for one thing.
    longest_load: Duration,
    asked: Asked,
    /// The memory was read: what the loader is asked first is known.
    begun: bool,
    ready: bool,
    status: String,
    /// It was logged that the agent is stuck.
    stuck: bool,
    ping_at: Option<Instant>,
}

impl Watch {
    /// Of the agent that has this keeper; the loader is seen through what it is asked and what it answers. A model may
    /// take `load` to load: before it comes the reading of its bundle, and perhaps behind it that of another, the fallback.
    pub(crate) fn new(manager: Manager, keeper: Arc<Pulse>, load: Duration) -> Self {
        let longest_load = LONG_ERRAND + load * 2;
        let ping_at = manager.watchdog.map(|_| Instant::now());
        let (asked, status) = (Asked::default(), String::new());
        Self { manager, keeper, longest_load, asked, begun: false, ready: false, status, stuck: false, ping_at }
    }

    /// When the next ping is due.
    pub(crate) fn ping_at(&self) -> Option<Instant> {
        self.ping_at
    }

    /// The core decided this.
    pub(crate) fn decided(&mut self, effect: &Effect) {
        let serves = matches!(effect, Effect::Serve { .. });
        if serves || matches!(effect, Effect::Probe { .. }) {
            self.asked.tasks += 1;
            self.asked.serves += usize::from(serves);
            self.asked.since.get_or_insert_with(Instant::now);
        }
    }

    /// The loader said this.
    pub(crate) fn heard(&mut self, event: &Event) {
        let served = matches!(event, Event::Served { .. } | Event::ServeFailed { .. });
        let probed = matches!(event, Event::ProbePassed { .. } | Event::ProbeFailed { .. } | Event::Stumbled { .. });
        if served || probed {
            self.asked.tasks = self.asked.tasks.saturating_sub(1);
            self.asked.serves = self.asked.serves.saturating_sub(served.into());
            self.asked.since = (self.asked.tasks > 0).then(Instant::now);
        }
    }

    /// The memory was read, or the disk refused it.
    pub(crate) fn begun(&mut self) {
        self.begun = true;
    }

    /// Tells what runs, when that changed; and that the agent is ready, as soon as what it served before does so again,
    /// or cannot.
    pub(crate) fn tell(&mut self, status: impl FnOnce() -> String) {
        if self.manager.socket.is_none() {
            return;
        }
        let status = one_line(&status());
        let ready = !self.ready && self.begun && self.asked.serves == 0;
        if ready {
            self.ready = true;
            self.manager.say(&format!("READY=1\nSTATUS={status}"));
        } else if self.status != status {
            self.manager.say(&format!("STATUS={status}"));
        }
        self.status = status;
    }

    /// Says that the agent goes on, unless it does not.
    pub(crate) fn ping(&mut self) {
        let Some(watchdog) = self.manager.watchdog else { return };
        let now = Instant::now();
        self.ping_at = Some(now + watchdog / 2);
        let keeper = *self.keeper.lock();
        match stuck(now, watchdog, keeper, self.asked.since.map(|since| (since, self.longest_load))) {
            Some(why) if self.stuck => tracing::debug!("still stuck: {why}"),
            Some(why) => {
                self.stuck = true;
                tracing::error!("the agent is stuck, its service manager will start it again: {why}");
                self.manager.say(&format!("STATUS=stuck: {}", one_line(&why)));
                self.status.clear();
            }
            None => {
                self.stuck = false;
                let more =
                    if self.ready { String::new() } else { format!("\nEXTEND_TIMEOUT_USEC={}", watchdog.as_micros()) };
                self.manager.say(&format!("WATCHDOG=1{more}"));
            }
        }
    }

    /// The agent goes to sleep.
    pub(crate) fn stopping(&self) {
        self.manager.say("STOPPING=1\nSTATUS=the agent goes to sleep");
    }
}

/// What does not go on, if anything. That the driver does is known: it is the driver that asks.
fn stuck(
    now: Instant,
    watchdog: Duration,
    keeper: Option<Busy>,
    loader: Option<(Instant, Duration)>,
) -> Option<String> {
    let over = |since: Instant, most: Duration| now.saturating_duration_since(since) > most;
    let told = |who: &str, since: Instant| {
        format!("{who} has been busy with one thing for {} s", now.saturating_duration_since(since).as_secs())
    };
    let patience = |long| if long { LONG_ERRAND.max(watchdog) } else { watchdog };
    let keeper = keeper.filter(|busy| over(busy.since, patience(busy.long)));
    let loader = loader.filter(|(since, most)| over(*since, watchdog.max(*most)));
    keeper
        .map(|busy| told("the keeper of the bundles", busy.since))
        .or_else(|| loader.map(|(since, _)| told("the loader of models", since)))
}

/// A newline would begin another word.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_STATUS_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::StreamName;
    use trust::Digest;

    const WATCHDOG: Duration = Duration::from_secs(60);

    /// What is heard on a socket of a test's own.
    struct Ears(UnixDatagram);

    impl Ears {
        fn new(watchdog: Duration) -> (tempfile::TempDir, Self, Manager) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let ears = UnixDatagram::bind(&path).unwrap();
            ears.set_nonblocking(true).unwrap();
            let socket = Some(open(path.as_os_str()).unwrap());
            (dir, Self(ears), Manager { socket, watchdog: Some(watchdog) })
        }

        fn heard(&self) -> Vec<String> {
            let next = || {
                let mut bytes = [0; 1_024];
                self.0.recv(&mut bytes).ok().map(|n| String::from_utf8(bytes[..n].to_vec()).unwrap())
            };
            std::iter::from_fn(next).collect()
        }
    }

    fn bundle() -> Digest {
        Digest([7; 32])
    }

    fn digits() -> StreamName {
        "digits".parse().unwrap()
    }

    #[test]
    fn a_thread_that_is_stuck_is_told_from_one_that_is_busy() {
        let now = Instant::now() + Duration::from_secs(24 * 3_600);
        let ago = |seconds: u64| now - Duration::from_secs(seconds);
        let busy = |seconds, long| Some(Busy { since: ago(seconds), long });
        let loads = |seconds| Some((ago(seconds), Duration::from_secs(1_800)));
        let cases = [
            (None, None, None),
            (busy(59, false), None, None),
            (busy(61, false), None, Some("keeper")),
            (busy(61, true), None, None),
            (busy(901, true), None, Some("keeper")),
            (None, loads(1_799), None),
            (None, loads(1_801), Some("loader")),
            (busy(1, false), loads(1_801), Some("loader")),
        ];
        for (keeper, loader, expected) in cases {
            let found = stuck(now, WATCHDOG, keeper, loader);
            assert_eq!(found.is_some(), expected.is_some(), "{keeper:?} {loader:?}: {found:?}");
            assert!(found.is_none_or(|why| why.contains(expected.unwrap())));
        }
        // A watchdog that is more patient than any errand is obeyed.
        let patient = Duration::from_secs(7_200);
        assert_eq!(stuck(now, patient, busy(7_000, true), loads(7_000)), None);
    }

    #[test]
    fn pings_end_while_a_thread_is_stuck_and_begin_again_when_it_goes_on() {
        let (_dir, ears, manager) = Ears::new(Duration::from_micros(1));
        let pulse = Arc::new(Pulse::default());
        let mut watch = Watch::new(manager, pulse.clone(), WATCHDOG);
        assert!(watch.ping_at().is_some());
        watch.begun();
        watch.tell(|| "fine".into());
        watch.ping();
        assert_eq!(ears.heard(), ["READY=1\nSTATUS=fine", "WATCHDOG=1"]);
        pulse.begins(false);
        // The clock has moved by more than a microsecond when two datagrams are through.
        while stuck(Instant::now(), Duration::from_micros(1), *pulse.lock(), None).is_none() {}
        watch.ping();
        watch.ping();
        let heard = ears.heard();
        assert!(heard.len() == 1 && heard[0].starts_with("STATUS=stuck: the keeper"), "{heard:?}");
        pulse.rests();
        watch.ping();
        watch.tell(|| "fine".into());
        assert_eq!(ears.heard(), ["WATCHDOG=1", "STATUS=fine"]);
    }

    #[test]
    fn ready_is_said_once_and_after_the_first_models() {
        let (_dir, ears, manager) = Ears::new(WATCHDOG);
        let mut watch = Watch::new(manager, Arc::default(), WATCHDOG);
        let said = |watch: &mut Watch, status: &str| {
            watch.tell(|| status.to_owned());
            ears.heard()
        };
        assert_eq!(said(&mut watch, "begins"), ["STATUS=begins"]);
        watch.decided(&Effect::Serve { stream: digits(), bundle: bundle(), fallback: None });
        watch.decided(&Effect::Probe { bundle: bundle() });
        watch.begun();
        assert_eq!(said(&mut watch, "loads"), ["STATUS=loads"]);
        watch.ping();
        assert_eq!(said(&mut watch, "loads"), ["WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"]);
        watch.heard(&Event::ServeFailed {
            stream: digits(),
            bundle: bundle(),
            refusal: trust::Refusal::new(trust::Code::Model, "no"),
        });
        assert_eq!(said(&mut watch, "a\nREADY=1"), ["READY=1\nSTATUS=a READY=1"]);
        assert!(watch.asked.since.is_some(), "the probe goes on");
        watch.heard(&Event::ProbePassed { bundle: bundle(), row_us: 1 });
        assert!(watch.asked.since.is_none());
        watch.ping();
        assert_eq!(said(&mut watch, "a\nREADY=1"), ["WATCHDOG=1"]);
        watch.stopping();
        assert_eq!(ears.heard(), ["STOPPING=1\nSTATUS=the agent goes to sleep"]);
    }

    #[test]
    fn an_abstract_socket_is_reached_and_nobody_at_all_is_no_trouble() {
        let name = format!("petrel-test-{}", std::process::id());
        let ears = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let socket = Some(open(OsStr::new(&format!("@{name}"))).unwrap());
        Manager { socket, watchdog: None }.say("WATCHDOG=1");
        let mut bytes = [0; 64];
        assert_eq!(ears.recv(&mut bytes).unwrap(), 10);
        let mut watch = Watch::new(Manager::default(), Arc::default(), WATCHDOG);
        watch.begun();
        watch.tell(|| unreachable!("nobody reads it"));
        watch.ping();
        assert_eq!(watch.ping_at(), None);
    }
}
