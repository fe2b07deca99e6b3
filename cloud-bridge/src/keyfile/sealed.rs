//! The form of a secret key in a file: PKCS#8 in PEM, in the clear or encrypted with a passphrase
//! (PBES2: scrypt and AES-256).
//!
//! Decides how a key is locked and opened. Knows no algorithm of signatures.

use super::Passphrase;
use crate::fault::Fault;
use pkcs8::der::pem::{LineEnding, PemLabel};
use pkcs8::der::zeroize::Zeroizing;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use std::path::Path;

/// The most that opening a key may cost: the memory of scrypt in bytes, its passes, and the rounds of PBKDF2.
const MAX_SCRYPT: (u64, u16) = (1 << 28, 16);
const MAX_ROUNDS: u32 = 10_000_000;

/// The PEM text of a PKCS#8 document; with a passphrase, encrypted.
///
/// # Errors
/// When the passphrase cannot be had.
pub(super) fn to_pem(path: &Path, der: &[u8], lock: Option<&Passphrase>) -> anyhow::Result<Zeroizing<String>> {
    let unwritable = |e| Fault::new("the key cannot be encoded").because(format!("{e}"));
    let Some(passphrase) = lock else {
        let document = SecretDocument::try_from(der).map_err(unwritable)?;
        return Ok(document.to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).map_err(unwritable)?);
    };
    let passphrase = passphrase.new_for(path)?;
    let unlocked = |e| Fault::new("the key cannot be encrypted").because(format!("{e}"));
    let locked = PrivateKeyInfoRef::try_from(der).and_then(|key| key.encrypt(passphrase)).map_err(unlocked)?;
    Ok(locked.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).map_err(unwritable)?)
}

/// The PKCS#8 document of a PEM text.
///
/// # Errors
/// When it is none, or the passphrase does not open it.
pub(super) fn from_pem(path: &Path, text: &str, passphrase: &Passphrase) -> anyhow::Result<SecretDocument> {
    let no_key = || {
        Fault::new(format!("{} is no private key", path.display()))
            .remedy("give a key in PKCS#8 PEM, as `petrel keys new` writes it")
    };
    let (label, document) = SecretDocument::from_pem(text).map_err(|e| no_key().because(format!("{e}")))?;
    if label == PrivateKeyInfoRef::PEM_LABEL {
        return Ok(document);
    }
    if label != EncryptedPrivateKeyInfoRef::PEM_LABEL {
        return Err(no_key().because(format!("it holds a `{}`", label.escape_debug())).into());
    }
    let locked = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes());
    let locked = locked.map_err(|e| no_key().because(format!("{e}")))?;
    if !is_bounded(&locked) {
        return Err(no_key().because("it is encrypted in a way that is not known, or would take too much work").into());
    }
    let wrong = || {
        Fault::new(format!("the passphrase does not open {}", path.display()))
            .remedy("type it again; without it the key is lost, and a new one must take its place in the root")
    };
    let opened = locked.decrypt(passphrase.opening(path)?).map_err(|_| wrong())?;
    // A wrong passphrase may leave bytes that look like the end of a block; then they are no key.
    PrivateKeyInfoRef::try_from(opened.as_bytes()).map_err(|_| wrong())?;
    Ok(opened)
}

/// Whether the work of opening it is limited: a file of a stranger could ask for any amount.
fn is_bounded(locked: &EncryptedPrivateKeyInfoRef<'_>) -> bool {
    let Some(parameters) = locked.encryption_algorithm.pbes2() else { return false };
    let scrypt = parameters.kdf.scrypt().map(|s| {
        let bytes = s.cost_parameter.checked_mul(128 * u64::from(s.block_size));
        bytes.is_some_and(|bytes| bytes <= MAX_SCRYPT.0) && s.parallelization <= MAX_SCRYPT.1
    });
    let pbkdf2 = parameters.kdf.pbkdf2().map(|p| p.iteration_count <= MAX_ROUNDS);
    scrypt.or(pbkdf2).unwrap_or(false)
}
