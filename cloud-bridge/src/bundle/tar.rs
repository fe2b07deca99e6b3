//! A bundle as a plain tar, for a USB stick: the same files always give the same bytes.
//!
//! Decides what may come out of a tar: plain files under harmless names, not too many, not too large.
//! Nothing that comes out is believed yet.

use super::{MAX_FILE_BYTES, MAX_FILES, read};
use crate::fault::Fault;
use ::tar::{Archive, Builder, EntryType, Header};
use anyhow::Context;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use trust::{Code, Refusal, SIGNED_OUTSIDE};

/// The most bytes of all files together.
const MAX_TOTAL_BYTES: u64 = 4 << 30;

/// Writes the bundle in `dir`, its signatures included, to the file `target`, which must be new.
///
/// # Errors
/// When a file cannot be read or `target` cannot be written.
pub(crate) fn write(dir: &Path, target: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", target.display());
    let mut names: Vec<String> = read(dir)?.into_iter().map(|file| file.name).collect();
    names.extend(SIGNED_OUTSIDE.into_iter().filter(|name| dir.join(name).is_file()).map(str::to_owned));
    names.sort();
    let beside = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let file = builder.prefix(".tar-").permissions(Permissions::from_mode(0o644)).tempfile_in(beside);
    let file =
        file.map_err(|e| Fault::new(cannot()).because(e).remedy("give a path in a folder that you may write"))?;
    let mut archive = Builder::new(io::BufWriter::new(file));
    for name in &names {
        append(&mut archive, dir, name).with_context(|| format!("cannot put `{name}` into the tar"))?;
    }
    let buffer = archive.into_inner().with_context(cannot)?;
    let file = buffer.into_inner().map_err(io::IntoInnerError::into_error).with_context(cannot)?;
    file.as_file().sync_all().with_context(cannot)?;
    file.persist_noclobber(target).map_err(|e| {
        Fault::new(cannot()).because(e.error).remedy("choose another name, or remove the old file first")
    })?;
    Ok(())
}

/// Unpacks into `dir`, an empty folder.
///
/// # Errors
/// `E_PATH` for a link, a device or a name that could leave the folder, `E_LIMIT`, or what the system said.
pub(crate) fn unpack(archive: impl Read, dir: &Path) -> anyhow::Result<()> {
    let mut archive = Archive::new(archive);
    let mut total = 0u64;
    // The library's words repeat the bytes that it found.
    let no_tar = |_| {
        let fault = Fault::new("it is no tar, or was cut short");
        fault.remedy("give the folder that `petrel pack` made, or its tar")
    };
    for (count, entry) in archive.entries().map_err(no_tar)?.enumerate() {
        let mut entry = entry.map_err(no_tar)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != EntryType::Regular || !harmless(&name) {
            let shown: String = name.chars().take(80).collect();
            return Err(Refusal::new(Code::Path, format!("{shown:?} is no plain file under a plain name")).into());
        }
        let size = entry.size();
        total = total.saturating_add(size);
        if count > MAX_FILES || size > MAX_FILE_BYTES || total > MAX_TOTAL_BYTES {
            return Err(Refusal::new(Code::Limit, "the tar holds too many files, or too large ones").into());
        }
        let path = dir.join(&name);
        let unwritable = || format!("cannot write {}", path.display());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(unwritable)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).with_context(unwritable)?;
        let copied = io::copy(&mut entry, &mut file).with_context(unwritable)?;
        anyhow::ensure!(copied == size, "the tar was cut short in `{name}`");
    }
    Ok(())
}

fn append(archive: &mut Builder<impl Write>, dir: &Path, name: &str) -> io::Result<()> {
    let file = File::open(dir.join(name))?;
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(file.metadata()?.len());
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    archive.append(&header, file)
}

/// The names that a signed statement could have, and that of its envelope.
fn harmless(name: &str) -> bool {
    let word = |part: &str| {
        part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !part.starts_with(['.', '-'])
    };
    name.len() <= 255 && name.split('/').all(|part| !part.is_empty() && word(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::SEAL;

    fn code(error: &anyhow::Error) -> Option<Code> {
        error.downcast_ref::<Refusal>().map(|r| r.code)
    }

    /// A tar of one entry whose name is written as it is, whatever it holds.
    fn hostile(name: &str, kind: EntryType) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(1);
        header.set_cksum();
        let mut archive = Builder::new(Vec::new());
        archive.append(&header, &b"x"[..]).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn a_bundle_comes_back_and_is_the_same_bytes_every_time() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("sub")).unwrap();
        for (name, content) in [("b", "2"), ("a", ""), ("sub/c", "333"), (SEAL, "{}")] {
            fs::write(from.path().join(name), content).unwrap();
        }
        let tars = ["1.tar", "2.tar"].map(|name| to.path().join(name));
        write(from.path(), &tars[0]).unwrap();
        fs::set_permissions(from.path().join("b"), Permissions::from_mode(0o600)).unwrap();
        File::open(from.path().join("b")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        write(from.path(), &tars[1]).unwrap();
        assert_eq!(fs::read(&tars[0]).unwrap(), fs::read(&tars[1]).unwrap());
        assert!(write(from.path(), &tars[0]).is_err(), "nothing is written over");

        let back = to.path().join("back");
        fs::create_dir(&back).unwrap();
        unpack(File::open(&tars[0]).unwrap(), &back).unwrap();
        assert_eq!(read(&back).unwrap(), read(from.path()).unwrap());
        assert_eq!(fs::read(back.join(SEAL)).unwrap(), b"{}");
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for name in ["../x", "/x", "a/../../x", "a//x", "./x", ".x", "-x", "a b", "a\\b", "ä", ""] {
            let dir = tempfile::tempdir().unwrap();
            let inside = dir.path().join("inside");
            fs::create_dir(&inside).unwrap();
            let error = unpack(&hostile(name, EntryType::Regular)[..], &inside).unwrap_err();
            assert_eq!(code(&error), Some(Code::Path), "{name:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{name:?}");
        }
    }

    #[test]
    fn only_plain_files_come_out() {
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Directory, EntryType::Fifo, EntryType::Char] {
            let dir = tempfile::tempdir().unwrap();
            let error = unpack(&hostile("x", kind)[..], dir.path()).unwrap_err();
            assert_eq!(code(&error), Some(Code::Path), "{kind:?}");
        }
    }

    #[test]
    fn a_name_twice_and_a_torn_tar_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let one = hostile("x", EntryType::Regular);
        let twice = [&one[..1024], &one[..]].concat();
        assert!(unpack(&twice[..], dir.path()).is_err());
        let dir = tempfile::tempdir().unwrap();
        assert!(unpack(&one[..512], dir.path()).is_err());
        assert!(unpack(&b"this is no tar"[..], dir.path()).is_err());
    }
}
