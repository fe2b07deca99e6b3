//! Signatures: spoiled, foreign, repeated, malleated, of another kind, of another role, out of scope.

use crate::signer::*;
use crate::{Case, case};
use ed25519_dalek::Verifier as _;
use petrel_trust::*;
use sha2::{Digest as _, Sha512};

/// The order of the Ed25519 group, little end first.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

type Attempt = fn(&[u8]) -> Result<(), Refusal>;

/// The documents from land: kind, honest payload, honest signers, and how each is believed.
fn documents() -> [(PayloadKind, Vec<u8>, Vec<u8>, Attempt); 6] {
    let root: Attempt = |bytes| verify_root(FLEET, bytes).map(drop);
    let bundle: Attempt = |bytes| verify_statement(&trusted(), bytes).map(drop);
    let assigned: Attempt = |bytes| verify_assignment(&trusted(), DEVICE, bytes).map(drop);
    [
        (PayloadKind::Root, json(&crate::signer::root()), ROOTS[..2].to_vec(), root),
        (PayloadKind::Bundle, statement_payload(), PUBLISHERS[..2].to_vec(), bundle),
        (PayloadKind::Assignment, json(&assignment()), vec![DIRECTOR], assigned),
        (PayloadKind::Revocation, json(&full_revocation()), vec![REVOCATION, REVOCATION_2], |bytes| {
            unchanged(&mut trust(), |t| t.accept_revocation(bytes, UP))
        }),
        (PayloadKind::Beacon, json(&beacon(1)), vec![BEACON], |bytes| {
            unchanged(&mut trust(), |t| t.accept_beacon(bytes, UP))
        }),
        (PayloadKind::Breakglass, json(&breakglass()), BREAKGLASS.to_vec(), |bytes| {
            unchanged(&mut trust(), |t| t.accept_breakglass(bytes, UP))
        }),
    ]
}

/// S + L: the same signature to a careless verifier.
fn malleated(signature: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    let mut carry = 0;
    for (byte, more) in bytes[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    bytes
}

/// `a * b` modulo the group's order, by doubling and adding; `a` is 32 bytes, little end first.
fn times(a: &[u8], b: &[u8]) -> [u8; 32] {
    let words = |bytes: &[u8]| -> [u64; 4] {
        std::array::from_fn(|i| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("eight")))
    };
    let order = words(&L);
    let add = |x: [u64; 4], y: [u64; 4]| {
        let mut carry = 0_u128;
        let sum: [u64; 4] = std::array::from_fn(|i| {
            let word = u128::from(x[i]) + u128::from(y[i]) + carry;
            carry = word >> 64;
            word as u64
        });
        let mut borrow = 0_i128;
        let less: [u64; 4] = std::array::from_fn(|i| {
            let word = i128::from(sum[i]) - i128::from(order[i]) + borrow;
            borrow = word >> 64;
            word as u64
        });
        if borrow < 0 { sum } else { less }
    };
    let mut factor = [0; 4];
    for bit in (0..256).rev() {
        factor = add(factor, factor);
        if a[bit / 8] >> (bit % 8) & 1 == 1 {
            factor = add(factor, [1, 0, 0, 0]);
        }
    }
    let mut product = [0; 4];
    for bit in (0..b.len() * 8).rev() {
        product = add(product, product);
        if b[bit / 8] >> (bit % 8) & 1 == 1 {
            product = add(product, factor);
        }
    }
    std::array::from_fn(|i| product[i / 8].to_le_bytes()[i % 8])
}

/// A signature whose R is the neutral element: a verifier that is not strict takes it.
fn neutral(name: u8, signed: &[u8]) -> Vec<u8> {
    let mut secret: [u8; 64] = Sha512::digest([name; 32]).into();
    (secret[0], secret[31]) = (secret[0] & 248, secret[31] & 63 | 64);
    let mut r = [0; 32];
    r[0] = 1;
    let challenge = Sha512::digest([&r[..], &public(name), signed].concat());
    let signature = [r, times(&secret[..32], &challenge)].concat();
    let parsed = ed25519_dalek::Signature::from_slice(&signature).expect("64 bytes");
    key(name).verifying_key().verify(signed, &parsed).expect("a lenient verifier takes it");
    signature
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, payload, signers, attempt) in documents() {
        let honest = || envelope(kind, &payload, &signers);
        attempt(&honest().to_bytes()).expect("the honest document is believed");
        let mut try_it = |row, how: &str, expect, spoil: &dyn Fn(&mut Envelope)| {
            let mut envelope = honest();
            spoil(&mut envelope);
            cases.push(case(row, format!("{kind:?}: {how}"), expect, attempt(&envelope.to_bytes())));
        };
        spoiled(&mut try_it, &payload);
        foreign(&mut try_it, kind, &payload);
        repeated(&mut try_it, signers.len());
        another_kind(&mut try_it, kind, &payload, &signers);
    }
    cases.extend(scopes());
    cases
}

type Try<'a> = dyn FnMut(&'static str, &str, Code, &dyn Fn(&mut Envelope)) + 'a;

