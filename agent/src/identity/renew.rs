//! When a newer certificate is due, and how it is asked for.
//!
//! Decides the moment: two thirds of the way through its life a certificate is renewed with a new key. One that has
//! expired, because the device was away, takes another way, which ends with a person.

use super::der;
use super::land::{Failure, send};
use super::tls::{self, Floor};
use super::{Identity, Slots};
use crate::config::Address;
use crate::fault::Fault;
use protocol::{RENEW_PATH, RETURN_PATH, RenewRequest, ReturnRequest, SPEC};

/// What an identity needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing yet.
    Nothing,
    /// A newer certificate, over TLS with this one.
    Renewal,
    /// A person's word: this one has expired.
    Return,
}

/// What `identity` needs at `now`, in seconds since 1970; `expired` when somebody refused it because it has.
///
/// The time may be wrong: asking too early costs a certificate, asking too late a person's time.
pub(crate) fn need(identity: &Identity, now: u64, expired: bool) -> Need {
    let life = identity.until.saturating_sub(identity.from);
    if expired || now >= identity.until {
        Need::Return
    } else if now >= identity.from.saturating_add(life / 3 * 2) {
        Need::Renewal
    } else {
        Need::Nothing
    }
}

/// Asks land for a certificate for a new key and keeps it. Blocks.
///
/// # Errors
/// Why there is none; the identity is as it was.
pub(crate) fn ask(
    slots: &Slots,
    identity: &Identity,
    need: Need,
    bridge: &Address,
    ca: &[u8],
    floor: &Floor,
) -> Result<Identity, Fault> {
    let (slot, key) = slots.next_key()?;
    let unsigned = |why| Fault::new("the device's key does not sign").because_of(why);
    let csr = der::request(identity.device.as_str(), &*key).map_err(unsigned)?;
    let answer = match need {
        Need::Nothing | Need::Renewal => {
            send(bridge, RENEW_PATH, identity.tls(ca, floor)?, &RenewRequest { spec: SPEC, csr })
        }
        Need::Return => {
            let signature = identity.key.sign(&ReturnRequest::signed_bytes(&csr)).map_err(unsigned)?;
            let request = ReturnRequest { spec: SPEC, device: identity.device.clone(), csr, signature };
            send(bridge, RETURN_PATH, tls::client(ca, floor, None)?, &request)
        }
    };
    let enrolled = answer.map_err(|failure: Failure| failure.fault())?;
    slots.keep(slot, &identity.fleet, &identity.device, enrolled)
}
