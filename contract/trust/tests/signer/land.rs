//! Land as it goes on: newer roots, revocations, beacons, breakglasses, and a device that believes them.

use super::*;
use serde_json::Value;

/// The uptime at which most of the tests happen, in milliseconds.
pub(crate) const UP: u64 = 60_000;
/// When the root of the tests was issued.
pub(crate) const T0: i64 = 1_700_000_000;
/// This boot's nonce.
pub(crate) const NONCE: &str = "5d0c";

/// A document of plain data after `edit`, signed by `keys`.
pub(crate) fn edited_and_sealed<T: Serialize>(
    kind: PayloadKind,
    document: &T,
    edit: impl FnOnce(&mut Value),
    keys: &[u8],
) -> Vec<u8> {
    let mut value = serde_json::to_value(document).expect("plain data");
    edit(&mut value);
    sealed(kind, &json(&value), keys)
}

pub(crate) fn device() -> Device {
    Device {
        id: DEVICE.into(),
        class: "rpi4".into(),
        certificate: Some(Digest::of(b"cert")),
        built: moment(T0 - 1_000),
    }
}

/// A device at the beginning of its life, which expects [`NONCE`].
pub(crate) fn trust() -> Trust {
    let mut trust = Trust::first(device(), FLEET, &root_bytes()).expect("the honest root is believed");
    trust.expect_nonce(NONCE, 0);
    trust
}

/// The same under another first root.
pub(crate) fn trust_under(edit: impl FnOnce(&mut Value)) -> Trust {
    let bytes = edited_and_sealed(PayloadKind::Root, &root(), edit, &ROOTS[..2]);
    let mut trust = Trust::first(device(), FLEET, &bytes).expect("the edited root is believed");
    trust.expect_nonce(NONCE, 0);
    trust
}

/// The root after `trusted`, after `edit`, signed by `keys`.
pub(crate) fn root_after(trusted: &Verified<Root>, edit: impl FnOnce(&mut Value), keys: &[u8]) -> Vec<u8> {
    let version = number(trusted.version.get() + 1);
    let next = Root { version, prev_sha256: Some(trusted.digest()), ..Root::clone(trusted) };
    edited_and_sealed(PayloadKind::Root, &next, edit, keys)
}

pub(crate) fn revocation(version: u64) -> Revocation {
    Revocation {
        spec: number(SPEC),
        fleet: FLEET.into(),
        issued: moment(T0 + 60),
        role_epoch: number(3),
        version: number(version),
        keys: vec![],
        bundles: vec![],
        devices: vec![],
        floors: BTreeMap::new(),
    }
}

/// A revocation that says everything that one can say.
pub(crate) fn full_revocation() -> Revocation {
    let row = |bundle, severity| RevokedBundle { bundle, severity, reason: "it reads the labels".into() };
    let releases = Releases { stream: "digits".into(), first: number(1), last: number(999_999) };
    Revocation {
        keys: vec![
            RevokedKey { keyid: id(PUBLISHERS[2]), from: RevokedFrom::All },
            RevokedKey { keyid: id(DIRECTOR), from: RevokedFrom::IssuedAfter(moment(T0 + 3_600)) },
        ],
        bundles: vec![
            row(WhichBundle::StatementSha256(Digest::of(b"a bundle")), Severity::Stop),
            row(WhichBundle::Releases(releases), Severity::NoNew),
        ],
        devices: vec![RevokedDevice::DeviceId("rpi-2".into()), RevokedDevice::CertSha256(Digest::of(b"stolen"))],
        floors: BTreeMap::from([("digits".into(), number(1_000_000))]),
        ..revocation(5)
    }
}

