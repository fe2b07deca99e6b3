//! Who may do what: a role is a set of rights, a scope the streams for which they hold.
//!
//! Decides about people. Does not know of tokens, routes or clocks but the one that is handed in.

use crate::UnixMillis;
use protocol::StreamName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To see how the fleet is.
    Read,
    /// To bring releases and signed documents.
    Publish,
    /// To move devices: rollouts, enrolment, labels, commands, alarms.
    Operate,
    /// To let a wave of somebody else's rollout begin.
    Approve,
    /// To let people in and out.
    Administer,
}

/// What somebody is let in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything and changes nothing.
    Viewer,
    /// Brings releases and documents.
    Publisher,
    /// Moves devices.
    Operator,
    /// Approves what others began.
    Approver,
    /// May do all of it, and lets people in.
    Admin,
}

impl Role {
    /// All, from the one that may least.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Publisher, Self::Operator, Self::Approver, Self::Admin];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Publisher => "publisher",
            Role::Operator => "operator",
            Role::Approver => "approver",
            Role::Admin => "admin",
        }
    }

    /// Whether it has a right.
    pub fn may(self, right: Right) -> bool {
        match right {
            Right::Read => true,
            Right::Publish => matches!(self, Role::Publisher | Role::Admin),
            Right::Operate => matches!(self, Role::Operator | Role::Admin),
            Right::Approve => matches!(self, Role::Approver | Role::Admin),
            Right::Administer => self == Role::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{text}` is no role: viewer, publisher, operator, approver or admin");
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(unknown)
    }
}

/// What somebody may do, on what, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// What for.
    pub role: Role,
    /// The streams whose releases and rollouts it holds for, and nothing beside them; empty for everything. It narrows what
    /// is changed: whoever is let in sees the whole fleet.
    pub streams: BTreeSet<StreamName>,
    /// When they were let in.
    pub since: UnixMillis,
    /// When it ends, if ever.
    pub until: Option<UnixMillis>,
}

impl Access {
    /// Whether it has ended.
    pub fn has_ended(&self, now: UnixMillis) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// Whether something that needs one of `rights` may be done at all.
    ///
    /// # Errors
    /// Who may.
    pub fn may(&self, rights: &[Right]) -> Result<(), String> {
        let has_one = |role: &&Role| rights.iter().any(|right| role.may(*right));
        let role = self.role;
        if has_one(&&role) {
            return Ok(());
        }
        let able: Vec<&str> = Role::ALL.iter().filter(has_one).map(|role| role.as_str()).collect();
        let article = if role.as_str().starts_with(['a', 'o']) { "an" } else { "a" };
        Err(format!("{article} {role} may not do this: it takes {}", able.join(" or ")))
    }

    /// The same to `stream`, or to what belongs to no stream.
    ///
    /// # Errors
    /// Why not, and who may.
    pub fn allows(&self, rights: &[Right], stream: Option<&StreamName>) -> Result<(), String> {
        self.may(rights)?;
        let only_reads = rights.contains(&Right::Read);
        match stream {
            _ if only_reads || self.streams.is_empty() => Ok(()),
            Some(stream) if self.streams.contains(stream) => Ok(()),
            Some(stream) => Err(format!("this token is for {}, and not for `{stream}`", self.scope())),
            None => Err(format!("this token is for {}, and for nothing beside it", self.scope())),
        }
    }

    /// The streams, as one reads them.
    pub fn scope(&self) -> String {
        let names: Vec<&str> = self.streams.iter().map(StreamName::as_str).collect();
        match names.as_slice() {
            [] => "everything".into(),
            [name] => format!("stream {name}"),
            names => format!("streams {}", names.join(", ")),
        }
    }
}
