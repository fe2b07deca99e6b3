//! `sbom.cdx.json`: what a bundle is made of, as CycloneDX 1.6.
//!
//! Decides the words of the bill. It has no time and no random number: the same files give the same
//! bytes.

use serde_json::{Value, json};
use trust::{Digest, Resource};

/// The inference library inside the engine, as `Cargo.lock` pins it.
const ENGINE: (&str, &str) = ("tract-onnx", "0.23.9");

/// The bill of a model (`version` of `stream`) and the other files beside it.
pub(crate) fn bill(stream: &str, version: &str, model: &Resource, others: &[Resource]) -> Value {
    let hash = |file: &Resource| json!([{ "alg": "SHA-256", "content": file.digest }]);
    let reference = |file: &Resource| format!("file:{}", file.name);
    let file = |file: &Resource| json!({ "type": "file", "bom-ref": reference(file), "name": file.name, "hashes": hash(file) });
    let (name, engine_version) = ENGINE;
    let purl = format!("pkg:cargo/{name}@{engine_version}");
    let engine = json!({ "type": "library", "bom-ref": purl, "name": name, "version": engine_version, "purl": purl });
    let depends_on: Vec<String> = others.iter().map(reference).chain([purl.clone()]).collect();
    let all: Vec<u8> = std::iter::once(model).chain(others).flat_map(|file| file.digest.0).collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial_number(Digest::of(&all)),
        "version": 1,
        "metadata": {
            "tools": { "components": [
                { "type": "application", "name": "petrel", "version": env!("CARGO_PKG_VERSION") }
            ] },
            "component": {
                "type": "machine-learning-model",
                "bom-ref": reference(model),
                "name": stream,
                "version": version,
                "hashes": hash(model),
            },
        },
        "components": others.iter().map(file).chain([engine]).collect::<Vec<_>>(),
        "dependencies": [{ "ref": reference(model), "dependsOn": depends_on }],
    })
}

/// A UUID of version 8 (RFC 9562: its content is ours) from a digest.
fn serial_number(digest: Digest) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.0[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    format!("urn:uuid:{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use trust::U53;

    #[test]
    fn the_engine_is_the_one_that_is_built_in() {
        let lock = include_str!("../../../Cargo.lock");
        let pinned = format!("name = \"{}\"\nversion = \"{}\"", ENGINE.0, ENGINE.1);
        assert!(lock.contains(&pinned), "update ENGINE: Cargo.lock pins another version");
    }

    #[test]
    fn another_file_gives_another_serial_number() {
        let file = |content: &[u8]| Resource::new("model.onnx", Digest::of(content), U53::default());
        let serial = |content: &[u8]| bill("s", "1.0.0", &file(content), &[])["serialNumber"].clone();
        assert_eq!(serial(b"a"), serial(b"a"));
        assert_ne!(serial(b"a"), serial(b"b"));
        let text = serial(b"a").as_str().unwrap().to_owned();
        assert_eq!((text.len(), &text[..9], &text[23..24]), (45, "urn:uuid:", "8"));
    }
}
