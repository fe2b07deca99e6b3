//! What monitors see: metrics that the dashboard names, and whether the bridge is ready.

use crate::fleet::Fleet;
use crate::programs::wait_for;
use crate::receiver::Receiver;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn the_dashboard_shows_every_metric_and_none_that_is_not_there() {
    let fleet = Fleet::start();
    let token = format!("Bearer {}", String::from_utf8(fleet.desk.read("fleet/data/admin.token")).unwrap());
    let (_, _, page) = fleet.fetch("/metrics", &[("authorization", &token)]);
    let page = String::from_utf8(page).unwrap();
    let families: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|rest| rest.split(' ').next().unwrap())
        .collect();
    let dashboard = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/grafana/petrel.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(dashboard).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let asked: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    let words = asked.iter().flat_map(|expr| expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("petrel_")).collect();
    assert_eq!(
        named.difference(&families).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "the dashboard asks for what is not there"
    );
    let days = |what: &str| {
        let row = format!("petrel_expiry_timestamp_seconds{{what=\"{what}\"}} ");
        let end: u64 = page.lines().find_map(|line| line.strip_prefix(row.as_str())).unwrap().parse().unwrap();
        (end - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).div_ceil(24 * 3_600)
    };
    let (two_years, ten_years) = (2 * 365, 3_650);
    assert_eq!(["tls_cert", "client_cert"].map(days), [two_years; 2]);
    assert_eq!(["root", "ca", "devices_cert"].map(days), [ten_years; 3]);
    // Two are for whoever looks closer.
    let unseen: Vec<&&str> = families.difference(&named).collect();
    assert_eq!(unseen, [&"petrel_needs_total", &"petrel_published_messages_total"]);
}

#[test]
fn a_bridge_without_its_broker_is_alive_and_not_ready() {
    let mut fleet = Fleet::on_mosquitto();
    wait_for("the bridge to be ready", || (fleet.fetch("/readyz", &[]).0 == 200).then_some(()));
    // The broker inside cannot go without the bridge.
    let Some(mut broker) = fleet.broker.take() else { return };
    broker.kill();
    let problem = wait_for("the bridge to miss its broker", || {
        let (status, _, body) = fleet.fetch("/readyz", &[]);
        (status == 503).then(|| serde_json::from_slice::<Value>(&body).unwrap())
    });
    assert_eq!(
        (&problem["code"], &problem["detail"]),
        (&"not_ready".into(), &"there is no connection to the broker".into())
    );
    assert_eq!(fleet.fetch("/healthz", &[]).0, 200);
}

/// The collector takes what OpenTelemetry sends: protobuf, in which texts stand as they are.
#[test]
fn traces_go_to_whoever_collects_them() {
    let mut fleet = Fleet::start();
    let collector = Receiver::start(200);
    let addresses = fleet.desk.read("fleet/data/bridge.json");
    fleet.bridge.kill();
    fleet.bridge_with(&addresses, &format!("--traces http://{}/v1/traces", collector.address));
    assert_eq!(fleet.ask("/status").0, 200);
    fleet.enrol("edge-1", "");
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    let mut missing = vec!["petrel-bridge", "request", "GET /api/v1/status", "save", "keep"];
    wait_for("the traces", || {
        let came = collector.came()?;
        assert_eq!(came.line, "POST /v1/traces HTTP/1.1");
        assert_eq!(came.headers["content-type"], "application/x-protobuf");
        missing.retain(|text| !has(&came.body, text));
        missing.is_empty().then_some(())
    });
}
