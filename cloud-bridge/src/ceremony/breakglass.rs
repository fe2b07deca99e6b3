//! Breakglass: leave to install one release under its floor, signed by several.

use super::{Draft, Standing};
use crate::fault::Fault;
use trust::{Breakglass, Code, Recipients, Role, Root, Time, U53, Verified};

/// What is allowed, to whom, and until when.
#[derive(Debug, Clone)]
pub(crate) struct Allowed {
    /// To whom.
    pub(crate) to: Recipients,
    /// Of which stream.
    pub(crate) stream: String,
    /// The one release.
    pub(crate) release: U53,
    /// Names this use: a device takes each name once.
    pub(crate) once_id: String,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// Seconds after which it is void.
    pub(crate) good_for: u64,
}

/// The document that allows it.
///
/// # Errors
/// When a date or a number cannot be written.
pub(crate) fn breakglass(root: &Root, allowed: &Allowed) -> anyhow::Result<Breakglass> {
    let moment = |seconds: u64| {
        let moment = i64::try_from(seconds).ok().and_then(Time::from_unix);
        moment
            .ok_or_else(|| Fault::new("the date cannot be written").because("it is outside of the years 1970 to 9999"))
    };
    let epoch = U53::try_from(root.role_epoch(Role::Breakglass));
    Ok(Breakglass {
        spec: U53::from(1),
        fleet: root.fleet.clone(),
        issued: moment(allowed.now)?,
        role_epoch: epoch.map_err(|e| Fault::new("a counter is at its end").because(e))?,
        to: allowed.to.clone(),
        stream: allowed.stream.clone(),
        release: allowed.release,
        below_floor: true,
        once_id: allowed.once_id.clone(),
        expires: moment(allowed.now.saturating_add(allowed.good_for))?,
    })
}

/// Asks whether a device of that root would take the draft, were it for that device.
///
/// # Errors
/// The refusal of a draft that no signature would mend.
pub(crate) fn breakglass_standing(root: &Verified<Root>, draft: &Draft) -> anyhow::Result<Standing<Breakglass>> {
    match trust::verify_breakglass(root, &draft.to_ask()) {
        Ok(document) => Ok(Standing::Complete(document)),
        Err(refusal) if refusal.code == Code::Threshold => {
            let threshold = root.threshold(Role::Breakglass);
            let need = draft.need("the breakglass role", root, Role::Breakglass, threshold);
            Ok(Standing::Waiting(need.into_iter().collect()))
        }
        Err(refusal) => Err(Fault::new("this breakglass would be refused").because(refusal).into()),
    }
}
