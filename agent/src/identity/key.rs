//! The device's own key: ECDSA P-256, made on the device, never leaving it.
//!
//! Decides what it signs, and how one in a file is kept. Who believes the signatures is decided on land. Everything
//! else here asks [`Key`], so a key in a chip is one more implementation; there is none yet.

use crate::fault::Fault;
use crate::store::{Disk, How};
use protocol::{Kind, SignedFrame, encode_cbor, encode_json};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::Serialize;
use std::fmt::Debug;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use trust::{DeviceKey, Envelope, PayloadKind, Signature, pae};

const MAX_KEY_BYTES: u64 = 4096;

/// 16 random bytes in hex, from which the nonces of one boot follow; `None` when the system gives none.
pub(crate) fn seed() -> Option<String> {
    let drawn: ring::rand::Random<[u8; 16]> = ring::rand::generate(&SystemRandom::new()).ok()?;
    Some(drawn.expose().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A number that no other run of the agent has, if the system gives random numbers.
pub(crate) fn run_number() -> Option<u64> {
    let drawn: ring::rand::Random<[u8; 8]> = ring::rand::generate(&SystemRandom::new()).ok()?;
    Some(u64::from_be_bytes(drawn.expose()))
}

/// A secret key that signs, wherever it lies.
pub(crate) trait Key: Debug + Send + Sync {
    /// The public half.
    fn public(&self) -> &DeviceKey;

    /// The signature of `bytes` (ECDSA P-256 over their SHA-256), `r ‖ s`.
    ///
    /// # Errors
    /// When whatever holds the key does not sign.
    fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], Unsigned>;
}

/// A key in a file that its owner alone can read.
pub(crate) struct FileKey {
    pair: EcdsaKeyPair,
    public: DeviceKey,
    random: SystemRandom,
}

impl Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FileKey").field(&self.public.id()).finish()
    }
}

impl FileKey {
    /// The key in the file; made there when there is none.
    ///
    /// # Errors
    /// When it cannot be read or written, is no key, or others may read it.
    pub(crate) fn open_or_make(disk: &dyn Disk, path: &Path) -> Result<Self, Fault> {
        match disk.look(path) {
            Ok(_) => {
                // The start that made it may have been cut short before its name was durable.
                let durable = disk.sync_dir(path.parent().unwrap_or(Path::new("/")));
                durable.map_err(|why| Fault::new(format!("cannot keep {}", path.display())).because(why))?;
                Self::open(disk, path)
            }
            Err(why) if why.kind() == ErrorKind::NotFound => {
                let unwritable = |why: std::io::Error| {
                    Fault::new(format!("cannot write the device's key {}", path.display()))
                        .because(why)
                        .remedy("make the state folder writable for the agent, and see that there is room on the disk")
                };
                Self::make(disk, path).map_err(unwritable)?;
                Self::open(disk, path)
            }
            Err(why) => Err(Fault::new(format!("cannot look at {}", path.display())).because(why)),
        }
    }

    /// The key in the file.
    ///
    /// # Errors
    /// When it cannot be read, is no key, or others may read it.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, Fault> {
        let found = disk.look(path).map_err(|why| {
            Fault::new(format!("cannot read the device's key {}", path.display()))
                .because(why)
                .remedy("restore it, or enrol the device again: petrel devices retire, devices token new")
        })?;
        let mode = found.mode;
        if mode & 0o077 != 0 {
            return Err(Fault::new(format!("the device's key {} is not secret", path.display()))
                .because(format!("others may read it (mode {mode:o})"))
                .remedy(format!(
                    "chmod 600 {}; if others may have read it, revoke the device and enrol another name",
                    path.display()
                )));
        }
        Self::read(disk, path)
    }

    fn make(disk: &dyn Disk, path: &Path) -> std::io::Result<()> {
        let refused = |_| std::io::Error::other("the system gives no random numbers");
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        disk.replace(path, pkcs8.map_err(refused)?.as_ref(), How::Secret)
    }

    fn read(disk: &dyn Disk, path: &Path) -> Result<Self, Fault> {
        let unreadable = |why| Fault::new(format!("cannot read the device's key {}", path.display())).because(why);
        let mut bytes = disk.read(path, MAX_KEY_BYTES).map_err(unreadable)?;
        let random = SystemRandom::new();
        let damaged = |why: String| {
            Fault::new(format!("{} is no key", path.display()))
                .because(why)
                .remedy("restore it, or enrol the device again: petrel devices retire, devices token new")
        };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &bytes, &random);
        bytes.fill(0);
        let pair = pair.map_err(|e| damaged(e.to_string()))?;
        let public = DeviceKey::from_point(pair.public_key().as_ref()).map_err(|e| damaged(e.to_string()))?;
        Ok(Self { pair, public, random })
    }
}

