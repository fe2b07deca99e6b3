//! How so many devices come in: each with a one-time token and a request for a certificate of its own key, then a label.
//!
//! Decides how many ask at a time. How often they may ask, the bridge decides: 1,200 certificates a minute.

use super::rest::Rest;
use super::signer::Signer;
use super::voice::profile;
use anyhow::Context;
use protocol::{ENROL_PATH, EnrolRequest, JoinToken, SPEC};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Who ask at the same time.
const AT_ONCE: usize = 4;
/// Each of so many sites has its share of the devices.
pub(super) const SITES: usize = 20;

/// Lets `count` devices in.
pub(super) fn enrol(rest: &Rest, count: usize) -> anyhow::Result<Vec<Arc<Signer>>> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut come = Vec::new();
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= count {
                return anyhow::Ok(come);
            }
            come.push((number, one(rest, number)?));
        }
    };
    let mut all = Vec::with_capacity(count);
    thread::scope(|scope| {
        let hands: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(some)).collect();
        hands.into_iter().try_for_each(|hand| {
            all.extend(hand.join().ok().context("a thread ended early")??);
            anyhow::Ok(())
        })
    })?;
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, signer)| signer).collect())
}

fn one(rest: &Rest, number: usize) -> anyhow::Result<Arc<Signer>> {
    let name = format!("edge-{number:05}");
    let (signer, csr) = Signer::make(&name)?;
    let new = json!({ "device": name, "ttl_s": 3_600, "pending": false });
    let made = rest.post("/api/v1/join-tokens", &new)?;
    let token = made.pointer("/join/token").and_then(|token| token.as_str()).context("there is no token")?;
    let token = JoinToken::try_from(token.to_owned()).map_err(anyhow::Error::msg)?;
    let request = EnrolRequest { spec: SPEC, device: signer.id.clone(), token, csr, profile: profile() };
    rest.post(ENROL_PATH, &serde_json::to_value(request)?)?;
    let labels =
        json!({ "labels": { "site": format!("plant-{}", number % SITES), "line": format!("{}", number % 7) } });
    rest.post(&format!("/api/v1/devices/{name}/labels"), &labels)?;
    Ok(signer)
}
