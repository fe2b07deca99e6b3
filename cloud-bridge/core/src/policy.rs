//! How a release reaches its devices: waves, gates, pace, windows and budgets, as data that people write.
//!
//! Decides what a policy may say and what it means where it is silent. What the gates make of the evidence is decided in
//! [`crate::judge`]; whom it is due for, in the planner.

use crate::UnixMillis;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use trust::{Trial, U53};

/// The most waves of a rollout.
const MAX_WAVES: usize = 32;
/// The most maintenance windows.
const MAX_WINDOWS: usize = 32;
/// The most devices a minute of a pace.
const MAX_RATE: f64 = 1e6;
/// The label that holds a device's time zone, by its IANA name.
pub const ZONE_LABEL: &str = "timezone";

/// A policy. What it leaves out is as [`Policy::default`] has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The waves; devices that are in none of them follow in one more.
    #[serde(rename = "wave")]
    pub waves: Vec<Wave>,
    /// How the release proves itself on each device.
    pub trial: Trial,
    /// What stops it.
    pub gates: Gates,
    /// Devices of which nothing is heard.
    pub silence: Silence,
    /// What follows when a gate is breached.
    pub on_breach: OnBreach,
    /// How fast devices are assigned it; absent for a whole wave at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// Devices that may be on their way to a verdict at a time; absent for all of a wave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u64>,
    /// When a device may be assigned it, by its own clock; none for at any time.
    #[serde(rename = "window", skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// The time zone of devices without a label `timezone`, by its IANA name.
    pub timezone: String,
    /// What is tried again.
    pub retry: Retry,
    /// Somebody else than who starts it must approve it.
    pub approval: bool,
}

/// One wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// How many devices have the release after it.
    pub size: WaveSize,
    /// How long they must have it, all of them, before the next wave.
    #[serde(default)]
    pub soak: Span,
    /// Somebody else than who started the rollout must approve it before this wave.
    #[serde(default)]
    pub approval: bool,
}

/// How many devices have the release after a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WaveSize {
    /// A number of devices.
    Count(u64),
    /// A share of all, 1 to 100; at least one device.
    Percent(u64),
}

/// What stops a rollout. A gate that is not named is as [`Gates::default`] has it; one that is `null` stops nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// One device more that refuses or reverts the release is a breach, whatever the share.
    pub max_failed: u64,
    /// Devices that refuse or revert it.
    pub install_failed: Option<Share>,
    /// Requests that the model cannot answer.
    pub errors: Option<Worse>,
    /// What an answer takes, each device beside itself.
    pub latency: Option<Ratio>,
    /// Answers in the shadow that are others than those of the release before.
    pub disagreement: Option<Share>,
    /// Shares of the classes that are answered.
    pub drift: Option<Shift>,
    /// Memory of the model's process.
    pub memory: Option<Memory>,
    /// Answers of the new release, over all devices, before which no gate passes.
    pub min_answers: u64,
    /// How long a wave is held for that after its soak; then the rollout pauses. Zero holds nothing.
    pub patience: Span,
}

/// At most this share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// 0 to 1.
    pub max: f64,
}

/// Against devices that do not have the release.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worse {
    /// With whom it is compared.
    #[serde(default)]
    pub vs: Control,
    /// The difference of rates that matters: surely worse, and nearer to this than to nothing, is a breach.
    pub worse_by: f64,
}

/// Against the same device with the release before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// With whom it is compared.
    #[serde(default, rename = "vs")]
    pub beside: Itself,
    /// The ratio that matters: surely slower, and nearer to this than to one, is a breach.
    pub ratio: f64,
}

/// Against devices that do not have the release.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// With whom it is compared.
    #[serde(default)]
    pub vs: Control,
    /// The change of a class's share that matters, as a part of that share.
    #[serde(default = "half")]
    pub by: f64,
}

fn half() -> f64 {
    0.5
}

/// Against what the manifest promises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What a process may hold, as a part of what the manifest promises.
    pub max_of_budget: f64,
}

/// The devices that are to have the release and do not have it yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// Them.
    #[default]
    Control,
}

/// The device itself, before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Itself {
    /// It.
    #[default]
    #[serde(rename = "self")]
    Itself,
}

/// Devices of which nothing is heard after they were assigned the release.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Silence {
    /// After so long without a verdict a device that was there is `unknown`; one that was away is only away. A wave in
    /// which nobody confirmed by then is a breach.
    pub deadline: Span,
    /// More of those that were assigned it, as a share, is a breach.
    pub max_unknown: f64,
    /// While more of the rollout's devices are away, as a share, nobody else is assigned it.
    pub max_away: f64,
}

/// What follows when a gate is breached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnBreach {
    /// What.
    #[serde(default)]
    pub action: Action,
}

