//! A fleet on this machine: a real Mosquitto, a bridge that reaches it through a tap, and agents.
//!
//! Decides how they are set up, as people would do it. What is done to them is for each figure to decide.

use crate::cargo::{Bundle, files};
use crate::programs::{Desk, Process, wait_for};
use crate::tap::Tap;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use trust::Digest;

/// Where Mosquitto may be.
const MOSQUITTO: [&str; 2] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
/// What an agent says when it begins to get a bundle.
pub(crate) const FETCHED: &str = "a bundle is fetched";
/// What it says when every byte is on its disk.
pub(crate) const STORED: &str = "the bundle is stored";

/// Agents are held by whoever measures; the rest ends with this value.
pub(crate) struct Fleet {
    bridge: Process,
    broker: Option<Process>,
    /// Between the bridge and the broker.
    pub(crate) land: Tap,
    tls: u16,
    plain: u16,
    api: String,
    pub(crate) desk: Desk,
}

impl Fleet {
    /// A broker and a bridge that reaches it through a tap.
    pub(crate) fn start(programs: &Path) -> anyhow::Result<Self> {
        Self::set_up(programs, true, None)
    }

    /// The same with nothing between them, so that nobody else takes the processor's time; where it is said, the broker
    /// keeps so many messages for a session instead of what was written for it.
    pub(crate) fn start_direct(programs: &Path, queued: Option<&str>) -> anyhow::Result<Self> {
        Self::set_up(programs, false, queued)
    }

    fn set_up(programs: &Path, tapped: bool, queued: Option<&str>) -> anyhow::Result<Self> {
        let desk = Desk::new(programs)?;
        desk.done("petrel keys new --role publisher --out keys")?;
        desk.done("petrel root init --fleet sea --publisher keys/publisher.pub --out fleet")?;
        let [tls, plain] = free_ports()?;
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        desk.done(&format!(
            "petrel broker config mosquitto --config fleet/bridge.toml --out mosquitto --listen 127.0.0.1:{tls} --user {user}"
        ))?;
        configure_broker(&desk, plain, queued)?;
        let broker = Some(start_broker(&desk, tls)?);
        let land = Tap::start(tls, None)?;
        configure_bridge(&desk, if tapped { land.port } else { tls }, tls)?;
        let (bridge, api) = start_bridge(&desk)?;
        Ok(Self { bridge, broker, land, tls, plain, api, desk })
    }

    /// Where the bridge's API is, as people and devices find it.
    pub(crate) fn api(&self) -> &str {
        &self.api
    }

    /// The port at which the broker takes whoever comes, without TLS.
    pub(crate) fn plain_port(&self) -> u16 {
        self.plain
    }

    /// The bridge.
    pub(crate) fn bridge(&mut self) -> &mut Process {
        &mut self.bridge
    }

    /// The process id of the broker.
    pub(crate) fn broker_id(&self) -> anyhow::Result<u32> {
        Ok(self.broker.as_ref().context("the broker is away")?.id())
    }

    /// Starts the bridge again after its end, at another address.
    pub(crate) fn bridge_again(&mut self) -> anyhow::Result<()> {
        (self.bridge, self.api) = start_bridge(&self.desk)?;
        Ok(())
    }

    /// Where agents find the broker: with TLS, or without.
    pub(crate) fn broker(&self, tls: bool) -> String {
        if tls { format!("mqtts://127.0.0.1:{}", self.tls) } else { format!("mqtt://127.0.0.1:{}", self.plain) }
    }

    /// A tap in front of the broker, for a device that is to receive at most so many bytes a second.
    pub(crate) fn tap(&self, rate: Option<u32>) -> anyhow::Result<Tap> {
        Ok(Tap::start(self.tls, rate)?)
    }

    /// Ends the broker as a power cut would, and starts it again without anything that it kept.
    pub(crate) fn broker_forgets(&mut self) -> anyhow::Result<()> {
        if let Some(broker) = self.broker.take() {
            broker.kill()?;
        }
        let _ = fs::remove_file(self.desk.path("mosquitto/mosquitto.db"));
        self.broker = Some(start_broker(&self.desk, self.tls)?);
        Ok(())
    }

