//! A release in a process of its own: started, asked, and started again when it falls.
//!
//! Decides how long a process may take and how soon another takes its place. What its falls mean for the release is
//! decided by the core; what it may do, by `sandbox`.

use super::wire::{self, Given, MAX_WORD_BYTES, NoAnswer, Order, Purpose, Until, Word};
use engine::{Input, Port};
use protocol::Sandbox;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The first pause before a process that fell is started again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After so long without a fall the pauses begin anew.
const CALM: Duration = Duration::from_secs(60);
/// An answer may take so many times as long as its rows took in the probe, and at least and at most so long.
const SLACK: u32 = 20;
const SHORTEST_PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);
/// Requests to one model that may wait for their turn.
const MOST_WAITING: usize = 64;
/// What a process prints: lines in a life, and characters of a line, that the log takes.
const MAX_LINES: usize = 20;
const MAX_LINE: usize = 500;

/// What is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// How.
    pub(crate) program: Program,
    /// The bundle's folder.
    pub(crate) dir: PathBuf,
    /// Rows for one call of the model.
    pub(crate) rows_at_once: Option<usize>,
    /// What the bundle promises to do with, MiB.
    pub(crate) ram_mb: u64,
    /// The file of its baseline, where what it sees is measured.
    pub(crate) baseline: Option<String>,
    /// How long it may take until it says its word.
    pub(crate) patience: Duration,
}

/// The program of a model's process.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Program {
    /// This very program, also after its file was replaced by another version.
    pub(crate) fn own() -> Self {
        Self { path: "/proc/self/exe".into(), arguments: vec!["worker".into()], environment: Vec::new() }
    }

    /// The tests' own program, of which one test is such a process.
    #[cfg(test)]
    pub(crate) fn of_tests() -> Self {
        let arguments = ["worker::tests::is_a_process_where_it_was_started_as_one", "--exact", "--nocapture"];
        let arguments = arguments.into_iter().chain(["--test-threads=1"]).map(str::to_owned).collect();
        let environment = vec![("PETREL_TESTS_WORKER".into(), "1".into())];
        Self { path: "/proc/self/exe".into(), arguments, environment }
    }
}

/// Why a process did not come to its word.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Misstart {
    /// The system did not start it: that says nothing of the bundle.
    #[error("no process could be started for the model")]
    System(#[from] io::Error),
    /// The bundle's model will not do.
    #[error("{0}")]
    Unfit(String),
    /// The golden vectors disagree.
    #[error("{0}")]
    Disagreed(String),
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Agreed {
    /// Rows that were compared.
    pub(crate) rows: usize,
    /// The largest error.
    pub(crate) worst: f64,
    /// Microseconds that a row took.
    pub(crate) row_us: u64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The request does not fit the model.
    Request(String),
    /// The model could not.
    Model(String),
    /// Its process fell, and another is on its way.
    Away,
    /// Too many wait for it already.
    Busy,
}

/// A request, as a process hears it.
#[derive(Debug)]
pub(crate) struct Question {
    frame: Vec<u8>,
    rows: usize,
    id: Option<String>,
}

impl Question {
    /// Of an input for the model.
    ///
    /// # Errors
    /// In words, when it is larger than any model takes.
    pub(crate) fn of(input: &Input) -> Result<Self, String> {
        let rows = input.row_count().max(1);
        let frame = wire::framed(input).map_err(|why| format!("the request is too large: {why}"))?;
        Ok(Self { frame, rows, id: None })
    }

    /// By what it is known to whoever asks.
    pub(crate) fn known_as(self, id: Option<&str>) -> Self {
        Self { id: id.map(str::to_owned), ..self }
    }

    /// The id of the request, if it has one.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Rows of the input; 1 of what has none.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// How large it is.
    pub(super) fn bytes(&self) -> usize {
        self.frame.len()
    }

    /// The input once more.
    pub(super) fn input(&self) -> Option<Input> {
        wire::unframed(&self.frame)
    }
}

/// A process that answers; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    shared: Arc<Shared>,
    /// What the model takes.
    pub(crate) inputs: Vec<Port>,
    /// What it gives.
    pub(crate) outputs: Vec<Port>,
    /// How it is shut in.
    pub(crate) sandbox: Sandbox,
}

