//! `petrel-agent self-test`: whether this board can be a device, before anything depends on it.
//!
//! Decides what is looked at and what is good enough. Each look is real: a file is written and synced, a process is
//! started and shut in, a model answers and is compared with what ONNX Runtime answered.

use crate::config::{self, Config};
use crate::driver::read_root;
use crate::fault::{Fault, told};
use crate::hardware;
use crate::identity::Slots;
use crate::store::Bundles;
use crate::telemetry;
use crate::worker::{Launch, Misstart, Process, Program};
use comfy_table::{Table, presets};
use engine::{Golden, Limits, read_npy};
use serde::Serialize;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The example model, and answers of ONNX Runtime: what this processor must give too.
const MODEL: &[u8] = include_bytes!("../../tests/models/digits/model.onnx");
const GOLDEN_X: &[u8] = include_bytes!("../../tests/models/digits/golden_x.npy");
const GOLDEN_Y: &[u8] = include_bytes!("../../tests/models/digits/golden_y.npy");
const TOLERANCE: (f64, f64) = (1e-4, 1e-4);
/// The example needs less.
const RAM_MB: u64 = 16;
/// A write that is durable; a slower disk makes each step of a release slow.
const SLOW_SYNC: Duration = Duration::from_millis(500);
const SYNCS: u32 = 5;
/// Below this there is hardly room for a bundle and the one before it.
const LITTLE_ROOM: u64 = 64 << 20;
/// No clock that was ever set shows an earlier time: 2024-01-01.
const EARLIEST: u64 = 1_704_067_200;
/// A certificate that ends sooner should have been renewed.
const SOON: u64 = 7 * 86_400;

/// Check whether this board can be a device: kernel, disk, clock, identity, and the answers of its processor
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  petrel-agent self-test --config /etc/petrel/agent.toml\nExit code 1 when something fails; warnings are no failure."
)]
pub(crate) struct SelfTestArgs {
    /// The configuration of the agent
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Print JSON, for machines
    #[arg(long)]
    pub(crate) json: bool,
}

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Good,
    Warning,
    Failed,
}

/// One look.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    grade: Grade,
    seen: String,
}

impl Finding {
    fn good(what: &'static str, seen: impl Into<String>) -> Self {
        Self { what, grade: Grade::Good, seen: seen.into() }
    }

    /// As good as it has to be, or a warning.
    fn unless(what: &'static str, doubtful: bool, seen: impl Into<String>) -> Self {
        Self { what, grade: if doubtful { Grade::Warning } else { Grade::Good }, seen: seen.into() }
    }

    fn of(what: &'static str, outcome: Result<Self, Fault>) -> Self {
        outcome.unwrap_or_else(|fault| {
            let advice = fault.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
            Self { what, grade: Grade::Failed, seen: told(&fault) + &advice }
        })
    }
}

impl SelfTestArgs {
    /// Looks at everything; what it returns is to be printed.
    ///
    /// # Errors
    /// When the configuration cannot be read, or something failed.
    pub(crate) fn run(self) -> anyhow::Result<String> {
        let config = Config::read(&self.config)?;
        let findings = look(&config);
        let failed = findings.iter().filter(|f| f.grade == Grade::Failed).count();
        let text = if self.json { serde_json::to_string(&findings)? } else { table(&findings) };
        if failed == 0 {
            return Ok(text);
        }
        println!("{text}");
        let what = format!("{failed} of {} checks failed: this board cannot be a device as it is", findings.len());
        Err(Fault::new(what).remedy("mend what is marked `failed` above").into())
    }
}

fn table(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["CHECK", "", "SEEN"]);
    table.add_rows(findings.iter().map(|finding| {
        let grade = match finding.grade {
            Grade::Good => "good",
            Grade::Warning => "WARNING",
            Grade::Failed => "FAILED",
        };
        [finding.what, grade, &finding.seen]
    }));
    table.to_string()
}

fn look(config: &Config) -> Vec<Finding> {
    let folder = config.state.join("self-test");
    let mut findings = vec![
        Finding::of("board", board(config)),
        Finding::of("memory", Ok(memory(config))),
        Finding::of("disk", disk(config, &folder)),
        Finding::of("clock", Ok(clock(config))),
        Finding::of("root of trust", read_root(config).map(|_| Finding::good("root of trust", "it is this fleet's"))),
        Finding::of("identity", identity(config)),
    ];
    findings.extend(heat(config));
    findings.extend(models(config, &folder));
    // What is left there is overwritten by the next look.
    let _ = fs::remove_dir_all(&folder);
    findings
}

fn board(config: &Config) -> Result<Finding, Fault> {
    hardware::check(config)?;
    let seen = match &config.profile {
        Some(profile) => format!("it is what its profile says: {}", profile.name),
        None => "it has no profile, so nothing is asked of it".to_owned(),
    };
    Ok(Finding::good("board", seen))
}

/// Nothing where no profile says where it is measured.
fn heat(config: &Config) -> Option<Finding> {
    let (sensor, seen, slows_at) = hardware::heat(config)?;
    Some(match seen {
        Some(degrees) => {
            let seen = format!("{degrees:.0} °C at {sensor}; the board slows itself down at {slows_at:.0}");
            Finding::unless("heat", degrees >= slows_at, seen)
        }
        None => Finding::unless("heat", true, format!("there is no sensor {sensor}, which the profile names")),
    })
}

