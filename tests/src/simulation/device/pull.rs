//! How a modelled device pulls a bundle: by the real window and the real flow, from a broker that may refuse.

use super::super::broker::{Link, Payload, Topic};
use super::super::scenario::Millis;
use super::super::world::World;
use super::Job;
use agent_core::{Late, Wait, Window};
use trust::Digest;

/// Chunks on their way at most.
pub(super) const WINDOW: usize = 32;
/// Between two looks at what is late.
pub(super) const LOOK: std::ops::Range<Millis> = 500..600;

/// Whether the bulk of a bundle may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Unknown,
    Asked,
    Given,
}

/// A bundle that is fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) size: u64,
    /// For its envelope.
    pub(super) wait: Wait,
    pub(super) admission: Admission,
    /// Absent until it is known what it lacks.
    pub(super) window: Option<Window>,
}

impl World {
    /// Subscribes to what is missing of a bundle, or says that nothing is.
    pub(super) fn fetch_on(&mut self, device: usize, bundle: Digest) {
        let root = self.library.signer.root();
        let Some(folder) = self.devices[device].folders.get(&bundle) else { return };
        let missing = folder.missing(root, &mut self.believed);
        if missing.as_ref().is_some_and(Vec::is_empty) {
            return self.hand_on(device, 5..100, Job::Stored(bundle));
        }
        let (manifest, described) =
            (folder.manifest(root, &mut self.believed), folder.described(root, &mut self.believed).is_some());
        let now = self.now;
        let Some(process) = self.devices[device].process.as_mut() else { return };
        if let Some(fetch) = process.fetching.get_mut(&bundle).filter(|f| described && f.admission != Admission::Given)
        {
            if std::mem::replace(&mut fetch.admission, Admission::Asked) == Admission::Unknown {
                self.hand_on(device, 1..20, Job::Describe(bundle));
            }
            return;
        }
        let Some(link) = process.link else { return };
        let share = (process.flow.size() / process.fetching.len().max(1)).max(1);
        let Some(fetch) = process.fetching.get_mut(&bundle) else { return };
        let Some(chunks) = missing else {
            // Where there is no room it is late, and then asked for again.
            self.subscribe(device, link, Topic::Envelope(bundle));
            return;
        };
        let window = fetch.window.get_or_insert_with(|| {
            let mut window = Window::default();
            let first = fetch.admission != Admission::Given;
            let wanted = chunks.into_iter().filter(|chunk| !first || Some(*chunk) == manifest);
            wanted.for_each(|chunk| window.want(chunk));
            window
        });
        let asked = window.ask(now, &mut process.flow, share);
        self.ask_for(device, link, asked);
    }

    /// Subscribes to chunks; those that the broker does not take wait for room.
    pub(super) fn ask_for(&mut self, device: usize, link: Link, chunks: Vec<Digest>) {
        for chunk in chunks {
            if self.subscribe(device, link, Topic::Chunk(chunk)) {
                continue;
            }
            let Some(process) = self.devices[device].process.as_mut() else { return };
            let windows = process.fetching.values_mut().filter_map(|fetch| fetch.window.as_mut());
            let held = windows.map(|window| {
                window.turned_down(chunk);
                window.asked().len()
            });
            process.flow.turned_down(held.sum());
        }
    }

    /// What came is not listened to any more, and tells of the link.
    pub(super) fn chunk_came(&mut self, device: usize, chunk: Digest, bytes: &[u8], retained: bool) {
        let now = self.now;
        let Some(process) = self.devices[device].process.as_mut() else { return };
        if Digest::of(bytes) != chunk {
            return;
        }
        for window in process.fetching.values_mut().filter_map(|fetch| fetch.window.as_mut()) {
            let Some(wait) = window.awaits(chunk) else { continue };
            window.arrived(chunk);
            process.flow.arrived(now, wait, retained);
        }
        self.broker.unsubscribe(device, Topic::Chunk(chunk));
    }

    /// Asks again for what is late: the broker, and then land.
    pub(super) fn look(&mut self, device: usize, bundle: Digest) {
        let now = self.now;
        let Some(process) = self.devices[device].process.as_mut() else { return };
        if !process.fetching.contains_key(&bundle) {
            return;
        }
        self.hand_on(device, LOOK, Job::Look(bundle));
        let Some(process) = self.devices[device].process.as_mut() else { return };
        let (Some(link), Some(fetch)) = (process.link, process.fetching.get_mut(&bundle)) else { return };
        let Late { again, needed } = match &mut fetch.window {
            Some(window) => window.late(now, &process.flow),
            None => Late::default(),
        };
        let documents = match fetch.window {
            Some(_) => None,
            None => fetch.wait.is_over(now, &process.flow, bundle),
        };
        if documents.is_some() {
            self.subscribe(device, link, Topic::Envelope(bundle));
        }
        self.ask_for(device, link, again);
        let documents = documents == Some(true);
        if documents || !needed.is_empty() {
            self.say(device, Topic::Need(device), Payload::Need { bundle, documents, chunks: needed }, None);
        }
        self.fetch_on(device, bundle);
    }
}
