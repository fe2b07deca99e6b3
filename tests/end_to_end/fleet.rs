//! A fleet on this machine: a bridge with its broker, and agents, each a process on ports that were free.
//!
//! Decides how they are started, and started again on the same ports and disks. What happens to them is
//! decided by each test.

use crate::programs::{Desk, Process, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use ureq::Agent;
use ureq::http::HeaderMap;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A bridge, its agents, and a person who is logged in.
pub(crate) struct Fleet {
    /// Agents end before the bridge, and the desk with its logs at the end.
    pub(crate) agents: BTreeMap<String, Process>,
    pub(crate) bridge: Process,
    /// Another broker than the one inside, where there is one.
    pub(crate) broker: Option<Process>,
    /// `https://host:port`
    pub(crate) api: String,
    pub(crate) desk: Desk,
    land: Agent,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        Self::begin(Desk::with_fleet(), None)
    }

    /// With what stands in the configuration on a desk.
    pub(crate) fn on(desk: Desk) -> Self {
        Self::begin(desk, None)
    }

    /// With Mosquitto as the broker, configured by `petrel broker config`; where it is not installed, with the one inside.
    pub(crate) fn on_mosquitto() -> Self {
        let desk = Desk::with_fleet();
        let Some(program) = mosquitto() else { return Self::begin(desk, None) };
        // A free port: taken and given back, so that somebody else could take it; then Mosquitto says so.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        let written = desk.json(&format!(
            "petrel broker config mosquitto --config fleet/bridge.toml --out mosquitto --listen 127.0.0.1:{port} --user {user}"
        ));
        let broker = desk.start(&format!("{program} -c mosquitto/mosquitto.conf"), "mosquitto.log");
        wait_for("Mosquitto", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        // As a person would add what was printed; but this test's Mosquitto, and no other, is told to read anew.
        let lines = written["bridge_toml"].as_str().unwrap();
        let (lines, _) = lines.split_once("broker_reload").unwrap();
        let reload = format!("broker_reload = [\"kill\", \"-HUP\", \"{}\"]", broker.id());
        let config = String::from_utf8(desk.read("fleet/bridge.toml")).unwrap();
        desk.write("fleet/bridge.toml", format!("{config}{lines}{reload}\n"));
        Self::begin(desk, Some(broker))
    }

    fn begin(desk: Desk, broker: Option<Process>) -> Self {
        let bridge = start_bridge(&desk, "127.0.0.1:0", "127.0.0.1:0", "");
        let addresses: Value = serde_json::from_slice(&desk.read("fleet/data/bridge.json")).unwrap();
        let api = addresses["api"].as_str().unwrap().to_owned();
        desk.json(&format!("petrel login {api} --ca fleet/tls/ca.pem --token-file fleet/data/admin.token"));
        let ca = Certificate::from_pem(&desk.read("fleet/tls/ca.pem")).unwrap();
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca])).build();
        let land = Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None).build().new_agent();
        Self { agents: BTreeMap::new(), bridge, broker, api, desk, land }
    }

    /// Whether the broker is another program than the bridge.
    pub(crate) fn has_broker_of_its_own(&self) -> bool {
        self.broker.is_some()
    }

    /// `mqtts://host:port`
    pub(crate) fn broker_url(&self) -> String {
        let addresses: Value = serde_json::from_slice(&self.desk.read("fleet/data/bridge.json")).unwrap();
        addresses["broker"].as_str().unwrap().to_owned()
    }

    /// Host and port of the broker.
    pub(crate) fn broker(&self) -> (String, u16) {
        let url = self.broker_url();
        let (host, port) = url.strip_prefix("mqtts://").and_then(|rest| rest.rsplit_once(':')).unwrap();
        (host.to_owned(), port.parse().unwrap())
    }

    /// Kills the broker, and starts it again without anything that it kept. The one inside keeps nothing in any case.
    pub(crate) fn broker_forgets(&mut self) {
        let Some(mut broker) = self.broker.take() else { return self.cut_bridge() };
        let (program, port) = (mosquitto().expect("it ran before"), self.broker().1);
        broker.kill();
        let _ = fs::remove_file(self.desk.path("mosquitto/mosquitto.db"));
        self.broker = Some(self.desk.start(&format!("{program} -c mosquitto/mosquitto.conf"), "mosquitto.log"));
        wait_for("Mosquitto", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    }

    /// Ends the bridge as a power cut would, and starts it again on the same ports.
    pub(crate) fn cut_bridge(&mut self) {
        self.cut_bridge_and(|_| {});
    }

    /// The same, with something happening to its disk in between.
    pub(crate) fn cut_bridge_and(&mut self, meanwhile: impl FnOnce(&Desk)) {
        let addresses = self.desk.read("fleet/data/bridge.json");
        self.bridge.kill();
        meanwhile(&self.desk);
        self.bridge_again(&addresses);
    }

    /// Starts a bridge that was killed on its old ports, which its `bridge.json` told.
    pub(crate) fn bridge_again(&mut self, addresses: &[u8]) {
        self.bridge_with(addresses, "");
    }

    /// The same, told something more.
    pub(crate) fn bridge_with(&mut self, addresses: &[u8], options: &str) {
        let addresses: Value = serde_json::from_slice(addresses).unwrap();
        let port = |key: &str| addresses[key].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
        self.bridge = start_bridge(&self.desk, &port("api"), &port("broker"), options);
    }

    /// Starts an agent, or starts it again from what it remembers.
    pub(crate) fn start_agent(&mut self, id: &str) {
        self.agents.remove(id);
        let _ = fs::remove_file(self.desk.path(&format!("{id}/http.addr")));
        let process = self.desk.start(&format!("petrel-agent run --config {id}.toml"), &format!("{id}.log"));
        self.agents.insert(id.to_owned(), process);
        let file = self.desk.path(&format!("{id}/http.addr"));
        wait_for("the start of an agent", || {
            self.agents.get_mut(id).unwrap().runs();
            file.exists().then_some(())
        });
    }

    /// Makes a join file for a device and lets it enrol, as people would; gives what `enrol` said.
    pub(crate) fn enrol(&self, id: &str, options: &str) -> String {
        let config = agent_config(id, &self.broker_url(), "127.0.0.1:0");
        self.desk.write(&format!("{id}.toml"), format!("{config}bridge = \"{}\"\n", self.api));
        self.desk.json(&format!("petrel devices token new {id} --out {id}.join {options}"));
        self.desk.done(&format!("petrel-agent enrol {id}.join --config {id}.toml"))
    }

    /// Enrols a device, starts its agent, and waits until land has heard of it.
    pub(crate) fn enlist(&mut self, id: &str) {
        self.enlist_with(id, "");
    }

    /// The same, with more in its configuration.
    pub(crate) fn enlist_with(&mut self, id: &str, more: &str) {
        let said = self.enrol(id, "");
        let config = String::from_utf8(self.desk.read(&format!("{id}.toml"))).unwrap();
        self.desk.write(&format!("{id}.toml"), config + more);
        self.start_agent(id);
        let device = self.device(id, "its first assignment", |device| device["reported_generation"].is_u64());
        assert!(said.contains(device["key_id"].as_str().unwrap()), "{said}");
    }

    /// The token of somebody else, who is let in for it with a role and what narrows it.
    pub(crate) fn token_of(&self, name: &str, role: &str) -> String {
        self.desk.json(&format!("petrel people new {name} --role {role} --out {name}.token"));
        String::from_utf8(self.desk.read(&format!("{name}.token"))).unwrap()
    }

    /// Waits until land sees a device as it should be.
    pub(crate) fn device(&self, id: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("{id}: {what}"), || Some(self.ask(&format!("/devices/{id}")).1).filter(|d| good(d)))
    }

    /// Waits until a rollout is as it should be.
    pub(crate) fn rollout(&self, id: &Value, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.ask(&format!("/rollouts/{id}")).1).filter(|rollout| good(rollout)))
    }

    /// `GET` of the bridge with the administrator's token; the status, and the body when it is JSON.
    pub(crate) fn ask(&self, path: &str) -> (u16, Value) {
        self.ask_as(String::from_utf8(self.desk.read("fleet/data/admin.token")).unwrap().trim(), path)
    }

    /// `GET` of the bridge with any token.
    pub(crate) fn ask_as(&self, token: &str, path: &str) -> (u16, Value) {
        let request =
            self.land.get(format!("{}/api/v1{path}", self.api)).header("authorization", format!("Bearer {token}"));
        answer(request.call())
    }

    /// Any request to the bridge with any token: the status, and the code of a refusal.
    pub(crate) fn send(&self, method: &str, path: &str, token: Option<&str>) -> (u16, Value) {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.api));
        let request = request.header("content-type", "application/json");
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        let (status, body) = match method {
            "GET" => answer(self.land.run(request.body(()).unwrap())),
            _ => answer(self.land.run(request.body("{}").unwrap())),
        };
        (status, body["code"].clone())
    }

    /// `POST` to the bridge with any token.
    pub(crate) fn post_as(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let request =
            self.land.post(format!("{}/api/v1{path}", self.api)).header("authorization", format!("Bearer {token}"));
        answer(request.send_json(body))
    }

    /// `POST` to the bridge with any headers.
    pub(crate) fn post_with(&self, headers: &[(&str, String)], path: &str, body: &Value) -> (u16, Value) {
        let request = self.land.post(format!("{}/api/v1{path}", self.api));
        answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, value)).send_json(body))
    }

    /// `GET` of the bridge with any headers; the status, the headers and the body as they came.
    pub(crate) fn fetch(&self, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Vec<u8>) {
        let request = self.land.get(format!("{}{path}", self.api));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let mut response = request.call().unwrap();
        let body = response.body_mut().read_to_vec().unwrap();
        (response.status().as_u16(), response.headers().clone(), body)
    }

    /// `GET` of an agent's local API, or `POST` where there is a body.
    pub(crate) fn local(&self, id: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let address = String::from_utf8(self.desk.read(&format!("{id}/http.addr"))).unwrap();
        let url = format!("http://{}{path}", address.trim());
        match body {
            None => answer(self.land.get(url).call()),
            Some(body) => answer(self.land.post(url).send_json(body)),
        }
    }

    /// Asks an agent for the classes of digits, `[rows, 1, 8, 8]` row by row.
    pub(crate) fn classes(&self, id: &str, rows: usize, images: &[f64]) -> Value {
        assert_eq!(images.len(), rows * 64);
        let (status, answer) = self.try_classes(id, images);
        assert_eq!((status, &answer["id"]), (200, &json!("7")), "{answer}");
        answer
    }

    /// The same, and there may be no answer.
    pub(crate) fn try_classes(&self, id: &str, images: &[f64]) -> (u16, Value) {
        let shape = [images.len() / 64, 1, 8, 8];
        let input = json!({ "name": "image", "shape": shape, "datatype": "FP32", "data": images });
        let body = json!({ "id": "7", "inputs": [input], "outputs": [{ "name": "class" }, { "name": "label" }] });
        self.local(id, "/v2/models/digits/infer", Some(&body))
    }
}

