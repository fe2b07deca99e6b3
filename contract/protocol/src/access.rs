//! Who may use which topics, as every broker enforces it: the one place that knows.
//!
//! A client is whom its certificate names. A device reads what is for it and for everybody, and writes what is its
//! own; the bridge may do all.

use crate::{BRIDGE_NAME, Topics};

/// Whether a client's name can only be the bridge's: no device has one that begins like it.
pub fn is_bridge(name: &str) -> bool {
    name.starts_with(BRIDGE_NAME)
}

impl Topics {
    /// Every topic of the fleet, as a filter.
    pub fn everything(&self) -> String {
        format!("{}#", self.base())
    }

    /// What a device may subscribe to, as filters; `name` may be what a broker puts in its place.
    pub fn readable(&self, name: &str) -> [String; 4] {
        ["d/{name}/down/#", "all/#", "b/#", "c/+"].map(|rest| self.base().to_owned() + &rest.replace("{name}", name))
    }

    /// What a device may publish to, as a filter.
    pub fn writable(&self, name: &str) -> String {
        format!("{}d/{name}/up/#", self.base())
    }

    /// Whether the client `name` may publish to `topic`.
    pub fn may_write(&self, name: &str, topic: &str) -> bool {
        let own = self.writable(name);
        let own = topic.strip_prefix(own.trim_end_matches('#'));
        is_bridge(name) || own.is_some_and(|rest| !rest.is_empty())
    }

    /// Whether the client `name` may subscribe to `filter`. Chunks are named one by one: brokers drop what a
    /// wildcard brings.
    pub fn may_read(&self, name: &str, filter: &str) -> bool {
        let within = |allowed: &String| match allowed.strip_suffix('#') {
            Some(below) => filter.starts_with(below),
            None => filter
                .strip_prefix(allowed.trim_end_matches('+'))
                .is_some_and(|chunk| !chunk.is_empty() && !chunk.contains(['+', '#', '/'])),
        };
        is_bridge(name) || self.readable(name).iter().any(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reads_and_writes_what_is_its_own() {
        let topics = Topics::new(&"sea".parse().unwrap());
        let at = |rest: &str| format!("petrel/v1/sea/{rest}");
        for own in ["d/a/up/hello", "d/a/up/report", "d/a/up/result"] {
            assert!(topics.may_write("a", &at(own)), "{own}");
        }
        for foreign in [
            "d/b/up/report",
            "d/a/down/assignment",
            "d/a/down/command",
            "d/b/up/result",
            "d/a/up/",
            "all/beacon",
            "c/00",
            "b/00/offer",
            "d/a/upx/y",
            "d/ab/up/x",
        ] {
            assert!(!topics.may_write("a", &at(foreign)) && topics.may_write(BRIDGE_NAME, &at(foreign)), "{foreign}");
        }
        assert!(!topics.may_write("a", "petrel/v1/sea2/d/a/up/hello") && !topics.may_write("a", "x"));
        for own in ["d/a/down/+", "d/a/down/command", "d/a/down/#", "all/#", "b/00/+", "c/00"] {
            assert!(topics.may_read("a", &at(own)), "{own}");
        }
        for foreign in [
            "#",
            "d/#",
            "d/+/down/+",
            "d/b/down/assignment",
            "d/b/down/command",
            "d/a/up/report",
            "d/+/up/+",
            "c/",
            "c/+",
            "c/#",
            "c/00/x",
            "+/x",
        ] {
            assert!(!topics.may_read("a", &at(foreign)), "{foreign}");
        }
        for foreign in ["#", "+/v1/sea/all/#", "petrel/#", "$SYS/#", "petrel/v1/+/all/#", "petrel/v1/sea2/all/#"] {
            assert!(!topics.may_read("a", foreign) && topics.may_read(BRIDGE_NAME, foreign), "{foreign}");
        }
    }
}
