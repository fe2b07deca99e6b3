//! What one profile says, and what a board lacks of it.

use crate::target::Target;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use toml::Table;

/// More than any board has.
pub const MAX_CORES: u32 = 1_024;
/// Memory, flash and programs, MiB: more than any board has.
pub const MAX_MIB: u64 = 1 << 24;
/// A board's name, as land and people write it.
const MAX_NAME: usize = 63;
/// At which a board may begin to slow itself down, in degrees Celsius.
const HOT: RangeInclusive<f32> = 40.0..=125.0;
const MAX_FEATURES: usize = 16;

/// A board and what is built for it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name in assignments, reports and configurations.
    pub board: String,
    /// Its name in shops.
    pub name: String,
    /// What its programs are built for.
    pub target: Target,
    /// Its processor.
    pub cpu: Cpu,
    /// Its memory.
    pub memory: Memory,
    /// Where the agent keeps what it keeps.
    pub storage: Storage,
    /// Its clock.
    pub clock: Clock,
    /// Where its temperature is measured, if it is.
    pub heat: Option<Heat>,
    /// The programs that are built for it.
    pub build: Build,
    /// Keys of the agent's configuration.
    #[serde(default)]
    pub agent: Table,
}

/// A processor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Cores that it has at least.
    pub cores: u32,
    /// What it can beyond its architecture, as Rust names it.
    #[serde(default)]
    pub features: Vec<String>,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// MiB that the system sees at least: without what the firmware and the graphics keep.
    pub ram_mb: u64,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// MiB that the disk under the agent's state has at least.
    pub disk_mb: u64,
}

/// A clock.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Whether it goes on without power.
    pub rtc: bool,
}

/// A sensor of temperature.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Heat {
    /// As the system names it.
    pub sensor: String,
    /// Where the board slows itself down, degrees Celsius.
    pub slows_at: f32,
}

/// What is built for a board.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// What the agent is built with: `image`, `text`.
    pub features: Vec<String>,
    /// What its program may have at most, MB.
    pub budget_mb: u64,
    /// Whether its program's relocations are packed: smaller on disk and in memory, for a system with glibc 2.36 or later.
    #[serde(default)]
    pub packed: bool,
}

/// What was found on a board; what the system does not tell is no lack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// As `std::env::consts::ARCH` has it.
    pub arch: String,
    /// Cores that this program may use.
    pub cores: Option<u32>,
    /// Memory, MiB.
    pub ram_mb: Option<u64>,
    /// What the processor can, where that can be asked.
    pub features: Option<Vec<String>>,
    /// The disk under the state, MiB.
    pub disk_mb: Option<u64>,
}

impl Profile {
    /// What a board lacks of this, in words; nothing when it is such a board.
    #[must_use]
    pub fn lacks(&self, found: &Found) -> Vec<String> {
        let mut lacks = Vec::new();
        if found.arch != self.target.arch() {
            lacks.push(format!("this program is for {}, and the profile's is for {}", found.arch, self.target.arch()));
        }
        let mut less = |what: &str, has: Option<u64>, least: u64| {
            if let Some(has) = has.filter(|has| *has < least) {
                lacks.push(format!("it has {has} {what}, and the profile says {least}"));
            }
        };
        less("cores", found.cores.map(u64::from), u64::from(self.cpu.cores));
        less("MiB of memory", found.ram_mb, self.memory.ram_mb);
        less("MiB of disk", found.disk_mb, self.storage.disk_mb);
        if let Some(features) = &found.features {
            let missing = self.cpu.features.iter().filter(|feature| !features.contains(feature));
            lacks.extend(missing.map(|feature| format!("its processor has no {feature}, and the profile says it has")));
        }
        lacks
    }

    /// Whether everything that is said can be.
    pub(crate) fn check(&self) -> Result<(), String> {
        let name = |key: &str, text: &str| match text.len() {
            1..=MAX_NAME => Ok(()),
            _ => Err(format!("`{key}` has 1 to {MAX_NAME} characters")),
        };
        let range = |key: &str, value: u64, most: u64| match value {
            value if (1..=most).contains(&value) => Ok(()),
            _ => Err(format!("`{key}`: {value} is not from 1 to {most}")),
        };
        name("board", &self.board)?;
        name("name", &self.name)?;
        range("cpu.cores", u64::from(self.cpu.cores), u64::from(MAX_CORES))?;
        range("memory.ram_mb", self.memory.ram_mb, MAX_MIB)?;
        range("storage.disk_mb", self.storage.disk_mb, MAX_MIB)?;
        range("build.budget_mb", self.build.budget_mb, MAX_MIB)?;
        if self.cpu.features.len() > MAX_FEATURES {
            return Err(format!("`cpu.features` names more than {MAX_FEATURES}"));
        }
        for feature in &self.build.features {
            if !matches!(feature.as_str(), "image" | "text") {
                return Err(format!("`build.features`: there is no `{feature}`; there are image and text"));
            }
        }
        if let Some(heat) = &self.heat {
            name("heat.sensor", &heat.sensor)?;
            if !HOT.contains(&heat.slows_at) {
                let (least, most) = (HOT.start(), HOT.end());
                return Err(format!("`heat.slows_at`: {} is not from {least} to {most}", heat.slows_at));
            }
        }
        Ok(())
    }
}
