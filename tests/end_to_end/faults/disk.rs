//! What a power cut may leave of what the device's program wrote: its calls, replayed on a disk in memory that forgets.
//!
//! Decides what is durable when, and what may become of the rest: a name that was not made durable is kept or lost, a
//! content that was not is kept, lost or torn in half. `store::sweep` of the agent asks the same of its own door to the
//! disk; here it is asked of what the system was really told.

use super::trace::Call;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file or folder, whatever its name is; the state folder is the first.
type Id = usize;

#[derive(Debug, Clone)]
enum Node {
    File { durable: Vec<u8>, mode: u32 },
    Folder { names: BTreeMap<String, Id> },
}

/// Something that was not made durable.
#[derive(Debug, Clone)]
enum Doubt {
    Made { dir: Id, name: String, node: Id },
    Moved { from: (Id, String), to: (Id, String), node: Id },
    Removed { dir: Id, name: String },
    Written { node: Id, at: usize, bytes: Vec<u8> },
    Sized { node: Id, size: usize },
}

impl Doubt {
    /// What has to be synced for it. A move is one act: its target's folder.
    fn home(&self) -> Id {
        match self {
            Doubt::Made { dir, .. } | Doubt::Removed { dir, .. } => *dir,
            Doubt::Moved { to, .. } => to.0,
            Doubt::Written { node, .. } | Doubt::Sized { node, .. } => *node,
        }
    }

    /// Whether it gave `node` this name.
    fn leads(&self, node: Id, place: &(Id, String)) -> bool {
        match self {
            Doubt::Made { dir, name, node: made } => (*dir, name, *made) == (place.0, &place.1, node),
            Doubt::Moved { to, node: moved, .. } => (to, *moved) == (place, node),
            Doubt::Removed { .. } | Doubt::Written { .. } | Doubt::Sized { .. } => false,
        }
    }
}

/// What becomes of a doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// Ways of a power cut that chance chooses, at each moment.
const BY_CHANCE: usize = 8;

/// A disk while a program writes to it.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    doubts: Vec<Doubt>,
    /// Where each path leads as the program sees it.
    now: BTreeMap<PathBuf, Id>,
}

/// What was left: the content and mode of each file, and the folders, by their path in the state folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Left {
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
}

impl Disk {
    /// A disk at rest: what lies in `from`, for a program that calls it `root`.
    pub(super) fn at_rest(from: &Path, root: &Path) -> Self {
        let mut disk = Self { root: root.into(), nodes: Vec::new(), doubts: Vec::new(), now: BTreeMap::new() };
        disk.take_in(from, PathBuf::new());
        disk
    }

