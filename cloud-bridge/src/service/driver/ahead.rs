//! What came is read while what came before it is saved, where there is much of it: to find out whose word a message is costs
//! about as much as to keep it, and neither waits for the other.
//!
//! Decides nothing. What was read ahead counts only where it would be read the same at its turn.

use super::belief::{Believed, Heard, understand};
use crate::service::mqtt::Inbound;
use bridge_core::Bridge;
use protocol::{BridgeTopic, CommandResult, Topics};
use std::num::NonZero;
use std::thread;
use tokio::sync::mpsc;

/// Messages that are taken together: whoever asks next waits no longer than for these.
pub(super) const AT_ONCE: usize = 256;
/// For so few no thread is begun.
const FEW: usize = 8;
/// A batch is small: on a large machine more would have little to do.
const MOST_THREADS: usize = 4;

/// What came and was not taken.
pub(super) struct Ahead {
    inbound: mpsc::UnboundedReceiver<Inbound>,
    next: Vec<Coming>,
    threads: usize,
}

/// One of the news, and what was understood of it. Of what was not believed nothing is: what came before it may change that.
pub(super) struct Coming {
    pub(super) news: Inbound,
    pub(super) read: Option<Believed>,
    /// Whether it was read: what is not believed is read once more at its turn, and not again before.
    tried: bool,
}

impl Ahead {
    pub(super) fn new(inbound: mpsc::UnboundedReceiver<Inbound>) -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        Self { inbound, next: Vec::new(), threads }
    }

    /// Waits for news, and hands out what came; nothing when there will be no more. Nothing is lost when nobody waits to the
    /// end.
    pub(super) async fn come(&mut self) -> Vec<Coming> {
        if self.next.is_empty() {
            let mut news = Vec::with_capacity(AT_ONCE);
            self.inbound.recv_many(&mut news, AT_ONCE).await;
            self.next.extend(news.into_iter().map(Coming::from));
        }
        std::mem::take(&mut self.next)
    }

    /// Hands out what else came, no more than so much, without waiting.
    pub(super) fn there(&mut self, most: usize) -> Vec<Coming> {
        self.fill(most);
        let later = self.next.split_off(most.min(self.next.len()));
        std::mem::replace(&mut self.next, later)
    }

    fn fill(&mut self, most: usize) {
        while self.next.len() < most
            && let Ok(news) = self.inbound.try_recv()
        {
            self.next.push(news.into());
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.next.len() + self.inbound.len()
    }

    /// Saves, and reads meanwhile what is next: whoever waits for what is saved waits for that too, some milliseconds.
    pub(super) fn read_while<T>(&mut self, bridge: &Bridge, topics: &Topics, save: impl FnOnce() -> T) -> T {
        let known = self.next.len();
        self.fill(AT_ONCE);
        let new = &mut self.next[known..];
        if new.len() < FEW {
            return save();
        }
        let share = new.len().div_ceil(self.threads);
        thread::scope(|scope| {
            for some in new.chunks_mut(share) {
                let read = move || some.iter_mut().for_each(|coming| coming.read(bridge, topics));
                // Where there is no thread to be had it is read at its turn.
                let _ = thread::Builder::new().spawn_scoped(scope, read);
            }
            save()
        })
    }
}

impl From<Inbound> for Coming {
    fn from(news: Inbound) -> Self {
        Self { news, read: None, tried: false }
    }
}

impl Coming {
    fn read(&mut self, bridge: &Bridge, topics: &Topics) {
        self.tried = true;
        if let Inbound::Said(publish, _) = &self.news {
            let from = topics.read_up(&String::from_utf8_lossy(&publish.topic));
            self.read = from.and_then(|from| understand(bridge, &from, &publish.payload).ok());
        }
    }

    /// Reads it, if that was not done and it is an answer to a command.
    pub(super) fn read_result(&mut self, bridge: &Bridge, topics: &Topics) {
        if let (Inbound::Said(publish, _), false) = (&self.news, self.tried)
            && matches!(topics.read_up(&String::from_utf8_lossy(&publish.topic)), Some(BridgeTopic::Result(_)))
        {
            self.read(bridge, topics);
        }
    }

    /// The answer to a command that it is.
    pub(super) fn result(&self) -> Option<&CommandResult> {
        match &self.read.as_ref()?.heard {
            Heard::Result(result) => Some(result),
            Heard::Event(_) | Heard::Telemetry(_) | Heard::Drift(_) | Heard::Nothing => None,
        }
    }
}
