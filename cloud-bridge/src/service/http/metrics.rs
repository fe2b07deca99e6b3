//! `/metrics`: the bridge and the fleet in numbers, in Prometheus' text format.
//!
//! By cohort and never by device, so that a page of ten thousand devices is as short as one of ten. It needs a token
//! like every other page of this listener: how large a fleet is, and how much of it is silent, is nobody else's
//! business, and Prometheus sends a bearer token where it is told to.

use super::Doors;
use super::problem::Problem;
use super::status::{needed, word};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bridge_core::{Bridge, Status};
use std::fmt::Write;

/// The version of the text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The bridge and the fleet in numbers, for Prometheus
#[utoipa::path(get, path = "/metrics",
    responses((status = 200, description = "Prometheus' text format", content_type = "text/plain", body = String), (status = 401, body = Problem)))]
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
    Ok(([(CONTENT_TYPE, TEXT)], doors.driver.look(|bridge| fleet(page, bridge)).await?))
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
    let rolling = bridge.rollouts().values().filter(|r| r.wave().is_some()).count();
    page.one("petrel_rollouts_rolling", "gauge", "Rollouts under way.", rolling as u64);
    page.text
}

/// A page in the making. Names and labels are of this file and of enums: none has to be escaped.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes whatever is written.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn row(&mut self, name: &str, labels: &str, value: u64) {
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
