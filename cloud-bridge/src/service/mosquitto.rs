//! What Mosquitto 2 must know to carry a fleet: written, not described.
//!
//! Decides the same rules as the broker inside: a client is whom its certificate names, a device reads what is for it
//! and for everybody, and writes what is its own. `pattern` lines come first: a bare `topic` line before any user
//! would be for anonymous clients, and lines after a `user` are that user's.

use super::config::BridgeConfig;
use super::store::unix_millis;
use crate::bundle::Staging;
use crate::certificates::Issuer;
use crate::fault::Fault;
use crate::keyfile;
use anyhow::Context;
use protocol::{BRIDGE_NAME, Topics};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The files that were written.
#[derive(Debug)]
pub(crate) struct Written {
    /// `mosquitto.conf`.
    pub(crate) config: PathBuf,
    /// The access rules.
    pub(crate) acl: PathBuf,
    /// The list of withdrawn certificates, empty so far.
    pub(crate) crl: PathBuf,
    /// `host:port` for this machine.
    pub(crate) address: String,
}

/// Writes `DIR`: all of it or nothing.
///
/// # Errors
/// When a file is there already, cannot be read or cannot be written.
pub(crate) fn write(config: &BridgeConfig, dir: &Path, listen: SocketAddr, user: &str) -> anyhow::Result<Written> {
    let issuer = Issuer::open(&config.fleet, &config.devices_cert, &config.devices_key)?;
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let chain = read(&config.devices_cert)? + &read(&config.ca)?;
    let staging = Staging::beside(dir)?;
    let here = std::path::absolute(dir).with_context(|| format!("{} is no path", dir.display()))?;
    let new = |name: &str, text: &str, mode| keyfile::write_new(&staging.path().join(name), text.as_bytes(), mode);
    new("mosquitto.conf", &configuration(&here, listen, user)?, 0o644)?;
    new("acl", &rules(&Topics::new(&config.fleet)), 0o644)?;
    new("ca.pem", &chain, 0o644)?;
    new("devices.crl", &issuer.list(&[], unix_millis() / 1_000)?, 0o644)?;
    new("bridge.pem", &read(&config.tls_cert)?, 0o644)?;
    new("bridge.key", &keyfile::read_secret_text(&config.tls_key)?, 0o600)?;
    staging.commit()?;
    let host = if listen.ip().is_unspecified() { "localhost".to_owned() } else { listen.ip().to_string() };
    Ok(Written {
        config: here.join("mosquitto.conf"),
        acl: here.join("acl"),
        crl: here.join("devices.crl"),
        address: format!("{host}:{}", listen.port()),
    })
}

fn configuration(dir: &Path, listen: SocketAddr, user: &str) -> anyhow::Result<String> {
    let shown = dir.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| {
        Fault::new(format!("{} cannot stand in mosquitto.conf", dir.display())).remedy("choose a plain name for --out")
    })?;
    Ok(format!(
        "# Written by `petrel broker config mosquitto`.\n\
         user {user}\nper_listener_settings false\nlistener {} {}\n\n\
         # Who may come in: whoever shows a certificate of the fleet's intermediate that was not withdrawn. Its name is\n\
         # the client's name and client id, so that nobody takes over the session of another.\n\
         cafile {shown}/ca.pem\ncertfile {shown}/bridge.pem\nkeyfile {shown}/bridge.key\ncrlfile {shown}/devices.crl\n\
         tls_version tlsv1.2\nrequire_certificate true\nuse_identity_as_username true\nuse_username_as_clientid true\n\
         allow_anonymous false\nacl_file {shown}/acl\n\n\
         # A bundle is many messages; what is retained outlives a restart.\n\
         max_packet_size 262144\nmax_queued_messages 1000000\nmax_inflight_messages 64\nset_tcp_nodelay true\n\
         persistence true\npersistence_location {shown}/\nautosave_interval 60\n",
        listen.port(),
        listen.ip()
    ))
}

fn rules(topics: &Topics) -> String {
    // `%u` is the name in the certificate.
    let reads = topics.readable("%u").map(|filter| format!("pattern read {filter}\n")).concat();
    format!(
        "# Every device.\n{reads}pattern write {}\n\n# The bridge.\nuser {BRIDGE_NAME}\ntopic readwrite {}\n",
        topics.writable("%u"),
        topics.everything()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_come_before_any_user() {
        let rules = rules(&Topics::new(&"sea".parse().unwrap()));
        let lines: Vec<&str> = rules.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        let user = lines.iter().position(|line| line.starts_with("user ")).unwrap();
        assert_eq!(lines.iter().filter(|line| line.starts_with("pattern ")).count(), user);
        assert_eq!(lines[user + 1..].len(), 1, "what follows belongs to the bridge: {rules}");
    }
}