/// What follows when a gate is breached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nobody else is assigned it; a person decides.
    Pause,
    /// The devices that have it are sent back.
    #[default]
    Revert,
}

/// How fast devices are assigned a release (the names are those of AWS IoT Jobs).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Pace {
    /// Devices a minute, at first.
    pub base_rate_per_minute: f64,
    /// By which the rate grows.
    #[serde(default = "one")]
    pub increment_factor: f64,
    /// When it does.
    #[serde(default)]
    pub rate_increase_criteria: RateIncrease,
    /// The most devices a minute.
    #[serde(default = "many")]
    pub maximum_per_minute: f64,
}

fn one() -> f64 {
    1.0
}

fn many() -> f64 {
    1_000.0
}

/// When the rate grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RateIncrease {
    /// Each time that so many devices more have confirmed; 0 for never.
    pub number_of_succeeded_things: u64,
}

/// A time of the week at which devices may be changed, by their own clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// `mon` to `sun`; none for every day. A window that passes midnight belongs to the day on which it begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// From this time, such as `22:00`.
    pub from: Clock,
    /// To this time; the same as `from` for the whole day.
    pub to: Clock,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "days of the week")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A time of the day in minutes; `22:30` when written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Clock(u16);

/// What is tried again. Only a refusal is: what served and was taken back is evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How often, on a device.
    pub times: u64,
    /// How long a device waits before each.
    pub after: Span,
    /// How often, on all devices of the rollout.
    pub budget: u64,
}

/// A time that passes, in milliseconds; written as a number and a unit: `90s`, `30m`, `24h`, `7d`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub u64);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a number and s, m, h or d, such as 24h".to_owned();
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let ms: u64 = match unit {
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 24 * 3_600_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(ms).map(Span).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(24 * 3_600_000, "d"), (3_600_000, "h"), (60_000, "m")];
        match units.iter().find(|(ms, _)| self.0 > 0 && self.0.is_multiple_of(*ms)) {
            Some((ms, unit)) => write!(f, "{}{unit}", self.0 / ms),
            None => write!(f, "{}s", self.0.div_ceil(1_000)),
        }
    }
}

impl FromStr for WaveSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is no wave: use a count such as 5 or a share such as 10%");
        let size = match text.strip_suffix('%') {
            Some(share) => WaveSize::Percent(share.parse().ok().filter(|s| (1..=100).contains(s)).ok_or_else(fault)?),
            None => WaveSize::Count(text.parse().ok().filter(|c| *c > 0).ok_or_else(fault)?),
        };
        Ok(size)
    }
}

impl fmt::Display for WaveSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaveSize::Count(count) => write!(f, "{count}"),
            WaveSize::Percent(share) => write!(f, "{share}%"),
        }
    }
}

