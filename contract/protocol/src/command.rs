//! What came of a command: what a device did, or why it did not, and what it was asked for.
//!
//! JSON inside DSSE, as reports are. It is neither retained nor spooled: whoever asked waits for it, and asks again.
//! The command itself is a document of land: an opaque one here.

use crate::report::known_spec;
use crate::{DeviceId, FleetId, SPEC, Sample};
use serde::{Deserialize, Serialize};

/// The most bytes of a result: with its envelope it is one packet.
pub const MAX_RESULT_BYTES: usize = 160 * 1024;

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandResult {
    /// Version of this document: [`crate::SPEC`].
    #[serde(deserialize_with = "known_spec")]
    pub spec: u64,
    /// The fleet.
    pub fleet: FleetId,
    /// Who answers.
    pub device_id: DeviceId,
    /// The nonce that the command named.
    pub nonce: String,
    /// The command's number.
    pub seq: u64,
    /// What came of it.
    pub outcome: CommandOutcome,
    /// The stable code, when it was refused.
    pub code: Option<String>,
    /// In words, when it was refused or failed.
    pub detail: Option<String>,
    /// What was asked for, where it was that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Diagnostics>,
    /// What became of labels, where it was that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Joined>,
    /// Inputs that it keeps for people, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Vec<Sample>>,
}

/// How many labels found their answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// Those that did.
    pub joined: u64,
    /// Those of answers that are not remembered.
    pub unknown: u64,
}

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandOutcome {
    /// It was done.
    Done,
    /// It is nothing that this device does, or does now.
    Refused,
    /// It was tried in vain.
    Failed,
}

/// What a person who looks for a fault wants to see of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diagnostics {
    /// The JSON of `petrel-agent status --json`: it says more with each version of the agent.
    pub status: String,
    /// Each key of the configuration that has a value.
    pub config: Vec<Setting>,
    /// The latest lines of the log, the oldest first.
    pub log: Vec<String>,
    /// Lines before them that there was no room for.
    pub log_left_out: u64,
}

/// A value of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// As TOML writes it.
    pub value: String,
    /// Where it was said.
    pub from: String,
}

impl CommandResult {
    /// That the command of this number, which names this nonce, was done.
    pub fn done(fleet: FleetId, device_id: DeviceId, nonce: String, seq: u64) -> Self {
        Self {
            spec: SPEC,
            fleet,
            device_id,
            nonce,
            seq,
            outcome: CommandOutcome::Done,
            code: None,
            detail: None,
            diagnostics: None,
            labels: None,
            samples: None,
        }
    }

    /// Leaves out the oldest lines of the log until it is no longer than `most` bytes.
    pub fn fit(&mut self, most: usize) {
        let mut bytes = crate::encode_json(self).len();
        let Some(diagnostics) = &mut self.diagnostics else { return };
        let oldest = diagnostics.log.iter().take_while(|line| {
            let over = bytes > most;
            // With its comma.
            bytes -= if over { crate::encode_json(line).len() + 1 } else { 0 };
            over
        });
        let left_out = oldest.count();
        diagnostics.log.drain(..left_out);
        // The count takes its digits; the line that went last took more.
        diagnostics.log_left_out = diagnostics.log_left_out.saturating_add(left_out as u64);
    }
}
