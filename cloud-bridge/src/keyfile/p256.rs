//! P-256 keys in files: they sign `model.sig`, for tools that know no Ed25519.

use super::{Passphrase, open_secret, read_text, sealed, write_new, write_public};
use crate::fault::Fault;
use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use std::path::{Path, PathBuf};
use trust::DeviceKey;

/// A secret P-256 key.
pub(crate) struct P256Key {
    pair: EcdsaKeyPair,
    public: DeviceKey,
}

impl P256Key {
    fn from_der(der: &[u8]) -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &SystemRandom::new());
        let pair = pair.map_err(|e| Fault::new("it is no P-256 key").because(e.to_string()))?;
        let public = DeviceKey::from_point(pair.public_key().as_ref())?;
        Ok(Self { pair, public })
    }

    /// The public half.
    pub(crate) fn public(&self) -> &DeviceKey {
        &self.public
    }

    /// The signature of `bytes`, in ASN.1.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn sign(&self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let signature = self.pair.sign(&SystemRandom::new(), bytes);
        let signature = signature.map_err(|_| Fault::new("the system gives no randomness for a signature"))?;
        Ok(signature.as_ref().to_vec())
    }
}

/// Makes a key and writes `DIR/NAME.pem` (0600) and `DIR/NAME.pub`; returns its public half and their paths.
///
/// # Errors
/// When either is there already, or cannot be written.
pub(crate) fn write_new_pair(
    dir: &Path,
    name: &str,
    lock: Option<&Passphrase>,
) -> anyhow::Result<(DeviceKey, PathBuf, PathBuf)> {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    let der = der.map_err(|_| Fault::new("the system gives no randomness for a key"))?;
    let key = P256Key::from_der(der.as_ref())?;
    let (private, public) = super::new_pair_paths(dir, name)?;
    write_new(&private, sealed::to_pem(&private, der.as_ref(), lock)?.as_bytes(), 0o600)?;
    write_public(&public, &key.public.pem())?;
    Ok((key.public, private, public))
}

/// Reads a secret key that nobody but its owner can read.
///
/// # Errors
/// When others could read it, or it is no P-256 key.
pub(crate) fn read_private(path: &Path, passphrase: &Passphrase) -> anyhow::Result<P256Key> {
    let der = open_secret(path, passphrase)?;
    P256Key::from_der(der.as_bytes()).with_context(|| format!("cannot use {}", path.display()))
}

/// Reads a public key.
///
/// # Errors
/// When it is no P-256 key.
pub(crate) fn read_public(path: &Path) -> anyhow::Result<DeviceKey> {
    let no_key = || {
        Fault::new(format!("{} is no public P-256 key", path.display()))
            .remedy("give the -p256.pub file that `petrel keys new --role publisher` writes")
    };
    let text = read_text(path)?;
    let body = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----");
    let body = body.and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----")).ok_or_else(no_key)?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|e| no_key().because(e))?;
    Ok(DeviceKey::from_spki(&der).map_err(|e| no_key().because(e))?)
}