fn spoiled(try_it: &mut Try<'_>, payload: &[u8]) {
    // A digit of a size or a time or a number: the payload stays what its kind prescribes.
    let digit = payload.iter().rposition(u8::is_ascii_digit).expect("every document counts something");
    try_it("T01", "one bit of the payload", Code::Sig, &|e| e.payload[digit] ^= 1);
    try_it("T01", "one bit of R", Code::Sig, &|e| e.signatures[0].bytes[0] ^= 1);
    try_it("T01", "one bit of S", Code::Sig, &|e| e.signatures[0].bytes[32] ^= 1);
    try_it("T01", "the last signature", Code::Sig, &|e| e.signatures.last_mut().unwrap().bytes[9] ^= 0x80);
    try_it("T06", "S + L", Code::Sig, &|e| e.signatures[0].bytes = malleated(&e.signatures[0].bytes));
    try_it("T06", "R of small order", Code::Sig, &|e| {
        let signer = (1..=60).find(|name| id(*name) == e.signatures[0].key_id).expect("a key of the tests");
        e.signatures[0].bytes = neutral(signer, &pae(&e.payload_type, &e.payload));
    });
    try_it("T06", "a short signature", Code::Sig, &|e| e.signatures[0].bytes.truncate(63));
    try_it("T06", "a long signature", Code::Sig, &|e| e.signatures[0].bytes.push(0));
    try_it("T06", "an empty signature", Code::Sig, &|e| e.signatures[0].bytes.clear());
    try_it("T06", "a signature of zeros", Code::Sig, &|e| e.signatures[0].bytes = vec![0; 64]);
}

fn foreign(try_it: &mut Try<'_>, kind: PayloadKind, payload: &[u8]) {
    let by = |keys: &[u8]| envelope(kind, payload, keys).signatures;
    try_it("T02", "strangers only", Code::Threshold, &|e| e.signatures = by(&[STRANGER, STRANGER + 1]));
    try_it("T02", "no signature at all", Code::Threshold, &|e| e.signatures.clear());
    try_it("T04", "a stranger under a known key id", Code::Sig, &|e| {
        let known = e.signatures[0].key_id.clone();
        e.signatures = by(&[STRANGER]);
        e.signatures[0].key_id = known;
    });
    for wrong in [ROOTS[0], PUBLISHERS[0], DIRECTOR, REVOCATION, BEACON, BREAKGLASS[0]] {
        let own = matches!(
            (kind, wrong),
            (PayloadKind::Root, 1)
                | (PayloadKind::Bundle, 11)
                | (PayloadKind::Assignment, DIRECTOR)
                | (PayloadKind::Revocation, REVOCATION)
                | (PayloadKind::Beacon, BEACON)
                | (PayloadKind::Breakglass, 51)
        );
        if !own {
            let how = format!("key {wrong} of another role");
            try_it("T08", &how, Code::Role, &|e| e.signatures = by(&[wrong, STRANGER]));
        }
    }
    try_it("T15", "17 signatures", Code::Limit, &|e| e.signatures = vec![e.signatures[0].clone(); 17]);
}

fn repeated(try_it: &mut Try<'_>, signers: usize) {
    if signers < 2 {
        return;
    }
    try_it("T02", "one of the two", Code::Threshold, &|e| e.signatures.truncate(1));
    try_it("T03", "the same signature twice", Code::Threshold, &|e| e.signatures[1] = e.signatures[0].clone());
    for (how, rename) in [
        ("in capitals", str::to_uppercase as fn(&str) -> String),
        ("with a space", |id| format!("{id} ")),
        ("that is empty", |_| String::new()),
        ("of a stranger", |_| id(STRANGER)),
    ] {
        try_it("T03", &format!("the same key under a second id {how}"), Code::Threshold, &|e| {
            e.signatures[1] = e.signatures[0].clone();
            e.signatures[1].key_id = rename(&e.signatures[1].key_id);
        });
    }
}

fn another_kind(try_it: &mut Try<'_>, kind: PayloadKind, payload: &[u8], signers: &[u8]) {
    use PayloadKind::*;
    let kinds = [Root, Bundle, Assignment, Revocation, Beacon, Breakglass, Report, Verdict];
    for other in kinds.into_iter().filter(|k| *k != kind) {
        let how = format!("signed as {other:?}");
        try_it("T07", &how, Code::Type, &|e| *e = envelope(other, payload, signers));
        let how = format!("signed as {other:?}, relabelled");
        try_it("T07", &how, Code::Sig, &|e| e.signatures = envelope(other, payload, signers).signatures);
    }
    for near in ["", "application/json", "application/vnd.petrel.root+json", "APPLICATION/VND.IN-TOTO+JSON"] {
        try_it("T07", &format!("of type `{near}`"), Code::Type, &|e| e.payload_type = near.into());
    }
    try_it("T07", "of an endless type", Code::Type, &|e| e.payload_type = "\u{1b}[2J".repeat(1_000));
}

/// A bundle of `stream`, signed by `keys`.
fn released(stream: &str, keys: &[u8]) -> Result<(), Refusal> {
    let manifest = json(&Manifest { stream: stream.into(), ..manifest() });
    let payload = Statement::payload("a name", resources(&files(&manifest)));
    let statement = verify_statement(&trusted(), &sealed(PayloadKind::Bundle, &payload, keys))?;
    verify_manifest(&trusted(), &statement, &manifest).map(drop)
}

fn scopes() -> Vec<Case> {
    let [one, two, lab] = PUBLISHERS;
    for (stream, keys) in [("digits", &[one, two][..]), ("digits-2", &[one, two, lab]), ("digits-lab", &[one, lab])] {
        released(stream, keys).expect("in scope");
    }
    let mut cases = Vec::new();
    let mut try_it = |expect, stream: &str, keys: &[u8]| {
        cases.push(case("T09", format!("`{stream}` by {keys:?}"), expect, released(stream, keys)));
    };
    for stream in ["vib-1", "digit", "Digits", "", "xdigits", "digits*".get(1..).unwrap()] {
        try_it(Code::Scope, stream, &[one, two]);
    }
    // In scope is only one of the two who signed.
    try_it(Code::Threshold, "vib-1", &[one, lab]);
    try_it(Code::Threshold, "digits", &[one, lab]);
    try_it(Code::Threshold, "digits-lab2", &[two, lab]);
    cases
}
