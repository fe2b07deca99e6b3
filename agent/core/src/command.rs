//! What a device does when land asks for something now: a command, taken once, and what is said to it.
//!
//! Nothing of it is remembered over a start. Whether a command counts is for `trust`. One that was not believed is
//! noted and not answered, so that nobody but land makes the device speak.

use crate::agent::Agent;
use crate::step::Millis;
use crate::{Effect, Log};
use protocol::{CommandOutcome, CommandResult, StreamName};
use std::collections::BTreeMap;
use trust::{Code, Command, Refusal, Request, U53, Verified};

/// Processes that are on their way because land asked for them; no more are begun.
const MOST_RESTARTS: usize = 4;

fn named(stream: &str) -> Result<StreamName, Refusal> {
    stream.parse().map_err(|e| Refusal::new(Code::Request, format!("`{stream}`: {e}")))
}

/// What commands have begun.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    /// New processes that are on their way, and the result of each if all goes well.
    restarts: BTreeMap<StreamName, CommandResult>,
    /// When the log goes back to what the configuration says.
    pub(crate) log_until: Option<Millis>,
}

impl Agent {
    /// Does what a command asks, or says why not.
    pub(crate) fn take_command(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let command = self.trust.verify_command(bytes)?;
        let to_latest_hello = command.nonce == self.nonce;
        match self.trust.take_command(&command, self.now.mono) {
            // It was answered.
            Err(refusal) if to_latest_hello && refusal.code == Code::Replay => Err(refusal),
            Err(refusal) => {
                self.turn_down(&command, refusal.clone());
                Err(refusal)
            }
            Ok(()) => {
                let begun = self.commanded.take(self.now.mono).map_err(|_| {
                    Refusal::new(Code::Rate, format!("command {} came too soon after others", command.seq))
                });
                let begun = begun.and_then(|()| Request::read(&command.request));
                if let Err(refusal) = begun.and_then(|request| self.obey(&command, request)) {
                    self.turn_down(&command, refusal);
                }
                Ok(())
            }
        }
    }

    fn obey(&mut self, command: &Command, request: Request) -> Result<(), Refusal> {
        let done = self.result(command);
        match request {
            Request::Diagnostics {} => self.effects.push(Effect::Diagnose(done)),
            Request::Report {} => {
                self.report_due = true;
                self.effects.extend([Effect::Measure, Effect::DeliverResult(done)]);
            }
            Request::LogLevel { level, for_s } => {
                let until = self.now.mono.saturating_add(for_s.get().saturating_mul(1_000));
                self.commands.log_until = Some(until);
                self.effects.extend([Effect::SetLog(Log::Level(level)), Effect::DeliverResult(done)]);
            }
            Request::Labels { stream, labels } => {
                self.effects.push(Effect::Judge { stream, labels, result: done });
            }
            Request::Samples { stream, request, count, bytes, by, approved } => {
                let size = |number: U53| usize::try_from(number.get()).unwrap_or(usize::MAX);
                let (stream, request, count, bytes) = (named(&stream)?, request.get(), size(count), size(bytes));
                self.effects.push(Effect::Give { stream, request, count, bytes, by, approved, result: done });
            }
            Request::Restart { stream } => {
                let refuse = |why: String| Refusal::new(Code::Request, why);
                let name = named(&stream)?;
                let restarts = &self.commands.restarts;
                if self.serving(&name).is_none() {
                    return Err(refuse(format!("nothing answers for `{name}` on this device")));
                }
                if restarts.contains_key(&name) || restarts.len() >= MOST_RESTARTS {
                    return Err(refuse(format!("a new process is on its way already, before one for `{name}`")));
                }
                self.commands.restarts.insert(name.clone(), done);
                self.effects.push(Effect::Restart { stream: name });
            }
        }
        Ok(())
    }

    /// The process that land asked for answers, or did not come up.
    pub(crate) fn end_restart(&mut self, stream: &StreamName, outcome: Result<(), String>) {
        let Some(done) = self.commands.restarts.remove(stream) else { return };
        self.effects.push(Effect::DeliverResult(match outcome {
            Ok(()) => done,
            Err(why) => CommandResult { outcome: CommandOutcome::Failed, detail: Some(why), ..done },
        }));
    }

    /// The time of another log is over.
    pub(crate) fn calm_log(&mut self) {
        if self.commands.log_until.take_if(|until| *until <= self.now.mono).is_some() {
            self.effects.push(Effect::SetLog(Log::Configured));
        }
    }

    fn turn_down(&mut self, command: &Verified<Command>, refusal: Refusal) {
        let (code, detail) = (Some(refusal.code.to_string()), Some(refusal.detail));
        let result = self.result(command);
        self.effects.push(Effect::DeliverResult(CommandResult {
            outcome: CommandOutcome::Refused,
            code,
            detail,
            ..result
        }));
    }

    /// That it was done.
    fn result(&self, command: &Command) -> CommandResult {
        let (fleet, device) = (self.fleet.clone(), self.device.clone());
        CommandResult::done(fleet, device, command.nonce.clone(), command.seq.get())
    }
}
