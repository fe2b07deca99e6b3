//! The chain of roots: how a device that trusts version N comes to trust N + 1.
//!
//! Version N + 1 is signed by the threshold of N and by its own, names N by digest, and takes no
//! counter back. Whether a root has expired is not asked here: only the last one counts, and even an
//! expired one takes a newer one.

use crate::dsse::PayloadKind;
use crate::root::{Role, Root, read_root, schema};
use crate::{Code, Refusal, Verified};

/// The most roots that a device takes in one boot.
pub const MAX_ROOT_STEPS: usize = 1024;

/// Believes the root that follows `trusted`.
///
/// # Errors
/// `E_ROLLBACK_ROOT` and `E_ROOT_GAP` for another version than the next, `E_ROOT_FORK` when it follows
/// another root, `E_ROOT_CONT` when the old or the new threshold did not sign, or what
/// [`crate::verify_root`] refuses.
pub fn next_root(trusted: &Verified<Root>, bytes: &[u8]) -> Result<Verified<Root>, Refusal> {
    let (envelope, next) = read_root(&trusted.fleet, bytes)?;
    let (old, new) = (trusted.version.get(), next.version.get());
    if new <= old {
        return Err(Refusal::new(Code::RollbackRoot, format!("root {new} was offered, {old} is trusted")));
    }
    if new != old + 1 {
        return Err(Refusal::new(Code::RootGap, format!("root {new} was offered, {} comes next", old + 1)));
    }
    if next.prev_sha256 != Some(trusted.digest()) {
        return Err(Refusal::new(
            Code::RootFork,
            format!("root {new} follows another root {old} than the trusted one"),
        ));
    }
    for (whose, root) in [("old", &**trusted), ("new", &next)] {
        let signers = match envelope.signers(PayloadKind::Root.what(), root, Role::Root) {
            Err(refusal) if refusal.code == Code::Role => Vec::new(),
            other => other?,
        };
        let needed = root.threshold(Role::Root);
        if (signers.len() as u64) < needed {
            let detail = format!("root {new} has {} of {needed} signatures of the {whose} root's keys", signers.len());
            return Err(Refusal::new(Code::RootCont, detail));
        }
    }
    for role in Role::ALL {
        if next.role_epoch(role) < trusted.role_epoch(role) {
            return Err(schema(format!("the epoch of the role {role} goes back")));
        }
    }
    if next.clock_reset < trusted.clock_reset {
        return Err(schema("clock_reset goes back"));
    }
    Ok(Verified::new(next, &envelope.payload))
}

/// Follows `steps` from `trusted` as far as they hold: the last root that holds, how many were taken,
/// and why the one after them was not.
pub fn catch_up<'a>(
    trusted: Verified<Root>,
    steps: impl IntoIterator<Item = &'a [u8]>,
) -> (Verified<Root>, usize, Option<Refusal>) {
    let (mut last, mut taken) = (trusted, 0);
    for bytes in steps {
        if taken == MAX_ROOT_STEPS {
            return (last, taken, Some(too_many()));
        }
        match next_root(&last, bytes) {
            Ok(next) => (last, taken) = (next, taken + 1),
            Err(refusal) => return (last, taken, Some(refusal)),
        }
    }
    (last, taken, None)
}

pub(crate) fn too_many() -> Refusal {
    Refusal::new(Code::Limit, format!("more than {MAX_ROOT_STEPS} roots at once; the next boot takes more"))
}