    /// Lets a device in, which is to use the broker at this URL.
    pub(crate) fn enrol(&self, id: &str, broker: &str) -> anyhow::Result<()> {
        fs::create_dir_all(self.desk.path(id))?;
        let config = format!(
            "fleet = \"sea\"\ndevice = \"{id}\"\nbroker = \"{broker}\"\nbridge = \"{}\"\nca = \"ca.pem\"\nroot = \"root.json\"\n\
             state = \"state\"\nlisten = \"127.0.0.1:0\"\nlog = \"json\"\n",
            self.api
        );
        self.desk.write(&format!("{id}/agent.toml"), config)?;
        self.desk.done(&format!("petrel devices token new {id} --out {id}/device.join"))?;
        self.desk.done(&format!("petrel-agent enrol {id}/device.join --config {id}/agent.toml")).map(drop)
    }

    /// Starts an agent, or starts it again from what it remembers.
    pub(crate) fn start_agent(&self, id: &str) -> anyhow::Result<Process> {
        self.desk.start(&format!("petrel-agent run --config {id}/agent.toml"), &format!("{id}/agent.log"))
    }

    /// Waits until land has a device's answer to its first assignment.
    pub(crate) fn reports(&self, id: &str) -> anyhow::Result<()> {
        wait_for(&format!("the first report of {id}"), || {
            let device = self.desk.json(&format!("petrel devices show {id}"))?;
            Ok(device["reported_generation"].is_u64().then_some(()))
        })
    }

    /// Rolls a release out to these devices at once; gives the rollout's number.
    pub(crate) fn roll_out(&self, bundle: &Bundle, to: &[String]) -> anyhow::Result<u64> {
        let line = format!(
            "petrel rollout start {} --to {} --waves 100% --trial-window 1 --trial-answers 0",
            bundle.name,
            to.join(",")
        );
        self.desk.json(&line)?["id"].as_u64().context("the rollout has no number")
    }

    /// The same, and waits until every chunk has left for the broker.
    pub(crate) fn roll_out_ahead(&mut self, bundle: &Bundle, to: &[String]) -> anyhow::Result<()> {
        let before = self.land.sent();
        self.roll_out(bundle, to)?;
        self.bridge.says(&format!("bundle published bundle={}", &bundle.statement[..12]))?;
        wait_for("the last chunk", || Ok((self.land.sent() >= before + bundle.bytes).then_some(())))
    }

    /// Follows a rollout to its good end.
    pub(crate) fn completed(&self, rollout: u64) -> anyhow::Result<()> {
        self.desk.start(&format!("petrel rollout watch {rollout}"), "watch.log")?.succeeds()
    }

    /// A device's folder of a bundle, whole or on its way.
    pub(crate) fn folder(&self, id: &str, bundle: &Bundle) -> Option<PathBuf> {
        let folders = ["bundles", "incoming"].map(|kind| format!("{id}/state/{kind}/{}", bundle.statement));
        folders.into_iter().map(|folder| self.desk.path(&folder)).find(|folder| folder.exists())
    }

    /// Fails unless every file on the device's disk is the one that was signed, byte for byte.
    pub(crate) fn check(&self, id: &str, bundle: &Bundle) -> anyhow::Result<()> {
        let folder = self.folder(id, bundle).with_context(|| format!("{id} has nothing of {}", bundle.name))?;
        let digest = |path: &Path| -> anyhow::Result<Digest> {
            Ok(Digest::of(&fs::read(path).with_context(|| format!("{id} lacks {}", path.display()))?))
        };
        for (name, path) in files(&bundle.dir)? {
            let same = digest(&folder.join(&name))? == digest(&path)?;
            ensure!(same, "{id}: {name} of {} is not the one that was signed", bundle.name);
        }
        Ok(())
    }
}

