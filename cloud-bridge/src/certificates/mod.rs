//! The fleet's certificates: who is believed to be the bridge, and who to be a device.
//!
//! Decides what each certificate may be used for and how long it counts. Who is given one is decided by the
//! service, and in the end by `bridge-core`. The authority's own key signs here once, when a fleet is made, and
//! then belongs in a safe: the running bridge holds the intermediate of devices alone.

mod issuer;
mod request;

pub(crate) use issuer::{Fleeting, Issued, Issuer};
pub(crate) use request::{Request, Unacceptable};

use crate::fault::Fault;
use crate::keyfile;
use anyhow::Context;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use protocol::{BRIDGE_NAME, FleetId};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// How long the bridge's own certificates count.
const BRIDGE_DAYS: u64 = 2 * 365;
/// Every bridge answers on its own machine.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes the first certificates of a fleet, with their keys, in `DIR`: the authority (`ca`), the intermediate that
/// signs devices (`devices`), the bridge as a server (`bridge`) and as a client of the broker (`petrel-bridge`).
///
/// # Errors
/// When a host is no name and no address, or a file cannot be written.
pub(crate) fn write_first(fleet: &FleetId, hosts: &[String], now: u64, days: u64, dir: &Path) -> anyhow::Result<()> {
    let (root, root_key) = (authority(fleet, "petrel CA", 1, now, days), new_key()?);
    let certificate = root.self_signed(&root_key).context("the certificate authority cannot be made")?;
    write(dir, "ca", &[&certificate], &root_key)?;
    let root = rcgen::Issuer::from_params(&root, &root_key);

    let (devices, devices_key) = (authority(fleet, "petrel devices", 0, now, days), new_key()?);
    let intermediate = devices.signed_by(&devices_key, &root).context("the intermediate cannot be made")?;
    write(dir, "devices", &[&intermediate], &devices_key)?;

    let hosts: BTreeSet<String> = LOCAL_HOSTS.map(str::to_owned).into_iter().chain(hosts.iter().cloned()).collect();
    let no_host = |e| Fault::new("a host of the bridge is no name and no address").because(e);
    let server = CertificateParams::new(hosts.into_iter().collect::<Vec<_>>()).map_err(no_host)?;
    let server = leaf(server, fleet, BRIDGE_NAME, ExtendedKeyUsagePurpose::ServerAuth, now, BRIDGE_DAYS.min(days));
    let server_key = new_key()?;
    let certificate = server.signed_by(&server_key, &root).context("the bridge's certificate cannot be made")?;
    write(dir, "bridge", &[&certificate], &server_key)?;

    let client = CertificateParams::default();
    let client = leaf(client, fleet, BRIDGE_NAME, ExtendedKeyUsagePurpose::ClientAuth, now, BRIDGE_DAYS.min(days));
    let client_key = new_key()?;
    let devices = rcgen::Issuer::from_params(&devices, &devices_key);
    let certificate = client.signed_by(&client_key, &devices).context("the bridge's certificate cannot be made")?;
    write(dir, BRIDGE_NAME, &[&certificate, &intermediate], &client_key)
}

fn new_key() -> anyhow::Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("no key can be made")
}

/// A certificate that signs others; `below` it stand so many that do so as well.
fn authority(fleet: &FleetId, name: &str, below: u8, now: u64, days: u64) -> CertificateParams {
    let mut ca = CertificateParams::default();
    ca.distinguished_name = named(name, Some(fleet));
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    ca.use_authority_key_identifier_extension = true;
    valid(&mut ca, now.saturating_sub(DAY), now + days * DAY);
    ca
}

/// A certificate that signs none, and is used in one way only.
fn leaf(
    mut leaf: CertificateParams,
    fleet: &FleetId,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
    now: u64,
    days: u64,
) -> CertificateParams {
    leaf.distinguished_name = named(name, Some(fleet));
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![usage];
    leaf.use_authority_key_identifier_extension = true;
    // From the day before, because clocks differ.
    valid(&mut leaf, now.saturating_sub(DAY), now + days * DAY);
    leaf
}

fn named(name: &str, fleet: Option<&FleetId>) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    if let Some(fleet) = fleet {
        distinguished.push(DnType::OrganizationName, fleet.as_str());
    }
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn valid(certificate: &mut CertificateParams, from: u64, until: u64) {
    certificate.not_before = at(from);
    certificate.not_after = at(until);
}

/// A moment as certificates write it; seconds since 1970.
fn at(seconds: u64) -> OffsetDateTime {
    date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
}

/// When a certificate ends, in seconds since 1970.
///
/// # Errors
/// When it is none, in DER.
pub(crate) fn end(certificate: &[u8]) -> anyhow::Result<u64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).context("this is no certificate")?;
    Ok(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default())
}

fn write(dir: &Path, name: &str, chain: &[&Certificate], key: &KeyPair) -> anyhow::Result<()> {
    let pem: String = chain.iter().map(|certificate| certificate.pem()).collect();
    keyfile::write_new(&dir.join(format!("{name}.pem")), pem.as_bytes(), 0o644)?;
    let secret = Zeroizing::new(key.serialize_pem());
    keyfile::write_new(&dir.join(format!("{name}.key")), secret.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests;
