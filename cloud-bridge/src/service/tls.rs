//! TLS on land: who the bridge says it is, and whom it believes.
//!
//! Clients may show a certificate that the intermediate of devices signed; what they may do with it is decided where
//! it is asked for. Servers must show one that leads to the fleet's own authority, and no other counts.

use super::config::BridgeConfig;
use crate::fault::Fault;
use crate::keyfile;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

const REMEDY: &str = "give the files that `petrel root init` wrote in tls/";

/// The REST API's side.
///
/// # Errors
/// When a file cannot be used.
pub(crate) fn server(config: &BridgeConfig) -> anyhow::Result<Arc<ServerConfig>> {
    let devices = Arc::new(authority(&config.devices_cert)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(devices, Arc::new(provider()));
    let verifier = verifier.allow_unauthenticated().build().map_err(|e| unusable(&config.devices_cert, e))?;
    let tls = ServerConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()?;
    let (chain, key) = (chain(&config.tls_cert)?, key(&config.tls_key)?);
    let tls = tls.with_client_cert_verifier(verifier).with_single_cert(chain, key);
    let mut tls = tls.map_err(|e| unusable(&config.tls_cert, e))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// A client's side, with a certificate of the intermediate.
///
/// # Errors
/// When a file or the certificate cannot be used.
pub(crate) fn client(
    ca: &Path,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<ClientConfig> {
    let tls = ClientConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()?;
    Ok(tls.with_root_certificates(authority(ca)?).with_client_auth_cert(chain, key)?)
}

/// The certificates of a file.
pub(crate) fn chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(|chain| chain.collect::<Result<Vec<_>, _>>());
    let chain = read.map_err(|e| unusable(path, e))?;
    if chain.is_empty() { Err(unusable(path, "it holds no certificate").into()) } else { Ok(chain) }
}

/// A secret key, which nobody but its owner can read.
pub(crate) fn key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let text = keyfile::read_secret_text(path)?;
    Ok(PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| unusable(path, e))?)
}

fn authority(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in chain(path)? {
        store.add(certificate).map_err(|e| unusable(path, e))?;
    }
    Ok(store)
}

fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn unusable(path: &Path, why: impl ToString) -> Fault {
    Fault::new(format!("cannot use {}", path.display())).because(why.to_string()).remedy(REMEDY)
}
