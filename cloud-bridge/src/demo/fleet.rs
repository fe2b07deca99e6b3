//! The demo's fleet: a root of trust, a bridge with its broker, and agents, each a process of its own.

use super::model::STREAM;
use super::process::{Running, wait_for};
use super::traffic;
use crate::authority::{self, NewFleet};
use crate::ceremony::Changes;
use crate::cli::Out;
use crate::cli::client::{Client, Context, Token};
use crate::cli::draft::now;
use crate::keyfile;
use crate::service::rollouts::NewRollout;
use crate::service::tokens::{MadeToken, NewToken};
use crate::service::view::{DeviceView, RolloutView, StatusView};
use crate::service::{self, ADDRESSES, ADMIN_TOKEN, Addresses, BridgeConfig};
use anyhow::Context as _;
use bridge_core::policy::Silence;
use bridge_core::{Policy, Span};
use ed25519_dalek::SigningKey;
use protocol::RefusalReport;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trust::{Trial, U53};

const FLEET: &str = "demo";
/// The bridge's configuration, within the demo's folder.
const CONFIG: &str = "fleet/demo-bridge.toml";
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a rollout may take here.
const ROLLOUT_PATIENCE: Duration = Duration::from_secs(120);

/// A fleet on this machine. Agents end before the bridge.
pub(crate) struct Fleet {
    /// The devices.
    pub(crate) agents: Vec<Device>,
    /// Land; `None` while others hold its place.
    bridge: Option<Running>,
    /// Where land is.
    pub(crate) addresses: Addresses,
    /// The way to land.
    pub(crate) client: Client,
    dir: PathBuf,
    program: PathBuf,
}

/// An agent.
pub(crate) struct Device {
    /// Its name.
    pub(crate) id: String,
    /// Its process.
    pub(crate) process: Running,
    /// Where its local API listens, `127.0.0.1:port`.
    pub(crate) address: String,
}

/// Makes the root of trust and its keys in `DIR/fleet`; returns the publisher's key.
pub(crate) fn found(dir: &Path) -> anyhow::Result<SigningKey> {
    let new = NewFleet {
        fleet: FLEET.parse()?,
        holders: Vec::new(),
        changes: Changes::default(),
        hosts: Vec::new(),
        now: now()?,
        days: 30,
    };
    authority::init(&new, &dir.join("fleet"))?;
    keyfile::read_private(&dir.join("fleet/keys/publisher.pem"), &keyfile::Passphrase::default())
}

impl Fleet {
    /// Starts the bridge, on ports that are free.
    pub(crate) fn start(dir: &Path, program: PathBuf) -> anyhow::Result<Self> {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        configure(dir, free, free, |text| text)?;
        let data = dir.join("bridge");
        let mut bridge = start_bridge(dir)?;
        let addresses: Addresses = wait_for("the start of the bridge", PATIENCE, || {
            bridge.check()?;
            Ok(std::fs::read(data.join(ADDRESSES)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()))
        })?;
        let client = Client::new(Context {
            url: addresses.api.clone(),
            ca: std::fs::read_to_string(dir.join("fleet/tls/ca.pem"))?,
            token: Token(std::fs::read_to_string(data.join(ADMIN_TOKEN))?.trim().to_owned()),
        })?;
        let dir = dir.to_owned();
        let fleet = Self { agents: Vec::new(), bridge: Some(bridge), addresses, client, dir, program };
        // From now on it is found where it was.
        fleet.configure(|text| text)?;
        Ok(fleet)
    }

    fn configure(&self, change: impl FnOnce(String) -> String) -> anyhow::Result<()> {
        let at = |url: &str| -> anyhow::Result<SocketAddr> {
            let (_, address) = url.split_once("://").context("an address without a scheme")?;
            Ok(address.parse()?)
        };
        configure(&self.dir, at(&self.addresses.api)?, at(&self.addresses.broker)?, change)
    }

    /// What the bridge is configured with.
    pub(crate) fn bridge_config(&self) -> anyhow::Result<BridgeConfig> {
        BridgeConfig::read(&self.dir.join(CONFIG), None)
    }

    /// Ends the bridge.
    pub(crate) fn end_bridge(&mut self) {
        self.bridge = None;
    }

    /// Starts it again in its old place, with its configuration changed.
    pub(crate) fn restart_bridge(&mut self, change: impl FnOnce(String) -> String) -> anyhow::Result<()> {
        self.configure(change)?;
        self.bridge = Some(start_bridge(&self.dir)?);
        wait_for("the bridge's return", PATIENCE, || {
            self.check()?;
            Ok(self.client.get::<StatusView>("/status").ok())
        })?;
        Ok(())
    }

    /// Enrols `count` devices, each with a join file of its own, and starts their agents.
    pub(crate) fn enlist(&mut self, count: usize) -> anyhow::Result<()> {
        for number in 1..=count {
            let id = format!("edge-{number}");
            self.enrol(&id)?;
            let device = self.start_agent(&id)?;
            self.agents.push(device);
        }
        for number in 0..count {
            let id = self.agents[number].id.clone();
            self.wait_for_device(&id, "its first assignment", |d| d.reported_generation.is_some())?;
        }
        Ok(())
    }

