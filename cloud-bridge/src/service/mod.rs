//! `petrel bridge`: land as a running service.
//!
//! Decides nothing about devices or rollouts: that is `bridge-core`. Here are its hands (the store,
//! the library of bundles, the pen, MQTT, REST), how they start, and how they stop.

mod arrivals;
pub(crate) mod backup;
mod caretaker;
mod config;
mod driver;
pub(crate) mod expiry;
mod expulsion;
mod herald;
mod hijack;
mod http;
mod library;
mod lookout;
pub(crate) mod mosquitto;
mod mqtt;
mod pen;
mod speaker;
mod store;
mod tally;
mod tls;
mod traces;

pub(crate) use config::{BridgeConfig, Doorsteps, starter};
pub(crate) use hijack::{Hijacked, Tap};
pub(crate) use http::{commands, fan_outs, people, rollouts, samples, tokens, view, webhooks};
pub(crate) use store::unix_millis;
pub(crate) use traces::Traces;

use crate::broker::{Broker, BrokerConfig, Guests};
use crate::certificates::Issuer;
use crate::fault::Fault;
use anyhow::Context;
use bridge_core::Record;
use config::BrokerChoice;
use expulsion::Expulsion;
use herald::{Herald, wants};
use library::Library;
use lookout::Lookout;
use pen::Pen;
use protocol::{BRIDGE_NAME, Topics};
use speaker::{Speaker, Voice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tally::Tally;
use tokens::Invitation;
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
/// How long a stop waits for the database.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
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
    let store = Store::open(&config.database, config.fleet.as_str()).await?.telling(wants(&config.webhooks));
    let herald = Herald::open(&config.webhooks)?;
    store.admit(&config.data).await?;
    let library = Arc::new(Library::open(&config.data, root)?);
    let issuer = Arc::new(Issuer::open(&config.fleet, &config.devices_cert, &config.devices_key)?);
    let ends = Arc::new(expiry::read(&config)?);
    // Before anybody can knock: a device that is refused once stays away for a minute.
    let guests = guests(&store).await?;
    let (broker, address) = start_broker(&config, guests.clone()).await?;

    let topics = Topics::new(&config.fleet);
    let tally = Arc::new(Tally::default());
    let mqtt::Wire { client, inbound, mut listens, broker: connection, tell } =
        mqtt::connect(&config, &address, BRIDGE_NAME, topics.up_filter())?;
    let voice = Voice {
        client: client.clone(),
        broker: connection.clone(),
        topics: topics.clone(),
        library: library.clone(),
        tally: tally.clone(),
        rate: config.publish_rate,
    };
    let lookout = Lookout {
        client: client.clone(),
        topics: topics.clone(),
        library: library.clone(),
        broker: connection.clone(),
        tell,
        awaited: Arc::default(),
    };
    let hands = driver::Hands {
        topics,
        speaker: Speaker::start(voice),
        lookout,
        tally: tally.clone(),
        pen: pen.clone(),
        library: library.clone(),
        store: store.clone(),
        expulsion: Expulsion::start(&config, &address, issuer.clone(), guests.clone()),
        guests,
        arrivals: Arc::default(),
    };
    let (driver, driving) = driver::start(&config, root_bytes, hands, inbound).await?;
    let caring = driver.clone();
    let listener = http::listen(config.listen)?;
    let invitation = invitation(&config, listener.local_addr()?, &address);
    let doors = http::Doors::new(driver, library, store.clone(), pen, issuer, invitation, (tally, connection))
        .telling(&config.webhooks)
        .ending(ends.clone());
    let (api, serving) = http::start(&config, listener, doors).await?;
    let telling = tokio::spawn(herald.run(store.clone()));
    let care = tokio::spawn(caretaker::keep(config.retention, ends, store.clone(), caring));

    // Another broker may be away for long; the one inside answers at once, and then no hello is lost.
    let _ = tokio::time::timeout(LISTEN_PATIENCE, listens.wait_for(|listens| *listens)).await;
    let addresses = Addresses { api: format!("https://{}", reachable(api)), broker: address };
    write_addresses(&config.data, &addresses)?;
    info!(api = addresses.api, broker = addresses.broker, fleet = %config.fleet, "the bridge is up");

    let mut stop = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let ended = tokio::select! {
        _ = stop.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
        ended = driving => ended.context("the driver ended")?,
        why = store.lost() => Err(Fault::new(format!("the database {} is lost", config.database.name()))
            .because(why)
            .remedy("the bridge ends, and waits for it when it is started again: what it has acknowledged is there")
            .into()),
    };
    info!("the bridge stops");
    serving.stop().await;
    care.abort();
    telling.abort();
    // The broker keeps our session whether or not it hears the goodbye.
    let _ = client.try_disconnect();
    if let Some(broker) = broker {
        broker.stop().await;
    }
    // Of a server that says nothing any more nothing is waited for.
    let _ = tokio::time::timeout(CLOSE_PATIENCE, store.close()).await;
    ended
}

/// The certificates that count, as land remembers them.
async fn guests(store: &Store) -> anyhow::Result<Arc<Guests>> {
    let guests = Guests::default();
    for record in store.records().await? {
        if let Record::Device(device) = record {
            guests.know(&device);
        }
    }
    Ok(Arc::new(guests))
}

/// The broker in this process, or the address of another.
async fn start_broker(config: &BridgeConfig, guests: Arc<Guests>) -> anyhow::Result<(Option<Broker>, String)> {
    match &config.broker {
        BrokerChoice::Elsewhere(url) => Ok((None, url.clone())),
        BrokerChoice::Here(listen) => {
            let broker = Broker::start(BrokerConfig {
                listen: *listen,
                cert: config.tls_cert.clone(),
                key: config.tls_key.clone(),
                clients: config.devices_cert.clone(),
                fleet: config.fleet.clone(),
                guests,
                max_sessions: BrokerConfig::SESSIONS,
                max_retained: BrokerConfig::RETAINED,
            });
            let broker = broker.await?;
            let address = format!("mqtts://{}", reachable(broker.address()));
            Ok((Some(broker), address))
        }
    }
}

/// What devices are told: what the configuration says, or where things are on this machine.
fn invitation(config: &BridgeConfig, api: SocketAddr, broker: &str) -> Invitation {
    Invitation {
        fleet: config.fleet.clone(),
        bridge: config.api_url.clone().unwrap_or_else(|| format!("https://{}", reachable(api))),
        broker: config.broker_url.clone().unwrap_or_else(|| broker.to_owned()),
        ca: config.ca.clone(),
        root: config.root_path().to_owned(),
    }
}

/// An address to connect to: what listens everywhere is found on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

fn write_addresses(data: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    let path = data.join(ADDRESSES);
    let part = data.join("bridge.json.part");
    let written = std::fs::write(&part, serde_json::to_vec(addresses)?).and_then(|()| std::fs::rename(&part, &path));
    written.with_context(|| format!("cannot write {}", path.display()))
}
