//! A child process that runs cases, with a bound on its memory and on the time of each case.
//!
//! Whatever a case does to the child (a hang, an abort, an overflown stack), the next case meets a new one.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::sides::{Outcome, Verdict};

/// For one case on one side.
const TIME: Duration = Duration::from_secs(20);
/// KiB of address space.
const MEMORY: &str = "6291456";

/// The word on the command line that makes a process the child.
pub(crate) const CHILD: &str = "--child";

/// A child that runs cases; it is made when it is needed.
#[derive(Default)]
pub(crate) struct Bounded(Option<Running>);

struct Running {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start() -> io::Result<Running> {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" {CHILD}")]).arg(std::env::current_exe()?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (orders, out) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(out)) = (orders, out) else { return Err(io::Error::other("the child has no pipes")) };
        let (said, answers) = channel();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).all(|line| said.send(line).is_ok())
        });
        Ok(Running { child, orders, answers })
    }
}

impl Bounded {
    /// Runs one case on one side, within the bounds.
    pub(crate) fn run(&mut self, side: &str, folder: &Path, model: &str) -> io::Result<Verdict> {
        let mut running = match self.0.take() {
            Some(running) => running,
            None => Running::start()?,
        };
        writeln!(running.orders, "{side}\t{model}\t{}", folder.display())?;
        Ok(match running.answers.recv_timeout(TIME) {
            Ok(line) => {
                self.0 = Some(running);
                serde_json::from_str(&line)?
            }
            Err(RecvTimeoutError::Timeout) => Verdict::not(Outcome::Timeout, format!("no answer in {TIME:?}")),
            Err(RecvTimeoutError::Disconnected) => Verdict::not(Outcome::Abort, "the process ended"),
        })
    }
}
