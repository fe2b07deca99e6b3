//! The storage door to a world in memory: it counts what is asked of it, keeps a journal, and fails
//! when it was told to.
//!
//! Decides what a failure looks like to the one who asked. What is lost with the power is decided by
//! `world`; when something fails, by the sweep.

use super::world::{Change, Id, World};
use crate::store::disk::{Disk, DiskFile, How, Kind, Look, Names};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// What is asked of the disk, as far as its failures differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// Nothing changes.
    Read,
    /// A name is made, moved or removed, or a size is set.
    Change,
    /// Bytes are written.
    Write,
    /// A content is made durable.
    Sync,
    /// Names are made durable.
    SyncDir,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It fails once.
    Once(Errno),
    /// It and everything after it that changes the disk fails, until it is healed.
    From(Errno),
    /// Half of the bytes are written, and for the rest there is no room.
    Short,
}

/// How large the disk says it is.
const ROOM: u64 = 1 << 30;

#[derive(Debug)]
struct Inner {
    world: World,
    asked: Vec<Asked>,
    plan: Option<(usize, Trouble)>,
    /// Fails until it is healed.
    broken: Option<Errno>,
    /// The next write finds no room.
    full: bool,
    struck: bool,
    journal: Option<Vec<World>>,
}

/// A disk in memory.
#[derive(Debug, Clone)]
pub(super) struct Sim(Arc<Mutex<Inner>>);

impl Sim {
    pub(super) fn of(world: World) -> Self {
        let (asked, journal) = (Vec::new(), None);
        let inner = Inner { world, asked, plan: None, broken: None, full: false, struck: false, journal };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics inside the disk")
    }

    /// What it holds.
    pub(super) fn world(&self) -> World {
        self.inner().world.clone()
    }

    /// From now on every state is kept.
    pub(super) fn record(&self) {
        let mut inner = self.inner();
        inner.journal = Some(vec![inner.world.clone()]);
    }

    /// Every state since it was recorded.
    pub(super) fn journal(&self) -> Vec<World> {
        self.inner().journal.clone().unwrap_or_default()
    }

    /// The number of the newest state in the journal.
    pub(super) fn moment(&self) -> usize {
        self.inner().journal.as_ref().map_or(0, |journal| journal.len() - 1)
    }

    /// What was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.inner().asked.clone()
    }

    /// The event of this number will go wrong.
    pub(super) fn plan(&self, event: usize, trouble: Trouble) {
        self.inner().plan = Some((event, trouble));
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&self) {
        let mut inner = self.inner();
        (inner.plan, inner.broken, inner.full) = (None, None, false);
    }

    /// Whether the planned trouble came.
    pub(super) fn was_struck(&self) -> bool {
        self.inner().struck
    }
}

impl Inner {
    /// Counts an event, and lets it fail when its time has come. A short write comes back as `Ok(true)`.
    fn event(&mut self, asked: Asked) -> io::Result<bool> {
        let number = self.asked.len();
        self.asked.push(asked);
        let planned = self.plan.filter(|(at, _)| *at == number).map(|(_, trouble)| trouble);
        self.struck |= planned.is_some();
        let errno = match planned {
            Some(Trouble::Once(errno)) => Some(errno),
            Some(Trouble::From(errno)) => {
                self.broken = Some(errno);
                Some(errno)
            }
            Some(Trouble::Short) => {
                self.full = true;
                return Ok(true);
            }
            None if asked == Asked::Write && std::mem::take(&mut self.full) => Some(Errno::NOSPC),
            None => self.broken.filter(|_| asked != Asked::Read),
        };
        errno.map_or(Ok(false), |errno| Err(errno.into()))
    }

    fn keep(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.push(self.world.clone());
        }
    }

    fn find(&self, path: &Path) -> io::Result<Id> {
        self.world.find(path).ok_or_else(|| Errno::NOENT.into())
    }

    fn parent<'p>(&self, path: &'p Path) -> io::Result<(Id, &'p OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let dir = self.find(path.parent().ok_or(Errno::INVAL)?)?;
        self.world.names(dir).ok_or(Errno::NOTDIR)?;
        Ok((dir, name))
    }

    fn make(&mut self, path: &Path, mode: Option<u32>) -> io::Result<Id> {
        let (dir, name) = self.parent(path)?;
        self.event(Asked::Change)?;
        let made = self.world.make(dir, name, mode);
        self.keep();
        Ok(made)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let node = self.find(path)?;
        self.event(Asked::Change)?;
        self.world.remove(dir, name, node);
        self.keep();
        Ok(())
    }

    fn kind(&self, node: Id) -> Kind {
        if self.world.names(node).is_some() { Kind::Folder } else { Kind::File }
    }

    fn remove_tree(&mut self, dir: &Path) -> io::Result<()> {
        let node = self.find(dir)?;
        let names: Vec<_> = self.world.names(node).ok_or(Errno::NOTDIR)?.clone().into_iter().collect();
        for (name, node) in names {
            match self.kind(node) {
                Kind::Folder => self.remove_tree(&dir.join(name))?,
                Kind::File | Kind::Other => self.remove(&dir.join(name))?,
            }
        }
        self.remove(dir)
    }
}

