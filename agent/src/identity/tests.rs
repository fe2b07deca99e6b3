//! The slots through every power cut, and TLS against everybody who may answer.

use super::*;
use crate::config::Address;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::net::TcpListener;
use tempfile::TempDir;

/// 2025-01-01
const NOW: u64 = 1_735_689_600;

/// An authority that signs servers and devices.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    der: rustls_pki_types::CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { params, key, pem: certificate.pem(), der: certificate.der().clone() }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// What land answers to a request.
    fn enrolled(&self, csr: &str, until: u64) -> Enrolled {
        let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let chain = request.signed_by(&self.issuer()).unwrap().pem();
        Enrolled { spec: 1, chain, from: NOW, until, pending: false }
    }

    /// A certificate for `name`, good in these years, with its key.
    fn server(&self, name: &str, years: (i32, i32)) -> (Vec<rustls_pki_types::CertificateDer<'static>>, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        (vec![params.signed_by(&key, &self.issuer()).unwrap().der().clone()], key)
    }
}

fn names() -> (FleetId, DeviceId) {
    ("sea".parse().unwrap(), "edge-1".parse().unwrap())
}

/// A request for a slot's key, answered.
fn fill(slots: &Slots, authority: &Authority) -> Identity {
    let (slot, key) = slots.next_key().unwrap();
    let (fleet, device) = names();
    let csr = der::request(device.as_str(), &*key).unwrap();
    slots.keep(slot, &fleet, &device, authority.enrolled(&csr, NOW + 90 * 86_400)).unwrap()
}

fn key_of(identity: &Identity) -> Vec<u8> {
    identity.key.public().spki().to_vec()
}

#[test]
fn a_request_is_what_others_understand() {
    let dir = tempfile::tempdir().unwrap();
    let key = FileKey::open_or_make(&*crate::store::host(), &dir.path().join("a.key")).unwrap();
    for _ in 0..32 {
        // It is signed anew each time, so numbers of every length come by.
        let request = CertificateSigningRequestParams::from_pem(&der::request("edge-1", &key).unwrap()).unwrap();
        let raw = rcgen::PublicKeyData::der_bytes(&request.public_key).to_vec();
        assert_eq!(trust::DeviceKey::from_point(&raw).unwrap(), *key.public());
        let name = request.params.distinguished_name.get(&DnType::CommonName).unwrap();
        assert_eq!(name, &rcgen::DnValue::Utf8String("edge-1".into()));
    }
}

