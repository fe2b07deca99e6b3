//! The next revocation: all that was taken away before, and what is taken away now.

use super::{Draft, Standing};
use crate::fault::Fault;
use trust::{
    Code, Device, Revocation, RevokedBundle, RevokedDevice, RevokedKey, Role, Root, Severity, Time, Trust, U53,
    Verified,
};

/// What is taken away now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// Keys.
    pub(crate) keys: Vec<RevokedKey>,
    /// Bundles.
    pub(crate) bundles: Vec<RevokedBundle>,
    /// Devices.
    pub(crate) devices: Vec<RevokedDevice>,
    /// Floors.
    pub(crate) floors: Vec<(String, U53)>,
}

impl Taken {
    /// Whether nothing is taken away.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.bundles.is_empty() && self.devices.is_empty() && self.floors.is_empty()
    }
}

/// The revocation that follows `last`: with what was `begun` before, and `taken`.
///
/// # Errors
/// When its number or its date cannot be written.
pub(crate) fn next_revocation(
    root: &Root,
    last: Option<&Revocation>,
    begun: Option<Revocation>,
    taken: &Taken,
    now: u64,
) -> anyhow::Result<Revocation> {
    let number = |n| U53::try_from(n).map_err(|e| Fault::new("a counter is at its end").because(e));
    let issued = i64::try_from(now).ok().and_then(Time::from_unix);
    let issued = issued.ok_or_else(|| Fault::new("this machine's clock is not set"))?;
    let epoch = number(root.role_epoch(Role::Revocation))?;
    let before = last.filter(|last| last.role_epoch == epoch).map_or(0, |last| last.version.get());
    let empty = || Revocation {
        spec: U53::from(1),
        fleet: root.fleet.clone(),
        issued,
        role_epoch: epoch,
        version: U53::from(0),
        keys: Vec::new(),
        bundles: Vec::new(),
        devices: Vec::new(),
        floors: Default::default(),
    };
    let mut next = begun.or_else(|| last.cloned()).unwrap_or_else(empty);
    (next.issued, next.role_epoch, next.version) = (issued, epoch, number(before + 1)?);
    for key in &taken.keys {
        next.keys.retain(|other| other.keyid != key.keyid);
        next.keys.push(key.clone());
    }
    for bundle in &taken.bundles {
        next.bundles.retain(|other| other.bundle != bundle.bundle);
        next.bundles.push(bundle.clone());
    }
    next.devices.extend(taken.devices.iter().filter(|d| !next.devices.contains(d)).cloned().collect::<Vec<_>>());
    next.floors.extend(taken.floors.iter().cloned());
    Ok(next)
}

/// Asks whether a device that has this root, and `last` where it is of the same epoch, would take the draft.
///
/// # Errors
/// The refusal of a draft that no signature would mend.
pub(crate) fn revocation_standing(
    root: (&Verified<Root>, &[u8]),
    last: Option<(&Revocation, &[u8])>,
    draft: &Draft,
    now: u64,
) -> anyhow::Result<Standing<Revocation>> {
    let (root, root_bytes) = root;
    let said: Revocation = draft.says()?;
    let built = i64::try_from(now).ok().and_then(Time::from_unix);
    let built = built.ok_or_else(|| Fault::new("this machine's clock is not set"))?;
    let device = Device { id: String::new(), class: String::new(), certificate: None, built };
    let mut trust = Trust::first(device, &root.fleet, root_bytes)?;
    if let Some((_, bytes)) = last.filter(|(last, _)| last.role_epoch == said.role_epoch) {
        trust.accept_revocation(bytes, 0)?;
    }
    match trust.accept_revocation(&draft.to_ask(), 0) {
        Ok(accepted) => Ok(Standing::Complete(accepted.document().clone())),
        Err(refusal) if refusal.code == Code::Threshold => {
            let stops = said.bundles.iter().any(|b| b.severity == Severity::Stop);
            let threshold = root.threshold(Role::Revocation).max(if stops { 2 } else { 1 });
            let need = draft.need("the revocation role", root, Role::Revocation, threshold);
            Ok(Standing::Waiting(need.into_iter().collect()))
        }
        Err(refusal) => Err(Fault::new("this revocation would be refused").because(refusal).into()),
    }
}