impl Disk for Sim {
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner();
        let found = inner.find(path);
        let id = match (how, found) {
            (How::Secret, Ok(_)) => return Err(Errno::EXIST.into()),
            (How::Secret, Err(_)) => inner.make(path, Some(0o600))?,
            (How::Fresh | How::Keep, Err(_)) => inner.make(path, Some(0o644))?,
            (How::Fresh, Ok(id)) => {
                inner.event(Asked::Change)?;
                inner.world.change(id, Change::Size(0));
                inner.keep();
                id
            }
            (How::Read | How::Write | How::Keep, found) => {
                inner.event(Asked::Read)?;
                found?
            }
        };
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        let mut inner = self.inner();
        inner.event(Asked::Read)?;
        let id = inner.find(path)?;
        let (size, mode) = inner.world.content(id).map_or((0, 0o755), |(c, mode)| (c.len() as u64, mode));
        Ok(Look { kind: inner.kind(id), size, mode })
    }

    fn list(&self, dir: &Path) -> io::Result<Names> {
        let mut inner = self.inner();
        inner.event(Asked::Read)?;
        let id = inner.find(dir)?;
        let names = inner.world.names(id).ok_or(Errno::NOTDIR)?;
        let found: Vec<_> = names.iter().map(|(name, node)| Ok((name.clone(), inner.kind(*node)))).collect();
        Ok(Box::new(found.into_iter()))
    }

    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let mut path = PathBuf::new();
        for part in dir.components() {
            path.push(part);
            match inner.find(&path) {
                Ok(id) => drop(inner.world.names(id).ok_or(Errno::NOTDIR)?),
                Err(_) => drop(inner.make(&path, None)?),
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let (source, target, node) = (inner.parent(from)?, inner.parent(to)?, inner.find(from)?);
        let filled = |id: Id| inner.world.names(id).is_some_and(|names| !names.is_empty());
        if inner.find(to).is_ok_and(filled) {
            return Err(Errno::NOTEMPTY.into());
        }
        inner.event(Asked::Change)?;
        inner.world.rename(source, target, node);
        inner.keep();
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner().remove(path)
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        self.inner().remove_tree(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let id = inner.find(dir)?;
        inner.event(Asked::SyncDir)?;
        inner.world.sync_dir(id);
        inner.keep();
        Ok(())
    }

    fn free(&self, _dir: &Path) -> io::Result<u64> {
        self.inner().event(Asked::Read)?;
        Ok(ROOM)
    }
}

struct SimFile {
    disk: Sim,
    id: Id,
}

impl SimFile {
    fn content(&self, inner: &Inner) -> io::Result<Arc<Vec<u8>>> {
        Ok(inner.world.content(self.id).ok_or(Errno::ISDIR)?.0.clone())
    }
}

fn place(at: u64) -> usize {
    usize::try_from(at).expect("tests write small files")
}

impl DiskFile for SimFile {
    fn read_at(&self, piece: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        inner.event(Asked::Read)?;
        let content = self.content(&inner)?;
        let rest = content.get(place(offset)..).unwrap_or_default();
        let found = rest.len().min(piece.len());
        piece[..found].copy_from_slice(&rest[..found]);
        Ok(found)
    }

    fn write_at(&self, piece: &[u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        let short = inner.event(Asked::Write)?;
        let written = if short { piece.len() / 2 } else { piece.len() };
        let bytes = Arc::new(piece[..written].to_vec());
        inner.world.change(self.id, Change::Write(place(offset), bytes));
        inner.keep();
        Ok(written)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        if self.content(&inner)?.len() == place(size) {
            return Ok(());
        }
        inner.event(Asked::Change)?;
        inner.world.change(self.id, Change::Size(place(size)));
        inner.keep();
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let mut inner = self.disk.inner();
        inner.event(Asked::Read)?;
        Ok(self.content(&inner)?.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let done = inner.event(Asked::Sync);
        inner.world.sync(self.id, done.is_err());
        inner.keep();
        done.map(drop)
    }
}
