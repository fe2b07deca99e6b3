//! `petrel bridge`: land as a running service.
//!
//! Decides nothing about devices or rollouts: that is `bridge-core`. Here are its hands (the store,
//! the library of bundles, the pen, MQTT, REST), how they start, and how they stop.

mod config;
mod driver;
mod http;
mod library;
mod mqtt;
mod pen;
mod speaker;
mod store;

pub(crate) use config::{BridgeConfig, default_broker_listen, default_listen, starter};
pub(crate) use http::view;

use crate::broker::{Broker, BrokerConfig};
use crate::fault::Fault;
use anyhow::Context;
use config::BrokerChoice;
use library::Library;
use pen::Pen;
use protocol::Topics;
use speaker::Speaker;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Where a running bridge is reached; written to `bridge.json` in its data folder.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Addresses {
    /// The REST API.
    pub(crate) api: String,
    /// The broker.
    pub(crate) broker: String,
}

/// The file in the data folder that names where the bridge is reached.
pub(crate) const ADDRESSES: &str = "bridge.json";
/// How long a start waits for the broker.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3);
/// The file in the data folder with the first token.
pub(crate) const ADMIN_TOKEN: &str = "admin.token";

/// Runs until a signal ends it.
///
/// # Errors
/// When something that it stands on is not there: a key, a port, a folder.
pub(crate) async fn run(config: BridgeConfig) -> anyhow::Result<()> {
    let unwritable = || Fault::new(format!("cannot use the data folder {}", config.data.display()));
    std::fs::create_dir_all(&config.data)
        .map_err(|e| unwritable().because(e).remedy("give a folder that this user may write"))?;
    let (root, root_bytes) = config.root()?;
    let pen = Arc::new(Pen::open(&config)?);
    let store = Store::open(&config.data, config.fleet.as_str()).await?;
    store.admit(&config.data.join(ADMIN_TOKEN)).await?;
    let library = Arc::new(Library::open(&config.data, root)?);
    let (broker, address) = start_broker(&config).await?;

    let mqtt::Wire { client, inbound, mut listens } = mqtt::connect(&config, &address, &Topics::new(&config.fleet))?;
    let hands = driver::Hands {
        topics: Topics::new(&config.fleet),
        speaker: Speaker::start(client.clone(), Topics::new(&config.fleet), library.clone()),
        pen: pen.clone(),
        library: library.clone(),
        store: store.clone(),
    };
    let (driver, driving) = driver::start(config.fleet.clone(), root_bytes, hands, inbound).await?;
    let doors = http::Doors { driver, library, pen, store: store.clone(), strangers: Arc::default() };
    let (api, serving) = http::start(&config, doors).await?;
    let retention = tokio::spawn(store.clone().forget_regularly(config.telemetry_days));

    // Another broker may be away for long; the one inside answers at once, and then no hello is lost.
    let _ = tokio::time::timeout(LISTEN_PATIENCE, listens.wait_for(|listens| *listens)).await;
    let addresses = Addresses { api: format!("https://{api}"), broker: address };
    write_addresses(&config.data, &addresses)?;
    info!(api = addresses.api, broker = addresses.broker, fleet = %config.fleet, "the bridge is up");

    let mut stop = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let ended = tokio::select! {
        _ = stop.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
        ended = driving => ended.context("the driver ended")?,
    };
    info!("the bridge stops");
    serving.stop().await;
    retention.abort();
    // The broker keeps our session whether or not it hears the goodbye.
    let _ = client.try_disconnect();
    if let Some(broker) = broker {
        broker.stop().await;
    }
    store.close().await;
    ended
}

/// The broker in this process, or the address of another.
async fn start_broker(config: &BridgeConfig) -> anyhow::Result<(Option<Broker>, String)> {
    match &config.broker {
        BrokerChoice::Elsewhere(url) => Ok((None, url.clone())),
        BrokerChoice::Here(listen) => {
            let settings = BrokerConfig::new(*listen, config.tls_cert.clone(), config.tls_key.clone());
            let broker = Broker::start(settings).await?;
            let address = format!("mqtts://{}", broker.address());
            Ok((Some(broker), address))
        }
    }
}

fn write_addresses(data: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    let path = data.join(ADDRESSES);
    let part = data.join("bridge.json.part");
    let written = std::fs::write(&part, serde_json::to_vec(addresses)?).and_then(|()| std::fs::rename(&part, &path));
    written.with_context(|| format!("cannot write {}", path.display()))
}
