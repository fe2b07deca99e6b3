//! Keys in files: PKCS#8 for the secret half, SubjectPublicKeyInfo for the public one. Ed25519 here,
//! P-256 in `p256`.
//!
//! Decides who may read a secret and that no key is ever written over. What a key may sign is
//! decided by the root of trust, not here.

pub(crate) mod p256;
mod passphrase;
mod sealed;

pub(crate) use passphrase::Passphrase;

use crate::fault::Fault;
use anyhow::Context;
use ed25519_dalek::pkcs8::spki::der::{pem::LineEnding, zeroize::Zeroizing};
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{SigningKey, VerifyingKey};
use pkcs8::SecretDocument;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A key file is some hundred bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// A new key, from the system's randomness.
///
/// # Errors
/// When the system has none.
pub(crate) fn generate() -> anyhow::Result<SigningKey> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).context("the system gives no randomness for a key")?;
    Ok(SigningKey::from_bytes(&seed))
}

/// The id that documents use for a key.
pub(crate) fn id(key: &VerifyingKey) -> String {
    trust::key_id(key.as_bytes())
}

/// Writes `DIR/NAME.pem` (0600) and `DIR/NAME.pub`, and returns their paths.
///
/// # Errors
/// When either is there already, or cannot be written.
pub(crate) fn write_pair(
    dir: &Path,
    name: &str,
    key: &SigningKey,
    lock: Option<&Passphrase>,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (private, public) = new_pair_paths(dir, name)?;
    // Without the public half: the older form, which every tool reads.
    let pair = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let der = pair.to_pkcs8_der().map_err(|e| Fault::new("the key cannot be encoded").because(e))?;
    write_new(&private, sealed::to_pem(&private, der.as_bytes(), lock)?.as_bytes(), 0o600)?;
    write_public(&public, &public_pem(&key.verifying_key())?)?;
    Ok((private, public))
}

/// Where a new pair will lie, in a folder that is made for it.
fn new_pair_paths(dir: &Path, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| {
        let fault = Fault::new(format!("cannot make the folder {}", dir.display())).because(e);
        fault.remedy("choose another folder, in one that you may write")
    })?;
    let (private, public) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.pub")));
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(taken(path).into());
        }
    }
    Ok((private, public))
}

fn write_public(path: &Path, pem: &str) -> anyhow::Result<()> {
    write_new(path, pem.as_bytes(), 0o644)
}

/// Writes `content` to a file that is not there yet, and to the disk.
///
/// # Errors
/// When the file is there already, or cannot be written.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(taken(path).into()),
        opened => opened.with_context(|| format!("cannot write {}", path.display()))?,
    };
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a secret key that nobody but its owner can read.
///
/// # Errors
/// When others could read it, the passphrase does not open it, or it is no Ed25519 key.
pub(crate) fn read_private(path: &Path, passphrase: &Passphrase) -> anyhow::Result<SigningKey> {
    let no_key = |e| {
        Fault::new(format!("{} is no Ed25519 key", path.display()))
            .because(e)
            .remedy("give the .pem file that `petrel keys new` wrote for the role")
    };
    Ok(SigningKey::from_pkcs8_der(open_secret(path, passphrase)?.as_bytes()).map_err(no_key)?)
}

/// The text of a secret that nobody but its owner can read.
///
/// # Errors
/// When others could read it, or it cannot be read.
pub(crate) fn read_secret_text(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mode = open(path)?.metadata().with_context(|| format!("cannot read {}", path.display()))?.mode();
    // What systemd hands over lies in a folder of the service alone; its group bits are the mask of an access list.
    let handed_over = credentials().is_some_and(|folder| path.starts_with(folder));
    if mode & if handed_over { 0o037 } else { 0o077 } != 0 {
        let fault = Fault::new(format!("the private key {} can be read by others", path.display()))
            .because(format!("its mode is {:04o}", mode & 0o7777))
            .remedy(format!("run: chmod 600 {}   and think about who may have read it", path.display()));
        return Err(fault.into());
    }
    read_text(path)
}

/// The PKCS#8 document of a secret that nobody but its owner can read.
fn open_secret(path: &Path, passphrase: &Passphrase) -> anyhow::Result<SecretDocument> {
    sealed::from_pem(path, &read_secret_text(path)?, passphrase)
}

/// The folder of the credentials that systemd handed to this service.
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).filter(|folder| folder.is_absolute())
}

