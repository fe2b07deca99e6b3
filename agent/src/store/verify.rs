//! Whether a folder on disk is a bundle that may be believed.
//!
//! Decides the order of the checks: the envelope first, then every byte, then the manifest. What a
//! signature is worth is decided by `trust`; whether a bundle may be installed, by the core.

use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use trust::{
    Code, Digest, MAX_DOCUMENT_BYTES, Manifest, Refusal, Resource, Root, SIGNED_OUTSIDE, Statement, Trust, U53,
    Verified,
};

/// The signed envelope in a bundle's folder.
pub(crate) const ENVELOPE: &str = SIGNED_OUTSIDE[0];
const MANIFEST: &str = "manifest.json";
/// More files than any bundle has.
const MAX_FILES: usize = 2048;
/// Deeper than any path of a bundle.
const MAX_DEPTH: usize = 32;

/// Why a folder was not verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It is not what was signed, or nobody signed it who may.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be read: that says nothing of the bundle.
    #[error("cannot read {path}")]
    Io {
        /// The file or folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Fault {
    move |source| Fault::Io { path: path.display().to_string(), source }
}

/// Believes the folder `dir`: enough publishers of `root` signed it, every file is what they signed, there is
/// no other file, and its manifest is in their scope.
///
/// # Errors
/// A refusal, or what the system said.
pub(crate) fn bundle(root: &Verified<Root>, dir: &Path) -> Result<Verified<Manifest>, Fault> {
    let statement = trust::verify_statement(root, &small(&dir.join(ENVELOPE))?)?;
    statement.check_files(&files(dir, &statement)?)?;
    Ok(trust::verify_manifest(root, &statement, &small(&dir.join(MANIFEST))?)?)
}

/// A bundle that is known by its digest, as it lies on the disk.
#[derive(Debug)]
pub(crate) struct Known {
    /// `bundle.dsse.json`.
    pub(crate) envelope: Vec<u8>,
    /// `manifest.json`.
    pub(crate) manifest: Vec<u8>,
    /// Every signed file.
    pub(crate) files: Vec<Resource>,
    /// What the manifest says.
    pub(crate) read: Verified<Manifest>,
}

/// Reads every byte of the bundle `bundle` in `dir`: it is that very one, whole, with no other file. Who
/// signed it, and whether that counts, is not asked here.
///
/// # Errors
/// A refusal, or what the system said.
pub(crate) fn known(dir: &Path, bundle: Digest) -> Result<Known, Fault> {
    let envelope = small(&dir.join(ENVELOPE))?;
    let statement = trust::known_statement(bundle, &envelope)?;
    let files = files(dir, &statement)?;
    statement.check_files(&files)?;
    let manifest = small(&dir.join(MANIFEST))?;
    let read = trust::known_manifest(&statement, &manifest)?;
    Ok(Known { envelope, manifest, files, read })
}

/// Believes an envelope when it is the one of the bundle `expected`.
///
/// # Errors
/// The refusal.
pub(crate) fn statement(trust: &Trust, envelope: &[u8], expected: Digest) -> Result<Verified<Statement>, Refusal> {
    let statement = trust.verify_statement(envelope)?;
    if statement.digest() == expected {
        return Ok(statement);
    }
    let detail = format!("the envelope is of bundle {}, asked was {}", statement.digest().short(), expected.short());
    Err(Refusal::new(Code::Mismatch, detail))
}

fn files(dir: &Path, statement: &Statement) -> Result<Vec<Resource>, Fault> {
    let mut found = Vec::new();
    list(dir, "", statement, 0, &mut found)?;
    Ok(found)
}

/// A document, with one byte more than is allowed so that its size is refused and not cut.
fn small(path: &Path) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|f| f.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Err(Refusal::new(Code::Missing, format!("`{name}` is not there")).into())
        }
        Err(error) => Err(unreadable(path)(error)),
    }
}

/// Every file under `dir` but those that hold signatures. A file whose size is not the signed one is
/// not hashed: its size refuses it.
fn list(dir: &Path, prefix: &str, signed: &Statement, depth: usize, found: &mut Vec<Resource>) -> Result<(), Fault> {
    let extra = |name: &str| Refusal::new(Code::Extra, format!("`{name}` is not among the signed files"));
    for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
        let entry = entry.map_err(unreadable(dir))?;
        let path = entry.path();
        let file_name = entry.file_name();
        let name = format!("{prefix}{}", file_name.to_string_lossy());
        let kind = entry.file_type().map_err(unreadable(&path))?;
        if kind.is_dir() && depth < MAX_DEPTH {
            list(&path, &format!("{name}/"), signed, depth + 1, found)?;
            continue;
        }
        if !kind.is_file() || found.len() >= MAX_FILES {
            return Err(extra(&name).into());
        }
        if SIGNED_OUTSIDE.contains(&name.as_str()) {
            continue;
        }
        let size = entry.metadata().map_err(unreadable(&path))?.len();
        let expected = signed.resource(&name).map(|r| r.size.get()).ok_or_else(|| extra(&name))?;
        let digest = if size == expected { hash(&path).map_err(unreadable(&path))? } else { Digest([0; 32]) };
        let size = U53::try_from(size).map_err(|e| Refusal::new(Code::Limit, e))?;
        found.push(Resource::new(name, digest, size));
    }
    Ok(())
}

/// SHA-256 of a file, read piece by piece.
fn hash(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(Digest(hash.finalize().into())),
            Ok(n) => hash.update(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, code};

    #[test]
    fn a_signed_folder_is_believed() {
        let fixture = Fixture::digits(1);
        assert_eq!(bundle(fixture.trust.root(), fixture.dir()).unwrap().stream, "digits");
        assert_eq!(known(fixture.dir(), fixture.digest).unwrap().read.stream, "digits");
    }

    #[test]
    fn every_way_to_differ_from_what_was_signed_has_its_code() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 7] = [
            ("E_DIGEST", |d| {
                let mut bytes = fs::read(d.join("labels.txt")).unwrap();
                bytes[0] ^= 1;
                fs::write(d.join("labels.txt"), bytes).unwrap();
            }),
            ("E_SIZE", |d| fs::write(d.join("labels.txt"), "0\n").unwrap()),
            ("E_MISSING", |d| fs::remove_file(d.join("labels.txt")).unwrap()),
            ("E_MISSING", |d| fs::remove_file(d.join(ENVELOPE)).unwrap()),
            ("E_EXTRA", |d| fs::write(d.join("run.sh"), "").unwrap()),
            ("E_EXTRA", |d| std::os::unix::fs::symlink("/etc/passwd", d.join("link")).unwrap()),
            ("E_PARSE", |d| fs::write(d.join(ENVELOPE), "{}").unwrap()),
        ];
        for (expected, damage) in cases {
            let fixture = Fixture::digits(1);
            damage(fixture.dir());
            let fault = bundle(fixture.trust.root(), fixture.dir()).unwrap_err();
            assert_eq!(code(&fault), expected, "{fault}");
            let fault = known(fixture.dir(), fixture.digest).unwrap_err();
            assert_eq!(code(&fault), expected, "{fault}");
        }
    }

    #[test]
    fn another_bundle_than_the_asked_one_is_a_mismatch() {
        let (one, two) = (Fixture::digits(1), Fixture::digits(2));
        let fault = known(one.dir(), two.digest).unwrap_err();
        assert_eq!(code(&fault), "E_MISMATCH");
    }
}
