//! Random chains of roots: honest steps and ways to break them, with the verdict that the rules give.
//!
//! Each step exists twice, as our document and as the root metadata of The Update Framework with the
//! same keys, thresholds, versions and signers, so that python-tuf can be asked for its verdict.

#![allow(dead_code)] // the example and the tests take what they need

use crate::signer::*;
use ed25519_dalek::Signer as _;
use petrel_trust::*;
use serde_json::{Value, json as value};
use std::collections::BTreeSet;

/// One offered root.
pub(crate) struct Step {
    /// What was done to it.
    pub(crate) how: &'static str,
    /// Our document.
    pub(crate) bytes: Vec<u8>,
    /// The same as TUF metadata.
    pub(crate) tuf: Value,
    /// Whether the rules let a device take it.
    pub(crate) good: bool,
    at: usize,
}

/// A first root and what is offered after it.
pub(crate) struct Chain {
    pub(crate) first: Vec<u8>,
    pub(crate) first_tuf: Value,
    pub(crate) steps: Vec<Step>,
    /// The version that a device reaches.
    pub(crate) reached: u64,
    /// Whether the root reached has expired at [`NOW`].
    pub(crate) expired: bool,
}

/// The moment at which expiry is asked.
pub(crate) const NOW: i64 = T0 + 7 * 86_400;

/// Who may sign, and how many must.
#[derive(Clone)]
struct Holders {
    keys: Vec<u8>,
    threshold: usize,
}

impl Holders {
    fn random(rng: &mut fastrand::Rng) -> Self {
        let mut keys: Vec<u8> = (1..=8).collect();
        rng.shuffle(&mut keys);
        keys.truncate(rng.usize(1..=5));
        Self { threshold: rng.usize(1..=keys.len()), keys }
    }

    fn enough(&self, signers: &BTreeSet<u8>) -> bool {
        self.keys.iter().filter(|k| signers.contains(k)).count() >= self.threshold
    }
}

/// What a step says, before it is written in either form.
struct Draft {
    version: u64,
    holders: Holders,
    /// As written: a mutation may write another one.
    threshold: u64,
    keyids: Vec<u8>,
    expires: i64,
    signers: Vec<u8>,
    spoiled: Option<u8>,
}

impl Chain {
    /// The chain of a seed.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut holders = Holders::random(&mut rng);
        let mut trusted = Draft::honest(&mut rng, 1, &holders, &holders.clone());
        let (first, first_tuf) = (trusted.ours(None), trusted.tuf());
        let mut last = verify_root(FLEET, &first).expect("the first root is honest");
        let mut steps = Vec::new();
        for at in 0..rng.usize(1..12) {
            let version = last.version.get();
            let next = Holders::random(&mut rng);
            let mut draft = Draft::honest(&mut rng, version + 1, &holders, &next);
            let how = draft.spoil(&mut rng, version, &holders);
            let good = draft.good(version, &holders);
            let bytes = draft.ours(Some(last.digest()));
            steps.push(Step { how, bytes, tuf: draft.tuf(), good, at });
            if good {
                last = digest_of(&last, &steps[at].bytes);
                (holders, trusted) = (next, draft);
            }
        }
        Self { first, first_tuf, steps, reached: last.version.get(), expired: trusted.expires < NOW }
    }

    /// The root that a device has before a bad `step`.
    pub(crate) fn last_good(&self, step: &Step) -> Vec<u8> {
        let good = self.steps[..step.at].iter().rev().find(|s| s.good);
        good.map_or(&self.first, |s| &s.bytes).clone()
    }
}

/// The root as it would be believed; the generator's own verdict is what a test compares.
fn digest_of(last: &Verified<Root>, bytes: &[u8]) -> Verified<Root> {
    next_root(last, bytes).unwrap_or_else(|refusal| panic!("a good step was refused: {refusal}"))
}

impl Draft {
    fn honest(rng: &mut fastrand::Rng, version: u64, old: &Holders, new: &Holders) -> Self {
        let mut signers = BTreeSet::new();
        for holders in [old, new] {
            signers.extend(rng.choose_multiple(holders.keys.clone(), holders.threshold));
        }
        let mut signers: Vec<u8> = signers.into_iter().collect();
        rng.shuffle(&mut signers);
        let days = if rng.u8(..3) == 0 { 1 } else { 400 };
        Self {
            version,
            holders: new.clone(),
            threshold: new.threshold as u64,
            keyids: new.keys.clone(),
            expires: T0 + days * 86_400,
            signers,
            spoiled: None,
        }
    }

