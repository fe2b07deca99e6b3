//! The next root: what changes in it, and which epochs that begins.

use super::{Draft, Standing};
use crate::fault::Fault;
use crate::keyfile;
use ed25519_dalek::VerifyingKey;
use std::collections::BTreeSet;
use trust::{Code, Key, Role, RoleKeys, Root, Scheme, Scope, Time, U53, Verified};

const DAY: u64 = 24 * 60 * 60;

/// What should be otherwise in a root.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Keys that take a role.
    pub(crate) add: Vec<(Role, VerifyingKey)>,
    /// Ids of keys that leave a role.
    pub(crate) remove: Vec<(Role, String)>,
    /// How many must sign for a role.
    pub(crate) thresholds: Vec<(Role, u32)>,
    /// What a publisher may sign, in place of what it might before: patterns of streams, and its id.
    pub(crate) scopes: Vec<(String, String)>,
    /// Days from now until it expires.
    pub(crate) expires_days: Option<u32>,
    /// Whether the director may go back to older releases.
    pub(crate) director_may_rollback: Option<bool>,
    /// Roles whose counters begin again, though their keys stay.
    pub(crate) new_epochs: Vec<Role>,
    /// Devices forget the time that they were told.
    pub(crate) clock_reset: bool,
}

/// The root that follows `trusted`: with these changes, on those that were `begun` before.
///
/// # Errors
/// When a change makes no sense. The rest is judged by [`root_standing`].
pub(crate) fn next_root(
    trusted: &Verified<Root>,
    begun: Option<Root>,
    changes: &Changes,
    now: u64,
) -> anyhow::Result<Root> {
    let mut root = begun.unwrap_or_else(|| Root::clone(trusted));
    root.version = plus_one(trusted.version)?;
    root.prev_sha256 = Some(trusted.digest());
    apply(&mut root, changes, now)?;
    // An epoch counts from the root that devices trust, however often a draft is changed.
    for role in Role::ALL {
        let (Some(old), Some(new)) = (trusted.roles.get(role.as_str()), root.roles.get_mut(role.as_str())) else {
            continue;
        };
        if new.keyids != old.keyids || changes.new_epochs.contains(&role) {
            new.role_epoch = plus_one(old.role_epoch)?;
        }
    }
    if changes.clock_reset {
        root.clock_reset = Some(plus_one(trusted.clock_reset.unwrap_or_default())?);
    }
    Ok(root)
}

/// Makes the changes, but for epochs, in a root of `now`.
///
/// # Errors
/// When a change makes no sense.
pub(crate) fn apply(root: &mut Root, changes: &Changes, now: u64) -> anyhow::Result<()> {
    let after = |days: u64| i64::try_from(now.saturating_add(days * DAY)).ok().and_then(Time::from_unix);
    let undated = || Fault::new("the root cannot be dated").because("its time is outside of the years 1970 to 9999");
    root.issued = after(0).ok_or_else(undated)?;
    if let Some(days) = changes.expires_days {
        root.expires = after(days.into()).ok_or_else(undated)?;
    }
    for (role, key) in &changes.add {
        let id = keyfile::id(key);
        root.keys.insert(id.clone(), Key { scheme: Scheme::Ed25519, public: key.to_bytes() });
        held(root, *role)?.keyids.insert(id);
    }
    for (role, id) in &changes.remove {
        if !held(root, *role)?.keyids.remove(id) {
            let fault = Fault::new(format!("key {id} does not hold the role {role}"));
            return Err(fault.remedy("`petrel root show` lists who does").into());
        }
    }
    for (role, threshold) in &changes.thresholds {
        held(root, *role)?.threshold = U53::from(*threshold);
    }
    change_scopes(root, changes)?;
    if let Some(allowed) = changes.director_may_rollback {
        root.policy.director_may_rollback = allowed;
    }
    let in_use: BTreeSet<String> = root.roles.values().flat_map(|held| held.keyids.clone()).collect();
    root.keys.retain(|id, _| in_use.contains(id));
    Ok(())
}

