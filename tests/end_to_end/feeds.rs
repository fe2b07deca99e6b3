//! Feeds: what lies in a folder or is said to a local broker is answered, with the real agent, real files and a real Mosquitto.
//!
//! Decides what a program beside the agent may rely on: a file is read when it is whole, every answer says what it
//! answers, and nothing is lost without a word.

use crate::answers::npy;
use crate::fleet::{Fleet, mosquitto};
use crate::programs::{Desk, PATIENCE, Process, wait_for};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;

/// Enrols `a` with feeds, and starts it.
fn enlist(fleet: &mut Fleet, feeds: &str) {
    fleet.enrol("a", "");
    let config = String::from_utf8(fleet.desk.read("a.toml")).unwrap();
    fleet.desk.write("a.toml", format!("{config}{feeds}"));
    fleet.start_agent("a");
    fleet.device("a", "its first assignment", |device| device["reported_generation"].is_u64());
}

fn roll_out(fleet: &Fleet, model: &str) {
    fleet.desk.bundle(model, "1.0.0", model);
    fleet.desk.json(&format!("petrel push {model}"));
    let line = format!("petrel rollout start {model}@1.0.0 --waves 100% --trial-window 1");
    let id = fleet.desk.json(&line)["id"].clone();
    let ended = fleet.rollout(&id, "the end of the rollout", |rollout| rollout["ended"].is_u64());
    assert_eq!(ended["state"], "completed", "{ended}");
}

