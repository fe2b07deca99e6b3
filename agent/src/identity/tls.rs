//! TLS of a device that may not know the time: whom it believes, and what it shows.
//!
//! Only the fleet's own authority counts. A certificate has expired when its end is certainly past, by a lower bound
//! of the time; it is never too early for one, because the bound may be behind. So a board that boots in 1970 connects, also to
//! a bridge whose certificate was made yesterday.

use super::der;
use super::key::Key;
use crate::fault::Fault;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureAlgorithm, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A chain has a certificate for each step; none of ours is longer.
const LONGEST_CHAIN: usize = 8;

/// A moment that has certainly passed, which grows by itself; all who hold it see the same.
#[derive(Debug, Clone)]
pub(crate) struct Floor(Arc<Mutex<(u64, Instant)>>);

impl Floor {
    /// Not earlier than this, in seconds since 1970.
    pub(crate) fn new(seconds: u64) -> Self {
        Self(Arc::new(Mutex::new((seconds, Instant::now()))))
    }

    /// What was learned since; earlier as well, when a new root takes a time back.
    pub(crate) fn set(&self, seconds: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (seconds, Instant::now());
    }

    /// What is known now.
    pub(crate) fn seconds(&self) -> u64 {
        let (least, at) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        least.saturating_add(at.elapsed().as_secs())
    }
}

impl TimeProvider for Floor {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.seconds())))
    }
}

/// The certificates of a text, of which there is one at least.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(chain) if chain.is_empty() => Err("it holds no certificate".into()),
        Ok(chain) => Ok(chain),
        Err(why) => Err(why.to_string()),
    }
}

/// A client that believes one authority, by a lower bound of the time; with what it shows, if anything.
///
/// # Errors
/// When the authority or the certificate cannot be used.
pub(crate) fn client(ca: &[u8], floor: &Floor, shown: Option<Arc<CertifiedKey>>) -> Result<Arc<ClientConfig>, Fault> {
    let wrong = |why: String| {
        Fault::new("cannot use the fleet's certificate authority")
            .because(why)
            .remedy("set the key `ca` to the fleet's ca.pem, a file with a PEM certificate")
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca).map_err(wrong)? {
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let verifier = Arc::new(Patient { strict: verifier.map_err(|e| wrong(e.to_string()))? });
    let config = ClientConfig::builder_with_details(provider, Arc::new(floor.clone()));
    let config = config.with_safe_default_protocol_versions().map_err(|e| wrong(e.to_string()))?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier);
    Ok(Arc::new(match shown {
        None => config.with_no_client_auth(),
        Some(shown) => config.with_client_cert_resolver(Arc::new(Shown(shown))),
    }))
}

/// The strict verifier, but that no certificate is too new for it.
#[derive(Debug)]
struct Patient {
    strict: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Patient {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut at = now;
        for _ in 0..LONGEST_CHAIN {
            match self.strict.verify_server_cert(leaf, chain, name, ocsp, at) {
                // Whoever signed it knew that time: it has come, and the bound is behind.
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if not_before.as_secs() > at.as_secs() =>
                {
                    at = not_before;
                }
                verdict => return verdict,
            }
        }
        self.strict.verify_server_cert(leaf, chain, name, ocsp, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

/// A chain and its key, to be shown to servers.
///
/// # Errors
/// When the certificate is for another key.
pub(super) fn certified(chain: Vec<CertificateDer<'static>>, key: Arc<dyn Key>) -> Result<Arc<CertifiedKey>, String> {
    let spki = key.public().spki().to_vec();
    let leaf = chain.first().ok_or("it holds no certificate")?;
    if !leaf.windows(spki.len()).any(|part| part == spki) {
        return Err("it is for another key".into());
    }
    Ok(Arc::new(CertifiedKey::new(chain, Arc::new(Handle(key)))))
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        schemes.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The library's door to a key, wherever it lies.
#[derive(Debug, Clone)]
struct Handle(Arc<dyn Key>);

impl SigningKey for Handle {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Handle {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.0.sign(message).map_err(|e| Error::General(e.to_string()))?;
        Ok(der::signature(&signature))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
