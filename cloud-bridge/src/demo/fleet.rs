//! The demo's fleet: a root of trust, a bridge with its broker, and agents, each a process of its own.

use super::process::{Running, wait_for};
use crate::authority::{self, NewFleet};
use crate::ceremony::Changes;
use crate::cli::client::{Client, Context, Token};
use crate::keyfile;
use crate::service::tokens::{MadeToken, NewToken};
use crate::service::view::DeviceView;
use crate::service::{self, ADDRESSES, ADMIN_TOKEN, Addresses};
use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FLEET: &str = "demo";
const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet on this machine. Agents end before the bridge.
pub(crate) struct Fleet {
    /// The devices.
    pub(crate) agents: Vec<Device>,
    /// Land.
    pub(crate) bridge: Running,
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
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock is before 1970")?.as_secs();
    let new = NewFleet {
        fleet: FLEET.parse()?,
        holders: Vec::new(),
        changes: Changes::default(),
        hosts: Vec::new(),
        now,
        days: 30,
    };
    authority::init(&new, &dir.join("fleet"))?;
    keyfile::read_private(&dir.join("fleet/keys/publisher.pem"), &keyfile::Passphrase::default())
}

impl Fleet {
    /// Starts the bridge, on ports that are free.
    pub(crate) fn start(dir: &Path, program: PathBuf) -> anyhow::Result<Self> {
        let config = dir.join("fleet/demo-bridge.toml");
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let doorsteps = service::Doorsteps { listen: free, broker_listen: free, host: None };
        let text = service::starter(&FLEET.parse()?, "../bridge", &doorsteps);
        std::fs::write(&config, text)?;
        let petrel = std::env::current_exe()?;
        let args = [OsStr::new("bridge"), OsStr::new("--config"), config.as_os_str()];
        let mut bridge = Running::start(&petrel, &args, dir.join("bridge.log"))?;
        let data = dir.join("bridge");
        let addresses: Addresses = wait_for("the start of the bridge", PATIENCE, || {
            bridge.check()?;
            Ok(std::fs::read(data.join(ADDRESSES)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()))
        })?;
        let client = Client::new(Context {
            url: addresses.api.clone(),
            ca: std::fs::read_to_string(dir.join("fleet/tls/ca.pem"))?,
            token: Token(std::fs::read_to_string(data.join(ADMIN_TOKEN))?.trim().to_owned()),
        })?;
        Ok(Self { agents: Vec::new(), bridge, addresses, client, dir: dir.to_owned(), program })
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
             root = \"root.json\"\nstate = \"state\"\nlisten = \"127.0.0.1:0\"\ntelemetry_s = 2\n",
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

    /// Fails when a process has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.bridge.check()?;
        self.agents.iter_mut().try_for_each(|device| device.process.check())
    }
}

impl Drop for Fleet {
    /// All agents end at once, and then the bridge.
    fn drop(&mut self) {
        self.agents.iter().for_each(|device| device.process.ask_to_end());
    }
}
