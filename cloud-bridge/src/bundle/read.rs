//! Opening a bundle: its files, hashed, and its manifest as somebody wrote it.
//!
//! Decides what may lie in a bundle's folder at all: plain files, not too many, not too large.
//! Whether they are the signed ones is decided by `trust`.

use super::{MANIFEST, MAX_FILE_BYTES, MAX_FILES, tar};
use crate::fault::Fault;
use anyhow::Context;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use trust::{Code, Digest, MAX_DOCUMENT_BYTES, Manifest, Refusal, Resource, SIGNED_OUTSIDE, U53};

/// How deep folders may lie in one another.
const MAX_DEPTH: usize = 8;

/// A bundle that was given as a folder, or as a tar that is unpacked for as long as this lives.
#[derive(Debug)]
pub(crate) enum Opened {
    /// The folder itself.
    Folder(PathBuf),
    /// Where the tar was unpacked.
    Unpacked(TempDir),
}

impl Opened {
    /// Opens a folder or a tar.
    ///
    /// # Errors
    /// When it is neither, or a refusal of what the tar holds.
    pub(crate) fn at(path: &Path) -> anyhow::Result<Self> {
        let found = path.metadata().map_err(|e| {
            Fault::new(format!("there is no bundle at {}", path.display()))
                .because(e)
                .remedy("give the folder that `petrel pack` made, or its tar")
        })?;
        if found.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let dir = tempfile::tempdir().context("there is no place to unpack the bundle")?;
        let archive = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        tar::unpack(archive, dir.path()).with_context(|| format!("cannot unpack {}", path.display()))?;
        Ok(Self::Unpacked(dir))
    }

    /// The folder with the bundle's files.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Folder(path) => path,
            Self::Unpacked(dir) => dir.path(),
        }
    }
}

/// Every file of a bundle but those that hold its signatures, hashed and sorted by name.
///
/// # Errors
/// `E_PATH` for anything that is no plain file, `E_LIMIT`, or what the system said.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Vec<Resource>> {
    let mut names = Vec::new();
    collect(dir, "", MAX_DEPTH, &mut names)?;
    names.retain(|name| !SIGNED_OUTSIDE.contains(&name.as_str()));
    names.sort();
    names.into_iter().map(|name| resource(dir, name)).collect()
}

/// The manifest as it lies there: nothing of it is verified.
///
/// # Errors
/// When there is none that can be understood.
pub(crate) fn read_manifest(dir: &Path) -> anyhow::Result<Manifest> {
    let path = dir.join(MANIFEST);
    if !path.exists() {
        let fault = Fault::new(format!("{} is no bundle", dir.display())).because(format!("it has no {MANIFEST}"));
        return Err(fault.remedy("give the folder that `petrel pack` made, or its tar").into());
    }
    let bytes = read_bounded(&path, MAX_DOCUMENT_BYTES as u64)?;
    let malformed = |e: serde_json::Error| Refusal::new(Code::Parse, format!("manifest is malformed: {e}"));
    Ok(serde_json::from_slice(&bytes).map_err(malformed)?)
}

/// A file of at most `limit` bytes.
///
/// # Errors
/// `E_LIMIT`, or what the system said.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > limit {
        let detail = format!("{} has more than {limit} bytes", path.display());
        return Err(Refusal::new(Code::Limit, detail).into());
    }
    Ok(bytes)
}

fn collect(dir: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read {}", dir.display());
    for entry in fs::read_dir(dir).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let kind = entry.file_type().with_context(unreadable)?;
        let name = match entry.file_name().into_string() {
            Ok(name) => format!("{prefix}{name}"),
            Err(name) => return Err(refused(Code::Path, format!("{name:?} is no name that a bundle may use"))),
        };
        if kind.is_dir() && depth > 0 {
            collect(&entry.path(), &format!("{name}/"), depth - 1, names)?;
        } else if kind.is_file() {
            names.push(name);
        } else {
            return Err(refused(
                Code::Path,
                format!("`{name}` is no plain file: a bundle has no links and no devices"),
            ));
        }
        if names.len() > MAX_FILES + SIGNED_OUTSIDE.len() {
            return Err(refused(Code::Limit, format!("a bundle has at most {MAX_FILES} files")));
        }
    }
    Ok(())
}

fn resource(dir: &Path, name: String) -> anyhow::Result<Resource> {
    let unreadable = || format!("cannot read `{name}`");
    let file = File::open(dir.join(&name)).with_context(unreadable)?;
    let mut hash = Sha256::new();
    let size = io::copy(&mut file.take(MAX_FILE_BYTES + 1), &mut Hashing(&mut hash)).with_context(unreadable)?;
    let limit = || Refusal::new(Code::Limit, format!("`{name}` has more than {MAX_FILE_BYTES} bytes"));
    let size = U53::try_from(size).ok().filter(|size| size.get() <= MAX_FILE_BYTES).ok_or_else(limit)?;
    Ok(Resource::new(name, Digest(hash.finalize().into()), size))
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn refused(code: Code, detail: String) -> anyhow::Error {
    Refusal::new(code, detail).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(error: &anyhow::Error) -> Option<Code> {
        error.downcast_ref::<Refusal>().map(|r| r.code)
    }

    #[test]
    fn files_are_hashed_and_sorted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for (name, content) in [("z", "1"), ("a", "22"), ("sub/b", ""), ("bundle.dsse.json", "not signed")] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let found = read(dir.path()).unwrap();
        let shown: Vec<_> = found.iter().map(|r| (r.name.as_str(), r.size.get(), r.digest)).collect();
        let digest = |text: &str| Digest::of(text.as_bytes());
        assert_eq!(shown, [("a", 2, digest("22")), ("sub/b", 0, digest("")), ("z", 1, digest("1"))]);
    }

    #[test]
    fn links_are_refused_wherever_they_point() {
        for target in ["/etc/passwd", "a", "missing"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a"), "1").unwrap();
            std::os::unix::fs::symlink(target, dir.path().join("link")).unwrap();
            assert_eq!(code(&read(dir.path()).unwrap_err()), Some(Code::Path), "{target}");
        }
    }

    #[test]
    fn a_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert_eq!(code(&read(dir.path()).unwrap_err()), Some(Code::Path));
    }

    #[test]
    fn too_many_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..MAX_FILES + 3 {
            fs::write(dir.path().join(i.to_string()), "").unwrap();
        }
        assert_eq!(code(&read(dir.path()).unwrap_err()), Some(Code::Limit));
    }

    #[test]
    fn a_bounded_file_may_be_exactly_so_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "1234").unwrap();
        assert_eq!(read_bounded(&path, 4).unwrap(), b"1234");
        assert_eq!(code(&read_bounded(&path, 3).unwrap_err()), Some(Code::Limit));
    }
}