    fn take_in(&mut self, from: &Path, path: PathBuf) -> Id {
        let (node, found) = (self.nodes.len(), fs::metadata(from).unwrap());
        self.now.insert(path.clone(), node);
        if found.is_file() {
            let mode = found.permissions().mode();
            self.nodes.push(Node::File { durable: fs::read(from).unwrap(), mode });
            return node;
        }
        self.nodes.push(Node::Folder { names: BTreeMap::new() });
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let child = self.take_in(&from.join(&name), path.join(&name));
            let Node::Folder { names } = &mut self.nodes[node] else { unreachable!("it was just made") };
            names.insert(name, child);
        }
        node
    }

    /// One call that did what it was asked for.
    pub(super) fn take(&mut self, call: &Call) {
        let paths = call.paths();
        let within = |path: &String| Path::new(path).strip_prefix(&self.root).ok().map(Path::to_owned);
        let Some(path) = paths.first().and_then(within) else { return };
        match call.name.as_str() {
            "openat" if call.writes() => {
                if !self.now.contains_key(&path) {
                    let mode = if call.arguments.ends_with("0600") { 0o600 } else { 0o644 };
                    self.make(path, Node::File { durable: Vec::new(), mode });
                } else if call.arguments.contains("O_TRUNC") {
                    self.doubts.push(Doubt::Sized { node: self.now[&path], size: 0 });
                }
            }
            "openat" => {}
            "pwrite64" => {
                let (at, bytes) = call.content().expect("a content that strace wrote whole");
                let at = usize::try_from(at).unwrap();
                self.doubts.push(Doubt::Written { node: self.now[&path], at, bytes });
            }
            "ftruncate" => {
                let (_, size) = call.arguments.rsplit_once(", ").unwrap();
                self.doubts.push(Doubt::Sized { node: self.now[&path], size: size.parse().unwrap() });
            }
            "mkdir" => self.make(path, Node::Folder { names: BTreeMap::new() }),
            "rename" => {
                let to = within(&paths[1]).expect("nothing leaves the state folder");
                let node = self.now.remove(&path).unwrap();
                self.doubts.push(Doubt::Moved { from: self.place(&path), to: self.place(&to), node });
                let below: Vec<PathBuf> = self.now.keys().filter(|p| p.starts_with(&path)).cloned().collect();
                for old in below {
                    let id = self.now.remove(&old).unwrap();
                    self.now.insert(to.join(old.strip_prefix(&path).unwrap()), id);
                }
                self.now.insert(to, node);
            }
            "unlink" | "unlinkat" | "rmdir" => {
                assert!(self.now.remove(&path).is_some(), "{} is not there", path.display());
                let (dir, name) = self.place(&path);
                self.doubts.push(Doubt::Removed { dir, name });
            }
            "fsync" | "fdatasync" => self.sync(self.now[&path]),
            other => panic!("the device's program makes a call that is not known here: {other}({})", call.arguments),
        }
    }

    fn place(&self, path: &Path) -> (Id, String) {
        (self.now[path.parent().unwrap()], path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn make(&mut self, path: PathBuf, node: Node) {
        let (dir, name) = self.place(&path);
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        self.doubts.push(Doubt::Made { dir, name, node });
        self.now.insert(path, node);
    }

    fn sync(&mut self, node: Id) {
        let doubts = std::mem::take(&mut self.doubts);
        let (certain, doubts): (Vec<Doubt>, _) = doubts.into_iter().partition(|doubt| doubt.home() == node);
        self.doubts = doubts;
        for doubt in &certain {
            // Nothing is in two places: where it was before, it is no more.
            if let Doubt::Moved { from, node, .. } = doubt {
                self.doubts.retain(|earlier| !earlier.leads(*node, from));
            }
        }
        certain.iter().for_each(|doubt| settle(&mut self.nodes, doubt, Fate::Kept));
    }

    /// How many ways there are for a power cut now: nothing or all of what is in doubt is kept, all but one thing, one
    /// thing alone, each writing torn, and some that chance chooses.
    pub(super) fn ways(&self) -> usize {
        2 + self.doubts.len() * 3 + self.doubts.len().min(BY_CHANCE)
    }

    /// What is left by one of them.
    pub(super) fn way(&self, way: usize, dice: &mut fastrand::Rng) -> Left {
        let all = self.doubts.len();
        let but_for = |at: usize, others, this| {
            let mut fates = vec![others; all];
            fates[at] = this;
            fates
        };
        let fates = match way {
            0 => vec![Fate::Kept; all],
            1 => vec![Fate::Lost; all],
            way if way < 2 + all => but_for(way - 2, Fate::Kept, Fate::Lost),
            way if way < 2 + all * 2 => but_for(way - 2 - all, Fate::Lost, Fate::Kept),
            way if way < 2 + all * 3 => but_for(way - 2 - all * 2, Fate::Kept, Fate::Torn),
            _ => (0..all).map(|_| [Fate::Kept, Fate::Lost, Fate::Torn][dice.usize(..3)]).collect(),
        };
        self.cut(&fates)
    }

    fn cut(&self, fates: &[Fate]) -> Left {
        let mut nodes = self.nodes.clone();
        for (doubt, fate) in self.doubts.iter().zip(fates) {
            settle(&mut nodes, doubt, *fate);
        }
        let mut left = Left { folders: BTreeSet::new(), files: BTreeMap::new() };
        left.reach(&nodes, 0, Path::new(""));
        left
    }
}

fn settle(nodes: &mut [Node], doubt: &Doubt, fate: Fate) {
    let mut name = |dir: Id, name: &String, node: Option<Id>| {
        let Node::Folder { names } = &mut nodes[dir] else { unreachable!("a file holds no names") };
        match node {
            Some(node) => names.insert(name.clone(), node),
            None => names.remove(name),
        };
    };
    match (doubt, fate) {
        (_, Fate::Lost) => {}
        (Doubt::Made { dir, name: made, node }, _) => name(*dir, made, Some(*node)),
        (Doubt::Removed { dir, name: gone }, _) => name(*dir, gone, None),
        (Doubt::Moved { from, to, node }, _) => {
            name(from.0, &from.1, None);
            name(to.0, &to.1, Some(*node));
        }
        (Doubt::Sized { node, size }, _) => content(nodes, *node).resize(*size, 0),
        (Doubt::Written { node, at, bytes }, fate) => {
            let bytes = if fate == Fate::Torn { &bytes[..bytes.len() / 2] } else { &bytes[..] };
            let content = content(nodes, *node);
            content.resize(content.len().max(at + bytes.len()), 0);
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

fn content(nodes: &mut [Node], node: Id) -> &mut Vec<u8> {
    let Node::File { durable, .. } = &mut nodes[node] else { unreachable!("a folder has no content") };
    durable
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.iter().map(|(path, (content, _))| format!("{} {}", path.display(), content.len()));
        f.write_str(&files.collect::<Vec<_>>().join(", "))
    }
}

impl Left {
    fn reach(&mut self, nodes: &[Node], node: Id, path: &Path) {
        match &nodes[node] {
            Node::File { durable, mode } => drop(self.files.insert(path.into(), (durable.clone(), *mode))),
            Node::Folder { names } => {
                self.folders.insert(path.into());
                names.iter().for_each(|(name, node)| self.reach(nodes, *node, &path.join(name)));
            }
        }
    }

    /// What tells it from others.
    pub(super) fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Lays it out as a folder, in the place of what is there.
    pub(super) fn lay_out(&self, at: &Path) {
        let _ = fs::remove_dir_all(at);
        for folder in &self.folders {
            fs::create_dir_all(at.join(folder)).unwrap();
        }
        for (path, (content, mode)) in &self.files {
            fs::write(at.join(path), content).unwrap();
            fs::set_permissions(at.join(path), fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}
