//! When what everybody stands on ends: the root of trust, and the certificates that the bridge reads.
//!
//! Decides from when on people are warned. Nothing here is renewed by itself: whoever finds out too late finds a fleet that
//! does not come in.

use super::config::BridgeConfig;
use super::store::unix_millis;
use super::tls;
use crate::certificates;
use bridge_core::{Bridge, UnixMillis};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// People are warned so long before.
const WARN_BEFORE: u64 = 60 * 24 * 3_600_000;

/// What ends, by the key of the configuration that names its file.
pub(crate) type Ends = BTreeMap<String, UnixMillis>;

/// The certificates of the configuration: of each file the one that ends first.
///
/// # Errors
/// When a file cannot be used.
pub(crate) fn read(config: &BridgeConfig) -> anyhow::Result<Ends> {
    let files = [
        ("ca", &config.ca),
        ("client_cert", &config.client_cert),
        ("devices_cert", &config.devices_cert),
        ("tls_cert", &config.tls_cert),
    ];
    let end = |(key, path): (&str, &PathBuf)| {
        let ends =
            tls::chain(path)?.iter().map(|certificate| certificates::end(certificate)).collect::<Result<Vec<_>, _>>();
        Ok((String::from(key), ends?.into_iter().min().unwrap_or_default() * 1_000))
    };
    files.into_iter().map(end).collect()
}

/// These, and the root that counts now.
pub(crate) fn with_root(certificates: &Ends, bridge: &Bridge) -> Ends {
    let end = |seconds: i64| u64::try_from(seconds).unwrap_or_default() * 1_000;
    let root = bridge.believed().0.map(|root| ("root".to_owned(), end(root.expires.unix())));
    certificates.clone().into_iter().chain(root).collect()
}

/// Warns of what ends soon.
pub(crate) fn warn(ends: &Ends) {
    let now = unix_millis();
    for (what, end) in soon(ends, now) {
        let days = end.saturating_sub(now) / (24 * 3_600_000);
        tracing::warn!(what, days, "it ends: see `A certificate ends` in docs/operations.md");
    }
}

/// What ends soon, or has.
pub(crate) fn soon(ends: &Ends, now: UnixMillis) -> impl Iterator<Item = (&str, UnixMillis)> {
    let soon = move |end: &UnixMillis| *end <= now.saturating_add(WARN_BEFORE);
    ends.iter().filter(move |(_, end)| soon(end)).map(|(what, end)| (what.as_str(), *end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_warned_before_something_ends_and_after() {
        let ends =
            Ends::from([("ca".into(), WARN_BEFORE + 11), ("root".into(), 5), ("tls_cert".into(), WARN_BEFORE + 10)]);
        assert_eq!(soon(&ends, 10).collect::<Vec<_>>(), [("root", 5), ("tls_cert", WARN_BEFORE + 10)]);
        assert_eq!(soon(&ends, 11).count(), 3);
        assert_eq!(soon(&ends, 0).map(|(what, _)| what).collect::<Vec<_>>(), ["root"]);
    }
}