#[derive(Debug)]
struct Shared {
    launch: Launch,
    state: Mutex<State>,
    changed: Condvar,
    /// One for each socket.
    turns: Semaphore,
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    life: Life,
    /// Counts the processes: a socket of an earlier one is of no use any more.
    number: u64,
    child: Option<Child>,
    /// Sockets that nobody uses now.
    free: Vec<tokio::net::UnixStream>,
    /// Why it was ended, when the agent did.
    why: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Life {
    #[default]
    Down,
    Up,
    /// Nobody needs it any more.
    Over,
}

/// A process that said its word.
struct Started {
    child: Child,
    control: UnixStream,
    lanes: Vec<UnixStream>,
    stderr: BufReader<ChildStderr>,
    word: Word,
}

impl Launch {
    fn start(&self, purpose: Purpose, lanes: usize) -> Result<Started, Misstart> {
        let (control, theirs) = UnixStream::pair()?;
        let pairs = (0..lanes).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>()?;
        let (ours, far) = pairs.into_iter().unzip();
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.arguments).arg0("petrel-agent").env_clear().current_dir("/");
        command.envs(self.program.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // It held the other end of the socket that the child has now.
        drop(command);
        let said = converse(self, purpose, far, &control);
        let stderr = child.stderr.take().map(BufReader::new);
        match (said, stderr) {
            (Ok(word), Some(stderr)) => Ok(Started { child, control, lanes: ours, stderr, word }),
            (Err(why), stderr) => {
                // With it go the descriptors that the process may have sent, its standard error among them.
                drop(control);
                let late = matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                let _ = child.kill();
                let status = child.wait()?;
                let seconds = self.patience.as_secs();
                let reason = match late {
                    true => format!("the model did not load, or its golden vectors did not end, within {seconds} s"),
                    false => self.end(status),
                };
                let printed = stderr.map(last_line).unwrap_or_default();
                Err(Misstart::Unfit(if printed.is_empty() { reason } else { format!("{reason}: {printed}") }))
            }
            (Ok(_), None) => Err(io::Error::other("the process has no standard error").into()),
        }
    }

    /// How a process ended, in words.
    fn end(&self, status: ExitStatus) -> String {
        let limit = self.memory() >> 20;
        match status.signal() {
            Some(6) => format!("its process gave up (SIGABRT); it may take {limit} MiB of memory"),
            Some(9) => "its process was killed (SIGKILL), as the system does when memory is short".into(),
            Some(11) => "its process fell (SIGSEGV), as a graph without end makes it".into(),
            Some(signal) => format!("its process was ended by signal {signal}"),
            None => format!("its process ended by itself ({status})"),
        }
    }

    fn memory(&self) -> u64 {
        agent_core::most_memory(self.ram_mb)
    }

    /// Runs the golden vectors in a process that is thrown away.
    ///
    /// # Errors
    /// [`Misstart`].
    pub(crate) fn probe(&self, golden: Option<String>, tolerance: (f64, f64)) -> Result<Agreed, Misstart> {
        let Started { mut child, control, word, .. } = self.start(Purpose::Probe { golden, tolerance }, 0)?;
        drop(control);
        let _ = child.kill();
        child.wait()?;
        match word {
            Word::Agreed { rows, worst, row_us } => Ok(Agreed { rows, worst, row_us }),
            Word::Disagreed(why) => Err(Misstart::Disagreed(why)),
            Word::Unfit(why) => Err(Misstart::Unfit(why)),
            Word::Ready { .. } => Err(Misstart::Unfit("its process did not do what it was told".into())),
        }
    }
}

/// Tells a new process what it is for, and hears its word.
fn converse(launch: &Launch, purpose: Purpose, lanes: Vec<UnixStream>, control: &UnixStream) -> io::Result<Word> {
    let until = Instant::now() + launch.patience;
    wire::give_lanes(control, &lanes)?;
    drop(lanes);
    let (dir, rows_at_once, memory) = (launch.dir.clone(), launch.rows_at_once, launch.memory());
    let mut socket = Until { socket: control, until };
    wire::say(&mut socket, &Order { dir, rows_at_once, memory, purpose })?;
    wire::hear(&mut socket, MAX_WORD_BYTES)
}

/// The last that a process printed before it ended: what is there now, since whoever holds the other end could let
/// wait for more.
fn last_line(stderr: BufReader<ChildStderr>) -> String {
    let mut printed = Vec::new();
    if rustix::io::ioctl_fionbio(stderr.get_ref(), true).is_ok() {
        let _ = stderr.take(64 << 10).read_to_end(&mut printed);
    }
    let printed = String::from_utf8_lossy(&printed);
    printed.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().chars().take(MAX_LINE).collect()
}

impl Process {
    /// Starts a process with as many sockets as may ask at a time, which is done on `runtime`. `fell` hears of each fall,
    /// in words.
    ///
    /// # Errors
    /// [`Misstart`].
    pub(crate) fn start(
        launch: Launch,
        lanes: usize,
        runtime: Handle,
        fell: impl Fn(String) + Send + 'static,
    ) -> Result<Self, Misstart> {
        let (turns, waiting) = (Semaphore::new(lanes), AtomicUsize::new(0));
        let shared = Arc::new(Shared { launch, state: Mutex::default(), changed: Condvar::new(), turns, waiting });
        let (tell, told) = sync_channel(1);
        let minded = shared.clone();
        let span = tracing::Span::current();
        // The process ends with the thread that started it, so it is this one that starts them all.
        let mind = move || span.in_scope(|| mind(&minded, lanes, &runtime, &tell, &fell));
        thread::Builder::new().name("petrel-minder".into()).spawn(mind)?;
        let word = told.recv().map_err(|_| io::Error::other("the thread that minds a process has ended"))??;
        match word {
            Word::Ready { inputs, outputs, sandbox } => Ok(Self { shared, inputs, outputs, sandbox }),
            Word::Unfit(why) | Word::Disagreed(why) => Err(Misstart::Unfit(why)),
            Word::Agreed { .. } => Err(Misstart::Unfit("its process did not do what it was told".into())),
        }
    }