/// T72: a device is never without a whole identity that land believes, wherever the power goes.
#[test]
fn a_power_cut_at_any_step_of_a_renewal_leaves_an_old_or_a_new_identity() {
    let (state, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let slots = Slots::of(state.path());
    assert!(slots.all().unwrap_err().advice().unwrap().contains("enrol"));
    let old = fill(&slots, &authority);
    // What a start after the cut finds; land believes the old key until it has seen the new one.
    let found = |expected: &[&Identity]| {
        let all = Slots::of(state.path()).all().unwrap();
        assert_eq!(all.iter().map(key_of).collect::<Vec<_>>(), expected.iter().map(|i| key_of(i)).collect::<Vec<_>>());
    };
    found(&[&old]);

    // The new key is made, and made no second time.
    let (slot, key) = slots.next_key().unwrap();
    found(&[&old]);
    assert_eq!(slots.next_key().unwrap().1.public(), key.public());
    assert_ne!(slot, old.slot);
    // Half a certificate under another name.
    fs::write(state.path().join("identity/b.json.new"), b"{").unwrap();
    found(&[&old]);
    // The certificate is there: the new one is tried first, the old one stays.
    let new = fill(&slots, &authority);
    found(&[&new, &old]);
    assert!(slots.next_key().is_err(), "one renewal at a time");
    // The broker took the new one; the old certificate goes before its key.
    fs::remove_file(slots.certificate(old.slot)).unwrap();
    found(&[&new]);
    slots.keep_only(new.slot).unwrap();
    found(&[&new]);
    assert!(!slots.key(old.slot).exists());
    slots.keep_only(new.slot).unwrap();
    // And so on, back in the first slot.
    let third = fill(&slots, &authority);
    assert_eq!(third.slot, old.slot);
    found(&[&third, &new]);
}

#[test]
fn a_certificate_for_another_key_is_not_kept() {
    let (state, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let slots = Slots::of(state.path());
    let (slot, _) = slots.next_key().unwrap();
    let other = FileKey::open_or_make(&*crate::store::host(), &state.path().join("other.key")).unwrap();
    let (fleet, device) = names();
    let answer = authority.enrolled(&der::request("edge-1", &other).unwrap(), NOW + 9);
    assert!(crate::fault::told(&slots.keep(slot, &fleet, &device, answer).unwrap_err()).contains("another key"));
    assert!(slots.all().is_err());
}

#[test]
fn a_damaged_slot_is_told_and_the_other_one_serves() {
    let (state, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let slots = Slots::of(state.path());
    let first = fill(&slots, &authority);
    let second = fill(&slots, &authority);
    let whole = fs::read(slots.certificate(second.slot)).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", b"{}"] {
        fs::write(slots.certificate(second.slot), damaged).unwrap();
        assert_eq!(slots.all().unwrap().iter().map(key_of).collect::<Vec<_>>(), [key_of(&first)]);
    }
    fs::remove_file(slots.key(first.slot)).unwrap();
    assert!(slots.all().unwrap_err().advice().unwrap().contains("enrol"));
}

#[test]
fn a_newer_certificate_is_asked_for_at_two_thirds_of_its_life() {
    let (state, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let identity = fill(&Slots::of(state.path()), &authority);
    let day = 86_400;
    for (now, expired, expected) in [
        (0, false, Need::Nothing),
        (NOW + 59 * day, false, Need::Nothing),
        (NOW + 60 * day, false, Need::Renewal),
        (NOW + 89 * day, false, Need::Renewal),
        (NOW + 90 * day, false, Need::Return),
        (0, true, Need::Return),
    ] {
        assert_eq!(need(&identity, now, expired), expected, "{now}");
    }
}

/// A server that completes one handshake, or fails to; and where it is.
fn serve(
    chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    key: &KeyPair,
    clients: Option<&Authority>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (Address, std::thread::JoinHandle<Option<Vec<u8>>>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = match clients {
        None => tls.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            tls.with_client_cert_verifier(verifier)
        }
    };
    let tls = Arc::new(tls.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address { host: "localhost".into(), port: listener.local_addr().unwrap().port() };
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = rustls::StreamOwned::new(rustls::ServerConnection::new(tls).unwrap(), stream);
        let body = br#"{"status":401,"code":"token_used","detail":"x"}"#;
        let mut heard = [0; 2048];
        // A request may come in several pieces.
        let mut length = line.read(&mut heard).ok()?;
        while !heard[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            length += line.read(&mut heard[length..]).ok().filter(|more| *more > 0)?;
        }
        write!(line, "HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n", body.len()).ok()?;
        line.write_all(body).ok()?;
        line.flush().ok()?;
        let shown = line.conn.peer_certificates().map(|chain| chain[0].to_vec()).unwrap_or_default();
        assert!(heard[..length].starts_with(b"POST /x HTTP/1.1\r\n"));
        Some(shown)
    });
    (address, served)
}

/// T65: who may call itself the bridge, at which time; and that a board which boots in 1970 connects.
#[test]
fn only_the_fleets_own_server_in_its_time_is_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let everything = rustls::ALL_VERSIONS;
    let selfsigned = {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (vec![params.self_signed(&key).unwrap().der().clone()], key)
    };
    for (what, (chain, key), floor, believed) in [
        ("at its time", ours.server("localhost", (2024, 2027)), NOW, true),
        ("a clock of 1970", ours.server("localhost", (2024, 2027)), 0, true),
        ("made after the last time that is known", ours.server("localhost", (2030, 2032)), NOW, true),
        ("expired for certain", ours.server("localhost", (2020, 2024)), NOW, false),
        ("expired, but nobody here can know", ours.server("localhost", (2020, 2024)), 0, true),
        ("wrong authority", theirs.server("localhost", (2024, 2027)), NOW, false),
        ("wrong authority, in 1970", theirs.server("localhost", (2024, 2027)), 0, false),
        ("wrong name", ours.server("elsewhere", (2024, 2027)), NOW, false),
        ("wrong name, in 1970", ours.server("elsewhere", (2024, 2027)), 0, false),
        ("signed by itself", selfsigned, NOW, false),
    ] {
        let (address, served) = serve(chain, &key, None, everything);
        let tls = tls::client(ours.pem.as_bytes(), &Floor::new(floor), None).unwrap();
        let answer = land::send(&address, "/x", tls, &serde_json::json!({})).unwrap_err();
        match answer {
            land::Failure::Refused(problem) => assert!(believed && problem.code == "token_used", "{what}"),
            land::Failure::Impostor { .. } => assert!(!believed, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(served.join().unwrap().is_some(), believed, "{what}");
    }
}

#[test]
fn tls_1_2_has_strong_suites_only() {
    let ours = Authority::new();
    let tls = tls::client(ours.pem.as_bytes(), &Floor::new(NOW), None).unwrap();
    for suite in &tls.crypto_provider().cipher_suites {
        let name = format!("{:?}", suite.suite());
        assert!(name.starts_with("TLS13_") || (name.contains("ECDHE") && !name.contains("CBC")), "{name}");
    }
    // A server that knows nothing later than 1.2 is spoken to, with one of those.
    let (chain, key) = ours.server("localhost", (2024, 2027));
    let (address, served) = serve(chain, &key, None, &[&rustls::version::TLS12]);
    assert!(matches!(land::send(&address, "/x", tls, &serde_json::json!({})), Err(land::Failure::Refused(_))));
    assert!(served.join().unwrap().is_some());
}

#[test]
fn the_device_shows_its_certificate_and_signs_with_its_key() {
    let (state, ours): (TempDir, Authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let identity = fill(&Slots::of(state.path()), &ours);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (chain, key) = ours.server("localhost", (2024, 2027));
        let (address, served) = serve(chain, &key, Some(&ours), &[version]);
        let tls = identity.tls(ours.pem.as_bytes(), &Floor::new(0)).unwrap();
        let answer = land::send(&address, "/x", tls, &serde_json::json!({}));
        assert!(matches!(answer, Err(land::Failure::Refused(_))), "{answer:?}");
        assert_eq!(served.join().unwrap(), Some(identity.shown.cert[0].to_vec()));
    }
}
