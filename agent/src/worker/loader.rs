//! The loader: a thread that brings bundles from the disk into processes that answer, and one that tries them.
//!
//! Decides nothing of what should serve. Before a bundle is loaded it is checked again, every byte:
//! what lay on the disk since yesterday is not believed today.

use super::process::{Launch, Misstart, Process, Program};
use super::shadow::Shadow;
use super::watcher::{self, Watcher};
use super::{Loaded, Serving, Worker, lanes, let_answers_pass};
use crate::fault::told;
use crate::store::{self, Bundles};
use agent_core::Event;
use protocol::StreamName;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use trust::{Code, Digest, FileRole, Manifest, Refusal, Verified};

/// The pause before the system is asked again for what it did not allow; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A bundle that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The bundle.
    pub(crate) bundle: Digest,
    /// Microseconds that a row took when it was probed here; 0 when nobody knows.
    pub(crate) row_us: u64,
}

/// Something for the loader to do; its outcome is an [`Event`].
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// Load it, compare it with its golden vectors, and drop it.
    Probe(Digest),
    /// Let it answer for a stream.
    Serve {
        /// The stream.
        stream: StreamName,
        /// What answers.
        main: Place,
        /// What answers when that fails.
        fallback: Option<Place>,
    },
    /// Ask a bundle what answers for a stream is asked, and compare. It has an outcome only when it does not come up.
    Shadow {
        /// The stream.
        stream: StreamName,
        /// What nobody hears.
        place: Place,
    },
    /// Nothing answers for a stream any more.
    Stop(StreamName),
    /// A new process takes the place of the one that answers for a stream.
    Restart(StreamName),
}

impl Task {
    /// Whether it takes the place of `waiting`, which was asked before. A shadow goes with what it is the shadow of.
    fn replaces(&self, waiting: &Task) -> bool {
        match (self, waiting) {
            (
                Task::Serve { stream, .. } | Task::Stop(stream),
                Task::Serve { stream: other, .. } | Task::Stop(other) | Task::Shadow { stream: other, .. },
            )
            | (Task::Shadow { stream, .. }, Task::Shadow { stream: other, .. }) => stream == other,
            (
                Task::Probe(_) | Task::Restart(_) | Task::Serve { .. } | Task::Stop(_) | Task::Shadow { .. },
                Task::Probe(_) | Task::Restart(_) | Task::Serve { .. } | Task::Stop(_) | Task::Shadow { .. },
            ) => false,
        }
    }
}

/// The driver's side of the loader; its threads end when this is dropped.
#[derive(Debug)]
pub(crate) struct Loader {
    tasks: Sender<Task>,
    /// A probe may take long, and nobody who shall answer waits for it.
    probes: Sender<Task>,
}

impl Loader {
    /// Starts the threads, on the runtime of the caller. A model may take `patience` to load, and to run its golden
    /// vectors.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        bundles: Bundles,
        worker: Arc<Worker>,
        program: Program,
        patience: Duration,
        events: UnboundedSender<Event>,
    ) -> io::Result<Self> {
        let bench = Arc::new(Bench { bundles, worker, program, patience, runtime: Handle::current(), events });
        let start = |name: &str| {
            let (tasks, inbox) = channel();
            let (bench, span) = (bench.clone(), tracing::Span::current());
            let work = move || span.in_scope(|| bench.work(&inbox));
            thread::Builder::new().name(name.into()).spawn(work).map(|_| tasks)
        };
        Ok(Self { tasks: start("petrel-loader")?, probes: start("petrel-prober")? })
    }

    /// Has something done, after all of its kind that was asked before.
    pub(crate) fn ask(&self, task: Task) {
        let inbox = if matches!(task, Task::Probe(_)) { &self.probes } else { &self.tasks };
        if inbox.send(task).is_err() {
            tracing::error!("the loader of models has stopped; restart the agent");
        }
    }
}

pub(super) struct Bench {
    pub(super) bundles: Bundles,
    pub(super) worker: Arc<Worker>,
    pub(super) program: Program,
    pub(super) patience: Duration,
    pub(super) runtime: Handle,
    pub(super) events: UnboundedSender<Event>,
}

/// Why a bundle was not loaded.
enum Obstacle {
    Refused(Refusal),
    /// The disk cannot be read, or no process be started: that says nothing of the bundle.
    Unreadable(String),
}

impl From<Refusal> for Obstacle {
    fn from(refusal: Refusal) -> Self {
        Obstacle::Refused(refusal)
    }
}

impl From<Misstart> for Obstacle {
    fn from(misstart: Misstart) -> Self {
        match misstart {
            why @ Misstart::System(_) => Obstacle::Unreadable(told(&why)),
            Misstart::Unfit(why) => Refusal::new(Code::Model, why).into(),
            Misstart::Disagreed(why) => Refusal::new(Code::Golden, why).into(),
        }
    }
}

