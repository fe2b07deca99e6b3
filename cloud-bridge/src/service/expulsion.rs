//! Makes a device's expulsion felt: the list of withdrawn certificates on disk, the broker that reads it anew, and the
//! end of a session that is still live.
//!
//! A broker does not end a session because its certificate was withdrawn. So the bridge takes the session over, with
//! a certificate in the device's name that it signs itself and that counts for an hour, and gives it up at once. That
//! works with every broker that binds client ids to certificates.

use super::config::{BridgeConfig, BrokerChoice};
use super::store::unix_millis;
use super::{mqtt, tls};
use crate::broker::Guests;
use crate::certificates::{Fleeting, Issuer};
use anyhow::{Context, bail};
use bridge_core::Withdrawn;
use protocol::DeviceId;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc;
use tracing::{error, info};

/// How long the command may take, and a take-over.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts to end a session, with a pause between them.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

enum Order {
    List(Vec<Withdrawn>),
    End(DeviceId),
}

/// The way to the task that does it.
#[derive(Debug, Clone)]
pub(crate) struct Expulsion {
    orders: mpsc::UnboundedSender<Order>,
}

impl Expulsion {
    /// Starts the task; it ends with the last of its handles. Orders are as many as people revoke devices.
    pub(crate) fn start(config: &BridgeConfig, broker: &str, issuer: Arc<Issuer>, guests: Arc<Guests>) -> Self {
        let (orders, given) = mpsc::unbounded_channel();
        let reload = match config.broker {
            BrokerChoice::Here(_) => Vec::new(),
            BrokerChoice::Elsewhere(_) => config.broker_reload.clone(),
        };
        let (list, ca, broker) = (config.crl.clone(), config.ca.clone(), broker.to_owned());
        tokio::spawn(Usher { list, ca, broker, reload, issuer, guests }.work(given));
        Self { orders }
    }

    /// Every certificate that counts no more.
    pub(crate) fn list(&self, withdrawn: Vec<Withdrawn>) {
        // Nobody takes orders any more when the bridge stops; it gives them again at its next start.
        let _ = self.orders.send(Order::List(withdrawn));
    }

    /// The session that this device may have.
    pub(crate) fn end(&self, device: DeviceId) {
        let _ = self.orders.send(Order::End(device));
    }
}

struct Usher {
    list: PathBuf,
    ca: PathBuf,
    broker: String,
    reload: Vec<String>,
    issuer: Arc<Issuer>,
    guests: Arc<Guests>,
}

impl Usher {
    async fn work(self, mut given: mpsc::UnboundedReceiver<Order>) {
        while let Some(order) = given.recv().await {
            match order {
                Order::List(withdrawn) => {
                    if let Err(error) = self.publish(&withdrawn).await {
                        error!(
                            error = format!("{error:#}"),
                            "the broker may not know of withdrawn certificates: their devices are ignored all the same"
                        );
                    }
                }
                Order::End(device) => self.end(&device).await,
            }
        }
    }

    async fn publish(&self, withdrawn: &[Withdrawn]) -> anyhow::Result<()> {
        let list = self.issuer.list(withdrawn, unix_millis() / 1_000)?;
        replace(&self.list, list.as_bytes()).with_context(|| format!("cannot write {}", self.list.display()))?;
        let Some((program, arguments)) = self.reload.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(PATIENCE, command.status()).await;
        let status = ended.with_context(|| format!("`{program}` took longer than {} s", PATIENCE.as_secs()))?;
        let status = status.with_context(|| format!("cannot run `{program}` of broker_reload"))?;
        if !status.success() {
            bail!("`{program}` of broker_reload failed: {status}");
        }
        info!(withdrawn = withdrawn.len(), "the broker was asked to read the list of withdrawn certificates");
        Ok(())
    }

    async fn end(&self, device: &DeviceId) {
        for attempt in 1..=ATTEMPTS {
            match self.take_over(device).await {
                Ok(()) => return info!(%device, "its session was ended"),
                Err(error) if attempt == ATTEMPTS => {
                    error!(%device, error = format!("{error:#}"), "its session could not be ended: it is ignored all the same");
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn take_over(&self, device: &DeviceId) -> anyhow::Result<()> {
        let Fleeting { chain, key, serial } = self.issuer.fleeting(device, unix_millis() / 1_000)?;
        let tls = tls::client(&self.ca, chain, key)?;
        let (host, port) = mqtt::parse(&self.broker)?;
        let mut options = MqttOptions::new(device.as_str(), host, port);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_clean_start(true).set_session_expiry_interval(Some(0));
        let (client, mut poll) = AsyncClient::new(options, 4);
        self.guests.admit(device, &serial, true);
        let taken = tokio::time::timeout(PATIENCE, async {
            loop {
                match poll.poll().await? {
                    Event::Incoming(Packet::ConnAck(_)) => client.try_disconnect()?,
                    Event::Outgoing(Outgoing::Disconnect) => return anyhow::Ok(()),
                    _ => {}
                }
            }
        });
        let taken = taken.await;
        self.guests.admit(device, &serial, false);
        taken.context("the broker does not answer")?
    }
}

/// Puts `content` in the place of a file: whole, or not at all.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut file = std::fs::File::create(&part)?;
    std::io::Write::write_all(&mut file, content)?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}