fn change_scopes(root: &mut Root, changes: &Changes) -> anyhow::Result<()> {
    let publishers = held(root, Role::Publisher)?.keyids.clone();
    let named: BTreeSet<&String> = changes.scopes.iter().map(|(_, id)| id).collect();
    for scope in &mut root.publisher_scopes {
        scope.keyids.retain(|id| publishers.contains(id) && !named.contains(id));
    }
    root.publisher_scopes.retain(|scope| !scope.keyids.is_empty());
    for (streams, id) in &changes.scopes {
        if !publishers.contains(id) {
            return Err(Fault::new(format!("key {id} has a scope and is no publisher")).into());
        }
        let streams = streams.split(',').map(str::to_owned).collect();
        root.publisher_scopes.push(Scope { keyids: [id.clone()].into(), streams });
    }
    let scoped = |id: &&String| root.publisher_scopes.iter().any(|scope| scope.keyids.contains(*id));
    match publishers.iter().find(|id| !scoped(id)) {
        None => Ok(()),
        Some(id) => {
            let fault = Fault::new(format!("the publisher {id} could sign for no stream"));
            Err(fault.remedy("say for which: --scope 'vib-*,digits'=FILE.pub, or '*' for every stream").into())
        }
    }
}

fn held(root: &mut Root, role: Role) -> anyhow::Result<&mut RoleKeys> {
    Ok(root.roles.get_mut(role.as_str()).ok_or_else(|| Fault::new(format!("the root has no role {role}")))?)
}

fn plus_one(number: U53) -> anyhow::Result<U53> {
    Ok(U53::try_from(number.get() + 1).map_err(|e| Fault::new("a counter of the root is at its end").because(e))?)
}

/// Asks whether a device that trusts `trusted` would take the draft; without one, whether a new device would.
///
/// # Errors
/// The refusal of a draft that no signature would mend.
pub(crate) fn root_standing(trusted: Option<&Verified<Root>>, draft: &Draft) -> anyhow::Result<Standing<Root>> {
    let root: Root = draft.says()?;
    let asked = match trusted {
        Some(trusted) => trust::next_root(trusted, &draft.to_ask()),
        None => trust::verify_root(&root.fleet, &draft.to_ask()),
    };
    match asked {
        Ok(verified) => Ok(Standing::Complete(verified)),
        Err(refusal) if matches!(refusal.code, Code::RootCont | Code::Threshold) => {
            let old = trusted.map(|old| ("the old root", &**old));
            let needs = old.into_iter().chain([("the new root", &root)]);
            let needs = needs.filter_map(|(of, root)| draft.need(of, root, Role::Root, root.threshold(Role::Root)));
            Ok(Standing::Waiting(needs.collect()))
        }
        Err(refusal) => Err(Fault::new("this root would be refused").because(refusal).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trust::Policy;

    #[test]
    fn an_epoch_begins_once_for_a_draft_that_changes_twice() {
        let keys: Vec<_> = (0..4).map(|_| keyfile::generate().unwrap()).collect();
        let one = U53::from(1);
        let id = |n: usize| keyfile::id(&keys[n].verifying_key());
        let role = |role: Role| {
            let keyids = BTreeSet::from([id(0)]);
            (role.as_str().to_owned(), RoleKeys { keyids, threshold: one, role_epoch: one })
        };
        let mut first = Root {
            spec: one,
            fleet: "plant-3".into(),
            issued: Time::from_unix(1).unwrap(),
            version: one,
            prev_sha256: None,
            expires: Time::from_unix(1_000_000_000).unwrap(),
            keys: [(id(0), Key { scheme: Scheme::Ed25519, public: keys[0].verifying_key().to_bytes() })].into(),
            roles: Role::ALL.map(role).into(),
            publisher_scopes: vec![Scope { keyids: [id(0)].into(), streams: vec!["*".into()] }],
            policy: Policy::default(),
            clock_reset: None,
        };
        apply(&mut first, &Changes::default(), 1_000).unwrap();
        let mut draft = Draft::new(trust::PayloadKind::Root, serde_json::to_vec(&first).unwrap());
        draft.sign(&keys[0], Role::Root, &[&first]).unwrap();
        let Standing::Complete(trusted) = root_standing(None, &draft).unwrap() else { panic!("it is signed") };
        let add = |n: usize| Changes { add: vec![(Role::Director, keys[n].verifying_key())], ..Changes::default() };
        let begun = next_root(&trusted, None, &add(1), 2_000).unwrap();
        let next = next_root(&trusted, Some(begun), &add(2), 3_000).unwrap();
        assert_eq!((next.role_epoch(Role::Director), next.role_epoch(Role::Root)), (2, 1));
        assert_eq!(next.keys.len(), 3);
        let back = Changes { remove: vec![(Role::Director, id(3))], ..Changes::default() };
        assert!(next_root(&trusted, Some(next), &back, 3_000).is_err());
    }
}