    /// One thing wrong, or harmless; what the rules make of it is for [`Draft::good`].
    fn spoil(&mut self, rng: &mut fastrand::Rng, version: u64, old: &Holders) -> &'static str {
        let honest = self.signers.clone();
        let how = match rng.u8(..22) {
            0 => {
                self.version = version + 2;
                return "a version left out";
            }
            1 => {
                self.version = version;
                return "the same version";
            }
            2 => {
                self.version = version.saturating_sub(1).max(1);
                return "an older version";
            }
            3 => {
                self.threshold = 0;
                return "threshold 0";
            }
            4 => {
                self.threshold = self.keyids.len() as u64 + 1;
                return "a threshold above the keys";
            }
            5 => {
                self.keyids.clear();
                return "no keys";
            }
            6 => {
                self.signers.push(STRANGER);
                return "a stranger signed too";
            }
            7 => {
                self.signers = vec![STRANGER, STRANGER + 1];
                return "strangers only";
            }
            8 => {
                self.signers.retain(|k| !old.keys.contains(k));
                "without the old keys"
            }
            9 => {
                let new = self.holders.keys.clone();
                self.signers.retain(|k| !new.contains(k));
                "without the new keys"
            }
            10 => {
                self.signers.pop();
                "one signature less"
            }
            11 => {
                self.spoiled = self.signers.first().copied();
                "one signature spoiled"
            }
            12 => {
                self.keyids.push(self.keyids[0]);
                return "a key twice";
            }
            _ => return "honest",
        };
        if self.signers.is_empty() {
            self.signers = vec![STRANGER];
        }
        // A signature that is broken and not needed is refused here, and left aside by TUF: not compared.
        let left = self.valid_signers();
        if self.spoiled.is_some() && old.enough(&left) && self.holders.enough(&left) {
            (self.spoiled, self.signers) = (None, honest);
            return "honest";
        }
        how
    }

    fn valid_signers(&self) -> BTreeSet<u8> {
        self.signers.iter().copied().filter(|k| Some(*k) != self.spoiled).collect()
    }

    /// The rules of the chain, written down a second time.
    fn good(&self, version: u64, old: &Holders) -> bool {
        let distinct: BTreeSet<&u8> = self.keyids.iter().collect();
        let schema =
            self.threshold > 0 && self.threshold <= self.keyids.len() as u64 && distinct.len() == self.keyids.len();
        let signers = self.valid_signers();
        schema && self.version == version + 1 && old.enough(&signers) && self.holders.enough(&signers)
    }

    fn ours(&self, prev: Option<Digest>) -> Vec<u8> {
        let mut root = root();
        for key in 1..=8 {
            root.keys.insert(id(key), Key { scheme: Scheme::Ed25519, public: public(key) });
        }
        (root.version, root.expires) = (number(self.version), moment(self.expires));
        root.prev_sha256 = prev.filter(|_| self.version > 1);
        let mut document = serde_json::to_value(root).expect("plain data");
        document["roles"]["root"]["keyids"] = self.keyids.iter().map(|k| id(*k)).collect();
        document["roles"]["root"]["threshold"] = self.threshold.into();
        let mut envelope = envelope(PayloadKind::Root, &json(&document), &self.signers);
        for (signature, key) in envelope.signatures.iter_mut().zip(&self.signers) {
            signature.bytes[5] ^= u8::from(Some(*key) == self.spoiled);
        }
        envelope.to_bytes()
    }

    /// Root metadata, signed over its canonical JSON: sorted keys, no spaces.
    fn tuf(&self) -> Value {
        let key = |k: u8| {
            (id(k), value!({"keytype": "ed25519", "keyval": {"public": hex::encode(public(k))}, "scheme": "ed25519"}))
        };
        let keys: serde_json::Map<String, Value> =
            (1..=8).map(key).collect::<std::collections::BTreeMap<_, _>>().into_iter().collect();
        let keyids: Vec<String> = self.keyids.iter().map(|k| id(*k)).collect();
        let other = value!({"keyids": [id(1)], "threshold": 1});
        let signed = value!({
            "_type": "root",
            "consistent_snapshot": true,
            "expires": moment(self.expires).to_string(),
            "keys": keys,
            "roles": {
                "root": {"keyids": keyids, "threshold": self.threshold},
                "snapshot": other,
                "targets": other,
                "timestamp": other,
            },
            "spec_version": "1.0.31",
            "version": self.version,
        });
        let text = json(&signed);
        let sign = |name: &u8| {
            let mut bytes = key_sign(*name, &text);
            bytes[5] ^= u8::from(Some(*name) == self.spoiled);
            value!({"keyid": id(*name), "sig": hex::encode(bytes)})
        };
        value!({"signatures": self.signers.iter().map(sign).collect::<Vec<_>>(), "signed": signed})
    }
}

fn key_sign(name: u8, text: &[u8]) -> [u8; 64] {
    key(name).sign(text).to_bytes()
}
