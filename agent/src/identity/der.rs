//! The little DER that a device writes: a signature as X.509 has it, and a request for a certificate (PKCS#10).

use super::key::{Key, Unsigned};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// `ecdsa-with-SHA256`, as an algorithm identifier.
const ECDSA_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// `id-at-commonName`.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
/// The attributes of a request, of which there are none.
const ATTRIBUTES: u8 = 0xa0;

/// One value with its tag and length.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|b| **b == 0).count()..];
    if content.len() < 0x80 {
        bytes.push(length[length.len() - 1]);
    } else {
        // A length has at most eight bytes.
        bytes.push(0x80 | significant.len() as u8);
        bytes.extend_from_slice(significant);
    }
    bytes.extend_from_slice(content);
    bytes
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    value(SEQUENCE, &parts.concat())
}

/// A whole number above zero from its big-endian bytes: the shortest form.
fn number(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|b| **b == 0).count().min(bytes.len() - 1);
    let bytes = &bytes[zeros..];
    let sign: &[u8] = if bytes[0] & 0x80 == 0 { &[] } else { &[0] };
    value(INTEGER, &[sign, bytes].concat())
}

/// A signature `r ‖ s` as certificates and TLS have it.
pub(super) fn signature(fixed: &[u8; 64]) -> Vec<u8> {
    let (r, s) = fixed.split_at(32);
    sequence(&[&number(r), &number(s)])
}

/// A request for a certificate for `key` in the name of `device`, PEM. It proves that whoever sends it holds the key.
///
/// # Errors
/// When the key does not sign.
pub(crate) fn request(device: &str, key: &dyn Key) -> Result<String, Unsigned> {
    let name = sequence(&[&COMMON_NAME, &value(UTF8_STRING, device.as_bytes())]);
    let name = sequence(&[&value(SET, &name)]);
    let asked = sequence(&[&value(INTEGER, &[0]), &name, key.public().spki(), &value(ATTRIBUTES, &[])]);
    let signed = signature(&key.sign(&asked)?);
    let whole_bytes: &[u8] = &[0];
    let request = sequence(&[&asked, &ECDSA_SHA256, &value(BIT_STRING, &[whole_bytes, &signed].concat())]);
    let text = STANDARD.encode(request);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    Ok(format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_shortest_form() {
        assert_eq!(number(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(number(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(number(&[0, 0]), [2, 1, 0]);
        assert_eq!(signature(&[0xff; 64]).len(), 2 + 2 * (2 + 33));
    }

    #[test]
    fn long_values_have_long_lengths() {
        assert_eq!(value(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(value(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(value(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
    }
}
