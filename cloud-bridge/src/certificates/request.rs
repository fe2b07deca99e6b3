//! A request for a certificate (PKCS#10): what it must say, and what is taken from it.
//!
//! Taken is the key alone, after whoever asks has proved to hold it. All else in a certificate is decided here.

use protocol::DeviceId;
use rcgen::{CertificateSigningRequestParams, DnType, DnValue, PKCS_ECDSA_P256_SHA256, PublicKey};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use trust::DeviceKey;

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unacceptable {
    /// Not PKCS#10 in PEM, or with extensions that nobody asked for.
    #[error("the certificate request is malformed: {0}")]
    Malformed(String),
    /// The signature in it is not its key's.
    #[error("the certificate request does not prove that its sender holds the key")]
    Unproved,
    /// A key of another kind.
    #[error("the certificate request is for another kind of key: devices have ECDSA P-256")]
    Key,
    /// For somebody else.
    #[error("the certificate request is for another name than `{0}`")]
    Name(DeviceId),
}

/// A request that was checked.
#[derive(Debug)]
pub(crate) struct Request {
    /// The key, as certificates are made of it.
    pub(super) public: PublicKey,
    /// The key, as messages are checked with it.
    pub(crate) key: DeviceKey,
}

impl Request {
    /// Reads the request of `device`.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn read(pem: &str, device: &DeviceId) -> Result<Self, Unacceptable> {
        let malformed = |e: &dyn std::fmt::Display| Unacceptable::Malformed(e.to_string());
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|e| malformed(&e))?;
        let request = CertificateSigningRequestParams::from_der(&der).map_err(|e| match e {
            rcgen::Error::InvalidCertificationRequestSignature => Unacceptable::Unproved,
            rcgen::Error::UnsupportedSignatureAlgorithm => Unacceptable::Key,
            other => malformed(&other),
        })?;
        let CertificateSigningRequestParams { params, public_key } = request;
        let raw = rcgen::PublicKeyData::der_bytes(&public_key);
        let p256 = rcgen::PublicKeyData::algorithm(&public_key) == &PKCS_ECDSA_P256_SHA256;
        let key = DeviceKey::from_point(raw).ok().filter(|_| p256).ok_or(Unacceptable::Key)?;
        let names: Vec<_> = params.distinguished_name.iter().collect();
        match names.as_slice() {
            [(DnType::CommonName, DnValue::Utf8String(name))] if name == device.as_str() => {}
            [(DnType::CommonName, DnValue::PrintableString(name))] if name.as_str() == device.as_str() => {}
            _ => return Err(Unacceptable::Name(device.clone())),
        }
        Ok(Self { public: public_key, key })
    }
}
