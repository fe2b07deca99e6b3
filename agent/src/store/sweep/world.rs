//! What a disk in memory holds: what is read from it now, what would outlive a power cut, and what lies
//! between the two.
//!
//! Decides what may be left after a power cut: names that were not made durable are kept or lost each on
//! its own, writes are kept, lost or torn in half. It knows no errors and no order of events.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Component, Path};
use std::sync::Arc;

/// A file or folder, whatever its name is.
pub(super) type Id = usize;

const ROOT: Id = 0;

#[derive(Debug, Clone)]
pub(super) enum Node {
    File { now: Arc<Vec<u8>>, durable: Arc<Vec<u8>>, pending: Vec<Change>, mode: u32 },
    Folder { now: BTreeMap<OsString, Id>, durable: BTreeMap<OsString, Id> },
}

/// A change of a file that was not synced.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write(usize, Arc<Vec<u8>>),
    Size(usize),
}

/// A change of names that was not synced.
#[derive(Debug, Clone)]
pub(super) enum Naming {
    Made { dir: Id, name: OsString, node: Id },
    Moved { from: (Id, OsString), to: (Id, OsString), node: Id },
    Removed { dir: Id, name: OsString, node: Id },
}

impl Naming {
    /// The folder whose sync makes it durable. A move is one act: it is so when its target is.
    fn home(&self) -> Id {
        match self {
            Naming::Made { dir, .. } | Naming::Removed { dir, .. } => *dir,
            Naming::Moved { to, .. } => to.0,
        }
    }

    /// Whether it gave `node` this name.
    fn leads(&self, node: Id, (dir, name): &(Id, OsString)) -> bool {
        match self {
            Naming::Made { dir: at, name: by, node: made } => (at, by, made) == (dir, name, &node),
            Naming::Moved { to, node: moved, .. } => (&to.0, &to.1, moved) == (dir, name, &node),
            Naming::Removed { .. } => false,
        }
    }
}

/// Everything.
#[derive(Debug, Clone)]
pub(super) struct World {
    nodes: Vec<Node>,
    namings: Vec<Naming>,
}

fn folder() -> Node {
    Node::Folder { now: BTreeMap::new(), durable: BTreeMap::new() }
}

fn change(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Size(size) => content.resize(*size, 0),
        Change::Write(offset, bytes) => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
    }
}

impl World {
    /// An empty root folder.
    pub(super) fn new() -> Self {
        Self { nodes: vec![folder()], namings: Vec::new() }
    }

    pub(super) fn find(&self, path: &Path) -> Option<Id> {
        path.components().filter_map(named).try_fold(ROOT, |at, name| self.names(at)?.get(name).copied())
    }

    /// The names in a folder now; `None` for a file.
    pub(super) fn names(&self, dir: Id) -> Option<&BTreeMap<OsString, Id>> {
        match &self.nodes[dir] {
            Node::Folder { now, .. } => Some(now),
            Node::File { .. } => None,
        }
    }

    /// What is read from a file now, and its mode; `None` for a folder.
    pub(super) fn content(&self, file: Id) -> Option<(&Arc<Vec<u8>>, u32)> {
        match &self.nodes[file] {
            Node::File { now, mode, .. } => Some((now, *mode)),
            Node::Folder { .. } => None,
        }
    }

    pub(super) fn make(&mut self, dir: Id, name: &OsStr, mode: Option<u32>) -> Id {
        let node = self.nodes.len();
        let empty = Arc::new(Vec::new());
        self.nodes.push(mode.map_or_else(folder, |mode| Node::File {
            now: empty.clone(),
            durable: empty,
            pending: Vec::new(),
            mode,
        }));
        self.rename_now(dir, name, Some(node));
        self.namings.push(Naming::Made { dir, name: name.to_owned(), node });
        node
    }

    pub(super) fn remove(&mut self, dir: Id, name: &OsStr, node: Id) {
        self.rename_now(dir, name, None);
        self.namings.push(Naming::Removed { dir, name: name.to_owned(), node });
    }

    pub(super) fn rename(&mut self, from: (Id, &OsStr), to: (Id, &OsStr), node: Id) {
        self.rename_now(from.0, from.1, None);
        self.rename_now(to.0, to.1, Some(node));
        let (from, to) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        self.namings.push(Naming::Moved { from, to, node });
    }

    fn rename_now(&mut self, dir: Id, name: &OsStr, node: Option<Id>) {
        let Node::Folder { now, .. } = &mut self.nodes[dir] else { panic!("a file holds no names") };
        match node {
            Some(node) => now.insert(name.to_owned(), node),
            None => now.remove(name),
        };
    }

    pub(super) fn change(&mut self, file: Id, by: Change) {
        let Node::File { now, pending, .. } = &mut self.nodes[file] else { panic!("a folder holds no bytes") };
        change(Arc::make_mut(now), &by);
        pending.push(by);
    }

    /// What was changed is durable; or, when the disk `lost` it, can be read until the power goes.
    pub(super) fn sync(&mut self, file: Id, lost: bool) {
        let Node::File { durable, pending, .. } = &mut self.nodes[file] else { return };
        for by in pending.drain(..).filter(|_| !lost) {
            change(Arc::make_mut(durable), &by);
        }
    }