/// Root 2: new root keys, signed by the old and the new.
pub(crate) fn second_root() -> Root {
    let mut next = root();
    let keys = [4, 5, 6];
    next.keys.extend(keys.map(|k| (id(k), Key { scheme: Scheme::Ed25519, public: public(k) })));
    let held = RoleKeys { keyids: keys.map(id).into(), threshold: number(2), role_epoch: number(4) };
    next.roles.insert(Role::Root.to_string(), held);
    Root { version: number(2), prev_sha256: Some(trusted().digest()), clock_reset: Some(number(1)), ..next }
}

pub(crate) fn second_root_bytes() -> Vec<u8> {
    sealed(PayloadKind::Root, &json(&second_root()), &[1, 2, 4, 5])
}

pub(crate) fn revocation_bytes() -> Vec<u8> {
    sealed(PayloadKind::Revocation, &json(&full_revocation()), &[REVOCATION, REVOCATION_2])
}

pub(crate) fn beacon_bytes() -> Vec<u8> {
    sealed(PayloadKind::Beacon, &json(&beacon(9)), &[BEACON])
}

pub(crate) fn checkpoint() -> Checkpoint {
    Checkpoint {
        spec: number(SPEC),
        fleet: FLEET.into(),
        issued: moment(T0 + 60),
        role_epoch: number(3),
        seq: number(142),
        sha256: Digest::of(b"the line 142"),
    }
}

pub(crate) fn checkpoint_bytes() -> Vec<u8> {
    sealed(PayloadKind::Checkpoint, &json(&checkpoint()), &[DIRECTOR])
}

/// A command that was signed a minute after land heard the hello, and counts for a minute.
pub(crate) fn command() -> Command {
    let request = Request::LogLevel { level: LogLevel::Debug, for_s: number(600) };
    Command {
        spec: number(SPEC),
        fleet: FLEET.into(),
        issued: moment(T0 + 60),
        device_id: DEVICE.into(),
        role_epoch: number(3),
        nonce: NONCE.into(),
        heard: moment(T0),
        seq: number(7),
        deadline: moment(T0 + 120),
        request: serde_json::to_value(request).expect("plain data"),
    }
}

pub(crate) fn command_bytes() -> Vec<u8> {
    sealed(PayloadKind::Command, &json(&command()), &[DIRECTOR])
}

pub(crate) fn breakglass_bytes() -> Vec<u8> {
    sealed(PayloadKind::Breakglass, &json(&breakglass()), &BREAKGLASS)
}

/// The state of a device that took one of each.
pub(crate) fn settled() -> Trust {
    let mut t = trust();
    t.accept_revocation(&revocation_bytes(), UP).expect("the revocation");
    t.accept_assignment(&assignment_bytes(), UP).expect("the assignment");
    t.accept_beacon(&beacon_bytes(), UP).expect("the beacon");
    t.accept_breakglass(&breakglass_bytes(), UP).expect("the breakglass");
    t
}

pub(crate) fn beacon(seq: u64) -> Beacon {
    Beacon {
        spec: number(SPEC),
        fleet: FLEET.into(),
        issued: moment(T0 + 120),
        role_epoch: number(3),
        seq: number(seq),
        now: moment(T0 + 120),
        nonce: Some(NONCE.into()),
        root_version: number(1),
        revocation_version: number(0),
    }
}

pub(crate) fn breakglass() -> Breakglass {
    Breakglass {
        spec: number(SPEC),
        fleet: FLEET.into(),
        issued: moment(T0 + 60),
        role_epoch: number(3),
        to: Recipients::DeviceIds(BTreeSet::from([DEVICE.into(), "rpi-9".into()])),
        stream: "digits".into(),
        release: number(1_002_000),
        below_floor: true,
        once_id: "2026-11-fire".into(),
        expires: moment(T0 + 86_400),
    }
}

pub(crate) fn revoked(trust: &mut Trust, version: u64, edit: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    let bytes = edited_and_sealed(PayloadKind::Revocation, &revocation(version), edit, &[REVOCATION]);
    unchanged(trust, |t| t.accept_revocation(&bytes, UP))
}

