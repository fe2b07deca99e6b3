//! The storage door: everything that the agent writes goes through it, and so can be made to fail.
//!
//! Decides what the agent asks of a file system, and how a file is replaced so that a power cut leaves
//! the old one or the new one. It knows nothing of what is written. Beside the system's own disk there
//! is one in memory, for tests, that forgets whatever was not made durable (`store::sweep`).

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

/// A disk that several hands share.
pub(crate) type Door = Arc<dyn Disk>;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// To read what is there.
    Read,
    /// To change what is there.
    Write,
    /// To read and change what is there; made when it is not.
    Keep,
    /// To write it anew: made, or emptied.
    Fresh,
    /// The same, readable by its owner alone; it must not be there yet.
    Secret,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A link, a device, a pipe: nothing that the agent made.
    Other,
}

/// What is known of a file without opening it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// What it is; links are followed.
    pub(crate) kind: Kind,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Who may do what, the nine bits.
    pub(crate) mode: u32,
}

/// The names in a folder and what they stand for; links are not followed.
pub(crate) type Names = Box<dyn Iterator<Item = io::Result<(OsString, Kind)>>>;

/// What the agent asks of a file system. A name that was made, moved or removed is durable after
/// [`Disk::sync_dir`] of its folder, a content after [`DiskFile::sync`]; not before.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn DiskFile>>;
    /// Looks at a file or folder.
    fn look(&self, path: &Path) -> io::Result<Look>;
    /// Lists a folder, one name after the other.
    fn list(&self, dir: &Path) -> io::Result<Names>;
    /// Makes a folder and those above it, where they are not there.
    fn make_dirs(&self, dir: &Path) -> io::Result<()>;
    /// Moves a file or folder, within this disk; a file that is there already is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it; links are not followed.
    fn remove_tree(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that may still be written where `dir` lies.
    fn free(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file.
pub(crate) trait DiskFile: Send {
    /// Reads what it can; nothing at the end.
    fn read_at(&self, piece: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes what it can.
    fn write_at(&self, piece: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts or lengthens it.
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Its size.
    fn size(&self) -> io::Result<u64>;
    /// Makes the content durable. After a failure the content is lost, whatever is read from it: another
    /// sync would succeed and change nothing, so it must be written anew, into another file.
    fn sync(&self) -> io::Result<()>;
}

impl dyn Disk + '_ {
    /// A file's content, with one byte more than `limit` when it is longer: it is refused then, not cut.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, How::Read)?;
        let limit = usize::try_from(limit.saturating_add(1).min(file.size()?)).map_err(io::Error::other)?;
        let mut bytes = vec![0; limit];
        let found = file.read_up_to(&mut bytes, 0)?;
        bytes.truncate(found);
        Ok(bytes)
    }

    /// Writes a file anew. Nothing is durable, and a power cut may leave any part of it.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.open(path, How::Fresh)?.write_all_at(bytes, 0)
    }

    /// Puts a file in the place of the one that is there, if one is. Afterwards it is durable; after a
    /// failure or a power cut the old one is there or the new one, whole. `how` is [`How::Fresh`] or
    /// [`How::Secret`].
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8], how: How) -> io::Result<()> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = Path::new(&fresh);
        // A left-over may hold what the disk lost: what is written must not be put into it.
        match self.remove_file(fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.open(fresh, how)?;
        file.write_all_at(bytes, 0)?;
        file.sync()?;
        self.rename(fresh, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// Whether there is something of this name.
    pub(crate) fn has(&self, path: &Path) -> io::Result<bool> {
        match self.look(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl dyn DiskFile + '_ {
    /// Writes all of it.
    pub(crate) fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => (bytes, offset) = (&bytes[n..], offset + n as u64),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until the piece is full or the file ends; gives how much was read.
    pub(crate) fn read_up_to(&self, piece: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut found = 0;
        while found < piece.len() {
            match self.read_at(&mut piece[found..], offset + found as u64) {
                Ok(0) => break,
                Ok(n) => found += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// The disk of the system.
pub(crate) fn host() -> Door {
    Arc::new(Host)
}

/// The file system that the system shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host;

impl Disk for Host {
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        match how {
            How::Read => options.read(true),
            How::Write => options.write(true),
            How::Keep => options.read(true).write(true).create(true).truncate(false),
            How::Fresh => options.write(true).create(true).truncate(true),
            How::Secret => options.write(true).create_new(true).mode(0o600),
        };
        Ok(Box::new(options.open(path)?))
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        let found = fs::metadata(path)?;
        let mode = found.permissions().mode() & 0o777;
        Ok(Look { kind: kind(found.file_type()), size: found.len(), mode })
    }

    fn list(&self, dir: &Path) -> io::Result<Names> {
        let named = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok((entry.file_name(), kind(entry.file_type()?)))
        };
        Ok(Box::new(fs::read_dir(dir)?.map(named)))
    }

    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(dir)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
}

fn kind(of: fs::FileType) -> Kind {
    match (of.is_file(), of.is_dir()) {
        (true, _) => Kind::File,
        (_, true) => Kind::Folder,
        _ => Kind::Other,
    }
}

impl DiskFile for File {
    fn read_at(&self, piece: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, piece, offset)
    }

    fn write_at(&self, piece: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, piece, offset)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        File::set_len(self, size)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}