/// The answers in a file so far.
fn lines(desk: &Desk, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(desk.path(name)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn feed(fleet: &Fleet, n: usize) -> Value {
    fleet.local("a", "/status", None).1["feeds"][n].clone()
}

const FOLDERS: &str = "
[[feed]]
kind = \"folder\"
model = \"digits\"
path = \"pictures\"
out = \"pictures.jsonl\"
done = \"remove\"

[[feed]]
kind = \"folder\"
model = \"diabetes\"
path = \"tables\"
out = \"answers/tables.jsonl\"
";

#[test]
fn a_file_in_a_folder_is_answered_when_it_is_whole() {
    let mut fleet = Fleet::start();
    enlist(&mut fleet, FOLDERS);
    let desk = &fleet.desk;
    wait_for("the folders", || (desk.path("pictures").is_dir() && desk.path("tables/failed").is_dir()).then_some(()));
    // Nothing is lost that came before there was a model.
    fs::copy(desk.path("models/digits/sample.png"), desk.path("pictures/new.tmp")).unwrap();
    fs::rename(desk.path("pictures/new.tmp"), desk.path("pictures/first.png")).unwrap();
    let waits = wait_for("the wait for a model", || Some(feed(&fleet, 0)).filter(|feed| feed["trouble"].is_string()));
    assert!(waits["trouble"].as_str().unwrap().contains("`digits`"), "{waits}");
    assert!(desk.path("pictures/first.png").exists());
    roll_out(&fleet, "digits");
    let first = wait_for("an answer", || lines(desk, "pictures.jsonl").first().cloned());
    let sample: Value = serde_json::from_slice(&desk.read("models/digits/sample.json")).unwrap();
    assert_eq!((&first["file"], &first["row"], &first["class"]), (&json!("first.png"), &json!(1), &sample["class"]));
    assert_eq!((&first["release"], &first["model"]), (&json!(1_000_000), &json!("digits")));
    assert!(first["label"].is_string() && first["score"].is_f64() && first["outputs"]["logits"].is_array(), "{first}");
    wait_for("the end of the file", || (!desk.path("pictures/first.png").exists()).then_some(()));
    assert!(!desk.path("pictures/done").exists());

    roll_out(&fleet, "diabetes");
    let table = String::from_utf8(desk.read("models/diabetes/heldout.csv")).unwrap();
    let (head, rest) = table.split_at(table.len() / 2);
    let mut half = File::create(desk.path("tables/half.csv")).unwrap();
    half.write_all(head.as_bytes()).unwrap();
    desk.write("whole.csv", &table);
    fs::rename(desk.path("whole.csv"), desk.path("tables/whole.csv")).unwrap();
    // The other file still grows meanwhile, byte by byte.
    let mut rest = rest.bytes();
    wait_for("the answers to the whole file", || {
        if let Some(byte) = rest.next() {
            half.write_all(&[byte]).unwrap();
        }
        (lines(desk, "answers/tables.jsonl").len() >= 221).then_some(())
    });
    assert!(desk.path("tables/half.csv").exists());
    half.write_all(&rest.collect::<Vec<u8>>()).unwrap();
    drop(half);
    let answers = wait_for("the answers to the other", || {
        Some(lines(desk, "answers/tables.jsonl")).filter(|answers| answers.len() >= 442)
    });
    let expected = desk.json("petrel-agent infer diabetes --input models/diabetes/heldout.csv");
    for (at, answer) in answers.iter().enumerate() {
        let file = if at < 221 { "whole.csv" } else { "half.csv" };
        assert_eq!((&answer["file"], &answer["row"]), (&json!(file), &json!(at % 221 + 1)));
        assert_eq!(answer["outputs"], expected["rows"][at % 221]["outputs"], "row {at}");
    }
    for name in ["whole.csv", "half.csv"] {
        wait_for("the file in its place", || desk.path(&format!("tables/done/{name}")).exists().then_some(()));
    }

    // What cannot be read goes, and says why; what is no file for a feed stays.
    desk.write("tables/notes", "hello");
    desk.write("tables/bad.csv", "age,sex\n1,2\n");
    std::os::unix::fs::symlink(desk.path("a/identity/a.key"), desk.path("tables/link.csv")).unwrap();
    for (name, expected) in [("bad.csv", "bmi"), ("link.csv", "link")] {
        let why =
            wait_for("why it failed", || fs::read_to_string(desk.path(&format!("tables/failed/{name}.why.json"))).ok());
        let told: Value = serde_json::from_str(&why).unwrap();
        assert_eq!((&told["file"], why.lines().count()), (&json!(name), 1));
        assert!(told["error"].as_str().unwrap().contains(expected), "{why}");
    }
    let counts = wait_for("the counts", || Some(feed(&fleet, 1)).filter(|feed| feed["failed"] == 2));
    assert_eq!((&counts["answered"], &counts["dropped"], &counts["trouble"]), (&json!(2), &json!(0), &Value::Null));
    assert!(desk.path("tables/notes").exists() && desk.path("a/identity/a.key").exists());
    let told = desk.done("petrel-agent status --config a.toml");
    assert!(told.contains("FEED") && told.contains("tables"), "{told}");
    let address = String::from_utf8(desk.read("a/http.addr")).unwrap();
    let page =
        ureq::get(format!("http://{}/metrics", address.trim())).call().unwrap().body_mut().read_to_string().unwrap();
    let row = page.lines().find(|line| line.starts_with("petrel_feed_failed_total{") && line.contains("tables"));
    assert!(row.is_some_and(|row| row.ends_with("stream=\"diabetes\"} 2")), "{page}");
}

/// A Mosquitto for this device alone, without papers.
fn local_broker(desk: &Desk, program: &str, port: u16) -> Process {
    desk.write("local.conf", format!("listener {port} 127.0.0.1\nallow_anonymous true\n"));
    let broker = desk.start(&format!("{program} -c local.conf"), "local.log");
    wait_for("Mosquitto", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    broker
}

/// A sensor that also listens to the answers.
struct Sensor {
    client: Client,
    connection: Connection,
}

impl Sensor {
    fn new(port: u16) -> Self {
        let mut options = MqttOptions::new("sensor", "127.0.0.1", port);
        options.set_outgoing_inflight_upper_limit(16);
        let (client, connection) = Client::new(options, 64);
        client.subscribe("answers/digits", QoS::AtLeastOnce).unwrap();
        let mut sensor = Self { client, connection };
        sensor.hear(|packet| matches!(packet, Packet::SubAck(_)).then_some(()));
        sensor
    }

    fn say(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload.into()).unwrap();
    }

    fn hear<T>(&mut self, mut of: impl FnMut(Packet) -> Option<T>) -> T {
        loop {
            match self.connection.recv_timeout(PATIENCE).expect("an event in time").unwrap() {
                Event::Incoming(packet) => {
                    if let Some(found) = of(packet) {
                        return found;
                    }
                }
                Event::Outgoing(_) => {}
            }
        }
    }

    fn answer(&mut self) -> Value {
        self.hear(|packet| match packet {
            Packet::Publish(publish) => Some(serde_json::from_slice(&publish.payload).unwrap()),
            _ => None,
        })
    }
}

#[test]
fn a_message_to_a_local_broker_is_answered_on_another_topic() {
    let Some(program) = mosquitto() else { return eprintln!("not run: Mosquitto is not installed") };
    let mut fleet = Fleet::start();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut broker = local_broker(&fleet.desk, program, port);
    let feeds = format!(
        "\n[[feed]]\nkind = \"mqtt\"\nmodel = \"digits\"\nbroker = \"mqtt://localhost:{port}\"\n\
         in = \"sensors/+/digits\"\nout = \"answers/digits\"\n"
    );
    enlist(&mut fleet, &feeds);
    roll_out(&fleet, "digits");
    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    let classes = npy(&fleet.desk.path("models/digits/heldout_class.npy"));
    let works = |fleet: &Fleet| wait_for("the feed", || Some(feed(fleet, 0)).filter(|feed| feed["trouble"].is_null()));
    works(&fleet);

    let mut sensor = Sensor::new(port);
    let image = |n: usize| images[n * 64..(n + 1) * 64].to_vec();
    let input = json!({ "name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": image(0) });
    sensor
        .say("sensors/1/digits", json!({ "id": "7", "inputs": [input], "outputs": [{ "name": "class" }] }).to_string());
    let answer = sensor.answer();
    assert_eq!((&answer["topic"], &answer["id"]), (&json!("sensors/1/digits"), &json!("7")), "{answer}");
    assert_eq!(answer["parameters"]["release"], 1_000_000);
    assert_eq!(answer["outputs"][0]["data"][0].as_f64(), Some(classes[0]), "{answer}");

    let row: Vec<String> = image(2).iter().map(ToString::to_string).collect();
    for (n, payload) in [(1, json!(image(1)).to_string()), (2, row.join(","))] {
        sensor.say(&format!("sensors/{n}/digits"), payload);
        let answer = sensor.answer();
        assert_eq!((&answer["topic"], &answer["release"]), (&json!(format!("sensors/{n}/digits")), &json!(1_000_000)));
        assert_eq!(answer["rows"][0]["class"].as_f64(), Some(classes[n]), "{answer}");
    }
    for (payload, expected) in [("hello", "no number"), ("{\"inputs\":1}", "inference request"), ("[1,2]", "shape")] {
        sensor.say("sensors/9/digits", payload);
        let answer = sensor.answer();
        assert_eq!(answer["topic"], "sensors/9/digits");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(expected)), "{answer}");
    }
    let counts = wait_for("the counts", || Some(feed(&fleet, 0)).filter(|feed| feed["failed"] == 3));
    assert_eq!((&counts["answered"], &counts["dropped"]), (&json!(3), &json!(0)), "{counts}");

    // A broker that was gone is found again.
    broker.kill();
    wait_for("the loss", || Some(feed(&fleet, 0)).filter(|feed| feed["trouble"].is_string()));
    let _broker = local_broker(&fleet.desk, program, port);
    works(&fleet);
    let mut sensor = Sensor::new(port);
    sensor.say("sensors/3/digits", json!(image(3)).to_string());
    assert_eq!(sensor.answer()["rows"][0]["class"].as_f64(), Some(classes[3]));

    // A flood: each message is answered, or counted.
    let before = feed(&fleet, 0);
    for n in 0..500 {
        let payload = json!(image(n % 100)).to_string();
        // What is said goes out, and what is heard comes in, while there is no room for more.
        while sensor.client.try_publish("sensors/4/digits", QoS::AtLeastOnce, false, payload.clone()).is_err() {
            let _ = sensor.connection.recv_timeout(std::time::Duration::from_millis(1));
        }
    }
    let total = |feed: &Value| feed["answered"].as_u64().unwrap() + feed["dropped"].as_u64().unwrap();
    let after = wait_for("the end of the flood", || {
        let _ = sensor.connection.recv_timeout(std::time::Duration::from_millis(1));
        Some(feed(&fleet, 0)).filter(|feed| total(feed) >= total(&before) + 500)
    });
    assert!(after["answered"].as_u64() > before["answered"].as_u64(), "{after}");
    assert!(fleet.agents.get_mut("a").unwrap().terminate().success());
}
