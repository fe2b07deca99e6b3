//! `model.sig`: the same statement by a P-256 key, for other people's tools.

use crate::signer::*;
use crate::{Case, case, taken};
use petrel_trust::*;
use serde_json::{Value, json as value};

fn signed(payload: &[u8]) -> Vec<u8> {
    model_signature(&device_key(7), payload, &der_signature(7, &pae(PayloadKind::Bundle.media_type(), payload)))
}

pub(crate) fn cases() -> Vec<Case> {
    let key = device_key(7);
    let honest = signed(&statement_payload());
    let believed = believed();
    Statement::check_model_signature(&believed, &key, &honest).expect("the honest model.sig");
    let spoiled = |edit: &dyn Fn(&mut Value)| {
        let mut file = serde_json::from_slice(&honest).expect("JSON");
        edit(&mut file);
        Statement::check_model_signature(&believed, &key, &json(&file))
    };
    let other = Statement::payload("digits", vec![Resource::new("a", Digest::of(b""), number(0))]);
    // As the specification's own tool writes it: other order, spaces, no sizes, fewer names left out.
    let theirs = br#"{ "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": "eeee7bf4793ec9e141e7cf857408627afb30be39313448a6427e773afd2e8da9"}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"resources": [
          {"algorithm": "sha256", "digest": "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4", "name": "a.txt"},
          {"algorithm": "sha256", "digest": "ebe95d10cc11e27bd8d4d1ce91bc725665ddbaa6ca2498ef38a88a58ad48cdb4", "name": "model.onnx"}],
          "serialization": {"ignore_paths": [".github", ".git", "model.sig"], "method": "files", "hash_type": "sha256", "allow_symlinks": false}}}"#;
    let theirs = verify_model_signature(&key, &signed(theirs));
    assert_eq!(theirs.as_ref().map(|f| f.len()), Ok(2));
    let envelope = |name: &'static str| move |f: &mut Value, v: Value| f["dsseEnvelope"][name] = v;
    let signature = serde_json::from_slice::<Value>(&honest).expect("JSON")["dsseEnvelope"]["signatures"][0].clone();
    let payload = |text: &[u8]| signed(text);
    let mut cases = vec![
        taken("OMS", "a model.sig of the specification's tool", theirs),
        taken(
            "OMS",
            "its order, by the parts of a path",
            verify_model_signature(
                &key,
                &signed(&{
                    // R is the SHA-256 of the raw digests in the order as listed: SHA-256 of "" twice.
                    let (one, empty) = (Digest::of(b""), Digest::of(&[Digest::of(b"").0, Digest::of(b"").0].concat()));
                    let row = |name: &str| value!({"name": name, "algorithm": "sha256", "digest": one});
                    let mut file: Value = serde_json::from_slice(&statement_payload()).expect("JSON");
                    file["predicate"]["resources"] = value!([row("a/b"), row("a.b")]);
                    file["subject"][0]["digest"]["sha256"] = value!(empty);
                    json(&file)
                }),
            ),
        ),
        case("OMS", "another key", Code::KeyId, Statement::check_model_signature(&believed, &device_key(8), &honest)),
        case(
            "OMS",
            "another key's hint",
            Code::KeyId,
            spoiled(&|f| f["verificationMaterial"]["publicKey"]["hint"] = device_key(8).hint().to_string().into()),
        ),
        case("OMS", "no statement of model signing", Code::Parse, verify_model_signature(&key, &payload(b"{}"))),
        case(
            "OMS",
            "another statement",
            Code::Mismatch,
            Statement::check_model_signature(&believed, &key, &signed(&other)),
        ),
        case("OMS", "no signature", Code::Parse, spoiled(&|f| envelope("signatures")(f, value!([])))),
        case(
            "OMS",
            "two signatures",
            Code::Parse,
            spoiled(&|f| envelope("signatures")(f, value!([signature, signature]))),
        ),
        case(
            "OMS",
            "another payload type",
            Code::Type,
            spoiled(&|f| envelope("payloadType")(f, "application/json".into())),
        ),
        case(
            "OMS",
            "another media type",
            Code::Type,
            spoiled(&|f| f["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.2+json".into()),
        ),
        case("OMS", "a log entry", Code::Parse, spoiled(&|f| f["verificationMaterial"]["tlogEntries"] = value!([{}]))),
        case("OMS", "a certificate", Code::Parse, spoiled(&|f| f["verificationMaterial"]["certificate"] = value!({}))),
        case("OMS", "bad base64", Code::Parse, spoiled(&|f| envelope("payload")(f, "AB==".into()))),
        case("OMS", "a signature r and s without ASN.1", Code::Sig, {
            let fixed = device_envelope(PayloadKind::Bundle, &statement_payload(), 7).signatures[0].bytes.clone();
            verify_model_signature(&key, &model_signature(&key, &statement_payload(), &fixed))
        }),
        case("T01", "model.sig over a changed payload", Code::Sig, {
            let mut changed = statement_payload();
            changed[60] ^= 1;
            let der = der_signature(7, &pae(PayloadKind::Bundle.media_type(), &statement_payload()));
            verify_model_signature(&key, &model_signature(&key, &changed, &der))
        }),
        case(
            "T15",
            "a model.sig of 256 KiB and a byte",
            Code::Limit,
            verify_model_signature(&key, &vec![b' '; MAX_DOCUMENT_BYTES + 1]),
        ),
    ];
    let nameless = String::from_utf8(statement_payload()).expect("text").replace(",\"size\":", ",\"size \":");
    cases.push(case("T53", "a misspelt size", Code::Parse, verify_model_signature(&key, &signed(nameless.as_bytes()))));
    let sizeless = sealed(
        PayloadKind::Bundle,
        &{
            let mut value: Value = serde_json::from_slice(&statement_payload()).expect("JSON");
            value["predicate"]["resources"][0].as_object_mut().expect("a resource").remove("size");
            json(&value)
        },
        &PUBLISHERS[..2],
    );
    cases.push(case(
        "T53",
        "a bundle's statement without a size",
        Code::Parse,
        verify_statement(&trusted(), &sizeless),
    ));
    cases
}
