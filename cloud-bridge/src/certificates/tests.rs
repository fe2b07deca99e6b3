//! Who is believed to be whom: certificates of this fleet and of another, at their time and outside of it.

use super::*;
use bridge_core::Withdrawn;
use protocol::DeviceId;
use rustls::RootCertStore;
use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;

fn fleet() -> FleetId {
    "plant-3".parse().unwrap()
}

fn device() -> DeviceId {
    "press-7".parse().unwrap()
}

fn first() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_first(&fleet(), &["bridge.example".into()], NOW, 3_650, dir.path()).unwrap();
    dir
}

fn issuer(dir: &TempDir) -> Issuer {
    Issuer::open(&fleet(), &dir.path().join("devices.pem"), &dir.path().join("devices.key")).unwrap()
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

#[test]
fn each_says_when_it_ends() {
    let dir = first();
    let ends = |name: &str| {
        let all = chain(&dir.path().join(name));
        all.iter().map(|certificate| (end(certificate).unwrap() - NOW) / DAY).collect::<Vec<_>>()
    };
    assert_eq!((ends("ca.pem"), ends("devices.pem")), (vec![3_650], vec![3_650]));
    assert_eq!((ends("bridge.pem"), ends("petrel-bridge.pem")), (vec![730], vec![730, 3_650]));
    assert!(end(b"no certificate").is_err());
}

fn anchor(dir: &TempDir, name: &str) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add(chain(&dir.path().join(name)).remove(0)).unwrap();
    Arc::new(store)
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_believed(ca: &TempDir, of: &TempDir, name: &'static str, seconds: u64) -> bool {
    let verifier = WebPkiServerVerifier::builder_with_provider(anchor(ca, "ca.pem"), provider()).build().unwrap();
    let name = ServerName::try_from(name).unwrap();
    verifier.verify_server_cert(&chain(&of.path().join("bridge.pem"))[0], &[], &name, &[], at(seconds)).is_ok()
}

/// Whether a chain is taken as a client's; `list` names those that count no more.
fn client_believed(
    dir: &TempDir,
    anchor_name: &str,
    shown: &[CertificateDer<'static>],
    list: Option<&str>,
    seconds: u64,
) -> bool {
    let mut verifier = WebPkiClientVerifier::builder_with_provider(anchor(dir, anchor_name), provider());
    if let Some(list) = list {
        verifier = verifier.with_crls([CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap()]);
    }
    verifier.build().unwrap().verify_client_cert(&shown[0], &shown[1..], at(seconds)).is_ok()
}

/// A request for a new key, as `edit` makes it.
fn request(key: &KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(device().as_str(), None);
    edit(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn pem_chain(text: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text.as_bytes()).map(Result::unwrap).collect()
}

#[test]
fn the_bridge_is_believed_by_its_own_fleet_only() {
    let (ours, theirs) = (first(), first());
    for name in ["localhost", "127.0.0.1", "::1", "bridge.example"] {
        assert!(server_believed(&ours, &ours, name, NOW), "{name}");
    }
    assert!(!server_believed(&theirs, &ours, "localhost", NOW), "another fleet");
    assert!(!server_believed(&ours, &ours, "elsewhere.example", NOW), "another host");
    assert!(!server_believed(&ours, &ours, "localhost", NOW - 2 * DAY), "before its time");
    assert!(!server_believed(&ours, &ours, "localhost", NOW + 731 * DAY), "after its time");
}

#[test]
fn a_device_is_believed_as_a_client_for_90_days_and_never_as_a_server() {
    let dir = first();
    let request = Request::read(&request(&new_key().unwrap(), |_| ()), &device()).unwrap();
    let issued = issuer(&dir).issue(&device(), &request, NOW).unwrap();
    let shown = pem_chain(&issued.chain);
    assert_eq!((shown.len(), issued.credential.key.as_slice()), (2, request.key.spki()));
    assert_eq!(issued.credential.certificate, trust::Digest::of(&shown[0]));
    for authority in ["devices.pem", "ca.pem"] {
        assert!(client_believed(&dir, authority, &shown, None, NOW), "{authority}");
        assert!(client_believed(&dir, authority, &shown, None, NOW + 89 * DAY), "{authority}");
        assert!(!client_believed(&dir, authority, &shown, None, NOW + 91 * DAY), "{authority}");
        assert!(!client_believed(&first(), authority, &shown, None, NOW), "another fleet: {authority}");
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(anchor(&dir, "ca.pem"), provider()).build().unwrap();
    let name = ServerName::try_from("press-7").unwrap();
    assert!(verifier.verify_server_cert(&shown[0], &shown[1..], &name, &[], at(NOW)).is_err());
}

#[test]
fn the_bridge_shows_a_certificate_of_its_own_to_the_broker() {
    let dir = first();
    let shown = chain(&dir.path().join("petrel-bridge.pem"));
    assert!(client_believed(&dir, "devices.pem", &shown, None, NOW));
    let server = chain(&dir.path().join("bridge.pem"));
    assert!(!client_believed(&dir, "ca.pem", &server, None, NOW), "a server is no client");
}

#[test]
fn what_was_withdrawn_counts_no_more() {
    let dir = first();
    let issuer = issuer(&dir);
    let issue = || {
        let request = Request::read(&request(&new_key().unwrap(), |_| ()), &device()).unwrap();
        issuer.issue(&device(), &request, NOW).unwrap()
    };
    let (gone, stays) = (issue(), issue());
    let row = |issued: &Issued| Withdrawn {
        device: device(),
        serial: issued.credential.serial.clone(),
        until: issued.credential.until,
        since: NOW * 1_000,
    };
    let empty = issuer.list(&[], NOW).unwrap();
    let list = issuer.list(&[row(&gone)], NOW).unwrap();
    assert!(client_believed(&dir, "devices.pem", &pem_chain(&gone.chain), Some(&empty), NOW));
    assert!(!client_believed(&dir, "devices.pem", &pem_chain(&gone.chain), Some(&list), NOW));
    assert!(client_believed(&dir, "devices.pem", &pem_chain(&stays.chain), Some(&list), NOW));
    let fleeting = issuer.fleeting(&device(), NOW).unwrap();
    assert!(client_believed(&dir, "devices.pem", &fleeting.chain, Some(&list), NOW));
    assert!(!client_believed(&dir, "devices.pem", &fleeting.chain, Some(&list), NOW + 2 * HOUR));
}

/// T69: a request that does not prove what it says, or says something else.
#[test]
fn a_request_of_another_name_or_key_or_without_proof_is_not_taken() {
    let key = new_key().unwrap();
    let good = request(&key, |_| ());
    assert!(Request::read(&good, &device()).is_ok());
    let refused = |pem: &str| Request::read(pem, &device()).unwrap_err();

    let other = request(&key, |p| p.distinguished_name = named("press-8", None));
    let bridge = request(&key, |p| p.distinguished_name = named(BRIDGE_NAME, None));
    let nobody = request(&key, |p| p.distinguished_name = DistinguishedName::new());
    let twice = request(&key, |p| p.distinguished_name = named(device().as_str(), Some(&fleet())));
    for pem in [&other, &bridge, &nobody, &twice] {
        assert_eq!(refused(pem), Unacceptable::Name(device()));
    }

    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    for key in [&p384, &ed25519] {
        assert_eq!(refused(&request(key, |_| ())), Unacceptable::Key);
    }
    // RSA of 512 bits, made by `openssl req -newkey rsa:512 -subj /CN=press-7`.
    let rsa = refused(include_str!("rsa-512.csr.pem"));
    assert!(matches!(rsa, Unacceptable::Key | Unacceptable::Unproved | Unacceptable::Malformed(_)), "{rsa}");

    // Another key under the same signature, and every bit of the request.
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
    let (whole, mut taken) = (Request::read(&good, &device()).unwrap(), 0);
    for bit in 0..der.len() * 8 {
        let mut bytes = der.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // Around what is signed stand a few bits that say nothing; with them changed it is the same request.
        if let Ok(read) = Request::read(&rcgen_pem(&bytes), &device()) {
            assert_eq!(read.key, whole.key, "bit {bit}");
            taken += 1;
        }
    }
    assert!(taken < 64, "{taken} bits do not matter");
    for junk in ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n"] {
        assert!(matches!(refused(junk), Unacceptable::Malformed(_)), "{junk}");
    }
}

fn rcgen_pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}

#[test]
fn an_issuer_needs_the_key_of_its_certificate() {
    let (ours, theirs) = (first(), first());
    let open = |certificate: &TempDir, key: &TempDir| {
        Issuer::open(&fleet(), &certificate.path().join("devices.pem"), &key.path().join("devices.key"))
    };
    assert!(open(&ours, &ours).is_ok());
    assert!(open(&ours, &theirs).is_err());
}
