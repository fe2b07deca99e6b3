//! An error for a person: what happened, why, and what to do about it.
//!
//! Decides how the three parts travel together. Where they are printed is decided in `main`; a
//! refusal of the domain stays a [`trust::Refusal`] and may be the reason of a fault.

use std::error::Error;

/// What happened, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Fault {
    what: String,
    #[source]
    why: Option<Box<dyn Error + Send + Sync>>,
    remedy: Option<String>,
}

impl Fault {
    /// What happened.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), why: None, remedy: None }
    }

    /// Why: another error, or words.
    pub(crate) fn because(mut self, why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Why: what another error gives as its cause, or itself where it has none.
    pub(crate) fn because_of(self, why: impl Error + Send + Sync + 'static) -> Self {
        let cause = why.source().map(told);
        let words = match &cause {
            Some(cause) if self.what == why.to_string() => cause.clone(),
            Some(cause) => format!("{why}: {cause}"),
            None if self.what == why.to_string() => return self,
            None => why.to_string(),
        };
        self.because(words)
    }

    /// What to do.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// What to do, where somebody said so.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

/// An error and its causes in one line.
pub(crate) fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