/// Where a secret lies: a path, relative to `base`, or `credential:NAME` for one that systemd hands over.
///
/// # Errors
/// When a credential is named and none were handed over, or its name could leave the folder.
pub(crate) fn secret_path(base: &Path, said: &str) -> anyhow::Result<PathBuf> {
    let Some(name) = said.strip_prefix("credential:") else { return Ok(base.join(said)) };
    let fault = || Fault::new(format!("there is no credential `{name}`"));
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(fault().because("it is no name of one").remedy("use the name in LoadCredential=").into());
    }
    let folder = credentials().ok_or_else(|| {
        let unset = fault().because("CREDENTIALS_DIRECTORY is not set: systemd handed over nothing");
        unset.remedy(format!("add LoadCredentialEncrypted={name} to the unit, or give a path"))
    })?;
    Ok(folder.join(name))
}

/// Reads a public key.
///
/// # Errors
/// When it is no Ed25519 key, or a weak one.
pub(crate) fn read_public(path: &Path) -> anyhow::Result<VerifyingKey> {
    let text = read_text(path)?;
    let no_key = || {
        Fault::new(format!("{} is no public key", path.display()))
            .remedy("give an Ed25519 key in PEM: the .pub file that `petrel keys new` writes beside the .pem file")
    };
    let key = VerifyingKey::from_public_key_pem(&text).map_err(|e| no_key().because(e))?;
    if key.is_weak() {
        return Err(no_key().because("it is a weak key, which anybody can sign for").into());
    }
    Ok(key)
}

fn public_pem(key: &VerifyingKey) -> anyhow::Result<String> {
    Ok(key.to_public_key_pem(LineEnding::LF).map_err(|e| Fault::new("the key cannot be encoded").because(e))?)
}

fn open(path: &Path) -> anyhow::Result<File> {
    let unreadable = |e: std::io::Error| {
        Fault::new(format!("cannot read {}", path.display()))
            .because(e)
            .remedy("give a key that `petrel keys new` or `petrel root init` made")
    };
    Ok(File::open(path).map_err(unreadable)?)
}

fn read_text(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    // The whole room at once: a string that grows leaves copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize + 1));
    let read = open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Fault::new(format!("{} is too large for a key", path.display())).into());
    }
    Ok(text)
}

fn taken(path: &Path) -> Fault {
    Fault::new(format!("{} is there already", path.display()))
        .because("a key is never written over: what it signed could not be renewed")
        .remedy("choose another folder, or move the old file away")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pair_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let key = generate().unwrap();
        let (private, public) = write_pair(&dir.path().join("keys"), "publisher", &key, None).unwrap();
        assert_eq!(private.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_private(&private, &Passphrase::default()).unwrap().to_bytes(), key.to_bytes());
        assert_eq!(read_public(&public).unwrap(), key.verifying_key());
    }

    #[test]
    fn a_key_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (generate().unwrap(), generate().unwrap());
        let (private, public) = write_pair(dir.path(), "root", &first, None).unwrap();
        assert!(write_pair(dir.path(), "root", &second, None).unwrap_err().to_string().contains("there already"));
        std::fs::remove_file(&public).unwrap();
        assert!(write_pair(dir.path(), "root", &second, None).is_err());
        assert_eq!(read_private(&private, &Passphrase::default()).unwrap().to_bytes(), first.to_bytes());
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (private, _) = write_pair(dir.path(), "root", &generate().unwrap(), None).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            set_permissions(&private, Permissions::from_mode(mode)).unwrap();
            let error = read_private(&private, &Passphrase::default()).unwrap_err();
            let advice = error.downcast_ref::<Fault>().unwrap().advice().unwrap();
            assert!(advice.contains("chmod 600"), "{advice}");
        }
    }

    #[test]
    fn other_files_are_no_keys() {
        let dir = tempfile::tempdir().unwrap();
        let (_, public) = write_pair(dir.path(), "root", &generate().unwrap(), None).unwrap();
        set_permissions(&public, Permissions::from_mode(0o600)).unwrap();
        assert!(read_private(&public, &Passphrase::default()).unwrap_err().to_string().contains("no private key"));
        let large = dir.path().join("large");
        write_new(&large, &vec![b'x'; MAX_BYTES as usize + 1], 0o600).unwrap();
        assert!(read_private(&large, &Passphrase::default()).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let key = generate().unwrap();
        let shown = format!("{key:?}");
        let secret = key.to_bytes().map(|b| b.to_string()).join(", ");
        assert!(!shown.contains(&secret) && !shown.contains(&hex::encode(key.to_bytes())));
    }
}