    /// Asks the model. A process that gives no answer in its time, or a senseless one, is ended; that others were before
    /// is no time of its. Whoever begins to ask must wait for the end.
    ///
    /// # Errors
    /// [`Silence`].
    pub(crate) async fn ask(&self, question: &Question, row_us: u64) -> Result<Given, Silence> {
        let patience = patience(question.rows, row_us);
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING + self.shared.turns.available_permits() {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Silence::Busy);
        }
        let turn = timeout(patience, self.shared.turns.acquire()).await;
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        let Ok(Ok(_turn)) = turn else { return Err(Silence::Away) };
        let Some((mut lane, number)) = self.shared.take() else { return Err(Silence::Away) };
        let why = match timeout(patience, wire::ask(&mut lane, &question.frame)).await {
            Ok(Ok(reply)) => {
                self.shared.put(lane, number);
                return reply.map_err(|no| match no {
                    NoAnswer::Request(why) => Silence::Request(why),
                    NoAnswer::Model(why) => Silence::Model(why),
                });
            }
            Ok(Err(why)) if why.kind() == ErrorKind::InvalidData => {
                Some(format!("its process answered no sense: {why}"))
            }
            Ok(Err(_)) => None,
            Err(_) => Some(format!("its process gave no answer within {patience:.0?}")),
        };
        self.shared.fell(number, why.clone());
        Err(Silence::Model(why.unwrap_or_else(|| "its process fell".into())))
    }

    /// Bytes of memory that the process holds by itself; 0 when there is none, or the system does not tell. What it shares
    /// with others of this program, its code above all, is not among them.
    pub(crate) fn resident(&self) -> u64 {
        let told = self.id().and_then(|id| std::fs::read_to_string(format!("/proc/{id}/status")).ok());
        let line = told.as_deref().and_then(|told| told.lines().find_map(|line| line.strip_prefix("RssAnon:")));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    }

    /// The process's number for the system, while there is one.
    pub(crate) fn id(&self) -> Option<u32> {
        self.shared.state().child.as_ref().map(Child::id)
    }
}

