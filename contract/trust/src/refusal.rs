//! Refusals: data with a stable code, the same in reports, REST answers and on a terminal.

use std::fmt;

macro_rules! codes {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $remedy:literal;)+) => {
        /// The stable codes of the refusal catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $doc] $name),+
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

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Code::$name => $doc.trim_ascii()),+
                }
            }

            /// What a person can do about it, in one sentence.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Code::$name => $remedy),+
                }
            }
        }
    };
}

codes! {
    /// The agent is older than the bundle allows.
    AgentOld = "E_AGENT_OLD", "Update the agent on this device, or assign a bundle for older agents.";
    /// A drift baseline that no distance can be measured against.
    Baseline = "E_BASELINE", "Pack the bundle again with training data that is finite and not empty.";
    /// The document is for another device.
    Device = "E_DEVICE", "Nothing on this device: find out who published it on this device's topic.";
    /// Content differs from what was signed or believed.
    Digest = "E_DIGEST", "Fetch it again; if it differs again, pack and sign the bundle anew.";
    /// There is not enough room on the disk.
    Disk = "E_DISK", "Free space on the device, or assign a smaller bundle.";
    /// The assignment begins later.
    Early = "E_EARLY", "Nothing: the device begins when its time has come.";
    /// The document expired, for certain.
    Expired = "E_EXPIRED", "Let the bridge sign a new one: it does when the device connects.";
    /// The root expired: nothing changes any more, inference goes on.
    ExpiredRoot = "E_EXPIRED_ROOT", "Sign and publish the next root (`petrel root rotate`).";
    /// A file that nobody signed.
    Extra = "E_EXTRA", "Remove the file, or pack again and let every publisher sign.";
    /// The document is for another fleet.
    Fleet = "E_FLEET", "Check that the bridge and the device were given the same root.";
    /// Below the lowest release allowed.
    Floor = "E_FLOOR", "Assign a release at or above the floor, or sign a breakglass.";
    /// Golden vectors disagree on this processor.
    Golden = "E_GOLDEN", "Compare the reference with the engine on this board before packing again.";
    /// The bundle does not fit this hardware.
    Hardware = "E_HARDWARE", "Assign a bundle whose manifest lists this board.";
    /// The device's own key or certificate is not there, cannot be used, or is used by somebody else too.
    Identity = "E_IDENTITY", "Restore the device's state folder, or enrol it (`petrel-agent enrol`).";
    /// A key id that is not the hash of the key.
    KeyId = "E_KEYID", "Sign again with the key that is named; never write key ids by hand.";
    /// A key of small order, not canonical, or no point of its curve.
    KeyWeak = "E_KEY_WEAK", "Make a new key with `petrel keys new`.";
    /// Too large, too many, too long.
    Limit = "E_LIMIT", "Make the document smaller; its limits are in docs/trust.md.";
    /// The link is metered, and the bundle too large for it.
    Link = "E_LINK", "Bring the bundle on a disk (`petrel-agent install`), or raise `metered` in agent.toml.";
    /// The bundle is not the one that was assigned.
    Mismatch = "E_MISMATCH", "Push the bundle that the rollout names, or start a new rollout.";
    /// A signed file is not there.
    Missing = "E_MISSING", "Fetch the bundle again, or copy the whole folder.";
    /// The engine cannot load or run the model.
    Model = "E_MODEL", "Run `petrel pack` on the model: it names the operator or the limit.";
    /// Bytes that are no document.
    Parse = "E_PARSE", "Write the document with `petrel`; JSON by hand must keep the strict form.";
    /// A file name that could leave its folder.
    Path = "E_PATH", "Rename the file with plain ASCII letters, digits, `.`, `_` and `-`, and pack again.";
    /// The fleet's policy forbids it.
    Policy = "E_POLICY", "Change the policy with a new root, or use the way that it leaves open.";
    /// The release failed its trial.
    Probation = "E_PROBATION", "Read the device's verdict, mend the release, and roll out a newer one.";
    /// Changes came faster than a device takes them.
    Rate = "E_RATE", "Nothing: the device takes the newest one when it is time.";
    /// A document that is not newer than the last one.
    Replay = "E_REPLAY", "If the bridge was restored from a backup, restore a newer one or raise the role's epoch in a new root.";
    /// A request that this device does not know, or cannot do.
    Request = "E_REQUEST", "Ask for what `petrel devices command --help` lists, or update the agent.";
    /// A digest that was reverted, without a newer generation.
    Reverted = "E_REVERTED", "Roll out a mended release.";
    /// Somebody trusted knows a newer revocation than the device has.
    RevocationOld = "E_REVOCATION_OLD", "Publish the newest revocation, retained, on the topic for everybody.";
    /// The bundle was taken away.
    RevokedBundle = "E_REVOKED_BUNDLE", "Assign another release; the revocation gives the reason.";
    /// The device was taken out of the fleet.
    RevokedDevice = "E_REVOKED_DEVICE", "Enrol it again under another name, if it should come back.";
    /// Too few unrevoked keys signed.
    RevokedKey = "E_REVOKED_KEY", "Let keys that are not revoked sign, and take the revoked ones out of the root.";
    /// Signed by a key that holds another role.
    Role = "E_ROLE", "Sign with a key of the right role (`petrel root show` lists them).";
    /// An older revocation, or one that gives something back.
    RollbackRev = "E_ROLLBACK_REV", "Publish the newest revocation; only a new epoch of its role may give back.";
    /// An older root, or another one of the same version.
    RollbackRoot = "E_ROLLBACK_ROOT", "Nothing on this device: find out who published the old root.";
    /// The next root lacks signatures of the old or of the new keys.
    RootCont = "E_ROOT_CONT", "Let enough keys of the old and of the new root sign it (`petrel root sign`).";
    /// A root that follows another root than the trusted one.
    RootFork = "E_ROOT_FORK", "Two roots of one version were signed: find out why before anything else.";
    /// A root is left out before this one.
    RootGap = "E_ROOT_GAP", "Publish every root, each on its own topic.";
    /// Something needs a newer root than the device has.
    RootOld = "E_ROOT_OLD", "Publish every root up to the newest, retained.";
    /// A root whose roles make no sense.
    RootSchema = "E_ROOT_SCHEMA", "Mend what the words name, and sign the root again.";
    /// Signed by a publisher for a stream outside its scope.
    Scope = "E_SCOPE", "Let a publisher of the stream sign, or widen the scope in a new root.";
    /// A signature that does not verify.
    Sig = "E_SIG", "Fetch the document again; if it fails again, it was changed after it was signed.";
    /// A file's size differs from the signed one.
    Size = "E_SIZE", "Fetch the file again, or pack again and sign.";
    /// Bytes came too slowly, for too long.
    Slow = "E_SLOW", "Look at the link and the broker; the device resumes by itself.";
    /// The bridge's fresh word is needed before anything is installed.
    Stale = "E_STALE", "Connect the device to the bridge.";
    /// A statement that breaks the rules of model signing.
    Statement = "E_STATEMENT", "Pack and sign again with `petrel`.";
    /// A newer assignment took its place before it was confirmed.
    Superseded = "E_SUPERSEDED", "Nothing: the newer one counts.";
    /// Too few valid signatures of distinct keys.
    Threshold = "E_THRESHOLD", "Let more holders of the role sign (`petrel sign` again with another key).";
    /// A signed time that no honest signer can mean.
    TimeJump = "E_TIME_JUMP", "Check the bridge's clock; if a key was stolen, raise its epoch and `clock_reset` in a new root.";
    /// The broker or the bridge could not prove who it is.
    Tls = "E_TLS", "Check the certificate authority, the name and the end of its certificate.";
    /// Another kind of document.
    Type = "E_TYPE", "Publish the document on its own topic.";
    /// An older release without the intent to roll back.
    UndeclaredRollback = "E_UNDECLARED_ROLLBACK", "Start a rollout that declares the rollback.";
    /// A document version that is not known here.
    Version = "E_VERSION", "Update the older side.";
}

impl Code {
    /// Whether time or a newer document can take this reason away: what it hinders waits, and is not refused
    /// for good.
    pub fn may_pass(self) -> bool {
        matches!(self, Code::Early | Code::ExpiredRoot | Code::RevocationOld | Code::RootOld | Code::Stale)
    }
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