/// When an agent said this first, in seconds since midnight.
pub(crate) fn said_at(agent: &Process, words: &str) -> anyhow::Result<Option<f64>> {
    let said = agent.said()?;
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let Some(line) = lines.into_iter().find(|line| line["message"] == words) else { return Ok(None) };
    let clock = line["timestamp"].as_str().and_then(|moment| moment.split_once('T')?.1.strip_suffix('Z'));
    let clock = clock.with_context(|| format!("`{line}` tells no moment"))?;
    let parts: Vec<f64> = clock.split(':').map(str::parse).collect::<Result<_, _>>()?;
    Ok(Some(parts.into_iter().fold(0.0, |sum, part| sum * 60.0 + part)))
}

/// Ports that were free; should somebody else take one meanwhile, its program says so.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let take = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let [one, other] = [take()?, take()?];
    Ok([one.local_addr()?.port(), other.local_addr()?.port()])
}

/// What was written for a fleet, and a second door without TLS, as on a device that has a broker of its own.
fn configure_broker(desk: &Desk, plain: u16, queued: Option<&str>) -> anyhow::Result<()> {
    let written = String::from_utf8(desk.read("mosquitto/mosquitto.conf")?)?;
    let (one, each) = ("per_listener_settings false", "per_listener_settings true");
    ensure!(written.contains(one), "mosquitto.conf is another than the one that is known here");
    let door = format!("listener {plain} 127.0.0.1\nallow_anonymous true\n");
    let lines = written.replace(one, each) + &door;
    let lines = lines.lines().map(|line| match (line.starts_with("max_queued_messages "), queued) {
        (true, Some(most)) => format!("max_queued_messages {most}\n"),
        (true, None) | (false, _) => format!("{line}\n"),
    });
    desk.write("mosquitto/mosquitto.conf", lines.collect::<String>())
}

/// What `petrel root init` wrote, with other addresses.
fn configure_bridge(desk: &Desk, tap: u16, broker: u16) -> anyhow::Result<()> {
    let written = String::from_utf8(desk.read("fleet/bridge.toml")?)?;
    let others = written.lines().filter(|line| !line.starts_with("listen =") && !line.starts_with("broker_listen ="));
    let others: Vec<&str> = others.collect();
    let ours = format!(
        "listen = \"127.0.0.1:0\"\nbroker = \"mqtts://127.0.0.1:{tap}\"\nbroker_url = \"mqtts://127.0.0.1:{broker}\"\n\
         crl = \"../mosquitto/devices.crl\"\n"
    );
    desk.write("fleet/bridge.toml", others.join("\n") + "\n" + &ours)
}

/// Starts the bridge, and lets people in; gives where its API is.
fn start_bridge(desk: &Desk) -> anyhow::Result<(Process, String)> {
    // What an earlier one told.
    let _ = fs::remove_file(desk.path("fleet/data/bridge.json"));
    let mut bridge = desk.start("petrel bridge --config fleet/bridge.toml", "bridge.log")?;
    let addresses = wait_for("the start of the bridge", || {
        bridge.runs()?;
        Ok(desk.read("fleet/data/bridge.json").ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok()))
    })?;
    let api = addresses["api"].as_str().context("the bridge tells no address")?.to_owned();
    desk.done(&format!("petrel login {api} --ca fleet/tls/ca.pem --token-file fleet/data/admin.token"))?;
    Ok((bridge, api))
}

fn start_broker(desk: &Desk, port: u16) -> anyhow::Result<Process> {
    let program = MOSQUITTO.into_iter().find(|path| Path::new(path).exists());
    let program = program.context("Mosquitto is not installed: on Debian, `apt-get install mosquitto`")?;
    let mut broker = desk.start(&format!("{program} -c mosquitto/mosquitto.conf"), "mosquitto.log")?;
    wait_for("the start of Mosquitto", || {
        broker.runs()?;
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop))
    })?;
    Ok(broker)
}