    pub(super) fn sync_dir(&mut self, dir: Id) {
        let mut rest: Vec<Naming> = Vec::new();
        for naming in std::mem::take(&mut self.namings) {
            if naming.home() != dir {
                rest.push(naming);
                continue;
            }
            self.settle(&naming);
            // What was moved away durably is not at the place where it was before, whatever was not
            // durable of how it came there.
            let Naming::Moved { from, node, .. } = naming else { continue };
            let mut left = from;
            while let Some(at) = rest.iter().rposition(|earlier| earlier.leads(node, &left)) {
                let Naming::Moved { from, .. } = rest.remove(at) else { break };
                self.forget(&from, node);
                left = from;
            }
        }
        self.namings = rest;
    }

    fn durable(&mut self, dir: Id) -> &mut BTreeMap<OsString, Id> {
        let Node::Folder { durable, .. } = &mut self.nodes[dir] else { panic!("a file holds no names") };
        durable
    }

    fn settle(&mut self, naming: &Naming) {
        match naming {
            Naming::Made { dir, name, node } => drop(self.durable(*dir).insert(name.clone(), *node)),
            Naming::Removed { dir, name, node } => self.forget(&(*dir, name.clone()), *node),
            Naming::Moved { from, to, node } => {
                self.forget(from, *node);
                self.durable(to.0).insert(to.1.clone(), *node);
            }
        }
    }

    fn forget(&mut self, (dir, name): &(Id, OsString), node: Id) {
        if self.durable(*dir).get(name) == Some(&node) {
            self.durable(*dir).remove(name);
        }
    }

    /// In how many ways each thing that is in doubt may end: two, or three for what can be torn.
    pub(super) fn doubts(&self) -> Vec<u32> {
        let changes = self.doubtful().into_iter().flat_map(|file| self.pending(file).iter().map(ways));
        self.namings.iter().map(|_| 2).chain(changes).collect()
    }

    /// What is left when the power goes: `choice` says of each doubt whether it was lost (0), kept (1)
    /// or torn (2).
    pub(super) fn cut(&self, choice: &[u32]) -> World {
        let mut left = self.clone();
        let (names, contents) = choice.split_at(self.namings.len());
        for (naming, _) in left.namings.split_off(0).iter().zip(names).filter(|(_, kept)| **kept > 0) {
            left.settle(naming);
        }
        let mut contents = contents.iter();
        for file in self.doubtful() {
            for (by, fate) in self.pending(file).iter().zip(&mut contents) {
                let Node::File { durable, .. } = &mut left.nodes[file] else { continue };
                match (fate, by) {
                    (0, _) => {}
                    (2, Change::Write(offset, bytes)) => {
                        let half = Change::Write(*offset, Arc::new(bytes[..bytes.len() / 2].to_vec()));
                        change(Arc::make_mut(durable), &half);
                    }
                    _ => change(Arc::make_mut(durable), by),
                }
            }
        }
        for node in &mut left.nodes {
            match node {
                Node::File { now, durable, pending, .. } => {
                    pending.clear();
                    *now = durable.clone();
                }
                Node::Folder { now, durable } => now.clone_from(durable),
            }
        }
        left
    }

    fn pending(&self, file: Id) -> &[Change] {
        match &self.nodes[file] {
            Node::File { pending, .. } => pending,
            Node::Folder { .. } => &[],
        }
    }

    /// Files with changes that were not synced, and that a name may lead to.
    fn doubtful(&self) -> BTreeSet<Id> {
        let named = self.nodes.iter().flat_map(|node| match node {
            Node::Folder { now, durable } => now.values().chain(durable.values()).copied().collect(),
            Node::File { .. } => Vec::new(),
        });
        let moved = self.namings.iter().map(|naming| match naming {
            Naming::Made { node, .. } | Naming::Moved { node, .. } | Naming::Removed { node, .. } => *node,
        });
        named.chain(moved).filter(|node| !self.pending(*node).is_empty()).collect()
    }

    /// Every file that is read now, by its path.
    pub(super) fn files(&self) -> BTreeMap<String, Arc<Vec<u8>>> {
        let mut found = BTreeMap::new();
        self.walk(ROOT, String::new(), &mut found);
        found
    }

    fn walk(&self, at: Id, path: String, found: &mut BTreeMap<String, Arc<Vec<u8>>>) {
        match &self.nodes[at] {
            Node::File { now, .. } => drop(found.insert(path, now.clone())),
            Node::Folder { now, .. } => {
                for (name, node) in now {
                    self.walk(*node, format!("{path}/{}", name.to_string_lossy()), found);
                }
            }
        }
    }

    /// A number for all that is read now, and for all that would be after a power cut.
    pub(super) fn print(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        self.files().hash(&mut hash);
        self.folders(ROOT, &mut hash);
        self.doubts().hash(&mut hash);
        hash.finish()
    }

    fn folders(&self, at: Id, hash: &mut DefaultHasher) {
        for (name, node) in self.names(at).into_iter().flatten() {
            name.hash(hash);
            self.folders(*node, hash);
        }
    }

    /// Flips a bit of a file, as worn flash does.
    pub(super) fn flip(&mut self, path: &Path, byte: usize, bit: u32) {
        let id = self.find(path).expect("a file to damage");
        let Node::File { now, durable, .. } = &mut self.nodes[id] else { panic!("a folder has no bits") };
        for content in [now, durable] {
            Arc::make_mut(content)[byte] ^= 1 << bit;
        }
    }
}

fn ways(of: &Change) -> u32 {
    match of {
        Change::Write(_, bytes) if bytes.len() > 1 => 3,
        Change::Write(..) | Change::Size(_) => 2,
    }
}

fn named(component: Component<'_>) -> Option<&OsStr> {
    match component {
        Component::Normal(name) => Some(name),
        Component::RootDir | Component::CurDir | Component::Prefix(_) | Component::ParentDir => None,
    }
}
