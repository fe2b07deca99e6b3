//! `/metrics`: the bridge and the fleet in numbers, in Prometheus' text format.
//!
//! By cohort and never by device, so that a page of ten thousand devices is as short as one of ten. It needs a token
//! like every other page of this listener: how large a fleet is, and how much of it is silent, is nobody else's
//! business, and Prometheus sends a bearer token where it is told to.

use super::Doors;
use super::problem::Problem;
use super::status::{needed, word};
use crate::service::expiry;
use crate::service::tally::Work;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bridge_core::{Bridge, Phase, Place, Release, Rollout, Status};
use protocol::StreamName;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use trust::Digest;

/// The version of the text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The bridge and the fleet in numbers, for Prometheus
#[utoipa::path(get, path = "/metrics",
    responses((status = 200, description = "Prometheus' text format", content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(doors): State<Doors>) -> Result<impl IntoResponse, Problem> {
    let mut page = Page::default();
    let said: Vec<_> = doors.tally.all_said().collect();
    let messages = said.iter().map(|(what, messages, _)| (*what, *messages));
    page.by("petrel_published_messages_total", "counter", "Messages given to the broker.", "what", messages);
    let bytes = said.iter().map(|(what, _, bytes)| (*what, *bytes));
    page.by("petrel_published_bytes_total", "counter", "Bytes in them.", "what", bytes);
    page.one("petrel_messages_taken_total", "counter", "Messages of devices that were believed.", doors.tally.taken());
    let connected = doors.connection.borrow().is_some();
    page.one("petrel_broker_connected", "gauge", "Whether there is a connection to the broker.", connected.into());
    let (lag, waiting) = doors.tally.behind();
    page.one("petrel_messages_waiting", "gauge", "Messages of devices that wait to be taken.", waiting);
    page.family("petrel_message_lag_seconds", "gauge", "How long the latest message waited until it was on the disk.");
    page.row("petrel_message_lag_seconds", "", lag.as_secs_f64());
    page.one("petrel_database_bytes", "gauge", "Bytes of the database.", doors.store.bytes().await?);
    page.one("petrel_disk_free_bytes", "gauge", "Bytes that are free where the data is.", doors.library.disk_free()?);
    page.family(
        "petrel_drift_alarms",
        "gauge",
        "Alarms of drift that were heard lately and that nobody has acknowledged.",
    );
    let mut alarms: BTreeMap<String, u64> = BTreeMap::new();
    for (_, concern) in doors.store.concerns(None, false).await?.iter().filter(|(_, c)| c.acknowledged.is_none()) {
        *alarms.entry(concern.stream.to_string()).or_default() += 1;
    }
    for (stream, count) in &alarms {
        page.row("petrel_drift_alarms", &labels(&[("stream", stream)]), *count);
    }
    let (work, ends) = (doors.tally.work(), doors.ends.clone());
    let page = doors.driver.look(move |bridge| {
        page.family("petrel_expiry_timestamp_seconds", "gauge", "When the root and the bridge's certificates end.");
        for (what, end) in expiry::with_root(&ends, bridge) {
            page.row("petrel_expiry_timestamp_seconds", &labels(&[("what", &what)]), end / 1_000);
        }
        worked(&mut page, bridge, &work);
        fleet(page, bridge)
    });
    Ok(([(CONTENT_TYPE, TEXT)], page.await?))
}

/// What devices did with releases that land knows, since the bridge started.
fn worked(page: &mut Page, bridge: &Bridge, work: &BTreeMap<(StreamName, u64), Work>) {
    let known = bridge.releases().values().map(|release| (release, (release.stream.clone(), release.release)));
    let known: Vec<(&Release, &Work)> = known.filter_map(|(r, key)| Some((r, work.get(&key)?))).collect();
    let mut counter = |name: &str, help: &str, figure: fn(&Work) -> f64| {
        page.family(name, "counter", help);
        for (release, work) in &known {
            let labels = labels(&[("stream", release.stream.as_str()), ("version", &release.version)]);
            page.row(name, &labels, figure(work));
        }
    };
    counter("petrel_answers_total", "Answers that models gave.", |work| work.answers as f64);
    counter("petrel_request_errors_total", "Requests that models could not answer.", |work| work.errors as f64);
    counter("petrel_answer_seconds_total", "What the answers took together.", |work| work.took_us as f64 / 1e6);
}

/// What the core knows.
fn fleet(mut page: Page, bridge: &Bridge) -> String {
    let disbelieved = bridge.disbelieved().iter().map(|(why, count)| (word(*why), *count));
    let help = "Messages that were not believed.";
    page.by("petrel_messages_disbelieved_total", "counter", help, "reason", disbelieved);
    let needs = bridge.needs();
    page.one("petrel_needs_total", "counter", "Times that a device asked for parts of a bundle.", needs.heard);
    let help = "Parts of bundles that devices asked for, by what became of them.";
    page.by("petrel_needed_parts_total", "counter", help, "outcome", needed(needs).into_iter());
    page.family("petrel_devices", "gauge", "Devices of the fleet.");
    for status in [Status::Pending, Status::Approved, Status::Revoked, Status::Retired] {
        for online in [true, false] {
            let count = bridge.devices().values().filter(|d| d.status == status && d.online == online).count();
            page.row("petrel_devices", &format!("{{status=\"{status}\",online=\"{online}\"}}"), count as u64);
        }
    }
    page.family("petrel_devices_running", "gauge", "Devices by what they say that they run.");
    let mut running: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for device in bridge.devices().values().filter(|d| d.status == Status::Approved) {
        for row in device.report.iter().flat_map(|report| &report.streams) {
            let active = row.active.as_ref().map(|active| bridge.releases().get(&Digest(active.statement_sha256)));
            let version = match active {
                None => "none",
                Some(None) => "unknown",
                Some(Some(release)) => &release.version,
            };
            *running.entry((row.stream.as_str(), version)).or_default() += 1;
        }
    }
    for ((stream, version), count) in running {
        page.row("petrel_devices_running", &labels(&[("stream", stream), ("version", version)]), count);
    }
    page.family("petrel_rollouts", "gauge", "Rollouts by how far they are.");
    for state in Phase::NAMES {
        let count = bridge.rollouts().values().filter(|r| r.phase.name() == state).count();
        page.row("petrel_rollouts", &labels(&[("state", state)]), count as u64);
    }
    let ended = |r: &&Rollout| matches!(r.phase, Phase::Draft | Phase::Stopped { .. } | Phase::Completed);
    let open: Vec<&Rollout> = bridge.rollouts().values().filter(|r| !ended(r)).collect();
    let named = |r: &Rollout, key: &str, value: &str| {
        labels(&[("rollout", &r.id.to_string()), ("stream", r.stream.as_str()), ("version", &r.version), (key, value)])
    };
    page.family("petrel_rollout_devices", "gauge", "Devices of rollouts that have not ended.");
    for r in &open {
        let place = |place: fn(&Place) -> bool| r.members.values().filter(|m| place(&m.place)).count() as u64;
        for (name, count) in [
            ("waiting", place(|place| matches!(place, Place::Waiting { .. }))),
            ("assigned", place(|place| *place == Place::Assigned)),
            ("returning", place(|place| *place == Place::Returning)),
            ("returned", place(|place| *place == Place::Returned)),
        ] {
            page.row("petrel_rollout_devices", &named(r, "place", name), count);
        }
    }
    let help = "Of the evidence that stops a rollout so much is there, by gate; a rollout is stopped at 1.";
    page.family("petrel_rollout_evidence_ratio", "gauge", help);
    for r in &open {
        for finding in r.judgement.iter().flat_map(|judgement| &judgement.findings) {
            let Some(evidence) = finding.evidence else { continue };
            page.row("petrel_rollout_evidence_ratio", &named(r, "gate", &finding.gate), evidence / finding.needed);
        }
    }
    page.text
}

/// Labels as they are written: what people chose is escaped.
fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// A page in the making.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes whatever is written.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn row(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.row(name, "", value);
    }

    fn by(&mut self, name: &str, kind: &str, help: &str, label: &str, rows: impl Iterator<Item = (&'static str, u64)>) {
        self.family(name, kind, help);
        rows.for_each(|(value, count)| self.row(name, &format!("{{{label}=\"{value}\"}}"), count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Reads the format strictly: a family is announced once, before its rows, which are of it and each there once.
    fn parse(page: &str) -> BTreeMap<String, f64> {
        let (mut family, mut kinds, mut rows) = (String::new(), BTreeMap::new(), BTreeMap::new());
        assert!(page.ends_with('\n'));
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split_once(' ').unwrap().0.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(name == family && ["counter", "gauge"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}: announced twice");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                assert!(name == family && kinds.contains_key(name), "{line}");
                for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty()) {
                    let (key, value) = label.split_once('=').unwrap();
                    let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap();
                    let plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                    assert!(plain(key) && plain(value), "{line}");
                }
                assert!(rows.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line}: there twice");
            }
        }
        rows
    }

    #[test]
    fn what_people_chose_breaks_no_line() {
        assert_eq!(labels(&[("stream", "digits"), ("version", "1\"\n\\")]), r#"{stream="digits",version="1\"\n\\"}"#);
    }

    #[test]
    fn the_page_is_what_prometheus_reads() {
        let bridge = Bridge::restore("demo".parse().unwrap(), []).unwrap();
        let mut page = Page::default();
        page.by("petrel_published_bytes_total", "counter", "Bytes.", "what", [("chunk", 7), ("beacon", 0)].into_iter());
        let rows = parse(&fleet(page, &bridge));
        assert_eq!(rows["petrel_published_bytes_total{what=\"chunk\"}"], 7.0);
        assert_eq!(rows["petrel_devices{status=\"approved\",online=\"true\"}"], 0.0);
        assert_eq!(rows["petrel_needed_parts_total{outcome=\"over_fleet\"}"], 0.0);
    }
}
