//! The intermediate that signs devices: their certificates, and the list of those that count no more.

use super::{DAY, HOUR, Request, at, leaf, new_key, valid};
use crate::fault::Fault;
use crate::keyfile;
use anyhow::Context;
use bridge_core::{Credential, Withdrawn};
use protocol::{DeviceId, FleetId};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, KeyIdMethod, KeyPair,
    RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use trust::Digest;

/// How long a device's certificate counts.
pub(crate) const DEVICE_DAYS: u64 = 90;
/// A list of withdrawn certificates is good for long: a broker refuses everybody once it is not.
const LIST_DAYS: u64 = 10 * 365;

/// Signs as the intermediate.
pub(crate) struct Issuer {
    fleet: FleetId,
    key: KeyPair,
    /// The intermediate's certificate, which devices show after their own.
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate for a device.
#[derive(Debug)]
pub(crate) struct Issued {
    /// It and the intermediate, PEM.
    pub(crate) chain: String,
    /// What land remembers of it.
    pub(crate) credential: Credential,
    /// From when it counts, in seconds since 1970.
    pub(crate) from: u64,
    /// Until when.
    pub(crate) until: u64,
}

/// A certificate with its key, to be used at once and forgotten.
pub(crate) struct Fleeting {
    /// The chain.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub(crate) key: PrivateKeyDer<'static>,
    /// Its serial number.
    pub(crate) serial: String,
}

impl Issuer {
    /// With the certificate and the key of the intermediate.
    ///
    /// # Errors
    /// When either cannot be read, others can read the key, or they do not belong together.
    pub(crate) fn open(fleet: &FleetId, certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let remedy = "give the devices.pem and devices.key that `petrel root init` wrote in tls/";
        let unusable = |path: &Path| Fault::new(format!("cannot use {} to sign devices", path.display()));
        let pem = std::fs::read_to_string(certificate).map_err(|e| unusable(certificate).because(e).remedy(remedy))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| unusable(certificate).because(e.to_string()).remedy(remedy))?;
        let secret = keyfile::read_secret_text(key)?;
        let key_pair = KeyPair::from_pem(&secret).map_err(|e| unusable(key).because(e).remedy(remedy))?;
        let issuer = Self { fleet: fleet.clone(), key: key_pair, pem, der };
        let made = issuer.fleeting(&"probe".parse()?, 1)?;
        let provider = rustls::crypto::ring::default_provider();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(issuer.der.clone()).map_err(|e| unusable(certificate).because(e).remedy(remedy))?;
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.into()).build();
        let verifier = verifier.map_err(|e| unusable(certificate).because(e).remedy(remedy))?;
        let at = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        verifier
            .verify_client_cert(&made.chain[0], &[], at)
            .map_err(|_| unusable(key).because("it is not the key of that certificate").remedy(remedy))?;
        Ok(issuer)
    }

    /// A certificate for the key of `request`, for 90 days.
    pub(crate) fn issue(&self, device: &DeviceId, request: &Request, now: u64) -> anyhow::Result<Issued> {
        let (from, until) = (now.saturating_sub(HOUR), now + DEVICE_DAYS * DAY);
        let (params, serial) = self.client(device, from, until)?;
        let certificate = params.signed_by(&request.public, &self.signer()?).context("the certificate is not made")?;
        let credential = Credential {
            key: request.key.spki().to_vec(),
            serial,
            certificate: Digest::of(certificate.der()),
            until: until * 1_000,
        };
        Ok(Issued { chain: certificate.pem() + &self.pem, credential, from, until })
    }

    /// A certificate in a device's name that counts for some minutes: to take over its session, and so to end it.
    pub(crate) fn fleeting(&self, device: &DeviceId, now: u64) -> anyhow::Result<Fleeting> {
        let (params, serial) = self.client(device, now.saturating_sub(HOUR), now + HOUR)?;
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.signer()?).context("the certificate is not made")?;
        let secret = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        Ok(Fleeting { chain: vec![certificate.der().clone(), self.der.clone()], key: secret, serial })
    }

    /// The list of certificates that count no more, PEM.
    pub(crate) fn list(&self, withdrawn: &[Withdrawn], now: u64) -> anyhow::Result<String> {
        let row = |w: &Withdrawn| -> anyhow::Result<RevokedCertParams> {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(hex::decode(&w.serial)?),
                revocation_time: at(w.since / 1_000),
                reason_code: Some(RevocationReason::CessationOfOperation),
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: at(now.saturating_sub(HOUR)),
            next_update: at(now + LIST_DAYS * DAY),
            crl_number: SerialNumber::from(now),
            issuing_distribution_point: None,
            revoked_certs: withdrawn.iter().map(row).collect::<anyhow::Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.signer()?).and_then(|list| list.pem())?)
    }

    fn client(&self, device: &DeviceId, from: u64, until: u64) -> anyhow::Result<(CertificateParams, String)> {
        let mut serial = [0; 16];
        getrandom::fill(&mut serial).context("the system gives no randomness for a serial number")?;
        // Positive and without a zero in front, so that every program writes it alike.
        serial[0] = serial[0] & 0x7f | 0x40;
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let mut params = leaf(CertificateParams::default(), &self.fleet, device.as_str(), usage, from, 0);
        valid(&mut params, from, until);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        Ok((params, hex::encode(serial)))
    }

    fn signer(&self) -> anyhow::Result<rcgen::Issuer<'static, &KeyPair>> {
        rcgen::Issuer::from_ca_cert_der(&self.der, &self.key)
            .context("the intermediate's certificate is not understood")
    }
}
