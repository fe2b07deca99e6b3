//! What must hold for any words of people: an expression is understood or pointed at, a policy is sound or refused.
//!
//! Called with bounded random bytes by the tests beside it and by the targets of `tests/fuzz`.

use bridge_core::{Policy, Target};

/// A target: its name, bytes to begin with, and the function.
pub(crate) type FuzzTarget = (&'static str, fn() -> Vec<u8>, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [FuzzTarget; 2] = [
    (
        "target",
        || b"site=plant-3 and board in (rpi4, 'jetson') and not (label.pinned or fw >= 1.9)".to_vec(),
        any_target,
    ),
    ("policy", || serde_json::to_vec(&Policy::default()).expect("a policy has a JSON form"), any_policy),
];

/// An expression says the same after it was written down, or its fault lies within it.
pub(crate) fn any_target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<Target>() {
        Ok(target) => assert_eq!(target.to_string().parse(), Ok(target)),
        Err(fault) => {
            let lines: Vec<String> = fault.to_string().lines().map(str::to_owned).collect();
            let [_, shown, caret] = &lines[..] else { panic!("a fault is three lines: {lines:?}") };
            assert!(caret.chars().count() <= shown.chars().count() + 2 && caret.ends_with('^'), "{lines:?}");
        }
    }
}

/// A policy that is sound stays so when it was written down.
pub(crate) fn any_policy(data: &[u8]) {
    let Ok(policy) = serde_json::from_slice::<Policy>(data) else { return };
    if policy.check().is_ok() {
        let again = serde_json::to_vec(&policy).expect("a policy has a JSON form");
        let again: Policy = serde_json::from_slice(&again).expect("what was written is read");
        assert_eq!((again.check(), again.waves), (Ok(()), policy.waves));
    }
}
