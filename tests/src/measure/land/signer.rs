//! A device's name and key, and what it signs, as the agent does it.
//!
//! Decides nothing of what is said.

use anyhow::Context;
use protocol::{DeviceId, Kind, SignedFrame};
use rcgen::{CertificateParams, DnType};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use std::sync::Arc;
use trust::{DeviceKey, Envelope, PayloadKind, Signature, pae};

/// Somebody who signs.
pub(super) struct Signer {
    /// Its name.
    pub(super) id: DeviceId,
    pair: EcdsaKeyPair,
    public: DeviceKey,
    key_id: String,
    random: SystemRandom,
}

impl Signer {
    /// A device with a new key, and its request for a certificate, PEM.
    pub(super) fn make(name: &str) -> anyhow::Result<(Arc<Self>, String)> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let request = params.serialize_request(&key)?.pem()?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &random);
        let pair = pair.ok().context("the key is no key")?;
        let public = DeviceKey::from_point(pair.public_key().as_ref())?;
        let key_id = public.id().to_string();
        Ok((Arc::new(Self { id: name.parse()?, pair, public, key_id, random }), request))
    }

    /// The public half.
    pub(super) fn spki(&self) -> Vec<u8> {
        self.public.spki().to_vec()
    }

    fn sign(&self, bytes: &[u8]) -> anyhow::Result<[u8; 64]> {
        let signature = self.pair.sign(&self.random, bytes).ok().context("nothing was signed")?;
        Ok(signature.as_ref().try_into()?)
    }

    /// A message, as CBOR, as a signed frame.
    pub(super) fn frame(&self, kind: Kind, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(SignedFrame::join(&self.sign(&SignedFrame::signed_bytes(kind, body))?, body))
    }

    /// A document, as JSON, in a signed envelope.
    pub(super) fn document(&self, kind: PayloadKind, payload: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let bytes = self.sign(&pae(kind.media_type(), &payload))?.to_vec();
        let signatures = vec![Signature { key_id: self.key_id.clone(), bytes }];
        Ok(Envelope { payload_type: kind.media_type().to_owned(), payload, signatures }.to_bytes())
    }
}