impl Bench {
    fn work(&self, inbox: &Receiver<Task>) {
        // What the system did not allow is tried again, the first of it first.
        let mut later: VecDeque<(Instant, Duration, Task)> = VecDeque::new();
        loop {
            let task = match later.front() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some((due, ..)) => inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let (task, pause) = match task {
                Ok(task) => (task, FIRST_PAUSE),
                Err(RecvTimeoutError::Timeout) => match later.pop_front() {
                    Some((_, pause, task)) => (task, pause),
                    None => continue,
                },
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // What is asked of a stream takes the place of what was asked before.
            later.retain(|(.., waits)| !task.replaces(waits));
            match self.run(task.clone()) {
                // The driver may be gone already; then nobody needs to know.
                Ok(event) => drop(event.map(|event| self.events.send(event))),
                Err(why) => {
                    tracing::error!("a model cannot be loaded now, tried again in {} s: {why}", pause.as_secs());
                    later.push_back((Instant::now() + pause, (pause * 2).min(LONGEST_PAUSE), task));
                }
            }
        }
    }

    /// Does one thing; an error is the system's, and says nothing of the bundle.
    pub(super) fn run(&self, task: Task) -> Result<Option<Event>, String> {
        Ok(match task {
            Task::Probe(bundle) => Some(match self.probe(bundle) {
                Ok(row_us) => Event::ProbePassed { bundle, row_us },
                Err(Obstacle::Refused(refusal)) => Event::ProbeFailed { bundle, refusal },
                Err(Obstacle::Unreadable(why)) => {
                    tracing::error!(bundle = %bundle.short(), "the bundle cannot be probed: {why}");
                    Event::Stumbled { bundle }
                }
            }),
            Task::Serve { stream, main, fallback } => Some(self.serve(stream, main, fallback)?),
            Task::Shadow { stream, place } => self.cast(stream, place)?,
            Task::Stop(stream) => {
                self.worker.remove(&stream);
                None
            }
            Task::Restart(stream) => {
                let outcome = self.restart(&stream);
                Some(Event::Restarted { stream, outcome })
            }
        })
    }

    /// Runs the golden vectors in a process that is thrown away; gives how long a row took.
    fn probe(&self, bundle: Digest) -> Result<u64, Obstacle> {
        let (manifest, launch) = self.open(bundle)?;
        let golden = manifest.files.iter().find(|f| f.role == FileRole::Golden).map(|f| f.name.clone());
        if golden.is_none() {
            tracing::warn!(bundle = %bundle.short(), "the bundle brings no golden vectors: that it loads is all that is known");
        }
        let tolerance = (manifest.golden.tolerance_abs, manifest.golden.tolerance_rel);
        let agreed = launch.probe(golden, tolerance)?;
        tracing::info!(
            bundle = %bundle.short(), stream = %manifest.stream, release = manifest.release.get(),
            rows = agreed.rows, worst = agreed.worst, row_us = agreed.row_us, "the model runs on this processor"
        );
        Ok(agreed.row_us)
    }

    /// What answered before goes on until the new release is ready, or for good when it never is. A
    /// release that is in memory already only changes its place.
    fn serve(&self, stream: StreamName, place: Place, fallback: Option<Place>) -> Result<Event, String> {
        let bundle = place.bundle;
        let main = match self.bring(&stream, place) {
            Ok(main) => main,
            Err(Obstacle::Refused(refusal)) => return Ok(Event::ServeFailed { stream, bundle, refusal }),
            Err(Obstacle::Unreadable(why)) => return Err(why),
        };
        let fallback = fallback.and_then(|fallback| match self.bring(&stream, fallback) {
            Ok(fallback) => Some(fallback),
            Err(Obstacle::Refused(Refusal { detail: why, .. }) | Obstacle::Unreadable(why)) => {
                tracing::warn!(%stream, release = main.release, "there is no fallback: {why}");
                None
            }
        });
        let (release, sandbox) = (main.release, main.process.sandbox);
        self.worker.put(&stream, Serving { main, fallback, shadow: None });
        tracing::info!(%stream, release, ?sandbox, "serves");
        Ok(Event::Served { stream, bundle, sandbox })
    }

    /// The old process answers until the new one does, and ends with what it was asked last. Its release, and what it
    /// counted, stay as they were.
    fn restart(&self, stream: &StreamName) -> Result<(), String> {
        let (_, Serving { main, fallback, shadow }) =
            self.worker.find(stream.as_str()).map_err(|why| why.to_string())?;
        let place = Place { bundle: main.bundle, row_us: main.row_us };
        let main = self.load(stream, place).map_err(|obstacle| match obstacle {
            Obstacle::Refused(refusal) => refusal.to_string(),
            Obstacle::Unreadable(why) => why,
        })?;
        tracing::info!(%stream, release = main.release, "a new process answers, as land asked");
        self.worker.put(stream, Serving { main, fallback, shadow });
        Ok(())
    }

    /// Lets a bundle be asked beside what answers.
    fn cast(&self, stream: StreamName, place: Place) -> Result<Option<Event>, String> {
        let bundle = place.bundle;
        let (_, serving) = self.worker.find(stream.as_str()).map_err(|why| why.to_string())?;
        match self.bring(&stream, place) {
            Ok(loaded) => {
                let (release, beside) = (loaded.release, serving.main.release);
                self.worker.put(&stream, Serving { shadow: Some(Arc::new(Shadow::new(loaded))), ..serving });
                tracing::info!(%stream, release, beside, "is compared with what answers");
                Ok(None)
            }
            Err(Obstacle::Refused(refusal)) => Ok(Some(Event::ServeFailed { stream, bundle, refusal })),
            Err(Obstacle::Unreadable(why)) => Err(why),
        }
    }

    fn bring(&self, stream: &StreamName, place: Place) -> Result<Arc<Loaded>, Obstacle> {
        let serving = self.worker.find(stream.as_str()).ok();
        let here = serving.iter().flat_map(|(_, s)| s.in_memory()).find(|loaded| loaded.bundle == place.bundle);
        here.map_or_else(|| self.load(stream, place), |loaded| Ok(loaded.clone()))
    }

    fn load(&self, stream: &StreamName, Place { bundle, row_us }: Place) -> Result<Arc<Loaded>, Obstacle> {
        let (manifest, launch) = self.open(bundle)?;
        if manifest.stream != stream.as_str() {
            let detail = format!("the bundle is of `{}`, not of `{stream}`", manifest.stream);
            return Err(Refusal::new(Code::Mismatch, detail).into());
        }
        let watcher = launch.baseline.as_ref().and_then(|file| self.watch(stream, bundle, &launch.dir.join(file)));
        let launch = Launch { baseline: launch.baseline.filter(|_| watcher.is_some()), ..launch };
        let (events, name, release) = (self.events.clone(), stream.clone(), manifest.release.get());
        let fell = move |why: String| {
            tracing::error!(stream = %name, release, "{why}");
            // The driver may be gone already; then nobody needs to know.
            let _ = events.send(Event::ProcessFell { stream: name.clone(), bundle, why });
        };
        let process = Process::start(launch, lanes(), self.runtime.clone(), fell)?;
        Ok(Arc::new(Loaded::new(bundle, release, process, row_us, watcher)))
    }

    /// A bundle whose baseline is of no use answers all the same.
    fn watch(&self, stream: &StreamName, bundle: Digest, path: &Path) -> Option<Watcher> {
        match watcher::read_baseline(path) {
            Ok(baseline) => {
                let memory = self.worker.recall(stream, baseline.fingerprint());
                Some(Watcher::new(baseline, memory))
            }
            Err(why) => {
                tracing::warn!(%stream, bundle = %bundle.short(), "drift will not be seen, its baseline cannot be used: {why}");
                None
            }
        }
    }

    fn open(&self, bundle: Digest) -> Result<(Verified<Manifest>, Launch), Obstacle> {
        let dir = self.bundles.complete(bundle);
        // It was believed when it was installed: a publisher who left since then takes nothing away.
        let known = in_the_background(|| store::known(&**self.bundles.disk(), &dir, bundle));
        let known = known.map_err(|fault| match fault {
            store::Fault::Refused(refusal) => Obstacle::Refused(refusal),
            unreadable @ store::Fault::Io { .. } => Obstacle::Unreadable(told(&unreadable)),
        })?;
        let manifest = known.read;
        let rows_at_once = manifest.runtime.batch.and_then(|rows| usize::try_from(rows.get()).ok());
        let dir = std::path::absolute(&dir).map_err(|why| Obstacle::Unreadable(told(&why)))?;
        let ram_mb = manifest.resources_budget.ram_mb.get();
        let baseline = manifest.files.iter().find(|f| f.role == FileRole::Drift).map(|f| f.name.clone());
        let (program, patience) = (self.program.clone(), self.patience);
        Ok((manifest, Launch { program, dir, rows_at_once, ram_mb, baseline, patience }))
    }
}

/// Does what can wait on a thread of its own: what is started on this one, the processes of models above all, inherits
/// its priority.
fn in_the_background<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let niced = || {
        let_answers_pass();
        work()
    };
    thread::scope(|scope| match scope.spawn(niced).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