/// How long an answer may take, by what a row took when it was probed on this device; 0 for a bundle that never was.
fn patience(rows: usize, row_us: u64) -> Duration {
    if row_us == 0 {
        return LONGEST_PATIENCE;
    }
    let rows = u32::try_from(rows.max(1)).unwrap_or(u32::MAX);
    let usual = Duration::from_micros(row_us).saturating_mul(rows);
    usual.saturating_mul(SLACK).clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE)
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.life = Life::Over;
        if let Some(child) = &mut state.child {
            let _ = child.kill();
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    // Poisoned only by a panic between two lines that leave nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket for one request, and the number of its process.
    fn take(&self) -> Option<(tokio::net::UnixStream, u64)> {
        let mut state = self.state();
        (state.life == Life::Up).then(|| state.free.pop().map(|lane| (lane, state.number)))?
    }

    fn put(&self, lane: tokio::net::UnixStream, number: u64) {
        let mut state = self.state();
        if state.number == number && state.life == Life::Up {
            state.free.push(lane);
        }
    }

    /// The process of that number is of no use any more: it is ended, and its minder sees to the next.
    fn fell(&self, number: u64, why: Option<String>) {
        let mut state = self.state();
        if state.number != number || state.life != Life::Up {
            return;
        }
        state.life = Life::Down;
        state.free.clear();
        state.why = why;
        if let Some(child) = &mut state.child {
            let _ = child.kill();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// A new process takes its place, unless nobody needs it any more: then it is given back.
    fn rise(&self, child: Child, lanes: Vec<tokio::net::UnixStream>) -> Result<(), Child> {
        let mut state = self.state();
        if state.life == Life::Over {
            return Err(child);
        }
        state.life = Life::Up;
        state.number += 1;
        state.free = lanes;
        state.child = Some(child);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits; whether the process is still needed.
    fn pause(&self, pause: Duration) -> bool {
        let state = self.state();
        let needed = |state: &mut State| state.life != Life::Over;
        let waited = self.changed.wait_timeout_while(state, pause, needed).unwrap_or_else(PoisonError::into_inner);
        waited.0.life != Life::Over
    }

    /// What ended the process, which has ended by now.
    fn bury(&self) -> Option<String> {
        let mut state = self.state();
        let status = state.child.take()?.wait();
        if state.life == Life::Over {
            return None;
        }
        state.life = Life::Down;
        state.free.clear();
        let why = state.why.take();
        drop(state);
        self.changed.notify_all();
        Some(why.unwrap_or_else(|| status.map_or_else(|why| why.to_string(), |status| self.launch.end(status))))
    }

    /// Lets a process that is ready answer until it ends; gives why it did, or nothing when nobody needs it any more.
    fn live(&self, started: Started, runtime: &Handle, risen: impl FnOnce(Word)) -> Option<String> {
        let Started { child, control, lanes, stderr, word } = started;
        let id = Pid::from_child(&child);
        let printed = thread::Builder::new().name("petrel-listener".into()).spawn(move || log(stderr));
        let lanes = {
            let _on = runtime.enter();
            let ours =
                |lane: UnixStream| lane.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(lane));
            lanes.into_iter().map(ours).collect::<io::Result<Vec<_>>>()
        };
        let ready = lanes.and_then(|lanes| printed.map(|_| lanes));
        let (lanes, trouble) = ready.map_or_else(|why| (Vec::new(), Some(why)), |lanes| (lanes, None));
        if let Err(mut child) = self.rise(child, lanes) {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        if let Some(why) = trouble {
            let number = self.state().number;
            self.fell(number, Some(format!("the system does not let it be asked: {why}")));
        }
        risen(word);
        // Its end, and not that of its standard error, which it could give to somebody: it is left for `bury`.
        let ended = || waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        while ended().is_err_and(|why| why == rustix::io::Errno::INTR) {}
        drop(control);
        self.bury()
    }
}

/// A process's whole story: from its first start until nobody needs it.
fn mind(
    shared: &Shared,
    lanes: usize,
    runtime: &Handle,
    tell: &SyncSender<Result<Word, Misstart>>,
    fell: &dyn Fn(String),
) {
    let mut falls: u32 = 0;
    let mut first = Some(tell);
    loop {
        let began = Instant::now();
        let started = shared
            .launch
            .start(Purpose::Serve { baseline: shared.launch.baseline.clone() }, lanes)
            .and_then(Started::ready);
        // Whoever started it waits for the first outcome, and takes it from there when there is nothing to mind.
        match (started, first.take()) {
            (Err(why), Some(tell)) => return drop(tell.send(Err(why))),
            (Ok(started), told) => {
                let risen = |word| match told {
                    Some(tell) => drop(tell.send(Ok(word))),
                    None => tracing::info!(falls, "the model's process was started again"),
                };
                let Some(why) = shared.live(started, runtime, risen) else { return };
                fell(why);
            }
            (Err(why @ Misstart::System(_)), None) => {
                tracing::error!("the model's process cannot be started again: {why}");
            }
            (Err(why), None) => fell(why.to_string()),
        }
        falls = if began.elapsed() > CALM { 1 } else { falls.saturating_add(1) };
        let pause = FIRST_PAUSE.saturating_mul(1 << (falls - 1).min(16)).min(LONGEST_PAUSE);
        if !shared.pause(pause) {
            return;
        }
    }
}

impl Started {
    /// A process that said that it answers.
    fn ready(mut self) -> Result<Self, Misstart> {
        let why = match &self.word {
            Word::Ready { .. } => return Ok(self),
            Word::Unfit(why) | Word::Disagreed(why) => why.clone(),
            Word::Agreed { .. } => "its process did not do what it was told".into(),
        };
        let _ = self.child.kill();
        self.child.wait()?;
        Err(Misstart::Unfit(why))
    }
}

/// Takes what a process prints into the log, until it closes its standard error, or has printed enough.
fn log(mut stderr: BufReader<ChildStderr>) {
    let mut left = MAX_LINES;
    while left > 0 {
        // As much as there is, and never more than the buffer holds: it may print without end, and no line.
        let printed = match stderr.fill_buf() {
            Ok(printed) if !printed.is_empty() => printed,
            Ok(_) | Err(_) => return,
        };
        for line in String::from_utf8_lossy(printed).lines().take(left) {
            let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
            tracing::warn!("the model's process says: {line}");
            left -= 1;
        }
        let length = printed.len();
        stderr.consume(length);
    }
}