/// Where Mosquitto is installed, if it is.
pub(crate) fn mosquitto() -> Option<&'static str> {
    let installed = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    installed.into_iter().find(|path| std::path::Path::new(path).exists())
}

/// A bridge that answers, on the given addresses.
pub(crate) fn start_bridge(desk: &Desk, api: &str, broker: &str, options: &str) -> Process {
    desk.write("fleet/bridge.toml", bridge_config(desk, api, broker));
    let _ = fs::remove_file(desk.path("fleet/data/bridge.json"));
    let mut bridge = desk.start(&format!("petrel bridge --config fleet/bridge.toml {options}"), "bridge.log");
    wait_for("the start of the bridge", || {
        bridge.runs();
        desk.path("fleet/data/bridge.json").exists().then_some(())
    });
    bridge
}

/// What `petrel root init` wrote, with other addresses.
pub(crate) fn bridge_config(desk: &Desk, api: &str, broker: &str) -> String {
    let written = String::from_utf8(desk.read("fleet/bridge.toml")).unwrap();
    let others = written.lines().filter(|line| !line.starts_with("listen =") && !line.starts_with("broker_listen ="));
    let others: Vec<&str> = others.collect();
    // First, since tables may follow.
    format!("listen = \"{api}\"\nbroker_listen = \"{broker}\"\n{}\n", others.join("\n"))
}

/// The configuration of an agent whose state is the folder `id`.
pub(crate) fn agent_config(id: &str, broker: &str, listen: &str) -> String {
    format!(
        "fleet = \"sea\"\ndevice = \"{id}\"\nbroker = \"{broker}\"\nca = \"fleet/tls/ca.pem\"\n\
         root = \"fleet/root.json\"\nstate = \"{id}\"\nlisten = \"{listen}\"\ntelemetry_s = 1\n"
    )
}

/// Nothing at all, where nobody answered.
fn answer(got: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let Ok(mut response) = got else { return (0, Value::Null) };
    let status = response.status().as_u16();
    (status, response.body_mut().read_json().unwrap_or_default())
}
