//! What a person says of a rollout: a policy file, and flags that go before it.

use crate::fault::Fault;
use crate::service::rollouts::NewRollout;
use bridge_core::policy::{Share, Wave};
use bridge_core::{Policy, Span};
use std::path::PathBuf;
use trust::{Shadow, U53};

/// The longest policy file in bytes.
const MAX_POLICY_BYTES: u64 = 1 << 16;

/// What is rolled out, to whom and how
#[derive(Debug, clap::Args)]
pub(super) struct Wanted {
    /// The release, as stream@version
    release: String,
    /// `all`, names of devices (edge-1,edge-2), or an expression over facts and labels
    /// (site=plant-3 and board in (rpi4, rpi5) and not label.pinned)
    #[arg(long, default_value = "all")]
    to: String,
    /// How it goes: waves, gates, pace, windows (docs/rollout.md); what a flag says goes before it
    #[arg(long, value_name = "POLICY.toml")]
    policy: Option<PathBuf>,
    /// How many devices have it after each wave: counts or shares; the rest follows at the end [default: 1,100%]
    #[arg(long, value_delimiter = ',')]
    waves: Option<Vec<String>>,
    /// How long each wave is looked at before the next, such as 30m
    #[arg(long, value_name = "TIME", value_parser = time)]
    soak: Option<Span>,
    /// Answers on trial after which a device confirms before the window ends [default: 20]
    #[arg(long)]
    trial_answers: Option<u64>,
    /// Errors on trial that a device accepts; one more and it goes back [default: 0]
    #[arg(long)]
    trial_errors: Option<u64>,
    /// The longest trial in seconds; what was seen by then decides [default: 600]
    #[arg(long)]
    trial_window: Option<u64>,
    /// What an answer on trial may take on average, in percent of what it takes the release before on the same device;
    /// more and the device goes back. Without it an answer takes as long as it takes
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(100..))]
    trial_slowdown: Option<u64>,
    /// The memory that its process may hold on trial, in percent of what its manifest promises; more and the device goes
    /// back. Without it a process may take what a model's process may take
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..))]
    trial_memory: Option<u64>,
    /// Before its trial it is asked beside the release before, so many answers are compared, and nobody hears it
    #[arg(long, value_name = "ANSWERS", value_parser = clap::value_parser!(u64).range(1..))]
    shadow: Option<u64>,
    /// Of a hundred answers in the shadow so many may be others; more and the device goes back, and so does the rollout
    /// when its devices say so together [default: 5]
    #[arg(long, value_name = "PERCENT", requires = "shadow", value_parser = clap::value_parser!(u64).range(..=100))]
    max_disagreement: Option<u64>,
    /// Devices that may fail; one more stops the rollout and sends its devices back [default: 0]
    #[arg(long)]
    max_failed: Option<u64>,
    /// Seconds after which a device that was there and gave no verdict is unknown, and a wave in which nobody confirmed
    /// stops the rollout [default: 86400]
    #[arg(long)]
    deadline: Option<u64>,
    /// Devices that may be on their way to a verdict at a time; without it all of a wave are
    #[arg(long, value_name = "DEVICES", value_parser = clap::value_parser!(u64).range(1..))]
    at_once: Option<u64>,
}

fn time(text: &str) -> Result<Span, String> {
    text.parse()
}

impl Wanted {
    /// What the bridge is asked.
    pub(super) fn request(self, draft: bool) -> anyhow::Result<NewRollout> {
        let (stream, version) = self.release.split_once('@').ok_or_else(|| {
            Fault::new(format!("`{}` names no release", self.release))
                .remedy("write it as stream@version, such as digits@1.2.0")
        })?;
        let (stream, version) = (stream.to_owned(), version.to_owned());
        let (to, devices) = meant(&self.to);
        Ok(NewRollout { stream, version, to, devices, policy: self.policy()?, draft })
    }

    fn policy(self) -> anyhow::Result<Policy> {
        let mut policy = match &self.policy {
            None => Policy::default(),
            Some(path) => {
                let unusable = || Fault::new(format!("cannot use the policy {}", path.display()));
                let bytes = crate::bundle::read_bounded(path, MAX_POLICY_BYTES)?;
                let text = String::from_utf8(bytes).map_err(|_| unusable().because("it is no text"))?;
                toml::from_str(&text).map_err(|e| unusable().because(e).remedy("docs/rollout.md has some to copy"))?
            }
        };
        if let Some(waves) = self.waves {
            let wave = |text: &String| match text.parse() {
                Ok(size) => Ok(Wave { size, soak: Span(0), approval: false }),
                Err(why) => Err(Fault::new(why)),
            };
            policy.waves = waves.iter().map(wave).collect::<Result<_, _>>()?;
        }
        if let Some(soak) = self.soak {
            policy.waves.iter_mut().for_each(|wave| wave.soak = soak);
        }
        let number = |n: u64| U53::try_from(n).map_err(Fault::new);
        let trial = &mut policy.trial;
        for (said, kept) in [
            (self.trial_answers, &mut trial.min_answers),
            (self.trial_errors, &mut trial.max_errors),
            (self.trial_window, &mut trial.window_s),
        ] {
            if let Some(said) = said {
                *kept = number(said)?;
            }
        }
        for (said, kept) in
            [(self.trial_slowdown, &mut trial.max_slowdown), (self.trial_memory, &mut trial.max_memory_percent)]
        {
            if let Some(said) = said {
                *kept = Some(number(said)?);
            }
        }
        if let Some(answers) = self.shadow {
            let most = self.max_disagreement.unwrap_or(5);
            trial.shadow = Some(Shadow { answers: number(answers)?, max_disagreement: number(most)? });
            policy.gates.disagreement = Some(Share { max: most as f64 / 100.0 });
        }
        policy.gates.max_failed = self.max_failed.unwrap_or(policy.gates.max_failed);
        policy.silence.deadline = self.deadline.map_or(policy.silence.deadline, Span::seconds);
        policy.at_once = self.at_once.or(policy.at_once);
        policy.check().map_err(Fault::new)?;
        Ok(policy)
    }
}

/// An expression, or names of devices: names alone hold neither spaces nor signs.
fn meant(to: &str) -> (Option<String>, Option<Vec<String>>) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.,".contains(c);
    match to.trim() {
        "all" => (None, None),
        names if names.chars().all(is_name) && !names.starts_with("label.") => {
            (None, Some(names.split(',').map(str::to_owned).collect()))
        }
        expression => (Some(expression.to_owned()), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_expressions() {
        let names = |list: &[&str]| (None, Some(list.iter().map(ToString::to_string).collect::<Vec<_>>()));
        assert_eq!(meant("all"), (None, None));
        assert_eq!(meant("edge-1,edge.2"), names(&["edge-1", "edge.2"]));
        assert_eq!(meant("edge-1"), names(&["edge-1"]));
        for expression in ["site=a", "label.pinned", "not pinned", "board in (rpi4)"] {
            assert_eq!(meant(expression), (Some(expression.into()), None));
        }
    }
}
