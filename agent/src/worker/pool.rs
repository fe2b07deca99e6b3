//! A few threads for inference, with a queue of limited length: a burst waits a little or is turned
//! away, and never eats the memory.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tokio::sync::oneshot;

/// How nice a thread is whose work can wait.
const PATIENT: i32 = 10;
/// Requests that may wait.
const QUEUE: usize = 64;
/// More threads than these only take memory from the models.
const MAX_THREADS: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// The calling thread does what can wait: answers go first. (For Linux a thread is what has a priority.)
pub(crate) fn let_answers_pass() {
    // Where it is refused, answers wait a little longer.
    let _ = rustix::process::setpriority_process(None, PATIENT);
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// The threads end when the last clone of this is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    jobs: SyncSender<Job>,
}

impl Pool {
    /// One thread for each processor, up to four.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        Self::with(Self::threads(), QUEUE)
    }

    /// How many those are.
    pub(crate) fn threads() -> usize {
        thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
    }

    fn with(threads: usize, queue: usize) -> io::Result<Self> {
        let (jobs, inbox) = sync_channel(queue);
        let inbox = Arc::new(Mutex::new(inbox));
        for n in 0..threads {
            let inbox = inbox.clone();
            thread::Builder::new().name(format!("petrel-infer-{n}")).spawn(move || work(&inbox))?;
        }
        Ok(Self { jobs })
    }

    /// Runs `job` on one of the threads; its outcome comes through what is returned, or nothing when
    /// it panicked.
    ///
    /// # Errors
    /// `Busy` when too many wait already.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Busy> {
        let (done, outcome) = oneshot::channel();
        let job = move || drop(done.send(job()));
        match self.jobs.try_send(Box::new(job)) {
            Ok(()) => Ok(outcome),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Busy),
        }
    }
}

fn work(inbox: &Mutex<Receiver<Job>>) {
    loop {
        // Waiting with the lock held is how the others wait in line.
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a request made the agent panic; it goes on, please report it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_full_queue_turns_away_and_a_panic_is_survived() {
        let pool = Pool::with(1, 1).unwrap();
        let (release, held) = channel::<()>();
        let (began, begun) = channel();
        let first = pool.run(move || {
            began.send(()).unwrap();
            held.recv().unwrap();
            1
        });
        begun.recv().unwrap();
        let second = pool.run(|| panic!("on purpose"));
        let third: Result<oneshot::Receiver<()>, Busy> = pool.run(|| ());
        assert_eq!(third.err(), Some(Busy));
        release.send(()).unwrap();
        assert_eq!(first.unwrap().blocking_recv(), Ok(1));
        let panicked: Result<(), _> = second.unwrap().blocking_recv();
        assert!(panicked.is_err());
        assert_eq!(pool.run(|| 2).unwrap().blocking_recv(), Ok(2));
    }
}
