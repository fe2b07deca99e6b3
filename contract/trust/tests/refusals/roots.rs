//! The root: weak keys, lies about keys, roles that make no sense, other fleets, limits.

use crate::signer::*;
use crate::{Case, case};
use petrel_trust::*;
use serde_json::{Value, json as value};

/// The root after `edit`, honestly signed.
fn edited(edit: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    let mut root = serde_json::to_value(root()).expect("plain data");
    edit(&mut root);
    verify_root(FLEET, &sealed(PayloadKind::Root, &json(&root), &ROOTS[..2])).map(drop)
}

/// The root with one more key, which nobody holds, under its true id.
fn with_key(public: &[u8]) -> Result<(), Refusal> {
    edited(|root| root["keys"][key_id(public)] = value!({"scheme": "ed25519", "public": hex::encode(public)}))
}

/// Points of small order (the eight, and their encodings that are not canonical), and larger points
/// written as y + p: a verifier that reduces them sees another key than one that does not.
fn weak_keys() -> Vec<[u8; 32]> {
    let point = |text: &str| hex::decode(text).expect("hex").try_into().expect("32 bytes");
    let mut keys = vec![
        point("0100000000000000000000000000000000000000000000000000000000000000"),
        point("0100000000000000000000000000000000000000000000000000000000000080"),
        point("0000000000000000000000000000000000000000000000000000000000000000"),
        point("0000000000000000000000000000000000000000000000000000000000000080"),
        point("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        point("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
        point("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        point("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
        point("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        point("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    ];
    for low in 0xed..=0xff {
        for top in [0x7f, 0xff] {
            let mut above_p = [0xff; 32];
            (above_p[0], above_p[31]) = (low, top);
            keys.push(above_p);
        }
    }
    keys
}

pub(crate) fn cases() -> Vec<Case> {
    edited(|_| {}).expect("the honest root is believed");
    with_key(&public(STRANGER)).expect("one key more is no harm");
    let mut cases = keys();
    cases.extend(roles());
    cases.extend(limits());
    for fleet in ["demo2", "Demo", "", "dem", &"\u{1b}]0;".repeat(2_000)] {
        let how = format!("a root for `{}`", fleet.escape_debug().take(12).collect::<String>());
        cases.push(case("T18", how, Code::Fleet, edited(|r| r["fleet"] = fleet.into())));
    }
    for spec in [0, 2, 3, u64::MAX] {
        cases.push(case("VERSION", format!("root of spec {spec}"), Code::Version, edited(|r| r["spec"] = spec.into())));
    }
    let future = edited(|r| {
        r["spec"] = 2.into();
        r["hitherto_unknown"] = value!([1]);
    });
    cases.push(case("VERSION", "root of spec 2 with its new fields", Code::Version, future));
    cases
}

fn keys() -> Vec<Case> {
    let mut cases: Vec<Case> = weak_keys()
        .iter()
        .map(|key| case("T05", format!("key {}", hex::encode(key)), Code::KeyWeak, with_key(key)))
        .collect();
    let no_point = (2..=255).map(|low| [low; 32]).find(|k| ed25519_dalek::VerifyingKey::from_bytes(k).is_err());
    cases.push(case("T05", "no point of the curve", Code::KeyWeak, with_key(&no_point.expect("half are none"))));

    let lie = |id_of: String, key: u8| {
        edited(|r| r["keys"][id_of] = value!({"scheme": "ed25519", "public": hex::encode(public(key))}))
    };
    cases.push(case("T04", "another key under a known id", Code::KeyId, lie(id(DIRECTOR), STRANGER)));
    cases.push(case("T04", "a known key under a second id", Code::KeyId, lie(id(STRANGER), ROOTS[0])));
    cases.push(case("T04", "an id in capitals", Code::KeyId, lie(id(STRANGER).to_uppercase(), STRANGER)));
    cases.push(case("T04", "an id without end", Code::KeyId, lie("\u{7}".repeat(5_000), STRANGER)));
    let twice = edited(|r| {
        r["keys"]["00"] = r["keys"][id(ROOTS[0])].clone();
        r["roles"]["root"]["keyids"] = value!([id(ROOTS[0]), "00"]);
    });
    cases.push(case("T03", "one key for two of the root role", Code::KeyId, twice));
    cases
}

fn roles() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut try_it = |how: String, edit: &dyn Fn(&mut Value)| {
        cases.push(case("T16", how, Code::RootSchema, edited(edit)));
    };
    for role in Role::ALL.map(Role::as_str) {
        try_it(format!("threshold 0 for {role}"), &|r| r["roles"][role]["threshold"] = 0.into());
        try_it(format!("threshold 4 of fewer for {role}"), &|r| r["roles"][role]["threshold"] = 4.into());
        try_it(format!("the largest threshold for {role}"), &|r| r["roles"][role]["threshold"] = U53::MAX.into());
        try_it(format!("no keys for {role}"), &|r| r["roles"][role]["keyids"] = value!([]));
        try_it(format!("no keys and threshold 0 for {role}"), &|r| {
            r["roles"][role]["keyids"] = value!([]);
            r["roles"][role]["threshold"] = 0.into();
        });
        try_it(format!("{role} without a row"), &|r| drop(r["roles"].as_object_mut().unwrap().remove(role)));
        try_it(format!("a key of {role} that is not listed"), &|r| {
            r["roles"][role]["keyids"].as_array_mut().unwrap().push(id(STRANGER).into());
        });
    }
    for name in ["Root", "admin", "", &"x".repeat(9_000)] {
        let how = format!("the role `{}`", name.chars().take(12).collect::<String>());
        try_it(how, &|r| r["roles"][name] = r["roles"]["root"].clone());
    }
    try_it("version 0".into(), &|r| r["version"] = 0.into());
    try_it("version 2 without a root before it".into(), &|r| r["version"] = 2.into());
    try_it("version 1 with a root before it".into(), &|r| r["prev_sha256"] = Digest::of(b"").to_string().into());
    try_it("an end before its beginning".into(), &|r| r["expires"] = "2001-01-01T00:00:00Z".into());
    try_it("no step in time".into(), &|r| r["policy"]["max_time_jump_days"] = 0.into());
    for pattern in ["", "**", "a*b", "*a", "a**", "*a*"] {
        try_it(format!("the scope `{pattern}`"), &|r| r["publisher_scopes"][0]["streams"] = value!([pattern]));
    }
    let twice = edited(|r| r["roles"]["root"]["keyids"] = value!([id(ROOTS[0]), id(ROOTS[0])]));
    cases.push(case("T16", "one key twice for threshold 2", Code::Parse, twice));
    edited(|r| r["roles"]["root"]["keyids"].as_array_mut().unwrap().reverse()).expect("a set in another order");
    cases
}

fn limits() -> Vec<Case> {
    let more_keys = |n: u8| {
        edited(|r| {
            for key in 100..100 + n {
                r["keys"][id(key)] = value!({"scheme": "ed25519", "public": hex::encode(public(key))});
            }
        })
    };
    let listed = root().keys.len() as u8;
    more_keys(64 - listed).expect("64 keys are allowed");
    let scopes =
        |n: usize| edited(|r| r["publisher_scopes"] = vec![value!({"keyids": [], "streams": ["a"]}); n].into());
    scopes(256).expect("256 scopes are allowed");
    let stretched = |size: usize| {
        let mut bytes = root_bytes();
        bytes.resize(size, b' ');
        verify_root(FLEET, &bytes)
    };
    stretched(MAX_ROOT_BYTES).expect("a root of exactly 64 KiB");
    vec![
        case("T15", "65 keys", Code::Limit, more_keys(65 - listed)),
        case("T15", "257 scopes", Code::Limit, scopes(257)),
        case("T15", "a root of 64 KiB and a byte", Code::Limit, stretched(MAX_ROOT_BYTES + 1)),
        case("T15", "garbage of 64 KiB and a byte", Code::Limit, verify_root(FLEET, &vec![0; MAX_ROOT_BYTES + 1])),
    ]
}
