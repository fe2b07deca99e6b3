//! A release in a process of its own: started, asked, and started again when it falls.
//!
//! Decides how long a process may take and how soon another takes its place. What its falls mean for the release is
//! decided by the core; what it may do, by `sandbox`.

use super::wire::{self, MAX_LANES, NoAnswer, Order, Purpose, Reply, Until, Word};
use engine::{Input, Port};
use protocol::Sandbox;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Memory that a process may take besides what its bundle promises twice over: the promise was measured on another
/// machine, with another allocator, and with as many rows at a time as its golden vectors have.
const HEADROOM_BYTES: u64 = 64 << 20;
/// The first pause before a process that fell is started again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After so long without a fall the pauses begin anew.
const CALM: Duration = Duration::from_secs(60);
/// An answer may take so many times as long as its rows took in the probe, and at least and at most so long.
const SLACK: u32 = 20;
const SHORTEST_PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);
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
}

#[derive(Debug, Default)]
struct State {
    life: Life,
    /// Counts the processes: a socket of an earlier one is of no use any more.
    number: u64,
    child: Option<Child>,
    /// Sockets that nobody uses now.
    free: Vec<UnixStream>,
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
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.arguments).arg0("petrel-agent").env_clear().current_dir("/");
        command.envs(self.program.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // It held the other end of the socket that the child has now.
        drop(command);
        let said = converse(self, purpose, lanes, control);
        let stderr = child.stderr.take().map(BufReader::new);
        match (said, stderr) {
            (Ok((control, lanes, word)), Some(stderr)) => Ok(Started { child, control, lanes, stderr, word }),
            (Err(why), stderr) => {
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
        (self.ram_mb << 20).saturating_mul(2).saturating_add(HEADROOM_BYTES)
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
fn converse(
    launch: &Launch,
    purpose: Purpose,
    lanes: usize,
    control: UnixStream,
) -> io::Result<(UnixStream, Vec<UnixStream>, Word)> {
    let until = Instant::now() + launch.patience;
    let pairs = (0..lanes.min(MAX_LANES)).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>()?;
    let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    wire::give_lanes(&control, &theirs)?;
    drop(theirs);
    let (dir, rows_at_once, memory) = (launch.dir.clone(), launch.rows_at_once, launch.memory());
    let mut socket = Until { socket: &control, until };
    wire::say(&mut socket, &Order { dir, rows_at_once, memory, purpose })?;
    let word = wire::hear(&mut socket)?;
    Ok((control, ours, word))
}

/// The last that a process printed before it ended.
fn last_line(stderr: BufReader<ChildStderr>) -> String {
    let mut printed = Vec::new();
    let _ = stderr.take(64 << 10).read_to_end(&mut printed);
    let printed = String::from_utf8_lossy(&printed);
    printed.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().chars().take(MAX_LINE).collect()
}

impl Process {
    /// Starts a process with as many sockets as may ask at a time. `fell` hears of each fall, in words.
    ///
    /// # Errors
    /// [`Misstart`].
    pub(crate) fn start(
        launch: Launch,
        lanes: usize,
        fell: impl Fn(String) + Send + 'static,
    ) -> Result<Self, Misstart> {
        let shared = Arc::new(Shared { launch, state: Mutex::default(), changed: Condvar::new() });
        let (tell, told) = sync_channel(1);
        let minded = shared.clone();
        let span = tracing::Span::current();
        // The process ends with the thread that started it, so it is this one that starts them all.
        let mind = move || span.in_scope(|| mind(&minded, lanes, &tell, &fell));
        thread::Builder::new().name("petrel-minder".into()).spawn(mind)?;
        let word = told.recv().map_err(|_| io::Error::other("the thread that minds a process has ended"))??;
        match word {
            Word::Ready { inputs, outputs, sandbox } => Ok(Self { shared, inputs, outputs, sandbox }),
            Word::Unfit(why) | Word::Disagreed(why) => Err(Misstart::Unfit(why)),
            Word::Agreed { .. } => Err(Misstart::Unfit("its process did not do what it was told".into())),
        }
    }

    /// Asks the model. A process that gives no answer in its time, or a senseless one, is ended.
    ///
    /// # Errors
    /// [`Silence`].
    pub(crate) fn ask(&self, input: &Input, row_us: u64) -> Result<engine::Answer, Silence> {
        let patience = patience(input, row_us);
        let (lane, number) = self.shared.take(patience)?;
        match wire::ask(&lane, input, patience) {
            Ok(reply) => {
                self.shared.put(lane, number);
                told(reply)
            }
            // Nothing was sent.
            Err(why) if why.kind() == ErrorKind::InvalidInput => {
                self.shared.put(lane, number);
                Err(Silence::Request(format!("the request is too large: {why}")))
            }
            Err(why) => {
                let why = match why.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        format!("its process gave no answer within {:.0?}", patience)
                    }
                    ErrorKind::InvalidData => format!("its process answered no sense: {why}"),
                    _ => String::new(),
                };
                self.shared.fell(number, why.clone());
                Err(Silence::Model(if why.is_empty() { "its process fell".into() } else { why }))
            }
        }
    }

    /// The process's number for the system, while there is one.
    pub(crate) fn id(&self) -> Option<u32> {
        self.shared.state().child.as_ref().map(Child::id)
    }
}

fn told(reply: Reply) -> Result<engine::Answer, Silence> {
    reply.map_err(|no| match no {
        NoAnswer::Request(why) => Silence::Request(why),
        NoAnswer::Model(why) => Silence::Model(why),
    })
}

/// How long an answer may take, by what a row took when it was probed on this device; 0 for a bundle that never was.
fn patience(input: &Input, row_us: u64) -> Duration {
    if row_us == 0 {
        return LONGEST_PATIENCE;
    }
    let rows = match input {
        Input::Tensors(named) => named.first().map_or(1, |(_, tensor)| tensor.row_count()),
        Input::Table(table) => table.row_count(),
        Input::Image(_) => 1,
    };
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
    fn take(&self, patience: Duration) -> Result<(UnixStream, u64), Silence> {
        let until = Instant::now() + patience;
        let mut state = self.state();
        loop {
            if state.life != Life::Up {
                return Err(Silence::Away);
            }
            if let Some(lane) = state.free.pop() {
                return Ok((lane, state.number));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::Away);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn put(&self, lane: UnixStream, number: u64) {
        let mut state = self.state();
        if state.number == number && state.life == Life::Up {
            state.free.push(lane);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The process of that number is of no use any more: it is ended, and its minder sees to the next.
    fn fell(&self, number: u64, why: String) {
        let mut state = self.state();
        if state.number != number || state.life != Life::Up {
            return;
        }
        state.life = Life::Down;
        state.free.clear();
        state.why = Some(why).filter(|why| !why.is_empty());
        if let Some(child) = &mut state.child {
            let _ = child.kill();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// A new process takes its place, unless nobody needs it any more: then it is given back.
    fn rise(&self, child: Child, lanes: Vec<UnixStream>) -> Result<(), Child> {
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

    /// What ended the process, after its standard error has closed.
    fn bury(&self) -> Option<String> {
        let mut state = self.state();
        let mut child = state.child.take()?;
        let _ = child.kill();
        let status = child.wait();
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
}

/// A process's whole story: from its first start until nobody needs it.
fn mind(shared: &Shared, lanes: usize, tell: &SyncSender<Result<Word, Misstart>>, fell: &dyn Fn(String)) {
    let mut falls: u32 = 0;
    let mut first = Some(tell);
    loop {
        let began = Instant::now();
        match shared.launch.start(Purpose::Serve, lanes) {
            Ok(Started { child, control, lanes, stderr, word }) => {
                let ready = matches!(word, Word::Ready { .. });
                if let Err(mut child) = shared.rise(child, lanes) {
                    let _ = child.kill();
                    let _ = child.wait();
                    return;
                }
                if let Some(tell) = first.take() {
                    // Whoever started it waits for this.
                    let _ = tell.send(Ok(word));
                    if !ready {
                        shared.bury();
                        return;
                    }
                } else {
                    tracing::info!(falls, "the model's process was started again");
                }
                log(stderr);
                drop(control);
                let Some(why) = shared.bury() else { return };
                fell(why);
            }
            Err(why) => {
                if let Some(tell) = first.take() {
                    let _ = tell.send(Err(why));
                    return;
                }
                tracing::error!("the model's process cannot be started again: {why}");
            }
        }
        falls = if began.elapsed() > CALM { 1 } else { falls.saturating_add(1) };
        let pause = FIRST_PAUSE.saturating_mul(1 << (falls - 1).min(16)).min(LONGEST_PAUSE);
        if !shared.pause(pause) {
            return;
        }
    }
}

/// Takes what a process prints into the log, until it closes its standard error, as it does at its end.
fn log(mut stderr: BufReader<ChildStderr>) {
    let mut left = MAX_LINES;
    loop {
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