    /// What a person does on land and beside the device: a join file is made, carried over, and used.
    fn enrol(&self, id: &str) -> anyhow::Result<()> {
        let home = self.dir.join(id);
        std::fs::create_dir_all(&home)?;
        let (config, file) = (home.join("agent.toml"), home.join("device.join"));
        let text = format!(
            "fleet = \"{FLEET}\"\ndevice = \"{id}\"\nboard = \"demo\"\nbroker = \"{}\"\nbridge = \"{}\"\nca = \"ca.pem\"\n\
             root = \"root.json\"\nstate = \"state\"\nlisten = \"127.0.0.1:0\"\ntelemetry_s = 2\n\
             drift_window_s = 1\n",
            self.addresses.broker, self.addresses.api
        );
        std::fs::write(&config, text)?;
        let new = NewToken { device: id.to_owned(), ttl_s: 600, pending: false };
        let made: MadeToken = self.client.post("/join-tokens", &new)?.context("the bridge's answer was empty")?;
        keyfile::write_new(&file, &serde_json::to_vec(&made.join)?, 0o600)?;
        let mut command = std::process::Command::new(&self.program);
        let enrolled = command.arg("enrol").arg(&file).arg("--config").arg(&config).output()?;
        let words = String::from_utf8_lossy(&enrolled.stderr);
        anyhow::ensure!(enrolled.status.success(), "{id} could not enrol:\n{words}");
        Ok(())
    }

    /// Starts one agent, or starts it again from what it remembers.
    pub(crate) fn start_agent(&self, id: &str) -> anyhow::Result<Device> {
        let home = self.dir.join(id);
        let config = home.join("agent.toml");
        let address_file = home.join("state/http.addr");
        // An address from before would be believed too early.
        let _ = std::fs::remove_file(&address_file);
        let args = [OsStr::new("run"), OsStr::new("--config"), config.as_os_str()];
        let mut process = Running::start(&self.program, &args, home.join("agent.log"))?;
        let address = wait_for("the start of an agent", PATIENCE, || {
            process.check()?;
            Ok(std::fs::read_to_string(&address_file).ok().map(|a| a.trim().to_owned()).filter(|a| !a.is_empty()))
        })?;
        Ok(Device { id: id.to_owned(), process, address })
    }

    /// What an agent refused since its start, as its local API tells.
    pub(crate) fn refusals(&self, agent: usize) -> anyhow::Result<Vec<RefusalReport>> {
        #[derive(serde::Deserialize)]
        struct Told {
            refusals: Vec<RefusalReport>,
        }
        let address = &self.agents[agent].address;
        let told: Told = traffic::client().get(format!("http://{address}/status")).call()?.body_mut().read_json()?;
        Ok(told.refusals)
    }

    /// Waits until land sees a device as it should be.
    pub(crate) fn wait_for_device(
        &mut self,
        id: &str,
        what: &str,
        good: impl Fn(&DeviceView) -> bool,
    ) -> anyhow::Result<DeviceView> {
        wait_for(&format!("{what} of {id}"), PATIENCE, || {
            self.check()?;
            let devices: Vec<DeviceView> = self.client.list("/devices")?;
            Ok(devices.into_iter().find(|d| d.id == id).filter(&good))
        })
    }

    /// Starts a rollout to a canary that is looked at for `soak`, and then to all, and waits for its end.
    pub(crate) fn roll_out(&mut self, version: &str, soak: Duration, out: &Out) -> anyhow::Result<RolloutView> {
        let [min_answers, max_errors, window_s] = [100_u64, 3, 60].map(|n| U53::try_from(n).unwrap_or_default());
        let trial = Trial { min_answers, max_errors, window_s, ..Trial::default() };
        let silence = Silence { deadline: Span::seconds(ROLLOUT_PATIENCE.as_secs()), ..Silence::default() };
        let mut policy = Policy { trial, silence, ..Policy::default() };
        if let Some(canary) = policy.waves.first_mut() {
            canary.soak = Span::seconds(soak.as_secs());
        }
        let new = NewRollout {
            stream: STREAM.into(),
            version: version.into(),
            to: None,
            devices: None,
            policy,
            draft: false,
        };
        let begun: RolloutView = self.client.post("/rollouts", &new)?.context("the bridge's answer was empty")?;
        let bar = out.progress("rolling out");
        let ended = wait_for(&format!("the end of the rollout of {version}"), ROLLOUT_PATIENCE, || {
            self.check()?;
            let rollout: RolloutView = self.client.get(&format!("/rollouts/{}", begun.id))?;
            bar.set_message(format!(
                "wave {} of {}: {} answered",
                rollout.wave,
                rollout.waves.len(),
                rollout.results.len()
            ));
            Ok(rollout.has_ended().then_some(rollout))
        })?;
        bar.finish_and_clear();
        Ok(ended)
    }

    /// Fails when a process has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.bridge.as_mut().map_or(Ok(()), Running::check)?;
        self.agents.iter_mut().try_for_each(|device| device.process.check())
    }
}

/// Writes the bridge's configuration as `petrel root init` does, but for where it listens.
fn configure(
    dir: &Path,
    listen: SocketAddr,
    broker_listen: SocketAddr,
    change: impl FnOnce(String) -> String,
) -> anyhow::Result<()> {
    let doorsteps = service::Doorsteps { listen, broker_listen, host: None };
    let text = service::starter(&FLEET.parse()?, "../bridge", &doorsteps);
    Ok(std::fs::write(dir.join(CONFIG), change(text))?)
}

fn start_bridge(dir: &Path) -> anyhow::Result<Running> {
    let (petrel, config) = (std::env::current_exe()?, dir.join(CONFIG));
    let args = [OsStr::new("bridge"), OsStr::new("--config"), config.as_os_str()];
    Running::start(&petrel, &args, dir.join("bridge.log"))
}

impl Drop for Fleet {
    /// All agents end at once, and then the bridge.
    fn drop(&mut self) {
        self.agents.iter().for_each(|device| device.process.ask_to_end());
    }
}
