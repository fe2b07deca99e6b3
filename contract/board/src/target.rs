//! Which machines there are programs for.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A target of the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Target {
    /// 64-bit ARM.
    #[serde(rename = "aarch64-unknown-linux-gnu")]
    Aarch64,
    /// 32-bit ARM with a floating-point unit, version 7.
    #[serde(rename = "armv7-unknown-linux-gnueabihf")]
    Armv7,
    /// Industrial PCs, and the machines of developers.
    #[serde(rename = "x86_64-unknown-linux-gnu")]
    X86,
}

impl Target {
    /// Every one.
    pub const ALL: [Target; 3] = [Target::Aarch64, Target::Armv7, Target::X86];

    /// As the compiler names it.
    #[must_use]
    pub fn triple(self) -> &'static str {
        match self {
            Target::Aarch64 => "aarch64-unknown-linux-gnu",
            Target::Armv7 => "armv7-unknown-linux-gnueabihf",
            Target::X86 => "x86_64-unknown-linux-gnu",
        }
    }

    /// The processor, as a running program names it (`std::env::consts::ARCH`).
    #[must_use]
    pub fn arch(self) -> &'static str {
        match self {
            Target::Aarch64 => "aarch64",
            Target::Armv7 => "arm",
            Target::X86 => "x86_64",
        }
    }

    /// The architecture, as Debian names it.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Target::Aarch64 => "arm64",
            Target::Armv7 => "armhf",
            Target::X86 => "amd64",
        }
    }

    /// Its libraries and tools, as Debian names them.
    #[must_use]
    pub fn multiarch(self) -> &'static str {
        match self {
            Target::Aarch64 => "aarch64-linux-gnu",
            Target::Armv7 => "arm-linux-gnueabihf",
            Target::X86 => "x86_64-linux-gnu",
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Target::ALL.into_iter().find(|target| target.triple() == text);
        let all = Target::ALL.map(Target::triple).join(", ");
        known.ok_or_else(|| format!("there are no programs for `{text}`; there are for {all}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.triple())
    }
}
