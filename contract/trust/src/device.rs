//! ECDSA P-256 keys, and what a device signs with its own, which never leaves it.

use crate::dsse::{Envelope, PayloadKind, pae};
use crate::{Code, Digest, MAX_DOCUMENT_BYTES, Refusal};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, EcdsaVerificationAlgorithm, UnparsedPublicKey};

/// The DER prefix of an uncompressed P-256 key (RFC 5480), before its 65-byte point.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A P-256 public key: a device's, or the one that signs `model.sig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey {
    spki: Vec<u8>,
}

impl DeviceKey {
    /// From SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// `E_KEY_WEAK` for anything but an uncompressed P-256 point.
    pub fn from_spki(spki: &[u8]) -> Result<Self, Refusal> {
        let point = spki.strip_prefix(&SPKI_PREFIX);
        match point {
            Some([0x04, rest @ ..]) if rest.len() == 64 => Ok(Self { spki: spki.to_vec() }),
            _ => Err(Refusal::new(Code::KeyWeak, "the device's key is no P-256 key")),
        }
    }

    /// From the 65 bytes of an uncompressed point.
    ///
    /// # Errors
    /// `E_KEY_WEAK` for anything else.
    pub fn from_point(point: &[u8]) -> Result<Self, Refusal> {
        Self::from_spki(&[&SPKI_PREFIX[..], point].concat())
    }

    /// SubjectPublicKeyInfo in DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of [`DeviceKey::spki`].
    pub fn id(&self) -> Digest {
        Digest::of(&self.spki)
    }

    /// Refuses a signature (`r ‖ s`, 64 bytes) that is not of `signed`.
    pub fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        self.check(&ECDSA_P256_SHA256_FIXED, signed, signature)
    }

    /// The same for a signature in ASN.1, as other people's programs write it.
    pub(crate) fn verify_der(&self, signed: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        self.check(&ECDSA_P256_SHA256_ASN1, signed, signature)
    }

    fn check(
        &self,
        algorithm: &'static EcdsaVerificationAlgorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        UnparsedPublicKey::new(algorithm, &self.spki[SPKI_PREFIX.len()..])
            .verify(signed, signature)
            .map_err(|_| Refusal::new(Code::Sig, "the P-256 signature does not verify"))
    }
}

/// The payload of a document that `key` alone signed.
///
/// # Errors
/// A refusal when the form or the signature is wrong.
pub fn verify_device_document(kind: PayloadKind, key: &DeviceKey, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let envelope = Envelope::parse(kind, bytes, MAX_DOCUMENT_BYTES)?;
    let [signature] = envelope.signatures.as_slice() else {
        return Err(Refusal::new(Code::Threshold, "a device's document has exactly one signature"));
    };
    if signature.key_id != key.id().to_string() {
        return Err(Refusal::new(Code::KeyId, "the document is signed by another device's key"));
    }
    key.verify(&pae(&envelope.payload_type, &envelope.payload), &signature.bytes)?;
    Ok(envelope.payload)
}
