//! Refusals: data with a stable code, the same in reports, REST answers and on a terminal.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// The stable codes of the refusal catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name),+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name),+];

            /// The code as it is written everywhere.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$name => $text),+
                }
            }
        }
    };
}

codes! {
    /// The agent is older than the bundle allows.
    AgentOld = "E_AGENT_OLD",
    /// The document is for another device.
    Device = "E_DEVICE",
    /// A file's digest differs from the signed one.
    Digest = "E_DIGEST",
    /// There is not enough room on the disk.
    Disk = "E_DISK",
    /// A file that nobody signed.
    Extra = "E_EXTRA",
    /// The document is for another fleet.
    Fleet = "E_FLEET",
    /// Below the lowest release allowed.
    Floor = "E_FLOOR",
    /// Golden vectors disagree on this processor.
    Golden = "E_GOLDEN",
    /// The bundle does not fit this hardware.
    Hardware = "E_HARDWARE",
    /// A key id that is not its key's hash.
    KeyId = "E_KEYID",
    /// A key of small order, or one that is no curve point.
    KeyWeak = "E_KEY_WEAK",
    /// Too large, too many, too long.
    Limit = "E_LIMIT",
    /// The bundle is not the one that was assigned.
    Mismatch = "E_MISMATCH",
    /// A signed file is not there.
    Missing = "E_MISSING",
    /// The engine cannot load or run the model.
    Model = "E_MODEL",
    /// Bytes that are no document.
    Parse = "E_PARSE",
    /// A file name that could leave its folder.
    Path = "E_PATH",
    /// The release failed its trial.
    Probation = "E_PROBATION",
    /// An assignment that is not newer than the last one.
    Replay = "E_REPLAY",
    /// A digest that was reverted, without a newer generation.
    Reverted = "E_REVERTED",
    /// Signed by a key that holds another role.
    Role = "E_ROLE",
    /// A root whose roles make no sense.
    RootSchema = "E_ROOT_SCHEMA",
    /// Signed by a publisher for a stream outside its scope.
    Scope = "E_SCOPE",
    /// A signature that does not verify.
    Sig = "E_SIG",
    /// A file's size differs from the signed one.
    Size = "E_SIZE",
    /// A statement that breaks the rules of model signing.
    Statement = "E_STATEMENT",
    /// A newer assignment took its place before it was confirmed.
    Superseded = "E_SUPERSEDED",
    /// Too few valid signatures.
    Threshold = "E_THRESHOLD",
    /// Another kind of document.
    Type = "E_TYPE",
    /// An older release without the intent to roll back.
    UndeclaredRollback = "E_UNDECLARED_ROLLBACK",
    /// A document version that is not known here.
    Version = "E_VERSION",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The most characters of a refusal's words.
const MAX_DETAIL: usize = 300;

/// Why something was not believed, or not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What happened, in words for a person.
    pub detail: String,
}

impl Refusal {
    /// A refusal with a code and words. They may quote what was refused, so they are cut to 300
    /// characters and hold nothing that a terminal would obey.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        Self { code, detail: detail.into().chars().take(MAX_DETAIL).map(printable).collect() }
    }
}
