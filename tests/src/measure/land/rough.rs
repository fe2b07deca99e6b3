//! Land's bad days under that load: a bridge that is killed again and again, and a disk that takes no more.
//!
//! What the broker has acknowledged to a device must be in the bridge's database in the end, and nothing may be half-written;
//! without that there is no figure.

use super::kept::Kept;
use super::rest::Rest;
use super::{ADMIN, Crowd, reached};
use crate::programs::{Process, wait_for};
use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::path::Path;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

const KILLS: usize = 20;
/// How often is looked when something is to happen in the middle of it.
pub(super) const MOMENT: Duration = Duration::from_millis(20);
/// Where strace may be.
const STRACE: [&str; 2] = ["/usr/bin/strace", "/usr/local/bin/strace"];
/// What SQLite writes with fails as on a disk without room.
const NO_ROOM: &str = "-f -e trace=pwrite64 -e signal=none -e inject=pwrite64:error=ENOSPC";
/// Starts that are tried on the full disk.
const TRIES: usize = 3;
/// A bridge that has not ended by then lives with the full disk.
const ENDURES: Duration = Duration::from_secs(20);

impl Crowd {
    /// Starts the bridge again; its address is another one.
    pub(super) fn land_again(&mut self) -> anyhow::Result<()> {
        self.fleet.bridge_again()?;
        self.rest = Rest::new(&self.fleet, ADMIN)?;
        Ok(())
    }
}

/// Kills at any moment while it takes what devices say; they go on saying something while it is away.
pub(super) fn kills(crowd: &mut Crowd) -> anyhow::Result<Value> {
    let mut dice = fastrand::Rng::with_seed(20);
    let (mut messages, mut longest, mut lost) = (0, 0.0_f64, 0);
    for round in 1..=KILLS {
        let (first, more) = (crowd.sign(1)?, crowd.sign(1)?);
        let mut kept = Kept::open(&crowd.database)?;
        let (before, some) = (kept.count()?, dice.u64(1..=first.len() as u64));
        messages += first.len() + more.len();
        crowd.say(first)?;
        reached("what is kept", before + some, MOMENT, || kept.count())?;
        // Nobody else has the database open when the bridge is gone: it is mended by the next one.
        drop(kept);
        crowd.fleet.bridge().cut()?;
        let began = Instant::now();
        crowd.say(more)?;
        crowd.land_again()?;
        crowd.acknowledged()?;
        lost += crowd.settled()?;
        let seconds = began.elapsed().as_secs_f64();
        longest = longest.max(seconds);
        eprintln!("  kill {round}, after {some} messages: settled after {seconds:.1} s, {lost} lost so far");
    }
    Kept::open(&crowd.database)?.is_whole()?;
    Ok(json!({ "kills": KILLS, "messages": messages, "lost": lost, "longest_s": longest }))
}

/// The disk is full while devices speak, and for a while after that; then there is room again.
pub(super) fn full(crowd: &mut Crowd) -> anyhow::Result<Value> {
    let strace = STRACE.into_iter().find(|path| Path::new(path).exists());
    let strace = strace.context("strace is not installed: on Debian, `apt-get install strace`")?;
    let (first, more) = (crowd.sign(1)?, crowd.sign(1)?);
    let messages = first.len() + more.len();
    let bridge = crowd.fleet.bridge().id();
    let mut full = crowd.fleet.desk.start(&format!("{strace} {NO_ROOM} -p {bridge}"), "strace.log")?;
    full.says("attached")?;
    crowd.say(first)?;
    let ended = ends(crowd.fleet.bridge())?;
    // It may have ended by itself, and this with it.
    stop(&mut full)?;
    ensure!(full.said()?.contains("(INJECTED)"), "nobody has written anything to the full disk");
    crowd.say(more)?;
    let mut in_vain = 0;
    for _ in 0..if ended { TRIES } else { 0 } {
        let line = format!("{strace} {NO_ROOM} {}", crowd.fleet.desk.path("../petrel").display());
        let mut again = crowd.fleet.desk.start(&format!("{line} bridge --config fleet/bridge.toml"), "strace.log")?;
        in_vain += u64::from(ends(&mut again)?);
        stop(&mut again)?;
    }
    crowd.acknowledged()?;
    let began = Instant::now();
    if ended {
        crowd.land_again()?;
    }
    let lost = crowd.settled()?;
    let seconds = began.elapsed().as_secs_f64();
    Kept::open(&crowd.database)?.is_whole()?;
    Ok(json!({
        "messages": messages, "lost": lost, "ended": ended, "starts_in_vain": in_vain, "seconds": seconds,
    }))
}

/// Takes the full disk away; what strace has started itself ends with it, and nothing else.
fn stop(strace: &mut Process) -> anyhow::Result<()> {
    if strace.has_ended()? {
        return Ok(());
    }
    let id = i32::try_from(strace.id())?;
    kill_process(Pid::from_raw(id).context("no process has this number")?, Signal::TERM)?;
    wait_for("the end of strace", || Ok(strace.has_ended()?.then_some(())))
}

/// Whether it ends within some time.
fn ends(process: &mut Process) -> anyhow::Result<bool> {
    let end = Instant::now() + ENDURES;
    while Instant::now() < end {
        if process.has_ended()? {
            return Ok(true);
        }
        park_timeout(Duration::from_millis(5));
    }
    Ok(false)
}
