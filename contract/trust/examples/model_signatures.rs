//! Bundles with a `model.sig` of a test key, for the specification's own tool; and its files for us.
//!
//! `cargo run -p petrel-trust --example model_signatures -- write DIR N` makes N folders and `key.pub.pem`;
//! `… -- check FILE KEY.pem FOLDER` prints `ok`, or the code with which a `model.sig` is refused.
//! `tests/oracles/model_signatures.py` calls both.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its examples read and write for a person"
)]

#[path = "../tests/signer/mod.rs"]
mod signer;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use petrel_trust::*;
use signer::*;
use std::fs;
use std::path::Path;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", dir, count] => (0..count.parse().expect("a number")).for_each(|n| write(Path::new(dir), n)),
        ["check", file, key, folder] => match check(file, key, folder) {
            Ok(()) => println!("ok"),
            Err(refusal) => println!("{refusal}"),
        },
        _ => panic!("write DIR N, or check FILE KEY FOLDER"),
    }
}

/// Folder number `n` of `dir`: random files, the statement over them, and its `model.sig`.
fn write(dir: &Path, n: u64) {
    let mut rng = fastrand::Rng::with_seed(n);
    let folder = dir.join(format!("bundle-{n}"));
    let mut resources = Vec::new();
    for file in 0..rng.usize(1..9) {
        let name = ["model.onnx", "Z.txt", "a/b.bin", "a/c/d.bin", "manifest.json", "a-b.json", "a.b", "_x/y"][file];
        let bytes: Vec<u8> = (0..rng.usize(..5_000)).map(|_| rng.u8(..)).collect();
        fs::create_dir_all(folder.join(name).parent().expect("a folder")).expect("a folder");
        fs::write(folder.join(name), &bytes).expect("a file");
        resources.push(Resource::new(name, Digest::of(&bytes), number(bytes.len() as u64)));
    }
    let payload = Statement::payload(&format!("bundle-{n}"), resources);
    let der = der_signature(7, &pae(PayloadKind::Bundle.media_type(), &payload));
    fs::write(folder.join("model.sig"), model_signature(&device_key(7), &payload, &der)).expect("model.sig");
    // The other envelope lies beside it, and is left out of the statement.
    fs::write(folder.join("bundle.dsse.json"), sealed(PayloadKind::Bundle, &payload, &PUBLISHERS)).expect("the seal");
    fs::write(dir.join("key.pub.pem"), device_key(7).pem()).expect("the key");
}

/// Whether the key of `pem` signed exactly the files that lie in `folder`.
fn check(file: &str, pem: &str, folder: &str) -> Result<(), Refusal> {
    let text = fs::read_to_string(pem).expect("a key");
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let key = DeviceKey::from_spki(&STANDARD.decode(body).expect("base64"))?;
    let signed = verify_model_signature(&key, &fs::read(file).expect("a file"))?;
    let mut found = Vec::new();
    list(Path::new(folder), "", &mut found);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    match found == **signed {
        true => Ok(()),
        false => Err(Refusal::new(Code::Digest, "other files lie there than were signed")),
    }
}

fn list(dir: &Path, prefix: &str, found: &mut Vec<ModelFile>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = format!("{prefix}{}", path.file_name().expect("a name").to_str().expect("ASCII"));
        if path.is_dir() {
            list(&path, &format!("{name}/"), found);
        } else if !SIGNED_OUTSIDE.contains(&name.as_str()) {
            found.push(ModelFile { digest: Digest::of(&fs::read(&path).expect("a file")), name });
        }
    }
}