impl Key for FileKey {
    fn public(&self) -> &DeviceKey {
        &self.public
    }

    fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], Unsigned> {
        let signature = self.pair.sign(&self.random, bytes).map_err(|_| Unsigned::NoRandomness)?;
        signature.as_ref().try_into().map_err(|_| Unsigned::NoRandomness)
    }
}

/// Signs what the device says.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    key: Arc<dyn Key>,
}

impl Signer {
    /// With this key.
    pub(crate) fn new(key: Arc<dyn Key>) -> Self {
        Self { key }
    }

    /// The public half.
    pub(crate) fn public(&self) -> &DeviceKey {
        self.key.public()
    }

    /// A message as a signed CBOR frame.
    ///
    /// # Errors
    /// When the system gives no random numbers, or the message is larger than its kind allows.
    pub(crate) fn frame<T: Serialize>(&self, kind: Kind, message: &T) -> Result<Vec<u8>, Unsigned> {
        let body = encode_cbor(message);
        let frame = SignedFrame::join(&self.key.sign(&SignedFrame::signed_bytes(kind, &body))?, &body);
        match frame.len() {
            size if size > kind.max_bytes() => Err(Unsigned::TooLarge { size, limit: kind.max_bytes() }),
            _ => Ok(frame),
        }
    }

    /// A document as JSON in a signed envelope.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(crate) fn document<T: Serialize>(&self, kind: PayloadKind, document: &T) -> Result<Vec<u8>, Unsigned> {
        let payload = encode_json(document);
        let bytes = self.key.sign(&pae(kind.media_type(), &payload))?.to_vec();
        let signatures = vec![Signature { key_id: self.public().id().to_string(), bytes }];
        Ok(Envelope { payload_type: kind.media_type().to_owned(), payload, signatures }.to_bytes())
    }
}

/// Why a message was not signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsigned {
    #[error("the system gives no random numbers")]
    NoRandomness,
    #[error("the message has {size} bytes, at most {limit} are allowed")]
    TooLarge { size: usize, limit: usize },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::host;
    use protocol::Presence;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_is_secret() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("a.key");
        assert!(FileKey::open(&*host(), &path).unwrap_err().advice().unwrap().contains("enrol"));
        let made = FileKey::open_or_make(&*host(), &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.public(), FileKey::open_or_make(&*host(), &path).unwrap().public());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("a.key");
        FileKey::open_or_make(&*host(), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let fault = FileKey::open(&*host(), &path).unwrap_err();
        assert!(fault.to_string().contains("not secret"), "{fault}");
        assert!(fault.advice().unwrap().contains("chmod 600"));
    }

    #[test]
    fn a_damaged_key_is_told_and_a_left_over_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("a.key");
        fs::write(state.path().join("a.key.new"), b"half").unwrap();
        FileKey::open_or_make(&*host(), &path).unwrap();
        fs::write(&path, b"nonsense").unwrap();
        assert!(FileKey::open(&*host(), &path).unwrap_err().to_string().contains("is no key"));
    }

    #[test]
    fn what_is_signed_verifies_with_the_public_half_and_as_its_kind_only() {
        let state = tempfile::tempdir().unwrap();
        let signer = Signer::new(Arc::new(FileKey::open_or_make(&*host(), &state.path().join("a.key")).unwrap()));
        let word = Presence { boot: 1, online: true };
        let frame = signer.frame(Kind::Hello, &word).unwrap();
        let split = SignedFrame::split(Kind::Hello, &frame).unwrap();
        signer.public().verify(&SignedFrame::signed_bytes(Kind::Hello, split.body), split.signature).unwrap();
        assert!(signer.public().verify(&SignedFrame::signed_bytes(Kind::Need, split.body), split.signature).is_err());

        let document = signer.document(PayloadKind::Verdict, &word).unwrap();
        let payload = trust::verify_device_document(PayloadKind::Verdict, signer.public(), &document).unwrap();
        assert_eq!(payload, encode_json(&word));
        assert!(trust::verify_device_document(PayloadKind::Report, signer.public(), &document).is_err());
    }
}
