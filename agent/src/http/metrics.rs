//! `/metrics`: the device in numbers, in Prometheus' text format, for whoever is on the device.
//!
//! It shows what the status shows, and counts nothing by itself.

use crate::feed::FeedStatus;
use crate::status::{DriftStatus, Status, StreamStatus};
use drift::Level;
use std::fmt::Write;

/// The version of the text format.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

type OfStream = fn(&StreamStatus) -> Option<u64>;

/// What is told of each stream that has it.
const STREAMS: [(&str, &str, &str, OfStream); 9] = [
    ("petrel_answers_total", "counter", "Answers since the start.", |s| Some(s.answers)),
    ("petrel_errors_total", "counter", "Requests that a model could not answer.", |s| Some(s.errors)),
    ("petrel_serving_release", "gauge", "The release that answers.", |s| s.serving),
    ("petrel_arrived_bytes", "gauge", "Bytes on disk of the bundle that arrives.", |s| s.progress.map(|p| p.arrived)),
    ("petrel_arriving_bytes", "gauge", "Bytes of it in all.", |s| s.progress.map(|p| p.total)),
    ("petrel_arriving_bytes_per_second", "gauge", "How fast it comes.", |s| s.progress.map(|p| p.rate)),
    ("petrel_drift_windows_total", "counter", "Windows of drift since the start.", |s| {
        s.drift.as_ref().map(|d| d.windows)
    }),
    ("petrel_drift_level", "gauge", "Of the last window: 0 quiet, 1 warn, 2 page.", |s| s.drift.as_ref().map(level)),
    ("petrel_drift_alarms", "gauge", "Features that differ in it.", |s| {
        s.drift.as_ref().map(|d| d.alarms.len() as u64)
    }),
];

fn level(drift: &DriftStatus) -> u64 {
    match drift.level {
        Level::Quiet => 0,
        Level::Warn => 1,
        Level::Page => 2,
    }
}

type OfFeed = fn(&FeedStatus) -> u64;

/// What is told of each feed.
const FEEDS: [(&str, &str, &str, OfFeed); 4] = [
    ("petrel_feed_answered_total", "counter", "Files or messages that were answered.", |f| f.answered),
    ("petrel_feed_failed_total", "counter", "Files or messages that have no answer.", |f| f.failed),
    ("petrel_feed_dropped_total", "counter", "Messages or answers that were lost.", |f| f.dropped),
    ("petrel_feed_works", "gauge", "Whether nothing keeps it from working.", |f| f.trouble.is_none().into()),
];

/// The page. Names of streams and codes are plain words; what a feed listens to is escaped.
pub(super) fn page(status: &Status) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
        // A string takes whatever is written.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: u64| [(String::new(), value)];
    let spool = &status.spool;
    family("petrel_uptime_seconds", "gauge", "Since the agent started.", &one(status.uptime_s));
    family("petrel_boots_total", "counter", "How often it was started.", &one(status.boot));
    family("petrel_connected", "gauge", "Whether there is a connection to the broker.", &one(status.connected.into()));
    let decides = status.trouble.is_none();
    family("petrel_decides", "gauge", "Whether nothing keeps it from deciding.", &one(decides.into()));
    family("petrel_disk_free_mebibytes", "gauge", "Free on the disk of its state.", &one(status.disk_free_mb));
    family("petrel_verdicts_unsent", "gauge", "Verdicts that land does not have yet.", &one(status.outbox as u64));
    family("petrel_spool_waiting", "gauge", "Telemetry messages that wait for land.", &one(spool.waiting));
    family("petrel_spool_bytes", "gauge", "Bytes of them.", &one(spool.bytes));
    family("petrel_spool_merged_total", "counter", "Measurements that went into another.", &one(spool.merged));
    family(
        "petrel_spool_dropped_total",
        "counter",
        "Measurements that were lost for want of room.",
        &one(spool.dropped),
    );
    for (name, kind, help, of) in STREAMS {
        let row = |s: &StreamStatus| Some((format!("{{stream=\"{}\"}}", s.stream), of(s)?));
        family(name, kind, help, &status.streams.iter().filter_map(row).collect::<Vec<_>>());
    }
    for (name, kind, help, of) in FEEDS {
        let row = |f: &FeedStatus| {
            let labels = format!("{{kind=\"{}\",from=\"{}\",stream=\"{}\"}}", f.kind, escaped(&f.from), f.model);
            (labels, of(f))
        };
        family(name, kind, help, &status.feeds.iter().map(row).collect::<Vec<_>>());
    }
    let refused = status.refusals.iter().map(|r| (format!("{{code=\"{}\"}}", r.code), r.count));
    let help = "What was refused since the start, by code.";
    family("petrel_refusals_total", "counter", help, &refused.collect::<Vec<_>>());
    text
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_within_its_quotes() {
        assert_eq!(escaped("sensors/+/digits"), "sensors/+/digits");
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
