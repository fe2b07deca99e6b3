//! The programs and how they are run: in a folder of their own, each ended with its value, and nothing waited for without
//! an end.
//!
//! Decides no figure and knows no command.

use anyhow::{Context, anyhow, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Generous: a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Of what a process said last, when it ended early.
const LAST_LINES: usize = 8;

/// Looks again and again until there is something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "{what} did not happen within {} seconds", PATIENCE.as_secs());
        park_timeout(LOOK_EVERY);
    }
}

/// A folder in which commands run, on the disk that the programs are on; it goes with this value.
pub(crate) struct Desk {
    programs: PathBuf,
    dir: TempDir,
}

impl Desk {
    pub(crate) fn new(programs: &Path) -> anyhow::Result<Self> {
        let programs = fs::canonicalize(programs).with_context(|| format!("there is no {}", programs.display()))?;
        let dir = tempfile::tempdir_in(&programs)?;
        Ok(Self { programs, dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        fs::read(self.path(name)).with_context(|| format!("cannot read {name}"))
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
        fs::write(self.path(name), content).with_context(|| format!("cannot write {name}"))
    }

    /// Takes a program's file out of the system's cache: how much of it the system maps beside what is used hangs on how it
    /// came there.
    pub(crate) fn forget(&self, program: &str) -> anyhow::Result<()> {
        let path = self.programs.join(program);
        let file = fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        file.sync_all()?;
        Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
    }

    /// A program by its name, or by its whole path when it is not ours; its words hold no spaces.
    fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = Command::new(self.programs.join(words.next().unwrap_or_default()));
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("PETREL_CONTEXT", self.path("context.toml")).env_remove("PETREL_LOG");
        command
    }

    /// Runs a command to its end, which must be a good one; gives what it printed.
    pub(crate) fn done(&self, line: &str) -> anyhow::Result<String> {
        let output = self.command(line).output().with_context(|| format!("cannot run `{line}`"))?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{line}` failed ({}):\n{}", output.status, words.trim_end());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The JSON of a command that must succeed.
    pub(crate) fn json(&self, line: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.done(&format!("{line} --json"))?)?)
    }

    /// Starts a program that runs until it is ended; what it says goes to the file `log`, after what is there.
    pub(crate) fn start(&self, line: &str, log: &str) -> anyhow::Result<Process> {
        let log = self.path(log);
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = self.command(line);
        let child = command.stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Process { child: child.with_context(|| format!("cannot start `{line}`"))?, log })
    }
}

/// A running program; it ends with this value, as a power cut ends it.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it said, and those before it with the same log.
    pub(crate) fn said(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Waits until it says something; fails when it ends before.
    pub(crate) fn says(&mut self, words: &str) -> anyhow::Result<()> {
        wait_for(&format!("`{words}` in {}", self.log.display()), || {
            self.runs()?;
            Ok(self.said()?.contains(words).then_some(()))
        })
    }

    /// Fails when it has ended.
    pub(crate) fn runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => Err(self.ended(status)?),
            None => Ok(()),
        }
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn succeeds(mut self) -> anyhow::Result<()> {
        let status = wait_for(&format!("the end of {}", self.log.display()), || Ok(self.child.try_wait()?))?;
        if status.success() { Ok(()) } else { Err(self.ended(status)?) }
    }

    /// With its last words.
    fn ended(&self, status: ExitStatus) -> anyhow::Result<anyhow::Error> {
        let said = self.said()?;
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        Ok(anyhow!("{} ended ({status}); its last words:\n{last}", self.log.display()))
    }

    /// Ends it without a word; it is gone afterwards.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.cut()
    }

    /// The same, for whoever holds it until another one takes its place.
    pub(crate) fn cut(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it has ended, however it did.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
