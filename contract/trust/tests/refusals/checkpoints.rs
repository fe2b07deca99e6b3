//! Checkpoints of the audit log, and documents of versions that are not known here.

use crate::signer::*;
use crate::{Case, case};
use petrel_trust::*;
use serde_json::Value;

pub(crate) fn cases() -> Vec<Case> {
    let root = trusted();
    let known = |edit: &dyn Fn(&mut Value), keys: &[u8]| {
        verify_checkpoint(&root, &edited_and_sealed(PayloadKind::Checkpoint, &checkpoint(), edit, keys))
    };
    known(&|_| {}, &[DIRECTOR]).expect("the honest checkpoint is believed");
    let mut cases = vec![
        case("T80", "a checkpoint that nobody signed who may", Code::Role, known(&|_| {}, &[BEACON])),
        case("T80", "a stranger's checkpoint", Code::Threshold, known(&|_| {}, &[STRANGER])),
        case("T80", "another fleet's checkpoint", Code::Fleet, known(&|c| c["fleet"] = "other".into(), &[DIRECTOR])),
        case("T80", "a checkpoint of another epoch", Code::Replay, known(&|c| c["role_epoch"] = 2.into(), &[DIRECTOR])),
        case("VERSION", "a checkpoint of spec 2", Code::Version, known(&|c| c["spec"] = 2.into(), &[DIRECTOR])),
        case("T80", "an assignment in its place", Code::Type, verify_checkpoint(&root, &assignment_bytes())),
    ];
    let large = verify_checkpoint(&root, &vec![b' '; MAX_RETAINED_BYTES + 1]);
    cases.push(case("T80", "a checkpoint of 48 KiB and a byte", Code::Limit, large));
    cases.extend(other_versions());
    cases
}

/// The kind is right, its version is from the future, and so may be all the rest.
fn other_versions() -> Vec<Case> {
    let said = |kind: PayloadKind, payload_type: &str| {
        let honest = envelope(kind, br#"{"spec":2,"unheard":true}"#, &[DIRECTOR]);
        Envelope::parse(kind, &Envelope { payload_type: payload_type.into(), ..honest }.to_bytes(), MAX_DOCUMENT_BYTES)
    };
    use PayloadKind::*;
    let mut cases = Vec::new();
    for (kind, name) in [
        (Root, "root"),
        (Assignment, "assignment"),
        (Revocation, "revocation"),
        (Beacon, "beacon"),
        (Breakglass, "breakglass"),
        (Report, "report"),
        (Verdict, "verdict"),
        (Checkpoint, "checkpoint"),
        (Command, "command"),
        (Result, "result"),
    ] {
        for version in [0, 2, 10] {
            let payload_type = format!("application/vnd.petrel.{name}.v{version}+json");
            cases.push(case("VERSION", format!("{name} of type v{version}"), Code::Version, said(kind, &payload_type)));
        }
        for odd in ["v", "v-2", "v2x", "2"] {
            let payload_type = format!("application/vnd.petrel.{name}.{odd}+json");
            cases.push(case("T07", format!("{name} of type {odd}"), Code::Type, said(kind, &payload_type)));
        }
    }
    cases.push(case("T07", "a root of version 2 as a beacon", Code::Type, {
        said(Beacon, "application/vnd.petrel.root.v2+json")
    }));
    cases
}