impl FromStr for Clock {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no time of the day: write hours and minutes, such as 22:30");
        let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
        let number = |part: &str, below: u16| part.parse::<u16>().ok().filter(|n| part.len() == 2 && *n < below);
        match (number(hours, 24), number(minutes, 60)) {
            (Some(hours), Some(minutes)) => Ok(Self(hours * 60 + minutes)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

macro_rules! written {
    ($($name:ty),*) => { $(
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )* };
}
written!(Span, WaveSize, Clock);

impl WaveSize {
    /// Of so many devices.
    pub(crate) fn of(self, all: usize) -> usize {
        match self {
            WaveSize::Count(count) => usize::try_from(count).unwrap_or(all).min(all),
            WaveSize::Percent(share) => (all * share as usize).div_ceil(100).min(all),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        let number = |n: u64| U53::try_from(n).unwrap_or_default();
        let wave = |size| Wave { size, soak: Span(0), approval: false };
        Self {
            waves: vec![wave(WaveSize::Count(1)), wave(WaveSize::Percent(100))],
            trial: Trial { min_answers: number(20), window_s: number(600), ..Trial::default() },
            gates: Gates::default(),
            silence: Silence::default(),
            on_breach: OnBreach::default(),
            pace: None,
            at_once: None,
            windows: Vec::new(),
            timezone: "UTC".into(),
            retry: Retry::default(),
            approval: false,
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            max_failed: 0,
            install_failed: Some(Share { max: 0.02 }),
            errors: Some(Worse { vs: Control::Control, worse_by: 0.01 }),
            latency: Some(Ratio { beside: Itself::Itself, ratio: 1.2 }),
            disagreement: Some(Share { max: 0.05 }),
            drift: Some(Shift { vs: Control::Control, by: 0.5 }),
            memory: Some(Memory { max_of_budget: 1.0 }),
            min_answers: 0,
            patience: Span(0),
        }
    }
}

impl Default for Silence {
    fn default() -> Self {
        Self { deadline: Span::seconds(86_400), max_unknown: 0.05, max_away: 1.0 }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { times: 0, after: Span::seconds(600), budget: 100 }
    }
}

impl Policy {
    /// What of it makes no sense.
    ///
    /// # Errors
    /// The first fault, in words.
    pub fn check(&self) -> Result<(), String> {
        let share = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} is a share of 0 to 1, and not {value}")),
        };
        let above = |name: &str, value: f64, least: f64| match value.is_finite() && value > least {
            true => Ok(()),
            false => Err(format!("{name} is above {least}, and not {value}")),
        };
        if self.waves.len() > MAX_WAVES || self.windows.len() > MAX_WINDOWS {
            return Err(format!("a rollout has at most {MAX_WAVES} waves and {MAX_WINDOWS} windows"));
        }
        if self.at_once == Some(0) {
            return Err("at least one device at a time is on its way, or nothing ever happens".into());
        }
        let gates = &self.gates;
        gates.install_failed.map_or(Ok(()), |gate| share("install_failed.max", gate.max))?;
        gates.disagreement.map_or(Ok(()), |gate| share("disagreement.max", gate.max))?;
        gates.errors.map_or(Ok(()), |gate| above("errors.worse_by", gate.worse_by, 0.0))?;
        gates.latency.map_or(Ok(()), |gate| above("latency.ratio", gate.ratio, 1.0))?;
        gates.drift.map_or(Ok(()), |gate| above("drift.by", gate.by, 0.0))?;
        gates.memory.map_or(Ok(()), |gate| above("memory.max_of_budget", gate.max_of_budget, 0.0))?;
        share("silence.max_unknown", self.silence.max_unknown)?;
        share("silence.max_away", self.silence.max_away)?;
        if let Some(pace) = &self.pace {
            let rate = |name: &str, value: f64| match value > 0.0 && value <= MAX_RATE {
                true => Ok(()),
                false => Err(format!("{name} is above 0 and at most {MAX_RATE}, and not {value}")),
            };
            rate("pace.baseRatePerMinute", pace.base_rate_per_minute)?;
            rate("pace.maximumPerMinute", pace.maximum_per_minute)?;
            if !(1.0..=MAX_RATE).contains(&pace.increment_factor) {
                return Err(format!("pace.incrementFactor is at least 1, and not {}", pace.increment_factor));
            }
        }
        if self.silence.deadline.0 < 1_000 {
            return Err("silence.deadline is a second at least".into());
        }
        zone(&self.timezone).map(drop).ok_or_else(|| format!("there is no time zone `{}`", self.timezone))
    }

    /// Devices a minute, after so many have confirmed; `None` for as many as there are.
    pub(crate) fn rate(&self, confirmed: u64) -> Option<f64> {
        let pace = self.pace.as_ref()?;
        let steps = confirmed.checked_div(pace.rate_increase_criteria.number_of_succeeded_things).unwrap_or(0);
        let grown = pace.base_rate_per_minute * pace.increment_factor.powf(steps as f64);
        Some(grown.min(pace.maximum_per_minute))
    }

    /// Whether a device in this time zone may be changed at that moment. A zone that nobody knows is the policy's own.
    pub(crate) fn is_open(&self, timezone: Option<&str>, at: UnixMillis) -> bool {
        if self.windows.is_empty() {
            return true;
        }
        let zone = timezone.and_then(zone).or_else(|| zone(&self.timezone)).unwrap_or(TimeZone::UTC);
        let Some(moment) = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) else {
            return false;
        };
        let local = zone.to_datetime(moment);
        self.windows.iter().any(|window| window.holds(local.weekday(), local.time()))
    }
}

fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

impl Window {
    fn holds(&self, day: Weekday, time: Time) -> bool {
        let minute = i32::from(time.hour()) * 60 + i32::from(time.minute());
        let (from, to) = (i32::from(self.from.0), i32::from(self.to.0));
        let on = |day: Weekday| self.days.is_empty() || self.days.iter().any(|d| d.weekday() == day);
        if from < to {
            (from..to).contains(&minute) && on(day)
        } else {
            // It passes midnight: the morning belongs to the day before.
            (minute >= from && on(day)) || (minute < to && on(day.previous()))
        }
    }
}

impl Day {
    fn weekday(self) -> Weekday {
        match self {
            Day::Mon => Weekday::Monday,
            Day::Tue => Weekday::Tuesday,
            Day::Wed => Weekday::Wednesday,
            Day::Thu => Weekday::Thursday,
            Day::Fri => Weekday::Friday,
            Day::Sat => Weekday::Saturday,
            Day::Sun => Weekday::Sunday,
        }
    }
}