fn memory(config: &Config) -> Finding {
    let (board, models) = (telemetry::board_memory_mb(), telemetry::limits(config).models_mb);
    let seen = format!("{board} MiB, {models} of them for models");
    Finding::unless("memory", models < RAM_MB || models > board, seen)
}

fn disk(config: &Config, folder: &Path) -> Result<Finding, Fault> {
    let fault = |why: std::io::Error| {
        Fault::new(format!("{} cannot be written", config.state.display()))
            .because(why)
            .remedy("make the folder of the key `state` writable for the agent, on a disk that is not full")
    };
    let write = || -> std::io::Result<Duration> {
        fs::create_dir_all(folder)?;
        let began = Instant::now();
        for _ in 0..SYNCS {
            let mut file = File::create(folder.join("written"))?;
            file.write_all(&[7; 4_096])?;
            file.sync_all()?;
            fs::rename(folder.join("written"), folder.join("kept"))?;
            File::open(folder)?.sync_all()?;
        }
        let took = began.elapsed() / SYNCS;
        match fs::read(folder.join("kept"))? == [7; 4_096] {
            true => Ok(took),
            false => Err(std::io::Error::other("what was written is not what is read")),
        }
    };
    let took = write().map_err(fault)?;
    let free = Bundles::open(crate::store::host(), &config.state).and_then(|bundles| bundles.free()).map_err(fault)?;
    let seen = format!("{} MiB are free, a durable write takes {:.1} ms", free >> 20, took.as_secs_f64() * 1e3);
    Ok(Finding::unless("disk", took > SLOW_SYNC || free < LITTLE_ROOM, seen))
}

fn clock(config: &Config) -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = i64::try_from(now).ok().and_then(trust::Time::from_unix).map_or("unknown".into(), |t| t.to_string());
    match now < EARLIEST {
        true => {
            let kept = config.profile.as_ref().is_some_and(|profile| profile.clock.rtc);
            let why =
                if kept { "it is not set, though this board keeps one: look at its battery" } else { "it is not set" };
            Finding::unless("clock", true, format!("{time}: {why}; the bridge's word sets the device's own"))
        }
        false => Finding::good("clock", time),
    }
}

fn identity(config: &Config) -> Result<Finding, Fault> {
    let found = Slots::of(&config.state).all()?;
    let Some(newest) = found.iter().max_by_key(|identity| identity.until) else {
        return Err(Fault::new("there is no key and no certificate").remedy("enrol it: `petrel-agent enrol`"));
    };
    if newest.device != config.device || newest.fleet != config.fleet {
        let what = format!("the certificate is of `{}` in fleet `{}`", newest.device, newest.fleet);
        return Err(Fault::new(what).remedy("correct the keys `device` and `fleet`, or enrol the device anew"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let until = i64::try_from(newest.until).ok().and_then(trust::Time::from_unix);
    let seen = until.map_or("a certificate".into(), |until| format!("a certificate until {until}"));
    Ok(Finding::unless("identity", now >= EARLIEST && newest.until < now + SOON, seen))
}

/// A model in a process of its own, its answers, and how that process is shut in.
fn models(config: &Config, folder: &Path) -> Vec<Finding> {
    const ENGINE: &str = "engine";
    let launch = match bundle(folder) {
        Ok(dir) => {
            let (program, patience) = (Program::own(), config.load);
            Launch { program, dir, rows_at_once: None, ram_mb: RAM_MB, baseline: None, patience }
        }
        Err(fault) => return vec![Finding::of(ENGINE, Err(fault))],
    };
    let compared = launch.probe(Some("golden.npz".into()), TOLERANCE).map_err(|why| {
        Fault::new("the example model does not answer as ONNX Runtime did").because(told(&why)).remedy(
            "this processor or its build of the agent computes something else: report it with `petrel-agent --version`",
        )
    });
    let engine = compared.map(|agreed| {
        let seen = format!("{} rows as ONNX Runtime has them, {} us each", agreed.rows, agreed.row_us);
        Finding::good(ENGINE, seen)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(Misstart::System);
    let started = runtime.and_then(|runtime| Process::start(launch, 1, runtime.handle().clone(), |_| {}));
    let sandbox = started
        .map(|process| process.sandbox)
        .map_err(|why| Fault::new("no model's process could be started").because(told(&why)));
    let shut_in = sandbox.map(|sandbox| match crate::status::missing(sandbox) {
        None => Finding::good("sandbox", "files, calls and memory of a model's process are shut in"),
        Some(missing) => Finding::unless("sandbox", true, format!("a model's process is not shut in by {missing}")),
    });
    vec![Finding::of(ENGINE, engine), Finding::of("sandbox", shut_in)]
}

/// The example as a bundle's folder.
fn bundle(folder: &Path) -> Result<PathBuf, Fault> {
    let fault = |why: Box<dyn std::error::Error + Send + Sync>| {
        Fault::new("the example model cannot be written").because(why).remedy("see what is said of the disk")
    };
    let write = || -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> {
        fs::create_dir_all(folder)?;
        for (name, bytes) in [("model.onnx", MODEL), ("x.npy", GOLDEN_X), ("y.npy", GOLDEN_Y)] {
            fs::write(folder.join(name), bytes)?;
        }
        let tensor = |name: &str| read_npy(&folder.join(name), &Limits::default());
        let (inputs, outputs) = (vec![("image".into(), tensor("x.npy")?)], vec![("logits".into(), tensor("y.npy")?)]);
        Golden { inputs, outputs }.write(&folder.join("golden.npz"))?;
        Ok(std::path::absolute(folder)?)
    };
    write().map_err(fault)
}
