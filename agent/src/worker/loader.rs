//! The loader: one thread that brings bundles from the disk into memory, or tries them.
//!
//! Decides nothing of what should serve. Before a bundle is loaded it is checked again, every byte:
//! what lay on the disk since yesterday is not believed today.

use super::{Loaded, Serving, Worker};
use crate::fault::told;
use crate::store::{self, Bundles};
use agent_core::Event;
use engine::{Golden, GoldenError, Limits, Pipeline, Tolerance};
use protocol::StreamName;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use tokio::sync::mpsc::UnboundedSender;
use trust::{Code, Digest, FileRole, Manifest, Refusal, Verified};

/// Something for the loader to do; its outcome is an [`Event`].
#[derive(Debug)]
pub(crate) enum Task {
    /// Load it, compare it with its golden vectors, and drop it.
    Probe(Digest),
    /// Let it answer for a stream.
    Serve {
        /// The stream.
        stream: StreamName,
        /// What answers.
        bundle: Digest,
        /// What answers when that fails.
        fallback: Option<Digest>,
    },
    /// Nothing answers for a stream any more.
    Stop(StreamName),
}

/// The driver's side of the loader; its thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Loader {
    tasks: Sender<Task>,
}

impl Loader {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(bundles: Bundles, worker: Arc<Worker>, events: UnboundedSender<Event>) -> io::Result<Self> {
        let (tasks, inbox) = channel();
        let bench = Bench { bundles, worker };
        let span = tracing::Span::current();
        let work = move || span.in_scope(|| bench.work(&inbox, &events));
        thread::Builder::new().name("petrel-loader".into()).spawn(work)?;
        Ok(Self { tasks })
    }

    /// Has something done, after all that was asked before.
    pub(crate) fn ask(&self, task: Task) {
        if self.tasks.send(task).is_err() {
            tracing::error!("the loader of models has stopped; restart the agent");
        }
    }
}

pub(super) struct Bench {
    pub(super) bundles: Bundles,
    pub(super) worker: Arc<Worker>,
}

/// Why a bundle was not loaded.
enum Obstacle {
    Refused(Refusal),
    /// The disk cannot be read: that says nothing of the bundle.
    Unreadable(String),
}

impl From<Refusal> for Obstacle {
    fn from(refusal: Refusal) -> Self {
        Obstacle::Refused(refusal)
    }
}

impl Bench {
    fn work(&self, inbox: &Receiver<Task>, events: &UnboundedSender<Event>) {
        while let Ok(task) = inbox.recv() {
            // The driver may be gone already; then nobody needs to know.
            if let Some(event) = self.run(task) {
                let _ = events.send(event);
            }
        }
    }

    pub(super) fn run(&self, task: Task) -> Option<Event> {
        match task {
            Task::Probe(bundle) => Some(match guarded(|| self.probe(bundle)) {
                Ok(()) => Event::ProbePassed { bundle },
                Err(Obstacle::Refused(refusal)) => Event::ProbeFailed { bundle, refusal },
                Err(Obstacle::Unreadable(why)) => {
                    tracing::error!(bundle = %bundle.short(), "the bundle cannot be probed: {why}");
                    Event::Stumbled { bundle }
                }
            }),
            Task::Serve { stream, bundle, fallback } => Some(self.serve(stream, bundle, fallback)),
            Task::Stop(stream) => {
                self.worker.remove(&stream);
                None
            }
        }
    }

    fn probe(&self, bundle: Digest) -> Result<(), Obstacle> {
        let (manifest, dir, pipeline) = self.open(bundle)?;
        let Some(golden) = manifest.files.iter().find(|f| f.role == FileRole::Golden) else {
            tracing::warn!(bundle = %bundle.short(), "the bundle brings no golden vectors: that it loads is all that is known");
            return Ok(());
        };
        let tolerance = Tolerance { abs: manifest.golden.tolerance_abs, rel: manifest.golden.tolerance_rel };
        let agreed = Golden::read(&dir.join(&golden.name), &Limits::default())
            .and_then(|golden| golden.check(pipeline.model(), tolerance));
        let agreement = agreed.map_err(|error| {
            let code = if matches!(error, GoldenError::Run(_)) { Code::Model } else { Code::Golden };
            Refusal::new(code, told(&error))
        })?;
        tracing::info!(
            bundle = %bundle.short(), stream = %manifest.stream, release = manifest.release.get(),
            rows = agreement.rows, worst = agreement.worst_abs, "the golden vectors agree on this processor"
        );
        Ok(())
    }

    /// What answered before goes on until the new release is ready, or for good when it never is. A
    /// release that is in memory already only changes its place.
    fn serve(&self, stream: StreamName, bundle: Digest, fallback: Option<Digest>) -> Event {
        let main = match self.bring(&stream, bundle) {
            Ok(main) => main,
            Err(refusal) => return Event::ServeFailed { stream, bundle, refusal },
        };
        let fallback = fallback.and_then(|fallback| match self.bring(&stream, fallback) {
            Ok(fallback) => Some(fallback),
            Err(refusal) => {
                tracing::warn!(%stream, release = main.release, "there is no fallback: {refusal}");
                None
            }
        });
        let release = main.release;
        self.worker.put(&stream, Serving { main, fallback });
        tracing::info!(%stream, release, "serves");
        Event::Served { stream, bundle }
    }

    fn bring(&self, stream: &StreamName, bundle: Digest) -> Result<Arc<Loaded>, Refusal> {
        let serving = self.worker.find(stream.as_str()).ok();
        let here = serving.iter().flat_map(|(_, s)| s.loaded()).find(|loaded| loaded.bundle == bundle);
        if let Some(loaded) = here {
            return Ok(loaded.clone());
        }
        let (manifest, _, pipeline) = guarded(|| self.open(bundle)).map_err(|obstacle| match obstacle {
            Obstacle::Refused(refusal) => refusal,
            Obstacle::Unreadable(why) => Refusal::new(Code::Missing, why),
        })?;
        if manifest.stream != stream.as_str() {
            let detail = format!("the bundle is of `{}`, not of `{stream}`", manifest.stream);
            return Err(Refusal::new(Code::Mismatch, detail));
        }
        Ok(Arc::new(Loaded::new(bundle, manifest.release.get(), pipeline)))
    }

    fn open(&self, bundle: Digest) -> Result<(Verified<Manifest>, PathBuf, Pipeline), Obstacle> {
        let dir = self.bundles.complete(bundle);
        // It was believed when it was installed: a publisher who left since then takes nothing away.
        let known = store::known(&dir, bundle).map_err(|fault| match fault {
            store::Fault::Refused(refusal) => Obstacle::Refused(refusal),
            unreadable @ store::Fault::Io { .. } => Obstacle::Unreadable(told(&unreadable)),
        })?;
        let manifest = known.read;
        let pipeline = Pipeline::open(&dir, &Limits::default());
        let pipeline = pipeline.map_err(|error| Refusal::new(Code::Model, told(&error)))?;
        let rows = manifest.runtime.batch.and_then(|rows| usize::try_from(rows.get()).ok());
        Ok((manifest, dir, pipeline.with_rows_at_once(rows)))
    }
}

/// No panic of the engine reaches further than the bundle that caused it.
fn guarded<T>(work: impl FnOnce() -> Result<T, Obstacle>) -> Result<T, Obstacle> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Refusal::new(Code::Model, "the engine panicked on it").into()))
}