pub(crate) fn assigned(trust: &mut Trust, seq: u64, edit: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    let document = Assignment { seq: number(seq), ..assignment() };
    let bytes = edited_and_sealed(PayloadKind::Assignment, &document, edit, &[DIRECTOR]);
    unchanged(trust, |t| t.accept_assignment(&bytes, UP))
}

pub(crate) fn beaconed(trust: &mut Trust, seq: u64, edit: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    let bytes = edited_and_sealed(PayloadKind::Beacon, &beacon(seq), edit, &[BEACON]);
    unchanged(trust, |t| t.accept_beacon(&bytes, UP))
}

pub(crate) fn broken_glass(trust: &mut Trust, edit: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    let bytes = edited_and_sealed(PayloadKind::Breakglass, &breakglass(), edit, &BREAKGLASS);
    unchanged(trust, |t| t.accept_breakglass(&bytes, UP))
}

/// Goes through a door; a refusal must leave the bytes of the state as they were, and what was taken
/// must leave no counter lower.
pub(crate) fn unchanged<T>(
    trust: &mut Trust,
    door: impl FnOnce(&mut Trust) -> Result<T, Refusal>,
) -> Result<(), Refusal> {
    let (before, last) = (json(trust.counters()), trust.counters().clone());
    let got = door(trust);
    match &got {
        Ok(_) => assert_eq!(trust.counters().behind(&last), [""; 0], "a counter fell"),
        Err(refusal) => assert_eq!(json(trust.counters()), before, "{refusal} changed the state"),
    }
    got.map(drop)
}

/// The bundle of the tests, as it is offered to a device.
pub(crate) struct Bundle {
    pub(crate) envelope: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) order: StreamAssignment,
    pub(crate) files: Vec<Resource>,
    pub(crate) board: Board,
}

/// A bundle whose manifest was edited, honestly signed and assigned.
pub(crate) fn bundle(edit: impl FnOnce(&mut Value)) -> Bundle {
    let mut value = serde_json::to_value(manifest()).expect("plain data");
    edit(&mut value);
    let manifest = json(&value);
    let files = resources(&files(&manifest));
    let payload = Statement::payload("digits", files.clone());
    let text = |name: &str| value[name].as_str().expect("text").to_owned();
    let order = StreamAssignment {
        stream: text("stream"),
        release: number(value["release"].as_u64().expect("a number")),
        statement_sha256: Digest::of(&payload),
        total_size: number(files.iter().map(|f| f.size.get()).sum()),
        ..assignment().streams[0].clone()
    };
    let envelope = sealed(PayloadKind::Bundle, &payload, &PUBLISHERS[..2]);
    let board = Board {
        arch: "aarch64".into(),
        class: "rpi4".into(),
        ram_mb: 1_024,
        models_mb: 768,
        in_use_mb: 0,
        agent: "0.1.0".into(),
    };
    Bundle { envelope, manifest, order, files, board }
}

impl Bundle {
    /// As the device would see it with nothing active.
    pub(crate) fn offer(&self) -> Offer<'_> {
        Offer {
            envelope: &self.envelope,
            manifest: &self.manifest,
            order: Some(&self.order),
            active: None,
            files: Some(&self.files),
            board: Some(&self.board),
            free_disk: Some(1 << 30),
        }
    }

    /// Whether it may be installed; every rule must have been asked once.
    pub(crate) fn judged<'a>(&'a self, trust: &Trust, edit: impl FnOnce(&mut Offer<'a>)) -> Result<(), Refusal> {
        let mut offer = self.offer();
        edit(&mut offer);
        let judgement = trust.judge(&offer, UP);
        assert!(judgement.findings.is_sorted_by(|a, b| a.rule < b.rule) && judgement.findings.len() == 16);
        assert_eq!(judgement.refusal().is_none() || judgement.installs(), judgement.installs());
        judgement.refusal().cloned().map_or(Ok(()), Err)
    }
}
